"""Listing: the sessions, streams or anomalies of a file in some order, a page at a time.

Filter, order and limit are part of the statements. What is folded in memory only stands in for the
stored rows of the same keys.
"""

import heapq
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Literal, NamedTuple

import apsw
from pydantic_core import to_json

from journal.projections.lifecycle import (
    SESSION_COLUMNS,
    STATE,
    STREAM_COLUMNS,
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

_PAGE_ROWS_MAX = 1_000


class Kind(NamedTuple):
    """Sessions or streams."""

    table: Literal["session", "stream"]
    columns: tuple[str, ...]
    state_at: int
    orders: dict[str, str | None]
    """The column that each order goes by, largest first; None: the keys, which rise with first
    events."""


SESSIONS = Kind(
    "session",
    SESSION_COLUMNS,
    STATE,
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


def rows_of(reading: Reading, listing: Listing) -> Iterator[State]:
    """Yield the rows of a list; what comes from the tables in pages, each with a connection lent.

    A row is as it is when its page is read.
    """
    wanted, folded = listing.wanted, listing.folded
    by_key = wanted.kind.orders[wanted.order] is None
    rows = (_by_key if by_key else _by_value)(reading, listing)
    if folded:
        fitting = sorted(filter(listing.takes, folded.values()), key=wanted.rank)
        stored = (row for row in rows if row[0] not in folded)
        rows = heapq.merge(stored, fitting, key=wanted.rank)
    return islice(rows, wanted.limit)


def _condition(listing: Listing) -> str:
    """Return what has to be true of a stored row; `_values` has what it names."""
    texts = {"state": "state = :state", "session": "session = :session"}
    return " AND ".join(["TRUE", *(texts[name] for name in _values(listing))])


def _values(listing: Listing) -> dict[str, Any]:
    values = {"state": listing.wanted.state, "session": listing.session}
    return {name: value for name, value in values.items() if value is not None}


def _by_key(reading: Reading, listing: Listing) -> Iterator[State]:
    kind = listing.wanted.kind
    key = kind.columns[0]
    downwards = listing.wanted.order == "newest"
    sql = (
        f"SELECT {', '.join(kind.columns)} FROM {listing.schema}.projection_{kind.table}"
        f" WHERE {key} > :after AND {key} < :before AND {_condition(listing)}"
        f" ORDER BY {key} {'DESC' if downwards else 'ASC'} LIMIT {_PAGE_ROWS_MAX}"
    )
    values = {**_values(listing), "after": 0, "before": listing.last_key + 1}
    is_more = listing.last_key > 0
    while is_more:
        with reading() as connection:
            rows: Any = connection.execute(sql, values).fetchall()
        yield from rows
        is_more = len(rows) == _PAGE_ROWS_MAX
        if is_more:
            values["before" if downwards else "after"] = rows[-1][0]


def _by_value(reading: Reading, listing: Listing) -> Iterator[State]:
    """Yield the rows in an order that only sorting gives: it is the keys that are kept of all."""
    wanted = listing.wanted
    kind, key = wanted.kind, wanted.kind.columns[0]
    if listing.last_key == 0:
        return
    limit = -1 if wanted.limit is None else wanted.limit + len(listing.folded)
    with reading() as connection:
        found = connection.execute(
            f"SELECT {key} FROM {listing.schema}.projection_{kind.table}"
            f" WHERE {key} <= :last AND {_condition(listing)}"
            f" ORDER BY {kind.orders[wanted.order]} DESC NULLS LAST, {key} DESC LIMIT :limit",
            {**_values(listing), "last": listing.last_key, "limit": limit},
        )
        keys = array("q", (row[0] for row in found))
    sql = (
        f"SELECT {', '.join(kind.columns)} FROM {listing.schema}.projection_{kind.table}"
        f" WHERE {key} IN (SELECT value FROM json_each(:keys)) AND {_condition(listing)}"
    )
    for first in range(0, len(keys), _PAGE_ROWS_MAX):
        some = keys[first : first + _PAGE_ROWS_MAX].tolist()
        values = {**_values(listing), "keys": to_json(some).decode()}
        with reading() as connection:
            rows: dict[int, Any] = {row[0]: row for row in connection.execute(sql, values)}
        yield from (rows[one] for one in some if one in rows)


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


def anomalies_of(reading: Reading, listing: AnomalyListing) -> Iterator[AnomalyFound]:
    """Yield the anomalies of a list, by position; see `rows_of`."""
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
        yield from (AnomalyFound(*row) for row in rows)
        after = rows[-1][0] if len(rows) == _PAGE_ROWS_MAX else listing.last_position
    yield from (one for one in listing.folded if listing.session in (None, one.session))
