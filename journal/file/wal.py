"""The -wal: switching a file to it, naming each one, and bringing what it holds into the file."""

import os
import secrets
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw

from journal import errors
from journal.file.lock_waits import BUSY_TIMEOUT_MS, wait_for_locks
from journal.file.paths import beside

# A commit that makes the -wal longer costs the disk more than one that overwrites what was there,
# so it should begin anew early (one event each, durability full: 288 us while it grows, 164 us with
# a checkpoint at 1,000 pages, 208 us at 4,000). But a checkpoint copies each changed page once,
# however often it changed since the one before: where commits change many pages, as those of many
# sessions do, that is worth a longer one.
_CHECKPOINT_PAGES = 1_000
_LARGE_COMMIT_PAGES = 50
_LONGER = 4

# A checkpoint goes no further than the oldest reader allows, and the -wal can begin anew only when
# nobody reads from it: where readers follow each other without a pause, that has to be waited for,
# once for so many pages.
_TOO_MANY_PAGES = 16_000
_WAIT_FOR_READERS_SECONDS = 1.0
WAL_BYTES_KEPT = 16 * 1024 * 1024

_WAL_ID_BYTES = 8


def use_wal(connection: apsw.Connection, path: Path) -> None:
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


def checkpointer(*, may: Callable[[], bool]) -> Callable[[apsw.Connection, str, int], int]:
    """Return what brings the -wal into the file when it has grown long; called after each commit.

    The commit has succeeded, so nothing here may make it look as if it had not: a checkpoint that
    fails is made up for by the next one.

    Args:
        may: looks whether file and -wal still belong together. It is asked before and after each,
            so that it can tell what a checkpoint wrote from what others write.
    """
    waited_at_pages = pages_before = 0

    def checkpoint(connection: apsw.Connection, _database: str, pages: int) -> int:
        nonlocal waited_at_pages, pages_before
        if pages < pages_before:  # the -wal has begun anew
            waited_at_pages = pages_before = 0
        is_large = pages - pages_before > _LARGE_COMMIT_PAGES
        pages_before = pages
        if pages < _CHECKPOINT_PAGES * (_LONGER if is_large else 1) or not may():
            return apsw.SQLITE_OK
        with suppress(apsw.Error):
            if pages >= waited_at_pages + _TOO_MANY_PAGES:
                waited_at_pages = pages
                _checkpoint_all(connection)
            else:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        may()
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


def mark_wal(connection: apsw.Connection) -> None:
    """Write what tells a -wal that begins with this transaction from every other one."""
    connection.execute(
        "INSERT OR REPLACE INTO meta (key, value)"
        " SELECT 'wal_follows', value FROM meta WHERE key = 'wal_id'"
    )
    connection.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES ('wal_id', ?)",
        (secrets.token_hex(_WAL_ID_BYTES),),
    )


def settle(writer: apsw.Connection, path: Path) -> None:
    """Make what others left in the -wal last, before anything is acknowledged on top of it.

    A process that died between writing and syncing, or whose sync failed, left frames there that a
    power cut may still take. Where somebody reads from the -wal, it is synced, and a commit of our
    own decides about what a commit that failed has left behind the last one that counts.
    """
    wal = beside(path, "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return
    wait_for_locks(writer, 0)
    try:
        writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        sync_wal(path)
        wait_for_locks(writer, BUSY_TIMEOUT_MS)
        writer.execute("BEGIN IMMEDIATE; UPDATE meta SET value = value WHERE key = 'journal_id'")
        writer.execute("COMMIT")
    finally:
        wait_for_locks(writer, BUSY_TIMEOUT_MS)


def sync_wal(path: Path) -> None:
    """Have the disk take the -wal, through a descriptor of our own: SQLite has no lock on it."""
    with suppress(FileNotFoundError):
        descriptor = os.open(beside(path, "-wal"), os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def leave_wal(writer: apsw.Connection) -> None:
    """Have a connection close without touching the file or the -wal."""
    writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def fold_wal(writer: apsw.Connection) -> None:
    """Bring what the -wal holds into the file, if nobody uses it just now.

    SQLite itself does so only when the last connection closes and is one that writes. Where a
    reader outlives the writers, the file would be left without what was committed last.

    Raises:
        apsw.Error: the disk is full, or fails. Nothing is lost: the -wal stays.
    """
    wait_for_locks(writer, 0)
    with suppress(apsw.BusyError):  # somebody is at it, and closes later
        writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def remove_empty_wal(path: Path) -> None:
    """Remove a -wal without anything in it, and the -shm, if nobody uses them just now.

    A connection that only reads leaves them behind. One that may write has SQLite remove them, with
    the locks that this takes; to the file itself it writes nothing.
    """
    try:
        if beside(path, "-wal").stat().st_size:
            return
    except OSError:
        return
    with (
        suppress(apsw.Error),
        closing(apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)) as it,
    ):
        it.pragma("user_version")
