"""Where events were appended first: ranges of positions that came from another journal.

A journal that goes on from a copy has them, and a position in one means an event of that journal.
"""

import hashlib
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import apsw
from pydantic import BaseModel, ConfigDict

from journal.errors import DamagedError
from journal.events.timestamps import text_from_epoch_ns
from journal.file.identity import meta

_BRANCH_DIGITS_MIN = 8

_ORIGINS_SQL = """
SELECT first_seq, last_seq, journal_id, branch, label, source_first_seq, check_digest,
    json_array(first_seq, last_seq, journal_id, branch, label, source_first_seq, declared_at)
FROM {table} ORDER BY first_seq
"""
"""`check_digest` is over the last column: see FORMAT.md."""

_INSERT_SQL = """
INSERT INTO origin
    (first_seq, last_seq, journal_id, branch, label, source_first_seq, declared_at, check_digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


_LAST_SQL = """
SELECT first_seq, last_seq, journal_id, branch, label, source_first_seq
FROM origin ORDER BY first_seq DESC LIMIT 1
"""


class Origin(BaseModel):
    """A range of positions, both ends inclusive, that came from another journal.

    There it was called `label`, if anything, and its events have the positions from
    `source_first_position` on. `branch` is "" but where two histories of that journal parted.
    """

    model_config = ConfigDict(frozen=True)

    first_position: int
    last_position: int
    journal_id: UUID
    branch: str
    label: str | None
    source_first_position: int


def read_origins(connection: apsw.Connection) -> tuple[Origin, ...]:
    """Return the ranges that came from other journals, in order.

    Raises:
        DamagedError: one is not what it was when it was written.
    """
    found: list[Origin] = []
    for first, origin in origins_in(connection, "origin"):
        if origin is None:
            what = f"is damaged: its row about where position {first} came from"
            raise DamagedError(connection.filename, what, first)
        found.append(origin)
    return tuple(found)


def origins_in(connection: apsw.Connection, table: str) -> Iterator[tuple[int, Origin | None]]:
    """Yield the rows of `origin`, or of a table like it, by their first positions, in order.

    One that is not what it was when it was written, or overlaps the one before it, is None.
    """
    end = 0
    rows: Any = connection.execute(_ORIGINS_SQL.format(table=table))
    for first, last, journal_id, branch, label, source_first, check_digest, text in rows:
        is_right = hashlib.sha256(text.encode()).hexdigest() == check_digest
        if not is_right or not _is_range(end, first, last, source_first):
            yield first, None
            continue
        end = last
        origin = Origin(
            first_position=first,
            last_position=last,
            journal_id=UUID(journal_id),
            branch=branch,
            label=label,
            source_first_position=source_first,
        )
        yield first, origin


def _is_range(end: int, first: int, last: Any, source_first: Any) -> bool:
    """Tell whether positions are those of a range that follows the one that ends at `end`."""
    return type(last) is type(source_first) is int and end < first <= last and source_first >= 1


def write_origin(connection: apsw.Connection, origin: Origin) -> None:
    """Write a range into the file."""
    columns = (
        origin.first_position,
        origin.last_position,
        str(origin.journal_id),
        origin.branch,
        origin.label,
        origin.source_first_position,
        text_from_epoch_ns(time.time_ns()),
    )
    marks = ", ".join("?" * len(columns))
    text: Any = connection.execute(f"SELECT json_array({marks})", columns).get
    digest = hashlib.sha256(text.encode()).hexdigest()
    connection.execute(_INSERT_SQL, (*columns, digest))


def extend_origins(connection: apsw.Connection, origin: Origin) -> None:
    """Write a range that follows the last one, as one with it where both go on with each other."""
    row: Any = connection.execute(_LAST_SQL).fetchone()
    same = (str(origin.journal_id), origin.branch, origin.label)
    if row is not None and row[2:5] == same:
        first, last, _, _, _, source_first = row
        follows = last + 1 == origin.first_position
        if follows and source_first + last - first + 1 == origin.source_first_position:
            connection.execute("DELETE FROM origin WHERE first_seq = ?", (first,))
            begins = {"first_position": first, "source_first_position": source_first}
            origin = origin.model_copy(update=begins)
    write_origin(connection, origin)


def has_origins(connection: apsw.Connection) -> bool:
    """Tell whether a file has events that were appended to another journal first."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM origin)").get)


def origin_of(connection: apsw.Connection, position: int, last: int) -> Origin | None:
    """Return the range that a position lies in, of this journal itself where no other has it.

    None where all events are its own. `last` is the last position of the file.
    """
    sql = "SELECT first_seq, last_seq, journal_id, branch, label, source_first_seq FROM origin"
    before: Any = connection.execute(
        f"{sql} WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1", (position,)
    ).fetchone()
    after: Any = connection.execute(
        "SELECT min(first_seq) FROM origin WHERE first_seq > ?", (position,)
    ).get
    if before is None and after is None:
        return None
    first = 1
    if before is not None:
        first, end, journal_id, branch, label, source_first = before
        if position <= end:
            return Origin(
                first_position=first,
                last_position=end,
                journal_id=UUID(journal_id),
                branch=branch,
                label=label,
                source_first_position=source_first,
            )
        first = end + 1
    return Origin(
        first_position=first,
        last_position=last if after is None else after - 1,
        journal_id=UUID(meta(connection, "journal_id")),
        branch="",
        label=meta(connection, "label"),
        source_first_position=first,
    )


def ranges_named(connection: apsw.Connection, name: str, last: int) -> list[tuple[int, int]]:
    """Return the ranges of positions that came from what is called so, or has this id or branch.

    Of a branch, eight digits will do.

    Raises:
        ValueError: nothing did.
    """
    rows: Any = connection.execute(
        "SELECT first_seq, last_seq, label, journal_id, branch FROM origin ORDER BY first_seq"
    )
    is_long = len(name) >= _BRANCH_DIGITS_MIN
    own = name in (meta(connection, "label"), meta(connection, "journal_id"))
    found: list[tuple[int, int]] = []
    end = 0
    for first, range_last, label, journal_id, branch in rows:
        if own and end + 1 < first:
            found.append((end + 1, first - 1))
        if name in (label, journal_id) or (is_long and branch.startswith(name)):
            found.append((first, range_last))
        end = range_last
    if own and end < last:
        found.append((end + 1, last))
    if not found and not own:
        message = f"origin: no event came from a journal with the label, id or branch {name!r:.240}"
        raise ValueError(message)
    return found


def copied_up_to(connection: apsw.Connection) -> int:
    """Return the last position that came from another journal, as a copy of it; 0 for none."""
    found: Any = connection.execute("SELECT max(last_seq) FROM origin").get
    return found if isinstance(found, int) else 0
