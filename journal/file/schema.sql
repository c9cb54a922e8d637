-- The journal file, format 1. An SQLite database in WAL mode; FORMAT.md is its specification.
--
--   application_id   0x504A534A ("PJSJ")
--   user_version     1, the format version
--   auto_vacuum      INCREMENTAL, so that pruning can give space back in small steps
--
-- To ask questions, use the views. The tables under them are small on purpose: ids, kinds and
-- times are integers, and events are found by following links instead of by indexes, which would
-- have to be written on every append.

-- Facts about the file.
--   journal_id           the identity of the journal, a UUID; with a position, that of an event
--   created_at           RFC 3339, UTC
--   library_version      the version of journal that created the file
--   min_reader_version   the lowest format version that a program must know in order to read it
--   label                what people call the journal, as they named a device; may be missing
--   closed               'ship', 'delta' or 'recover': the file is a copy made by that, and nobody
--                        appends to it; missing in a journal
--   merged               '1': other journals were merged into this one; missing otherwise
--   redacted             JSON array: which texts were redacted, how, and in how many events; missing
--                        where none was
--   wal_id               a name for the -wal that the last changes went through; may be missing
--   wal_follows          the wal_id that was there before
--   session_mark         the largest session.id that was ever given, where rows of session were
--   stream_mark          deleted; stream_mark likewise
CREATE TABLE meta (
    key    TEXT NOT NULL PRIMARY KEY,
    value  TEXT NOT NULL
);

-- The kinds of event in this file, and only here: codes mean nothing in another file.
CREATE TABLE kind (
    code    INTEGER PRIMARY KEY,        -- stands for the kind in event.kind
    name    TEXT    NOT NULL,           -- the event_type on the wire
    fields  TEXT                        -- JSON array of the names of the values in event.data, a
                                        -- dot between a nested object and its key, '[]' for none;
                                        -- NULL: the writer did not know the kind, and event.data
                                        -- is the event's whole JSON text
);

-- A kind that was kept whole before it was known has two codes.
CREATE UNIQUE INDEX kind_name_fields ON kind (name, ifnull(fields, ''));

-- The sessions, each with the head of the chain of its events. Numbers are never used again.
CREATE TABLE session (
    id           INTEGER PRIMARY KEY,    -- stands for the session in this file, and only here
    uuid         BLOB    NOT NULL UNIQUE,-- sixteen bytes, big-endian
    last_seq     INTEGER NOT NULL,       -- position of its latest event
    event_count  INTEGER NOT NULL        -- how many events it has, those before a cut among them:
                                         -- its version
);

-- The streams, likewise.
CREATE TABLE stream (
    id           INTEGER PRIMARY KEY,
    uuid         BLOB    NOT NULL UNIQUE,
    last_seq     INTEGER NOT NULL,
    event_count  INTEGER NOT NULL
);

-- The events, in append order. Rows are added and never changed; they are deleted only where the
-- table absent says so.
CREATE TABLE event (
    seq           INTEGER PRIMARY KEY,   -- the position: 1, 2, 3, ... without gaps but for absent
    kind          INTEGER NOT NULL,      -- kind.code
    session       INTEGER NOT NULL,      -- session.id
    stream        INTEGER,               -- stream.id; NULL for an event of the session itself
    timestamp     INTEGER NOT NULL,      -- nanoseconds since 1970-01-01T00:00:00Z
    data          TEXT,                  -- see kind.fields; NULL where the kind has no fields
    session_prev  INTEGER,               -- position of the event before, of the same session
    stream_prev   INTEGER                -- position of the event before, of the same stream;
                                         -- both may lie in what is absent by now: the chain ends
);

