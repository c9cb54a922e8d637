"""The -shm: what SQLite notes there of the -wal and of how much of it is in the file already.

Source: sqlite.org/walformat.html#the_wal_index_header; numbers are in the order of the machine.
"""

import os
import struct
from typing import NamedTuple

_HEADER = struct.Struct("=16x I 12x 8s 56x I 28x I")
_pread = getattr(os, "pread", None)  # Windows has none, and no locks of ours that need this


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


def read_wal_index(shm: int) -> WalIndex:
    """Return what a -shm says, through a descriptor of it."""
    header = b"" if _pread is None else _pread(shm, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return WalIndex(0, b"", 0, 0)
    return WalIndex._make(_HEADER.unpack(header))
