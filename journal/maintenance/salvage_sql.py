"""The statements by which `salvaging` decides: over the tables of `gathering`, and these."""

from typing import Final

TABLES: Final = """
CREATE TABLE head_owner (page INTEGER PRIMARY KEY, owner);
CREATE TABLE id_owner (page INTEGER PRIMARY KEY, owner);
CREATE TABLE name (owner, id INTEGER, uuid, PRIMARY KEY (owner, id, uuid)) WITHOUT ROWID;
CREATE TABLE found_block (first_seq INTEGER, last_seq, min_timestamp, max_timestamp, salt,
    content_digest, digest, redacted_digest, sealed, state, is_linked);
CREATE TABLE kept_block (first_seq INTEGER PRIMARY KEY, last_seq, min_timestamp, max_timestamp,
    salt, content_digest, digest, redacted_digest, sealed, state);
CREATE TABLE chosen (seq INTEGER PRIMARY KEY, kind, session, stream, timestamp, data,
    session_prev, stream_prev, is_proven);
CREATE TABLE apart (seq, kind, session, stream, timestamp, data, session_prev, stream_prev, page,
    reason);
CREATE TABLE lost (first_seq INTEGER PRIMARY KEY, last_seq);
"""

BLOCK_COLUMNS: Final = (
    "first_seq, last_seq, min_timestamp, max_timestamp, salt, content_digest, digest,"
    " redacted_digest, sealed"
)

ABSENT_TEXT_SQL: Final = """
SELECT first_seq, last_seq, reason, counts, min_timestamp, max_timestamp, digest_before,
    digest_after, forgotten, declared_at, check_digest,
    json_array(first_seq, last_seq, reason, counts, min_timestamp, max_timestamp, digest_before,
        digest_after, forgotten, declared_at)
FROM raw_absent WHERE first_seq <= last_seq ORDER BY first_seq, declared_at DESC
"""

OWNER_SQL: Final = """
INSERT OR REPLACE INTO {found}_owner
SELECT page, CASE WHEN sessions > streams * :share THEN 'session'
    WHEN streams > sessions * :share THEN 'stream' END
FROM (
    SELECT page, sum({sessions} + (p.owner IS 'session')) AS sessions,
        sum({streams} + (p.owner IS 'stream')) AS streams
    FROM raw_{found} AS h LEFT JOIN page_of AS p USING (page)
    WHERE page NOT IN (SELECT page FROM {found}_owner WHERE owner IS NOT NULL)
    GROUP BY page
)
"""
HAS_ITS_LAST_SQL: Final = (
    "EXISTS (SELECT 1 FROM raw_event AS e WHERE e.seq = h.last_seq AND e.{owner} = h.id)"
)
AGREES_SQL: Final = (
    "ifnull((SELECT max(CASE WHEN n.uuid = h.uuid THEN 1 ELSE -1 END) FROM name AS n"
    " WHERE n.owner = '{owner}' AND n.id = h.id), 0)"
)
"""The rows of session and stream look alike, and so do the entries of their indexes. Those of a
page are of whatever their last events are; or they agree with the ids of one, or at least do not
contradict them as they do those of the other. What the schema says counts as one vote of each."""

UNDECIDED_SQL: Final = """
CREATE TABLE undecided (page INTEGER PRIMARY KEY, part INTEGER);
INSERT OR IGNORE INTO undecided
SELECT page, page FROM (
    SELECT page FROM head_owner WHERE owner IS NULL
    UNION SELECT page FROM id_owner WHERE owner IS NULL
);
CREATE INDEX undecided_by_part ON undecided (part);
CREATE TABLE trial (owner, id INTEGER, uuid, PRIMARY KEY (owner, id, uuid)) WITHOUT ROWID;
CREATE TABLE trial_page (page INTEGER PRIMARY KEY, owner);
CREATE INDEX raw_child_by_page ON raw_child (page)
"""

