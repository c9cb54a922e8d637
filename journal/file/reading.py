"""Reading: rows back to events, by chain, by range of positions or by range of time."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any
from uuid import UUID

import apsw

from journal.errors import DamagedError, JournalError, PrunedError
from journal.events.canonical import canonical_json
from journal.events.ids import SessionId, StreamId, check_id
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
from journal.file.extent import (
    Extent,
    end_of_page,
    last_position,
    missing_event,
    read_extent,
)
from journal.file.identity import FORMAT_VERSION, meta
from journal.file.names import KnownNames, ids_beginning, kinds_of
from journal.file.origins import Origin, origin_of, ranges_named
from journal.file.selecting import (
    COLUMNS,
    Chain,
    Owner,
    Progress,
    Wanted,
    chain_damaged,
    events_before,
    next_rows,
    selected,
    selection,
)
from journal.store import RecordedEvent

if TYPE_CHECKING:
    from journal.file.info import JournalInfo

# The recursion follows a link only to an earlier position, so a damaged one cannot loop. It is a
# CROSS JOIN because the planner would otherwise rather scan the table than look its key up. A link
# to where nothing is any more ends the chain.
_CHAIN_SQL = f"""
WITH RECURSIVE chain ({COLUMNS}, prev) AS (
    SELECT {COLUMNS}, {{prev}} FROM event WHERE seq = ?
    UNION ALL
    SELECT e.seq, e.kind, e.session, e.stream, e.timestamp, e.data, e.{{prev}}
    FROM chain CROSS JOIN event AS e ON e.seq = chain.prev
    WHERE chain.prev < chain.seq
)
SELECT {COLUMNS} FROM chain
"""
SESSION_CHAIN_SQL = _CHAIN_SQL.format(prev="session_prev")
STREAM_CHAIN_SQL = _CHAIN_SQL.format(prev="stream_prev")

RANGE_SQL = f"SELECT {COLUMNS} FROM event WHERE seq > ? AND seq <= ? ORDER BY seq"

PAGE_SQL = (
    "SELECT kind, session, stream, timestamp, data"
    " FROM event WHERE seq > ? AND seq <= ? ORDER BY seq"
)
"""Without the positions, which are known: a page has no gaps."""


class Reader:
    """Reads one journal file. Threads may share it.

    Every method raises `DamagedError` where the file contradicts itself, and otherwise what
    `Database.read` raises.
    """

    def __init__(self, database: Database) -> None:
        self.progress: Progress | None = None
        """Is told how far it has come while it looks for events."""
        self._database = database
        self._known = KnownNames(database.path)

    def journal_id(self) -> UUID:
        """Return the identity of the journal."""
        with self._database.read() as connection:
            text = meta(connection, "journal_id")
        try:
            return UUID(text)
        except (ValueError, TypeError, AttributeError) as error:
            reason = f"is damaged: its journal_id is {text!r}"
            raise DamagedError(self._database.path, reason) from error

    def label(self) -> str | None:
        """Return what people call the journal."""
        with self._database.read() as connection:
            return meta(connection, "label")

    def is_older_format(self) -> bool:
        """Tell whether the file is of an older format than this version writes."""
        with self._database.read() as connection:
            found: int = connection.pragma("user_version")
        return found < FORMAT_VERSION

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
            return self.version_in(connection, session_id)

    def version_in(self, connection: apsw.Connection, session_id: SessionId) -> int:
        """Return `version` in the transaction of a connection that was lent."""
        head = stored_head(connection, "session", session_id.bytes, last_position(connection))
        return 0 if head is None else head.event_count

    def origin_of(self, position: int) -> Origin | None:
        """Return the range of another journal, or of this, that a position lies in."""
        with self._database.read() as connection:
            return origin_of(connection, position, last_position(connection))

    def kind_names(self) -> list[str]:
        """Return the names of the kinds that the file has a code for."""
        with self._database.read() as connection:
            return sorted({kind.name for kind in kinds_of(connection).values()})

    def info(self, progress: Callable[[int, int], None] | None) -> "JournalInfo":
        """Return what is in the file; `progress` is told how many events are counted, of all."""
        from journal.file.info import read_info  # noqa: PLC0415 (only here)

        with self._database.read() as connection:
            return read_info(connection, self._database.path, progress)

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
            rows = self.chain_rows(connection, "session", session_id)
            return self._events(connection, rows or [])

    def stream_events(self, stream_id: StreamId) -> list[AnyEvent]:
        """Return the events of a stream in append order."""
        check_id(stream_id, StreamId)
        with self._database.read() as connection:
            rows = self.chain_rows(connection, "stream", stream_id)
            return self._events(connection, rows or [])

    def events_since(self, since: datetime) -> list[AnyEvent]:
        """Return the events with a timestamp later than `since`, in append order."""
        wanted = Wanted(since=since)
        wanted.check()
        with self._database.read() as connection:
            extent = read_extent(connection)
            found = selection(connection, extent, extent.cut, wanted)
            if found is None:
                return []
            rows, position = [], found.after
            while position < found.up_to:
                some, position = next_rows(connection, extent, found.filters, position, found.up_to)
                rows += some
            return self._events(connection, rows)

    def read(self, after: int, limit: int | None, wanted: Wanted) -> Iterator[RecordedEvent]:
        """Yield the events after a position that fit everything; see `Journal.read`.

        Raises:
            TypeError, ValueError, PrunedError: as `Wanted.check` and `_span`.
        """
        if wanted == Wanted():
            pages = self._pages(*self._span(after, limit), self.progress)
            return chain.from_iterable(self._recorded(pages))
        pages = self._selected(after, limit, wanted)
        return islice(chain.from_iterable(self._recorded(pages)), limit)

    def _recorded(self, pages: Iterator[Page]) -> Iterator[Iterable[RecordedEvent]]:
        for page in pages:
            pairs = zip(page.positions, self._decoded(page), strict=True)
            # What RecordedEvent(position, event) makes, in half the time.
            yield map(_new_tuple, repeat(RecordedEvent), pairs)

    def _selected(self, after: int, limit: int | None, wanted: Wanted) -> Iterator[Page]:
        """Yield pages of the events after a position that fit everything, more than `limit`, too.

        Raises:
            TypeError, ValueError, PrunedError: as `Wanted.check` and `_span`, before the first.
        """
        wanted.check()
        after, _ = self._span(after, limit)
        with self._database.read() as connection:
            extent = read_extent(connection)
            found = selection(connection, extent, after, wanted)
            ranges = None
            if wanted.origin is not None:
                ranges = ranges_named(connection, wanted.origin, extent.last)
        if found is None:
            return iter(())
        some = [found] if ranges is None else (found.within(*each) for each in ranges)
        pages = (selected(self._database.read, each, self.progress) for each in some)
        return map(Page.of, chain.from_iterable(pages))

    def _decoded(self, page: Page) -> Iterator[AnyEvent]:
        def learn() -> Names:
            with self._database.read() as connection:
                return self._known.learn(connection, page)

        return decode_rows(self._database.path, page, self._known.names, learn)

    def lines(self, after: int, wanted: Wanted) -> Iterator[tuple[int, str]]:
        """Yield position and canonical JSON of the events that fit everything; see `Journal.lines`.

        Raises:
            TypeError, ValueError, PrunedError: as `Wanted.check` and `_span`.
        """
        if wanted == Wanted():
            pages = self._pages(*self._span(after, None), self.progress)
        else:
            pages = self._selected(after, None, wanted)
        return chain.from_iterable(map(self._texts, pages))

    def _texts(self, page: Page) -> Iterator[tuple[int, str]]:
        with self._database.read() as connection:
            kinds, sessions, streams = self._known.learn(connection, page)
        position = 0
        try:
            for position, row in zip(*page, strict=True):
                kind, session, stream, timestamp_ns, data = row
                _, name, has_stream, _ = kinds[kind]
                found = streams[stream]
                check_row(kinds[kind], stream, data)
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

    def _pages(self, after: int, up_to: int, progress: Progress | None = None) -> Iterator[Page]:
        """Yield the events from `after` (exclusive) to `up_to`, as many at once as are good.

        A page is read in a short transaction, so that a reader who pauses holds up no checkpoint.
        """
        begin = after
        while after < up_to:
            with self._database.read() as connection:
                extent = read_extent(connection)
                if after < extent.cut:
                    raise PrunedError(self._database.path, f"position {after}", extent.first)
                absence = extent.absence_at(after + 1)
                if absence is not None:
                    after = absence.last
                    continue
                end = end_of_page(connection, extent, after, up_to)
                rows: list[Any] = connection.execute(PAGE_SQL, (after, end)).fetchall()
                if len(rows) != end - after:
                    raise missing_event(connection, extent, after, end)
            if progress is not None:
                progress(end - begin, up_to - begin)
            yield Page(range(after + 1, end + 1), rows)
            after = end

    def rows(self, wanted: Wanted) -> Iterator[StoredEvent]:
        """Yield the rows of the events that fit everything, in order, read a page at a time."""
        with self._database.read() as connection:
            extent = read_extent(connection)
            found = selection(connection, extent, extent.cut, wanted)
        return chain.from_iterable(() if found is None else selected(self._database.read, found))

    def chain_rows(
        self,
        connection: apsw.Connection,
        owner: Owner,
        uuid: UUID,
        data_max: int | None = None,
    ) -> list[StoredEvent] | None:
        """Return the rows of a session or a stream, first to last, after making sure of all.

        None: their data has more characters than `data_max`.
        """
        head = stored_head(connection, owner, uuid.bytes, last_position(connection))
        if head is None:
            return []
        sql = SESSION_CHAIN_SQL if owner == "session" else STREAM_CHAIN_SQL
        cursor = connection.execute(sql, (head.last_seq,))
        rows: list[Any] | None = _within(cursor, data_max)
        if rows is None:
            return None
        expected = head.event_count
        if len(rows) != expected:  # some may lie before a cut
            expected -= events_before(connection, owner, head.id)
        place = 2 if owner == "session" else 3
        belonging = sum(row[place] == head.id for row in rows)
        if not len(rows) == expected == belonging:
            whole = Chain(owner, uuid, head.id, head.last_seq, expected)
            raise chain_damaged(self._database.path, whole, belonging)
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
    rows: list[Any] = connection.execute(RANGE_SQL, (after, up_to)).fetchall()
    if len(rows) != extent.event_count(after, up_to):
        raise missing_event(connection, extent, after, up_to)
    return rows


def _within(rows: apsw.Cursor, data_max: int | None) -> list[Any] | None:
    """Return all rows of a query for events; None: their data has more than so many characters."""
    if data_max is None:
        return rows.fetchall()
    found = []
    for row in rows:
        data_max -= len(row[5] or "")
        if data_max < 0:
            rows.close()
            return None
        found.append(row)
    return found


_new_tuple: Any = tuple.__new__
