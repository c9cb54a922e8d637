"""One cut: sealed blocks at the beginning of a file go, in a transaction complete in itself."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple
from uuid import UUID

import apsw

from journal.file.absences import figures_of, prune_events
from journal.file.appending import Appender
from journal.file.checkpoints import Checkpoint, read_checkpoints
from journal.file.extent import Extent, missing_event
from journal.projections.bases import Forgotten, Move, has_base, move_bases
from journal.projections.catching_up import bring_up_here
from journal.projections.checkpoints import beginning_of
from journal.projections.lifecycle_states import LifecycleFold
from journal.projections.own_states import OwnFold

_OPEN_SQL = """
SELECT e.seq, s.uuid FROM event AS e
    CROSS JOIN {schema}.projection_session AS p ON p.session = e.session
    CROSS JOIN session AS s ON s.id = e.session
WHERE e.seq > ? AND e.seq <= ? AND p.state NOT IN ('Completed', 'Failed')
ORDER BY e.seq LIMIT 1
"""


class Held(NamedTuple):
    """What keeps events from being pruned."""

    by: str
    """The name of a checkpoint, or the id of a session that is open."""
    position: int
    """Of the last event that may go."""


class Cut(NamedTuple):
    """What a cut took."""

    counts: dict[str, int]
    """How many events of each kind."""
    block_count: int
    forgotten: Forgotten


class Cutter:
    """Makes cuts in one file."""

    def __init__(self, appender: Appender, lifecycle: LifecycleFold) -> None:
        self._appender = appender
        self.lifecycle = lifecycle
        self._own_cut = -1
        self._ahead: Move | None = None

    def do_ahead(self, connection: apsw.Connection, extent: Extent, up_to: int) -> bool:
        """Do ahead a part of what a cut up to the end of a block takes most of its time for.

        Args:
            connection: in a transaction for writing, as for the cut; nothing is written.
            extent: where the events begin and end.
            up_to: the last position to go.

        Returns:
            whether there was a part left to do.
        """
        # Where anything ends this half-way, it has to begin anew.
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.is_of(connection, extent, up_to):
            is_left = ahead.go_on_ahead()
        else:
            self._check_bases(connection, extent, [self.lifecycle])
            ahead = Move(connection, extent, up_to, self.lifecycle)
            is_left = ahead.begin_ahead(figures_of(connection, extent.first, up_to))
        self._ahead = ahead
        return is_left

    def _check_bases(
        self, connection: apsw.Connection, extent: Extent, folds: Iterable[LifecycleFold | OwnFold]
    ) -> None:
        """Make sure that the bases at the cut are what they were when they were written."""
        if extent.cut != self._own_cut:  # else they are as they were written here
            for fold in folds:
                if all(has_base(connection, name, fold.version, extent) for name in fold.names):
                    beginning_of(connection, fold, extent)

    def cut(
        self,
        connection: apsw.Connection,
        extent: Extent,
        up_to: int,
        own_folds: Collection[OwnFold],
        now_ns: int,
    ) -> Cut:
        """Prune everything up to the end of a block; one that is open there is sealed first.

        Args:
            connection: in a transaction for writing.
            extent: where the events begin and end.
            up_to: the last position to go.
            own_folds: an application's projections that have come so far.
            now_ns: the time, nanoseconds since 1970.
        """
        folds: list[LifecycleFold | OwnFold] = [self.lifecycle, *own_folds]
        self._check_bases(connection, extent, folds)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.is_of(connection, extent, up_to):
            ahead = None
        if up_to == extent.last:
            self._appender.seal_block(connection)
        figures = figures_of(connection, extent.first, up_to)
        if sum(each.event_count for each in figures) != extent.event_count(extent.cut, up_to):
            raise missing_event(connection, extent, extent.cut, up_to)
        bring_up_here(connection, self.lifecycle, extent, up_to)
        with_uuids = self._appender.knows_heads
        forgotten = move_bases(
            connection, extent, up_to, figures, folds, ahead=ahead, with_uuids=with_uuids
        )
        sql = "SELECT count(*) FROM block WHERE first_seq <= ?"
        block_count: int = connection.execute(sql, (up_to,)).get
        counts = prune_events(connection, extent, up_to, forgotten.states, now_ns)
        self._appender.forget(forgotten.sessions, forgotten.streams)
        self._own_cut = up_to
        return Cut(counts, block_count, forgotten)


def held_by_name(
    connection: apsw.Connection, extent: Extent, passed_over: Collection[str]
) -> Held | None:
    """Return the lowest named checkpoint but those of the built-in projections and some others."""
    others = [
        Held(name, at.position)
        for name, at in checkpoints(connection, extent).items()
        if name not in LifecycleFold.names and name not in passed_over
    ]
    return min(others, key=lambda held: held.position, default=None)


def checkpoints(connection: apsw.Connection, extent: Extent) -> dict[str, Checkpoint]:
    """Return every named checkpoint of the file."""
    return {
        **read_checkpoints(connection, "projection", extent.last),
        **read_checkpoints(connection, "subscription", extent.last),
    }


def held_by_session(
    connection: apsw.Connection, schema: str, extent: Extent, up_to: int
) -> Held | None:
    """Return the first event, up to a position, of a session that is open.

    `schema` is that of the tables that say so: they have come to the last event.
    """
    sql = _OPEN_SQL.format(schema=schema)
    row: Any = connection.execute(sql, (extent.cut, up_to)).fetchone()
    return None if row is None else Held(str(UUID(bytes=row[1])), row[0] - 1)


def last_within(
    ends: Iterable[int], held: Held | None, up_to: int | None = None
) -> tuple[int | None, Held | None]:
    """Return the last end that may go, None where there is none; and what holds the next one back.

    Args:
        ends: of the blocks that are due, in order.
        held: what none may go beyond.
        up_to: where to stop, though not before the first.
    """
    found = None
    for end in ends:
        if held is not None and end > held.position:
            return found, held
        if found is not None and up_to is not None and end > up_to:
            break
        found = end
    return found, None
