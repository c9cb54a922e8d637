"""Selecting: pages of the events that fit some filters, in order, in memory that does not grow.

A session or stream with few of the events is read along its chain, everything else by ranges of
positions. The filters are part of the statements: what does not fit is never made a row of.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import apsw

from journal import limits
from journal.errors import DamagedError, PrunedError
from journal.events.ids import SessionId, StreamId, check_id
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS, Timestamp
from journal.file.chain_heads import stored_head
from journal.file.decoding import StoredEvent
from journal.file.extent import Extent, end_of_page, missing_event, read_extent
from journal.file.identity import meta
from journal.file.names import kinds_of

Reading = Callable[[], AbstractContextManager[apsw.Connection]]
"""Lends a connection for one short transaction."""

Progress = Callable[[int, int], None]

Owner = Literal["session", "stream"]

COLUMNS = "seq, kind, session, stream, timestamp, data"

_LINK_COST = 25
"""How many events in a row are looked at in the time that following a link twice takes."""

_BLOCKS_SQL = """
SELECT first_seq, last_seq, min_timestamp, max_timestamp FROM block
WHERE first_seq >= ifnull(
    (SELECT first_seq FROM block WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1 OFFSET 1), 0)
ORDER BY first_seq
"""
"""From the block before the one that a position is in, so that what overlaps is seen.

All of them, half a microsecond each, and not those alone that the index of largest timestamps
finds: a block that is lost, or ends elsewhere than it says, would take its events with it.
"""

# The recursion follows a link only to an earlier position, so a damaged one cannot loop. It is a
# CROSS JOIN because the planner would otherwise rather scan the table than look its key up. A link
# to where nothing is any more ends the chain.
_STRETCH_SQL = """
WITH RECURSIVE chain (at, back, owner, fits, number, size) AS (
    SELECT seq, {owner}_prev, {owner}, {condition}, 1, ifnull(octet_length(data), 0)
    FROM event WHERE seq = :last
    UNION ALL
    SELECT seq, {owner}_prev, {owner}, {condition}, number + 1,
        size + ifnull(octet_length(data), 0)
    FROM chain CROSS JOIN event ON seq = back
    WHERE back < at AND number < :events_max AND size < :data_max
)
"""
_MEASURE_SQL = f"""{_STRETCH_SQL}
SELECT count(*), min(at), back, count(*) FILTER (WHERE owner = :{{owner}}),
    count(*) FILTER (WHERE fits)
