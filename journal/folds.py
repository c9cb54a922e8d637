"""How projections keep their states in the file: one way for the built-ins, one for all others.

A `Fold` says what a projection is; its `States` are those of one build, in memory as far as they
are in use, and otherwise in the tables of `projections.sql`.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol, TypeVar
from uuid import UUID

import apsw
from pydantic_core import from_json, to_json

from journal.decoding import StoredEvent
from journal.errors import DamagedError, FoldError
from journal.events import DomainEvent, UnknownEvent
from journal.lifecycle import (
    FOLD_VERSION,
    LAST_SEQ,
    LIVE,
    SESSION_COLUMNS,
    STREAM_COLUMNS,
    T_LAST_SEQ,
    AnomalyFound,
    Lifecycle,
    State,
    UnfoldableError,
)
from journal.reading import Reader
from journal.readmodels import Projection

NO_BUILD = 0
"""The number of a build that has no rows: everything is folded from the first event on."""

COUNTER_MAX = 2**63 - 1
"""Counters stop here, at SQLite's largest integer; the events keep the exact figures."""

_IN_MEMORY_MAX = 5_000
_DECODED_AT_ONCE = 1_000


class States(Protocol):
    """The states of one build of a projection."""

    position: int
    """That of the last event folded."""

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""

    def write(self) -> None:
        """Write the states that changed since they were last written."""


StatesT_co = TypeVar("StatesT_co", bound=States, covariant=True)


class Fold(Protocol[StatesT_co]):
    """What a projection is, to those who keep it up to date."""

    names: tuple[str, ...]
    version: int
    tables: dict[str, tuple[str, ...]]
    """The tables it keeps its states in, each with the columns after `build`, key first."""

    def states(self, connection: apsw.Connection, build: int, position: int) -> StatesT_co:
        """Return the states of a build that has come to `position`."""


# The built-ins

_ANOMALY_COLUMNS = ("position", "session", "stream", "event_type", "state", "reason")


def _upsert(table: str, columns: tuple[str, ...]) -> str:
    places = ", ".join("?" * (len(columns) + 1))
    return f"INSERT OR REPLACE INTO {table} (build, {', '.join(columns)}) VALUES ({places})"


def _select(table: str, columns: tuple[str, ...]) -> str:
    return f"SELECT {', '.join(columns)} FROM {table} WHERE build = ?"


class LifecycleFold:
    """The built-in projections: sessions, and streams, whose ends depend on each other."""

    names: tuple[str, ...] = ("sessions", "streams")
    version = FOLD_VERSION
    tables: dict[str, tuple[str, ...]] = {  # noqa: RUF012 (read only)
        "projection_session": ("session", *SESSION_COLUMNS),
        "projection_stream": ("stream", *STREAM_COLUMNS),
        "projection_anomaly": _ANOMALY_COLUMNS,
    }

    def states(self, connection: apsw.Connection, build: int, position: int) -> "LifecycleStates":
        """Return the sessions and streams of a build that has come to `position`."""
        return LifecycleStates(connection, build, position)


_WRITE = {table: _upsert(table, columns) for table, columns in LifecycleFold.tables.items()}
_READ = {table: _select(table, columns) for table, columns in LifecycleFold.tables.items()}


