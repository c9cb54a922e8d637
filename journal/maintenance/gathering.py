"""Gathering whatever rows of a journal are in a file, from its pages, into tables of its own.

What each row is shows by its shape. Pages that the schema gives to tables which no rows are wanted
of are passed over, as far as it can be read. What to believe of a row is for `salvaging`.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from journal.events.kinds import KINDS
from journal.file import forking
from journal.file.decoding import NOT_DECODED
from journal.file.names import kind_of
from journal.maintenance.pages import PAGE_SIZES, Pages, Row, page_file, strewn_events

SCHEMA: Final = """
CREATE TABLE raw_event (seq INTEGER NOT NULL, kind, session, stream, timestamp, data,
    session_prev, stream_prev, is_sound, page);
CREATE TABLE raw_gap (first_seq, last_seq);
CREATE TABLE raw_head (page INTEGER, id INTEGER, uuid, last_seq, event_count);
CREATE TABLE raw_id (page INTEGER, id INTEGER, uuid);
CREATE TABLE raw_kind (code, name, fields, page);
CREATE TABLE raw_block (first_seq INTEGER, last_seq, min_timestamp, max_timestamp, salt,
    content_digest, digest, redacted_digest, sealed, page);
CREATE TABLE raw_absent (first_seq, last_seq, reason, counts, min_timestamp, max_timestamp,
    digest_before, digest_after, forgotten, declared_at, check_digest, page);
CREATE TABLE raw_base (projection, version, position, check_digest, page);
CREATE TABLE raw_base_session (session, events_before, state, page);
CREATE TABLE raw_base_stream (stream, events_before, session, state, page);
CREATE TABLE raw_checkpoint (name, type, version, position, since, page);
CREATE TABLE raw_append_key (key, first_seq, last_seq, digest, used_at, page);
CREATE TABLE raw_origin (first_seq, last_seq, journal_id, branch, label, source_first_seq,
    declared_at, check_digest, page);
CREATE TABLE raw_meta (key, value, page);
CREATE TABLE raw_root (owner, page);
CREATE TABLE raw_child (parent INTEGER, page INTEGER);
CREATE TABLE page_of (page INTEGER PRIMARY KEY, owner);
"""
"""What is looked up by a number has to be an integer by its type, or no index is of use.
`is_sound`: nothing speaks against the row but that no digest speaks for it. `raw_gap`: positions
that a page leaves out. `raw_root`: the pages at which tables, and their indexes, begin.
`raw_child`: those below a page. `page_of`: the tables that pages belong to by these."""

_INDEXES: Final = """
CREATE INDEX raw_event_by_seq ON raw_event (seq);
CREATE INDEX raw_head_by_id ON raw_head (id);
CREATE INDEX raw_head_by_page ON raw_head (page);
CREATE INDEX raw_id_by_page ON raw_id (page);
CREATE INDEX raw_block_by_first ON raw_block (first_seq)
"""
"""Made when all rows are there. Without them, what is looked up for each row takes as long as all
rows."""

_PAGE_OF_SQL: Final = """
CREATE INDEX raw_child_by_parent ON raw_child (parent);
WITH RECURSIVE below AS (
    SELECT owner, page FROM raw_root
    UNION SELECT b.owner, c.page FROM below AS b JOIN raw_child AS c ON c.parent = b.page
)
INSERT INTO page_of
SELECT page, min(owner) FROM below GROUP BY page HAVING min(owner) = max(owner)
"""
"""What two tables lay claim to is of neither: one of their pages is not what it was."""

_INT, _TEXT, _BYTES, _NULL = int, str, bytes, type(None)
_INT_OR_NULL, _TEXT_OR_NULL = (_INT, _NULL), (_TEXT, _NULL)

_SHAPES: Final = {
    # The rowid stands for the first NULL.
    "raw_event": (
        _NULL, _INT, _INT, _INT_OR_NULL, _INT, _TEXT_OR_NULL, _INT_OR_NULL, _INT_OR_NULL
    ),
    "raw_head": (_NULL, _BYTES, _INT, _INT),
    "raw_kind": (_NULL, _TEXT, _TEXT_OR_NULL),
    "raw_block": (_NULL, _INT, _INT, _INT, _TEXT_OR_NULL, _TEXT, _TEXT, _TEXT_OR_NULL, _INT),
    "raw_absent": (
        *(_NULL, _INT, _TEXT, _TEXT_OR_NULL, _INT_OR_NULL, _INT_OR_NULL),
        *(_TEXT_OR_NULL, _TEXT_OR_NULL, _TEXT_OR_NULL, _TEXT, _TEXT),
    ),
    "raw_base": (_TEXT, _INT, _INT, _TEXT),
    "raw_base_session": (_NULL, _INT, _TEXT_OR_NULL),
    "raw_base_stream": (_NULL, _INT, _INT, _TEXT_OR_NULL),
    "raw_checkpoint": (_TEXT, _TEXT, _INT, _INT, _INT),
    "raw_append_key": (_TEXT, _INT_OR_NULL, _INT_OR_NULL, _TEXT, _INT),
    "raw_origin": (_NULL, _INT, _TEXT, _TEXT, _TEXT_OR_NULL, _INT, _TEXT, _TEXT),
    "raw_meta": (_TEXT, _TEXT),
}  # fmt: skip
_SCHEMA_SHAPE: Final = (_TEXT, _TEXT, _TEXT, _INT, _TEXT_OR_NULL)
"""type, name, tbl_name, rootpage, sql."""
_ENTRY_SHAPES: Final = {"raw_id": (_BYTES, _INT), "raw_kind": (_TEXT, _TEXT, _INT)}

_WANTED: Final = ("session", "stream", *(table.removeprefix("raw_") for table in _SHAPES))
_FOREIGN_SQL: Final = f"""
DELETE FROM {{table}} WHERE page IN (
    SELECT page FROM page_of WHERE owner NOT IN ({", ".join(f"'{it}'" for it in _WANTED)}))
