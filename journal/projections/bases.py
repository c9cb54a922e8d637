"""Moving the bases to a later cut: the states there, and what nothing is left of by then.

A session is forgotten when it has ended, and neither an event of it nor one of a stream of its own
is left; a stream when it has ended and no event of it is left. What was forgotten has no rows any
more, and its number is never given again.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import apsw
from pydantic_core import to_json

from journal.errors import DamagedError, FoldError
from journal.file.decoding import StoredEvent
from journal.file.extent import Extent
from journal.file.identity import meta, set_meta
from journal.projections.checkpoints import combined, is_stale, row_digest, stored_checkpoint
from journal.projections.lifecycle import (
    ENDED_STATES,
    LIVE_STATES,
    SESSION_COLUMNS,
    STATE,
    STREAM_COLUMNS,
    T_SESSION,
    T_STATE,
)
from journal.projections.lifecycle_states import (
    LifecycleFold,
    LifecycleStates,
    row_of_session,
)
from journal.projections.own_states import OwnFold
from journal.projections.tables import storable

NOT_FOLDED = "not folded"
"""Stands for the state of what had only events of unknown kinds."""

_HEADS_SQL = {
    "session": "SELECT s.id, s.uuid, s.last_seq, s.id, p.state FROM session AS s"
    " LEFT JOIN projection_session AS p ON p.session = s.id",
    "stream": "SELECT s.id, s.uuid, s.last_seq, p.session, p.state FROM stream AS s"
    " LEFT JOIN projection_stream AS p ON p.stream = s.id",
}
_OLD_SQL = {
    "session": "SELECT session, events_before, NULL, state FROM base_session WHERE session",
    "stream": "SELECT stream, events_before, session, state FROM base_stream WHERE stream",
}

_COUNTERS = {"frames", "bytes", "batched_frames"}
"""What is added up from events, and may go beyond SQLite's integers."""

_BASE_SESSION_COLUMNS = SESSION_COLUMNS[1:]
_BASE_STREAM_COLUMNS = STREAM_COLUMNS[2:]


class Forgotten(NamedTuple):
    """What nothing is left of after a cut."""

    states: dict[str, Counter[str]]
    """How many "sessions" and "streams" ended in each state."""
    sessions: list[bytes]
    """Their UUIDs."""
    streams: list[bytes]


def has_base(connection: apsw.Connection, name: str, version: int, extent: Extent) -> bool:
    """Tell whether a projection has a base of this version at the cut, or needs none."""
    if extent.cut == 0:
        return True
    sql = "SELECT version, position FROM base WHERE projection = ?"
    return connection.execute(sql, (name,)).fetchone() == (version, extent.cut)


def move_bases(
    connection: apsw.Connection,
    extent: Extent,
    up_to: int,
    rows: list[StoredEvent],
    folds: Iterable[LifecycleFold | OwnFold],
) -> Forgotten:
    """Move the bases from the cut to a later position, and forget what nothing will be left of.

    A projection that is not among `folds`, or has no base at the cut, has none afterwards.

    Args:
        connection: in the transaction that prunes the events.
        extent: where the events begin and end.
        up_to: the position.
        rows: the events from the cut to there.
        folds: the projections, the built-in ones first.

    Raises:
        DamagedError: an event, or what is stored of those before it, is damaged.
    """
    forgotten = Forgotten({}, [], [])
    kept: set[str] = set()
    for fold in folds:
        if isinstance(fold, LifecycleFold):
            forgotten = _Move(connection, extent, up_to, fold).made(rows)
            kept.update(fold.names)
        elif has_base(connection, fold.names[0], fold.version, extent):
            with suppress(FoldError):  # it is folded from the cut on, when it can be
                _move_own(connection, fold, extent, up_to, rows)
                kept.update(fold.names)
    for (name,) in connection.execute("SELECT projection FROM base").fetchall():
        if name not in kept:
            connection.execute("DELETE FROM base_state WHERE projection = ?", (name,))
            connection.execute("DELETE FROM base WHERE projection = ?", (name,))
    return forgotten


