"""Connections to an open journal: one that writes, some that read, and transactions on them.

Whatever apsw raises inside these transactions leaves them as a `JournalError`.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

import apsw

from journal import errors
from journal.file import forking
from journal.file.companions import check_is_at, key_of
from journal.file.holding import Holding
from journal.file.identity import check_format, check_label, check_sqlite, meta, set_meta
from journal.file.lock_waits import BUSY_TIMEOUT_MS, wait_for_locks
from journal.file.opening import Durability, open_reader, open_writer
from journal.file.paths import create_file, remove_if_empty, resolved, uri_of
from journal.file.process_locks import hold, let_go
from journal.file.read_only import read_only_target
from journal.file.stale_wal import check_wal, has_wal
from journal.file.wal import (
    Checkpoints,
    leave_wal,
    mark_wal,
    settle,
    write_something,
)
from journal.file.wal_index import WalIndex

_IDLE_READERS_MAX = 4
_READER_ATTEMPTS = 10
_CLOSING_WAIT_MS = 5_000
_READING_WAIT_MS = 500
_READ_ERRORS = apsw.Error, errors.DamagedError, UnicodeDecodeError
_READERS_PAUSE_SECONDS = 0.005


class Database:
    """The connections to one journal file. Threads may share it.

    Writers queue at the locks of `holding`, and at SQLite's. Readers never wait, and never
    see half a transaction.

    `generation` changes whenever something that was read or written through `write` may no longer
    be true: another process wrote, or a transaction was rolled back. `failures` counts the latter.
    """

    def __init__(self, path: Path, *, read_only: bool, durability: Durability) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.path = path
        self.read_only = read_only
        self.generation = 0
        self.failures = 0
        self.durability = durability
        self._pid = os.getpid()
        self._readers: list[apsw.Connection] = []
        self._given_away: WeakSet[apsw.Connection] = WeakSet()
        self._data_version: int | None = None
        self._failed_commit = False
        self._was_interrupted = False
        self._closed = False
        self._copy: Path | None = None
        self._writer: apsw.Connection | None = None
        self._holding: Holding | None = None
        self._user = object()
        self._checkpoints: Checkpoints | None = None
        self._begins_wal = False
        self._key: tuple[int, int] | None = None
        try:
            if read_only:
                self._open_to_read()
            else:
                self._open_to_write()
        except BaseException:
            for connection in (self._writer, *self._readers):
                if connection is not None:
                    with suppress(apsw.Error):  # what went wrong first is what to tell
                        connection.close()
            self._let_go()
            raise

    def _open_to_write(self) -> None:
        is_new = create_file(self.path)
        try:
            self._holding = hold(self.path, self._user, read_only=False)
            self._target = uri_of(resolved(self.path), mode="ro")
            with self._holding.writing(BUSY_TIMEOUT_MS, self.path), self._inside():
                self._holding.check_may_be_opened(self.path)
                is_begun = self._begin_file(self._holding)
                try:
                    self._open_writer(self._holding)
                except BaseException:
                    if is_begun:  # and nobody else has written since
                        self._close_writer()
                        self._holding.take_back()
                    raise
        except BaseException:
            if is_new:
                remove_if_empty(self.path)
            raise

    def _begin_file(self, holding: Holding) -> bool:
        """Begin an empty file; tell whether that was done.

        Raises:
            StaleWalError: there is a -wal with something in it, of a file that is gone.
        """
        if self.path.stat().st_size == 0 and has_wal(self.path):
            raise errors.StaleWalError(self.path, "is of a file that is not there any more")
        return holding.begin()

    def _open_writer(self, holding: Holding) -> None:
        is_shared = holding.share(self.path)
        self._check_wal()
        if not is_shared:
            open_writer(self.path, self.durability).close()  # from now on it may be
            holding.share(self.path)
        self._checkpoints = Checkpoints(holding)
        self._writer = open_writer(self.path, self.durability)
        settle(self._writer, holding.path)
        self._writer.set_wal_hook(self._checkpoints.after_commit)
        holding.stand()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_to_read(self) -> None:
        self._target, self._copy, shares = read_only_target(self.path)
        self._key = key_of(self.path)
        if not shares:
            with self._inside():
                self._check_wal()
                self._readers.append(open_reader(self._target, self.path))
            return
        self._holding = hold(self.path, self._user, read_only=True)
        self._holding.check_may_be_opened(self.path)
        with self._alone(_READING_WAIT_MS):  # somebody who writes for long does not hold it up
            self._holding.share(self.path)
            self._check_wal()
            # At once in the list, which an interrupt closes before it lets go of the file.
            self._readers.append(open_reader(self._target, self.path))
            for _ in range(_READER_ATTEMPTS):
                reader = self._readers[-1]
                is_shared = reader.pragma("journal_mode") == "wal"  # not so a shipped file
                # Between reading and holding, the last one may have closed, and another come.
                if not is_shared or self._holding.stand():
                    break
                reader.close()
                self._readers[-1] = open_reader(self._target, self.path)

    def _check_wal(self) -> None:
        """Refuse a -wal that was not written for the file, before the first look at both.

        Where somebody has them open, that one has looked.
        """
        if has_wal(self.path) and (self._holding is None or not self._holding.is_in_use()):
            check_wal(self.path, self._target)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Be inside SQLite, and let none of apsw's errors out, as `translated` does."""
        with forking.inside_sqlite():
            try:  # written out: one more context manager takes a microsecond
                yield
            except (apsw.Error, UnicodeDecodeError) as error:
                raise _journal_error(self.path, _first(error)) from error

    def set_label(self, label: str) -> None:
        """Write what people call this journal.

        Raises:
            ValueError: it cannot be a label.
            JournalError: those of `write`.
        """
        check_label(label)
        with self.write() as connection:
            if meta(connection, "label") != label:
                set_meta(connection, "label", label)
            else:
                self.sync(connection)

    @contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Lend a connection that sees one moment of the file for as long as the block lasts.

        Raises:
            BusyError: what it sees was overwritten meanwhile, which is not damage. SQLite's mark of
                a reader is a lock that another library in this process drops.
        """
        self.check_open()
        holding = self._holding
        if holding is not None:
            holding.check_is_unchanged(self.path)
        seen = None if holding is None else holding.wal_index()
        with self._inside():
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._new_reader()
            try:
                connection.execute("BEGIN")
                yield connection
                if holding is not None and connection.txn_state("main"):
                    self._check_not_overwritten(holding, seen)
                connection.execute("ROLLBACK")
                is_kept = not self._closed and len(self._readers) < _IDLE_READERS_MAX
            except _READ_ERRORS:
                try:
                    if holding is not None and not self._closed:
                        self._check_not_overwritten(holding, seen)
                finally:
                    connection.close()
                raise
            except BaseException:
                connection.close()
                raise
            if is_kept:
                self._readers.append(connection)
            else:
                connection.close()

    def _check_not_overwritten(self, holding: Holding, seen: WalIndex | None) -> None:
        if holding.has_lost_a_reader(seen):
            reason = "was overwritten while it was read, since another library in this "
            reason += "process dropped SQLite's locks: read it again"
            raise errors.BusyError(self.path, reason)

    def _new_reader(self) -> apsw.Connection:
        """Return one more connection for reading, to the very file that was opened."""
        self._check_may_be_opened()
        return open_reader(self._target, self.path)

    def _check_may_be_opened(self) -> None:
        if self._holding is not None:
            self._holding.check_may_be_opened(self.path)
        else:
            self.check_is_current()

    def check_is_current(self) -> None:
        """Make sure that the file at the path is the one that is open.

        Raises:
            ClosedError: the journal is closed.
            FileReplacedError: it was moved, replaced, deleted or written to by somebody else.
        """
        self.check_open()
        if self._holding is not None:
            self._holding.check_is_current(self.path)
        elif self._key is not None:
            check_is_at(self.path, self._key)

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
            CommitFailedError: whether it was written is known once the -wal is settled, which the
                next write begins with; until that succeeds, every further write raises this, too.
        """
        holding, writer = self._to_write_with()
        with holding.writing(wait_ms, self.path):
            self.check_open()
            holding.check_is_current(self.path)
            if self._failed_commit:
                writer = self._open_again(holding, writer)
            yield from self._transaction(writer if through is None else through, holding, wait_ms)

    @contextmanager
    def undisturbed(self) -> Iterator[apsw.Connection]:
        """Lend a connection for reading, while no journal writes: no mark of a reader is needed.

        Raises:
            JournalError: those of `write`.
        """
        holding, _ = self._to_write_with()
        with holding.writing(BUSY_TIMEOUT_MS, self.path), self.read() as connection:
            yield connection

    @contextmanager
    def settled(self) -> Iterator[apsw.Connection]:
        """Lend a connection for reading, once all that it sees is in the file for good.

        Nobody writes while the block lasts.

        Raises:
            JournalError: those of `write`.
        """
        holding, writer = self._to_write_with()
        with holding.writing(BUSY_TIMEOUT_MS, self.path):
            self.check_open()
            holding.check_is_current(self.path)
            if self._failed_commit:
                self._open_again(holding, writer)
            else:
                with self._inside():
                    self._settle(writer)
            with self.read() as connection:
                yield connection

    def _open_again(self, holding: Holding, failed: apsw.Connection) -> apsw.Connection:
        """Open the writing connection anew and settle the -wal, after a commit that failed.

        Raises:
            CommitFailedError: the cause has not gone.
        """
        try:
            with self._inside():
                holding.check_may_be_opened(self.path)
                writer = open_writer(self.path, self.durability)
                self._writer = writer
                failed.close()
                if self._checkpoints is not None:
                    writer.set_wal_hook(self._checkpoints.after_commit)
                self._settle(writer)
        except errors.JournalError as error:
            raise errors.CommitFailedError(
                self.path, f"an earlier commit failed, and the cause has not gone: {error}"
            ) from error
        self._failed_commit = False
        self._data_version = None
        return writer

    def _settle(self, writer: apsw.Connection) -> None:
        error = None if self._checkpoints is None else self._checkpoints.settle(writer)
        if error is not None:
            raise error

    def check_may_write(self) -> None:
        """Make sure that this thread could begin to write, and wait for others to do so.

        Raises:
            ReadOnlyError, ClosedError: it cannot.
            BusyError: it is in the middle of a transaction.
        """
        self._to_write_with()

    def _to_write_with(self) -> tuple[Holding, apsw.Connection]:
        self.check_open()
        if self._writer is None or self._holding is None:
            raise errors.ReadOnlyError(self.path, "is open for reading only")
        if self._holding.is_written_by_this_thread():
            raise errors.BusyError(self.path, "is being written by this very thread")
        return self._holding, self._writer

    @contextmanager
    def aside(self) -> Iterator[apsw.Connection]:
        """Lend a new connection, whose temporary tables nobody else sees, while the block lasts.

        Raises:
            ReadOnlyError: the journal is open for reading only.
        """
        self.check_open()
        if self._checkpoints is None or self._holding is None:
            raise errors.ReadOnlyError(self.path, "is open for reading only")
        with self._holding.writing(BUSY_TIMEOUT_MS, self.path), self._inside():
            self._holding.check_may_be_opened(self.path)
            connection = open_writer(self.path, self.durability)
            connection.set_wal_hook(self._checkpoints.after_commit)
        try:
            with translated(self.path):
                yield connection
        finally:
            with self._holding.writing(BUSY_TIMEOUT_MS, self.path), self._inside():
                connection.close()

    @contextmanager
    def aside_to_read(self) -> Iterator[apsw.Connection]:
        """Lend a connection for reading and for temporary tables, which nobody else will have."""
        self.check_open()
        with self._inside():
            self._check_may_be_opened()
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = open_reader(self._target, self.path)
            self._given_away.add(connection)  # who lists what it has may be slow
        try:
            with translated(self.path):
                yield connection
        finally:
            with self._inside():
                connection.close()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside SQLite, for whoever uses a connection that was lent aside.

        A fork waits until nobody is, so it should last for milliseconds.
        """
        with forking.inside_sqlite():
            yield

    def _transaction(
        self, writer: apsw.Connection, holding: Holding, wait_ms: int
    ) -> Iterator[apsw.Connection]:
        with forking.inside_sqlite():  # and not `_inside`: one more generator takes a microsecond
            try:
                self._begin(writer, wait_ms)
                if writer is self._writer:
                    self._notice_other_writers(writer)
                else:
                    check_format(writer, self.path)
                self._begins_wal = begins_wal = holding.wal_may_begin_anew()
                before = _changes(writer) if begins_wal else None
                yield writer
                if begins_wal and _changes(writer) != before:
                    mark_wal(writer)
                self._commit(writer)
                if begins_wal:
                    holding.has_foreign_writes()  # has a look, to know this -wal from the last one
            except BaseException as error:
                self.failures += 1  # first: another interrupt may come after any call
                self.generation += 1
                with translated(self.path):
                    self._was_interrupted |= not isinstance(error, Exception)
                    if writer.in_transaction:  # SQLite has ended it itself after some errors
                        writer.execute("ROLLBACK")
                    raise

    def connection(self) -> apsw.Connection:
        """Return a new connection for reading, which is closed with the others."""
        self.check_open()
        with self._inside():
            connection = self._new_reader()
            self._given_away.add(connection)
            return connection

    def sync(self, connection: apsw.Connection) -> None:
        """Have the commit of this transaction sync, even if there is nothing for it to write.

        An append syncs what it writes; who answers without writing may answer from what another
        wrote with less durability, and an acknowledgement is to last.
        """
        if self.durability == "full" and not self._begins_wal:  # else all is in the file
            write_something(connection)

    def empty_wal(self, wait_seconds: float) -> bool:
        """Bring all of the -wal into the file and make it empty, as soon as nobody reads from it.

        Returns:
            whether that came about.

        Raises:
            BusyError, StorageError: those of `write`.
        """
        holding, writer = self._to_write_with()
        deadline = time.monotonic() + wait_seconds
        while True:
            with holding.writing(BUSY_TIMEOUT_MS, self.path), self._inside():
                holding.check_is_current(self.path)
                writer = self._writer or writer  # another thread may have opened it again
                if self._checkpoints is not None and self._checkpoints.empty(writer):
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_READERS_PAUSE_SECONDS)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close every connection; the last one to a file leaves no -wal. May be repeated.

        Raises:
            StorageFullError, StorageError: it is closed, but its -wal stays.
        """
        try:
            self._close()
        except KeyboardInterrupt:
            if self.read_only:  # then it takes no time, and whoever only looked leaves nothing
                self._close()
            raise

    def _close(self) -> None:
        if os.getpid() != self._pid:  # all of it belongs to the process that was forked
            self._closed = True
            return
        self._closed = True
        failure: errors.JournalError | None = None
        try:
            wait_ms = _READING_WAIT_MS if self.read_only else _CLOSING_WAIT_MS
            with self._alone(wait_ms) as is_alone:
                for reader in (*self._readers, *self._given_away):
                    reader.close()
                self._readers.clear()  # not before: an interrupt may come between
                if self._writer is not None and is_alone:
                    failure = self._at_the_end(self._writer)
                elif self._writer is not None:  # who is writing now brings the -wal into the file
                    leave_wal(self._writer)
                self._close_writer()
                if is_alone and failure is None:
                    failure = self._at_the_very_end()
        except Exception:
            self._let_go()
            raise
        self._let_go()  # not where an interrupt came: then closing is to be repeated
        if failure is not None:
            raise failure

    def _at_the_end(self, writer: apsw.Connection) -> errors.JournalError | None:
        """Bring the -wal into the file; return what is to be said where that is not possible."""
        error = None if self._checkpoints is None else self._checkpoints.at_the_end(writer)
        if error is None:
            return None
        why = error if isinstance(error, errors.PathError) else _journal_error(self.path, error)
        reason = f"is closed, but what its -wal has cannot be brought into it ({why.reason})"
        is_full = isinstance(error, apsw.FullError)
        said = (errors.StorageFullError if is_full else errors.StorageError)(
            self.path, f"{reason}: keep both together"
        )
        said.__cause__ = error
        return said

    def _at_the_very_end(self) -> errors.JournalError | None:
        """Do that once more where an interrupt had left a statement open, which was in the way."""
        holding = self._holding
        if not self._was_interrupted or holding is None or not has_wal(self.path):
            return None
        with suppress(errors.JournalError, apsw.Error):
            holding.check_may_be_opened(self.path)
            with closing(open_writer(self.path, self.durability)) as writer:
                return self._at_the_end(writer)
        return None

    @contextmanager
    def _alone(self, wait_ms: int) -> Iterator[bool]:
        """Be the only one who writes, if that can be had soon; and be inside SQLite.

        It lends whether that could be had.
        """
        with ExitStack() as stack:
            is_alone = True
            if self._holding is not None:
                try:
                    stack.enter_context(self._holding.writing(wait_ms, self.path))
                except errors.BusyError:
                    is_alone = False
            stack.enter_context(self._inside())
            yield is_alone

    def _let_go(self) -> None:
        self._discard_copy()
        let_go(self._holding, self._user)
        self._holding = None

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
        data_version = connection.data_version()
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
            if self._checkpoints is not None:
                self._checkpoints.is_doubtful = True
            reason = "the commit failed, and whether it took is known once the disk works again "
            reason += f"(of an append, Journal.resolve tells it from the error's outcome): {error}"
            raise errors.CommitFailedError(self.path, reason) from error
        if connection is self._writer:  # it counts commits of its own, too
            self._data_version = connection.data_version()

    def check_open(self) -> None:
        """Raise `ClosedError` if the journal was closed, or opened by this process's parent."""
        if self._closed:
            raise errors.ClosedError(self.path, "the journal is closed")
        if os.getpid() != self._pid:  # SQLite's connections do not survive a fork
            raise errors.ClosedError(self.path, "was opened before this process was forked")

    def _discard_copy(self) -> None:
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)


