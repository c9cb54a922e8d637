"""Moving the bases to a later cut: the states there, and what nothing is left of by then.

A session is forgotten when it has ended, and neither an event of it nor one of a stream of its own
is left; a stream when it has ended and no event of it is left. What was forgotten has no rows any
more, and its number is never given again.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, NamedTuple

import apsw
from pydantic_core import from_json, to_json

from journal.errors import DamagedError, FoldError
from journal.file.absences import Figures
from journal.file.decoding import StoredEvent
from journal.file.extent import Extent
from journal.file.identity import meta, set_meta
from journal.file.passed_over import mark_of_base
from journal.file.reading import rows_between
from journal.file.selecting import COLUMNS
from journal.projections.checkpoints import combined, is_stale, row_digest, stored_checkpoint
from journal.projections.lifecycle import (
    ENDED_STATES,
    LIVE_STATES,
    SESSION_COLUMNS,
    STATE,
    STREAM_COLUMNS,
    T_SESSION,
    T_STATE,
    State,
)
from journal.projections.lifecycle_states import (
    LifecycleFold,
    LifecycleStates,
    row_of_session,
    session_of_row,
)
from journal.projections.own_states import OwnFold
from journal.projections.tables import COUNTER_MAX

NOT_FOLDED = "not folded"
"""Stands for the state of what had only events of unknown kinds."""

# In the statements below, the sessions that began after the last cut and up to the next one have
# the numbers above :old_session up to :new_session, and few others have; likewise the streams.

_KEPT_SQL = """
SELECT s.id FROM session AS s LEFT JOIN projection_session AS p ON p.session = s.id
WHERE s.id > :old_session AND s.id <= :new_session
    AND NOT (s.last_seq <= :up_to AND ifnull(p.state IN ('Completed', 'Failed'), FALSE))
UNION ALL
SELECT p.session FROM stream AS t CROSS JOIN projection_stream AS p ON p.stream = t.id
WHERE t.id > :old_stream AND t.id <= :new_stream AND t.last_seq > :up_to
"""
"""The sessions that are not over, and those that have a stream with events after the cut."""

_SHARED_SQL = """
SELECT DISTINCT e.session, p.session
FROM event AS e LEFT JOIN projection_stream AS p ON p.stream = e.stream
WHERE e.seq > :after AND e.seq <= :up_to AND e.stream IS NOT NULL AND p.session IS NOT e.session
"""

_OVER_SESSION = (
    "session > :old_session AND session <= :new_session"
    " AND session NOT IN (SELECT value FROM json_each(:kept))"
)
_OVER = {
    "stream": f"stream > :old_stream AND stream <= :new_stream AND {_OVER_SESSION}",
    "session": _OVER_SESSION,
}
"""Which of the stored states are over."""

_HEADS_SQL = {
    "session": "SELECT id, uuid, last_seq FROM session WHERE id",
    "stream": "SELECT id, uuid, last_seq FROM stream WHERE id",
}
_OLD_SQL = {
    "session": "SELECT session, events_before, NULL, state FROM base_session WHERE session",
    "stream": "SELECT stream, events_before, session, state FROM base_stream WHERE stream",
}

_READY_AT_ONCE = 500
"""So many rows take about as long to make as half of a block to fold. A block of a thousand events
is about two thousand sessions and streams at most, but for the streams that end with a session."""

_READY_STEPS_MAX = 4
"""However many there are, as whoever waits for a cut makes a limited number of steps."""

_COUNTERS = {"session": ("batched_frames",), "stream": ("frames", "bytes")}
"""What is added up from events, and may go beyond SQLite's integers."""

_BASE_SESSION_COLUMNS = SESSION_COLUMNS[1:]
_BASE_STREAM_COLUMNS = STREAM_COLUMNS[2:]
_of_base_session = itemgetter(*_BASE_SESSION_COLUMNS)
_of_base_stream = itemgetter(*_BASE_STREAM_COLUMNS)


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
    stored = version - mark_of_base(connection, extent.cut)
    return connection.execute(sql, (name,)).fetchone() == (stored, extent.cut)


