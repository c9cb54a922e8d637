"""Listing: the sessions, streams or anomalies of a file in some order, a page at a time.

Filter, order and limit are part of the statements. What is folded in memory only stands in for the
stored rows of the same keys.
"""

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

import apsw
from pydantic_core import to_json

from journal.projections.lifecycle import (
    SESSION_COLUMNS,
    STATE,
    STREAM_COLUMNS,
    T_ERROR,
    T_SESSION,
    T_STATE,
    AnomalyFound,
    State,
)
from journal.projections.lifecycle_states import LifecycleStates

SessionOrder = Literal["oldest", "newest", "ended", "events", "streams", "failed", "anomalies"]
StreamOrder = Literal["oldest", "newest", "ended", "events", "frames", "bytes", "anomalies"]

Reading = Callable[[], AbstractContextManager[apsw.Connection]]
"""Lends a connection, for one page."""

Progress = Callable[[int, int], None]

_PAGE_ROWS_MAX = 1_000
_PAGE_TEXT_MAX = 1024 * 1024
"""How many characters of errors a page may have before it ends."""

_KEYS_AT_ONCE = 100_000
"""As many are sorted in a tenth of a second."""
_NULL = -(2**63)
"""Stands for no value, which comes last."""

RowT = TypeVar("RowT", bound=Sequence[Any])


class Kind(NamedTuple):
    """Sessions or streams."""

    table: Literal["session", "stream"]
    columns: tuple[str, ...]
    state_at: int
    text_at: int | None
    """Where the rows have a text of any length."""
    orders: dict[str, str | None]
    """The column that each order goes by, largest first; None: the keys, which rise with first
    events."""


SESSIONS = Kind(
    "session",
    SESSION_COLUMNS,
    STATE,
    None,
    {
        "oldest": None,
        "newest": None,
        "ended": "ended_at",
        "events": "event_count",
        "streams": "total_streams",
        "failed": "failed_streams",
        "anomalies": "anomalies",
    },
)
STREAMS = Kind(
    "stream",
    STREAM_COLUMNS,
    T_STATE,
    T_ERROR,
    {
        "oldest": None,
        "newest": None,
        "ended": "ended_at",
        "events": "event_count",
        "frames": "frames",
        "bytes": "bytes",
        "anomalies": "anomalies",
    },
)


class Wanted(NamedTuple):
    """Which rows are wanted, and in which order; None: any, all."""

    kind: Kind
    state: str | None
    order: str
    limit: int | None

    def check(self) -> None:
        """Refuse an order or a limit that is none.

        Raises:
            ValueError: as it says.
        """
        if self.order not in self.kind.orders:
            message = f"order: expected one of {', '.join(self.kind.orders)}, found {self.order!r}"
            raise ValueError(message)
        if self.limit is not None and self.limit < 0:
            message = f"limit: expected 0 or more, found {self.limit}"
            raise ValueError(message)

    def rank(self, row: State) -> tuple[Any, ...]:
        """Return what the rows are sorted by."""
        column = self.kind.orders[self.order]
        if self.order == "oldest":
            return (row[0],)
        if column is None:
            return (-row[0],)
        value = row[self.kind.columns.index(column)]
        return value is None, -(value or 0), -row[0]


class Listing(NamedTuple):
    """A list that is begun: what it takes from memory, and up to where from the tables."""

    wanted: Wanted
    session: int | None
    """Only streams of this session; None: of any."""
    folded: dict[int, State]
    """What is folded in memory, by key."""
    last_key: int
    """The largest key to take from the tables; 0: nothing."""
    schema: str = "main"
    """Whose tables."""

    def takes(self, row: State) -> bool:
        """Tell whether what is folded in memory fits."""
        return self.wanted.state in (None, row[self.wanted.kind.state_at]) and (
            self.session is None or row[T_SESSION] == self.session
        )


