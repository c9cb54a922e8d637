"""The -shm: what SQLite notes there of the -wal and of how much of it is in the file already.

Source: sqlite.org/walformat.html#the_wal_index_header; numbers are in the order of the machine.
"""

import os
import struct

_HEADER = struct.Struct("=16x I 12x 8s 56x I 28x I")
_pread = getattr(os, "pread", None)  # Windows has none, and no locks of ours that need this


class WalIndex:
    """Reads the header of a -shm through a descriptor of it."""

    def __init__(self, shm: int) -> None:
        self._shm = shm

    def checkpoint(self) -> tuple[bytes, int, int]:
        """Return how far the checkpoint of the -wal is.

        Returns:
            the salt of the -wal, which is another one each time that it begins anew; how many of
            its frames are in the file; and how many a checkpoint may have brought there: more,
            while one is under way, or after it was cut short.
        """
        _, salt, backfilled, attempted = self._read()
        return salt, backfilled, attempted

    def may_begin_anew(self) -> bool:
        """Tell whether all of the -wal is in the file: the next commit may begin it anew then."""
        frames, _, backfilled, _ = self._read()
        return frames == backfilled

    def _read(self) -> tuple[int, bytes, int, int]:
        header = b"" if _pread is None else _pread(self._shm, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return 0, b"", 0, 0
        frames, salt, backfilled, attempted = _HEADER.unpack(header)
        return frames, salt, backfilled, attempted
