"""The -shm: what SQLite notes there of the -wal and of how much of it is in the file already.

Source: sqlite.org/walformat.html#the_wal_index_header; numbers are in the order of the machine.
"""

import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from journal.file.paths import read_at

_HEADER = struct.Struct("=16x I 12x 8s 56x I 28x I")


class WalIndex(NamedTuple):
    """What the header of a -shm says."""

    frames: int
    """In the -wal, up to the last commit."""
    salt: bytes
    """Of the -wal: another one each time that it begins anew."""
    backfilled: int
    """Frames that are in the file."""
    attempted: int
    """Frames that a checkpoint may have brought there: more, while one is under way, or after it
    was cut short."""

    def is_overwritten(self, now: "WalIndex") -> bool:
        """Tell whether what was to be seen then may be written over by now.

        That is what the mark of a reader prevents: that the file gets what is newer, or that the
        -wal begins anew while some of it is only there.
        """
        if now.salt == self.salt:
            return now.attempted > self.frames
        return now.attempted > 0 or self.backfilled < self.frames


def read_wal_index(shm: int) -> WalIndex:
    """Return what a -shm says, through a descriptor of it."""
    header = read_at(shm, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return WalIndex(0, b"", 0, 0)
    return WalIndex._make(_HEADER.unpack(header))


def make_wal_index(shm: Path, main: int) -> None:
    """Make an empty -shm if there is none, with mode (and by root, owner) of the file, as SQLite.

    Raises:
        OSError: it cannot be made.
    """
    try:
        descriptor = os.open(shm, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        return
    try:
        status = os.fstat(main)
        if hasattr(os, "fchown") and hasattr(os, "geteuid") and os.geteuid() == 0:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    finally:
        os.close(descriptor)


def open_wal_index(shm: Path, *, is_writable: bool) -> int:
    """Open a -shm for locks; no more through a link than SQLite does.

    Raises:
        OSError: it cannot be opened.
    """
    access = os.O_RDWR if is_writable else os.O_RDONLY
    return os.open(shm, access | getattr(os, "O_NOFOLLOW", 0))


def forget_wal_index(shm: int) -> None:
    """Have whoever comes next read the -wal instead of believing a -shm that nobody uses.

    SQLite makes such a -shm shorter. Who still has it in its memory, because its lock was dropped,
    would die of that (SIGBUS); a header of zeros says the same, and can always be read.
    """
    if os.fstat(shm).st_size == 0:
        return
    os.lseek(shm, 0, os.SEEK_SET)
    os.write(shm, bytes(_HEADER.size))