def begin(
    connection: apsw.Connection, states: LifecycleStates, wanted: Wanted, session: int | None = None
) -> Listing:
    """Begin a list of what `states` has, in the transaction that these are lent in."""
    kind = wanted.kind
    if states.tables_in is not None:
        lifecycle = states.lifecycle
        folded = lifecycle.sessions if kind is SESSIONS else lifecycle.streams
        last_key: Any = connection.execute(f"SELECT max(id) FROM {kind.table}").get
        return Listing(wanted, session, folded, last_key or 0, states.tables_in)
    folded = states.all_sessions() if kind is SESSIONS else states.all_streams()
    return Listing(wanted, session, folded, 0)


def rows_of(
    reading: Reading, listing: Listing, progress: Progress | None = None
) -> Iterator[State]:
    """Yield the rows of a list; what comes from the tables in pages, each with a connection lent.

    A row is as it is when its page is read. `progress` is told how far sorting has come, and then
    how far the pages have.
    """
    wanted, folded = listing.wanted, listing.folded
    if wanted.kind.orders[wanted.order] is None:
        rows = _by_key(reading, listing, progress)
    else:
        rows = _by_value(reading, listing, progress)
    if folded:
        fitting = sorted(filter(listing.takes, folded.values()), key=wanted.rank)
        stored = (row for row in rows if row[0] not in folded)
        rows = heapq.merge(stored, fitting, key=wanted.rank)
    return islice(rows, wanted.limit)


def page_of(rows: Iterator[RowT], text_at: int | None) -> tuple[list[RowT], bool]:
    """Return the rows that follow, a thousand or fewer if they are large, and whether that is all.

    `text_at` is where they have a text of any length.
    """
    page, size = [], 0
    for row in rows:
        page.append(row)
        if text_at is not None:
            size += len(row[text_at] or "")
        if len(page) == _PAGE_ROWS_MAX or size >= _PAGE_TEXT_MAX:
            return page, False
    return page, True


def _queried(
    reading: Reading, sql: str, values: dict[str, Any], text_at: int | None
) -> tuple[list[State], bool]:
    """Return the first page of what a query finds, and whether that is all."""
    with reading() as connection:
        cursor: Any = connection.execute(sql, values)
        page = page_of(cursor, text_at)
        cursor.close()  # or else it would keep the transaction open
        return page


def _condition(listing: Listing) -> str:
    """Return what has to be true of a stored row; `_values` has what it names."""
    texts = {"state": "state = :state", "session": "session = :session"}
    return " AND ".join(["TRUE", *(texts[name] for name in _values(listing))])


def _values(listing: Listing) -> dict[str, Any]:
    values = {"state": listing.wanted.state, "session": listing.session}
    return {name: value for name, value in values.items() if value is not None}


def _by_key(
    reading: Reading, listing: Listing, progress: Progress | None = None
) -> Iterator[State]:
    kind = listing.wanted.kind
    key = kind.columns[0]
    downwards = listing.wanted.order == "newest"
    sql = (
        f"SELECT {', '.join(kind.columns)} FROM {listing.schema}.projection_{kind.table}"
        f" WHERE {key} > :after AND {key} < :before AND {_condition(listing)}"
        f" ORDER BY {key} {'DESC' if downwards else 'ASC'}"
    )
    values = {**_values(listing), "after": 0, "before": listing.last_key + 1}
    is_all = listing.last_key == 0
    while not is_all:
        rows, is_all = _queried(reading, sql, values, kind.text_at)
        if rows:
            values["before" if downwards else "after"] = rows[-1][0]
        if progress is not None:
            done = listing.last_key + 1 - values["before"] if downwards else values["after"]
            progress(listing.last_key if is_all else done, listing.last_key)
        yield from rows


