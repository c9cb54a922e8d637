"""Writing what was salvaged into a new file, and making a closed copy of one."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import apsw

from journal import limits
from journal._version import VERSION
from journal.events.kinds import KINDS
from journal.events.timestamps import Timestamp, text_from_epoch_ns
from journal.file import forking
from journal.file.blocks import GENESIS
from journal.file.extent import read_extent
from journal.file.identity import APPLICATION_ID, FORMAT_VERSION, check_label, set_meta
from journal.file.opening import overwrite_deleted
from journal.file.origins import origins_in, write_origin
from journal.file.schema import schema_sql
from journal.file.writers import forget_writers
from journal.maintenance.findings import Findings
from journal.maintenance.finishing import fold
from journal.maintenance.key_check import wrong_keys
from journal.maintenance.redaction import AS_TEXTS
from journal.maintenance.salvage_sql import BLOCK_COLUMNS
from journal.maintenance.salvaging import Salvage
from journal.projections.checkpoints import base_digest

_STEPS_BETWEEN_SIGNALS: Final = 200_000

TABLES: Final = """
CREATE TABLE recovered (
    what       TEXT NOT NULL,
    first_seq  INTEGER,
    last_seq   INTEGER,
    count      INTEGER NOT NULL
);
CREATE TABLE recovered_apart (
    seq           INTEGER,
    kind          INTEGER,
    session       INTEGER,
    stream        INTEGER,
    timestamp     INTEGER,
    data          TEXT,
    session_prev  INTEGER,
    stream_prev   INTEGER,
    page          INTEGER,
    event_type    TEXT,
    session_id    TEXT,
    stream_id     TEXT,
    reason        TEXT NOT NULL
);
"""
"""FORMAT.md says what is in them."""

_EVENTS_SQL: Final = """
INSERT INTO new.event
SELECT seq, kind, session, stream, timestamp, data,
    ifnull(lag(seq) OVER (PARTITION BY session ORDER BY seq), iif(
        session_prev BETWEEN 1 AND seq - 1
            AND NOT EXISTS (SELECT 1 FROM chosen AS p WHERE p.seq = c.session_prev),
        session_prev, NULL)),
    iif(stream IS NULL, NULL, ifnull(lag(seq) OVER (PARTITION BY stream ORDER BY seq), iif(
        stream_prev BETWEEN 1 AND seq - 1
            AND NOT EXISTS (SELECT 1 FROM chosen AS p WHERE p.seq = c.stream_prev),
        stream_prev, NULL)))
FROM chosen AS c ORDER BY seq
"""
"""The first of a chain keeps a link to where nothing is any more."""

_HEADS_SQL: Final = """
INSERT INTO new.{owner} (id, uuid, last_seq, event_count)
SELECT n.id, n.uuid, max(c.seq), count(*) + ifnull(b.events_before, 0)
FROM chosen AS c
    JOIN name AS n ON n.owner = '{owner}' AND n.id = c.{owner}
    LEFT JOIN new.base_{owner} AS b ON b.{owner} = c.{owner}
WHERE c.{owner} IS NOT NULL GROUP BY c.{owner};
INSERT INTO new.{owner} (id, uuid, last_seq, event_count)
SELECT n.id, n.uuid, max(h.last_seq), b.events_before
FROM new.base_{owner} AS b
    JOIN name AS n ON n.owner = '{owner}' AND n.id = b.{owner}
    JOIN raw_head AS h ON h.id = n.id AND h.uuid = n.uuid AND h.last_seq BETWEEN 1 AND :cut
WHERE n.id NOT IN (SELECT id FROM new.{owner}) GROUP BY n.id
"""

_WIDER_TIMES_SQL: Final = """
UPDATE kept_block AS k SET
    min_timestamp = min(min_timestamp, ifnull((SELECT min(timestamp) FROM chosen
        WHERE seq BETWEEN k.first_seq AND k.last_seq), min_timestamp)),
    max_timestamp = max(max_timestamp, ifnull((SELECT max(timestamp) FROM chosen
        WHERE seq BETWEEN k.first_seq AND k.last_seq), max_timestamp))
