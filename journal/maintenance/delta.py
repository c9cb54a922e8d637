"""Copying only what is new in a file that is in use: the events and blocks from one block on.

The rows that are wanted are inserted into a new file, so that it takes as long as they are many,
however many lie before them.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
from pydantic_core import to_json

from journal.errors import DamagedError
from journal.events.timestamps import text_from_epoch_ns
from journal.file.absences import added_counts
from journal.file.blocks import GENESIS
from journal.file.connections import Database
from journal.file.extent import Extent, read_extent
from journal.file.identity import APPLICATION_ID, FORMAT_VERSION, meta, set_meta
from journal.file.opening import overwrite_deleted
from journal.file.process_locks import opened
from journal.file.schema import schema_sql
from journal.maintenance.copying import check_format, told_of_the_copy
from journal.maintenance.delta_base import Base
from journal.maintenance.histories import is_merged
from journal.maintenance.targets import check_room
from journal.projections.own_states import OwnFold
from journal.projections.tables import make_tables

_STEPS_BETWEEN_SIGNALS: Final = 200_000
_ROWS_AT_ONCE: Final = 1_000

_FOLDED: Final = 0.8
"""Roughly, how much of the time has passed when what lies before is folded, where it has to be."""

_REASON: Final = "before delta"

_EVENTS: Final = "seq, kind, session, stream, timestamp, data, session_prev, stream_prev"
_BLOCKS: Final = (
    "first_seq, last_seq, min_timestamp, max_timestamp, salt, content_digest, digest,"
    " redacted_digest, sealed"
)
_KEYS: Final = "key, first_seq, last_seq, digest, used_at"
_HEADS: Final = "id, uuid, last_seq, event_count"

# What a delta has as a whole: a few rows, without which the events could not be understood.
_WHOLE: Final = {
    "kind": "code, name, fields",
    "origin": "first_seq, last_seq, journal_id, branch, label, source_first_seq, declared_at,"
    " check_digest",
}

_SOURCE: Final = "journal_id, branch, "
_SOURCE_ABSENT: Final = (
    "first_seq, last_seq, reason, counts, min_timestamp, max_timestamp, digest_before,"
    " digest_after, forgotten, declared_at, check_digest"
)

# Of the journals that were merged into the file: where what they have in the delta is there.
_SOURCES_SQL: Final = """
SELECT journal_id, branch, max(0, ?1 - first_seq) + source_first_seq,
    last_seq - first_seq + source_first_seq
FROM origin WHERE last_seq >= ?1
"""
_SOURCE_BLOCKS_SQL: Final = """
WHERE journal_id = ?1 AND branch = ?2 AND first_seq <= ?4 AND first_seq >= ifnull(
    (SELECT max(first_seq) FROM origin_block WHERE journal_id = ?1 AND branch = ?2
        AND first_seq <= ?3), 0)
"""
_SOURCE_KEYS_SQL: Final = """
WHERE journal_id = ?1 AND branch = ?2 AND last_seq >= ?3 AND first_seq <= ?4
"""

_META_SQL: Final = """
SELECT key, value FROM meta WHERE key NOT IN ('closed', 'wal_id', 'wal_follows')
"""

_ABSENT_SQL: Final = """
SELECT first_seq, last_seq, reason, counts, min_timestamp, max_timestamp, digest_before,
    digest_after, forgotten, declared_at
FROM absent ORDER BY first_seq
"""

# By the index, from its end: what it passes over is later, and most of that is in the delta.
_NEWEST_SQL: Final = """
SELECT max_timestamp FROM block WHERE +first_seq BETWEEN ? AND ?
ORDER BY max_timestamp DESC LIMIT 1
"""

_COUNTS_SQL: Final = """
SELECT k.name, count(*) FROM event AS e CROSS JOIN kind AS k ON k.code = e.kind
WHERE e.seq BETWEEN ? AND ? GROUP BY 1
"""
_COUNTED_AT_ONCE: Final = 10_000

_DIGEST_SQL: Final = """
SELECT digest FROM block WHERE last_seq = ?1 AND first_seq <= ?1 ORDER BY first_seq DESC LIMIT 1
"""

# What the events of the new file name: how often, where last, and with which session first.
_NAMED_SQL: Final = """
CREATE TEMP TABLE named_session (id INTEGER PRIMARY KEY, count INTEGER, last_seq INTEGER);
CREATE TEMP TABLE named_stream
    (id INTEGER PRIMARY KEY, count INTEGER, last_seq INTEGER, session INTEGER);
