"""Moving the bases to a later cut: the states there, and what nothing is left of by then.

A session is forgotten when it has ended, and neither an event of it nor one of a stream of its own
is left; a stream when it has ended and no event of it is left. What was forgotten has no rows any
more, and its number is never given again.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

import apsw
from pydantic_core import from_json, to_json

from journal.errors import DamagedError, FoldError
from journal.file.absences import Figures
from journal.file.decoding import StoredEvent
from journal.file.extent import Extent
from journal.file.identity import meta, set_meta
from journal.file.reading import rows_between
from journal.file.selecting import COLUMNS
from journal.projections.checkpoints import (
    check_base,
    combined,
    is_stale,
    row_digest,
    stored_checkpoint,
)
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
from journal.projections.tables import storable

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
    "session": "SELECT session, events_before, state FROM base_session WHERE session",
    "stream": "SELECT stream, events_before, session, state FROM base_stream WHERE stream",
}

_COUNTERS = {"session": ("batched_frames",), "stream": ("frames", "bytes")}
"""What is added up from events, and may go beyond SQLite's integers."""

_COLUMNS = {"session": SESSION_COLUMNS[1:], "stream": STREAM_COLUMNS[2:]}
_VALUES = {table: itemgetter(*columns) for table, columns in _COLUMNS.items()}
"""Take from the object that a base has of a state all but the keys."""

T = TypeVar("T")


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
            forgotten = move.made(figures, with_uuids=with_uuids)
            kept.update(fold.names)
        elif has_base(connection, fold.names[0], fold.version, extent):
            with suppress(FoldError):  # it is folded from the cut on, when it can be
                _move_own(connection, fold, extent, up_to)
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
    _write_base(connection, name, fold.version, up_to, digests)


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

_Row = tuple[Any, ...]
"""A row of `base_session` or `base_stream`, its columns in their order: the key comes first and the
state last."""

_BEFORE, _OWNER, _STATE = 1, 2, -1

_Selection = tuple[str, dict[str, Any]]
"""A condition for the events that are to be folded, and its values."""

_READ_AT_ONCE: Final = 500
_MADE_AT_ONCE: Final = 150
"""So many states or events are read or folded, or rows of states made, in one piece: it takes some
three milliseconds."""

_ATTEMPTS: Final = 3
"""So often a move is made ready, if it has to be again; after that, it is made as it is."""