class LifecycleStates:
    """The sessions and streams of one build; the `Source` of their fold."""

    def __init__(self, connection: apsw.Connection, build: int, position: int) -> None:
        self.position = position
        self.lifecycle = Lifecycle(self)
        self._connection = connection
        self._build = build
        self._written_to = position
        # Interned ids rise, so what is above those met is new, and need not be looked for.
        self._last_session = self._last("projection_session", "session")
        self._last_stream = self._last("projection_stream", "stream")

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""
        try:
            self.position = self.lifecycle.fold(rows) or self.position
        except UnfoldableError as error:
            reason = f"the event at position {error.position} is damaged, or the state before it"
            raise DamagedError(self._connection.filename, f"{reason}: {error}") from error

    def write(self) -> None:
        """Write what changed, and forget what has ended if there is much of it."""
        build, lifecycle, before = self._build, self.lifecycle, self._written_to
        sessions = [
            (build, key, *session[:LIVE], _live_text(session[LIVE]))
            for key, session in lifecycle.sessions.items()
            if session[LAST_SEQ] > before
        ]
        streams = [
            (build, key, *stream)
            for key, stream in lifecycle.streams.items()
            if stream[T_LAST_SEQ] > before
        ]
        self._write("projection_session", sessions)
        self._write("projection_stream", streams)
        self._write("projection_anomaly", [(build, *found) for found in lifecycle.anomalies])
        lifecycle.anomalies.clear()
        self._written_to = self.position
        if len(lifecycle.sessions) + len(lifecycle.streams) > _IN_MEMORY_MAX:
            lifecycle.forget_ended()

    def session(self, key: int) -> State | None:
        """Return the stored state of a session."""
        if key > self._last_session:
            self._last_session = key
            return None
        row = next(iter(self._read("projection_session", "AND session = ?", key)), None)
        return None if row is None else _session_of(row)

    def stream(self, key: int) -> State | None:
        """Return the stored state of a stream."""
        if key > self._last_stream:
            self._last_stream = key
            return None
        row = next(iter(self._read("projection_stream", "AND stream = ?", key)), None)
        return None if row is None else list(row[1:])

    def all_sessions(self) -> dict[int, State]:
        """Return every session, in the order of their first events."""
        stored = {row[0]: _session_of(row) for row in self._read("projection_session")}
        return dict(sorted({**stored, **self.lifecycle.sessions}.items()))

    def all_streams(self) -> dict[int, State]:
        """Return every stream, in the order of their first events."""
        stored = {row[0]: list(row[1:]) for row in self._read("projection_stream")}
        return dict(sorted({**stored, **self.lifecycle.streams}.items()))

    def all_anomalies(self) -> list[AnomalyFound]:
        """Return every anomaly, by position."""
        stored = self._read("projection_anomaly", "ORDER BY position")
        return [*(AnomalyFound(*row) for row in stored), *self.lifecycle.anomalies]

    def _read(self, table: str, condition: str = "", *parameters: int) -> Iterable[Any]:
        if self._build == NO_BUILD:  # the tables need not even be there
            return []
        return self._connection.execute(f"{_READ[table]} {condition}", (self._build, *parameters))

    def _write(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        """Write rows, their counters no larger than SQLite's largest integer."""
        try:
            self._connection.executemany(_WRITE[table], rows)
        except OverflowError:
            self._connection.executemany(
                _WRITE[table], [tuple(map(_storable, row)) for row in rows]
            )

    def _last(self, table: str, column: str) -> int:
        if self._build == NO_BUILD:
            return 0
        last: int = self._connection.execute(
            f"SELECT ifnull(max({column}), 0) FROM {table} WHERE build = ?", (self._build,)
        ).get
        return last


def _live_text(live: dict[int, None]) -> str | None:
    return to_json(list(live)).decode() if live else None


def _session_of(row: Any) -> State:
    *columns, live = row[1:]
    return [*columns, dict.fromkeys(from_json(live)) if live else {}]


def _storable(value: Any) -> Any:
    return min(value, COUNTER_MAX) if isinstance(value, int) else value


# Those of applications

_READ_STATE = "SELECT state FROM projection_state WHERE build = ? AND key = ?"
_READ_STATES = "SELECT key, state FROM projection_state WHERE build = ? ORDER BY key"
_WRITE_STATE = _upsert("projection_state", ("key", "state"))


class CustomFold:
    """An application's own projection: its states are JSON, and its fold takes events."""

    tables: dict[str, tuple[str, ...]] = {  # noqa: RUF012 (read only)
        "projection_state": ("key", "state")
    }

    def __init__(self, projection: Projection[Any], reader: Reader) -> None:
        self.projection = projection
        self.names: tuple[str, ...] = (projection.name,)
        self.version = projection.version
        self._reader = reader

    def states(self, connection: apsw.Connection, build: int, position: int) -> "CustomStates":
        """Return the states of a build that has come to `position`."""
        return CustomStates(self.projection, self._reader, connection, build, position)


class CustomStates:
    """The states of one build of an application's projection, by key."""

    def __init__(
        self,
        projection: Projection[Any],
        reader: Reader,
        connection: apsw.Connection,
        build: int,
        position: int,
    ) -> None:
        self.position = position
        self._projection = projection
        self._reader = reader
        self._connection = connection
        self._build = build
        self._initial = to_json(projection.initial)
        self._changed: dict[str, tuple[Any, int]] = {}  # states, and the positions they are from

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""
        remaining = iter(rows)
        while page := list(islice(remaining, _DECODED_AT_ONCE)):
            events = self._reader.decoded(self._connection, page)
            for (self.position, *_), event in zip(page, events, strict=True):
                if not isinstance(event, UnknownEvent):
                    self._apply(self.position, event)

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
        rows = [(self._build, key, self._json(key)) for key in self._changed]
        self._connection.executemany(_WRITE_STATE, rows)
        self._changed.clear()

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
        stored: str | None = None
        if self._build != NO_BUILD:
            stored = self._connection.execute(_READ_STATE, (self._build, key)).get
        return from_json(self._initial if stored is None else stored)

    def all_states(self) -> dict[str, Any]:
        """Return every state by its key."""
        states = {}
        if self._build != NO_BUILD:
            stored: Iterable[Any] = self._connection.execute(_READ_STATES, (self._build,))
            states = {key: from_json(state) for key, state in stored}
        states |= {key: from_json(self._json(key)) for key in self._changed}
        return dict(sorted(states.items()))


def json_of(state: Any) -> str:
    """Return a state as JSON, from which the same state can be had again.

    Raises:
        ValueError: it is not the same: it holds a tuple, a key that is no text, NaN, or whatever
            else JSON has no form for.
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
    message = f"expected a key that is text or a UUID, found a {type(key).__name__}"
    raise TypeError(message)