INSERT INTO named_session
SELECT session, count(*), max(seq) FROM event WHERE typeof(session) = 'integer' GROUP BY session;
INSERT INTO named_stream
SELECT f.stream, f.count, f.last_seq, e.session FROM (
    SELECT stream, count(*) AS count, min(seq) AS first_seq, max(seq) AS last_seq
    FROM event WHERE typeof(stream) = 'integer' GROUP BY stream
) AS f JOIN event AS e ON e.seq = f.first_seq
"""

_WRONG_HEAD_SQL: Final = """
SELECT h.uuid FROM {owner} AS h JOIN temp.named_{owner} AS n USING (id)
WHERE NOT ifnull(typeof(h.event_count) = 'integer' AND h.event_count - n.count BETWEEN 0 AND :cut
    AND iif(n.last_seq IS NULL, h.last_seq BETWEEN 1 AND :cut, h.last_seq = n.last_seq), 0)
LIMIT 1
"""

_BEFORE_SQL: Final = {
    "session": "INSERT INTO base_session SELECT h.id, h.event_count - n.count, NULL"
    " FROM session AS h JOIN temp.named_session AS n USING (id) WHERE h.event_count > n.count",
    "stream": "INSERT INTO base_stream SELECT h.id, h.event_count - n.count, n.session, NULL"
    " FROM stream AS h JOIN temp.named_stream AS n USING (id) WHERE h.event_count > n.count",
}


def first_of_delta(connection: apsw.Connection, extent: Extent, after: int) -> int:
    """Return where a delta begins: at the first event of the block that has a position.

    So it overlaps what it was asked to follow, and a block that was open then is in it as a whole.
    Where the events up to there are gone, it begins with the first that is left.
    """
    if after < extent.first:
        return extent.first
    row: Any = connection.execute(
        "SELECT first_seq, last_seq, sealed FROM block WHERE first_seq <= ?"
        " ORDER BY first_seq DESC LIMIT 1",
        (after,),
    ).fetchone()
    if row is None or (row[2] and row[1] < after):  # not recovered
        return after
    first: int = row[0]
    return max(extent.first, first)


class Wanted(NamedTuple):
    """Which delta is to be made."""

    after: int
    """The position that it is to follow; it begins where `first_of_delta` says."""
    standalone: bool
    """Whether it is to have the states of what lies before it."""
    own_folds: Collection[OwnFold]
    """The application's projections, whose states are to be among those."""


def copy_delta(
    database: Database,
    copy: Path,
    target: Path,
    wanted: Wanted,
    progress: Callable[[float], None],
) -> None:
    """Write what is new in one moment of a file into a new one.

    Until it ends, the -wal of the file cannot begin anew.

    Args:
        database: the file.
        copy: the new one.
        target: what that is to become, for what is said where it cannot be written.
        wanted: which part of the file.
        progress: is called with how much is done, from 0.0 to 1.0.

    Raises:
        NewerFormatError, NotAJournalError: this version cannot write its format.
        StorageFullError, AccessDeniedError, StorageError: of either file.
        DamagedError: the file is.
    """
    with database.aside_to_read() as source, told_of_the_copy(target):
        with database.inside():
            check_format(source, database.path)
            source.execute("BEGIN")
            extent = read_extent(source)
            first = first_of_delta(source, extent, wanted.after)
            check_room(target, _size_bytes(source, extent, first))
        cut = _cut(extent, first)
        base = None
        begins = 0.0
        if wanted.standalone and cut:
            base = Base(database, source, extent, cut)
            begins = _FOLDED
            base.fold(wanted.own_folds, lambda share: progress(share * begins))
        with closing(_new_file(copy)) as new:
            delta = _Delta(database, source, new, extent, first)
            delta.copy_events(lambda share: progress(begins + share * (1.0 - begins)))
            delta.copy_what_belongs_to_them(None if base is None else base.forgotten())
            with database.inside():
                new.execute(_NAMED_SQL)
            if base is not None:
                base.name_what_goes_on(new)
            delta.copy_heads("session")
            delta.copy_heads("stream")
            if base is not None:
                base.write(new)
            with database.inside():
                new.execute("COMMIT")


def _cut(extent: Extent, first: int) -> int:
    """Return the last position of what is missing at the beginning of a delta; 0: nothing is."""
    while (absence := extent.absence_at(first)) is not None:
        first = absence.last + 1
    return first - 1


def _size_bytes(source: apsw.Connection, extent: Extent, first: int) -> int:
    """Return about how large the events from a position on are."""
    pages = source.pragma("page_count") - source.pragma("freelist_count")
    here = extent.event_count(extent.cut, extent.last)
    share = extent.event_count(first - 1, extent.last) / max(1, here)
    return int(pages * source.pragma("page_size") * share)