"""
"""Tables of the application, and those that explain a copy, may have rows that look like ours."""

_ROWS_AT_ONCE: Final = 1_000
_SAMPLE: Final = 200

_HOLE: Final = bytes(64)
"""Zeros that nobody wrote: texts have none, and other values no so many."""


class _Shape(NamedTuple):
    table: str
    types: tuple[Any, ...]


def _by_length(shapes: dict[str, Any]) -> dict[int, list[_Shape]]:
    found: dict[int, list[_Shape]] = {}
    for table, types in shapes.items():
        found.setdefault(len(types), []).append(_Shape(table, types))
    return found


_ROWS_BY_LENGTH: Final = _by_length(_SHAPES)
_SCHEMA: Final = _by_length({"sqlite_schema": _SCHEMA_SHAPE})
_ENTRIES_BY_LENGTH: Final = _by_length(_ENTRY_SHAPES)


def _table_of(values: list[Any], shapes: dict[int, list[_Shape]]) -> str | None:
    for table, types in shapes.get(len(values), ()):
        if all(map(isinstance, values, types)):
            return table
    return None


def gather(
    scratch: apsw.Connection, image: Path, page_size: int, progress: Callable[[int, int], None]
) -> None:
    """Put every row that is in the pages of a file into the tables of `SCHEMA`.

    Args:
        scratch: has these tables.
        image: the file.
        page_size: in bytes.
        progress: is called with the number of pages done, and of those there are.
    """
    with forking.inside_sqlite():
        scratch.execute("BEGIN")
    gathered = _Gathered(scratch)
    with page_file(image, page_size) as pages:
        for number in range(1, pages.count + 1):
            _gather_page(pages, number, gathered)
            if number % 100 == 0 or number == pages.count:
                progress(number, pages.count)
    gathered.flush()
    with forking.inside_sqlite():
        scratch.execute(_PAGE_OF_SQL)
        for table in {*_SHAPES, *_ENTRY_SHAPES} - {"raw_event"}:  # digests prove events
            scratch.execute(_FOREIGN_SQL.format(table=table))
        scratch.execute("COMMIT")
        scratch.execute(_INDEXES)


def page_size_of(image: Path, said: int) -> int:
    """Return the size of a file's pages: the one at which most events show.

    Args:
        image: the file.
        said: what the file says; it counts where others are no better.
    """
    sizes = dict.fromkeys([said, *PAGE_SIZES] if said in PAGE_SIZES else PAGE_SIZES)
    return max(sizes, key=lambda size: size * _events_in_sample(image, size))


def _events_in_sample(image: Path, page_size: int) -> int:
    count = 0
    with page_file(image, page_size) as pages:
        for number in range(1, pages.count + 1, max(1, pages.count // _SAMPLE)):
            rows, is_whole = pages.rows(number, pages.page(number))
            # The rows of a page begin at its end; a page that is shorter ends elsewhere.
            if is_whole and rows and max(row.end for row in rows) == page_size:
                count += sum(_table_of(it.values, _ROWS_BY_LENGTH) == "raw_event" for it in rows)
    return count


class _Gathered:
    """Rows on their way into the tables."""

    def __init__(self, scratch: apsw.Connection) -> None:
        self._scratch = scratch
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._count = 0

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        self._rows.setdefault(table, []).append(row)
        self._count += 1
        if self._count >= _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        with forking.inside_sqlite():
            for table, rows in self._rows.items():
                places = ", ".join("?" * len(rows[0]))
                self._scratch.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
        self._rows.clear()
        self._count = 0


def _gather_page(pages: Pages, number: int, gathered: _Gathered) -> None:
    page = pages.page(number)
    if not page.strip(b"\0"):
        return
    rows, is_whole = pages.rows(number, page)
    events = []
    for row in rows:
        table = _table_of(row.values, _ROWS_BY_LENGTH)
        if table == "raw_event":
            events.append(row)
        elif table is not None:
            _add_row(table, row, number, gathered)
    _gather_entries(pages, number, page, gathered)
    if not pages.is_free(number):
        _gather_tree(pages, number, page, rows, gathered)
    if pages.is_free(number):
        for row in events if is_whole else strewn_events(page):
            gathered.add("raw_event", (row.rowid, *row.values[1:], False, number))
    elif is_whole:
        _add_whole(events, number, gathered)
    else:
        _add_strewn(page, events, number, gathered)


def _add_row(table: str, row: Row, number: int, gathered: _Gathered) -> None:
    values = row.values if row.values[0] is not None else [row.rowid, *row.values[1:]]
    if table == "raw_head":
        if len(values[1]) == 16:
            gathered.add(table, (number, *values))
    elif table == "raw_kind":
        if _can_be_kind(*values[1:]):
            gathered.add(table, (*values, number))
    else:
        gathered.add(table, (*values, number))


def _gather_tree(
    pages: Pages, number: int, page: bytes, rows: list[Row], gathered: _Gathered
) -> None:
    """Take in what a page says of others: where tables begin, and which pages are below it."""
    for row in rows:
        if _table_of(row.values, _SCHEMA) is not None:
            type_, _, owner, root, _ = row.values
            if type_ in ("table", "index"):
                gathered.add("raw_root", (owner, root))
    for child in pages.children(number, page):
        gathered.add("raw_child", (number, child))


def _gather_entries(pages: Pages, number: int, page: bytes, gathered: _Gathered) -> None:
    for entry in pages.entries(number, page):
        table = _table_of(entry.values, _ENTRIES_BY_LENGTH)
        if table == "raw_kind":
            name, fields, code = entry.values
            if _can_be_kind(name, fields or None):
                gathered.add(table, (code, name, fields or None, number))
        elif table == "raw_id" and len(entry.values[0]) == 16:
            gathered.add(table, (number, entry.values[1], entry.values[0]))


def _can_be_kind(name: str, fields: str | None) -> bool:
    """Tell whether a row of `kind` may say so: any text can be a name, not any the fields."""
    try:
        kind_of(name, fields)
    except NOT_DECODED:
        return name in KINDS  # whose fields are known
    return True


def _add_whole(events: list[Row], number: int, gathered: _Gathered) -> None:
    """Take in the events of a page in which everything is in order."""
    for row in events:
        values = row.rowid, *row.values[1:], not row.overflows, number
        gathered.add("raw_event", values)
    for one, following in pairwise(events):
        if following.rowid != one.rowid + 1:
            gathered.add("raw_gap", (one.rowid + 1, following.rowid - 1))


def _add_strewn(page: bytes, events: list[Row], number: int, gathered: _Gathered) -> None:
    """Take in what events there are in a page that is broken, or no page of rows.

    Rows lie one before the other, the latest first. One that the next does not follow may be cut
    off there. Where there is something between them, the page was changed, not only lost in part.
    """
    by_start = {row.start: row for row in strewn_events(page)}
    by_start |= {row.start: row for row in events}
    found = [by_start[start] for start in sorted(by_start)]
    end = len(page)
    is_changed = False
    for row, following in pairwise([*found, None]):
        assert row is not None  # noqa: S101 (for type checkers)
        ends_well = row.end == end if following is None else row.end == following.start
        if following is not None and ends_well:
            ends_well = following.rowid == row.rowid - 1
        between = page[row.end : end if following is None else following.start]
        is_lost = between and (_HOLE in between or not between.strip(b"\0"))
        is_changed = is_changed or (not is_lost and (bool(between) or not ends_well))
        sound = ends_well and not row.overflows
        gathered.add("raw_event", (row.rowid, *row.values[1:], sound, number))
    if found:
        begins = int.from_bytes(page[5:7])
        if page[0] == 0x0D and 8 <= begins < found[0].start:
            before = page[begins : found[0].start]
            is_changed = is_changed or bool(_HOLE not in before and before.strip(b"\0"))
        if is_changed:
            gathered.add("raw_gap", (found[0].rowid, found[0].rowid))
