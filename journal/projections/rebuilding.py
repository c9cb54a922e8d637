"""Folding beside the rows of the file: to take their place, or for who may not write to it."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

from journal import limits
from journal.errors import DamagedError, FoldError, PrunedError
from journal.file.connections import Database
from journal.file.extent import Extent, read_extent
from journal.file.lock_waits import BUSY_TIMEOUT_MS
from journal.projections.as_of import AsOf
from journal.projections.checkpoints import (
    Beginning,
    beginning_of,
    copy_base,
    is_stale,
    stored_checkpoint,
    write_checkpoints,
)
from journal.projections.differences import changes_between
from journal.projections.neighbourhood import Neighbourhood
from journal.projections.results import Change, RebuildReport
from journal.projections.tables import (
    AnyFold,
    Fold,
    States,
    StatesT_co,
    copy_rows,
    delete_rows,
    fold_next,
    have_our_shape,
    make_temporary,
)

Progress = Callable[[int, int], None]
"""Is told how many events are folded, and of how many."""

_EVENTS_AT_ONCE = 4_000
"""Fewer than where others wait: what ends meanwhile stays in memory, and had better fit a cache."""

_CHANGES_MAX = 1_000
_TEMP_KIB = 4 * 1024


def rebuild_one(
    database: Database,
    fold: AnyFold,
    progress: Progress | None = None,
    *,
    replace: bool = True,
    wait_ms: int = BUSY_TIMEOUT_MS,
) -> RebuildReport:
    """Fold everything into temporary tables, and put their rows in place of the file's.

    Only the end of it needs the write lock, and an interrupted rebuild leaves nothing behind. Where
    events are pruned before they are folded, it begins again, at the cut.

    Args:
        database: the file.
        fold: what is rebuilt.
        progress: is called with the number of events folded and of those there are.
        replace: False: only compare.
        wait_ms: how long to wait for the write lock.

    Raises:
        FoldError: an application's `apply` failed.
        JournalError: those of `Database.write`.
    """
    while True:
        try:
            return _rebuilt(database, fold, progress, replace=replace, wait_ms=wait_ms)
        except PrunedError:
            continue


def _rebuilt(
    database: Database, fold: AnyFold, progress: Progress | None, *, replace: bool, wait_ms: int
) -> RebuildReport:
    began = time.monotonic()
    with database.aside() as connection:
        states, begun = _begun_beside(database, connection, fold, goes_on=False)
        _fold_beside(database, connection, states, progress)
        with database.write(wait_ms, through=connection):
            extent = read_extent(connection)
            while states.position < extent.last:  # what was appended meanwhile
                end = min(states.position + limits.FOLD_EVENTS_MAX, extent.last)
                fold_next(connection, states, extent, end)
                states.make_room()
            states.write()
            if extent.cut > begun.position:
                _forget_beside(connection, fold, extent)
            changes, count = _compared(connection, fold)
            if replace:
                if changes is None or count:
                    _replace(connection, fold)
                write_checkpoints(connection, fold, extent.last, begun.since)
    if progress is not None:
        progress(extent.last, extent.last)
    return RebuildReport(
        projections=fold.names,
        event_count=extent.event_count(begun.position, extent.last),
        since=begun.since,
        seconds=time.monotonic() - began,
        change_count=count,
        changes=changes,
    )


@contextmanager
def folded_beside(
    database: Database,
    fold: Fold[StatesT_co],
    as_of: AsOf,
    progress: Progress | None,
    near: Neighbourhood | None = None,
) -> Iterator[tuple[apsw.Connection, StatesT_co]]:
    """Lend the states as of a moment, in temporary tables, and the connection that has them.

    For who may not write to the file: memory does not grow with it, and nothing of it is kept. As
    of now it goes on from where the rows of the file have come to. Use the connection inside
    `Database.inside`.

    Raises:
        FoldError: an application's `apply` failed.
        PrunedError: the events to begin with were pruned meanwhile.
        StorageFullError, StorageError: those of the temporary storage.
    """
    with database.aside_to_read() as connection:
        states, _ = _begun_beside(
            database, connection, fold, goes_on=as_of is None and near is None
        )
        _fold_beside(database, connection, states, progress, as_of, near)
        if progress is not None:
            progress(states.position, states.position)
        with database.inside():
            connection.execute("BEGIN")
            states.write()
            connection.execute("COMMIT")
        yield connection, states


def _begun_beside(
    database: Database, connection: apsw.Connection, fold: Fold[StatesT_co], *, goes_on: bool
) -> tuple[StatesT_co, Beginning]:
    """Return the states at the beginning, or those that the file has, in new temporary tables."""
    # Should it fail, the tables are gone, so there is nothing to roll back.
    with database.inside():
        connection.execute(f"PRAGMA temp.journal_mode = OFF; PRAGMA temp.cache_size = -{_TEMP_KIB}")
        make_temporary(connection, fold.tables)
        connection.execute("BEGIN")
        extent = read_extent(connection)
        begun = beginning_of(connection, fold, extent)
        stored = None
        if goes_on and have_our_shape(connection):
            stored = stored_checkpoint(connection, fold, extent.last)
        if stored is not None and not is_stale(stored, fold, extent):
            copy_rows(connection, fold)
            begun = Beginning(stored.position, stored.since, "temp")
        elif begun.schema == "base":
            copy_base(connection, fold, "temp")
        states = fold.states(connection, "temp", begun.position)
        connection.execute("COMMIT")
    return states, begun


def _fold_beside(
    database: Database,
    connection: apsw.Connection,
    states: States,
    progress: Progress | None = None,
    as_of: AsOf = None,
    near: Neighbourhood | None = None,
) -> None:
    """Fold what follows, up to the last event or to the moment, in short transactions."""
    last = as_of if isinstance(as_of, int) else None
    while True:
        with database.inside():
            connection.execute("BEGIN")
            extent = read_extent(connection)
            up_to = extent.last if last is None else min(last, extent.last)
            end = min(up_to, states.position + _EVENTS_AT_ONCE)
            fold_next(connection, states, extent, end, as_of, near)
            states.make_room()
            connection.execute("COMMIT")
        if states.position >= up_to:
            return
        if progress is not None:
            progress(states.position, up_to)


def _compared(connection: apsw.Connection, fold: AnyFold) -> tuple[tuple[Change, ...] | None, int]:
    """Return the first changes from the file's rows to the temporary ones, and how many.

    None: the file has no rows of this version of the fold, or none that can be read; in that case
    it is left as it is.
    """
    extent = read_extent(connection)
    try:
        stored = stored_checkpoint(connection, fold, extent.last)
        if stored is None or is_stale(stored, fold, extent):
            return None, 0
        with connection:  # a savepoint
            old = fold.states(connection, "main", stored.position)
            while old.position < extent.last:
                end = min(old.position + limits.FOLD_EVENTS_MAX, extent.last)
                fold_next(connection, old, extent, end)
                old.write()
            write_checkpoints(connection, fold, extent.last, stored.since)
            changes = changes_between(connection, fold)
            first = tuple(itertools.islice(changes, _CHANGES_MAX))
            count = len(first) + sum(1 for _ in changes)
    except (DamagedError, FoldError, UnicodeDecodeError):
        return None, 0
    return first, count


def _forget_beside(connection: apsw.Connection, fold: AnyFold, extent: Extent) -> None:
    """Delete from the temporary tables what a cut has deleted meanwhile from those of the file."""
    for table in fold.tables:
        if table == "projection_anomaly":
            sql = "DELETE FROM temp.projection_anomaly WHERE position <= ?"
            connection.execute(sql, (extent.cut,))
        elif fold.owner is None:
            key = table.removeprefix("projection_")
            sql = f"DELETE FROM temp.{table} WHERE {key} NOT IN (SELECT id FROM main.{key})"
            connection.execute(sql)


def _replace(connection: apsw.Connection, fold: AnyFold) -> None:
    """Put the temporary rows in place of those of the file."""
    delete_rows(connection, fold)
    for table in fold.tables:
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM temp.{table}")