class Move:
    """One move of the base of the built-in projections, from the cut to a later position.

    Where many sessions go on over the cut, it takes some hundredths of a second to fold them and to
    make the rows of their states. That can be done ahead, piece by piece, in earlier transactions.

    Attributes:
        is_checked: whether the base at the cut was made sure of ahead.
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
        self.is_checked = False
        self._selection: _Selection | None = None
        self._states: LifecycleStates
        self._events: list[StoredEvent] = []
        self._counts: dict[str, Counter[int]] = {}
        self._old_rows: dict[str, dict[int, _Row | None]] = {"session": {}, "stream": {}}
        self._new_rows: dict[str, dict[int, _Row]] = {"session": {}, "stream": {}}
        self._may_go: dict[str, dict[int, State | None]] = {"session": {}, "stream": {}}
        self._changes = {"session": 0, "stream": 0}
        self._forgotten = Forgotten({"sessions": Counter(), "streams": Counter()}, [], [])

    def is_of(self, connection: apsw.Connection, extent: Extent, up_to: int) -> bool:
        """Tell whether it is the move to a position, and the cut is still where it was."""
        is_same = connection is self._connection and extent.cut == self._extent.cut
        return is_same and up_to == self._up_to

    def ahead(self, figures: list[Figures], *, check: bool) -> Iterator[bool]:
        """Do what can be done before the move, a piece with each step; nothing is written.

        It counts if by the move itself the same events are to be folded: those of sessions that are
        not over, as far as can be told by now. What comes late for one that was over makes it begin
        anew, a few times at most.

        Args:
            figures: those of the events from the cut to there.
            check: whether to make sure of the base at the cut.

        Yields:
            True, after each piece.

        Raises:
            DamagedError: as `move_bases` does, and where the base is not what it was.
        """
        if self._has_base:
            if check:
                yield from check_base(self._connection, self._fold, self._extent)
                self.is_checked = True
            for _ in range(_ATTEMPTS):
                selection = self._of_others(figures)
                if self._selection == selection:
                    return
                yield from self._prepare(selection)

    def made(self, figures: list[Figures], *, with_uuids: bool) -> Forgotten:
        """Make it, and return what is forgotten."""
        self._with_uuids = with_uuids
        if not self._has_base:
            for table in ("session", "stream"):
                sql = f"UPDATE base_{table} SET state = NULL WHERE state IS NOT NULL"
                self._connection.execute(sql)
        selection = self._of_others(figures)
        if "kept" in selection[1]:
            self._forget_what_is_over(selection[1])
        if self._selection != selection:
            for _ in self._prepare(selection):
                pass
        self._move_streams()
        self._move_sessions()
        sql = "DELETE FROM projection_anomaly WHERE position <= ?"
        self._connection.execute(sql, (self._up_to,))
        for name in self._fold.names:
            if self._has_base:
                changes = [self._changes[name.removesuffix("s")]]
                _write_base(self._connection, name, self._fold.version, self._up_to, changes)
            else:
                self._connection.execute("DELETE FROM base WHERE projection = ?", (name,))
        return self._forgotten

    def _prepare(self, selection: _Selection) -> Iterator[bool]:
        """Fold the selected events from the base on, and make the rows of what they are about.

        It is done a piece with each step. Events up to a cut that is to be made, and the base, stay
        as they are until then, so it need not be done again for the same selection.
        """
        self._selection = None
        self._changes = {"session": 0, "stream": 0}
        self._states = self._fold.states(self._connection, "base", self._extent.cut)
        self._events = self._selected(selection)
        yield True
        for table, column in (("session", 2), ("stream", 3)):
            keys: list[Any] = [row[column] for row in self._events if row[column] is not None]
            self._counts[table] = Counter(keys)
            for some in _pieces(self._counts[table], _READ_AT_ONCE):
                self._take_states(table, some)
                yield True
        for events in _pieces(self._events, _READ_AT_ONCE):
            self._states.fold(events)
            yield True
        for table in ("session", "stream"):
            self._new_rows[table].clear()
            self._may_go[table].clear()
            touched = self._counts[table].keys() | self._states_of(table).keys()
            for some in _pieces(sorted(touched), _MADE_AT_ONCE):
                self._make_rows(table, some)
                yield True
        self._selection = selection

    def _states_of(self, table: str) -> dict[int, State]:
        """Return the states after the events that were folded, of what they are about."""
        lifecycle = self._states.lifecycle
        return lifecycle.sessions if table == "session" else lifecycle.streams

    def _of_others(self, figures: list[Figures]) -> _Selection:
        """Return which events are to be folded.

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
            counts: Any = self._connection.execute(sql, values).fetchall()
            if not counts:
                continue
            self._forgotten.states[f"{table}s"].update(dict(counts))
            self._write_mark(table)
            rows = f"FROM {table} WHERE id IN (SELECT {table} FROM {over})"
            if self._with_uuids:
                uuids: Any = self._connection.execute(f"SELECT uuid {rows}", values)
                self._uuids(table).extend(uuid for (uuid,) in uuids)
            self._connection.execute(f"DELETE {rows}", values)
            self._connection.execute(f"DELETE FROM {over}", values)

    def _selected(self, selection: _Selection) -> list[StoredEvent]:
        condition, values = selection
        sql = f"SELECT {COLUMNS} FROM event WHERE seq > :after AND seq <= :up_to"
        rows: list[Any] = self._connection.execute(
            f"{sql} AND {condition} ORDER BY seq", values
        ).fetchall()
        return rows

    def _take_states(self, table: str, keys: list[int]) -> None:
        """Have ready what the base says of some sessions or streams.

        Asked for one at a time, it takes most of the time of a cut where many sessions are open.
        """
        values_of, states = _VALUES[table], self._states_of(table)
        try:
            for key, row in self._old(table, keys).items():
                if row[_STATE] is None:
                    continue
                values = values_of(from_json(row[_STATE]))
                if table == "session":
                    states[key] = session_of_row((key, *values))
                else:
                    states[key] = [key, row[_OWNER], *values]
        except (ValueError, TypeError, LookupError) as error:
            what = f"is damaged: its base at position {self._extent.cut}"
            raise DamagedError(self._connection.filename, what, self._extent.cut) from error

    def _make_rows(self, table: str, keys: list[int]) -> None:
        """Make the rows of sessions or streams after the move, but of those that may be forgotten.

        What may not by now may not later: it goes on, or has events left.
        """
        self._old(table, keys)
        heads, states = self._heads(table, keys), self._states_of(table)
        for key in keys:
            state = states.get(key)
            if heads[key][_LAST] <= self._up_to and _is_over(table, state):
                self._may_go[table][key] = state
            else:
                self._make_row(table, key, state)

    def _make_row(self, table: str, key: int, state: State | None) -> None:
        old = self._old_rows[table][key]
        before = self._counts[table][key] + (0 if old is None else old[_BEFORE])
        text = None if state is None else self._text(table, state)
        if table == "session":
            row: _Row = (key, before, text)
        elif state is not None:
            row = (key, before, state[T_SESSION], text)
        elif old is not None:
            row = (key, before, old[_OWNER], text)
        else:
            first = next(event for event in self._events if event[3] == key)
            row = (key, before, first[2], text)
        self._new_rows[table][key] = row
        self._changes[table] ^= row_digest(*row)
        if old is not None:
            self._changes[table] ^= row_digest(*old)

    def _move_streams(self) -> None:
        """Move the streams that something happened to."""
        may_go = self._may_go["stream"]
        heads = self._heads("stream", may_go)
        gone: dict[int, str | None] = {}
        for key, state in may_go.items():
            if heads[key][_LAST] > self._up_to:
                self._make_row("stream", key, state)
            else:
                gone[key] = None if state is None else state[T_STATE]
        self._write("stream")
        self._forget("stream", gone, heads)

    def _move_sessions(self) -> None:
        """Move the sessions that something happened to, or to a stream of theirs."""
        states, may_go = self._states, self._may_go["session"]
        owners = {stream[T_SESSION] for stream in states.lifecycle.streams.values()}
        owners -= self._new_rows["session"].keys()  # they go on
        heads = self._heads("session", may_go.keys() | owners)
        in_use = self._with_streams_left(key for key in heads if heads[key][_LAST] <= self._up_to)
        gone: dict[int, str | None] = {}
        for key in heads:
            is_empty = heads[key][_LAST] <= self._up_to and key not in in_use
            state = may_go[key] if key in may_go else states.session(key) if is_empty else None
            if is_empty and state is not None and state[STATE] in ENDED_STATES:
                gone[key] = state[STATE]
            elif key in may_go:
                self._make_row("session", key, state)
        self._write("session")
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

    def _write(self, table: str) -> None:
        """Write the rows that were made, in place of old ones."""
        marks = "?, ?, ?" if table == "session" else "?, ?, ?, ?"
        columns = "" if table == "session" else "session, "
        sql = f"INSERT OR REPLACE INTO base_{table} ({table}, events_before, {columns}state)"
        rows = self._new_rows[table]
        self._connection.executemany(f"{sql} VALUES ({marks})", rows.values())
        self._old_rows[table].update(rows)

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
        for row in old.values():
            self._changes[table] ^= row_digest(*row)
        for each, column, keys in (
            (f"base_{table}", table, old),
            (f"projection_{table}", table, gone),
            (table, "id", gone),
        ):
            if keys:
                sql = f"DELETE FROM {each} WHERE {column} IN (SELECT value FROM json_each(?))"
                self._connection.execute(sql, (_json(keys),))
        for key in old:
            self._old_rows[table][key] = None

    def _uuids(self, table: str) -> list[bytes]:
        return self._forgotten.sessions if table == "session" else self._forgotten.streams

    def _write_mark(self, table: str) -> None:
        """Write the largest number that was ever given, before rows are deleted."""
        mark = f"{table}_mark"
        largest: int = self._connection.execute(f"SELECT max(id) FROM {table}").get
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

    def _old(self, table: str, keys: Iterable[int]) -> dict[int, _Row]:
        """Return the rows of a base that some sessions or streams have."""
        old_rows = self._old_rows[table]
        wanted = set(keys)
        missing = wanted - old_rows.keys()
        if missing:
            old_rows.update(dict.fromkeys(missing))
            largest: int = self._connection.execute(
                f"SELECT ifnull(max({table}), 0) FROM base_{table}"
            ).get
            known = [key for key in missing if key <= largest]  # most are newer than what has one
            sql = f"{_OLD_SQL[table]} IN (SELECT value FROM json_each(?))"
            rows: Any = self._connection.execute(sql, (_json(known),)) if known else ()
            old_rows.update((row[0], row) for row in rows)
        return {key: row for key in wanted if (row := old_rows[key]) is not None}

    def _text(self, table: str, state: State) -> str | None:
        """Return a state as a base has it; None where there is no base to go on from."""
        if not self._has_base:
            return None
        values = row_of_session(state)[1:] if table == "session" else state[2:]
        state_of = dict(zip(_COLUMNS[table], values, strict=True))
        for name in _COUNTERS[table]:
            state_of[name] = storable(state_of[name])
        return to_json(state_of).decode()


def _is_over(table: str, state: State | None) -> bool:
    """Tell whether a session or a stream of this state is over; None: it has none."""
    if table == "session":
        return state is not None and state[STATE] in ENDED_STATES
    return state is None or state[T_STATE] not in LIVE_STATES


def _pieces(values: Iterable[T], count: int) -> Iterator[list[T]]:
    """Yield so many values at a time, in order."""
    remaining = iter(values)
    while some := list(islice(remaining, count)):
        yield some


def _json(keys: Iterable[int]) -> str:
    return to_json(sorted(keys)).decode()
