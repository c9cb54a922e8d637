"""Appending: records to rows, with the heads of their chains, versions, keys and blocks."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import apsw

from journal.errors import ConcurrencyError, DamagedError, KeyConflictError
from journal.events.codecs import Record
from journal.events.ids import SessionId
from journal.events.records import content_digest
from journal.file.blocks import BlockRow, Tail
from journal.file.blocks import write as write_block
from journal.file.connections import Database
from journal.store import Appended

# The heads of sessions in use come back with one look-up each, so a bound costs little.
_HEADS_MAX = 50_000

_RECORDS_AT_ONCE = 10_000

# One statement that writes many rows takes two thirds of the time of one for each.
_ROWS_AT_ONCE = 100


def _statements(before: str, row: str, after: str = "") -> list[str]:
    """Return the statements that write 0, 1, 2, ... rows, up to as many as are written at once."""
    return [f"{before} {', '.join([row] * count)}{after}" for count in range(_ROWS_AT_ONCE + 1)]


_WRITE_EVENTS = _statements(
    "INSERT INTO event"
    " (seq, kind, session, stream, timestamp, data, session_prev, stream_prev) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?)",
)
_WRITE_HEADS = {
    table: _statements(
        f"INSERT INTO {table} (id, uuid, last_seq, event_count) VALUES",
        "(?, ?, ?, ?)",
        " ON CONFLICT (id) DO UPDATE"
        " SET last_seq = excluded.last_seq, event_count = excluded.event_count",
    )
    for table in ("session", "stream")
}


class Appender:
    """Appends to one journal file. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tip: _Tip | None = None
        self._generation = -1

    def append(
        self,
        records: Sequence[Record],
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append records in one transaction; the arguments are those of `EventStore`.

        Raises:
            ConcurrencyError, KeyConflictError: as `EventStore.append_events`.
            JournalError: those of `Database.write`.
        """
        if not records and not expected_versions and key is None:
            self._database.check_open()
            return Appended(None, None)
        digest = "" if key is None else content_digest(records)
        with self._database.write() as connection:
            if key is not None and (appended := _appended_before(connection, key, digest)):
                return appended
            tip = self._current_tip(connection)
            for session_id, expected in (expected_versions or {}).items():
                actual = tip.sessions.version(session_id)
                if actual != expected:
                    raise ConcurrencyError(session_id, expected=expected, actual=actual)
            before = tip.position
            for start in range(0, len(records), _RECORDS_AT_ONCE):
                tip.insert(records[start : start + _RECORDS_AT_ONCE])
            appended = Appended(before + 1, tip.position) if records else Appended(None, None)
            if key is not None:
                connection.execute(
                    "INSERT INTO append_key (key, first_seq, last_seq, digest) VALUES (?, ?, ?, ?)",
                    (key, *appended, digest),
                )
        return appended

    def close_block(self) -> None:
        """Write the open block, so that the file has digests of all its events.

        Raises:
            JournalError: those of `Database.write`; the journal is complete without it.
        """
        if self._tip is None:
            return
        with self._database.write() as connection:
            tip = self._current_tip(connection)
            if tip.tail.first <= tip.position:
                write_block(connection, tip.tail.first, tip.position, sealed=False)

    def _current_tip(self, connection: apsw.Connection) -> "_Tip":
        if self._tip is None or self._generation != self._database.generation:
            self._tip = _Tip(connection)
            self._generation = self._database.generation
        return self._tip


def _appended_before(connection: apsw.Connection, key: str, digest: str) -> Appended | None:
    row = connection.execute(
        "SELECT first_seq, last_seq, digest FROM append_key WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    first, last, seen_digest = row
    if digest != seen_digest:
        raise KeyConflictError(key, first, last)
    return Appended(first, last)


def last_position(connection: apsw.Connection) -> int:
    """Return the position of the latest event, 0 where there never was one."""
    latest: int = connection.execute(
        "SELECT max(ifnull((SELECT max(seq) FROM event), 0),"
        " ifnull((SELECT last_seq FROM block ORDER BY first_seq DESC LIMIT 1), 0))"
    ).get
    if not isinstance(latest, int):
        raise DamagedError(connection.filename, "the last position is damaged")
    return latest


class _Head:
    """The end of the chain of one session's or stream's events."""

    __slots__ = ("event_count", "hex", "id", "last_seq", "uuid")

    def __init__(self, uuid: bytes, head_id: int, last_seq: int, event_count: int) -> None:
        self.uuid = uuid
        self.hex = uuid.hex()
        self.id = head_id
        self.last_seq = last_seq
        self.event_count = event_count


class _Heads:
    """The heads in one table, `session` or `stream`, that were met recently.

    `known` has them by the int of their UUID. It is a plain dict, which is the fastest look-up that
    Python has; `met` returns those that are not in it.
    """

    def __init__(self, connection: apsw.Connection, table: str) -> None:
        self.known: dict[int, _Head] = {}
        self._connection = connection
        self._last_id: int = connection.execute(f"SELECT ifnull(max(id), 0) FROM {table}").get
        self._select = f"SELECT id, last_seq, event_count FROM {table} WHERE uuid = ?"
        self._write = _WRITE_HEADS[table]

    def met(self, uuid_int: int) -> _Head:
        """Return a head that is not known, as the file has it or else new."""
        uuid = uuid_int.to_bytes(16)
        head = self._stored(uuid)
        if head is None:
            self._last_id += 1
            head = _Head(uuid, self._last_id, 0, 0)
        self.known[uuid_int] = head
        return head

    def version(self, session_id: SessionId) -> int:
        """Return how many events a session has, 0 for one that is not there."""
        head = self.known.get(session_id.int) or self._stored(session_id.bytes)
        return 0 if head is None else head.event_count

    def _stored(self, uuid: bytes) -> _Head | None:
        row: Any = self._connection.execute(self._select, (uuid,)).fetchone()
        if row is None:
            return None
        head_id, last_seq, event_count = row
        if not (isinstance(last_seq, int) and isinstance(event_count, int)):
            reason = f"the head {uuid.hex()} is damaged: last {last_seq!r}, count {event_count!r}"
            position = last_seq if isinstance(last_seq, int) else None
            raise DamagedError(self._connection.filename, reason, position)
        return _Head(uuid, head_id, last_seq, event_count)

    def write(self, touched: list[_Head]) -> None:
        """Write the heads that were moved."""
        touched.sort(key=attrgetter("id"))  # in the order of the table, one page after another
        for first in range(0, len(touched), _ROWS_AT_ONCE):
            some = touched[first : first + _ROWS_AT_ONCE]
            values: list[int | bytes] = []
            for head in some:
                values += (head.id, head.uuid, head.last_seq, head.event_count)
            self._connection.execute(self._write[len(some)], values)
        if len(self.known) > _HEADS_MAX:
            self.known.clear()


class _Tip:
    """What an append has to know of the file: where it ends, and the heads of its chains.

    This holds as long as nobody else writes and nothing is rolled back.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.position = last_position(connection)
        self.sessions = _Heads(connection, "session")
        self.streams = _Heads(connection, "stream")
        self.tail = Tail(connection, self.position)
        self._codes = dict(connection.execute("SELECT name, code FROM kind"))
        self._connection = connection

    def insert(self, records: Sequence[Record]) -> None:
        """Insert records after the last position, move the heads, and seal what is full."""
        start = position = self.position
        codes, sessions, streams = self._codes, self.sessions.known, self.streams.known
        moved_sessions: list[_Head] = []
        moved_streams: list[_Head] = []
        block_rows: list[BlockRow] = []
        data_size = 0
        for first in range(0, len(records), _ROWS_AT_ONCE):
            some = records[first : first + _ROWS_AT_ONCE]
            values: list[int | str | None] = []
            for kind, session_id, stream_id, timestamp_ns, data in some:
                position += 1
                try:
                    code = codes[kind]
                except KeyError:
                    code = self._add_kind(kind)
                try:
                    session = sessions[session_id.int]
                except KeyError:
                    session = self.sessions.met(session_id.int)
                session_prev = session.last_seq
                if session_prev <= start:
                    moved_sessions.append(session)
                session.last_seq = position
                session.event_count += 1
                stream_key = stream_hex = stream_prev = None
                if stream_id is not None:
                    try:
                        stream = streams[stream_id.int]
                    except KeyError:
                        stream = self.streams.met(stream_id.int)
                    stream_key, stream_hex, stream_prev = stream.id, stream.hex, stream.last_seq
                    if stream_prev <= start:
                        moved_streams.append(stream)
                    stream.last_seq = position
                    stream.event_count += 1
                if data is not None:
                    data_size += len(data)
                block_rows.append((position, kind, session.hex, stream_hex, timestamp_ns, data))
                values += (
                    position,
                    code,
                    session.id,
                    stream_key,
                    timestamp_ns,
                    data,
                    session_prev or None,
                    stream_prev or None,
                )
            self._connection.execute(_WRITE_EVENTS[len(some)], values)
        self.sessions.write(moved_sessions)
        self.streams.write(moved_streams)
        self.tail.add(self._connection, block_rows, data_size)
        self.position = position

    def _add_kind(self, kind: str) -> int:
        """Add a kind that this version does not know, and return its code."""
        self._connection.execute("INSERT INTO kind (name) VALUES (?)", (kind,))
        code = self._codes[kind] = self._connection.last_insert_rowid()
        return code