-- The events in ranges of at most 1000 positions, each range with a digest of what its events
-- mean. A block is sealed once and for all at every thousandth position, or earlier when its data
-- reaches a mebibyte. The one at the end may be open: its row is made with its first event, covers
-- what was there when it was last written, and is written again when the journal is closed. Where a
-- journal goes on from a copy, the last block of that is sealed as it is.
CREATE TABLE block (
    first_seq        INTEGER PRIMARY KEY,-- position of its first event
    last_seq         INTEGER NOT NULL,   -- position of the last event that it covers, inclusive
    min_timestamp    INTEGER NOT NULL,   -- smallest event.timestamp in it
    max_timestamp    INTEGER NOT NULL,   -- largest
    salt             TEXT,               -- 32 random hexadecimal digits; NULL: redacted
    content_digest   TEXT    NOT NULL,   -- SHA-256, 64 hexadecimal digits, over the salt and the
                                         -- JSON text of the events: the statement is in FORMAT.md
    digest           TEXT    NOT NULL,   -- SHA-256 over the digest of the block before (64 zeros
                                         -- before the first) and content_digest
    redacted_digest  TEXT,               -- SHA-256 over the JSON text of what it holds now, where
                                         -- a text in it was redacted; NULL: none was
    sealed           INTEGER NOT NULL    -- 1, or 0 while the block is open
);

-- Finds the blocks that hold anything later than a given instant.
CREATE INDEX block_max_timestamp ON block (max_timestamp);

-- The positions at which there is no event any more, or in this file. Positions have no other gaps.
CREATE TABLE absent (
    first_seq      INTEGER PRIMARY KEY,  -- of the range, inclusive
    last_seq       INTEGER NOT NULL,     -- inclusive
    reason         TEXT    NOT NULL,     -- 'pruned', 'before delta' or 'lost'
    counts         TEXT,                 -- JSON object: how many events of each kind; NULL: unknown
    min_timestamp  INTEGER,              -- smallest event.timestamp in it; NULL: unknown
    max_timestamp  INTEGER,              -- largest
    digest_before  TEXT,                 -- the digest at the position before it; NULL: unknown
    digest_after   TEXT,                 -- the digest at its last position
    forgotten      TEXT,                 -- JSON object: how many "sessions" and "streams" that
                                         -- nothing is left of ended in each state
    declared_at    TEXT    NOT NULL,     -- when this row was written, RFC 3339
    check_digest   TEXT    NOT NULL      -- SHA-256 over the JSON array of the columns before
);

-- What a projection had made of the events before a cut, for folding to go on from.
CREATE TABLE base (
    projection    TEXT    NOT NULL PRIMARY KEY,-- its name, as in checkpoint
    version       INTEGER NOT NULL,      -- of the fold that made it
    position      INTEGER NOT NULL,      -- of the last event folded: where the cut is
    check_digest  TEXT    NOT NULL       -- the SHA-256 of the JSON array of each of its rows,
                                         -- combined by exclusive or
);

-- The sessions that go on after a cut.
CREATE TABLE base_session (
    session        INTEGER PRIMARY KEY,  -- session.id
    events_before  INTEGER NOT NULL,     -- how many of its events lie before the cut
    state          TEXT                  -- JSON object; NULL: it is not folded
);

-- The streams that go on after a cut.
CREATE TABLE base_stream (
    stream         INTEGER PRIMARY KEY,  -- stream.id
    events_before  INTEGER NOT NULL,     -- how many of its events lie before the cut
    session        INTEGER NOT NULL,     -- session.id of the session that it belongs to: that of
                                         -- its first event
    state          TEXT                  -- JSON object; NULL: it is not folded
);

-- Finds the streams of a session.
CREATE INDEX base_stream_session ON base_stream (session);

-- The states of an application's own projections at a cut.
CREATE TABLE base_state (
    projection  TEXT NOT NULL,           -- base.projection
    key         TEXT NOT NULL,           -- '' for a projection without keys
    state       TEXT NOT NULL,           -- JSON
    PRIMARY KEY (projection, key)
) WITHOUT ROWID;

