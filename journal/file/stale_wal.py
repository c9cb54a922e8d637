"""Telling a -wal that was left beside a file from one that was written for it.

SQLite applies whatever -wal lies beside a file, also to a backup that was put back there. So the
first transaction in a -wal writes to `meta` a `wal_id` of its own, and as `wal_follows` the one of
the -wal before, all of which is in the file by then (`wal.mark_wal`). So the file alone has one of
the two, or another file or another state of it was put there.
"""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from journal.errors import DamagedError, JournalError, NotADatabaseError, StaleWalError
from journal.file.identity import meta
from journal.file.opening import open_reader
from journal.file.paths import beside, resolved, uri_of


class _State(NamedTuple):
    journal_id: str | None
    wal_id: str | None
    wal_follows: str | None


def has_wal(path: Path) -> bool:
    """Tell whether there is a -wal beside a file, with something in it."""
    try:
        return beside(resolved(path), "-wal").stat().st_size > 0
    except OSError:
        return False


def check_wal(path: Path, target: str) -> None:
    """Refuse a -wal that was not written for the file beside it.

    Args:
        path: the file, which nobody has open: a look at it alone takes no locks, but drops those of
            others in this process.
        target: what SQLite opens to read it with its -wal.

    Raises:
        StaleWalError: it was written for another file, or for another state of this one.
    """
    try:
        file = _state(uri_of(resolved(path), mode="ro", immutable=1), path)
    except (apsw.Error, JournalError):
        return  # a checkpoint was cut short, and only with the -wal the file is whole
    try:
        both = _state(target, path)
    except (apsw.CorruptError, apsw.NotADBError, DamagedError, NotADatabaseError) as error:
        raise StaleWalError(path, "makes it unreadable") from error
    if both.journal_id != file.journal_id:
        raise StaleWalError(path, f"is of another journal, {both.journal_id}")
    if file.wal_id not in (both.wal_id, both.wal_follows):
        raise StaleWalError(path, "was written for another state of it")


def _state(target: str, path: Path) -> _State:
    with closing(open_reader(target, path)) as connection:
        return _State(*(meta(connection, key) for key in _State._fields))
