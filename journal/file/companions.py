"""Whether a file that is open, and its -wal and -shm, are still the ones that were opened."""

import os
from pathlib import Path

from journal import errors
from journal.file.foreign_writes import ForeignWrites

Key = tuple[int, int]
"""Device and inode, which tell a file from every other."""


def key_of(file: Path | str | int) -> Key | None:
    """Return the key of what a path leads to, or of a descriptor; None where there is nothing."""
    try:
        status = os.stat(file)  # noqa: PTH116 (it takes two thirds of the time)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_is_at(path: Path, key: Key) -> int:
    """Make sure that a path still leads to the file that was opened, and return its `st_mtime_ns`.

    Raises:
        FileReplacedError: it does not.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (as above)
    except OSError:
        raise errors.FileReplacedError(path, "was moved or deleted while it was open") from None
    if (status.st_dev, status.st_ino) != key:
        raise errors.FileReplacedError(path, "was replaced by another file while it was open")
    return status.st_mtime_ns


class Companions:
    """The -wal and -shm beside a file, as they are while locks of ours are on it.

    Args:
        path: the file.
        main: a descriptor of it.
        shm: one of its -shm.
    """

    def __init__(self, path: Path, main: int, shm: int) -> None:
        self._shm = f"{path}-shm"
        self._wal = f"{path}-wal"
        self._shm_key = key_of(shm)
        self._wal_key = key_of(self._wal)
        self.foreign_writes = ForeignWrites(main, shm)

    def have_the_same_shm(self) -> bool:
        """Tell whether the -shm is the one that was opened."""
        return key_of(self._shm) == self._shm_key

    def have_the_same_wal(self) -> bool:
        """Tell whether the -wal is the one that was there at first.

        Not for each transaction: who asks a -wal for its times makes each of its syncs dearer.
        """
        return key_of(self._wal) == self._wal_key

    def are_there(self) -> bool:
        """Tell whether the -shm is the same, and a -wal is there."""
        return self.have_the_same_shm() and os.access(self._wal, os.F_OK)
