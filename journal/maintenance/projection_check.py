"""The rows of the built-in projections against a fresh fold of the events."""

from typing import Any, Final

import apsw

from journal.file.checkpoints import Checkpoint, read_checkpoints
from journal.file.extent import Extent
from journal.maintenance.block_check import Progress
from journal.maintenance.findings import Findings
from journal.projections.checkpoints import beginning_of, copy_base, is_stale, stored_checkpoint
from journal.projections.differences import changes_between
from journal.projections.lifecycle_states import LifecycleFold, LifecycleStates
from journal.projections.tables import fold_next, have_our_shape, make_temporary

_EVENTS_AT_ONCE: Final = 4_000


def check_projections(
    connection: apsw.Connection, extent: Extent, found: Findings, progress: Progress | None = None
) -> tuple[str, ...]:
    """Fold the events into temporary tables, and compare those with what the file has.

    Only up to where the rows of the file have come: what is missing is folded when it is read.

    Returns:
        what could not be compared, and why, in words.
    """
    fold = LifecycleFold()
    unchecked: list[str] = []
    with found.noted("checkpoint", "checkpoint", severity="derived"):
        names = read_checkpoints(connection, "projection", extent.last).keys() - set(fold.names)
        unchecked += (f"{name}: only its application can fold it" for name in sorted(names))
    stored: Checkpoint | str | None = None
    with found.noted("checkpoint", "checkpoint", severity="derived"):
        stored = _stored(connection, fold, extent)
    if isinstance(stored, str):
        unchecked.append(f"sessions and streams: {stored}")
    elif stored is not None and _is_folded(connection, fold, extent, found, stored, progress):
        with found.noted("projection", "projections", severity="derived"):
            for change in changes_between(connection, fold):
                what = "" if change.column is None else f" {change.column}"
                text = f"{change.projection} {change.key}{what} is {_shown(change.old)}, and by the"
                text += f" events {_shown(change.new)}"
                found.add("projection", change.projection, None, text, "derived")
    return tuple(unchecked)


def _stored(connection: apsw.Connection, fold: LifecycleFold, extent: Extent) -> Checkpoint | str:
    """Return how far the rows of the file have come, or why they are no rows to compare with."""
    if not have_our_shape(connection):
        return "their tables are those of another version"
    stored = stored_checkpoint(connection, fold, extent.last)
    if stored is None:
        return "they are not folded yet"
    if is_stale(stored, fold, extent):
        return "another version has folded them"
    if stored.since < beginning_of(connection, fold, extent).since:
        return f"they count events from position {stored.since} on, which are gone"
    return stored


def _is_folded(
    connection: apsw.Connection,
    fold: LifecycleFold,
    extent: Extent,
    found: Findings,
    stored: Checkpoint,
    progress: Progress | None,
) -> bool:
    """Fold the events up to a checkpoint into temporary tables; tell whether that was possible."""
    states: LifecycleStates | None = None
    with found.noted("projection", "projections", severity="derived"):
        begun = beginning_of(connection, fold, extent)
        if stored.since != begun.since:
            text = f"sessions and streams count from position {stored.since} on, and should from"
            text += f" {begun.since}"
            found.add("projection", "checkpoint", None, text, "derived")
            return False
        make_temporary(connection, fold.tables)
        if begun.schema == "base":
            copy_base(connection, fold, "temp")
        states = fold.states(connection, "temp", begun.position)
    while states is not None and states.position < stored.position:
        before = states.position
        with found.noted("unfoldable", "event", before + 1):
            fold_next(connection, states, extent, min(stored.position, before + _EVENTS_AT_ONCE))
            states.make_room()
        if states.position == before:
            return False
        if progress is not None:
            done = extent.event_count(0, states.position)
            progress(done, extent.event_count(0, extent.last))
    with found.noted("projection", "projections", severity="derived"):
        if states is not None:
            states.write()
            return True
    return False


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)[:100]
