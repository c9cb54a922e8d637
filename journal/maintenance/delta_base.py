"""The base of a delta: what the projections had made of the events that lie before it.

It takes folding them all. It is what pruning them would leave.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

import apsw
from pydantic_core import to_json

from journal.errors import FoldError
from journal.file.connections import Database
from journal.file.extent import Extent
from journal.file.passed_over import mark_of_base
from journal.projections.checkpoints import base_digest, beginning_of, copy_base
from journal.projections.forgetting import forgotten_at, sessions_kept, streams_kept
from journal.projections.lifecycle import SESSION_COLUMNS, STREAM_COLUMNS
from journal.projections.lifecycle_states import LifecycleFold
from journal.projections.own_states import OwnFold
from journal.projections.tables import fold_next, has_own_states, make_temporary

_EVENTS_AT_ONCE: Final = 4_000
_EVENTS_IN_MEMORY: Final = 40_000
_ROWS_AT_ONCE: Final = 1_000

_TEMP_KIB: Final = 4 * 1024

_STATES: Final = {"session": SESSION_COLUMNS, "stream": STREAM_COLUMNS}
_KEYS: Final = {"session", "stream"}
"""What a base has in columns of their own, beside the state."""

_OWN_SQL: Final = (
    "SELECT projection, key, state FROM temp.projection_state WHERE projection = ? ORDER BY key"
)

# What the file has of projections that nobody has registered here, and of subscriptions.
_CHECKPOINTS_SQL: Final = """
SELECT name, type, version, position, since FROM main.checkpoint
WHERE name NOT IN ('sessions', 'streams') AND position >= ? AND (type = 'subscription' OR ?)
"""
_STORED_SQL: Final = """
SELECT projection, key, state FROM main.projection_state WHERE projection IN (
    SELECT name FROM main.checkpoint WHERE type = 'projection' AND position >= ?)
"""
_OTHER_BASES_SQL: Final = """
SELECT projection, version, position, check_digest FROM main.base
WHERE projection NOT IN (SELECT value FROM json_each(?)) AND position = ?
"""
_OTHER_STATES_SQL: Final = """
SELECT projection, key, state FROM main.base_state WHERE projection IN (
    SELECT projection FROM main.base
    WHERE projection NOT IN (SELECT value FROM json_each(?)) AND position = ?)
