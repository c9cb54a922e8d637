"""Connections to an open journal: one that writes, some that read, and transactions on them.

Whatever apsw raises inside these transactions leaves them as a `JournalError`.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from journal import errors
from journal.file.opening import (
    BUSY_TIMEOUT_MS,
    Durability,
    check_format,
    check_sqlite,
    open_reader,
    open_writer,
    read_only_target,
    wait_for_locks,
)

_IDLE_READERS_MAX = 4


class Database:
    """The connections to one journal file. Threads may share it.

    Writers queue: those of this process at a lock, those of others at SQLite's. Readers never wait,
    and never see half a transaction.

    `generation` changes whenever something that was read or written through `write` may no longer
    be true: another process wrote, or a transaction was rolled back.
    """

    def __init__(self, path: Path, *, read_only: bool, durability: Durability) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.path = path
        self.read_only = read_only
        self.generation = 0
        self._durability = durability
        self._pid = os.getpid()
        self._lock = threading.RLock()  # its release fails in a thread that does not hold it
        self._writing_thread: int | None = None
        self._readers: list[apsw.Connection] = []
        self._data_version: int | None = None
        self._failed_commit = False
        self._closed = False
        self._copy: Path | None = None
        self._writer: apsw.Connection | None = None
        with _translated(path):
            if read_only:
                self._target, self._copy = read_only_target(path)
                try:
                    self._readers.append(open_reader(self._target, path))
                except BaseException:
                    self._discard_copy()
                    raise
            else:
                self._writer = open_writer(path, durability)
                self._target = f"{path.as_uri()}?mode=ro"

    @contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Lend a connection that sees one moment of the file for as long as the block lasts."""
        self.check_open()
        try:
            connection = self._readers.pop()
        except IndexError:
            with _translated(self.path):
                connection = open_reader(self._target, self.path)
        try:
            with _translated(self.path):
                connection.execute("BEGIN")
                yield connection
                connection.execute("ROLLBACK")
        except BaseException:
            connection.close()
            raise
        if self._closed or len(self._readers) >= _IDLE_READERS_MAX:
            connection.close()
        else:
            self._readers.append(connection)

    @contextmanager
    def write(
        self, wait_ms: int = BUSY_TIMEOUT_MS, *, through: apsw.Connection | None = None
    ) -> Iterator[apsw.Connection]:
        """Lend the writing connection for one transaction, committed unless the block raises.

        An interrupt (Ctrl-C) may come anywhere; the next transaction cleans up what it left.

        Args:
            wait_ms: how long to wait for other writers.
            through: another connection to write with, one that `aside` has lent.

        Raises:
            ReadOnlyError, ClosedError, BusyError, StorageFullError, StorageError: nothing was
                written.
            CommitFailedError: whether it was written is known after reopening; until then every
                further write raises this, too.
        """
        self.check_open()
        if self._writing_thread == threading.get_ident():
            raise errors.BusyError(self.path, "is being written by this very thread")
        try:
            if not self._lock.acquire(timeout=wait_ms / 1000):
                raise errors.BusyError(self.path, "is being written by another thread")
            self._writing_thread = threading.get_ident()
            yield from self._transaction(wait_ms, through)
        finally:
            self._writing_thread = None
            with suppress(RuntimeError):  # not held: the wait for it failed
                self._lock.release()

    @contextmanager
    def aside(self) -> Iterator[apsw.Connection]:
        """Lend a new connection, whose temporary tables nobody else sees, while the block lasts.

        Raises:
            ReadOnlyError: the journal is open for reading only.
        """
        self.check_open()
        if self._writer is None:
            raise errors.ReadOnlyError(self.path, "is open for reading only")
        with _translated(self.path):
            connection = open_writer(self.path, self._durability, create=False)
            try:
                yield connection
            finally:
                connection.close()

    def _transaction(
        self, wait_ms: int, through: apsw.Connection | None
    ) -> Iterator[apsw.Connection]:
        self.check_open()
        writer = self._writer if through is None else through
        if writer is None:
            raise errors.ReadOnlyError(self.path, "is open for reading only")
        if self._failed_commit:
            raise errors.CommitFailedError(self.path, "an earlier commit failed: open it again")
        with _translated(self.path):
            try:
                self._begin(writer, wait_ms)
                if through is None:
                    self._notice_other_writers(writer)
                else:
                    check_format(writer, self.path)
                yield writer
                self._commit(writer)
            except BaseException:
                self.generation += 1
                if writer.in_transaction:  # SQLite has ended it itself after some errors
                    writer.execute("ROLLBACK")
                raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close every connection; the last one to a file leaves no -wal. May be repeated."""
        if os.getpid() != self._pid:  # all of it belongs to the process that was forked
            self._closed = True
            return
        with self._lock:
            self._closed = True
            try:
                with _translated(self.path):
                    while self._readers:
                        self._readers.pop().close()
                    if self._writer is not None:
                        self._fold_wal(self._writer)
                        self._writer.close()
            finally:
                self._discard_copy()

    def _fold_wal(self, writer: apsw.Connection) -> None:
        """Bring what the -wal holds into the file, if nobody is using it.

        SQLite itself does so only when the last connection closes and is one that writes. Where a
        reader outlives the writers, the file would be left without what was committed last.
        """
        with suppress(apsw.Error):  # somebody is using it, and will close it later
            wait_for_locks(writer, 0)
            writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _begin(self, connection: apsw.Connection, wait_ms: int) -> None:
        if connection.in_transaction:  # an interrupt came before its ROLLBACK
            connection.execute("ROLLBACK")
        if wait_ms == BUSY_TIMEOUT_MS:
            connection.execute("BEGIN IMMEDIATE")
            return
        wait_for_locks(connection, wait_ms)
        try:
            connection.execute("BEGIN IMMEDIATE")
        finally:
            wait_for_locks(connection, BUSY_TIMEOUT_MS)

    def _notice_other_writers(self, connection: apsw.Connection) -> None:
        data_version = connection.pragma("data_version")
        if data_version != self._data_version:
            self.generation += 1
            check_format(connection, self.path)  # another process may have migrated the file
            self._data_version = data_version

    def _commit(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except apsw.FullError:
            raise  # the last frame of the transaction was not written, so it never happened
        except apsw.Error as error:
            self._failed_commit = True
            raise errors.CommitFailedError(
                self.path, f"the commit failed, open it again to see whether it took: {error}"
            ) from error

    def check_open(self) -> None:
        """Raise `ClosedError` if the journal was closed, or opened by this process's parent."""
        if self._closed:
            raise errors.ClosedError(self.path, "the journal is closed")
        if os.getpid() != self._pid:  # SQLite's connections do not survive a fork
            raise errors.ClosedError(self.path, "was opened before this process was forked")

    def _discard_copy(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise _journal_error(path, error) from error
    except UnicodeDecodeError as error:
        raise errors.DamagedError(path, "is damaged: it has text that is not UTF-8") from error


def _journal_error(path: Path, error: apsw.Error) -> errors.JournalError:
    for driver_errors, journal_error, reason in _ERRORS:
        if isinstance(error, driver_errors):
            return journal_error(path, reason.format(error))
    return errors.StorageError(path, f"{type(error).__name__}: {error}")


_ERRORS: list[tuple[tuple[type[apsw.Error], ...], type[errors.PathError], str]] = [
    ((apsw.BusyError, apsw.LockedError), errors.BusyError, "is locked by another process"),
    ((apsw.FullError,), errors.StorageFullError, "the disk is full"),
    ((apsw.NotADBError,), errors.NotADatabaseError, "is not an SQLite database"),
    (
        (apsw.CorruptError, apsw.FormatError, apsw.SQLError, apsw.ConstraintError),
        errors.DamagedError,
        "is damaged: {}",
    ),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError),
        errors.AccessDeniedError,
        "cannot be written: {}",
    ),
    ((apsw.CantOpenError,), errors.AccessDeniedError, "cannot be opened: {}"),
    ((apsw.ConnectionClosedError, apsw.CursorClosedError), errors.ClosedError, "is closed"),
]
