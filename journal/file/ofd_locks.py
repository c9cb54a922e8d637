"""Open-file-description locks: locks that no other close() of the same file in this process drops.

SQLite's own locks are POSIX locks. They belong to the process and the file: when a second library
in the process (the standard library's `sqlite3`, DuckDB, a backup that reads the file) closes the
file, they are gone. These belong to the open descriptor, and stand beside them.
"""

import struct
from functools import cache
from typing import Final, Literal, NamedTuple

try:
    import fcntl
except ImportError:  # Windows, where a close() drops no locks
    fcntl = None  # type: ignore[assignment]


class Range(NamedTuple):
    """Some bytes of a file that are locked; they need not exist."""

    start: int
    length: int


MAIN: Final = Range(0x4000_0002, 510)
"""In the main file: where SQLite has the lock that all its connections share (os_unix.c)."""

PENDING: Final = Range(0x4000_0000, 1)
"""In the main file: what SQLite locks for a moment before it takes the shared lock (os_unix.c)."""

WRITING: Final = Range(0x4000_0200, 1)
"""In the main file: a byte that SQLite never uses, for who writes or checkpoints."""

INSISTING: Final = Range(0x4000_0201, 1)
"""In the main file: another such byte, for the one who has waited long to write: it is next."""

SHM: Final = Range(128, 1)
"""In the -shm: SQLite's dead man's switch, which says that somebody is there (os_unix.c)."""

READERS: Final = Range(123, 5)
"""In the -shm: SQLite's marks, one of which each reader locks (walformat.html)."""

Kind = Literal["shared", "exclusive", "none"]

_SET: Final = getattr(fcntl, "F_OFD_SETLK", None)
_GET: Final = getattr(fcntl, "F_OFD_GETLK", None)
_IS_64_BIT: Final = struct.calcsize("P") == 8


def try_lock(descriptor: int, kind: Kind, where: Range) -> bool:
    """Take, change or give back a lock, without waiting; tell whether that was possible.

    Raises:
        OSError: the file system has no such locks, or the descriptor is not open for it.
    """
    if fcntl is None or _SET is None:
        return True
    try:
        fcntl.fcntl(descriptor, _SET, _request(kind, where))
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(descriptor: int, where: Range) -> bool:
    """Tell whether anybody else, another library in this process among them, has a lock there.

    Raises:
        OSError: the file system has no such locks.
    """
    if fcntl is None or _GET is None:
        return False
    found = fcntl.fcntl(descriptor, _GET, _request("exclusive", where))
    kind: int = struct.unpack_from("h", found)[0]
    return kind != fcntl.F_UNLCK


def might_work(descriptor: int) -> bool:
    """Tell whether the system at least takes a lock of this sort; for who may only read."""
    if fcntl is None or _SET is None or not _IS_64_BIT:
        return False
    try:
        try_lock(descriptor, "shared", INSISTING)
        try_lock(descriptor, "none", INSISTING)
    except OSError:
        return False
    return True


@cache
def _request(kind: Kind, where: Range) -> bytes:
    """Return the struct flock of Linux on 64 bits: type, whence, start, length, pid (0)."""
    kinds = {"shared": fcntl.F_RDLCK, "exclusive": fcntl.F_WRLCK, "none": fcntl.F_UNLCK}
    return struct.pack("hhqqi4x", kinds[kind], 0, where.start, where.length, 0)


def work(descriptor: int, other: int) -> bool:
    """Tell whether such locks exclude each other on this file, tried with two descriptors of it."""
    if fcntl is None or _SET is None or not _IS_64_BIT:
        return False
    probe = Range(INSISTING.start + 1, 1)
    try:
        if not try_lock(descriptor, "exclusive", probe):
            return True  # somebody else tries just now
        excluded = not try_lock(other, "exclusive", probe)
        try_lock(descriptor, "none", probe)
        try_lock(other, "none", probe)
    except OSError:
        return False
    return excluded
