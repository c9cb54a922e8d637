"""Rewriting a merged journal: making it anew, with what waits in its place.

Events of one journal are never appended after later ones of it. So what comes too late is put in
by making another file, in the right order, and giving that the name. Positions mean other events
in it, so it is another journal: what the old one appended itself is of one of its origins.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from journal import errors
from journal.file.connections import Database, translated
from journal.file.identity import meta
from journal.file.opening import open_copy
from journal.file.paths import beside
from journal.file.process_locks import hold, let_go
from journal.maintenance.histories import (
    History,
    Interval,
    branches_of,
    histories_of,
    minus,
    own_id,
)
from journal.maintenance.keeping import Keys
from journal.maintenance.placement import Merging
from journal.maintenance.sources import Part, Report, Source, inspected, opened, stamp_of
from journal.maintenance.targets import check_target, put_in_place, work_folder

_WAIT_MS = 5_000


def rewrite(path: Path, sources: list[Source], report: Report) -> tuple[int, list[Part]]:
    """Make a merged journal anew out of itself and of sources, and put it in its place.

    Nobody else may have it open; the file gets its name when it is complete and on the disk.

    Returns:
        how many events it has more than before, and the parts of the sources.

    Raises:
        BusyError: somebody has it open, or wrote to it meanwhile. Nothing was changed.
        PrunedFleetError: of what was pruned from it, the sources lack something. The same.
        StorageFullError, AccessDeniedError, StorageError: the new file cannot be made.
        DamagedError: the merged journal is.
    """
    if os.path.lexists(beside(path, "-wal")):
        raise _in_use(path)
    target = check_target(path, force=True)
    # All of each, also what the merged journal has: its place may be taken from either.
    old, *others = (
        inspected(file, lambda _key, _block: False, report)
        for file in (path, *(source.path for source in sources))
    )
    with work_folder(target) as folder:
        made = folder / "merged"
        with translated(target):
            into = Database(made, read_only=False, durability="normal")
            try:
                merging = Merging(into, [old, *others], report.take, old=path)
                merging.run()
                with opened(path) as before:
                    _check_nothing_is_lost(path, before, into)
                    _take_over(before, into)
            finally:
                into.close()
            _close_for_moving(made)
        made.chmod(path.stat().st_mode & 0o777)
        _put_in_its_place(made, target, old.stamp)
    added_count = merging.added_count - old.event_count
    return added_count, [part for source in others for part in source.parts]


def _check_nothing_is_lost(path: Path, before: apsw.Connection, into: Database) -> None:
    """Make sure that all events are back whose states, versions and counts pruning has kept.

    Raises:
        PrunedFleetError: some are not.
    """
    lost = []
    with into.read() as connection:
        for old in histories_of(before):
            gone = minus(old.known(), old.held())
            lost_before = [Interval(*gap[:2]) for gap in old.declared() if gap.reason != "pruned"]
            held = _held_as_before(connection, old) if gone else ()
            if missing := minus(gone, sorted((*held, *lost_before))):
                ranges = ", ".join(f"{first} to {last}" for first, last in missing)
                lost.append(f"{ranges} of {old.label() or old.key[0]}")
    if lost:
        reason = "was pruned, and was not made anew: the states, versions and counts that pruning "
        reason += f"kept would be lost. No source has, unredacted, positions {'; '.join(lost)}"
        raise errors.PrunedFleetError(path, reason)


def _held_as_before(connection: apsw.Connection, old: History) -> Iterator[Interval]:
    """Yield at which positions of a history there are its events again, and not redacted since."""
    for new in branches_of(connection, old.key[0]):
        same_up_to = _same_up_to(new, old)
        for branch, end in new.line():
            up_to = min(end, same_up_to)
            redacted = [
                Interval(block.first, block.last)
                for block in branch.blocks()
                if block.salt is None and not _was_redacted(old, block.first)
            ]
            for first, last in minus(branch.held(), redacted):
                if first <= up_to:
                    yield Interval(first, min(last, up_to))


def _same_up_to(new: History, old: History) -> int:
    """Return up to where a branch is the same as another one, which may have no events left.

    Where no digest tells, it is if it has the same name.
    """
    up_to = min(new.last, old.last)
    digests = new.digest_at(up_to), old.digest_at(up_to)
    is_same = new.key == old.key if None in digests else digests[0] == digests[1]
    return up_to if is_same else 0


def _was_redacted(history: History, first: int) -> bool:
    block = history.block_at(first)
    return block is not None and block.first == first and block.salt is None


def _take_over(before: apsw.Connection, into: Database) -> None:
    """Have the new journal called as the old one, and its idempotency keys answer as before."""
    label = meta(before, "label")
    if label is not None:
        into.set_label(label)
    key = own_id(before), ""
    keys = Keys(History(before, key), 0)
    with into.write() as connection:
        history = History(connection, key)
        for name, first, last, digest, used_at in keys.up_to(2**63 - 1):
            positions: tuple[Any, ...] = (None, None)
            if first is not None and last is not None:
                positions = _moved(history, first), _moved(history, last)
                if None in positions:  # what it stands for was pruned
                    continue
            connection.execute(
                "INSERT INTO append_key (key, first_seq, last_seq, digest, used_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (name, *positions, digest, used_at),
            )


def _moved(history: History, position: int) -> int | None:
    """Return the position in the file of one in the history."""
    run = next(history.runs(position), None)
    return None if run is None or run.first > position else position + run.offset


def _close_for_moving(made: Path) -> None:
    """Have a header that asks for no -wal, so that who reads the file makes none at once."""
    connection = open_copy(made)
    try:
        connection.pragma("journal_mode", "delete")
    finally:
        connection.close()


def _in_use(path: Path) -> errors.BusyError:
    reason = "is in use, and was not made anew: close it everywhere, and merge again"
    return errors.BusyError(path, reason)


def _put_in_its_place(made: Path, target: Path, stamp: tuple[int, int]) -> None:
    """Replace a journal that nobody has open, and nobody wrote to since.

    Raises:
        BusyError: somebody has, or did.
    """
    user = object()
    holding = hold(target, user, read_only=False)
    try:
        with holding.writing(_WAIT_MS, target):
            if holding.is_in_use() or stamp_of(target) != stamp:
                raise _in_use(target)
            if os.name == "nt":  # which replaces no file that is open
                let_go(holding, user)
            put_in_place(made, target, force=True)
    finally:
        let_go(holding, user)
