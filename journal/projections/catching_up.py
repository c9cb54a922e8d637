"""Catching up: folding what is new into the tables of the file, when somebody reads them."""

from contextlib import suppress

import apsw

from journal import limits
from journal.errors import PathOSError
from journal.file import forking
from journal.file.checkpoints import Checkpoint
from journal.file.connections import Database
from journal.file.extent import Extent, read_extent
from journal.file.lock_waits import BUSY_TIMEOUT_MS
from journal.projections.checkpoints import (
    beginning_of,
    copy_base,
    is_stale,
    stored_checkpoint,
    write_checkpoints,
)
from journal.projections.rebuilding import Progress, rebuild_one
from journal.projections.tables import (
    AnyFold,
    States,
    delete_rows,
    fold_next,
    have_our_shape,
    make_tables,
)

WAIT_MS = 250
"""How long to wait for the write lock; after that the rest is folded beside."""


def prepare_tables(database: Database) -> None:
    """Make the tables where they are missing or have another shape than this version's."""
    with database.undisturbed() as connection:
        if have_our_shape(connection):
            return
    with database.write() as connection:
        if not have_our_shape(connection):
            make_tables(connection, keep_own=True)


def catch_up(database: Database, fold: AnyFold, progress: Progress | None = None) -> None:
    """Fold what is new, in transactions of their own, as far as others and the disk let us."""
    extent, stored = _progress(database, fold)
    with suppress(PathOSError):  # then whoever reads folds the rest beside
        if stored is not None and is_stale(stored, fold, extent):
            rebuild_one(database, fold, progress, wait_ms=WAIT_MS)
        elif stored is None or stored.position < extent.last:
            _fold_live(database, fold, extent.last, progress)


def catch_up_stored(database: Database, fold: AnyFold) -> None:
    """Catch up where there are rows of this version."""
    extent, stored = _progress(database, fold)
    if stored is not None and not is_stale(stored, fold, extent):
        catch_up(database, fold)


def catch_up_where_quick(database: Database, fold: AnyFold) -> None:
    """Catch up if there is no more to fold than what one transaction takes."""
    extent, stored = _progress(database, fold)
    missing = extent.event_count(0 if stored is None else stored.position, extent.last)
    is_usable = stored is None or not is_stale(stored, fold, extent)
    if is_usable and 0 < missing <= limits.FOLD_EVENTS_MAX:
        catch_up(database, fold)


def bring_up(
    database: Database,
    fold: AnyFold,
    up_to: int,
    *,
    wait_ms: int = BUSY_TIMEOUT_MS,
    events_max: int | None = None,
    behind_max: int = 0,
) -> bool:
    """Fold up to a position at least, into rows of this version.

    Args:
        database: the file.
        fold: the projection.
        up_to: the position.
        wait_ms: how long to wait for the write lock.
        events_max: how many events to fold at most; None: any number.
        behind_max: how many events before the position are near enough.

    Returns:
        whether it has come so far, or near enough; with `events_max` whether it had before.

    Raises:
        FoldError, DamagedError: an event cannot be folded.
        JournalError: those of `Database.write`.
    """
    extent, stored = _progress(database, fold)
    position = extent.cut if stored is None else stored.position
    end = up_to if events_max is None else min(up_to, position + events_max)
    is_near = position >= up_to - behind_max
    if stored is None or not is_near:
        _fold_live(database, fold, end, None, wait_ms)
    return events_max is None or is_near


def begin_anew(database: Database, fold: AnyFold, wait_ms: int) -> None:
    """Delete the rows that another version made, or that were left behind; `bring_up` goes on.

    Raises:
        JournalError: those of `Database.write`.
    """
    with database.write(wait_ms) as connection:
        extent = read_extent(connection)
        stored = stored_checkpoint(connection, fold, extent.last)
        if stored is not None and is_stale(stored, fold, extent):
            _begin(connection, fold, extent)


def is_of_another_version(database: Database, fold: AnyFold) -> bool:
    """Tell whether another version of the fold made the rows of the file, or it was left behind."""
    extent, stored = _progress(database, fold)
    return stored is not None and is_stale(stored, fold, extent)


def has_begun(database: Database, fold: AnyFold) -> bool:
    """Tell whether the file has rows of this version."""
    extent, stored = _progress(database, fold)
    return stored is not None and not is_stale(stored, fold, extent)


def bring_up_here(connection: apsw.Connection, fold: AnyFold, extent: Extent, up_to: int) -> bool:
    """Do what `bring_up` does in a transaction for writing, for the few events that are left.

    Returns:
        whether it has come so far; not so if there are no rows of this version.
    """
    stored = stored_checkpoint(connection, fold, extent.last)
    if stored is None or is_stale(stored, fold, extent):
        return False
    if stored.position < up_to:
        states = fold.states(connection, "main", stored.position)
        while states.position < up_to:
            fold_next(connection, states, extent, up_to)
            states.write()
        write_checkpoints(connection, fold, up_to, stored.since)
    return True


def _progress(database: Database, fold: AnyFold) -> tuple[Extent, Checkpoint | None]:
    """Return how far the file goes, and how far the rows of a projection."""
    with database.read() as connection:
        extent = read_extent(connection)
        return extent, stored_checkpoint(connection, fold, extent.last)


def _fold_live(
    database: Database,
    fold: AnyFold,
    up_to: int,
    progress: Progress | None,
    wait_ms: int = WAIT_MS,
) -> None:
    """Fold the rows of the file up to a position, in several transactions.

    Whoever comes at the same time goes on where the other has come to.
    """
    states: States | None = None
    position = -1
    while position < up_to:
        with database.write(wait_ms) as connection:
            extent = read_extent(connection)
            stored = stored_checkpoint(connection, fold, extent.last)
            if stored is None:
                stored = _begin(connection, fold, extent)
            if is_stale(stored, fold, extent) or stored.position >= up_to:
                return  # somebody else was faster
            if states is None or states.position != stored.position:
                states = fold.states(connection, "main", stored.position)
            end = min(states.position + limits.FOLD_EVENTS_MAX, up_to)
            fold_next(connection, states, extent, end)
            states.write()
            position = states.position
            write_checkpoints(connection, fold, position, stored.since)
        if progress is not None:
            progress(position, up_to)


def _begin(connection: apsw.Connection, fold: AnyFold, extent: Extent) -> Checkpoint:
    """Begin at the first event, with no rows, or with those of a cut."""
    delete_rows(connection, fold)
    begun = beginning_of(connection, fold, extent)
    if begun.schema == "base":
        copy_base(connection, fold, "main")
    write_checkpoints(connection, fold, begun.position, begun.since)
    return Checkpoint(fold.version, begun.position, begun.since)


def catch_up_copy(
    connection: apsw.Connection, fold: AnyFold, progress: Progress | None = None
) -> None:
    """Fold what is new in a file that nobody else has, into tables that are there."""
    extent = read_extent(connection)
    stored = stored_checkpoint(connection, fold, extent.last)
    if stored is None or is_stale(stored, fold, extent):
        stored = _begin(connection, fold, extent)
    states = fold.states(connection, "main", stored.position)
    while states.position < extent.last:
        with forking.inside_sqlite(), connection:
            end = min(states.position + limits.FOLD_EVENTS_MAX, extent.last)
            fold_next(connection, states, extent, end)
            states.write()
            write_checkpoints(connection, fold, states.position, stored.since)
        if progress is not None:
            progress(states.position, extent.last)
