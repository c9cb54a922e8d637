"""What this process holds of one file: locks of the journal's own, beside those of SQLite.

There are up to two descriptors of its own, and on them

- shared locks where SQLite's connections have theirs, from before they are opened until they are
  closed, so that no other process takes itself for the last one when those are dropped, and deletes
  the -wal, or for the first one, and cuts the -shm;
- an exclusive lock for each write transaction, each checkpoint, and while a connection that writes
  is opened or closed, so that two writers exclude each other even then.

Between threads of the process such locks exclude nobody: a lock of Python's does.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from journal import errors
from journal.file import ofd_locks
from journal.file.companions import Companions, Key, check_is_at, key_of
from journal.file.header import begin_file, is_in_wal_mode, lacks_first_page
from journal.file.lock_waits import BUSY_TIMEOUT_MS, Wait
from journal.file.other_libraries import has_posix_locks, is_open_again
from journal.file.paths import COMPANIONS, beside
from journal.file.wal_index import (
    WalIndex,
    forget_wal_index,
    make_wal_index,
    open_wal_index,
    read_wal_index,
)

_POLL_SECONDS = 0.0005
_SLOW_POLL_SECONDS = 0.01  # after a second
_PATIENCE_SECONDS = 0.005
_OTHERS_SECONDS = 2.0  # what others look at or close they have locked for milliseconds
_SLICE_SECONDS = 0.05  # on Windows no Ctrl-C ends a wait for another thread

_locks_work_on: dict[int, bool] = {}  # by device


class Holding:
    """What this process holds of one file."""

    def __init__(self, key: Key, path: Path) -> None:
        self.key = key
        self.path = path
        self.users: set[object] = set()
        self.is_writable = False
        self._main: int | None = None
        self._spare: list[int] = []
        self._shm: int | None = None
        self._is_shared = False
        self._companions: Companions | None = None
        self._sharing = threading.Lock()
        self._lock = threading.RLock()
        self._depth = 0
        self._owner: int | None = None
        self._are_locks_listed = False

    def add_descriptor(self, *, read_only: bool) -> None:
        """Open the file for locks of our own, where it is not open for them yet.

        Raises:
            OSError: it cannot be opened.
        """
        if self._main is not None and (self.is_writable or read_only):
            return
        if not locks_work(self.key[0], self.path):
            return
        descriptor, self.is_writable = open_for_locks(self.path, read_only=read_only)
        if self._main is not None:  # closing it now would drop SQLite's locks
            self._spare.append(self._main)
            if self._is_shared:
                ofd_locks.try_lock(descriptor, "shared", ofd_locks.MAIN)
        self._main = descriptor

    def be_used_anew(self, path: Path) -> None:
        """Begin with what was kept for another library: what is beside the file may be new."""
        self.path = path
        self._is_shared, self._companions = False, None
        self._let_in()  # after an interrupt

    @contextmanager
    def writing(self, wait_ms: int, path: Path) -> Iterator[None]:
        """Be the only one, in this process and in others, who writes to the file.

        Raises:
            BusyError: somebody else is, for longer than `wait_ms`.
        """
        me = threading.get_ident()
        deadline = time.monotonic() + wait_ms / 1000
        depth = -1
        try:  # an interrupt may come after any call: nothing may be left locked
            while not self._lock.acquire(timeout=_SLICE_SECONDS):
                if time.monotonic() >= deadline:
                    raise errors.BusyError(path, "is being written by another thread")
            depth = self._depth
            if depth == 0:
                self._wait_for_others(deadline, path)
            self._depth = depth + 1
            self._owner = me
            yield
        finally:
            try:
                if depth >= 0:
                    self._depth = depth
                if depth == 0:
                    self._owner = None
                    self._unlock_for_others()
            finally:
                try:  # noqa: SIM105 (every append is here, and `suppress` takes a microsecond)
                    self._lock.release()
                except RuntimeError:  # not held: the wait for it failed
                    pass

    def _unlock_for_others(self) -> None:
        if self._main is not None:
            ofd_locks.try_lock(self._main, "none", ofd_locks.WRITING)

    def is_written_by_this_thread(self) -> bool:
        """Tell whether this very thread is inside `writing`."""
        return self._owner == threading.get_ident()

    def _wait_for_others(self, deadline: float, path: Path) -> None:
        """Take the lock that excludes other processes.

        A process that writes without a pause leaves the lock for microseconds only. So who has
        waited for some milliseconds insists, and nobody takes the lock before that one.
        """
        main = self._main
        if main is None or not self.is_writable:
            return
        another_insists = ofd_locks.is_locked(main, ofd_locks.INSISTING)
        if not another_insists and ofd_locks.try_lock(main, "exclusive", ofd_locks.WRITING):
            return
        insists = False
        wait = Wait(path)
        insist_at = time.monotonic() + _PATIENCE_SECONDS
        try:
            while True:
                now = time.monotonic()
                time.sleep(_POLL_SECONDS if now < insist_at + 1 else _SLOW_POLL_SECONDS)
                if now >= deadline:
                    raise errors.BusyError(path, "is being written by another process")
                wait.goes_on(now)
                if not insists and now >= insist_at:
                    insists = ofd_locks.try_lock(main, "exclusive", ofd_locks.INSISTING)
                if not insists and ofd_locks.is_locked(main, ofd_locks.INSISTING):
                    continue
                if ofd_locks.try_lock(main, "exclusive", ofd_locks.WRITING):
                    return
        finally:
            ofd_locks.try_lock(main, "none", ofd_locks.INSISTING)

    def begin(self) -> bool:
        """Write the first page of an empty file, while nobody else writes; tell whether so."""
        if self._main is None or not lacks_first_page(self._main):
            return False
        deadline = time.monotonic() + _OTHERS_SECONDS
        while not ofd_locks.try_lock(self._main, "exclusive", ofd_locks.MAIN):
            if time.monotonic() >= deadline:  # another library is about to write to it
                return False
            time.sleep(_POLL_SECONDS)
        try:
            if _has_rollback_journal(self.path):
                return False
            return begin_file(self._main)
        finally:
            ofd_locks.try_lock(self._main, "none", ofd_locks.MAIN)

    def take_back(self) -> None:
        """Have the file empty again, as it was before `begin`: nothing has come into it since."""
        if self._main is not None:
            os.ftruncate(self._main, 0)
            for suffix in COMPANIONS:
                with suppress(OSError):
                    beside(self.path, suffix).unlink()

    def share(self, path: Path) -> bool:
        """Take the shared locks, before SQLite opens the file; tell whether it may be shared.

        SQLite's own may be dropped while it opens the file. Then another process, closing it, would
        take itself for the last one, and delete the -wal that is being opened; or, opening it, for
        the first one, and cut the -shm. A file in another mode than WAL, or with a journal to roll
        back, SQLite must have for itself first.

        Raises:
            BusyError: another library has had the file for itself for longer than a minute.
        """
        began = time.monotonic()
        while self._main is not None and _may_be_shared(self._main, self.path):
            with self._sharing:  # a reader may be here while a writer opens
                if self._is_shared or self._try_to_share(self._main):
                    return True
            now = time.monotonic()
            if now >= began + BUSY_TIMEOUT_MS / 1000:
                raise errors.BusyError(path, "is locked by another process")
            time.sleep(_POLL_SECONDS if now < began + 1 else _SLOW_POLL_SECONDS)
        return self._main is None

    def _try_to_share(self, main: int) -> bool:
        if not ofd_locks.try_lock(main, "shared", ofd_locks.MAIN):
            return False
        if not _may_be_shared(main, self.path):  # any more: somebody had it for itself just now
            ofd_locks.try_lock(main, "none", ofd_locks.MAIN)
            return False
        if self.is_writable:
            with suppress(OSError):  # SQLite will say what is wrong there
                self._share_wal_index(main)
        self._is_shared = True
        return True

    def _share_wal_index(self, main: int) -> None:
        """Take the lock on the -shm as SQLite does (unixLockSharedMemory in os_unix.c)."""
        make_wal_index(beside(self.path, "-shm"), main)
        shm = self._open_shm()
        try:
            if ofd_locks.try_lock(shm, "exclusive", ofd_locks.SHM):
                forget_wal_index(shm)
        finally:
            ofd_locks.try_lock(shm, "shared", ofd_locks.SHM)

    def stand(self) -> bool:
        """Know the -wal and -shm, once SQLite has the file open in WAL mode and has read from it.

        Tell whether the locks are on the -shm that is there, as far as there are locks of ours.
        """
        if self._main is None:
            return True
        with self._sharing:
            if self._companions is None:
                try:
                    shm = self._open_shm()
                except OSError:
                    return False
                ofd_locks.try_lock(self._main, "shared", ofd_locks.MAIN)
                # Who may only read it must not keep others from seeing that it is an old one.
                if self.is_writable or ofd_locks.is_locked(shm, ofd_locks.SHM):
                    ofd_locks.try_lock(shm, "shared", ofd_locks.SHM)
                self._are_locks_listed = has_posix_locks(self.key, unknown=False)
                self._companions = Companions(self.path, self._main, shm)
                self._is_shared = True
            return self._companions.have_the_same_shm()

    def _open_shm(self) -> int:
        """Return a descriptor of the -shm that is beside the file now.

        Raises:
            OSError: it cannot be opened.
        """
        path = beside(self.path, "-shm")
        if self._shm is not None and key_of(path) != key_of(self._shm):
            shm, self._shm = self._shm, None
            os.close(shm)  # of a -shm that is gone
        if self._shm is None:
            self._shm = open_wal_index(path, is_writable=self.is_writable)
        return self._shm

    def has_its_wal(self) -> bool:
        """Tell whether the -wal beside the file is the one that was there at first."""
        return self._companions is None or self._companions.have_the_same_wal()

    def check_is_current(self, path: Path) -> None:
        """Make sure that the file that was opened is the one at its path, with its companions.

        SQLite notices nothing of this in WAL mode: it goes on writing to a file that is deleted.

        Raises:
            FileReplacedError: it was moved, replaced, deleted or written to by somebody else, or
                its -wal or -shm was.
        """
        modified_ns = check_is_at(path, self.key)
        if self._companions is None:
            return
        if not self._companions.are_there():
            reason = "lost its -wal or -shm while it was open: somebody moved or deleted it"
            raise errors.FileReplacedError(path, reason)
        self.check_is_unchanged(path, modified_ns)

    def check_may_be_opened(self, path: Path) -> None:
        """Make sure of the same, and of the -wal, before one more connection opens all of them.

        Raises:
            FileReplacedError: as `check_is_current`.
        """
        self.check_is_current(path)
        if not self.has_its_wal():
            raise errors.FileReplacedError(path, "has another -wal than when it was opened")

    def check_is_unchanged(self, path: Path, modified_ns: int | None = None) -> None:
        """Make sure that nobody but journals wrote to the file, wherever it is by now.

        Raises:
            FileReplacedError: somebody did.
        """
        if self.has_foreign_writes(modified_ns):
            reason = "was written to by something else while it was open (a copy put over it?): "
            reason += "close it, look at what it is now, and open it again"
            raise errors.FileReplacedError(path, reason)

    def may_checkpoint(self) -> bool:
        """Tell whether file and -wal are still those that belong together."""
        return self.has_its_wal() and not self.has_foreign_writes()

    def wal_may_begin_anew(self) -> bool:
        """Tell whether the next commit may be the first one in the -wal, by the last look at it."""
        found = self._companions
        return found is not None and found.foreign_writes.wal_may_begin_anew

    def is_in_use(self) -> bool:
        """Tell whether anybody else has the file open: another journal, process or library."""
        if len(self.users) > 1 or has_posix_locks(self.key, unknown=False):
            return True
        if self._shm is not None and is_open_again(self._shm):
            return True
        return self._main is not None and ofd_locks.is_locked(self._main, ofd_locks.MAIN)

    def wal_index(self) -> WalIndex | None:
        """Return what the -shm says just now; None where there is none, or no locks of ours."""
        shm = self._shm
        return None if shm is None or self._companions is None else read_wal_index(shm)

    def has_lost_a_reader(self, seen: WalIndex | None) -> bool:
        """Tell whether what was to be seen is written over, as no mark of a reader prevented it.

        None in this process, that is, where one reads just now; if the system lists such locks.
        """
        now = self.wal_index()
        if seen is None or now is None or not self._are_locks_listed:
            return False
        if self.is_written_by_this_thread():  # nobody else writes or checkpoints
            return False
        shm = None if self._shm is None else key_of(self._shm)
        return (
            seen.is_overwritten(now)
            and shm is not None
            and not has_posix_locks(shm, ofd_locks.READERS, unknown=True)
        )

    def has_foreign_writes(self, modified_ns: int | None = None) -> bool:
        """Tell whether somebody but journals wrote to the file."""
        found = self._companions
        return found is not None and found.foreign_writes.are_found(modified_ns)

    def close(self) -> bool:
        """Give the locks back and close the descriptors; tell whether that was possible.

        SQLite's connections are closed, which has dropped the locks of another library in this
        process. Where one has the -shm open, ours stay in their place. Where none has, the last
        one to a file removes an empty -wal: SQLite would do so with a lock that can be dropped.
        """
        main = self._main
        if main is None:
            return True
        try:
            if self._is_used_by_another_library(main):
                return False
            self._remove_empty_wal(main)
            shm, spare = self._shm, self._spare
            self._spare, self._shm, self._companions = [], None, None
            self._is_shared = False
            for descriptor in spare:
                os.close(descriptor)
            if shm is not None:
                ofd_locks.try_lock(shm, "none", ofd_locks.SHM)  # a process just forked may have it
                os.close(shm)
            self._main = None  # not after closing: an interrupt may come between
            os.close(main)
        finally:
            try:
                self._let_in()
            except BaseException:  # an interrupt
                self._let_in()
                raise
        return True

    def _let_in(self) -> None:
        if self._main is not None and self.is_writable:
            ofd_locks.try_lock(self._main, "none", ofd_locks.PENDING)

    def _is_used_by_another_library(self, main: int) -> bool:
        """Tell whether one in this process has the file open, and if not, let none in.

        It could come between this question and closing our descriptors, which drops its locks.
        """
        deadline = time.monotonic() + _OTHERS_SECONDS
        while self.is_writable:  # else it can lock nobody out
            if ofd_locks.try_lock(main, "exclusive", ofd_locks.PENDING):
                break
            if time.monotonic() >= deadline:
                return True
            time.sleep(_POLL_SECONDS)
        shm_is_used = self._shm is not None and is_open_again(self._shm)
        return shm_is_used or has_posix_locks(self.key, unknown=True)

    def _remove_empty_wal(self, main: int) -> None:
        """Remove a -wal without anything in it, and the -shm, if nobody else has the file open."""
        wal, shm = beside(self.path, "-wal"), beside(self.path, "-shm")
        is_ours = self._shm is not None and key_of(shm) == key_of(self._shm)
        if not is_ours or key_of(self.path) != self.key:
            return
        for descriptor in self._spare:
            ofd_locks.try_lock(descriptor, "none", ofd_locks.MAIN)
        try:
            if not self._is_last(main):
                return
            with suppress(OSError):
                if not wal.exists() or wal.stat().st_size == 0:
                    shm.unlink()
                    wal.unlink(missing_ok=True)
        finally:
            for where in (ofd_locks.MAIN, ofd_locks.WRITING):
                ofd_locks.try_lock(main, "none", where)

    def _is_last(self, main: int) -> bool:
        """Tell whether nobody else has the file open, and let none in.

        Who may not write the file, but has made the -shm, cannot have the file for itself as SQLite
        would. But no journal opens it to write meanwhile, and who opens it to read looks again.
        """
        if self.is_writable:
            return ofd_locks.try_lock(main, "exclusive", ofd_locks.MAIN)
        if self._shm is None or not ofd_locks.try_lock(main, "shared", ofd_locks.WRITING):
            return False
        return not ofd_locks.is_locked(self._shm, ofd_locks.SHM)

    def abandon(self) -> None:
        """Close the descriptors in a forked child; the locks stay, they are the parent's."""
        for descriptor in (self._main, self._shm, *self._spare):
            if descriptor is not None:
                with suppress(OSError):
                    os.close(descriptor)