FROM chain
"""
_FETCH_SQL = f"""{_STRETCH_SQL}
SELECT {COLUMNS} FROM chain CROSS JOIN event ON seq = at WHERE fits ORDER BY number DESC
"""


class Wanted(NamedTuple):
    """Which events a caller wants: those that fit all of it; None: any."""

    session_id: SessionId | None = None
    stream_id: StreamId | None = None
    since: datetime | None = None
    """They have a later timestamp."""
    until: datetime | None = None
    """They have this timestamp or an earlier one."""
    kinds: Collection[str] | None = None
    """Their kind is one of these."""
    origin: str | None = None
    """They were appended to the journal with this label or id."""

    def check(self) -> None:
        """Refuse what is not ids, an instant and the names of kinds.

        Raises:
            TypeError: an id is of another class, or `kinds` is one text.
            ValueError: `since` or `until` has no UTC offset.
        """
        if self.session_id is not None:
            check_id(self.session_id, SessionId)
        if self.stream_id is not None:
            check_id(self.stream_id, StreamId)
        for instant in (self.since, self.until):
            if instant is not None:
                Timestamp.from_datetime(instant)
        if isinstance(self.kinds, str):
            message = f"kinds: expected several names, as in [{self.kinds!r}], found one text"
            raise TypeError(message)


class Filters(NamedTuple):
    """Which events are wanted, as the file stores them; None: any."""

    session: int | None = None
    stream: int | None = None
    since_ns: int | None = None
    """They have a later timestamp."""
    until_ns: int | None = None
    """They have this timestamp or an earlier one."""
    kinds: tuple[int, ...] | None = None

    def condition(self) -> str:
        """Return what has to be true of a row of `event`; what `values` has stands by its name."""
        kinds = ", ".join(f":kind{number}" for number in range(len(self.kinds or ())))
        conditions = {
            "session = :session": self.session,
            "stream = :stream": self.stream,
            "timestamp > :since_ns": self.since_ns,
            "timestamp <= :until_ns": self.until_ns,
            f"kind IN ({kinds})": self.kinds,
        }
        wanted = [text for text, value in conditions.items() if value is not None]
        return " AND ".join(wanted) or "TRUE"

    def values(self) -> dict[str, int]:
        """Return what stands for the names in `condition`."""
        named = {"session": self.session, "stream": self.stream}
        named |= {"since_ns": self.since_ns, "until_ns": self.until_ns}
        named |= {f"kind{number}": code for number, code in enumerate(self.kinds or ())}
        return {name: value for name, value in named.items() if value is not None}


class Chain(NamedTuple):
    """The events of a session or a stream, linked from the last one back."""

    owner: Owner
    uuid: UUID
    key: int
    last: int
    """The position of the last of them."""
    event_count: int
    """How many there are that are not before a cut."""


class Selection(NamedTuple):
    """The events after a position and up to another that fit some filters."""

    def within(self, first: int, last: int) -> "Selection":
        """Return what is selected at positions of a range, both ends inclusive."""
        after, up_to = max(self.after, first - 1), min(self.up_to, last)
        return self._replace(after=after, up_to=up_to, chain=None, event_count=None)

    filters: Filters
    after: int
    up_to: int
    chain: Chain | None
    """One that has them all; the shorter one where there are two."""
    event_count: int | None
    """How many there are to be, where that is known."""


def selection(
    connection: apsw.Connection, extent: Extent, after: int, wanted: Wanted
) -> Selection | None:
    """Return what is to be read after a position; None where the file has nothing of the sort.

    Raises:
        DamagedError: the head of a session or a stream is not what it could be.
    """
    since_ns = _epoch_ns(wanted.since, MIN_EPOCH_NS - 1)
    until_ns = _epoch_ns(wanted.until, MAX_EPOCH_NS)
    if since_ns >= MAX_EPOCH_NS or until_ns < MIN_EPOCH_NS:
        return None
    chains: dict[Owner, Chain] = {}
    ids: dict[Owner, UUID | None] = {"session": wanted.session_id, "stream": wanted.stream_id}
    for owner, uuid in ids.items():
        if uuid is None:
            continue
        head = stored_head(connection, owner, uuid.bytes, extent.last)
        if head is None:
            return None
        here = head.event_count - events_before(connection, owner, head.id)
        chains[owner] = Chain(owner, uuid, head.id, head.last_seq, here)
    codes = None
    if wanted.kinds is not None:
        kinds = kinds_of(connection).items()
        codes = tuple(code for code, kind in kinds if kind.name in wanted.kinds)
        if not codes:
            return None
    keys = {owner: chain.key for owner, chain in chains.items()}
    filters = Filters(
        keys.get("session"),
        keys.get("stream"),
        None if since_ns < MIN_EPOCH_NS else since_ns,  # such instants do not fit SQLite
        None if until_ns >= MAX_EPOCH_NS else until_ns,
        codes,
    )
    chain = min(chains.values(), key=lambda chain: chain.event_count, default=None)
    count = None
    if chain is not None and after == extent.cut and filters.values() == {chain.owner: chain.key}:
        count = chain.event_count
    return Selection(filters, after, extent.last, chain, count)


def _epoch_ns(instant: datetime | None, default_ns: int) -> int:
    return default_ns if instant is None else Timestamp.from_datetime(instant).epoch_ns


def events_before(connection: apsw.Connection, owner: Owner, key: int) -> int:
    """Return how many events of a session or a stream lie before a cut."""
    count: Any = connection.execute(
        f"SELECT events_before FROM base_{owner} WHERE {owner} = ?", (key,)
    ).get
    return count if isinstance(count, int) else 0


def chain_damaged(path: Path | str, chain: Chain, found: int) -> DamagedError:
    """Return what is to be said of a chain that has other events than it should."""
    what = (
        f"the chain of {chain.owner} {chain.uuid} is damaged: expected {chain.event_count} events, "
        f"found {found} by following the links between them"
    )
    return DamagedError(path, what, chain.last)


def selected(
    reading: Reading, wanted: Selection, progress: Progress | None = None
) -> Iterator[list[StoredEvent]]:
    """Yield pages of what is selected, each read in a short transaction of its own.

    `progress` is called with how many events were looked at for it, and how many there are.

    Raises:
        DamagedError: an event is missing where it looks, or a chain is not what its head says.
        PrunedError: events that it has yet to look at were pruned meanwhile.
    """
    chain = wanted.chain
    if chain is not None and chain.event_count * _LINK_COST < wanted.up_to - wanted.after:
        return _along_the_chain(reading, wanted, chain, progress)
    return _by_range(reading, wanted, progress)


# By ranges of positions


def _by_range(
    reading: Reading, wanted: Selection, progress: Progress | None
) -> Iterator[list[StoredEvent]]:
    position, count = wanted.after, 0
    path = ""
    while position < wanted.up_to:
        with reading() as connection:
            path, extent = connection.filename, read_extent(connection)
            if position < extent.cut:
                raise PrunedError(connection.filename, f"position {position}", extent.first)
            rows, position = next_rows(connection, extent, wanted.filters, position, wanted.up_to)
            count += len(rows)
        if progress is not None:
            progress(position - wanted.after, wanted.up_to - wanted.after)
        if rows:
            yield rows
    if wanted.chain is not None and wanted.event_count not in (None, count):
        raise chain_damaged(path, wanted.chain, count)


def next_rows(
    connection: apsw.Connection, extent: Extent, filters: Filters, after: int, up_to: int
) -> tuple[list[StoredEvent], int]:
    """Return the rows that fit in the next range of positions, and the position where that ends.

    It skips what is absent, and blocks that hold nothing of the times that are wanted.

    Raises:
        DamagedError: an event is missing in the range, or a block before it.
    """
    start, stop = after, up_to
    if filters.since_ns is not None or filters.until_ns is not None:
        start, stop = _next_of_time(connection, extent, filters, after, up_to)
    if start >= stop:
        return [], up_to
    absence = extent.absence_at(start + 1)
    if absence is not None:
        return [], min(absence.last, up_to)
    end = end_of_page(connection, extent, start, stop)
    condition = filters.condition()
    values = {**filters.values(), "start": start, "end": end}
    counts: Any = connection.execute(
        f"SELECT count(*), count(*) FILTER (WHERE {condition}) FROM event"
        " WHERE seq > :start AND seq <= :end",
        values,
    ).fetchone()
    here, fitting = counts
    if here != end - start:
        raise missing_event(connection, extent, start, end)
    if not fitting:
        return [], end
    rows: Any = connection.execute(
        f"SELECT {COLUMNS} FROM event"
        f" WHERE seq > :start AND seq <= :end AND {condition} ORDER BY seq",
        values,
    ).fetchall()
    return rows, end


def _next_of_time(
    connection: apsw.Connection, extent: Extent, filters: Filters, after: int, up_to: int
) -> tuple[int, int]:
    """Return the next range, first exclusive, that may hold something of the times wanted.

    That is a block, or what comes after the last one.
    """
    since_ns = MIN_EPOCH_NS - 1 if filters.since_ns is None else filters.since_ns
    until_ns = MAX_EPOCH_NS if filters.until_ns is None else filters.until_ns
    end, is_first = after, True  # end: of the block before
    for block in connection.execute(_BLOCKS_SQL, (after + 1,)):
        first, last, earliest_ns, latest_ns = block
        if not (
            all(isinstance(value, int) for value in block)
            and first <= last
            and (is_first or end < first)
        ):
            raise _blocks_damaged(connection, first, end)
        if first > end + 1 and extent.event_count(end, first - 1):
            if meta(connection, "closed") != "recover":
                raise _blocks_damaged(connection, first, end)
            if first > after + 1:  # events whose block was lost
                return max(after, end), min(first - 1, up_to)
        if last > after and latest_ns > since_ns and earliest_ns <= until_ns:
            return max(after, first - 1), min(last, up_to)
        end, is_first = last, False
    return max(after, end), up_to


def _blocks_damaged(connection: apsw.Connection, first: int, end: int) -> DamagedError:
    what = f"is damaged: the blocks before position {first} end at {end}"
    return DamagedError(connection.filename, what, first)


# Along a chain


class _Stretch(NamedTuple):
    """Some events of a chain that follow each other, as many as are good to hold in memory."""

    last: int
    """The position from which the links lead to the others."""
    first: int
    fitting: int
    """How many of them are wanted."""


def _along_the_chain(
    reading: Reading, wanted: Selection, chain: Chain, progress: Progress | None
) -> Iterator[list[StoredEvent]]:
    """Yield what fits, first to last, although the links lead from the last to the first.

    So they are followed twice: to know where each stretch begins, and to read it.
    """
    condition = f"{wanted.filters.condition()} AND seq > :after AND seq <= :up_to"
    texts = {"owner": chain.owner, "condition": condition}
    values = {
        **wanted.filters.values(),
        chain.owner: chain.key,
        "after": wanted.after,
        "up_to": wanted.up_to,
        "events_max": limits.PAGE_EVENTS_MAX,
        "data_max": limits.BLOCK_DATA_MAX,
    }
    with reading() as connection:
        sql = _MEASURE_SQL.format(**texts)
        stretches = _stretches(connection, chain, sql, values, progress)
    fetch_sql = _FETCH_SQL.format(**texts)
    done, total = 0, sum(stretch.fitting for stretch in stretches)
    while stretches:
        last, first, fitting = stretches.pop()
        with reading() as connection:
            rows: Any = connection.execute(fetch_sql, {**values, "last": last}).fetchall()
            if len(rows) != fitting:
                cut = read_extent(connection).cut
                if first <= cut:
                    raise PrunedError(connection.filename, f"position {first}", cut + 1)
                raise chain_damaged(connection.filename, chain, len(rows))
        done += fitting
        if progress is not None:
            progress(done, total)
        yield rows


def _stretches(
    connection: apsw.Connection,
    chain: Chain,
    sql: str,
    values: dict[str, int],
    progress: Progress | None,
) -> list[_Stretch]:
    """Follow a chain; return its stretches that hold what is wanted, last to first.

    Raises:
        DamagedError: the links do not lead to as many events as there are to be.
    """
    found = []
    count = belonging = 0
    last: int | None = chain.last
    while last is not None:
        row: Any = connection.execute(sql, {**values, "last": last}).fetchone()
        here, first, back, own, fitting = row
        if fitting:
            found.append(_Stretch(last, first, fitting))
        count += here
        belonging += own
        if progress is not None:
            progress(count, chain.event_count)
        last = back if isinstance(back, int) and back < first else None
    if not count == belonging == chain.event_count:
        raise chain_damaged(connection.filename, chain, belonging)
    return found
