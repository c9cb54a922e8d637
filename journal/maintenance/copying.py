"""Copying one moment of a file that is in use: what it has committed, in a file of its own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from journal import errors
from journal.file.connections import Database, translated
from journal.file.identity import FORMAT_VERSION
from journal.file.opening import overwrite_deleted
from journal.maintenance.targets import check_room

_LOOK_SECONDS = 0.1
_STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's machine: some hundredths of a second

_OF_THE_COPY = (apsw.FullError, apsw.CantOpenError, apsw.ReadOnlyError)
_WRITING_FAILED = (
    apsw.SQLITE_IOERR_WRITE,
    apsw.SQLITE_IOERR_TRUNCATE,
    apsw.SQLITE_IOERR_FSYNC,
    apsw.SQLITE_IOERR_DELETE,
)


def copy_moment(
    database: Database, copy: Path, target: Path, progress: Callable[[float], None]
) -> None:
    """Write one moment of a file into a new one, without free pages and without a -wal.

    It is one statement, however long it takes. Until it ends, the -wal of the file cannot begin
    anew; and a fork waits for it, after two seconds in vain: then its child is refused.

    Args:
        database: the file.
        copy: the new one.
        target: what that is to become, for what is said where it cannot be written.
        progress: is called with how much is done, from 0.0 to 1.0.

    Raises:
        NewerFormatError, NotAJournalError: this version cannot write its format.
        StorageFullError, AccessDeniedError, StorageError: of either file.
        DamagedError: the file is.
    """
    with database.aside_to_read() as connection, database.inside():
        check_format(connection, database.path)
        pages = connection.pragma("page_count") - connection.pragma("freelist_count")
        size_bytes = pages * connection.pragma("page_size")
        check_room(target, size_bytes)
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)  # inside SQLite, the copy is attached
        look = _Look(copy, size_bytes, progress)
        connection.set_progress_handler(look.now_and_then, _STEPS_BETWEEN_LOOKS)
        with told_of_the_copy(target):
            overwrite_deleted(connection)  # also in the copy
            connection.execute("VACUUM INTO ?", (str(copy),))


@contextmanager
def told_of_the_copy(target: Path) -> Iterator[None]:
    """Say of a target what fails in making it, and leave the rest for the file that is copied."""
    try:
        yield
    except apsw.Error as error:
        if _is_of_the_copy(error):
            with translated(target):
                raise
        raise


def check_format(connection: apsw.Connection, path: Path) -> None:
    """Make sure that this version can write the format of a file.

    Raises:
        NewerFormatError, NotAJournalError: it cannot.
    """
    found = connection.pragma("user_version")
    if found > FORMAT_VERSION:
        raise errors.NewerFormatError(path, expected=FORMAT_VERSION, found=found)
    if found < FORMAT_VERSION:
        raise errors.NotAJournalError(path, f"has format {found}, which was never released")


def _is_of_the_copy(error: Any) -> bool:
    if isinstance(error, _OF_THE_COPY):
        return True
    return error.extendedresult in _WRITING_FAILED


class _Look:
    """Looks at how far a copy has come."""

    def __init__(self, copy: Path, size_bytes: int, progress: Callable[[float], None]) -> None:
        self._copy = copy
        self._size_bytes = size_bytes
        self._progress = progress
        self._next = time.monotonic() + _LOOK_SECONDS

    def now_and_then(self) -> bool:
        """Report it, if it is time to; SQLite goes on. Python sees signals here, too."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LOOK_SECONDS
            with suppress(OSError):
                done = self._copy.stat().st_size / max(1, self._size_bytes)
                self._progress(min(1.0, done))
        return False
