"""Opening a journal file: what is there, is it ours, and making a new one.

After `open_connection` a connection is to a journal of a format that this version can use, with
its settings applied. What is in the tables is for the modules that read and write them.
"""

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal
from uuid import uuid4

import apsw
from pydantic_core import to_json

from journal import errors
from journal._resources import text_of
from journal._version import VERSION
from journal.events.kinds import KINDS
from journal.events.timestamps import text_from_epoch_ns

Durability = Literal["full", "normal"]
"""What an append waits for.

"full": the disk has it, so it survives a power cut. "normal": the operating system has it, so it
survives a crash of the program; a power cut may lose the latest appends, each as a whole.
"""

APPLICATION_ID = 0x504A534A
FORMAT_VERSION = 1

BUSY_TIMEOUT_MS = 60_000
"""How long a connection waits for a lock; other writers hold it for milliseconds."""

_WAIT_MS_MAX = 25
"""How long it waits until it tries again: a millisecond at first, then ever longer."""

# The heads of sessions and streams are updated all over their tables, so their pages should stay in
# memory: 2 MB, the default, holds those of some twenty thousand.
_CACHE_KIB = 16 * 1024

# A checkpoint copies each changed page once, however often it changed since the one before. It goes
# no further than the oldest reader allows, and the -wal can begin anew only when nobody reads from
# it: where readers come one upon the other, that has to be waited for, once for so many pages.
_CHECKPOINT_PAGES = 4_000
_TOO_MANY_PAGES = 4 * _CHECKPOINT_PAGES
_WAIT_FOR_READERS_SECONDS = 1.0
_WAL_BYTES_KEPT = 16 * 1024 * 1024

# `Database` lends a connection to one thread at a time, so SQLite need not lock it in every call.
# Without that a row is read in three quarters of the time.
_UNSHARED = apsw.SQLITE_OPEN_NOMUTEX

_SAFE_SINCE = (3, 51, 3)
_SAFE_BACKPORTS = {(3, 44): 6, (3, 50): 7}


def check_sqlite(version: str) -> None:
    """Refuse an SQLite with the WAL-reset bug.

    Raises:
        UnsafeSQLiteError: it is older than 3.51.3 and not one of the corrected 3.44 and 3.50.

    Source: sqlite.org/wal.html#walresetbug.
    """
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    backport = _SAFE_BACKPORTS.get((major, minor))
    if (major, minor, patch) < _SAFE_SINCE and (backport is None or patch < backport):
        raise errors.UnsafeSQLiteError(version)


def open_writer(path: Path, durability: Durability, *, create: bool = True) -> apsw.Connection:
    """Return a connection that can write, to a new journal if there is no file and `create` is set.

    Raises:
        JournalError: one of those listed under "opening" in `errors`, or apsw.Error.
    """
    if create:
        _create_file(path)
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | _UNSHARED)
    try:
        # Until it is known to be ours, closing it must leave its -wal as it is.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        _check_writable(connection, path)
        wait_for_locks(connection, BUSY_TIMEOUT_MS)
        if _is_blank(connection):
            _create_journal(connection)
        _check_identity(connection, path)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        _use_wal(connection, path)
        connection.execute(
            f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'};"
            f"PRAGMA cache_size = -{_CACHE_KIB};"
            "PRAGMA trusted_schema = OFF"
        )
        connection.pragma("journal_size_limit", _WAL_BYTES_KEPT)
        connection.set_wal_hook(_checkpointer())
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(target: str, path: Path) -> apsw.Connection:
    """Return a connection that only reads the journal at `path`, through `target`.

    Raises:
        JournalError: one of those listed under "opening" in `errors`, or apsw.Error.
    """
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | _UNSHARED
    connection = apsw.Connection(target, flags=flags)
    try:
        wait_for_locks(connection, BUSY_TIMEOUT_MS)
        _check_identity(connection, path)
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def read_only_target(path: Path) -> tuple[str, Path | None]:
    """Return what SQLite is to open so as to read everything committed and write nothing.

    Where the folder can be written, that is the file itself: SQLite may keep -wal and -shm beside
    it, which is how other processes are told of a reader. Where it cannot, a -wal without -shm has
    to be copied away with its file, because SQLite must build the -shm anew to see what is in it.

    Returns:
        a file name or URI, and the folder of the copy to be removed afterwards, or None.

    Raises:
        JournalNotFoundError, PathIsDirectoryError, AccessDeniedError: what is at `path`.
    """
    _check_readable(path)
    path = resolved(path)
    uri = path.as_uri()
    wal, shm = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    if os.access(path.parent, os.W_OK) or (wal.exists() and shm.exists()):
        return f"{uri}?mode=ro", None
    if not wal.exists():
        return f"{uri}?mode=ro&immutable=1", None
    folder = Path(tempfile.mkdtemp(prefix="journal-"))
    try:
        shutil.copyfile(path, folder / path.name)
        shutil.copyfile(wal, folder / wal.name)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise errors.StorageError(path, f"cannot be copied for reading: {error}") from error
    return f"{(folder / path.name).as_uri()}?mode=ro", folder


