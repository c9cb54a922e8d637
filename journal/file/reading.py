"""Reading: rows back to events, by chain, by range of positions or by range of time."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import chain, repeat
from typing import Any, Literal
from uuid import UUID

import apsw

from journal import limits
from journal.errors import DamagedError, JournalError, PrunedError
from journal.events.canonical import canonical_json
from journal.events.ids import SessionId, StreamId, check_id
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS, Timestamp
from journal.events.unknown import AnyEvent
from journal.file.chain_heads import stored_head
from journal.file.connections import Database
from journal.file.decoding import (
    NOT_DECODED,
    Names,
    Page,
    StoredEvent,
    check_row,
    damaged,
    decode_rows,
)
from journal.file.extent import Extent, last_position, read_extent
from journal.file.info import JournalInfo, read_info
from journal.file.names import KnownNames, ids_beginning
from journal.store import RecordedEvent

_COLUMNS = "seq, kind, session, stream, timestamp, data"

# The recursion follows a link only to an earlier position, so a damaged one cannot loop. It is a
# CROSS JOIN because the planner would otherwise rather scan the table than look its key up. A link
# to where nothing is any more ends the chain.
_CHAIN_SQL = f"""
WITH RECURSIVE chain ({_COLUMNS}, prev) AS (
    SELECT {_COLUMNS}, {{prev}} FROM event WHERE seq = ?
    UNION ALL
    SELECT e.seq, e.kind, e.session, e.stream, e.timestamp, e.data, e.{{prev}}
    FROM chain CROSS JOIN event AS e ON e.seq = chain.prev
    WHERE chain.prev < chain.seq
)
SELECT {_COLUMNS} FROM chain
"""
SESSION_CHAIN_SQL = _CHAIN_SQL.format(prev="session_prev")
STREAM_CHAIN_SQL = _CHAIN_SQL.format(prev="stream_prev")

RANGE_SQL = f"SELECT {_COLUMNS} FROM event WHERE seq > ? AND seq <= ? ORDER BY seq"

PAGE_SQL = (
    "SELECT kind, session, stream, timestamp, data"
    " FROM event WHERE seq > ? AND seq <= ? ORDER BY seq"
)
"""Without the positions, which are known: a page has no gaps."""

SINCE_SQL = f"""
SELECT e.seq, e.kind, e.session, e.stream, e.timestamp, e.data
FROM (
    SELECT first_seq, last_seq FROM block WHERE max_timestamp > ?1 ORDER BY first_seq
) AS b CROSS JOIN event AS e ON e.seq BETWEEN b.first_seq AND b.last_seq
WHERE e.timestamp > ?1
UNION ALL
SELECT {_COLUMNS} FROM event
WHERE timestamp > ?1
    AND seq > ifnull((SELECT last_seq FROM block ORDER BY first_seq DESC LIMIT 1), 0)