def _new_file(path: Path) -> apsw.Connection:
    """Make an empty file of the format, which nobody will miss; it is in a transaction."""
    path.unlink(missing_ok=True)
    connection = opened(apsw.Connection(str(path)))
    try:
        connection.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)  # so Ctrl-C ends it
        connection.pragma("journal_mode", "off")
        connection.pragma("synchronous", "off")
        overwrite_deleted(connection)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA page_size = 4096; BEGIN")
        connection.execute(schema_sql())
        make_tables(connection)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", FORMAT_VERSION)
    except BaseException:
        connection.close()
        raise
    return connection


class _Absent(NamedTuple):
    """What a row of `absent` says, but for its digest."""

    first: int
    last: int
    reason: str
    counts: str | None
    min_timestamp_ns: int | None
    max_timestamp_ns: int | None
    digest_before: str | None
    digest_after: str | None
    forgotten: str | None
    declared_at: str

    def joined(self, other: "_Absent") -> "_Absent":
        """Return this range and the one after it as one."""
        newest = self.max_timestamp_ns, other.max_timestamp_ns
        return self._replace(
            last=other.last,
            counts=None
            if self.counts is None or other.counts is None
            else added_counts(self.counts, json.loads(other.counts)),
            min_timestamp_ns=None,
            max_timestamp_ns=max((it for it in newest if it is not None), default=None),
            digest_after=other.digest_after,
            forgotten=_added(self.forgotten, other.forgotten),
            declared_at=other.declared_at,
        )


def _added(one: str | None, other: str | None) -> str | None:
    """Return what was forgotten in two ranges together."""
    if one is None or other is None:
        return other if one is None else one
    total: dict[str, Counter[str]] = {}
    for text in (one, other):
        for name, states in json.loads(text).items():
            total.setdefault(name, Counter()).update(states)
    return json.dumps(total, separators=(",", ":"))


