"""Space: what is free in a file, and giving it back to the operating system in small steps."""

from typing import Any, NamedTuple

import apsw

PAGES_AT_ONCE = 64
"""So many pages are given back in one transaction: it takes some milliseconds."""

_WORTH_A_SHARE = 10
"""Less than a tenth of the file is kept for what comes: taking it again is dearer."""


class Pages(NamedTuple):
    """The pages of a file; sizes are in bytes."""

    page_bytes: int
    page_count: int
    free_count: int

    @property
    def file_bytes(self) -> int:
        """The size of the file, once its -wal is in it."""
        return self.page_bytes * self.page_count

    @property
    def used_bytes(self) -> int:
        """What is not free."""
        return self.page_bytes * (self.page_count - self.free_count)


def pages_of(connection: apsw.Connection) -> Pages:
    """Return how many pages there are."""
    names = ("page_size", "page_count", "freelist_count")
    found: list[Any] = [connection.pragma(name) for name in names]
    return Pages(*found)


def is_worth_giving_back(pages: Pages) -> bool:
    """Tell whether more than a tenth of the file is free."""
    return pages.free_count * _WORTH_A_SHARE > pages.page_count


def is_too_large(pages: Pages, bytes_max: int) -> bool:
    """Tell whether more has to go, so that a file gets no larger than this.

    A tenth of it may stay free, so what is used has to be less.
    """
    return pages.file_bytes > bytes_max and pages.used_bytes * _WORTH_A_SHARE > bytes_max * (
        _WORTH_A_SHARE - 1
    )


def give_back_some(connection: apsw.Connection) -> int:
    """Give back some pages, in a transaction for writing; return how many are still free."""
    connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
    free: int = connection.pragma("freelist_count")
    return free