ORDER BY 1
"""
"""Reads only the blocks that hold something later, and what came after the last block."""

_BLOCK_GAPS_SQL = """
SELECT end_before, first_seq FROM (
    SELECT first_seq, lag(last_seq, 1, 0) OVER (ORDER BY first_seq) AS end_before FROM block
) WHERE first_seq != end_before + 1
"""
"""Where a block does not begin right after the end of the one before."""

_LATER_BLOCKS_SQL = """
SELECT first_seq, last_seq, (SELECT count(*) FROM event WHERE seq BETWEEN first_seq AND last_seq)
FROM block WHERE max_timestamp > ?1
"""


class Reader:
    """Reads one journal file. Threads may share it.

    Every method raises `DamagedError` where the file contradicts itself, and otherwise what
    `Database.read` raises.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known = KnownNames(database.path)

    def last_position(self) -> int:
        """Return the position of the latest event, 0 where there never was one."""
        with self._database.read() as connection:
            return last_position(connection)

    def event_count(self) -> int:
        """Return how many events there are."""
        with self._database.read() as connection:
            extent = read_extent(connection)
            return extent.event_count(0, extent.last)

    def version(self, session_id: SessionId) -> int:
        """Return how many events a session ever had, 0 where there is no such session."""
        check_id(session_id, SessionId)
        with self._database.read() as connection:
            head = stored_head(connection, "session", session_id.bytes, last_position(connection))
            return 0 if head is None else head.event_count

    def info(self) -> JournalInfo:
        """Return what is in the file."""
        with self._database.read() as connection:
            return read_info(connection, self._database.path)

    def sessions_beginning(self, digits: str, limit: int) -> list[SessionId]:
        """Return the sessions whose ids begin with some hexadecimal digits."""
        with self._database.read() as connection:
            found = ids_beginning(connection, "session", digits, limit)
        return [SessionId.from_bytes(uuid) for uuid in found]

    def streams_beginning(self, digits: str, limit: int) -> list[StreamId]:
        """Return the streams whose ids begin with some hexadecimal digits."""
        with self._database.read() as connection:
            found = ids_beginning(connection, "stream", digits, limit)
        return [StreamId.from_bytes(uuid) for uuid in found]

    def _span(self, after: int, limit: int | None) -> tuple[int, int]:
        """Return the positions between which (first exclusive) a read finds its events.

        Raises:
            ValueError: `after` or `limit` is negative.
            PrunedError: `after` is a position before the first event left.
        """
        for name, value in (("after", after), ("limit", limit)):
            if value is not None and value < 0:
                message = f"{name}: expected 0 or more, found {value}"
                raise ValueError(message)
        with self._database.read() as connection:
            extent = read_extent(connection)
        if 0 < after < extent.cut:
            raise PrunedError(self._database.path, f"position {after}", extent.first)
        after = max(after, extent.cut)
        if limit is None:
            return after, extent.last
        up_to = min(extent.last, after + limit)
        while up_to < extent.last and extent.event_count(after, up_to) < limit:
            up_to += limit - extent.event_count(after, up_to)  # over what is absent in between
        return after, min(up_to, extent.last)

    def session_events(self, session_id: SessionId) -> list[AnyEvent]:
        """Return the events of a session in append order."""
        check_id(session_id, SessionId)
        with self._database.read() as connection:
            return self._events(connection, self.session_rows(connection, session_id))

    def stream_events(self, stream_id: StreamId) -> list[AnyEvent]:
        """Return the events of a stream in append order."""
        check_id(stream_id, StreamId)
        with self._database.read() as connection:
            return self._events(connection, self.stream_rows(connection, stream_id))

    def events_since(self, since: datetime) -> list[AnyEvent]:
        """Return the events with a timestamp later than `since`, in append order."""
        since_ns = Timestamp.from_datetime(since).epoch_ns
        with self._database.read() as connection:
            return self._events(connection, _since(connection, since_ns))

    def read(self, after: int, limit: int | None) -> Iterator[RecordedEvent]:
        """Yield the events after a position; see `Journal.read`.

        Raises:
            ValueError, PrunedError: as `_span`.
        """
        return chain.from_iterable(self._recorded(*self._span(after, limit)))

    def _recorded(self, after: int, up_to: int) -> Iterator[Iterable[RecordedEvent]]:
        for page in self._pages(after, up_to):
            pairs = zip(page.positions, self._decoded(page), strict=True)
            # What RecordedEvent(position, event) makes, in half the time.
            yield map(_new_tuple, repeat(RecordedEvent), pairs)

    def _decoded(self, page: Page) -> Iterator[AnyEvent]:
        def learn() -> Names:
            with self._database.read() as connection:
                return self._known.learn(connection, page)

        return decode_rows(self._database.path, page, self._known.names, learn)

    def lines(
        self,
        after: int,
        session_id: SessionId | None,
        stream_id: StreamId | None,
        since: datetime | None,
    ) -> Iterator[tuple[int, str]]:
        """Yield position and canonical JSON of the events that fit everything; see `Journal.lines`.

        Raises:
            ValueError, PrunedError: as `_span`.
        """
        if session_id is not None:
            check_id(session_id, SessionId)
        if stream_id is not None:
            check_id(stream_id, StreamId)
        since_ns = None if since is None else Timestamp.from_datetime(since).epoch_ns
        return self._lines(*self._span(after, None), session_id, stream_id, since_ns)

    def _lines(
        self,
        after: int,
        up_to: int,
        session_id: SessionId | None,
        stream_id: StreamId | None,
        since_ns: int | None,
    ) -> Iterator[tuple[int, str]]:
        if session_id is None and stream_id is None and since_ns is None:
            pages = self._pages(after, up_to)
        else:
            pages = iter([self._selected(after, up_to, session_id, stream_id, since_ns)])
        for page in pages:
            yield from self._texts(page, stream_id, since_ns)

    def _selected(
        self,
        after: int,
        up_to: int,
        session_id: SessionId | None,
        stream_id: StreamId | None,
        since_ns: int | None,
    ) -> Page:
        """Return the events of a session, else of a stream, else since an instant."""
        with self._database.read() as connection:
            if session_id is not None:
                rows = self.session_rows(connection, session_id)
            elif stream_id is not None:
                rows = self.stream_rows(connection, stream_id)
            else:
                rows = _since(connection, since_ns or 0)
            return Page.of(row for row in rows if after < row[0] <= up_to)

    def _texts(
        self, page: Page, stream_id: StreamId | None, since_ns: int | None
    ) -> Iterator[tuple[int, str]]:
        with self._database.read() as connection:
            kinds, sessions, streams = self._known.learn(connection, page)
        position = 0
        try:
            for position, row in zip(*page, strict=True):
                kind, session, stream, timestamp_ns, data = row
                _, name, has_stream, _ = kinds[kind]
                found = streams[stream]
                check_row(kinds[kind], stream, data)
                if stream_id not in (None, found):
                    continue
                if since_ns is not None and timestamp_ns <= since_ns:
                    continue
                if has_stream is not None:
                    text = canonical_json((name, sessions[session], found, timestamp_ns, data))
                else:
                    (event,) = self._decoded(Page([position], [row]))
                    text = event.model_dump_json()
                yield position, text
        except JournalError:
            raise
        except NOT_DECODED as error:
            raise damaged(self._database.path, position, error) from error

    def _pages(self, after: int, up_to: int) -> Iterator[Page]:
        """Yield the events from `after` (exclusive) to `up_to`, as many at once as are good.

        A page is read in a short transaction, so that a reader who pauses holds up no checkpoint.
        """
        while after < up_to:
            with self._database.read() as connection:
                extent = read_extent(connection)
                if after < extent.cut:
                    raise PrunedError(self._database.path, f"position {after}", extent.first)
                absence = extent.absence_at(after + 1)
                if absence is not None:
                    after = absence.last
                    continue
                end = _end_of_page(connection, extent, after, up_to)
                rows: list[Any] = connection.execute(PAGE_SQL, (after, end)).fetchall()
                if len(rows) != end - after:
                    raise _missing(connection, extent, after, end)
            yield Page(range(after + 1, end + 1), rows)
            after = end

    def session_rows(self, connection: apsw.Connection, session_id: SessionId) -> list[StoredEvent]:
        """Return the rows of a session's events, first to last."""
        return self._chain(connection, "session", session_id, SESSION_CHAIN_SQL)

    def stream_rows(self, connection: apsw.Connection, stream_id: StreamId) -> list[StoredEvent]:
        """Return the rows of a stream's events, first to last."""
        return self._chain(connection, "stream", stream_id, STREAM_CHAIN_SQL)

    def _chain(
        self,
        connection: apsw.Connection,
        table: Literal["session", "stream"],
        uuid: UUID,
        sql: str,
    ) -> list[StoredEvent]:
        """Return the rows of a chain, first to last, after making sure that none is missing."""
        head = stored_head(connection, table, uuid.bytes, last_position(connection))
        if head is None:
            return []
        rows = _fetch(connection, sql, (head.last_seq,))
        expected = head.event_count
        if len(rows) != expected:  # some may lie before a cut
            expected -= events_before(connection, table, head.id)
        place = 2 if table == "session" else 3
        belonging = sum(row[place] == head.id for row in rows)
        if not len(rows) == expected == belonging:
            raise DamagedError(
                self._database.path,
                f"the chain of {table} {uuid} is damaged: expected {expected} events, "
                f"found {belonging} by following the links between them",
                head.last_seq,
            )
        rows.reverse()
        return rows

    def decoded(
        self, connection: apsw.Connection, rows: list[StoredEvent]
    ) -> Iterator[tuple[int, AnyEvent]]:
        """Yield position and event of rows that were read with this connection."""
        page = Page.of(rows)
        learn = partial(self._known.learn, connection, page)
        events = decode_rows(self._database.path, page, self._known.names, learn)
        return zip(page.positions, events, strict=True)

    def _events(self, connection: apsw.Connection, rows: list[StoredEvent]) -> list[AnyEvent]:
        return [event for _, event in self.decoded(connection, rows)]