def resolved(path: Path) -> Path:
    """Return the file that a path leads to: -wal and -shm are beside that, not beside a link."""
    return Path(os.path.realpath(path))


def _check_readable(path: Path) -> None:
    # Without opening it: closing it again would drop this process's locks on it (POSIX), those of
    # another Journal included.
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.JournalNotFoundError(path, "does not exist") from error
    except PermissionError as error:
        raise errors.AccessDeniedError(path, "cannot be read: permission denied") from error
    except OSError as error:
        raise errors.StorageError(path, f"cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise errors.PathIsDirectoryError(path, "is a directory, not a journal")
    if not stat.S_ISREG(mode):
        raise errors.NotADatabaseError(path, "is not a regular file")
    if not os.access(path, os.R_OK):
        raise errors.AccessDeniedError(path, "cannot be read: permission denied")


def _create_file(path: Path) -> None:
    """Make an empty file that only its owner may use; SQLite gives -wal and -shm the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        _check_readable(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.JournalNotFoundError(path, "its folder does not exist") from error
    except PermissionError as error:
        if os.name == "nt" and path.is_dir():
            raise errors.PathIsDirectoryError(path, "is a directory, not a journal") from error
        raise errors.AccessDeniedError(path, "cannot be created: permission denied") from error
    except OSError as error:
        if error.errno == errno.EROFS and os.path.lexists(path):
            raise errors.AccessDeniedError(path, "cannot be written: read-only media") from error
        raise errors.StorageError(path, f"cannot be created: {error.strerror}") from error


def _check_writable(connection: apsw.Connection, path: Path) -> None:
    if connection.readonly("main"):  # SQLite falls back to reading without a word
        raise errors.AccessDeniedError(path, "cannot be written: permission denied")
    beside = resolved(path)
    for companion in (beside.with_name(beside.name + suffix) for suffix in ("-wal", "-shm")):
        if companion.exists():
            reason = f"{companion.name} beside it belongs to somebody else"
            needed = companion
        else:
            reason = f"SQLite has to make {companion.name} in its folder"
            needed = companion.parent
        if not os.access(needed, os.W_OK):
            raise errors.AccessDeniedError(path, f"cannot be written, {reason}: permission denied")


def _is_blank(connection: apsw.Connection) -> bool:
    """Tell whether there is nothing at all in the file, neither of ours nor of anybody's."""
    return not (
        connection.pragma("application_id")
        or connection.pragma("user_version")
        or connection.execute("SELECT count(*) FROM sqlite_schema").get
    )


def _create_journal(connection: apsw.Connection) -> None:
    """Write the schema, in one transaction, unless another process does so first."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA page_size = 4096")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_blank(connection):
            connection.execute(text_of("journal.file", "schema.sql"))
            connection.executemany(
                "INSERT INTO kind (code, name, fields) VALUES (?, ?, ?)",
                [
                    (kind.code, kind.name, to_json(kind.fields).decode() if kind.fields else None)
                    for kind in KINDS.values()
                ],
            )
            connection.executemany(
                "INSERT INTO meta (key, value) VALUES (?, ?)",
                [
                    ("journal_id", str(uuid4())),
                    ("created_at", text_from_epoch_ns(time.time_ns())),
                    ("library_version", VERSION),
                    ("min_reader_version", str(FORMAT_VERSION)),
                ],
            )
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", FORMAT_VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_identity(connection: apsw.Connection, path: Path) -> None:
    if connection.pragma("application_id") != APPLICATION_ID:
        reason = "is an SQLite database, but not a journal"
        if connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
            reason = "is empty, not a journal"
        raise errors.NotAJournalError(path, reason)
    check_format(connection, path)


def check_format(connection: apsw.Connection, path: Path) -> None:
    """Refuse a format that this version cannot write or, on a reading connection, cannot read.

    Raises:
        NewerFormatError: the file is of a newer format.
    """
    found = connection.pragma("user_version")
    if found <= FORMAT_VERSION:
        return
    needed = connection.execute("SELECT value FROM meta WHERE key = 'min_reader_version'").get
    readable = [str(version) for version in range(1, FORMAT_VERSION + 1)]
    if not (connection.readonly("main") and needed in readable):
        raise errors.NewerFormatError(path, expected=FORMAT_VERSION, found=found)


def wait_for_locks(connection: apsw.Connection, timeout_ms: int) -> None:
    """Have a connection wait at most so long for locks that others hold.

    Not by SQLite's own busy timeout, which would sleep through an interrupt (Ctrl-C).
    """
    deadline = 0.0

    def wait(attempts: int) -> bool:
        nonlocal deadline
        if attempts == 0:
            deadline = time.monotonic() + timeout_ms / 1000
        time.sleep(min(attempts + 1, _WAIT_MS_MAX) / 1000)
        return time.monotonic() < deadline

    connection.set_busy_handler(wait if timeout_ms else None)


def _checkpointer() -> Callable[[apsw.Connection, str, int], int]:
    """Return what brings the -wal into the file when it has grown long; called after each commit.

    The commit has succeeded, so nothing here may make it look as if it had not: a checkpoint that
    fails is made up for by the next one.
    """
    waited_at_pages = 0

    def checkpoint(connection: apsw.Connection, _database: str, pages: int) -> int:
        nonlocal waited_at_pages
        if pages < waited_at_pages:  # the -wal has begun anew
            waited_at_pages = 0
        with suppress(apsw.Error):
            if pages >= waited_at_pages + _TOO_MANY_PAGES:
                waited_at_pages = pages
                _checkpoint_all(connection)
            elif pages >= _CHECKPOINT_PAGES:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return apsw.SQLITE_OK

    return checkpoint


def _checkpoint_all(connection: apsw.Connection) -> None:
    """Bring all of the -wal into the file, so that it begins anew, if readers soon let us.

    SQLite's own waiting is of no use here: it waits for the place that the oldest reader has taken
    in the -wal, and the next reader takes the same place before it looks again. A new attempt,
    however, sees that this one is not in the way.
    """
    deadline = time.monotonic() + _WAIT_FOR_READERS_SECONDS
    wait_for_locks(connection, 0)
    try:
        while True:
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            except apsw.BusyError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.005)
            else:
                return
    finally:
        wait_for_locks(connection, BUSY_TIMEOUT_MS)


def _use_wal(connection: apsw.Connection, path: Path) -> None:
    """Switch a new file to WAL. The busy timeout does not cover this, so wait here for others."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            mode = connection.pragma("journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise errors.StorageError(path, f"is on a file system without WAL (mode {mode!r})")
        return
