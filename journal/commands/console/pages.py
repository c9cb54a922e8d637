"""Long lists, taken a page at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from journal.commands.console.tables import Column, Look, Table

_PAGE_ROWS = 100
"""More than stand on a screen, and soon there."""

_Item = TypeVar("_Item")


def listed(
    columns: Sequence[Column],
    items: Iterable[_Item],
    rows_of: Callable[[list[_Item]], list[list[str]]],
    look: Look,
) -> Iterator[str]:
    """Yield the lines of a table of items; the first page of them settles where its columns stand.

    Args:
        columns: those of the table.
        items: any number.
        rows_of: returns the cells for a page of them.
        look: of the table.
    """
    table = Table(columns, look)
    remaining = iter(items)
    while page := list(islice(remaining, _PAGE_ROWS)):
        yield from table.lines(rows_of(page))