def rows_between(
    connection: apsw.Connection, extent: Extent, after: int, up_to: int
) -> list[StoredEvent]:
    """Return the rows of the events from `after` (exclusive) to `up_to` (inclusive).

    Raises:
        DamagedError: one is missing that is not declared absent.
    """
    rows = _fetch(connection, RANGE_SQL, (after, up_to))
    if len(rows) != extent.event_count(after, up_to):
        raise _missing(connection, extent, after, up_to)
    return rows


def events_before(connection: apsw.Connection, table: str, key: int) -> int:
    """Return how many events of a session or a stream lie before a cut."""
    count: Any = connection.execute(
        f"SELECT events_before FROM base_{table} WHERE {table} = ?", (key,)
    ).get
    return count if isinstance(count, int) else 0


def _fetch(connection: apsw.Connection, sql: str, parameters: tuple[Any, ...]) -> list[StoredEvent]:
    rows: list[Any] = connection.execute(sql, parameters).fetchall()
    return rows


def _since(connection: apsw.Connection, since_ns: int) -> list[StoredEvent]:
    extent = read_extent(connection)
    if since_ns < MIN_EPOCH_NS:  # every timestamp is later
        return rows_between(connection, extent, 0, extent.last)
    since_ns = min(since_ns, MAX_EPOCH_NS)
    for end_before, first in connection.execute(_BLOCK_GAPS_SQL):
        is_gap = isinstance(end_before, int) and end_before < first
        if not is_gap or extent.event_count(end_before, first - 1):
            what = f"is damaged: the blocks before position {first} end at {end_before!r}"
            raise DamagedError(connection.filename, what, first)
    for first, last, count in connection.execute(_LATER_BLOCKS_SQL, (since_ns,)):
        if count != extent.event_count(first - 1, last):
            raise _missing(connection, extent, first - 1, last)
    return _fetch(connection, SINCE_SQL, (since_ns,))