WHERE state <> 'proven'
"""
"""Who looks for a time must not pass over the events that are there."""

_SEALED_SQL: Final = """
UPDATE kept_block SET sealed = 1
WHERE (first_seq - 1) / :size <> (SELECT max(seq) FROM chosen) / :size
"""
"""An older version of a row may say that a block is open that events follow by now."""

_WITHOUT_WAL_SQL: Final = "DELETE FROM meta WHERE key IN ('wal_id', 'wal_follows')"

_UNPROVEN_SQL: Final = """
INSERT INTO recovered
SELECT 'unproven', min(seq), max(seq), count(*) FROM (
    SELECT seq, seq - row_number() OVER (ORDER BY seq) AS run FROM event AS e
    WHERE NOT EXISTS (
        SELECT 1 FROM whole_block AS b WHERE b.last_seq >= e.seq AND b.first_seq = (
            SELECT first_seq FROM whole_block WHERE first_seq <= e.seq
            ORDER BY first_seq DESC LIMIT 1)
    )
)
GROUP BY run
"""
_WHOLE_BLOCKS_SQL: Final = """
CREATE TEMP TABLE whole_block (first_seq INTEGER PRIMARY KEY, last_seq INTEGER);
INSERT INTO whole_block SELECT first_seq, last_seq FROM block AS b
WHERE (SELECT count(*) FROM event WHERE seq BETWEEN b.first_seq AND b.last_seq)
    = last_seq - first_seq + 1
"""

_BASES_SQL: Final = """
INSERT OR IGNORE INTO new.base
SELECT projection, version, position, check_digest FROM raw_base
WHERE projection IN ('sessions', 'streams') AND position = :cut;
INSERT OR IGNORE INTO new.base_session SELECT session, events_before, state FROM raw_base_session
WHERE session IN (SELECT id FROM name WHERE owner = 'session');
INSERT OR IGNORE INTO new.base_stream
SELECT stream, events_before, session, state FROM raw_base_stream
WHERE stream IN (SELECT id FROM name WHERE owner = 'stream')
"""

_KEYS_SQL: Final = """
INSERT OR IGNORE INTO new.append_key SELECT DISTINCT key, first_seq, last_seq, digest, used_at
FROM raw_append_key
WHERE length(digest) = 64 AND ((first_seq IS NULL AND last_seq IS NULL)
    OR (1 <= first_seq AND first_seq <= last_seq AND last_seq <= :last));
INSERT OR IGNORE INTO new.checkpoint SELECT DISTINCT name, type, version, position, since
FROM raw_checkpoint
WHERE type = 'subscription' AND position BETWEEN 0 AND :last AND since >= 1
"""

_ID_SQL: Final = (
    "(SELECT CASE WHEN count(*) = 1 THEN lower(substr(hex(uuid), 1, 8) || '-'"
    " || substr(hex(uuid), 9, 4) || '-' || substr(hex(uuid), 13, 4) || '-'"
    " || substr(hex(uuid), 17, 4) || '-' || substr(hex(uuid), 21)) END"
    " FROM name WHERE owner = '{owner}' AND id = a.{owner})"
)
_APART_SQL: Final = f"""
INSERT INTO new.recovered_apart
SELECT seq, kind, session, stream, timestamp, data, session_prev, stream_prev, page,
    (SELECT name FROM kind_name WHERE code = kind),
    {_ID_SQL.format(owner="session")}, {_ID_SQL.format(owner="stream")}, reason
