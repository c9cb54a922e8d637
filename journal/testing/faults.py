"""A disk that is slow, fails or is full, for tests of what a program does then."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import apsw

Fault = Literal["commit", "sync", "write", "read", "open", "delete", "truncate"]
"""What can fail. "commit": the write that ends a transaction; "sync": that the disk takes what was
written, which a commit waits for with durability "full". The others are what SQLite asks of files.
"""

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 24  # of a frame in the -wal; where a commit ends, the file's size is in it

CODES = {
    "commit": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "write": apsw.SQLITE_IOERR_WRITE,
    "read": apsw.SQLITE_IOERR_READ,
    "open": apsw.SQLITE_CANTOPEN,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
}


class FaultVFS(apsw.VFS):
    """A disk with faults, for every journal that is opened inside its `with` block.

        with FaultVFS(sync_seconds=0.02) as disk, Journal.open(path) as journal:
            disk.fail("sync", after=2)           # the third sync from now on fails, no other
            disk.fail("commit", times=math.inf)  # all commits fail, until disk.heal()
            disk.is_full = True                  # whatever is written finds no room

    Close the journals before the block ends. The real disk is not asked to sync, which takes most
    of the time away: after a power cut, files written in such a block may be lost or damaged. One
    such disk at a time, in one process. What the journal does to a -wal by itself, beside SQLite,
    is seen on Linux only. Where SQLite has nobody to tell of an error, as while it closes a file,
    apsw reports it to `sys.unraisablehook`, which pytest makes a warning of.

    Args:
        sync_seconds: how long a sync takes; it may be changed at any time.

    Attributes:
        commits: how many transactions were written, those of which writing failed included.
        syncs: how many syncs there were.
        operations: how many operations there were, of every kind.
        is_full: whether the disk is full.
        before: is called before each operation, with what it is (as in `fail`), the file, the
            bytes that are to be written, and where (or the size, of "truncate"). It may raise an
            `apsw.Error`, and the operation fails with it. None: nothing is called.
    """

    def __init__(self, *, sync_seconds: float = 0.0) -> None:
        self.sync_seconds = sync_seconds
        self.commits = 0
        self.syncs = 0
        self.operations = 0
        self.is_full = False
        self.before: Callable[[str, str, bytes, int], object] | None = None
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._failed_syncs: dict[str, int] = {}
        self._begun: set[str] = set()
        self._os = os.write, os.fsync
        self._base = apsw.vfs_names()[0]
        super().__init__("journal-faults", self._base, makedefault=True)

    def __enter__(self) -> Self:
        """Be the disk of what is opened from now on."""
        os.write, os.fsync = self._write, self._fsync  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        """Give way to the real disk again."""
        os.write, os.fsync = self._os
        self.unregister()

    def fail(self, what: Fault, *, after: int = 0, times: float = 1, file: str = "") -> None:
        """Let something fail.

        Args:
            what: fails.
            after: how many of its kind go well first, from now on.
            times: how many fail; `math.inf`: all, until `heal`.
            file: only where the file's path ends so: "-wal", "app.db".

        Raises:
            ValueError: there is no such operation, or a number is negative.
        """
        if what not in CODES or after < 0 or times < 0:
            names = ", ".join(CODES)
            message = f"expected one of {names} and no negative number, found {what!r}, "
            message += f"after {after}, {times} times"
            raise ValueError(message)
        with self._lock:
            self._faults.append(_Fault(what, file, after, times))

    def heal(self) -> None:
        """Let nothing fail any more, and make room."""
        with self._lock:
            self._faults.clear()
        self.is_full = False

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Open a file."""
        file = name if isinstance(name, str) else name.filename() if name else ""
        self.about_to("open", file)
        return _File(self, self._base, file, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: FBT001, N802
        """Delete a file."""
        self.about_to("delete", name)
        super().xDelete(name, sync)

    def about_to(self, what: str, file: str, data: bytes = b"", number: int = 0) -> None:
        """Do what is to be done before an operation.

        Raises:
            apsw.Error: the operation fails.
        """
        is_commit = what == "write" and file.endswith("-wal") and _ends_commit(data)
        with self._lock:
            self.operations += 1
            self.syncs += what == "sync"
            self.commits += is_commit
            due = [fault.is_due(what, file) for fault in self._faults if fault.what != "commit"]
            if is_commit:
                due += [it.is_due("commit", file) for it in self._faults if it.what == "commit"]
        try:
            if self.before is not None:
                self.before(what, file, data, number)
            if any(due):
                raise apsw.exception_for(CODES[what])
            if self.is_full and what in ("write", "truncate"):
                raise apsw.exception_for(apsw.SQLITE_FULL)
        except apsw.Error:
            if what == "sync":
                with self._lock:
                    self._failed_syncs[file] = self._failed_syncs.get(file, 0) + 1
            raise
        if what == "sync" and self.sync_seconds:
            time.sleep(self.sync_seconds)

    def failed_syncs(self, file: str) -> int:
        """Return how many syncs of a file have failed."""
        return self._failed_syncs.get(file, 0)

    def _write(self, descriptor: int, data: bytes) -> int:
        file = _file_of(descriptor)
        is_first_page = data[: len(_MAGIC)] == _MAGIC
        if is_first_page and file not in self._begun:
            self._begun.add(file)
            self._about_to(file, "open")
        if is_first_page or file.endswith("-wal"):
            self._about_to(file, "write", data, os.lseek(descriptor, 0, os.SEEK_CUR))
        return self._os[0](descriptor, data)

    def _fsync(self, descriptor: int) -> None:
        file = _file_of(descriptor)
        if file.endswith("-wal") or file in self._begun:
            self._about_to(file, "sync")
        else:
            self._os[1](descriptor)

    def _about_to(self, file: str, what: str, data: bytes = b"", number: int = 0) -> None:
        try:
            self.about_to(what, file, data, number)
        except apsw.Error as error:
            code = errno.ENOSPC if isinstance(error, apsw.FullError) else errno.EIO
            raise OSError(code, os.strerror(code)) from error


class _Fault:
    """Something that is to fail."""

    def __init__(self, what: str, file: str, after: int, times: float) -> None:
        self.what = what
        self._file = file
        self._after = after
        self._times = times

    def is_due(self, what: str, file: str) -> bool:
        """Count an operation if it is of this kind, and tell whether it is to fail."""
        if what != self.what or not file.endswith(self._file):
            return False
        if self._after:
            self._after -= 1
            return False
        is_due = self._times > 0
        self._times = max(0, self._times - 1)
        return is_due


def _ends_commit(data: bytes) -> bool:
    return len(data) == _HEADER_BYTES and data[4:8] != bytes(4)


def _file_of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


class _File(apsw.VFSFile):
    """A file on such a disk."""

    def __init__(self, disk: FaultVFS, base: str, file: str, name: Any, flags: list[int]) -> None:
        self._disk, self._file = disk, file
        self._failed_syncs = disk.failed_syncs(file)
        super().__init__(base, name, flags)

    def xLock(self, level: int) -> None:  # noqa: N802
        try:
            super().xLock(level)
        except apsw.IOError as error:  # a reader that closes last may not lock: apsw is to pass on
            raise apsw.BusyError from error

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.about_to("read", self._file)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.about_to("write", self._file, data, offset)
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.about_to("truncate", self._file, b"", size)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: ARG002, N802
        try:
            self._disk.about_to("sync", self._file)
        except apsw.Error:
            self._failed_syncs = self._disk.failed_syncs(self._file)
            raise
        # As Linux has it, each descriptor that was open when a sync failed is told so, once.
        if self._failed_syncs < self._disk.failed_syncs(self._file):
            self._failed_syncs = self._disk.failed_syncs(self._file)
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