def _end_of_page(connection: apsw.Connection, extent: Extent, after: int, up_to: int) -> int:
    """Return the last position of what is good to hold in memory at once.

    That is what is left of a block, which ends before its data gets too large, or as many events
    after the last block; and no further than to where events are absent.
    """
    end = min(up_to, after + limits.PAGE_EVENTS_MAX)
    for absence in extent.absences:
        if after < absence.first <= end:
            end = absence.first - 1
    last: Any = connection.execute(
        "SELECT last_seq FROM block WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
        (after + 1,),
    ).get
    return last if isinstance(last, int) and after < last < end else end


def _missing(connection: apsw.Connection, extent: Extent, after: int, up_to: int) -> DamagedError:
    """Return what is to be said of a range that has other events than it should."""
    sql = "SELECT seq FROM event WHERE seq > ? AND seq <= ?"
    here = {row[0] for row in connection.execute(sql, (after, up_to))}
    for position in range(after + 1, up_to + 1):
        if (position in here) is (extent.absence_at(position) is not None):
            what = "is missing" if position not in here else "is declared absent, and is there"
            what = f"is damaged: the event at position {position} {what}"
            return DamagedError(connection.filename, what, position)
    return DamagedError(connection.filename, f"is damaged after position {after}", after + 1)


_new_tuple: Any = tuple.__new__