def _changes(connection: apsw.Connection) -> tuple[int, int, int]:
    """Return what differs once a transaction has written something: rows, definitions, or pages."""
    schema_version, page_count = (
        connection.pragma("schema_version"),
        connection.pragma("page_count"),
    )
    return connection.total_changes(), schema_version, page_count


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Let none of apsw's errors out of this block."""
    try:
        yield
    except (apsw.Error, UnicodeDecodeError) as error:
        raise _journal_error(path, _first(error)) from error


def _first(error: Exception) -> Exception:
    """Return what went wrong first: some errors end a transaction, which then cannot be ended."""
    while isinstance(error, apsw.SQLError) and isinstance(error.__context__, apsw.Error):
        error = error.__context__
    return error


def _journal_error(path: Path, error: Exception) -> errors.PathError:
    if isinstance(error, UnicodeDecodeError):
        return errors.DamagedError(path, "is damaged: it has text that is not UTF-8")
    for driver_errors, journal_error, reason in _ERRORS:
        if isinstance(error, driver_errors):
            return journal_error(path, reason.format(error))
    return errors.StorageError(path, f"{type(error).__name__}: {error}")


_ERRORS: list[tuple[tuple[type[apsw.Error], ...], type[errors.PathError], str]] = [
    ((apsw.BusyError, apsw.LockedError), errors.BusyError, "is locked by another process"),
    ((apsw.FullError,), errors.StorageFullError, "the disk is full"),
    ((apsw.NotADBError,), errors.NotADatabaseError, "is not an SQLite database"),
    (
        (
            apsw.CorruptError,
            apsw.FormatError,
            apsw.SQLError,
            apsw.ConstraintError,
            apsw.TooBigError,
            apsw.MismatchError,
        ),
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