TOGETHER_SQL: Final = """
WITH RECURSIVE up AS (
    SELECT page FROM undecided UNION SELECT c.parent FROM up AS u JOIN raw_child AS c USING (page)
)
SELECT c.page, c.parent FROM up AS u JOIN raw_child AS c USING (page)
UNION SELECT h.page, i.page
FROM raw_id AS i CROSS JOIN raw_head AS h ON h.id = i.id AND h.uuid = i.uuid
WHERE h.page IN (SELECT page FROM undecided) AND i.page IN (SELECT page FROM undecided)
"""
"""Pages are of one table that are below the same page, or where the index has what the row has."""

BLOCKS_OF_PART_SQL: Final = f"""
SELECT DISTINCT {", ".join(f"b.{name.strip()}" for name in BLOCK_COLUMNS.split(","))}
FROM undecided AS u
    CROSS JOIN raw_head AS h ON h.page = u.page
    CROSS JOIN raw_event AS e ON e.seq = h.last_seq AND h.id IN (e.session, e.stream)
    CROSS JOIN raw_block AS b ON b.first_seq BETWEEN e.seq - :size + 1 AND e.seq
        AND b.last_seq >= e.seq
WHERE u.part = :part LIMIT :most
"""

TRIAL_SQL: Final = """
INSERT INTO trial_page SELECT page, :owner FROM undecided WHERE part = :part;
CREATE TEMP TABLE its_id AS
SELECT id, uuid FROM raw_head WHERE page IN (SELECT page FROM trial_page)
UNION SELECT id, uuid FROM raw_id WHERE page IN (SELECT page FROM trial_page);
CREATE INDEX temp.its_id_by_id ON its_id (id);
INSERT OR IGNORE INTO trial_page
SELECT page, :other FROM undecided WHERE part IN (
    SELECT part FROM undecided AS u CROSS JOIN raw_head AS f ON f.page = u.page
        CROSS JOIN its_id AS i ON i.id = f.id AND i.uuid <> f.uuid
    UNION SELECT part FROM undecided AS u CROSS JOIN raw_id AS f ON f.page = u.page
        CROSS JOIN its_id AS i ON i.id = f.id AND i.uuid <> f.uuid
);
DROP TABLE its_id;
INSERT INTO trial
SELECT f.owner, f.id, f.uuid FROM (
    SELECT owner, id, uuid FROM trial_page JOIN raw_head USING (page)
    UNION SELECT owner, id, uuid FROM trial_page JOIN raw_id USING (page)
) AS f
WHERE NOT EXISTS (SELECT 1 FROM name AS n WHERE n.owner = f.owner AND n.id = f.id);
INSERT INTO name SELECT * FROM trial
"""
"""Taken for the other one are those that have other ids for the same numbers."""

DECIDED_SQL: Final = """
INSERT OR REPLACE INTO head_owner SELECT page, owner FROM trial_page
WHERE page IN (SELECT page FROM head_owner);
INSERT OR REPLACE INTO id_owner SELECT page, owner FROM trial_page
WHERE page IN (SELECT page FROM id_owner);
DELETE FROM undecided WHERE page IN (SELECT page FROM trial_page);
DELETE FROM trial;
DELETE FROM trial_page
"""

NO_TRIAL_SQL: Final = """
DELETE FROM name WHERE (owner, id, uuid) IN (SELECT owner, id, uuid FROM trial);
DELETE FROM trial;
DELETE FROM trial_page
"""

EITHER_SQL: Final = """
CREATE TABLE either AS
SELECT o.column1 AS owner, f.id, f.uuid
FROM (
    SELECT page, id, uuid FROM raw_head JOIN head_owner USING (page) WHERE owner IS NULL
    UNION SELECT page, id, uuid FROM raw_id JOIN id_owner USING (page) WHERE owner IS NULL
) AS f CROSS JOIN (VALUES ('session'), ('stream')) AS o
WHERE (SELECT count(*) FROM raw_head AS h WHERE h.page = f.page) <= 8
    AND (SELECT count(*) FROM raw_id AS i WHERE i.page = f.page) <= 8
    AND NOT EXISTS (SELECT 1 FROM name AS n WHERE n.owner = o.column1 AND n.id = f.id);
INSERT OR IGNORE INTO name SELECT * FROM either
"""
"""Of a few that may be of either, a digest decides; with more, there would be too much to try."""

