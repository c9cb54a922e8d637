"""The pages of an SQLite file, read without SQLite: whatever rows are in them.

The format is public (sqlite.org/fileformat2.html). Rows are read whichever table a page belongs to:
that stands in other pages, which may be lost. Reserved bytes at the end of pages, which a journal
does not have, are not allowed for.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

PAGE_SIZES = (4096, 1024, 2048, 8192, 16384, 32768, 65536, 512)
"""Those that there are, the usual one first."""

_HEADER_BYTES = 100
"""What the first page begins with, before it is a page like others."""

_LEAF, _INTERIOR, _LEAF_OF_INDEX, _INTERIOR_OF_INDEX = 0x0D, 0x05, 0x0A, 0x02
_FREE = b"\2"
_LEAF_HEADER_BYTES, _INTERIOR_HEADER_BYTES = 8, 12

_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
"""By their serial types; 8 and 9 are the integers 0 and 1, without a byte."""


class Row(NamedTuple):
    """A row, or an entry of an index, and where in its page it is."""

    start: int
    end: int
    rowid: int
    """0 for an entry of an index, whose last value it is."""
    values: list[Any]
    overflows: bool
    """Whether some of it was on other pages."""


class Pages:
    """A file as pages, numbered from 1; `read` gives one of them, which may lack its end."""

    def __init__(self, read: Callable[[int], bytes], page_size: int, count: int) -> None:
        self._read_page = read
        self.page_size = page_size
        self.count = count

    def page(self, number: int) -> bytes:
        """Return a page; what the file no longer has of it is zeros."""
        return self._read_page(number).ljust(self.page_size, b"\0")

    def is_free(self, number: int) -> bool:
        """Tell whether the map of pages says that a page is not in use: what it holds is old."""
        mapped = self.page_size // 5 + 1  # a page of the map, and those that it has an entry for
        at = (number - 2) % mapped
        if number < 3 or at == 0:
            return False
        entry = 5 * (at - 1)
        return self.page(number - at)[entry : entry + 1] == _FREE

    def rows(self, number: int, page: bytes) -> tuple[list[Row], bool]:
        """Return the rows of a leaf of a table, and whether the page has nothing else.

        A page that does not say what it is may be one all the same.
        """
        start = _HEADER_BYTES if number == 1 else 0
        if page[start] in (_LEAF_OF_INDEX, _INTERIOR_OF_INDEX) or self._has_no_rows(page, start):
            return [], True
        rows, is_whole = self._cells(page, start, _LEAF_HEADER_BYTES, self._row)
        return (rows, is_whole) if page[start] == _LEAF or is_whole else ([], False)

    def entries(self, number: int, page: bytes) -> list[Row]:
        """Return the entries of a page of an index: those between its pages are on no leaf."""
        start = _HEADER_BYTES if number == 1 else 0
        if page[start] == _LEAF_OF_INDEX:
            return self._cells(page, start, _LEAF_HEADER_BYTES, self._entry)[0]
        if page[start] == _INTERIOR_OF_INDEX:
            return self._cells(page, start, _INTERIOR_HEADER_BYTES, self._inner_entry)[0]
        return []

    def _has_no_rows(self, page: bytes, start: int) -> bool:
        """Tell whether this is a page of a table, and in order, that has none.

        Rows that it had show in it all the same: they moved elsewhere, and are there.
        """
        count = int.from_bytes(page[start + 3 : start + 5])
        if page[start] == _LEAF:
            begins = int.from_bytes(page[start + 5 : start + 7]) or 65536
            return count == 0 and begins == self.page_size
        return page[start] == _INTERIOR and bool(self._children(page, start))

    def children(self, number: int, page: bytes) -> list[int]:
        """Return the pages below one of a table or an index: none if it is a leaf, or broken."""
        start = _HEADER_BYTES if number == 1 else 0
        is_interior = page[start] in (_INTERIOR, _INTERIOR_OF_INDEX)
        return self._children(page, start) if is_interior else []

    def row_count(self, page: bytes) -> int:
        """Return how many rows a leaf of a table has; 0 for other pages."""
        return int.from_bytes(page[3:5]) if page[0] == _LEAF else 0

    def unused(self, page: bytes) -> range:
        """Return which bytes of a page of a table lie between its pointers and its rows."""
        if page[0] not in (_LEAF, _INTERIOR):
            return range(0)
        header_bytes = _LEAF_HEADER_BYTES if page[0] == _LEAF else _INTERIOR_HEADER_BYTES
        first = header_bytes + 2 * int.from_bytes(page[3:5])
        return range(first, int.from_bytes(page[5:7]) or 65536)

    def longest_text(self, page: bytes, row: Row, column: int) -> int:
        """Return how many bytes a text can have so that its row takes all that is free in its page.

        Args:
            page: a leaf of a table.
            row: one of its rows.
            column: the place of the text, or of NULL, in the row, from 0.
        """
        size, at = varint(page, row.start)
        rowid_bytes = varint(page, at)[1] - at
        text = row.values[column]
        rest = size - (1 if text is None else _text_bytes(len(text.encode())))
        room = row.end - row.start + self._free_bytes(page)
        length = room
        while True:
            size = rest + _text_bytes(length)
            fits = _varint_bytes(size) + rowid_bytes + size <= room
            if length == 0 or (fits and size <= self.page_size - 35):
                return length
            length -= 1

    def _free_bytes(self, page: bytes) -> int:
        """Return how much is free in a leaf: what is unused, and between its rows."""
        count = len(self.unused(page)) + page[7]
        at, following = 0, int.from_bytes(page[1:3])
        while at < following <= self.page_size - 4:
            at, following = following, int.from_bytes(page[following : following + 2])
            count += int.from_bytes(page[at + 2 : at + 4])
        return count

    def _children(self, page: bytes, start: int) -> list[int]:
        count = int.from_bytes(page[start + 3 : start + 5])
        first = start + _INTERIOR_HEADER_BYTES
        if count > (self.page_size - first) // 4:
            return []
        places = range(first, first + 2 * count, 2)
        cells = [int.from_bytes(page[at : at + 2]) for at in places] + [start + 8]
        numbers = [int.from_bytes(page[at : at + 4]) for at in cells]
        return numbers if all(1 <= number <= self.count for number in numbers) else []

    def _cells(
        self, page: bytes, start: int, header_bytes: int, read: Any
    ) -> tuple[list[Row], bool]:
        """Return what the cells of a page hold, and whether that is all, in order and apart."""
        count = int.from_bytes(page[start + 3 : start + 5])
        first = start + header_bytes
        if not 0 < count <= (self.page_size - first) // 4:
            return [], False
        rows: list[Row] = []
        is_whole = True
        for place in range(first, first + 2 * count, 2):
            at = page[place] << 8 | page[place + 1]
            row = read(page, at) if at >= first + 2 * count else None
            if row is None:
                is_whole = False
            else:
                is_whole = is_whole and (not rows or rows[-1].rowid < row.rowid or not row.rowid)
                rows.append(row)
        ends = sorted((row.start, row.end) for row in rows)
        is_apart = all(one[1] <= following[0] for one, following in pairwise(ends))
        return rows, is_whole and is_apart

    def _row(self, page: bytes, at: int) -> Row | None:
        try:
            size, payload = varint(page, at)
            rowid, payload = varint(page, payload)
        except IndexError:
            return None
        return self._read(page, at, payload, size, rowid, self.page_size - 35)

    def _entry(self, page: bytes, at: int) -> Row | None:
        try:
            size, payload = varint(page, at)
        except IndexError:
            return None
        most = (self.page_size - 12) * 64 // 255 - 23
        return self._read(page, at, payload, size, 0, most)

    def _inner_entry(self, page: bytes, at: int) -> Row | None:
        return self._entry(page, at + 4)  # the number of a page is before it

    def _read(
        self, page: bytes, start: int, at: int, size: int, rowid: int, most: int
    ) -> Row | None:
        """Read a payload, whose first bytes are in the page: all if it has no more than `most`."""
        if size <= most:
            end = at + size
            values = record(page, at, end) if end <= self.page_size else None
            return None if values is None else Row(start, end, rowid, values, overflows=False)
        least = (self.page_size - 12) * 32 // 255 - 23
        local = least + (size - least) % (self.page_size - 4)
        if local > most:
            local = least
        end = at + local
        if end + 4 > self.page_size or size > self.count * self.page_size:
            return None
        rest = self._overflow(int.from_bytes(page[end : end + 4]), size - local)
        if rest is None:
            return None
        payload = page[at:end] + rest
        values = record(payload, 0, size)
        return None if values is None else Row(start, end + 4, rowid, values, overflows=True)

    def _overflow(self, number: int, size: int) -> bytes | None:
        pieces = []
        while size > 0:
            if not 1 <= number <= self.count:
                return None
            page = self.page(number)
            pieces.append(page[4 : 4 + size])
            size -= len(pieces[-1])
            number = int.from_bytes(page[:4])
        return b"".join(pieces)


@contextmanager
def page_file(path: Path, page_size: int) -> Iterator[Pages]:
    """Lend the pages of a file that nobody has open."""
    with path.open("rb") as file:

        def read(number: int) -> bytes:
            file.seek((number - 1) * page_size)
            return file.read(page_size)

        size = os.fstat(file.fileno()).st_size
        yield Pages(read, page_size, -(-size // page_size))


def varint(page: bytes, at: int) -> tuple[int, int]:
    """Return the integer of up to nine bytes that stands somewhere, and where it ends.

    Raises:
        IndexError: the page ends before.
    """
    value = page[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for place in range(at + 1, at + 8):
        byte = page[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    value = value << 8 | page[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _varint_bytes(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))


def _text_bytes(length: int) -> int:
    """Return how many bytes of a record a text of so many bytes takes, its type among them."""
    return _varint_bytes(13 + 2 * length) + length


def record(data: bytes, at: int, end: int) -> list[Any] | None:
    """Return the values of a record that fills a range of bytes; None where nothing does."""
    try:
        header, at_type = varint(data, at)
        body = header_end = at + header
        if not at_type <= header_end <= end:
            return None
        values: list[Any] = []
        while at_type < header_end:
            kind = data[at_type]
            at_type += 1
            if kind >= 0x80:
                kind, at_type = varint(data, at_type - 1)
            if kind == 0:
                values.append(None)
            elif kind < 7:
                after = body + _INTEGER_BYTES[kind]
                values.append(int.from_bytes(data[body:after], signed=True))
                body = after
            elif kind in (8, 9):
                values.append(kind - 8)
            elif kind >= 12:
                after = body + (kind - 12) // 2
                piece = data[body:after]
                values.append(piece.decode() if kind % 2 else piece)
                body = after
            else:  # a float, which no table of a journal has, or nothing at all
                return None
            if body > end:
                return None
    except (IndexError, UnicodeDecodeError):
        return None
    return values if body == end and at_type == header_end else None


# Rows of events where nothing says where they begin. Their header shows: its size, NULL for the
# position, which is the rowid, and seven types.
_INTEGER = rb"[\x01-\x06\x08\x09]"
_INTEGER_OR_NULL = rb"[\x00-\x06\x08\x09]"
_EVENT_HEADER = re.compile(
    rb"(?=[\x09-\x0d]\x00"
    + 2 * _INTEGER
    + _INTEGER_OR_NULL
    + _INTEGER
    + rb"(?:\x00|[\x0d-\x7f]|[\x81-\xff][\x80-\xff]{0,3}[\x00-\x7f])"
    + 2 * _INTEGER_OR_NULL
    + rb")",
    re.DOTALL,
)
_ROWID_BYTES_MAX = 9


def strewn_events(page: bytes) -> list[Row]:
    """Return the events anywhere in a page, by what their rows look like, but for long ones."""
    found: list[Row] = []
    for match in _EVENT_HEADER.finditer(page):
        row = _row_before(page, match.start())
        if row is not None:
            found.append(row)
    return found


def _row_before(page: bytes, header: int) -> Row | None:
    """Return the row whose record begins at `header`, if its size and rowid stand before that."""
    for rowid_start in range(header - 1, max(header - 1 - _ROWID_BYTES_MAX, 0), -1):
        if page[rowid_start - 1] >= 0x80:  # not where a varint can end
            continue
        rowid, end = varint(page, rowid_start)
        if end != header:
            continue
        for start in (rowid_start - 1, rowid_start - 2):
            if start < 0:
                break
            size, end = varint(page, start)
            if end != rowid_start or header + size > len(page):
                continue
            values = record(page, header, header + size)
            if values is not None:
                return Row(start, header + size, rowid, values, overflows=False)
    return None
