"""The states of an application's own projections, as JSON."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from uuid import UUID

import apsw
from pydantic_core import from_json, to_json

from journal.errors import DamagedError, FoldError
from journal.events.kinds import DomainEvent
from journal.events.unknown import UnknownEvent
from journal.file.decoding import StoredEvent
from journal.file.reading import Reader
from journal.projections.results import Projection
from journal.projections.tables import Schema, insert

_DECODED_AT_ONCE = 1_000

_STATE_ROW = ("projection", "key", "state")


class OwnFold:
    """An application's own projection: its states are JSON, and its fold takes events."""

    tables: dict[str, tuple[str, ...]] = {"projection_state": ("key", "state")}  # noqa: RUF012
    base_sql: dict[str, str] = {  # noqa: RUF012 (read only)
        "projection_state": "SELECT projection, key, state FROM base_state WHERE projection = ?"
    }

    def __init__(self, projection: Projection[Any], reader: Reader) -> None:
        self.projection = projection
        self.names: tuple[str, ...] = (projection.name,)
        self.version = projection.version
        self.owner: str | None = projection.name
        self._reader = reader

    def states(self, connection: apsw.Connection, schema: Schema, position: int) -> "OwnStates":
        """Return the states in the table of `schema`."""
        return OwnStates(self.projection, self._reader, connection, schema, position)


class OwnStates:
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

    @property
    def _table(self) -> str:
        return "base_state" if self._schema == "base" else f"{self._schema}.projection_state"

    @property
    def changed_keys(self) -> list[str]:
        """The keys of the states that changed since they were last written."""
        return list(self._changed)

    def write(self) -> None:
        """Write the states that changed."""
        name = self._projection.name
        rows = ((name, key, self._json(key)) for key in self._changed)
        insert(self._connection, self._table, _STATE_ROW, rows)
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
            return self._parsed(key, stored)
        return from_json(self._initial)

    def _parsed(self, key: str, stored: Any) -> Any:
        """Return a stored state; DamagedError where it is not JSON."""
        try:
            key.encode()
            return from_json(stored)
        except (ValueError, TypeError, AttributeError) as error:
            what = f"the stored states of {self._projection.name!r} are damaged, rebuild them"
            raise DamagedError(self._connection.filename, f"{what}: {error}") from error

    def all_states(self) -> dict[str, Any]:
        """Return every state by its key."""
        states = {key: self._parsed(key, state) for key, state in self._read()}
        states |= {key: from_json(self._json(key)) for key in self._changed}
        return dict(sorted(states.items()))

    def _read(self, rest: str = "", *parameters: str) -> Iterator[Any]:
        if self._schema is None:
            return iter(())
        sql = f"SELECT key, state FROM {self._table} WHERE projection = ? {rest}"
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
