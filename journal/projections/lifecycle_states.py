"""The states of the built-in projections: sessions and streams, in typed columns."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal

import apsw
from pydantic_core import from_json, to_json

from journal import limits
from journal.errors import DamagedError, InvalidEventError
from journal.events.wire import read_record
from journal.file.decoding import StoredEvent
from journal.file.names import folded_codes, kinds_of
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
from journal.projections.tables import Schema, insert

# What has ended is not likely to be needed again. The less of it there is in memory, the more of
# what is in use fits into the processor's cache: with 5,000 a fold takes a tenth longer.
_ENDED_IN_MEMORY_MAX = 500
_IN_MEMORY_MAX = 40_000
"""Some 30 MB of sessions, streams and anomalies, of which most will not end soon."""

_ANOMALY_COLUMNS = ("position", "session", "stream", "event_type", "state", "reason")


def _base_sql(table: str, columns: tuple[str, ...], keys: tuple[str, ...]) -> str:
    """Return the query for the states of a base, which has all but the keys in a JSON object."""
    values = [name if name in keys else f"state ->> '$.{name}' AS {name}" for name in columns]
    return f"SELECT {', '.join(values)} FROM {table} WHERE state IS NOT NULL"


class LifecycleFold:
    """The built-in projections: sessions, and streams, whose ends depend on each other."""

    names: tuple[str, ...] = ("sessions", "streams")
    version = FOLD_VERSION
    tables: dict[str, tuple[str, ...]] = {  # noqa: RUF012 (read only)
        "projection_session": SESSION_COLUMNS,
        "projection_stream": STREAM_COLUMNS,
        "projection_anomaly": _ANOMALY_COLUMNS,
    }
    base_sql: dict[str, str] = {  # noqa: RUF012 (read only)
        "projection_session": _base_sql("base_session", SESSION_COLUMNS, ("session",)),
        "projection_stream": _base_sql("base_stream", STREAM_COLUMNS, ("stream", "session")),
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
        # A circle of references would keep the states, and their connection, until it is found.
        self.lifecycle = Lifecycle(
            weakref.proxy(self),
            rules_for(folded, kinds.keys() - folded.keys()),
            last_session=self._largest("projection_session", "session"),
            last_stream=self._largest("projection_stream", "stream"),
        )

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""
        if self._schema == "main" and not self.lifecycle.sessions:
            rows = list(rows)
            with suppress(ValueError, TypeError):  # the fold meets it, and says at which event
                self._take_stored(rows)
        if self._kept_whole:
            rows = map(self._of_its_kind, rows)
        try:
            self.position = self.lifecycle.fold(rows) or self.position
        except UnfoldableError as error:
            reason = f"the event at position {error.position} is damaged, or the state before it"
            what = f"{reason}: {error}"
            raise DamagedError(self._connection.filename, what, error.position) from error

    def _take_stored(self, rows: list[StoredEvent]) -> None:
        """Have in memory what is stored of everything that some events are about.

        Asked for one at a time, it takes longer than to fold them.
        """
        sessions = to_json(sorted({row[2] for row in rows})).decode()
        streams = to_json(sorted({row[3] for row in rows if row[3] is not None})).decode()
        where = "WHERE {} IN (SELECT value FROM json_each(?))"
        for row in self._read(
            "projection_session", SESSION_COLUMNS, where.format("session"), sessions
        ):
            self.lifecycle.sessions[row[0]] = session_of_row(row)
        for row in self._read("projection_stream", STREAM_COLUMNS, where.format("stream"), streams):
            self.lifecycle.streams[row[0]] = list(row)

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
        """Write and drop what has ended, if there is much of it, or everything, if it is more."""
        lifecycle = self.lifecycle
        held = len(lifecycle.sessions) + len(lifecycle.streams) + len(lifecycle.anomalies)
        if held > _IN_MEMORY_MAX or lifecycle.error_size > limits.BLOCK_DATA_MAX:
            self.write()
            return
        if len(lifecycle.ended_sessions) + len(lifecycle.ended_streams) < _ENDED_IN_MEMORY_MAX:
            return
        self._write(
            sorted(lifecycle.sessions.keys() & lifecycle.ended_sessions),
            sorted(lifecycle.streams.keys() & lifecycle.ended_streams),
        )
        lifecycle.forget_ended()

    def _write(self, session_keys: Iterable[int], stream_keys: Iterable[int]) -> None:
        sessions, streams = self.lifecycle.sessions, self.lifecycle.streams
        session_rows = (row_of_session(sessions[key]) for key in session_keys)
        stream_rows = (streams[key] for key in stream_keys)
        self._insert("projection_session", SESSION_COLUMNS, session_rows)
        self._insert("projection_stream", STREAM_COLUMNS, stream_rows)
        self._insert("projection_anomaly", _ANOMALY_COLUMNS, self.lifecycle.anomalies)
        self.lifecycle.anomalies.clear()

    @property
    def tables_in(self) -> Literal["main", "temp"] | None:
        """Whose tables have all but what is in memory: the file's, temporary ones, or nobody's."""
        return None if self._schema == "base" else self._schema

    def session(self, key: int) -> State | None:
        """Return the stored state of a session."""
        for row in self._read("projection_session", SESSION_COLUMNS, "WHERE session = ?", key):
            return session_of_row(row)
        return None

    def stream(self, key: int) -> State | None:
        """Return the stored state of a stream."""
        for row in self._read("projection_stream", STREAM_COLUMNS, "WHERE stream = ?", key):
            return list(row)
        return None

    def all_sessions(self) -> dict[int, State]:
        """Return every session, in the order of their first events."""
        rows = self._read("projection_session", SESSION_COLUMNS)
        stored = {row[0]: session_of_row(row) for row in rows}
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
        self, table: str, columns: tuple[str, ...], rest: str = "", *parameters: int | str
    ) -> Iterator[Any]:
        source = self._source(table)
        if source is None:
            return iter(())
        sql = f"SELECT {', '.join(columns)} FROM {source} {rest}"
        return self._connection.execute(sql, parameters)

    def _source(self, table: str) -> str | None:
        """Return where the stored states are; None: nowhere, and the tables need not be there."""
        if self._schema != "base":
            return None if self._schema is None else f"{self._schema}.{table}"
        select = LifecycleFold.base_sql.get(table)
        return None if select is None else f"({select})"

    def _insert(self, table: str, columns: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> None:
        insert(self._connection, f"{self._schema}.{table}", columns, rows)

    def _largest(self, table: str, column: str) -> int:
        source = self._source(table)
        if source is None:
            return 0
        largest: int = self._connection.execute(
            f"SELECT ifnull(max({column}), 0) FROM {source}"
        ).get
        return largest


def row_of_session(session: State) -> tuple[Any, ...]:
    """Return the state of a session as a row of its columns."""
    live = session[LIVE]
    return (*session[:LIVE], to_json(list(live)).decode() if live else None)


def session_of_row(row: Iterable[Any]) -> State:
    """Return the state that a row of its columns stands for."""
    *columns, live = row
    return [*columns, dict.fromkeys(from_json(live)) if live else {}]
