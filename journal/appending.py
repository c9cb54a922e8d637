"""Appending: records to rows, with the heads of their chains, versions, keys and blocks."""

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

import apsw

from journal.blocks import BlockRow, Tail
from journal.blocks import write as write_block
from journal.database import Database
from journal.errors import ConcurrencyError, DamagedError, KeyConflictError
from journal.ids import SessionId, StreamId
from journal.rows import Record, content_digest
from journal.store import Appended

# The heads of sessions in use come back with one look-up each, so a bound costs little.
_HEADS_MAX = 50_000

_ROWS_AT_ONCE = 10_000

_INSERT_EVENT = (
    "INSERT INTO event (seq, kind, session, stream, timestamp, data, session_prev, stream_prev)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


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
                actual = tip.sessions.version(connection, session_id)
                if actual != expected:
                    raise ConcurrencyError(session_id, expected=expected, actual=actual)
            before = tip.position
            for start in range(0, len(records), _ROWS_AT_ONCE):
                tip.insert(connection, records[start : start + _ROWS_AT_ONCE])
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
        " ifnull((SELECT max(last_seq) FROM block), 0))"
    ).get
    if not isinstance(latest, int):
        raise DamagedError(connection.filename, "the last position is damaged")
    return latest


class _Head:
    """The end of the chain of one session's or stream's events."""

    __slots__ = ("event_count", "hex", "id", "is_new", "last_seq", "uuid")

    def __init__(self, uuid: UUID, head_id: int, last_seq: int, event_count: int) -> None:
        self.uuid = uuid
        self.hex = uuid.hex
        self.id = head_id
        self.last_seq = last_seq
        self.event_count = event_count
        self.is_new = last_seq == 0  # not in the file yet


class _Heads:
    """The heads in one table, `session` or `stream`: those met lately, by the int of their id."""

    def __init__(self, connection: apsw.Connection, table: str) -> None:
        self.known: dict[int, _Head] = {}
        self._last_id: int = connection.execute(f"SELECT ifnull(max(id), 0) FROM {table}").get
        self._select = f"SELECT id, last_seq, event_count FROM {table} WHERE uuid = ?"
        self._insert = f"INSERT INTO {table} (id, uuid, last_seq, event_count) VALUES (?, ?, ?, ?)"
        self._update = f"UPDATE {table} SET last_seq = ?, event_count = ? WHERE id = ?"

    def version(self, connection: apsw.Connection, session_id: SessionId) -> int:
        """Return how many events a session has, 0 for one that is not there."""
        head = self.known.get(session_id.int) or self._stored(connection, session_id)
        return 0 if head is None else head.event_count

    def load(self, connection: apsw.Connection, key: SessionId | StreamId) -> _Head:
        """Return the head of a chain that is not known yet, or a new one."""
        head = self._stored(connection, key)
        if head is None:
            self._last_id += 1
            head = _Head(key, self._last_id, 0, 0)
        self.known[key.int] = head
        return head

    def _stored(self, connection: apsw.Connection, key: SessionId | StreamId) -> _Head | None:
        row: Any = connection.execute(self._select, (key.bytes,)).fetchone()
        if row is None:
            return None
        head_id, last_seq, event_count = row
        if not (isinstance(last_seq, int) and isinstance(event_count, int)):
            reason = f"the head of {key!r} is damaged: last_seq {last_seq!r}, count {event_count!r}"
            raise DamagedError(connection.filename, reason)
        return _Head(key, head_id, last_seq, event_count)

    def write(self, connection: apsw.Connection, touched: list[_Head]) -> None:
        """Write the heads that were moved."""
        touched.sort(key=attrgetter("id"))  # in the order of the table, one page after another
        moved = [(h.last_seq, h.event_count, h.id) for h in touched if not h.is_new]
        connection.executemany(self._update, moved)
        new = [head for head in touched if head.is_new]
        connection.executemany(
            self._insert, [(h.id, h.uuid.bytes, h.last_seq, h.event_count) for h in new]
        )
        for head in new:
            head.is_new = False
        if len(self.known) > _HEADS_MAX:
            self.known.clear()


class _Tip:
    """What an append has to know of the file: where it ends, and the heads of its chains.

    True as long as nobody else writes and nothing is rolled back.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.position = last_position(connection)
        self.sessions = _Heads(connection, "session")
        self.streams = _Heads(connection, "stream")
        self.tail = Tail(connection, self.position)
        self._codes: dict[str, int] = dict(connection.execute("SELECT name, code FROM kind"))

    def insert(self, connection: apsw.Connection, records: Sequence[Record]) -> None:
        """Insert records after the last position, move the heads, and seal what is full."""
        moved_sessions: list[_Head] = []
        moved_streams: list[_Head] = []
        block_rows: list[BlockRow] = []
        # Rows go straight from the loop into the file: kept, they would be collected as garbage.
        rows = self._rows(connection, records, moved_sessions, moved_streams, block_rows)
        connection.executemany(_INSERT_EVENT, rows)
        self.sessions.write(connection, moved_sessions)
        self.streams.write(connection, moved_streams)
        self.tail.add(connection, block_rows)
        self.position += len(block_rows)

    def _rows(
        self,
        connection: apsw.Connection,
        records: Sequence[Record],
        moved_sessions: list[_Head],
        moved_streams: list[_Head],
        block_rows: list[BlockRow],
    ) -> Iterator[tuple[int, int, int, int | None, int, str | None, int | None, int | None]]:
        """Yield the rows of records, moving the heads of their chains."""
        start = position = self.position
        codes, sessions, streams = self._codes, self.sessions.known, self.streams.known
        for kind, session_id, stream_id, timestamp_ns, data in records:
            position += 1
            session = sessions.get(session_id.int) or self.sessions.load(connection, session_id)
            session_prev = session.last_seq
            if session_prev <= start:
                moved_sessions.append(session)
            session.last_seq = position
            session.event_count += 1
            code = codes.get(kind) or self._new_code(connection, kind)
            if stream_id is None:
                block_rows.append((position, kind, session.hex, None, timestamp_ns, data))
                yield (
                    position,
                    code,
                    session.id,
                    None,
                    timestamp_ns,
                    data,
                    session_prev or None,
                    None,
                )
                continue
            stream = streams.get(stream_id.int) or self.streams.load(connection, stream_id)
            stream_prev = stream.last_seq
            if stream_prev <= start:
                moved_streams.append(stream)
            stream.last_seq = position
            stream.event_count += 1
            block_rows.append((position, kind, session.hex, stream.hex, timestamp_ns, data))
            yield (
                position,
                code,
                session.id,
                stream.id,
                timestamp_ns,
                data,
                session_prev or None,
                stream_prev or None,
            )

    def _new_code(self, connection: apsw.Connection, kind: str) -> int:
        connection.execute("INSERT INTO kind (name) VALUES (?)", (kind,))
        code = self._codes[kind] = connection.last_insert_rowid()
        return code