def move_bases(
    connection: apsw.Connection,
    extent: Extent,
    up_to: int,
    figures: list[Figures],
    folds: Iterable[LifecycleFold | OwnFold],
    *,
    ahead: "Move | None" = None,
    with_uuids: bool,
) -> Forgotten:
    """Move the bases from the cut to a later position, and forget what nothing will be left of.

    A projection that is not among `folds`, or has no base at the cut, has none afterwards.

    Args:
        connection: in the transaction that prunes the events.
        extent: where the events begin and end.
        up_to: the position.
        figures: those of the events from the cut to there.
        folds: the projections.
        ahead: the move of the built-in ones, if part of it was done ahead.
        with_uuids: whether to return the UUIDs of what is forgotten.

    Raises:
        DamagedError: an event, or what is stored of those before it, is damaged.
    """
    forgotten = Forgotten({}, [], [])
    kept: set[str] = set()
    # An application's are folded from events with their ids, which the built-in ones may forget.
    for fold in sorted(folds, key=lambda fold: isinstance(fold, LifecycleFold)):
        if isinstance(fold, LifecycleFold):
            move = ahead or Move(connection, extent, up_to, fold)
            forgotten = move.made(extent, figures, with_uuids=with_uuids)
            kept.update(fold.names)
        elif has_base(connection, fold.names[0], fold.version, extent):
            with suppress(FoldError):  # it is folded from the cut on, when it can be
                _move_own(connection, fold, extent, up_to, figures)
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
    figures: list[Figures],
) -> None:
    name = fold.names[0]
    states = fold.states(connection, "base", extent.cut)
    states.fold(rows_between(connection, extent, extent.cut, up_to))
    keys = to_json(states.changed_keys).decode()
    sql = (
        "SELECT key, state FROM base_state"
        " WHERE projection = ? AND key IN (SELECT value FROM json_each(?))"
    )
    digests = [row_digest(*row) for row in connection.execute(sql, (name, keys))]
    states.write()
    digests += [row_digest(*row) for row in connection.execute(sql, (name, keys))]
    version = fold.version - _mark_at(connection, up_to, figures)
    _write_base(connection, name, version, up_to, digests)


def _mark_at(connection: apsw.Connection, up_to: int, figures: list[Figures]) -> int:
    """Return the mark of a base at a later cut, up to which events are still there."""
    return mark_of_base(connection, up_to, {each.kind for each in figures})


def _write_base(
    connection: apsw.Connection, name: str, version: int, position: int, digests: Iterable[int]
) -> None:
    """Write that a base is at a position; `digests` are those of its rows as they were and are."""
    sql = "SELECT check_digest FROM base WHERE projection = ?"
    before: Any = connection.execute(sql, (name,)).get
    known = [int(before, 16)] if isinstance(before, str) else []
    connection.execute(
        "INSERT OR REPLACE INTO base (projection, version, position, check_digest)"
        " VALUES (?, ?, ?, ?)",
        (name, version, position, combined([*known, *digests])),
    )


_Head = tuple[Any, ...]
"""A session or a stream by now: its key, its UUID, the position of its latest event. There are
many, and making a tuple with names takes as long as reading it."""

_UUID, _LAST = 1, 2


class _Old(NamedTuple):
    """A row of `base_session` or `base_stream`."""

    events_before: int
    session: int | None
    state: str | None


