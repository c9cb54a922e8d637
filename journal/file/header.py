"""The first page of a file, where it is read and written without SQLite: to have locks before it.

Source: sqlite.org/fileformat2.html#the_database_header.
"""

import os
from contextlib import closing, suppress
from functools import cache

import apsw

from journal.file.paths import read_at

SETTINGS = "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA page_size = 4096"
"""What must be said before anything is in a file."""

_SECTOR_BYTES = 512
_MODE = slice(18, 20)
_WAL = b"\2\2"


def is_in_wal_mode(descriptor: int) -> bool:
    """Tell whether a file says that it is written and read through a -wal."""
    return read_at(descriptor, len(_WAL), _MODE.start) == _WAL


def begin_file(descriptor: int) -> bool:
    """Write a first page with nothing in it, in WAL mode, if the file has none; tell whether so.

    SQLite would switch an empty file to WAL in a transaction with a -journal, and have it for
    itself meanwhile. Another library in this process does not see that lock, so it would roll
    back the -journal. Where the disk does not take the page, SQLite may say so.
    """
    if not lacks_first_page(descriptor):
        return False
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, _blank_page())
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        return False
    return True


def lacks_first_page(descriptor: int) -> bool:
    """Tell whether a file has nothing, or less of its first page than was to be written.

    A power cut leaves some sectors of it. Nothing follows before all of it is on the disk.
    """
    page = _blank_page()
    found = read_at(descriptor, len(page) + 1, 0)
    is_torn = found != page and len(found) % _SECTOR_BYTES == 0 and len(found) <= len(page)
    return is_torn and all(one in (0, other) for one, other in zip(found, page, strict=False))


@cache
def _blank_page() -> bytes:
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(f"{SETTINGS}; PRAGMA user_version = 1; PRAGMA user_version = 0")
        page = bytearray(connection.serialize("main"))
    page[_MODE] = _WAL
    return bytes(page)
