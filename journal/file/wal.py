"""The -wal: switching a file to it, naming each one, and bringing what it holds into the file."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from journal import errors
from journal.file.lock_waits import BUSY_TIMEOUT_MS, wait_for_locks
from journal.file.paths import beside
from journal.file.syncing import sync

if TYPE_CHECKING:
    from journal.file.holding import Holding

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

# The -wal has a header of its own and one for each page that follows (sqlite.org/fileformat2.html).
_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24

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


class Checkpoints:
    """Brings the -wal of one journal into its file: when it has grown long, and at the end.

    A checkpoint relies on a sync of the -wal: where a power cut stops it half-way, the rest is
    there. After a sync that failed, that of the next checkpoint would leave out what it lost, so
    the -wal is written again before. `is_doubtful` says that a sync may have failed.

    `holding` tells whether file and -wal still belong together. It is asked before and after each
    checkpoint, so that it can tell what that wrote from what others write.
    """

    def __init__(self, holding: "Holding") -> None:
        self._holding = holding
        self._waited_at_pages = 0
        self._pages_before = 0
        self._is_at_it = False
        self.is_doubtful = False

    def after_commit(self, connection: apsw.Connection, _database: str, pages: int) -> int:
        """Do what is due after a commit; SQLite calls this.

        The commit has succeeded, so nothing here may make it look as if it had not: a checkpoint
        that fails is made up for by the next one.
        """
        if self._is_at_it:  # settling commits, too
            return apsw.SQLITE_OK
        if pages < self._pages_before:  # the -wal has begun anew
            self._waited_at_pages = self._pages_before = 0
        is_large = pages - self._pages_before > _LARGE_COMMIT_PAGES
        self._pages_before = pages
        is_due = pages >= _CHECKPOINT_PAGES * (_LONGER if is_large else 1)
        if not (is_due or self.is_doubtful) or not self._holding.may_checkpoint():
            return apsw.SQLITE_OK
        if self.is_doubtful:
            self._try(settle, connection)
        elif pages >= self._waited_at_pages + _TOO_MANY_PAGES:
            self._waited_at_pages = pages
            self._try(_checkpoint_all, connection)
        else:
            self._try(_checkpoint_some, connection)
        return apsw.SQLITE_OK

    def empty(self, writer: apsw.Connection) -> bool:
        """Bring the -wal into the file and make it empty, unless somebody reads from it."""
        if not self._holding.may_checkpoint():
            return False
        self._try(settle if self.is_doubtful else _empty_now, writer)
        wal = beside(self._holding.path, "-wal")
        return not wal.exists() or not wal.stat().st_size

    def settle(self, writer: apsw.Connection) -> Exception | None:
        """Decide what becomes of what the -wal holds; return what prevents it."""
        return self._try(settle, writer)

    def at_the_end(self, writer: apsw.Connection) -> Exception | None:
        """Bring what there is into the file, if nobody uses it just now; return what prevents it.

        SQLite itself does so only when the last connection closes and is one that writes. Where a
        reader outlives the writers, the file would be left without what was committed last.
        """
        failure = None
        if not self._holding.has_foreign_writes():  # else the -wal is what somebody may want back
            can_settle = self.is_doubtful and self._holding.has_its_wal()
            failure = self._try(settle if can_settle else _empty_now, writer)
        if self.is_doubtful or self._holding.has_foreign_writes():
            leave_wal(writer)
        return failure

    def _try(
        self, act: Callable[[apsw.Connection, Path], None], writer: apsw.Connection
    ) -> Exception | None:
        self._is_at_it = True
        try:
            act(writer, self._holding.path)
            self.is_doubtful = False
        except (apsw.IOError, errors.StorageError) as error:
            self.is_doubtful = True
            return error
        except apsw.FullError as error:
            return error
        except apsw.Error:
            return None  # somebody is at it, or it was closed when an interrupt came
        finally:
            self._is_at_it = False
            self._holding.has_foreign_writes()
        return None


def _checkpoint_some(connection: apsw.Connection, _path: Path) -> None:
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def _checkpoint_all(connection: apsw.Connection, _path: Path) -> None:
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


_MARK_SQL = """
INSERT INTO meta (key, value) SELECT 'wal_follows', value FROM meta WHERE key = 'wal_id'
ON CONFLICT (key) DO UPDATE SET value = excluded.value;
INSERT INTO meta (key, value) VALUES ('wal_id', ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""


def mark_wal(connection: apsw.Connection) -> None:
    """Write what tells a -wal that begins with this transaction from every other one."""
    connection.execute(_MARK_SQL, (secrets.token_hex(_WAL_ID_BYTES),))


def leave_wal(writer: apsw.Connection) -> None:
    """Have a connection bring nothing of the -wal into the file when it is closed."""
    with suppress(apsw.ConnectionClosedError):  # by an interrupt: this is a repetition
        writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def settle(writer: apsw.Connection, path: Path) -> None:
    """Decide what becomes of what the -wal holds, before anything is answered on top of it.

    A process that died between writing and syncing, or whose sync failed, left frames there. Those
    that count may still be lost in a power cut. Those behind them, of a commit that failed, do not
    count, until somebody finds them who has to recover the -wal.

    Raises:
        BusyError of apsw: somebody else writes.
        StorageError: the disk does not take it.
    """
    wal = beside(path, "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return
    writer.execute("BEGIN IMMEDIATE")
    try:
        _write_again(path)
        write_something(writer)  # over the first frame of what does not count
        writer.execute("COMMIT")
    finally:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
    _sync(path)
    with suppress(apsw.BusyError):  # somebody reads from it, so it stays
        _empty_now(writer, path)


def write_something(writer: apsw.Connection) -> None:
    """Have the transaction change a page, so that its commit writes and syncs.

    Setting a row to what it is already changes none.
    """
    writer.pragma("user_version", writer.pragma("user_version"))


def _empty_now(writer: apsw.Connection, path: Path) -> None:
    """Bring all of the -wal into the file, for good: SQLite does not sync that it is empty then.

    Raises:
        BusyError of apsw: somebody reads from it.
    """
    wait_for_locks(writer, 0)
    try:
        writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        wait_for_locks(writer, BUSY_TIMEOUT_MS)
    with suppress(FileNotFoundError):
        _sync(path)


# SQLite has no lock on the -wal, so a descriptor of our own that is closed drops none.


def _sync(path: Path) -> None:
    """Have the disk take the -wal."""
    with _wal_of(path) as descriptor:
        sync(descriptor)


def _write_again(path: Path) -> None:
    """Write what the -wal holds over itself, so that the next sync has the disk take all of it.

    After a sync that failed, the next one leaves out what that one should have written.
    The caller holds SQLite's lock for writing, so that nobody else changes it meanwhile.
    """
    with _wal_of(path) as descriptor:
        piece = header = os.read(descriptor, _HEADER_BYTES)
        frame_bytes = _FRAME_HEADER_BYTES + int.from_bytes(header[8:12], "big")
        while piece:
            os.lseek(descriptor, -len(piece), os.SEEK_CUR)
            os.write(descriptor, piece)
            piece = os.read(descriptor, frame_bytes)
            if piece[8:16] != header[16:24]:  # its salts: it is from before the -wal began anew
                return


@contextmanager
def _wal_of(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(beside(path, "-wal"), os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"its -wal cannot be synced: {error.strerror}"
        raise errors.StorageError(path, reason, errno=error.errno) from error