class _Ready:
    """The rows of the sessions or streams that are sure to go on over the cut, made ahead."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.digests: list[int] = []
        """Those of these rows, and of the ones that they replace."""

    def keys(self) -> set[int]:
        return {row[0] for row in self.rows}


class Move:
    """One move of the base of the built-in projections, from the cut to a later position.

    Where many sessions go on over the cut, it takes some hundredths of a second to fold them and to
    make their rows. That can be done ahead, in earlier transactions.
    """

    def __init__(
        self, connection: apsw.Connection, extent: Extent, up_to: int, fold: LifecycleFold
    ) -> None:
        self._with_uuids = False
        self._connection = connection
        self._extent = extent
        self._up_to = up_to
        self._fold = fold
        self._has_base = all(
            has_base(connection, name, fold.version, extent) for name in fold.names
        )
        self._digests: dict[str, list[int]] = {"session": [], "stream": []}
        self._rows_of: dict[str, dict[int, _Old]] = {"session": {}, "stream": {}}
        self._asked_for: dict[str, set[int]] = {"session": set(), "stream": set()}
        self._texts: dict[str, dict[int, str | None]] = {"session": {}, "stream": {}}
        self._known_digests: dict[tuple[Any, ...], int] = {}
        self._chosen: tuple[str, dict[str, Any]] | None = None
        self._folded: tuple[LifecycleStates, list[StoredEvent]] | None = None
        self._read: tuple[LifecycleStates, list[StoredEvent]] | None = None
        self._not_ready: list[tuple[str, State]] = []
        self._at_once = 0
        self._counts: dict[str, Counter[int]] = {"session": Counter(), "stream": Counter()}
        self._ready = {"session": _Ready(), "stream": _Ready()}
        self._forgotten = Forgotten({"sessions": Counter(), "streams": Counter()}, [], [])

    def is_of(self, connection: apsw.Connection, extent: Extent, up_to: int) -> bool:
        """Tell whether it is the move to a position, and the cut is still where it was."""
        is_same = connection is self._connection and extent.cut == self._extent.cut
        return is_same and up_to == self._up_to

    def begin_ahead(self, figures: list[Figures]) -> bool:
        """Read ahead what is to be folded, and sessions before it; tell whether it has to be.

        It counts if by the move itself the same events are to be folded: those of sessions that are
        not over, as far as can be told by now. Nothing is written.
        """
        if self._has_base:
            self._chosen = self._of_others(figures)
            rows = self._rows(*self._chosen)
            states = self._fold.states(self._connection, "base", self._extent.cut)
            self._take_sessions(states, rows)
            self._read = states, rows
        return self._has_base

    def go_on_ahead(self) -> bool:
        """Do the next part ahead: fold, or make rows; tell whether there was one."""
        if self._read is not None:
            (states, rows), self._read = self._read, None
            self._fold_rows(states, rows)
            self._folded = states, rows
            self._not_ready = [("stream", state) for state in states.lifecycle.streams.values()]
            self._not_ready += [("session", state) for state in states.lifecycle.sessions.values()]
            self._at_once = max(_READY_AT_ONCE, -(-len(self._not_ready) // _READY_STEPS_MAX))
        elif self._not_ready:
            some = self._not_ready[-self._at_once :]
            del self._not_ready[-self._at_once :]
            for table in ("session", "stream"):
                self._make_ready(table, [state for name, state in some if name == table])
        else:
            return False
        return True

    def _make_ready(self, table: str, states: list[State]) -> None:
        """Make the rows of sessions or streams, and the digests of old and new ones.

        If the same events are folded by the move itself, what has not ended is still what it is
        now, and what has a later event still has one, so their rows are as good as written. Of the
        others, JSON and digests are remembered.
        """
        keys = [state[0] for state in states]
        heads, old_rows = self._heads(table, keys), self._old(table, keys)
        ready, counts = self._ready[table], self._counts[table]
        for state in states:
            key = state[0]
            old = old_rows.get(key)
            count = counts[key] if old is None else old.events_before + counts[key]
            is_known = old is None or old.state is not None  # else it may be another session's now
            goes_on = _is_live(table, state) or heads[key][_LAST] > self._up_to
            if is_known and goes_on:
                row = _row(table, state, count, _text_of(table, state))
                ready.rows.append(row)
                ready.digests.append(row_digest(*row))
                if old is not None:
                    ready.digests.append(row_digest(*_columns(table, key, old)))
            else:
                self._digest(*_row(table, state, count, self._text(table, state)))
                if old is not None:
                    self._digest(*_columns(table, key, old))

    def made(self, extent: Extent, figures: list[Figures], *, with_uuids: bool) -> Forgotten:
        """Make it, and return what is forgotten."""
        self._extent = extent  # events may have come, and been folded, since it was begun
        self._with_uuids = with_uuids
        if not self._has_base:
            for table in ("session", "stream"):
                sql = f"UPDATE base_{table} SET state = NULL WHERE state IS NOT NULL"
                self._connection.execute(sql)
        condition, values = self._of_others(figures)
        if "kept" in values:
            self._forget_what_is_over(values)
        states, rows = self._states_at(condition, values)
        owners = self._move_streams(states, rows)
        self._move_sessions(states, owners)
        sql = "DELETE FROM projection_anomaly WHERE position <= ?"
        self._connection.execute(sql, (self._up_to,))
        version = self._fold.version - _mark_at(self._connection, self._up_to, figures)
        for name in self._fold.names:
            if self._has_base:
                digests = self._digests[name.removesuffix("s")]
                _write_base(self._connection, name, version, self._up_to, digests)
            else:
                self._connection.execute("DELETE FROM base WHERE projection = ?", (name,))
        return self._forgotten

    def _states_at(
        self, condition: str, values: dict[str, Any]
    ) -> tuple[LifecycleStates, list[StoredEvent]]:
        """Return the states of what the chosen events are about, after them, and these events.

        They are not read again where they were chosen alike ahead: no event ever changes.
        """
        if self._folded is not None and self._chosen == (condition, values):
            return self._folded
        rows = self._rows(condition, values)
        if self._folded is not None and self._fold_besides(*self._folded, rows):
            states = self._folded[0]
        else:
            for texts in self._texts.values():
                texts.clear()
            self._ready = {"session": _Ready(), "stream": _Ready()}
            self._counts = {"session": Counter(), "stream": Counter()}
            states = self._fold.states(self._connection, "base", self._extent.cut)
            self._take_sessions(states, rows)
            self._fold_rows(states, rows)
        self._folded = states, rows
        return self._folded

    def _fold_besides(
        self, states: LifecycleStates, folded: list[StoredEvent], rows: list[StoredEvent]
    ) -> bool:
        """Fold what is not folded of some events; tell whether that is as good as to fold them all.

        A session that was over may go on late, and then its events are to be folded, too. As it
        shares no stream with another session, or it had not been left out, what is folded, and what
        is ready, has nothing to do with it.
        """
        sessions = self._counts["session"]
        streams = states.lifecycle.streams.keys() | self._counts["stream"].keys()
        besides = [row for row in rows if row[2] not in sessions]
        is_apart = all(row[3] not in streams for row in besides)
        if is_apart and [row for row in rows if row[2] in sessions] == folded:
            self._take_sessions(states, besides)
            self._fold_rows(states, besides)
            return True
        return False

    def _fold_rows(self, states: LifecycleStates, rows: list[StoredEvent]) -> None:
        """Fold some events, and count those of each session and stream."""
        self._take_streams(states, rows)
        states.fold(rows)
        self._counts["session"].update([row[2] for row in rows])
        self._counts["stream"].update([row[3] for row in rows if row[3] is not None])

    def _of_others(self, figures: list[Figures]) -> tuple[str, dict[str, Any]]:
        """Return the condition for the events that are to be folded, and its values.

        All but those of sessions of which it is known without folding that they are over. These
        began after the last cut and have ended, and nothing follows of them and of their
        streams, so by now they are what they are at the cut. One that shares a stream with another
        session is left to the fold. As most are of this kind, it is done by ranges of numbers.
        """
        values: dict[str, Any] = {"after": self._extent.cut, "up_to": self._up_to}
        stored = stored_checkpoint(self._connection, self._fold, self._extent.last)
        if stored is None or is_stale(stored, self._fold, self._extent):
            return "TRUE", values
        values["new_session"] = max(each.last_session for each in figures)
        values["new_stream"] = max(each.last_stream or 0 for each in figures)
        for table in ("session", "stream"):
            sql = f"SELECT ifnull(max({table}), 0) FROM base_{table}"
            values[f"old_{table}"] = self._connection.execute(sql).get
        kept = {key for (key,) in self._connection.execute(_KEPT_SQL, values)}
        for pair in self._connection.execute(_SHARED_SQL, values):
            kept.update(key for key in pair if key is not None)
        values["kept"] = _json(key for key in kept if key > values["old_session"])
        among_kept = "session IN (SELECT value FROM json_each(:kept))"
        return f"(session <= :old_session OR {among_kept})", values

    def _forget_what_is_over(self, values: dict[str, Any]) -> None:
        """Forget the sessions of which it is known without folding that they are over."""
        for table, condition in _OVER.items():
            over = f"projection_{table} WHERE {condition}"
            sql = f"SELECT state, count(*) FROM {over} GROUP BY 1"
            counts: Any = dict(self._connection.execute(sql, values))
            if not counts:
                continue
            self._forgotten.states[f"{table}s"].update(counts)
            self._write_mark(table)
            rows = f"FROM {table} WHERE id IN (SELECT {table} FROM {over})"
            if self._with_uuids:
                uuids: Any = self._connection.execute(f"SELECT uuid {rows}", values)
                self._uuids(table).extend(uuid for (uuid,) in uuids)
            self._connection.execute(f"DELETE {rows}", values)
            if self._connection.changes() != sum(counts.values()):
                what = f"is damaged: a {table} that events name is not there"
                raise DamagedError(self._connection.filename, what)
            self._connection.execute(f"DELETE FROM {over}", values)

    def _rows(self, condition: str, values: dict[str, Any]) -> list[StoredEvent]:
        sql = f"SELECT {COLUMNS} FROM event WHERE seq > :after AND seq <= :up_to"
        rows: list[Any] = self._connection.execute(
            f"{sql} AND {condition} ORDER BY seq", values
        ).fetchall()
        return rows

    def _take_sessions(self, states: LifecycleStates, rows: list[StoredEvent]) -> None:
        """Have in memory what the base says of every session that some events are about.

        Asked for one at a time, it takes longer than to fold them. So do streams.
        """
        sessions = states.lifecycle.sessions
        with self._damage_found():
            for key, old in self._old("session", {row[2] for row in rows}).items():
                if old.state is not None:
                    sessions[key] = session_of_row((key, *_of_base_session(from_json(old.state))))

    def _take_streams(self, states: LifecycleStates, rows: list[StoredEvent]) -> None:
        """Have in memory what the base says of every stream that some events are about."""
        streams = states.lifecycle.streams
        keys = {row[3] for row in rows if row[3] is not None}
        with self._damage_found():
            for key, old in self._old("stream", keys).items():
                if old.state is not None:
                    streams[key] = [key, old.session, *_of_base_stream(from_json(old.state))]

    @contextmanager
    def _damage_found(self) -> Iterator[None]:
        """Say that the base is damaged where a state of it is not what it should be."""
        try:
            yield
        except (ValueError, TypeError, LookupError) as error:
            what = f"is damaged: its base at position {self._extent.cut}"
            raise DamagedError(self._connection.filename, what, self._extent.cut) from error

    def _move_streams(self, states: LifecycleStates, rows: list[StoredEvent]) -> set[int]:
        """Move the streams that something happened to; return the sessions that they belong to."""
        counts = self._counts["stream"]
        first_of = {row[3]: row[2] for row in reversed(rows) if row[3] is not None}
        ready = self._ready["stream"]
        keys = (counts.keys() | states.lifecycle.streams.keys()) - ready.keys()
        heads, old = self._heads("stream", keys), self._old("stream", keys)
        written: list[tuple[Any, ...]] = []
        gone: dict[int, str | None] = {}
        owners: set[int] = {row[2] for row in ready.rows}
        for key in sorted(keys):
            state = states.lifecycle.streams.get(key)
            if state is None and key in old:
                state = states.stream(key)
            before, owner, _ = old.get(key, _Old(0, first_of.get(key), None))
            if state is not None:
                owner = state[T_SESSION]
                owners.add(state[T_SESSION])
            is_over = state is None or not _is_live("stream", state)
            if heads[key][_LAST] <= self._up_to and is_over:
                gone[key] = None if state is None else state[T_STATE]
                continue
            text = None if state is None else self._text("stream", state)
            written.append((key, before + counts[key], owner, text))
        self._write("stream", written, old)
        self._write_ready("stream")
        self._forget("stream", gone, heads)
        return owners

    def _move_sessions(self, states: LifecycleStates, owners: set[int]) -> None:
        """Move the sessions that something happened to, or to a stream of theirs."""
        counts = self._counts["session"]
        keys = counts.keys() | states.lifecycle.sessions.keys() | owners
        keys -= self._ready["session"].keys()
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
            if is_empty and state is not None and not _is_live("session", state):
                gone[key] = state[STATE]
            elif is_touched:
                before = old[key].events_before if key in old else 0
                text = None if state is None else self._text("session", state)
                written.append((key, before + counts[key], text))
        self._write("session", written, old)
        self._write_ready("session")
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
        self._digests[table] += self._digests_of(table, replaced)
        self._digests[table] += [self._digest(*row) for row in rows]
        marks = "?, ?, ?" if table == "session" else "?, ?, ?, ?"
        columns = "" if table == "session" else "session, "
        sql = f"INSERT OR REPLACE INTO base_{table} ({table}, events_before, {columns}state)"
        self._connection.executemany(f"{sql} VALUES ({marks})", rows)
        self._asked_for[table].difference_update(row[0] for row in rows)  # they are others now

    def _write_ready(self, table: str) -> None:
        """Write the rows that are ready. A stream that has one already keeps its session."""
        ready = self._ready[table]
        self._digests[table] += ready.digests
        marks = "?, ?, ?" if table == "session" else "?, ?, ?, ?"
        columns = "" if table == "session" else "session, "
        sql = f"INSERT INTO base_{table} ({table}, events_before, {columns}state) VALUES ({marks})"
        update = "UPDATE SET events_before = excluded.events_before, state = excluded.state"
        # The index is left alone: with OR REPLACE it takes twice as long.
        self._connection.executemany(f"{sql} ON CONFLICT ({table}) DO {update}", ready.rows)
        self._asked_for[table] -= ready.keys()

    def _forget(
        self, table: str, gone: Mapping[int, str | None], heads: Mapping[int, _Head]
    ) -> None:
        """Delete the rows of what is forgotten, and count it by the states that it ended in."""
        if not gone:
            return
        self._uuids(table).extend(heads[key][_UUID] for key in gone)
        self._forgotten.states[f"{table}s"].update(state or NOT_FOLDED for state in gone.values())
        self._write_mark(table)
        old = self._old(table, gone)
        self._digests[table] += self._digests_of(table, old)
        for each, column, keys in (
            (f"base_{table}", table, old),
            (f"projection_{table}", table, gone),
            (table, "id", gone),
        ):
            if keys:
                sql = f"DELETE FROM {each} WHERE {column} IN (SELECT value FROM json_each(?))"
                self._connection.execute(sql, (_json(keys),))
        for key in old:
            del self._rows_of[table][key]

    def _uuids(self, table: str) -> list[bytes]:
        return self._forgotten.sessions if table == "session" else self._forgotten.streams

    def _write_mark(self, table: str) -> None:
        """Write the largest number that was ever given, before rows are deleted."""
        mark = f"{table}_mark"
        largest: int = self._connection.execute(f"SELECT ifnull(max(id), 0) FROM {table}").get
        set_meta(self._connection, mark, str(max(largest, int(meta(self._connection, mark) or 0))))

    def _heads(self, table: str, keys: Collection[int]) -> dict[int, _Head]:
        """Return sessions or streams as they are by now.

        Raises:
            DamagedError: one is not there.
        """
        sql = f"{_HEADS_SQL[table]} IN (SELECT value FROM json_each(?))"
        rows: Any = self._connection.execute(sql, (_json(keys),))
        heads = {row[0]: row for row in rows}
        if len(heads) != len(keys):
            missing = min(set(keys) - heads.keys())
            what = f"is damaged: there is no {table} {missing}, which events name"
            raise DamagedError(self._connection.filename, what)
        return heads

    def _old(self, table: str, keys: Iterable[int]) -> dict[int, _Old]:
        """Return the rows of a base that some sessions or streams have."""
        rows_of, asked_for = self._rows_of[table], self._asked_for[table]
        wanted = set(keys)
        missing = wanted - asked_for
        if missing:
            asked_for |= missing
            largest: int = self._connection.execute(
                f"SELECT ifnull(max({table}), 0) FROM base_{table}"
            ).get
            known = [key for key in missing if key <= largest]  # most are newer than what has one
            sql = f"{_OLD_SQL[table]} IN (SELECT value FROM json_each(?))"
            rows: Any = self._connection.execute(sql, (_json(known),)) if known else ()
            rows_of.update((key, _Old(*row)) for key, *row in rows)
        return {key: rows_of[key] for key in wanted if key in rows_of}

    def _text(self, table: str, state: State) -> str | None:
        """Return a state as a base has it; None where there is no base to go on from."""
        if not self._has_base:
            return None
        texts, key = self._texts[table], state[0]
        if key not in texts:
            texts[key] = _text_of(table, state)
        return texts[key]

    def _digests_of(self, table: str, old: Mapping[int, _Old]) -> list[int]:
        """Return the digests of rows as they are."""
        return [self._digest(*_columns(table, key, row)) for key, row in old.items()]

    def _digest(self, *columns: int | str | None) -> int:
        digest = self._known_digests.get(columns)
        if digest is None:
            digest = self._known_digests[columns] = row_digest(*columns)
        return digest


def _is_live(table: str, state: State) -> bool:
    """Tell whether a session or a stream has not ended."""
    if table == "session":
        return state[STATE] not in ENDED_STATES
    return state[T_STATE] in LIVE_STATES


def _row(table: str, state: State, event_count: int, text: str | None) -> tuple[Any, ...]:
    """Return the row of a base that a state has."""
    if table == "session":
        return state[0], event_count, text
    return state[0], event_count, state[T_SESSION], text


def _text_of(table: str, state: State) -> str:
    """Return a state as a base has it."""
    if table == "session":
        values = dict(zip(_BASE_SESSION_COLUMNS, row_of_session(state)[1:], strict=True))
    else:
        values = dict(zip(_BASE_STREAM_COLUMNS, state[2:], strict=True))
    for name in _COUNTERS[table]:
        values[name] = min(values[name], COUNTER_MAX)
    return to_json(values).decode()


def _columns(table: str, key: int, row: _Old) -> tuple[int | str | None, ...]:
    """Return the columns of a row of a base, with its key."""
    return (key, *row) if table == "stream" else (key, row.events_before, row.state)


def _json(keys: Iterable[int]) -> str:
    return to_json(sorted(keys)).decode()