def _move_own(
    connection: apsw.Connection,
    fold: OwnFold,
    extent: Extent,
    up_to: int,
    rows: list[StoredEvent],
) -> None:
    name = fold.names[0]
    states = fold.states(connection, "base", extent.cut)
    states.fold(rows)
    keys = to_json(states.changed_keys).decode()
    sql = (
        "SELECT key, state FROM base_state"
        " WHERE projection = ? AND key IN (SELECT value FROM json_each(?))"
    )
    digests = [row_digest(*row) for row in connection.execute(sql, (name, keys))]
    states.write()
    digests += [row_digest(*row) for row in connection.execute(sql, (name, keys))]
    _write_base(connection, name, fold.version, up_to, digests)


def _write_base(
    connection: apsw.Connection, name: str, version: int, position: int, digests: Iterable[str]
) -> None:
    """Write that a base is at a position; `digests` are those of its rows as they were and are."""
    sql = "SELECT check_digest FROM base WHERE projection = ?"
    before: Any = connection.execute(sql, (name,)).get
    known = [before] if isinstance(before, str) else []
    connection.execute(
        "INSERT OR REPLACE INTO base (projection, version, position, check_digest)"
        " VALUES (?, ?, ?, ?)",
        (name, version, position, combined([*known, *digests])),
    )


_Head = tuple[Any, ...]
"""A session or a stream by now: its key, its UUID, the position of its latest event, the session
that it belongs to, and its state; of the latter two what is stored, or None. There are many."""

_, _UUID, _LAST, _OWNER, _STATE = range(5)


class _Old(NamedTuple):
    """A row of `base_session` or `base_stream`."""

    events_before: int
    session: int | None
    state: str | None