"""


class Base:
    """The states at a cut, folded into temporary tables of a connection that is in a transaction.

    Args:
        database: the file.
        source: the connection.
        extent: where the events begin and end.
        cut: the last position of what the delta has not; not 0.
    """

    def __init__(
        self, database: Database, source: apsw.Connection, extent: Extent, cut: int
    ) -> None:
        self._database = database
        self._source = source
        self._extent = extent
        self._cut = cut
        self._lifecycle = LifecycleFold()
        self._folded: list[LifecycleFold | OwnFold] = []

    def fold(self, own_folds: Collection[OwnFold], progress: Callable[[float], None]) -> None:
        """Fold everything up to the cut.

        A projection has no base where the file has none to begin with, or an event cannot be folded
        by it.
        """
        folds: list[LifecycleFold | OwnFold] = [self._lifecycle, *own_folds]
        with self._database.inside():
            self._source.execute(f"PRAGMA temp.cache_size = -{_TEMP_KIB}")
            make_temporary(self._source, dict.fromkeys(it for one in folds for it in one.tables))
        for number, fold in enumerate(folds):
            with suppress(FoldError):
                self._fold(fold, _part(progress, number, len(folds)))

    def _fold(self, fold: LifecycleFold | OwnFold, progress: Callable[[float], None]) -> None:
        source, cut = self._source, self._cut
        with self._database.inside():
            begun = beginning_of(source, fold, self._extent)
            if begun.schema == "base":
                copy_base(source, fold, "temp")
            states = fold.states(source, "temp", begun.position)
        while states.position < cut:
            with self._database.inside():
                end = min(cut, states.position + _EVENTS_AT_ONCE)
                fold_next(source, states, self._extent, end)
                if end % _EVENTS_IN_MEMORY < _EVENTS_AT_ONCE:
                    states.write()  # what never ends would otherwise stay in memory
                else:
                    states.make_room()
            progress((end - begun.position) / (cut - begun.position))
        with self._database.inside():
            states.write()
        if begun.since == 1:
            self._folded.append(fold)

    def forgotten(self) -> dict[str, dict[str, int]]:
        """Return what nothing is left of at the cut, as in `absent`."""
        with self._database.inside():
            return forgotten_at(self._source, self._cut)

    def name_what_goes_on(self, new: apsw.Connection) -> None:
        """Add the sessions and streams that are not forgotten to those that the events name."""
        with self._database.inside():
            new.executemany(
                "INSERT OR IGNORE INTO temp.named_session VALUES (?, 0, NULL)",
                sessions_kept(self._source, self._cut),
            )
            new.executemany(
                "INSERT INTO temp.named_stream VALUES (?, 0, NULL, ?) ON CONFLICT (id)"
                " DO UPDATE SET session = ifnull(excluded.session, session)",
                streams_kept(self._source, self._cut),
            )

    def write(self, new: apsw.Connection) -> None:
        """Write the states to the rows that are there by now, and those that are stored."""
        for fold in self._folded:
            if isinstance(fold, LifecycleFold):
                self._write_states(new, "session")
                self._write_states(new, "stream")
            with self._database.inside():
                if isinstance(fold, OwnFold):
                    rows: Any = self._source.execute(_OWN_SQL, fold.names)
                    new.executemany("INSERT INTO base_state VALUES (?, ?, ?)", rows)
                for name in fold.names:
                    digest = base_digest(new, name)
                    version = fold.version - mark_of_base(new, self._cut)
                    values = name, version, self._cut, digest
                    new.execute("INSERT INTO base VALUES (?, ?, ?, ?)", values)
        with self._database.inside():
            self._copy_stored(new)

    def _write_states(self, new: apsw.Connection, owner: str) -> None:
        columns = _STATES[owner]
        names = [name for name in columns if name not in _KEYS]
        sql = f"SELECT {owner}, {', '.join(names)} FROM temp.projection_{owner}"
        sql += f" WHERE {owner} > ? ORDER BY {owner} LIMIT {_ROWS_AT_ONCE}"
        after = -(2**63)
        while True:
            with self._database.inside():
                rows: Any = self._source.execute(sql, (after,)).fetchall()
                states = (
                    (to_json(dict(zip(names, state, strict=True))).decode(), key)
                    for key, *state in rows
                )
                new.executemany(f"UPDATE base_{owner} SET state = ? WHERE {owner} = ?", states)
            if not rows:
                return
            after = rows[-1][0]

    def _copy_stored(self, new: apsw.Connection) -> None:
        """Copy states that have come beyond the cut, and what is no matter of folding here."""
        source, cut = self._source, self._cut
        can_be_read = has_own_states(source)
        rows: Any = source.execute(_CHECKPOINTS_SQL, (cut, can_be_read))
        new.executemany(
            "INSERT INTO checkpoint (name, type, version, position, since) VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        if can_be_read:
            rows = source.execute(_STORED_SQL, (cut,))
            new.executemany("INSERT INTO projection_state VALUES (?, ?, ?)", rows)
        known = to_json([*(it for one in self._folded for it in one.names), *LifecycleFold.names])
        others = known.decode(), cut
        rows = source.execute(_OTHER_BASES_SQL, others)
        new.executemany("INSERT INTO base VALUES (?, ?, ?, ?)", rows)
        rows = source.execute(_OTHER_STATES_SQL, others)
        new.executemany("INSERT INTO base_state VALUES (?, ?, ?)", rows)


def _part(progress: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    return lambda share: progress((number + share) / count)
