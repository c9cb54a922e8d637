"""Opening a journal to look at its projections, and storing what is folded for that."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import journal
from journal.commands.console.progress import folding_shown
from journal.errors import JournalError

if TYPE_CHECKING:
    from journal import Journal, Timestamp

_WORTH_STORING = 10_000
"""As many events take some hundredths of a second to fold."""


@contextmanager
def looking_at(
    path: Path, as_of: "int | Timestamp | None", *, read_only: bool
) -> "Iterator[Journal]":
    """Lend a journal that is open for reading only; show what it folds before it can answer.

    If that is much, it is stored first, so that the next look is quick: where the file is the
    caller's own, may be written, and would not be migrated by it, and without `read_only`.
    """
    with journal.Journal.open(path, read_only=True) as opened, folding_shown(opened):
        if as_of is None and not read_only and _is_own(path) and _is_worth_storing(opened):
            with suppress(JournalError):  # as a copy that is closed; then it is folded beside
                _store(path)
        yield opened


def _is_own(path: Path) -> bool:
    try:
        owner = path.stat().st_uid
    except OSError:
        return False
    return os.access(path, os.W_OK) and (not hasattr(os, "geteuid") or owner == os.geteuid())


def _is_worth_storing(opened: "Journal") -> bool:
    if opened.is_older_format:
        return False
    last = opened.last_position
    missing = [
        last if projection.stale else projection.lag
        for projection in opened.projections()
        if projection.name == "sessions"
    ]
    return max(missing, default=last) > _WORTH_STORING


def _store(path: Path) -> None:
    with journal.Journal.open(path) as writer, folding_shown(writer):
        next(writer.iter_sessions(limit=1), None)