-- How far whoever reads the events in order has come. A projection's rows and this one change in
-- the same transaction.
CREATE TABLE checkpoint (
    name      TEXT    NOT NULL PRIMARY KEY,-- of the projection, or of the subscription
    type      TEXT    NOT NULL,          -- 'projection' or 'subscription'
    version   INTEGER NOT NULL,          -- of the fold; what another version made is stale
    position  INTEGER NOT NULL,          -- of the last event taken; 0 before the first
    since     INTEGER NOT NULL           -- of the first event that it counts: 1, or later where it
                                         -- began after a cut and had no base
);

-- The idempotency keys that were used in appending.
CREATE TABLE append_key (
    key        TEXT    NOT NULL PRIMARY KEY,-- as the caller gave it
    first_seq  INTEGER,                  -- positions of the events that it stands for,
    last_seq   INTEGER,                  -- both NULL for an empty append
    digest     TEXT    NOT NULL,         -- SHA-256 of their canonical JSON, a line feed after each
    used_at    INTEGER NOT NULL          -- nanoseconds since 1970
);

-- How far each opening of the journal for writing has come in appending. A row changes in the same
-- transaction as what it tells of, and goes when that journal is closed in good order. May be
-- missing: files of earlier versions have no such table.
CREATE TABLE writer (
    id         INTEGER PRIMARY KEY,      -- larger than those of the rows before it
    token      TEXT    NOT NULL,         -- 32 random hexadecimal digits, of that opening
    commit_no  INTEGER NOT NULL,         -- the number of its latest transaction that appended
    last_seq   INTEGER NOT NULL          -- position of the last event at that time
);

-- Where ranges of positions came from, in a journal that goes on from a copy of another one, or that
-- others were merged into: their events were appended to that, and have there a position of its
-- own. Positions that no range has were given by this journal. A block lies in one range, or in none.
CREATE TABLE origin (
    first_seq         INTEGER PRIMARY KEY,-- of the range, inclusive
    last_seq          INTEGER NOT NULL,  -- inclusive
    journal_id        TEXT    NOT NULL,  -- of the journal that it was appended to, a UUID
    branch            TEXT    NOT NULL,  -- which of two histories of that, where they parted; ''
    label             TEXT,              -- what that was called; NULL: nothing
    source_first_seq  INTEGER NOT NULL,  -- the position there of what is at first_seq here
    declared_at       TEXT    NOT NULL,  -- when this row was written, RFC 3339
    check_digest      TEXT    NOT NULL   -- SHA-256 over the JSON array of the columns before
);

-- Finds where the events of another journal are. May be missing, as the three tables below.
CREATE INDEX origin_source ON origin (journal_id, branch, source_first_seq);

-- The blocks of the journals that were merged into this one, as they are there: with the positions
-- that the events have there. Without merged in meta, the blocks of other journals are in block.
CREATE TABLE origin_block (
    journal_id       TEXT    NOT NULL,   -- as in origin
    branch           TEXT    NOT NULL,
    first_seq        INTEGER NOT NULL,   -- as in block, from here on
    last_seq         INTEGER NOT NULL,
    min_timestamp    INTEGER NOT NULL,
    max_timestamp    INTEGER NOT NULL,
    salt             TEXT,
    content_digest   TEXT    NOT NULL,
    digest           TEXT    NOT NULL,
    redacted_digest  TEXT,
    sealed           INTEGER NOT NULL,
    PRIMARY KEY (journal_id, branch, first_seq)
) WITHOUT ROWID;

-- What the files that were merged into this one say is not in them, by the positions there; what
-- another file had of it is in origin all the same.
CREATE TABLE origin_absent (
    journal_id     TEXT    NOT NULL,     -- as in origin
    branch         TEXT    NOT NULL,
    first_seq      INTEGER NOT NULL,     -- as in absent, from here on
    last_seq       INTEGER NOT NULL,
    reason         TEXT    NOT NULL,     -- as in absent, or 'elsewhere' or 'other branch': whose
                                         -- the events of these positions are
    counts         TEXT,
    min_timestamp  INTEGER,
    max_timestamp  INTEGER,
    digest_before  TEXT,
    digest_after   TEXT,
    forgotten      TEXT,
    declared_at    TEXT    NOT NULL,
    check_digest   TEXT    NOT NULL,     -- SHA-256 over the JSON array of the columns before
    PRIMARY KEY (journal_id, branch, first_seq)
) WITHOUT ROWID;