def locks_work(device: int, path: Path) -> bool:
    """Tell whether locks of our own work on this file system; tried once for each."""
    if device not in _locks_work_on:
        descriptors = [open_for_locks(path, read_only=True) for _ in range(2)]
        (first, is_writable), (second, _) = descriptors
        works = ofd_locks.work(first, second) if is_writable else ofd_locks.might_work(first)
        # No journal is open on this device in this process yet: no lock of our SQLite is dropped.
        # Where another library has the file open, they stay.
        status = path.stat()
        if not (works and has_posix_locks((status.st_dev, status.st_ino), unknown=True)):
            for descriptor, _ in descriptors:
                os.close(descriptor)
        if not is_writable:  # only who may write can try it
            return works
        _locks_work_on[device] = works
    return _locks_work_on[device]


def open_for_locks(path: Path, *, read_only: bool) -> tuple[int, bool]:
    """Open a file for locking; tell whether exclusive locks are possible."""
    flags = getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, os.O_RDWR | flags), True
    except OSError:
        if not read_only:
            raise
        return os.open(path, os.O_RDONLY | flags), False


def _may_be_shared(descriptor: int, path: Path) -> bool:
    """Tell whether a file is in WAL mode, with no journal beside it that is to be rolled back."""
    return not _has_rollback_journal(path) and is_in_wal_mode(descriptor)


def _has_rollback_journal(path: Path) -> bool:
    with suppress(OSError):
        return beside(path, "-journal").stat().st_size > 0
    return False