def _by_value(
    reading: Reading, listing: Listing, progress: Progress | None = None
) -> Iterator[State]:
    """Yield the rows in an order that only sorting gives: of all, value and key are kept.

    They are sorted a hundred thousand at once, each time in a short transaction, and merged.
    """
    wanted = listing.wanted
    kind, key = wanted.kind, wanted.kind.columns[0]
    table = f"{listing.schema}.projection_{kind.table}"
    column = kind.orders[wanted.order]
    sql = (
        f"SELECT ifnull({column}, {_NULL}), {key} FROM {table}"
        f" WHERE {key} > :after AND {key} <= :last AND {_condition(listing)}"
        f" ORDER BY {column} DESC NULLS LAST, {key} DESC LIMIT :limit"
    )
    limit = -1 if wanted.limit is None else wanted.limit + len(listing.folded)
    sorted_parts, counts = [], []
    for after in range(0, listing.last_key, _KEYS_AT_ONCE):
        last = min(after + _KEYS_AT_ONCE, listing.last_key)
        values, keys = array("q"), array("q")
        bounds = {"after": after, "last": last, "limit": limit}
        with reading() as connection:
            for row in connection.execute(sql, {**_values(listing), **bounds}):
                values.append(row[0])
                keys.append(row[1])
        sorted_parts.append(zip(values, keys, strict=True))
        counts.append(len(keys))
        if progress is not None:
            progress(last, listing.last_key)
    sql = (
        f"SELECT {', '.join(kind.columns)} FROM {table}"
        f" WHERE {key} IN (SELECT value FROM json_each(:keys)) AND {_condition(listing)}"
    )
    merged = heapq.merge(*sorted_parts, reverse=True)
    in_order = islice((row[1] for row in merged), None if limit < 0 else limit)
    done, total = 0, sum(counts) if limit < 0 else min(limit, sum(counts))
    while some := list(islice(in_order, _PAGE_ROWS_MAX)):
        done += len(some)
        if progress is not None:
            progress(done, total)
        yield from _with_keys(reading, listing, sql, some)


def _with_keys(reading: Reading, listing: Listing, sql: str, keys: list[int]) -> Iterator[State]:
    """Yield the rows of these keys, in their order; in halves, if they are too large."""
    values = {**_values(listing), "keys": to_json(keys).decode()}
    rows, is_all = _queried(reading, sql, values, listing.wanted.kind.text_at)
    if is_all or len(rows) == len(keys):
        by_key = {row[0]: row for row in rows}
        yield from (by_key[key] for key in keys if key in by_key)
        return
    del rows
    middle = len(keys) // 2
    yield from _with_keys(reading, listing, sql, keys[:middle])
    yield from _with_keys(reading, listing, sql, keys[middle:])


class AnomalyListing(NamedTuple):
    """A list of anomalies that is begun, as `Listing`."""

    session: int | None
    folded: list[AnomalyFound]
    last_position: int
    """Of the last one to take from the table; 0: nothing."""
    schema: str = "main"


def begin_anomalies(states: LifecycleStates, session: int | None) -> AnomalyListing:
    """Begin a list of the anomalies that `states` has."""
    if states.tables_in is None:
        return AnomalyListing(session, states.all_anomalies(), 0)
    folded = states.lifecycle.anomalies
    last = folded[0].position - 1 if folded else states.position
    return AnomalyListing(session, folded, last, states.tables_in)


def anomalies_of(
    reading: Reading, listing: AnomalyListing, progress: Progress | None = None
) -> Iterator[AnomalyFound]:
    """Yield the anomalies of a list, by position; see `rows_of`.

    `progress` is told up to which position they are found, and the last one.
    """
    sql = (
        f"SELECT {', '.join(AnomalyFound._fields)} FROM {listing.schema}.projection_anomaly"
        " WHERE position > ? AND position <= ? AND (?3 IS NULL OR session = ?3)"
        f" ORDER BY position LIMIT {_PAGE_ROWS_MAX}"
    )
    after = 0
    while after < listing.last_position:
        with reading() as connection:
            rows: Any = connection.execute(
                sql, (after, listing.last_position, listing.session)
            ).fetchall()
        after = rows[-1][0] if len(rows) == _PAGE_ROWS_MAX else listing.last_position
        if progress is not None:
            progress(after, listing.last_position)
        yield from (AnomalyFound(*row) for row in rows)
    yield from (one for one in listing.folded if listing.session in (None, one.session))