-- The idempotency keys that were used in appending to those journals. They answer nothing here.
CREATE TABLE origin_key (
    journal_id  TEXT    NOT NULL,        -- as in origin
    branch      TEXT    NOT NULL,
    key         TEXT    NOT NULL,        -- as in append_key, from here on
    first_seq   INTEGER,
    last_seq    INTEGER,
    digest      TEXT    NOT NULL,
    used_at     INTEGER NOT NULL,
    PRIMARY KEY (journal_id, branch, key)
) WITHOUT ROWID;

CREATE TRIGGER event_is_never_updated BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'events never change'); END;

CREATE TRIGGER event_is_deleted_only_where_absent BEFORE DELETE ON event
WHEN NOT ifnull(OLD.seq <= (SELECT last_seq FROM absent WHERE first_seq <= OLD.seq
    ORDER BY first_seq DESC LIMIT 1), 0)
BEGIN SELECT RAISE(ABORT, 'events are deleted only where absent says so'); END;

-- How far each projection is, and how far the journal: what is not folded is not in its view yet.
--   name, version, position, since   as in checkpoint
--   last_position                    that of the latest event
CREATE VIEW folded AS
SELECT c.name AS name, c.version AS version, c.position AS position, c.since AS since,
    (SELECT max(p.last_seq) FROM (
        SELECT max(seq) AS last_seq FROM event
        UNION ALL SELECT max(last_seq) FROM absent
        UNION ALL SELECT 0
    ) AS p) AS last_position
FROM checkpoint AS c
WHERE c.type = 'projection';

-- Every event, readable.
--   position, event_type, session_id, stream_id   stream_id is NULL for session events
--   timestamp      UTC, always nine fraction digits, so that the text sorts like the time
--   timestamp_ns   the same as nanoseconds since 1970
--   data           JSON object of whatever else it carries, NULL for nothing more; of a kind that
--                  the writer did not know, the whole event as it came
--   session_key, stream_key   small integers to join and to filter by
CREATE VIEW events AS
SELECT
    e.seq AS position,
    k.name AS event_type,
    lower(substr(hex(s.uuid), 1, 8) || '-' || substr(hex(s.uuid), 9, 4) || '-'
        || substr(hex(s.uuid), 13, 4) || '-' || substr(hex(s.uuid), 17, 4) || '-'
        || substr(hex(s.uuid), 21)) AS session_id,
    CASE WHEN e.stream IS NOT NULL THEN
        lower(substr(hex(t.uuid), 1, 8) || '-' || substr(hex(t.uuid), 9, 4) || '-'
        || substr(hex(t.uuid), 13, 4) || '-' || substr(hex(t.uuid), 17, 4) || '-'
        || substr(hex(t.uuid), 21)) END AS stream_id,
    strftime('%Y-%m-%dT%H:%M:%S', CAST(round(
        (e.timestamp - (e.timestamp % 1000000000 + 1000000000) % 1000000000) * 1e-9)
        AS INTEGER), 'unixepoch') || '.'
        || substr('000000000' || ((e.timestamp % 1000000000 + 1000000000) % 1000000000), -9) || 'Z'
        AS timestamp,
    e.timestamp AS timestamp_ns,
    CASE
        WHEN k.fields IS NULL THEN e.data
        -- one line for each kind with fields, from the table of kinds:
        -- WHEN k.name = 'skeleton_generated' THEN json_object('frame_size_bytes', e.data -> '$[0]')
        ELSE e.data
    END AS data,
    e.session AS session_key,
    e.stream AS stream_key
FROM event AS e
    JOIN kind AS k ON k.code = e.kind
    JOIN session AS s ON s.id = e.session
    LEFT JOIN stream AS t ON t.id = e.stream;