FROM apart AS a ORDER BY seq
"""

_REBUILT_SQL: Final = {
    "heads": "SELECT (SELECT count(*) FROM new.session AS s WHERE NOT EXISTS (SELECT 1"
    " FROM raw_head AS h WHERE h.id = s.id AND h.uuid = s.uuid AND h.last_seq = s.last_seq"
    " AND h.event_count = s.event_count)) + (SELECT count(*) FROM new.stream AS s WHERE NOT EXISTS"
    " (SELECT 1 FROM raw_head AS h WHERE h.id = s.id AND h.uuid = s.uuid"
    " AND h.last_seq = s.last_seq AND h.event_count = s.event_count))",
    "ids": "SELECT count(*) FROM (SELECT id, uuid FROM new.session UNION ALL"
    " SELECT id, uuid FROM new.stream) AS s WHERE NOT EXISTS"
    " (SELECT 1 FROM raw_head AS h WHERE h.id = s.id AND h.uuid = s.uuid)",
    "links": "SELECT count(*) FROM new.event AS e JOIN chosen AS c ON c.seq = e.seq"
    " WHERE e.session_prev IS NOT c.session_prev OR e.stream_prev IS NOT c.stream_prev",
    "blocks": "SELECT count(*) FROM kept_block AS k WHERE NOT EXISTS (SELECT 1 FROM raw_block AS r"
    " WHERE r.first_seq = k.first_seq AND r.last_seq = k.last_seq AND r.digest = k.digest"
    " AND r.content_digest = k.content_digest AND r.min_timestamp = k.min_timestamp"
    " AND r.max_timestamp = k.max_timestamp)",
}


def write_salvaged(salvage: Salvage, new: Path) -> None:
    """Write what is believed into a new file, with what is missing declared, and the rest apart."""
    new.unlink(missing_ok=True)
    with closing(_opened(new)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA page_size = 4096; BEGIN")
        connection.execute(schema_sql() + TABLES)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", FORMAT_VERSION)
        _write_meta(connection, salvage)
        connection.execute("COMMIT")
    scratch = salvage.scratch
    scratch.execute("ATTACH ? AS new", (str(new),))
    try:
        scratch.pragma("journal_mode", "off", schema="new")
        scratch.pragma("synchronous", "off", schema="new")
        scratch.execute("BEGIN")
        scratch.execute(_EVENTS_SQL)
        _write_absences(scratch, salvage)
        _write_origins(scratch, salvage)
        _write_bases(scratch, salvage)
        for owner in ("session", "stream"):
            scratch.execute(_HEADS_SQL.format(owner=owner), {"cut": salvage.cut})
        scratch.execute(_WIDER_TIMES_SQL)
        scratch.execute(_SEALED_SQL, {"size": limits.BLOCK_EVENTS_MAX})
        scratch.execute(f"INSERT INTO new.block SELECT {BLOCK_COLUMNS} FROM kept_block")
        _write_kinds(scratch, salvage)
        scratch.execute(_KEYS_SQL, {"last": salvage.last_position})
        _write_apart(scratch, salvage)
        _write_rebuilt(scratch, salvage)
        scratch.execute("COMMIT")
    finally:
        if scratch.in_transaction:
            scratch.execute("ROLLBACK")
        scratch.execute("DETACH new")


def drop_wrong_keys(new: Path) -> None:
    """Delete the keys that stand for other events than those that are there: they were changed.

    A program that repeats an append under one of them would get a wrong answer.
    """
    with closing(_opened(new)) as connection:
        wrong = wrong_keys(connection, read_extent(connection), Findings(new))
        keys = [(key,) for key, _, _ in wrong]
        connection.execute("BEGIN")
        connection.executemany("DELETE FROM append_key WHERE key = ?", keys)
        connection.execute("COMMIT")


def _opened(path: Path) -> apsw.Connection:
    """Open a file that nobody else knows of yet, to write it without a journal of SQLite's."""
    connection = apsw.Connection(str(path))
    connection.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)  # so that Ctrl-C ends it
    connection.pragma("journal_mode", "off")
    connection.pragma("synchronous", "off")
    overwrite_deleted(connection)
    return connection


def _write_meta(connection: apsw.Connection, salvage: Salvage) -> None:
    """Write what the file says of itself; what is lost, it says anew."""
    facts = {
        "journal_id": salvage.fact("journal_id", UUID) or str(uuid4()),
        "created_at": salvage.fact("created_at", Timestamp.parse)
        or text_from_epoch_ns(time.time_ns()),
        "library_version": salvage.fact("library_version") or VERSION,
        "min_reader_version": str(FORMAT_VERSION),
        "label": salvage.fact("label", check_label),
        "session_mark": salvage.fact("session_mark", int),
        "stream_mark": salvage.fact("stream_mark", int),
        "merged": salvage.fact("merged"),  # whose blocks are not recovered
        "redacted": salvage.fact("redacted", AS_TEXTS.validate_json),
    }
    for key, value in facts.items():
        if value is not None:
            set_meta(connection, key, value)


def _write_absences(scratch: apsw.Connection, salvage: Salvage) -> None:
    """Declare what is missing, and what was before; adjoining ranges that were lost become one."""
    now = text_from_epoch_ns(time.time_ns())
    pending: list[Any] | None = None
    for row in _absent_rows(scratch, salvage, now):
        is_one = pending is not None and row[2] == pending[2] == "lost" and row[0] == pending[1] + 1
        if pending is not None and is_one:
            pending = [pending[0], row[1], "lost", None, None, None, pending[6], row[7], None, now]
            continue
        if pending is not None:
            _write_absence(scratch, pending)
        pending = row
    if pending is not None:
        _write_absence(scratch, pending)


def _absent_rows(scratch: apsw.Connection, salvage: Salvage, now: str) -> Iterator[list[Any]]:
    declared = iter(salvage.absences)
    following = next(declared, None)
    for first, last in salvage.lost():
        while following is not None and following.first < first:
            yield list(following[:-1])
            following = next(declared, None)
        digests = _digest_at(scratch, salvage, first - 1), _digest_at(scratch, salvage, last)
        yield [first, last, "lost", None, None, None, *digests, None, now]
    while following is not None:
        yield list(following[:-1])
        following = next(declared, None)


def _digest_at(scratch: apsw.Connection, salvage: Salvage, position: int) -> str | None:
    """Return the digest at a position, if a block or what is declared absent ends there."""
    if position == 0:
        return GENESIS
    digest: Any = scratch.execute(
        "SELECT digest FROM kept_block WHERE last_seq = ?1 AND first_seq <= ?1"
        " ORDER BY first_seq DESC LIMIT 1",
        (position,),
    ).get
    if isinstance(digest, str):
        return digest
    absence = salvage.absence_ending_at(position)
    return None if absence is None else absence.digest_after


