"""Erasing: what is left of deleted texts in the unused part of a page.

SQLite overwrites what is deleted (`secure_delete`). But where it splits or merges pages, rows move
to others, and what they were can stay between the pointers of a page and its first row, from where
nothing deletes it. Here one row of that page grows so far that it fills it, and shrinks again: by
the one it overwrites what was there, by the other SQLite overwrites that.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, NamedTuple

import apsw

from journal.file.connections import Database
from journal.file.stale_wal import has_wal
from journal.maintenance.pages import Pages, Row

_COLUMNS = {
    "event": "data",
    "base_session": "state",
    "base_stream": "state",
    "projection_session": "metrics",
    "projection_stream": "error",
}
"""The tables that rows are deleted from, each with the column that has their texts."""

_EVENT_LEAVES = 8
"""Events are added at the end, where none moves, and deleted at the beginning, where rows of the
first three pages do."""

_ROUNDS = 3
_PAGES_AT_ONCE = 200

_OUT_OF_REACH = 34
"""A single row that fills its page as far as it can leaves the bytes before this one."""

_TEXT = re.compile(rb"[ -~]{5}|(?:[\xc2-\xef][\x80-\xbf]{1,2}){3}")
"""What shows there that it was no number or pointer."""


class _Leaf(NamedTuple):
    table: str
    number: int


def erase(database: Database, wait_seconds: float) -> bool:
    """Overwrite what is left of deleted texts, and bring all of the -wal into the file.

    Args:
        database: is open for writing.
        wait_seconds: how long to wait, each time, until nobody reads from the -wal.

    Returns:
        whether that came about. Where others write, or keep reading, it may not.

    Raises:
        JournalError: those of `Database.write`.
    """
    for _ in range(_ROUNDS):
        if not database.empty_wal(wait_seconds):
            return False
        with database.read() as connection:
            leaves = list(_with_leftovers(connection))
        if not leaves:
            return True
        for first in range(0, len(leaves), _PAGES_AT_ONCE):
            if not database.empty_wal(wait_seconds):
                return False
            with database.write() as connection:
                if not has_wal(database.path):  # else the file is not all there is
                    _overwrite(connection, leaves[first : first + _PAGES_AT_ONCE])
    return False


def _pages_of(connection: apsw.Connection) -> Pages:
    """Return the pages of the file, without what the -wal has of them."""
    page_size: int = connection.pragma("page_size")

    def read(number: int) -> bytes:
        # Not by a descriptor of our own: closing it would drop the locks of SQLite.
        return connection.read("main", 0, (number - 1) * page_size, page_size)[1]

    return Pages(read, page_size, connection.pragma("page_count"))


def _with_leftovers(connection: apsw.Connection) -> Iterator[_Leaf]:
    pages = _pages_of(connection)
    sql = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"
    tables: list[Any] = connection.execute(sql).fetchall()
    for table, root in tables:
        if table in _COLUMNS:
            most = _EVENT_LEAVES if table == "event" else None
            leaves = islice(_leaves(pages, root), most)
            for number, page in chain([(root, pages.page(root))], leaves):
                if _has_leftovers(pages, page):
                    yield _Leaf(table, number)


def _leaves(pages: Pages, root: int) -> Iterator[tuple[int, bytes]]:
    """Return the pages of a table that have its rows, in their order."""
    above = [root]
    for _ in range(pages.count):  # in a damaged file they may be above themselves
        if not above:
            return
        number = above.pop()
        page = pages.page(number)
        children = pages.children(number, page)
        if children:
            above += reversed(children)
        else:
            yield number, page


def _has_leftovers(pages: Pages, page: bytes) -> bool:
    """Tell whether there is something where nothing should be, as far as a row can reach.

    Elsewhere, it is a text that counts. So it is in pages without rows: one at the root of a table
    may have had some, if a program that does not overwrite what is deleted had made the file.
    """
    unused = pages.unused(page)
    reached = max(unused.start, _OUT_OF_REACH) if pages.row_count(page) else unused.stop
    left = page[reached : unused.stop]
    # What fills a page can be one byte too short.
    return len(left) - left.count(0) > 1 or bool(_TEXT.search(page, unused.start, reached))


def _overwrite(connection: apsw.Connection, leaves: Iterable[_Leaf]) -> None:
    """Overwrite what is left there, in a transaction for writing; the -wal is empty."""
    pages = _pages_of(connection)
    with _without_triggers(connection):
        for table, number in leaves:
            page = pages.page(number)
            if not _has_leftovers(pages, page):
                continue  # it was overwritten meanwhile
            place = _place(connection, table)
            rows = [row for row in pages.rows(number, page)[0] if _has_text_at(row, place)]
            if rows:
                row = min(rows, key=lambda row: row.end - row.start)
                _fill(connection, table, row.rowid, pages.longest_text(page, row, place))
            elif connection.execute(f"SELECT 1 FROM main.{table} LIMIT 1").fetchone() is None:
                connection.execute(f"DELETE FROM main.{table}")  # it overwrites the only page


def _place(connection: apsw.Connection, table: str) -> int:
    """Return which value of a row is the text, from 0; -1 where another version made the table."""
    sql = "SELECT cid FROM pragma_table_info(?) WHERE name = ?"
    place = connection.execute(sql, (table, _COLUMNS[table])).get
    return place if isinstance(place, int) else -1


def _has_text_at(row: Row, place: int) -> bool:
    return 0 <= place < len(row.values) and isinstance(row.values[place], str | None)


@contextmanager
def _without_triggers(connection: apsw.Connection) -> Iterator[None]:
    """Let events be updated: each is what it was again before anybody sees it."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    try:
        yield
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)


def _fill(connection: apsw.Connection, table: str, rowid: int, length: int) -> None:
    """Have the text of a row get as long as that, and become what it was."""
    column = _COLUMNS[table]
    sql = f"SELECT CAST({column} AS BLOB) FROM main.{table} WHERE rowid = ?"
    for (text,) in connection.execute(sql, (rowid,)).fetchall():
        for each in (b" " * length, text):
            connection.execute(
                f"UPDATE main.{table} SET {column} = CAST(? AS TEXT) WHERE rowid = ?", (each, rowid)
            )