class _Move:
    """One move of the base of the built-in projections."""

    def __init__(
        self, connection: apsw.Connection, extent: Extent, up_to: int, fold: LifecycleFold
    ) -> None:
        self._connection = connection
        self._extent = extent
        self._up_to = up_to
        self._fold = fold
        self._has_base = all(
            has_base(connection, name, fold.version, extent) for name in fold.names
        )
        self._digests: dict[str, list[str]] = {"session": [], "stream": []}
        self._forgotten = Forgotten({"sessions": Counter(), "streams": Counter()}, [], [])

    def made(self, rows: list[StoredEvent]) -> Forgotten:
        """Make it, and return what is forgotten."""
        if not self._has_base:
            for table in ("session", "stream"):
                sql = f"UPDATE base_{table} SET state = NULL WHERE state IS NOT NULL"
                self._connection.execute(sql)
        rows = self._without_what_is_over(rows)
        states = self._fold.states(self._connection, "base", self._extent.cut)
        states.fold(rows)
        owners = self._move_streams(states, rows)
        self._move_sessions(states, rows, owners)
        sql = "DELETE FROM projection_anomaly WHERE position <= ?"
        self._connection.execute(sql, (self._up_to,))
        for name in self._fold.names:
            if self._has_base:
                digests = self._digests[name.removesuffix("s")]
                _write_base(self._connection, name, self._fold.version, self._up_to, digests)
            else:
                self._connection.execute("DELETE FROM base WHERE projection = ?", (name,))
        return self._forgotten

    def _without_what_is_over(self, rows: list[StoredEvent]) -> list[StoredEvent]:
        """Forget the sessions of which it is known without folding; return the others' events.

        They have ended, and nothing follows of them and of their streams, so by now they are what
        they are at the cut. One that shares a stream with another session is left to the fold.
        """
        stored = stored_checkpoint(self._connection, self._fold, self._extent.last)
        if stored is None or is_stale(stored, self._fold, self._extent):
            return rows
        _, _, of_sessions, of_streams, _, _ = zip(*rows, strict=True)
        pairs = set(zip(of_streams, of_sessions, strict=True))
        sessions = self._heads("session", set(of_sessions))
        streams = self._heads("stream", set(of_streams) - {None})
        over = {
            key: head
            for key, head in sessions.items()
            if head[_LAST] <= self._up_to and head[_STATE] in ENDED_STATES
        }
        for stream, session in pairs:
            if stream is None:
                continue
            head = streams[stream]
            if head[_OWNER] != session:
                over.pop(session, None)
                over.pop(head[_OWNER], None)
            elif head[_LAST] > self._up_to:
                over.pop(session, None)
        for session in self._with_streams_left(over):
            del over[session]
        if not over:
            return rows
        gone = {key: head for key, head in streams.items() if head[_OWNER] in over}
        others = self._keys_of_streams(over) - gone.keys()
        gone |= self._heads("stream", others)
        self._forget("stream", {key: head[_STATE] for key, head in gone.items()}, gone)
        self._forget("session", {key: head[_STATE] for key, head in over.items()}, over)
        return [row for row in rows if row[2] not in over]

    def _move_streams(self, states: LifecycleStates, rows: list[StoredEvent]) -> set[int]:
        """Move the streams that something happened to; return the sessions that they belong to."""
        counts = Counter([row[3] for row in rows if row[3] is not None])
        first_of = {row[3]: row[2] for row in reversed(rows) if row[3] is not None}
        keys = counts.keys() | states.lifecycle.streams.keys()
        heads, old = self._heads("stream", keys), self._old("stream", keys)
        written: list[tuple[Any, ...]] = []
        gone: dict[int, str | None] = {}
        owners: set[int] = set()
        for key in sorted(keys):
            state = states.lifecycle.streams.get(key)
            if state is None and key in old:
                state = states.stream(key)
            before, owner, _ = old.get(key, _Old(0, first_of.get(key), None))
            if state is not None:
                owner = state[T_SESSION]
                owners.add(state[T_SESSION])
            is_over = state is None or state[T_STATE] not in LIVE_STATES
            if heads[key][_LAST] <= self._up_to and is_over:
                gone[key] = None if state is None else state[T_STATE]
                continue
            text = None if state is None else self._text(_BASE_STREAM_COLUMNS, state[2:])
            written.append((key, before + counts[key], owner, text))
        self._write("stream", written, old)
        self._forget("stream", gone, heads)
        return owners

    def _move_sessions(
        self, states: LifecycleStates, rows: list[StoredEvent], owners: set[int]
    ) -> None:
        """Move the sessions that something happened to, or to a stream of theirs."""
        counts = Counter([row[2] for row in rows])
        keys = counts.keys() | states.lifecycle.sessions.keys() | owners
        heads, old = self._heads("session", keys), self._old("session", keys)
        in_use = self._with_streams_left(key for key in keys if heads[key][_LAST] <= self._up_to)
        written: list[tuple[Any, ...]] = []
        gone: dict[int, str | None] = {}
        for key in sorted(keys):
            state = states.lifecycle.sessions.get(key)
            is_touched = state is not None or key in counts
            is_empty = heads[key][_LAST] <= self._up_to and key not in in_use
            if state is None and (is_empty or is_touched) and key in old:
                state = states.session(key)
            if is_empty and state is not None and state[STATE] in ENDED_STATES:
                gone[key] = state[STATE]
            elif is_touched:
                before = old[key].events_before if key in old else 0
                text = None
                if state is not None:
                    text = self._text(_BASE_SESSION_COLUMNS, row_of_session(state)[1:])
                written.append((key, before + counts[key], text))
        self._write("session", written, old)
        left = self._keys_of_streams(gone)
        if left:  # they had not ended
            live = self._heads("stream", left)
            ended = {key: self._state_of_stream(states, key) for key in left}
            self._forget("stream", ended, live)
        self._forget("session", gone, heads)

    @staticmethod
    def _state_of_stream(states: LifecycleStates, key: int) -> str | None:
        state = states.lifecycle.streams.get(key) or states.stream(key)
        return None if state is None else state[T_STATE]

    def _with_streams_left(self, sessions: Iterable[int]) -> set[int]:
        """Return those of some sessions that have a stream with events after the cut."""
        rows: Any = self._connection.execute(
            "SELECT b.session FROM base_stream AS b CROSS JOIN stream AS t ON t.id = b.stream"
            " WHERE b.session IN (SELECT value FROM json_each(?)) AND t.last_seq > ?"
            " AND (b.state IS NOT NULL OR ?)",
            (_json(sessions), self._up_to, not self._has_base),
        )
        return {key for (key,) in rows}

    def _keys_of_streams(self, sessions: Iterable[int]) -> set[int]:
        """Return the streams of some sessions that have a base, and no events after the cut."""
        rows: Any = self._connection.execute(
            "SELECT b.stream FROM base_stream AS b CROSS JOIN stream AS t ON t.id = b.stream"
            " WHERE b.session IN (SELECT value FROM json_each(?)) AND t.last_seq <= ?",
            (_json(sessions), self._up_to),
        )
        return {key for (key,) in rows}

    def _write(self, table: str, rows: list[tuple[Any, ...]], old: dict[int, _Old]) -> None:
        """Write rows of a base, in place of old ones."""
        replaced = {key: old[key] for key, *_ in rows if key in old}
        self._digests[table] += _digests_of(table, replaced)
        self._digests[table] += [row_digest(*row) for row in rows]
        marks = "?, ?, ?" if table == "session" else "?, ?, ?, ?"
        columns = "" if table == "session" else "session, "
        sql = f"INSERT OR REPLACE INTO base_{table} ({table}, events_before, {columns}state)"
        self._connection.executemany(f"{sql} VALUES ({marks})", rows)

    def _forget(
        self, table: str, gone: Mapping[int, str | None], heads: Mapping[int, _Head]
    ) -> None:
        """Delete the rows of what is forgotten, and count it by the states that it ended in."""
        if not gone:
            return
        uuids = self._forgotten.sessions if table == "session" else self._forgotten.streams
        uuids += [heads[key][_UUID] for key in gone]
        self._forgotten.states[f"{table}s"].update(state or NOT_FOLDED for state in gone.values())
        mark = f"{table}_mark"
        largest: int = self._connection.execute(f"SELECT max(id) FROM {table}").get
        set_meta(self._connection, mark, str(max(largest, int(meta(self._connection, mark) or 0))))
        old = self._old(table, gone)
        self._digests[table] += _digests_of(table, old)
        for each, column, keys in (
            (f"base_{table}", table, old),
            (f"projection_{table}", table, gone),
            (table, "id", gone),
        ):
            if keys:
                sql = f"DELETE FROM {each} WHERE {column} IN (SELECT value FROM json_each(?))"
                self._connection.execute(sql, (_json(keys),))

    def _heads(self, table: str, keys: Collection[int]) -> dict[int, _Head]:
        """Return sessions or streams as they are by now.

        Raises:
            DamagedError: one is not there.
        """
        sql = f"{_HEADS_SQL[table]} WHERE s.id IN (SELECT value FROM json_each(?))"
        rows: Any = self._connection.execute(sql, (_json(keys),))
        heads = {row[0]: row for row in rows}
        if len(heads) != len(keys):
            missing = min(set(keys) - heads.keys())
            what = f"is damaged: there is no {table} {missing}, which events name"
            raise DamagedError(self._connection.filename, what)
        return heads

    def _old(self, table: str, keys: Iterable[int]) -> dict[int, _Old]:
        """Return the rows of a base that some sessions or streams have."""
        largest: int = self._connection.execute(
            f"SELECT ifnull(max({table}), 0) FROM base_{table}"
        ).get
        known = [key for key in keys if key <= largest]  # most are newer than what has a base
        if not known:
            return {}
        sql = f"{_OLD_SQL[table]} IN (SELECT value FROM json_each(?))"
        rows: Any = self._connection.execute(sql, (_json(known),))
        return {key: _Old(*row) for key, *row in rows}

    def _text(self, columns: Iterable[str], values: Iterable[Any]) -> str | None:
        """Return a state as a base has it; None where there is no base to go on from."""
        if not self._has_base:
            return None
        state = dict(zip(columns, values, strict=True))
        for name in _COUNTERS & state.keys():
            state[name] = storable(state[name])
        return to_json(state).decode()


def _json(keys: Iterable[int]) -> str:
    return to_json(sorted(keys)).decode()


def _digests_of(table: str, old: Mapping[int, _Old]) -> list[str]:
    """Return the digests of rows as they are."""
    if table == "stream":
        return [row_digest(key, *row) for key, row in old.items()]
    return [row_digest(key, row.events_before, row.state) for key, row in old.items()]