class _Delta:
    """The making of one, from a file in a transaction into a new one."""

    def __init__(
        self,
        database: Database,
        source: apsw.Connection,
        new: apsw.Connection,
        extent: Extent,
        first: int,
    ) -> None:
        self._database = database
        self._source = source
        self._new = new
        self._extent = extent
        self._first = first

    def copy_events(self, progress: Callable[[float], None]) -> None:
        """Copy the events, some at once, so that a fork need not wait for all."""
        after, last = self._first - 1, self._extent.last
        while after < last:
            with self._database.inside():
                self._copy(
                    "event", _EVENTS, "WHERE seq > ? ORDER BY seq LIMIT ?", after, _ROWS_AT_ONCE
                )
                highest: Any = self._new.execute("SELECT max(seq) FROM event").get
            if highest is None or highest <= after:
                return  # what is missing is found where events are held against their blocks
            after = highest
            progress((after - self._first + 1) / (last - self._first + 1))

    def copy_what_belongs_to_them(self, forgotten: Mapping[str, Mapping[str, int]] | None) -> None:
        """Copy what the file says of itself, blocks, keys, and what is absent.

        `forgotten` is what nothing is left of, as in `absent`; None: it has no base.
        """
        absences = list(self._absences(forgotten))
        with self._database.inside():
            facts: Any = self._source.execute(_META_SQL)
            self._new.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", facts)
            closed = meta(self._source, "closed")
            if closed is not None:  # what recovering made stays what it is: not all is proven
                set_meta(self._new, "closed", closed if closed == "recover" else "delta")
            for table, columns in _WHOLE.items():
                self._copy(table, columns, "")
            self._copy("block", _BLOCKS, "WHERE first_seq >= ?", self._first)
            self._copy_keys()
            self._write_absences(absences)
            if is_merged(self._source):
                self._copy_sources()

    def _copy(self, table: str, columns: str, rest: str, *parameters: Any) -> None:
        # Several ranges of a journal may lie in one of its blocks.
        verb = "INSERT OR IGNORE" if table.startswith("origin_") else "INSERT"
        rows: Any = self._source.execute(f"SELECT {columns} FROM {table} {rest}", parameters)
        marks = ", ".join("?" * len(columns.split(",")))
        self._new.executemany(f"{verb} INTO {table} ({columns}) VALUES ({marks})", rows)

    def _copy_sources(self) -> None:
        """Copy what the journals that were merged into the file had, as far as it is in the delta.

        The block before is among it, so that the first one can be held against that.
        """
        self._copy("origin_absent", _SOURCE + _SOURCE_ABSENT, "")
        for source in self._source.execute(_SOURCES_SQL, (self._first,)).fetchall():
            self._copy("origin_block", _SOURCE + _BLOCKS, _SOURCE_BLOCKS_SQL, *source)
            self._copy("origin_key", _SOURCE + _KEYS, _SOURCE_KEYS_SQL, *source)

    def _copy_keys(self) -> None:
        """Copy the keys that stand for events in it.

        They are numbered in the order in which they were used, so those are the last ones.
        """
        lowest = None
        rows: Any = self._source.execute(
            "SELECT rowid, last_seq FROM append_key ORDER BY rowid DESC"
        )
        for rowid, last in rows:
            if isinstance(last, int) and last < self._first:
                break
            lowest = rowid
        if lowest is not None:
            wanted = "WHERE rowid >= ? AND last_seq >= ? ORDER BY rowid"
            self._copy("append_key", _KEYS, wanted, lowest, self._first)

    def _write_absences(self, absences: Iterable[_Absent]) -> None:
        """Write what the file says is absent, and that the rest before the delta is elsewhere."""
        found: list[_Absent] = []
        for row in absences:
            if found and found[-1].reason == row.reason == _REASON:
                row = found.pop().joined(row)  # noqa: PLW2901
            found.append(row)
        for row in found:
            marks = ", ".join("?" * len(row))
            text: Any = self._new.execute(f"SELECT json_array({marks})", row).get
            digest = hashlib.sha256(text.encode()).hexdigest()
            self._new.execute(f"INSERT INTO absent VALUES ({marks}, ?)", (*row, digest))

    def _absences(self, forgotten: Mapping[str, Mapping[str, int]] | None) -> Iterator[_Absent]:
        with_counts = forgotten is not None  # they say what the base passed over
        position = 1
        with self._database.inside():
            rows: Any = self._source.execute(_ABSENT_SQL).fetchall()
        for row in map(_Absent._make, rows):
            if position < min(row.first, self._first):
                last = min(row.first, self._first) - 1
                yield self._before(position, last, with_counts=with_counts)
            yield row
            position = row.last + 1
        if position < self._first:
            said = {name: states for name, states in (forgotten or {}).items() if states}
            text = json.dumps(said, separators=(",", ":")) if said else None
            row = self._before(position, self._first - 1, with_counts=with_counts)
            yield row._replace(forgotten=text)

    def _before(self, first: int, last: int, *, with_counts: bool) -> _Absent:
        """Return the row for events that the file has and the delta has not."""
        counts = self._counts(first, last) if with_counts else None
        with self._database.inside():
            newest: Any = self._source.execute(_NEWEST_SQL, (first, last)).get
            ends = self._digest_at(first - 1), self._digest_at(last)
        now = text_from_epoch_ns(time.time_ns())
        return _Absent(first, last, _REASON, counts, None, newest, *ends, None, now)

    def _counts(self, first: int, last: int) -> str:
        """Return how many events of each kind there are in a range, as in `absent`."""
        total: Counter[str] = Counter()
        for begin in range(first, last + 1, _COUNTED_AT_ONCE):
            end = min(last, begin + _COUNTED_AT_ONCE - 1)
            with self._database.inside():
                rows: Any = self._source.execute(_COUNTS_SQL, (begin, end))
                total.update(dict(rows))
        return added_counts("{}", total)

    def _digest_at(self, position: int) -> str | None:
        """Return the digest at a position where a block ends, or what is absent."""
        if position == 0:
            return GENESIS
        digest: Any = self._source.execute(_DIGEST_SQL, (position,)).get
        if digest is None:
            absence = self._extent.absence_at(position)
            if absence is not None and absence.last == position:
                digest = absence.digest_after
        return digest if isinstance(digest, str) else None

    def copy_heads(self, owner: str) -> None:
        """Copy the sessions, or the streams, that events name, with how many lie before.

        Raises:
            DamagedError: one cannot have those events.
        """
        after: int | None = -(2**63)
        sql = f"SELECT id FROM temp.named_{owner} WHERE id > ? ORDER BY id LIMIT {_ROWS_AT_ONCE}"
        while after is not None:
            with self._database.inside():
                keys = [key for (key,) in self._new.execute(sql, (after,))]
                wanted = "WHERE id IN (SELECT value FROM json_each(?))"
                self._copy(owner, _HEADS, wanted, to_json(keys).decode())
            after = keys[-1] if keys else None
        with self._database.inside():
            values = {"cut": self._first - 1}
            wrong: Any = self._new.execute(_WRONG_HEAD_SQL.format(owner=owner), values).fetchone()
            if wrong is not None:
                what = f"is damaged: what it says of the events of a {owner} is not so"
                raise DamagedError(self._database.path, what)
            self._new.execute(_BEFORE_SQL[owner])