LINKED_SQL: Final = """
UPDATE found_block AS f SET is_linked =
    (f.first_seq = 1 AND f.digest = chained(:genesis, f.content_digest))
    OR EXISTS (SELECT 1 FROM found_block AS p WHERE p.last_seq = f.first_seq - 1
        AND f.digest = chained(p.digest, f.content_digest))
    OR EXISTS (SELECT 1 FROM found_block AS n WHERE n.first_seq = f.last_seq + 1
        AND n.digest = chained(f.digest, n.content_digest))
"""

OTHERS_SQL: Final = """
CREATE TABLE other AS
SELECT r.seq, r.kind, r.session, r.stream, r.timestamp, r.data, r.session_prev, r.stream_prev,
    max(r.is_sound) AS is_sound, min(r.page) AS page,
    sum(max(r.is_sound)) OVER (PARTITION BY r.seq) AS versions,
    k.state, k.min_timestamp, k.max_timestamp
FROM raw_event AS r
    LEFT JOIN kept_block AS k ON k.last_seq >= r.seq AND k.first_seq = (
        SELECT first_seq FROM kept_block WHERE first_seq <= r.seq ORDER BY first_seq DESC LIMIT 1)
WHERE r.seq >= 1
    AND NOT EXISTS (SELECT 1 FROM chosen AS c WHERE c.seq = r.seq AND c.kind IS r.kind
        AND c.session IS r.session AND c.stream IS r.stream AND c.timestamp IS r.timestamp
        AND c.data IS r.data)
    AND ifnull((SELECT last_seq < r.seq FROM absence WHERE first_seq <= r.seq
        ORDER BY first_seq DESC LIMIT 1), 1)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""
"""What is not among the events of proven blocks, nor of what was left out on purpose."""

DISAGREEING_SQL: Final = """
CREATE TABLE IF NOT EXISTS disagreeing (seq);
CREATE TEMP TABLE doubt AS
SELECT seq, is_proven, link, before, before_is_proven FROM (
    SELECT seq, is_proven, {owner}_prev AS link, lag(seq) OVER following AS before,
        lag(is_proven) OVER following AS before_is_proven
    FROM chosen WHERE {owner} IS NOT NULL
    WINDOW following AS (PARTITION BY {owner} ORDER BY seq)
)
WHERE link IS NOT before AND NOT (
    link IS NOT NULL AND link > ifnull(before, 0) AND link < seq
    AND NOT EXISTS (SELECT 1 FROM chosen AS c WHERE c.seq = link)
);
INSERT INTO disagreeing
SELECT seq FROM doubt WHERE NOT is_proven
UNION SELECT before FROM doubt WHERE NOT before_is_proven
UNION SELECT link FROM doubt WHERE is_proven
    AND link IN (SELECT seq FROM chosen WHERE NOT is_proven);
DROP TABLE doubt
"""
"""A link leads to the event before, or to one that is missing and comes after that. Where it does
not, one of the two is wrong; what is proven is not."""

LAST_SQL: Final = """
SELECT max(position) FROM (
    SELECT max(seq) AS position FROM chosen
    UNION ALL SELECT max(last_seq) FROM kept_block
    UNION ALL SELECT max(last_seq) FROM absence
    UNION ALL SELECT 0
    UNION ALL SELECT * FROM (
        SELECT * FROM (
            SELECT last_seq AS said FROM raw_head JOIN head_owner USING (page)
                WHERE owner IS NOT NULL
            UNION ALL SELECT position FROM raw_checkpoint
            UNION ALL SELECT last_seq FROM raw_append_key WHERE last_seq IS NOT NULL
            UNION ALL SELECT seq FROM apart
        )
        WHERE NOT :is_changed ORDER BY said DESC LIMIT 1 OFFSET 1
    )
)
"""
"""The largest position that was ever given, as far as two places say so."""

LOST_SQL: Final = """
INSERT INTO lost
SELECT before + 1, first - 1 FROM (
    SELECT first, lag(last, 1, 0) OVER (ORDER BY first) AS before FROM (
        SELECT seq AS first, seq AS last FROM chosen
        UNION ALL SELECT first_seq, last_seq FROM absence
        UNION ALL SELECT :last + 1, :last + 1
    )
)
WHERE first > before + 1
"""
