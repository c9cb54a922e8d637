"""How projections keep their states in the file: one way for the built-ins, one for all others.

A `Fold` says what a projection is; its `States` are what it has made of the events so far: those in
use in memory, the others in the tables of `projections.sql`, which are those of the file (schema
"main") or temporary ones like them, in which a rebuild works ("temp").
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, islice
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

import apsw
from pydantic_core import from_json, to_json

from journal.errors import DamagedError, FoldError, InvalidEventError
from journal.events.kinds import DomainEvent
from journal.events.unknown import UnknownEvent
from journal.events.wire import read_record
from journal.file.decoding import StoredEvent
from journal.file.names import folded_codes, kinds_of
from journal.file.reading import Reader
from journal.projections.lifecycle import (
    FOLD_VERSION,
    LIVE,
    SESSION_COLUMNS,
    STREAM_COLUMNS,
    AnomalyFound,
    Lifecycle,
    State,
    UnfoldableError,
    rules_for,
)
from journal.projections.results import Projection

Schema = Literal["main", "temp"] | None
"""Whose tables hold the states: the file's, temporary ones, or none: all is folded in memory."""

COUNTER_MAX = 2**63 - 1
"""Counters stop here, at SQLite's largest integer; the events keep the exact figures."""

# What has ended is not likely to be needed again. The less of it there is in memory, the more of
# what is in use fits into the processor's cache: with 5,000 a fold takes a tenth longer.
_ENDED_IN_MEMORY_MAX = 500
_DECODED_AT_ONCE = 1_000

# One statement that writes many rows takes two thirds of the time of one for each.
_ROWS_AT_ONCE = 50


class States(Protocol):
    """The states of a projection."""

    position: int
    """That of the last event folded."""

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""

    def write(self) -> None:
        """Write the states that changed since they were last written."""

    def make_room(self) -> None:
        """Write and drop what is least likely to change again, if there is much in memory."""


StatesT_co = TypeVar("StatesT_co", bound=States, covariant=True)


class Fold(Protocol[StatesT_co]):
    """What a projection is, to those who keep it up to date."""

    names: tuple[str, ...]
    version: int
    tables: dict[str, tuple[str, ...]]
    """The tables it keeps its states in, each with its columns, key first."""
    owner: str | None
    """The name under which it shares `projection_state` with others; None: they are its own."""

    def states(self, connection: apsw.Connection, schema: Schema, position: int) -> StatesT_co:
        """Return the states that are in the tables of `schema`, which have come to `position`."""


