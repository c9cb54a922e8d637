"""Appending: records to rows, with the heads of their chains, versions, keys and blocks."""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import apsw

from journal.errors import ConcurrencyError, DamagedError, KeyConflictError
from journal.events.codecs import Record
from journal.events.ids import SessionId
from journal.events.records import content_digest, encode
from journal.events.unknown import AnyEvent
from journal.file.blocks import BlockRow, Tail, check_open_block
from journal.file.chain_heads import ROWS_AT_ONCE, Head, Heads
from journal.file.connections import Database
from journal.file.extent import read_extent
from journal.file.names import codes_to_append, kinds_of
from journal.store import Appended, check_arguments

_RECORDS_AT_ONCE = 10_000


@cache
def _write_events_sql(count: int) -> str:
    return (
        "INSERT INTO event"
        " (seq, kind, session, stream, timestamp, data, session_prev, stream_prev) VALUES "
        + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * count)
    )


class Appender:
    """Appends to one journal file. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tip: _Tip | None = None
        self._generation = -1
        if not database.read_only:
            with database.read() as connection:
                check_open_block(connection)

    def append_events(
        self,
        events: Iterable[AnyEvent],
        expected_versions: Mapping[SessionId, int] | None,
        key: str | None,
    ) -> Appended:
        """Append events; see `EventStore.append_events`."""
        check_arguments(expected_versions, key)
        return self.append(encode(events), expected_versions, key)

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
                self._database.sync(connection)
                return appended
            tip = self._current_tip(connection)
            for session_id, expected in (expected_versions or {}).items():
                actual = tip.sessions.version(session_id)
                if actual != expected:
                    raise ConcurrencyError(session_id, expected=expected, actual=actual)
            if not records and key is None:
                self._database.sync(connection)
            before = tip.position
            for start in range(0, len(records), _RECORDS_AT_ONCE):
                tip.insert(records[start : start + _RECORDS_AT_ONCE])
            appended = Appended(before + 1, tip.position) if records else Appended(None, None)
            if key is not None:
                connection.execute(
                    "INSERT INTO append_key (key, first_seq, last_seq, digest, used_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (key, *appended, digest, time.time_ns()),
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
            tip.tail.write_open(connection, tip.position)

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
    is_range = isinstance(first, int) and isinstance(last, int) and 1 <= first <= last
    is_digest = isinstance(seen_digest, str) and len(seen_digest) == len(digest)
    if not is_digest or not (is_range or (first is None and last is None)):
        raise DamagedError(connection.filename, f"is damaged: its row about the key {key!r}")
    if digest != seen_digest:
        raise KeyConflictError(key, first, last)
    return Appended(first, last)


class _Tip:
    """What an append has to know of the file: where it ends, and the heads of its chains.

    This holds as long as nobody else writes and nothing is rolled back.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        extent = read_extent(connection)
        self.position = extent.last
        self.sessions = Heads(connection, "session", self.position)
        self.streams = Heads(connection, "stream", self.position)
        self.tail = Tail(connection, extent)
        self._codes = codes_to_append(kinds_of(connection))
        self._connection = connection

    def insert(self, records: Sequence[Record]) -> None:
        """Insert records after the last position, move the heads, and seal what is full."""
        start = position = self.position
        codes, sessions, streams = self._codes, self.sessions.known, self.streams.known
        moved_sessions: list[Head] = []
        moved_streams: list[Head] = []
        block_rows: list[BlockRow] = []
        data_size = 0
        for first in range(0, len(records), ROWS_AT_ONCE):
            some = records[first : first + ROWS_AT_ONCE]
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
                    self.sessions.meet([record[1].int for record in records])
                    session = sessions[session_id.int]
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
                        self.streams.meet([record[2].int for record in records if record[2]])
                        stream = streams[stream_id.int]
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
            self._connection.execute(_write_events_sql(len(some)), values)
        self.sessions.write(moved_sessions, position)
        self.streams.write(moved_streams, position)
        self.tail.add(self._connection, block_rows, data_size)
        self.position = position

    def _add_kind(self, kind: str) -> int:
        """Add a kind that this version does not know, and return its code."""
        self._connection.execute("INSERT INTO kind (name, fields) VALUES (?, NULL)", (kind,))
        code = self._codes[kind] = self._connection.last_insert_rowid()
        return code
