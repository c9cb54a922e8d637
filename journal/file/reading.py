"""Reading: rows back to events, by chain, by range of positions or by range of time."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, repeat
from typing import Any

import apsw

from journal.errors import DamagedError, JournalError
from journal.events.canonical import canonical_json
from journal.events.ids import SessionId, StreamId
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS
from journal.events.unknown import AnyEvent
from journal.file.appending import last_position
from journal.file.blocks import EVENTS_MAX
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
from journal.file.names import KnownNames
from journal.store import RecordedEvent

_COLUMNS = "seq, kind, session, stream, timestamp, data"

# The recursion follows a link only to an earlier position, so a damaged one cannot loop. It is a
# CROSS JOIN because the planner would otherwise rather scan the table than look its key up.
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
"""Without the positions, which are known: they have no gaps."""

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
        """Return how many events there are: positions have no gaps."""
        with self._database.read() as connection:
            first = connection.execute("SELECT min(seq) FROM event").get
            return 0 if first is None else last_position(connection) - first + 1

    def span(self, after: int, limit: int | None) -> tuple[int, int]:
        """Return the positions between which (first exclusive) a read finds its events.

        Raises:
            ValueError: `after` or `limit` is negative.
        """
        for name, value in (("after", after), ("limit", limit)):
            if value is not None and value < 0:
                message = f"{name}: expected 0 or more, found {value}"
                raise ValueError(message)
        with self._database.read() as connection:
            last = last_position(connection)
            first = connection.execute("SELECT min(seq) FROM event").get
        after = max(after, last if first is None else first - 1)
        return after, last if limit is None else min(last, after + limit)

    def session_events(self, session_id: SessionId) -> list[AnyEvent]:
        """Return the events of a session in append order."""
        with self._database.read() as connection:
            return self._events(connection, self.session_rows(connection, session_id))

    def stream_events(self, stream_id: StreamId) -> list[AnyEvent]:
        """Return the events of a stream in append order."""
        with self._database.read() as connection:
            return self._events(connection, self.stream_rows(connection, stream_id))

    def events_since(self, since_ns: int) -> list[AnyEvent]:
        """Return the events with a timestamp later than `since_ns`, in append order."""
        with self._database.read() as connection:
            return self._events(connection, _since(connection, since_ns))

    def events(self, after: int, up_to: int) -> Iterator[RecordedEvent]:
        """Yield the events at positions from `after` (exclusive) to `up_to` (inclusive)."""
        return chain.from_iterable(self._recorded(after, up_to))

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
        up_to: int,
        *,
        session_id: SessionId | None = None,
        stream_id: StreamId | None = None,
        since_ns: int | None = None,
    ) -> Iterator[tuple[int, str]]:
        """Yield position and canonical JSON of the events that fit everything given, in order."""
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
        """Yield the events from `after` (exclusive) to `up_to`, in pages of a good size.

        A page is read in a short transaction, so that a reader who pauses holds up no checkpoint.
        """
        while after < up_to:
            with self._database.read() as connection:
                end = _end_of_page(connection, after, up_to)
                rows: list[Any] = connection.execute(PAGE_SQL, (after, end)).fetchall()
                if len(rows) != end - after:
                    missing = _first_missing(connection, after, end)
                    reason = f"is damaged: the event at position {missing} is missing"
                    raise DamagedError(self._database.path, reason, missing)
            yield Page(range(after + 1, end + 1), rows)
            after = end

    def session_rows(self, connection: apsw.Connection, session_id: SessionId) -> list[StoredEvent]:
        """Return the rows of a session's events, first to last."""
        head: Any = connection.execute(
            "SELECT id, last_seq, event_count FROM session WHERE uuid = ?", (session_id.bytes,)
        ).fetchone()
        if head is None:
            return []
        rows = _fetch(connection, SESSION_CHAIN_SQL, (head[1],))
        belonging = sum(row[2] == head[0] for row in rows)
        return self._whole_chain(rows, f"session {session_id}", head, belonging)

    def stream_rows(self, connection: apsw.Connection, stream_id: StreamId) -> list[StoredEvent]:
        """Return the rows of a stream's events, first to last."""
        head: Any = connection.execute(
            "SELECT id, last_seq, event_count FROM stream WHERE uuid = ?", (stream_id.bytes,)
        ).fetchone()
        if head is None:
            return []
        rows = _fetch(connection, STREAM_CHAIN_SQL, (head[1],))
        belonging = sum(row[3] == head[0] for row in rows)
        return self._whole_chain(rows, f"stream {stream_id}", head, belonging)

    def _whole_chain(
        self, rows: list[StoredEvent], name: str, head: tuple[int, int, int], belonging: int
    ) -> list[StoredEvent]:
        """Return the rows of a chain, first to last, after making sure that none is missing."""
        _, last, expected = head
        if not len(rows) == expected == belonging:
            raise DamagedError(
                self._database.path,
                f"the chain of {name} is damaged: expected {expected} events, "
                f"found {belonging} by following the links between them",
                last if isinstance(last, int) else None,
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


def _fetch(connection: apsw.Connection, sql: str, parameters: tuple[Any, ...]) -> list[StoredEvent]:
    rows: list[Any] = connection.execute(sql, parameters).fetchall()
    return rows


def _since(connection: apsw.Connection, since_ns: int) -> list[StoredEvent]:
    if since_ns < MIN_EPOCH_NS:  # every timestamp is later
        return _fetch(connection, RANGE_SQL, (0, 2**63 - 1))
    return _fetch(connection, SINCE_SQL, (min(since_ns, MAX_EPOCH_NS),))


def _end_of_page(connection: apsw.Connection, after: int, up_to: int) -> int:
    """Return the last position of what is good to hold in memory at once.

    That is the rest of a block, which ends before its data gets too large. After the last block it
    is as many events as a block has.
    """
    end = min(up_to, after + EVENTS_MAX)
    last: Any = connection.execute(
        "SELECT last_seq FROM block WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
        (after + 1,),
    ).get
    return last if isinstance(last, int) and after < last < end else end


def _first_missing(connection: apsw.Connection, after: int, end: int) -> int:
    """Return the first position of a range at which there is no event."""
    rows = _fetch(connection, RANGE_SQL, (after, end))
    return next(
        (wanted for wanted, row in enumerate(rows, start=after + 1) if row[0] != wanted),
        after + len(rows) + 1,
    )


_new_tuple: Any = tuple.__new__
