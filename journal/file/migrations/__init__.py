"""Bringing the file of an older format to the present one.

Each step is a numbered file of SQL beside this module, `0001.sql` from format 0 to format 1 and so
on, and stays as it was when it was released. A file that went through all the steps is the same as
a new one: a test holds it so, and one frozen file of every earlier format is opened, migrated and
appended to in the tests. Format 1 is the first that was released, so there are no steps yet.

Older formats are migrated by opening them for writing, and only then: in one transaction, after a
copy of the whole file was made beside it.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw

from journal import errors
from journal.file.identity import FORMAT_VERSION
from journal.file.paths import beside, resolved
from journal.file.syncing import sync

STEPS: dict[int, Callable[[], str]] = {}
"""What returns the statements from each earlier format to the one after it."""


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the file to the present format, unless it is in it already.

    Raises:
        NotAJournalError: there is no way from its format to this one.
        StorageError: the copy could not be made; the file is as it was.
    """
    if connection.pragma("user_version") == FORMAT_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.pragma("user_version")  # another process may have been faster
        if found < FORMAT_VERSION:
            _check_known(path, found)
            _copy(path, found)
            _migrate(connection, found)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_known(path: Path, found: int) -> None:
    if found not in STEPS:
        raise errors.NotAJournalError(path, f"has format {found}, which was never released")


def _migrate(connection: apsw.Connection, found: int) -> None:
    for version in range(found, FORMAT_VERSION):
        connection.execute(STEPS[version]())
    connection.pragma("user_version", FORMAT_VERSION)


def _copy(path: Path, version: int) -> None:
    """Make a copy of the file as it is, to go back to: NAME.format-0 beside it.

    The write lock is held, so nothing is added meanwhile. VACUUM INTO takes what the -wal holds.
    """
    target = beside(resolved(path), f".format-{version}")
    unfinished = beside(target, ".part")
    try:
        unfinished.unlink(missing_ok=True)
        source = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            source.execute("VACUUM INTO ?", (str(unfinished),))
        finally:
            source.close()
        with unfinished.open("rb+") as file:
            sync(file.fileno())
        unfinished.replace(target)
    except (OSError, apsw.Error) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        reason = f"could not be copied before migrating, to {target.name}: {error}"
        raise errors.StorageError(path, reason) from error
