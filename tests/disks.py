"""A disk that does what the test says: it counts, fails, dies, and its power can be cut.

Every process that is to be seen opens its journals inside the `with` block of a `Disk` of its own.
With a `log`, what each of them does to files is written there, and a `PowerCut` knows from it what
could be on the disk afterwards.
"""

import errno
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import apsw
import support

SECTOR_BYTES = 512


class Entry(NamedTuple):
    """Something that was done to a file."""

    what: str
    file: str
    data: bytes
    number: int


class TornWrite(Exception):  # noqa: N818 (of a test)
    """Raised by `before`: half of what is to be written is, and the process is killed."""


class Disk(apsw.VFS):
    """Does what the operating system does; `before` is called first, and may raise.

    What the journal does to the -wal by itself, beside SQLite, is seen, too.
    """

    def __init__(self, log: Path | None = None, folder: Path | None = None) -> None:
        """Begin to act.

        Args:
            log: what to write down what is done in; others may do so, too.
            folder: of the files that this is about.
        """
        self.operations = 0
        self._folder = str(folder)
        self.failed_syncs: dict[str, int] = {}
        self.before: Callable[..., object] = lambda *_: None
        self._log = None if log is None else log.open("ab", buffering=0)
        self._os = os.write, os.fsync
        super().__init__("faulty", "unix", makedefault=True)

    def __enter__(self) -> Self:
        os.write, os.fsync = self._write, self._fsync
        return self

    def __exit__(self, *_: object) -> None:
        os.write, os.fsync = self._os
        self.unregister()
        if self._log is not None:
            self._log.close()

    def about_to(self, what: str, file: str, data: bytes = b"", number: int = 0) -> None:
        self.operations += 1
        try:
            self.before(what, file, data, number)
        except apsw.Error:
            if what == "sync":
                self.failed_syncs[file] = self.failed_syncs.get(file, 0) + 1
                self.note("failed sync", file)
            raise
        if what != "read":
            self.note(what, file, data, number)

    def note(self, what: str, file: str = "", data: bytes = b"", number: int = 0) -> None:
        """Write an entry of the log, which may also be about what somebody was told."""
        where, name = os.path.split(file)
        if self._log is not None and where in ("", self._folder):
            self._log.write(pickle.dumps(Entry(what, name, bytes(data), number)))

    def xOpen(self, name: Any, flags: list[int]) -> "DiskFile":  # noqa: N802
        file = name if isinstance(name, str) else name.filename() if name else ""
        self.about_to("open", file)
        return DiskFile(self, file, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self.about_to("delete", name)
        super().xDelete(name, sync)

    def _write(self, descriptor: int, data: bytes) -> int:
        file = _file_of(descriptor)
        if file.endswith("-wal"):
            self._about_to(descriptor, "write", data, os.lseek(descriptor, 0, os.SEEK_CUR))
        return self._os[0](descriptor, data)

    def _fsync(self, descriptor: int) -> None:
        if _file_of(descriptor).endswith("-wal"):
            self._about_to(descriptor, "sync")
        else:
            self._os[1](descriptor)

    def _about_to(self, descriptor: int, what: str, data: bytes = b"", number: int = 0) -> None:
        try:
            self.about_to(what, _file_of(descriptor), data, number)
        except apsw.Error as error:
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


def _file_of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, file: str, name: Any, flags: list[int]) -> None:
        self.disk, self.file = disk, file
        self.failed_syncs = disk.failed_syncs.get(file, 0)
        super().__init__("unix", name, flags)

    def xLock(self, level: int) -> None:  # noqa: N802
        try:
            super().xLock(level)
        except apsw.IOError as error:  # a reader that closes last may not lock: apsw is to pass on
            raise apsw.BusyError from error

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self.disk.about_to("read", self.file)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        try:
            self.disk.about_to("write", self.file, data, offset)
        except TornWrite:
            super().xWrite(data[: len(data) // 2], offset)
            support.die()
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self.disk.about_to("truncate", self.file, b"", size)
        super().xTruncate(size)

    def xSync(self, _flags: int) -> None:  # noqa: N802
        try:
            self.disk.about_to("sync", self.file)
        except apsw.Error:
            self.failed_syncs = self.disk.failed_syncs[self.file]
            raise
        # The real disk is left out of it, which takes most of the time away: its power stays.
        # As Linux has it, each descriptor that was open when a sync failed is told so, once.
        if self.failed_syncs < self.disk.failed_syncs.get(self.file, 0):
            self.failed_syncs = self.disk.failed_syncs[self.file]
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)


CODES = {
    "open": apsw.SQLITE_CANTOPEN,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
}


def io_error(what: str, *, full: bool = False) -> apsw.Error:
    """Return what SQLite has for an operation that fails."""
    code = apsw.SQLITE_FULL if full and what in ("write", "truncate") else CODES[what]
    return apsw.exception_for(code)


class PowerCut:
    """Knows what could be on a disk whose power is cut: what was synced, and any of the rest.

    Written sectors that were not synced get there or do not, each on its own. What a sync of the
    -wal that failed should have written gets there or does not, and no later sync makes up for it.
    That files were made is taken to be on the disk at once; that one was removed only when the
    folder is synced, which SQLite does with the first sync of a file that it makes.

    Of the main file a later sync makes up for what one that failed has left: where part of the -wal
    was copied before, SQLite does not copy it again, and there is nothing that a caller could do.
    """

    def __init__(self, log: Path) -> None:
        self._log = log

    def entries(self) -> list[Entry]:
        entries = []
        with self._log.open("rb") as file:
            while True:
                try:
                    entries.append(pickle.load(file))
                except EOFError:
                    return entries

    def leave(self, folder: Path, entries: list[Entry], chance: float, rng: random.Random) -> None:
        """Write the files as a cut after these entries left them.

        Args:
            folder: where; it is made.
            entries: what was done until then.
            chance: how likely it is that something got to the disk that was not synced.
            rng: what decides.
        """
        durable: dict[str, bytearray] = {}
        pending: dict[str, list[tuple[int, bytes] | int]] = {}
        removed: dict[str, bytearray] = {}
        is_new: set[str] = set()

        def some(file: str) -> list[tuple[int, bytes] | int]:
            return [change for change in pending[file] if rng.random() < chance]

        for what, file, data, number in entries:
            if what == "was":
                durable[file], pending[file] = bytearray(data), []
            elif what == "open":
                if file not in durable:
                    durable[file], pending[file] = bytearray(), []
                    is_new.add(file)
            elif what == "delete":
                if file in durable:
                    _apply(durable[file], some(file))
                    removed[file] = durable.pop(file)
            elif what == "truncate":
                pending[file].append(number)
            elif what == "write":
                ends = range(number, number + len(data), SECTOR_BYTES)
                pending[file] += [(o, data[o - number : o - number + SECTOR_BYTES]) for o in ends]
            elif what == "sync":
                _apply(durable[file], pending[file])
                pending[file].clear()
                if file in is_new and file.endswith(("-wal", "-journal")):
                    removed.clear()
                is_new.discard(file)
            elif what == "failed sync" and file.endswith("-wal"):
                is_all = rng.random() < 0.5  # perhaps it only failed to say so
                _apply(durable[file], pending[file] if is_all else some(file))
                pending[file].clear()
        folder.mkdir()
        for file, content in durable.items():
            _apply(content, some(file))
        if removed and rng.random() >= chance:
            durable |= removed
        for file, content in durable.items():
            (folder / file).write_bytes(content)


def _apply(content: bytearray, changes: list[tuple[int, bytes] | int]) -> None:
    for change in changes:
        if isinstance(change, int):
            del content[change:]
            continue
        offset, data = change
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