@cache
def _insert_sql(table: str, columns: tuple[str, ...], count: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    rows = ", ".join([row] * count)
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES {rows}"


def _insert(
    connection: apsw.Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Iterable[Iterable[Any]],
) -> None:
    """Write rows, their counters no larger than SQLite's largest integer."""
    remaining = iter(rows)
    while some := list(islice(remaining, _ROWS_AT_ONCE)):
        sql = _insert_sql(table, columns, len(some))
        values = list(chain.from_iterable(some))
        try:
            connection.execute(sql, values)
        except OverflowError:
            connection.execute(sql, list(map(_storable, values)))


def _storable(value: Any) -> Any:
    return min(value, COUNTER_MAX) if isinstance(value, int) else value


# The built-ins

_ANOMALY_COLUMNS = ("position", "session", "stream", "event_type", "state", "reason")


class LifecycleFold:
    """The built-in projections: sessions, and streams, whose ends depend on each other."""

    names: tuple[str, ...] = ("sessions", "streams")
    version = FOLD_VERSION
    tables: dict[str, tuple[str, ...]] = {  # noqa: RUF012 (read only)
        "projection_session": SESSION_COLUMNS,
        "projection_stream": STREAM_COLUMNS,
        "projection_anomaly": _ANOMALY_COLUMNS,
    }
    owner: str | None = None

    def states(
        self, connection: apsw.Connection, schema: Schema, position: int
    ) -> "LifecycleStates":
        """Return the sessions and streams in the tables of `schema`."""
        return LifecycleStates(connection, schema, position)


class LifecycleStates:
    """The sessions and streams; the `Source` of their fold."""

    def __init__(self, connection: apsw.Connection, schema: Schema, position: int) -> None:
        self.position = position
        self._connection = connection
        self._schema = schema
        kinds = kinds_of(connection)
        folded = folded_codes(kinds)
        self._kept_whole = {code for code, kind in kinds.items() if kind.is_known} - folded.keys()
        for code in self._kept_whole:  # a code of our own, where the file has none for the fields
            if kinds[code].name not in folded.values():
                folded[-code] = kinds[code].name
        self._code_of = {name: code for code, name in folded.items()}
        self.lifecycle = Lifecycle(
            self,
            rules_for(folded, kinds.keys() - folded.keys()),
            last_session=self._largest("projection_session", "session"),
            last_stream=self._largest("projection_stream", "stream"),
        )

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""
        if self._kept_whole:
            rows = map(self._of_its_kind, rows)
        try:
            self.position = self.lifecycle.fold(rows) or self.position
        except UnfoldableError as error:
            reason = f"the event at position {error.position} is damaged, or the state before it"
            what = f"{reason}: {error}"
            raise DamagedError(self._connection.filename, what, error.position) from error

    def _of_its_kind(self, row: StoredEvent) -> StoredEvent:
        """Return an event that was kept whole as if it had been known, if it is known by now.

        A text that does not fit its kind is passed over, as it was when it was kept.
        """
        position, code, session, stream, timestamp_ns, data = row
        if code not in self._kept_whole or data is None:
            return row
        try:
            name, _, stream_id, _, data = read_record(data)
        except InvalidEventError:
            return row
        stream = stream if stream_id is not None else None
        return position, self._code_of[name], session, stream, timestamp_ns, data

    def write(self) -> None:
        """Write what is in memory, which is what has changed, and drop it."""
        self._write(self.lifecycle.sessions, self.lifecycle.streams)
        self.lifecycle.forget_all()

    def make_room(self) -> None:
        """Write and drop what has ended, if there is much of it."""
        lifecycle = self.lifecycle
        if len(lifecycle.ended_sessions) + len(lifecycle.ended_streams) < _ENDED_IN_MEMORY_MAX:
            return
        self._write(
            sorted(lifecycle.sessions.keys() & lifecycle.ended_sessions),
            sorted(lifecycle.streams.keys() & lifecycle.ended_streams),
        )
        lifecycle.forget_ended()

    def _write(self, session_keys: Iterable[int], stream_keys: Iterable[int]) -> None:
        sessions, streams = self.lifecycle.sessions, self.lifecycle.streams
        session_rows = (_row_of_session(sessions[key]) for key in session_keys)
        stream_rows = (streams[key] for key in stream_keys)
        self._insert("projection_session", SESSION_COLUMNS, session_rows)
        self._insert("projection_stream", STREAM_COLUMNS, stream_rows)
        self._insert("projection_anomaly", _ANOMALY_COLUMNS, self.lifecycle.anomalies)
        self.lifecycle.anomalies.clear()

    def session(self, key: int) -> State | None:
        """Return the stored state of a session."""
        for row in self._read("projection_session", SESSION_COLUMNS, "WHERE session = ?", key):
            return _session_of(row)
        return None

    def stream(self, key: int) -> State | None:
        """Return the stored state of a stream."""
        for row in self._read("projection_stream", STREAM_COLUMNS, "WHERE stream = ?", key):
            return list(row)
        return None

    def all_sessions(self) -> dict[int, State]:
        """Return every session, in the order of their first events."""
        rows = self._read("projection_session", SESSION_COLUMNS)
        stored = {row[0]: _session_of(row) for row in rows}
        return dict(sorted({**stored, **self.lifecycle.sessions}.items()))

    def all_streams(self) -> dict[int, State]:
        """Return every stream, in the order of their first events."""
        rows = self._read("projection_stream", STREAM_COLUMNS)
        stored = {row[0]: list(row) for row in rows}
        return dict(sorted({**stored, **self.lifecycle.streams}.items()))

    def all_anomalies(self) -> list[AnomalyFound]:
        """Return every anomaly, by position."""
        rows = self._read("projection_anomaly", _ANOMALY_COLUMNS, "ORDER BY position")
        return [*(AnomalyFound(*row) for row in rows), *self.lifecycle.anomalies]

    def _read(
        self, table: str, columns: tuple[str, ...], rest: str = "", *parameters: int
    ) -> Iterator[Any]:
        if self._schema is None:  # the tables need not even be there
            return iter(())
        sql = f"SELECT {', '.join(columns)} FROM {self._schema}.{table} {rest}"
        return self._connection.execute(sql, parameters)

    def _insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> None:
        _insert(self._connection, f"{self._schema}.{table}", columns, rows)

    def _largest(self, table: str, column: str) -> int:
        if self._schema is None:
            return 0
        largest: int = self._connection.execute(
            f"SELECT ifnull(max({column}), 0) FROM {self._schema}.{table}"
        ).get
        return largest


def _row_of_session(session: State) -> tuple[Any, ...]:
    live = session[LIVE]
    return (*session[:LIVE], to_json(list(live)).decode() if live else None)


def _session_of(row: Any) -> State:
    *columns, live = row
    return [*columns, dict.fromkeys(from_json(live)) if live else {}]


# Those of applications

_STATE_ROW = ("projection", "key", "state")


class CustomFold:
    """An application's own projection: its states are JSON, and its fold takes events."""

    tables: dict[str, tuple[str, ...]] = {"projection_state": ("key", "state")}  # noqa: RUF012

    def __init__(self, projection: Projection[Any], reader: Reader) -> None:
        self.projection = projection
        self.names: tuple[str, ...] = (projection.name,)
        self.version = projection.version
        self.owner: str | None = projection.name
        self._reader = reader

    def states(self, connection: apsw.Connection, schema: Schema, position: int) -> "CustomStates":
        """Return the states in the table of `schema`."""
        return CustomStates(self.projection, self._reader, connection, schema, position)


class CustomStates:
    """The states of an application's projection, by key."""

    def __init__(
        self,
        projection: Projection[Any],
        reader: Reader,
        connection: apsw.Connection,
        schema: Schema,
        position: int,
    ) -> None:
        self.position = position
        self._projection = projection
        self._reader = reader
        self._connection = connection
        self._schema = schema
        self._initial = to_json(projection.initial)
        self._changed: dict[str, tuple[Any, int]] = {}  # states, and the positions they are from

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""
        remaining = iter(rows)
        while page := list(islice(remaining, _DECODED_AT_ONCE)):
            for position, event in self._reader.decoded(self._connection, page):
                self.position = position
                if not isinstance(event, UnknownEvent):
                    self._apply(position, event)

    def _apply(self, position: int, event: DomainEvent) -> None:
        projection = self._projection
        try:
            key = "" if projection.key is None else _key_text(projection.key(event))
            if key is None:
                return
            state = projection.apply(self._current(key), event)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise FoldError(projection.name, position, reason) from error
        if state is None:
            raise FoldError(projection.name, position, "apply returned None, not a state")
        self._changed[key] = state, position

    def write(self) -> None:
        """Write the states that changed."""
        name = self._projection.name
        rows = ((name, key, self._json(key)) for key in self._changed)
        _insert(self._connection, f"{self._schema}.projection_state", _STATE_ROW, rows)
        self._changed.clear()

    def make_room(self) -> None:
        """Write the states that changed: nobody knows how large they are."""
        self.write()

    def _json(self, key: str) -> str:
        """Return a changed state as JSON."""
        state, position = self._changed[key]
        try:
            return json_of(state)
        except ValueError as error:
            raise FoldError(self._projection.name, position, str(error)) from error

    def state(self, key: str) -> Any:
        """Return the state under a key; the initial one where there is none yet."""
        return from_json(self._json(key)) if key in self._changed else self._current(key)

    def _current(self, key: str) -> Any:
        if key in self._changed:
            return self._changed[key][0]
        for _, stored in self._read("AND key = ?", key):
            return from_json(stored)
        return from_json(self._initial)

    def all_states(self) -> dict[str, Any]:
        """Return every state by its key."""
        states = {key: from_json(state) for key, state in self._read()}
        states |= {key: from_json(self._json(key)) for key in self._changed}
        return dict(sorted(states.items()))

    def _read(self, rest: str = "", *parameters: str) -> Iterator[Any]:
        if self._schema is None:
            return iter(())
        sql = f"SELECT key, state FROM {self._schema}.projection_state WHERE projection = ? {rest}"
        return self._connection.execute(sql, (self._projection.name, *parameters))


def json_of(state: Any) -> str:
    """Return a state as JSON, from which the same state can be had again.

    Raises:
        ValueError: it is not the same: it holds a tuple, a key that is not text, NaN, or
            whatever else JSON has no form for.
    """
    try:
        text = to_json(state, inf_nan_mode="null").decode()
        is_same = from_json(text) == state
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the state is nothing that JSON can hold: {error}") from error
    if not is_same:
        raise ValueError("the state is not the same after it was written as JSON and read back")
    return text


def _key_text(key: object) -> str | None:
    if key is None or isinstance(key, str):
        return key
    if isinstance(key, UUID):
        return str(key)
    message = f"expected a key that is text or a UUID, found {type(key).__name__}"
    raise TypeError(message)