def _write_absence(scratch: apsw.Connection, row: list[Any]) -> None:
    text: Any = scratch.execute(f"SELECT json_array({', '.join('?' * 10)})", row).get
    digest = hashlib.sha256(text.encode()).hexdigest()
    scratch.execute(f"INSERT INTO new.absent VALUES ({', '.join('?' * 11)})", (*row, digest))


def _write_origins(scratch: apsw.Connection, salvage: Salvage) -> None:
    """Write which positions came from other journals, as far as digests prove it."""
    last = salvage.last_position
    for first, origin in list(origins_in(scratch, "raw_origin")):
        if origin is not None and first <= last:
            left = min(origin.last_position, last)
            write_origin(scratch, origin.model_copy(update={"last_position": left}))


def _write_bases(scratch: apsw.Connection, salvage: Salvage) -> None:
    """Write the states at the cut, if their digests prove them all and all can be named."""
    if not salvage.cut:
        return
    scratch.execute(_BASES_SQL, {"cut": salvage.cut})
    for name in ("sessions", "streams"):
        digest = scratch.execute(
            "SELECT check_digest FROM new.base WHERE projection = ?", (name,)
        ).get
        if digest != base_digest(scratch, name):
            scratch.execute(
                "DELETE FROM new.base; DELETE FROM new.base_session; DELETE FROM new.base_stream"
            )
            return


def _write_kinds(scratch: apsw.Connection, salvage: Salvage) -> None:
    """Write the kinds under the codes that they had, those that events have first.

    Of others only those that are known: what nothing is of may never have been a kind.
    """
    used = {code for (code,) in scratch.execute("SELECT DISTINCT kind FROM chosen")}
    for code in sorted(salvage.kinds, key=lambda code: (code not in used, code)):
        name, fields = salvage.kinds[code][0]
        if code not in used and name not in KINDS:
            continue
        scratch.execute("INSERT OR IGNORE INTO new.kind VALUES (?, ?, ?)", (code, name, fields))


def _write_apart(scratch: apsw.Connection, salvage: Salvage) -> None:
    """Write what is not believed, with its raw numbers, and what they stand for where it is known.

    The connection has a table `name` of ids, where a number may stand for several.
    """
    names = {code: found[0][0] for code, found in salvage.kinds.items() if len(found) == 1}
    scratch.execute("CREATE TEMP TABLE kind_name (code INTEGER PRIMARY KEY, name)")
    scratch.executemany("INSERT INTO kind_name VALUES (?, ?)", names.items())
    scratch.execute(_APART_SQL)


def _write_rebuilt(scratch: apsw.Connection, salvage: Salvage) -> None:
    """Write how much was made anew, by what it is."""
    facts = [key for key in ("journal_id", "created_at") if salvage.fact(key) is None]
    counts = {what: scratch.execute(sql).get for what, sql in _REBUILT_SQL.items()}
    counts |= {"kinds": len(salvage.proven_kinds), "facts": len(facts)}
    for what, count in counts.items():
        if count:
            scratch.execute(
                "INSERT INTO new.recovered VALUES (?, NULL, NULL, ?)", (f"rebuilt {what}", count)
            )


def close_copy(new: Path) -> None:
    """Make a closed copy of a file that is complete, with what it lacks in a table."""
    with closing(_opened(new)) as connection:
        connection.execute("BEGIN")
        set_meta(connection, "closed", "recover")
        connection.execute(_WITHOUT_WAL_SQL)
        forget_writers(connection)
        if connection.table_exists("main", "recovered"):
            has_ranges = connection.execute(
                "SELECT count(*) FROM recovered WHERE what IN ('unproven', 'lost')"
            ).get
        else:
            connection.execute(TABLES)
            has_ranges = False
        if not has_ranges:
            connection.execute(_WHOLE_BLOCKS_SQL)
            connection.execute(_UNPROVEN_SQL)
            connection.execute(
                "INSERT INTO recovered SELECT 'lost', first_seq, last_seq, last_seq - first_seq + 1"
                " FROM absent WHERE reason = 'lost'"
            )
        connection.execute("COMMIT")


def fold_copy(new: Path, progress: Callable[[int, int], None]) -> None:
    """Bring the built-in projections of a closed copy up to the last event.

    Args:
        new: the copy.
        progress: is called with the thousandths that are done, and 1,000.
    """
    with forking.inside_sqlite():
        connection = _opened(new)
    try:
        fold(connection, lambda share: progress(int(1_000 * share), 1_000))
        with forking.inside_sqlite():
            connection.execute(_WITHOUT_WAL_SQL)
    finally:
        with forking.inside_sqlite():
            connection.close()
