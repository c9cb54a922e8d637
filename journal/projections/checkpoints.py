"""How far the projections have come, where they begin, and when what is stored is stale.

A fold begins at the first event ever, or at the cut that a file begins with.
At a cut, the base has what the fold had made of the events before it. Where there is no base of
this fold, or another version made it, the states count the events since the cut only.
"""

import hashlib
from collections.abc import Iterable
from functools import reduce
from operator import xor
from typing import Any, NamedTuple

import apsw
from pydantic_core import to_json

from journal.errors import DamagedError
from journal.file.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from journal.file.extent import Extent
from journal.file.names import has_unfolded_kinds
from journal.file.passed_over import mark_of_base, mark_of_rows
from journal.projections.tables import AnyFold, Schema

_ROWS_SQL = {
    "sessions": "SELECT json_array(session, events_before, state) FROM base_session",
    "streams": "SELECT json_array(stream, events_before, session, state) FROM base_stream",
}
_OWN_ROWS_SQL = "SELECT json_array(key, state) FROM base_state WHERE projection = ?"


class Beginning(NamedTuple):
    """Where a fold begins."""

    position: int
    """Of the last event that is folded already; 0 for none."""
    since: int
    """Of the first event that counts."""
    schema: Schema
    """Where the states at the beginning are; None: there are none."""


def beginning_of(connection: apsw.Connection, fold: AnyFold, extent: Extent) -> Beginning:
    """Return where a fold begins in this file.

    Raises:
        DamagedError: its base is not what it was.
    """
    if extent.cut == 0:
        return Beginning(0, 1, None)
    version = fold.version - mark_of_base(connection, extent.cut)
    for name in fold.names:
        row: Any = connection.execute(
            "SELECT version, position, check_digest FROM base WHERE projection = ?", (name,)
        ).fetchone()
        if row is None or row[:2] != (version, extent.cut):
            return Beginning(extent.cut, extent.first, None)
        if row[2] != base_digest(connection, name):
            what = f"is damaged: the base of the projection {name!r} is not what it was"
            raise DamagedError(connection.filename, what, extent.cut)
    return Beginning(extent.cut, 1, "base")


def base_digest(connection: apsw.Connection, name: str) -> str:
    """Return the digest of the rows of a projection's base; FORMAT.md specifies it."""
    sql = _ROWS_SQL.get(name)
    rows: Any = connection.execute(sql or _OWN_ROWS_SQL, None if sql else (name,))
    return combined(_digest(text.encode()) for (text,) in rows)


def row_digest(*columns: int | str | None) -> int:
    """Return the SHA-256 of the text of a row of a base, as SQLite writes it, as a number."""
    return _digest(to_json(columns))


def _digest(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest(), "big")


def combined(digests: Iterable[int]) -> str:
    """Return digests combined by exclusive or, in hexadecimal digits: the same one twice is none.

    So what a base has can be changed row by row, without reading the others.
    """
    return f"{reduce(xor, digests, 0):064x}"


def copy_base(connection: apsw.Connection, fold: AnyFold, schema: str) -> None:
    """Put the states of the base into the tables of a schema, which are empty."""
    parameters = () if fold.owner is None else (fold.owner,)
    for table, select in fold.base_sql.items():
        connection.execute(f"INSERT INTO {schema}.{table} {select}", parameters)


def stored_checkpoint(
    connection: apsw.Connection, fold: AnyFold, last_position: int
) -> Checkpoint | None:
    """Return how far the rows of the file have come; None where there are none.

    Rows that passed over other kinds than this version passes over count as those of another
    version of the fold.

    Raises:
        DamagedError: the checkpoint lies outside the file.
    """
    at = read_checkpoint(connection, fold.names[0], "projection", last_position)
    if at is None:
        return None
    if has_unfolded_kinds(connection):  # earlier packages did not store what they passed over
        return at._replace(version=0)
    return at._replace(version=at.version + mark_of_rows(connection))


def write_checkpoints(
    connection: apsw.Connection, fold: AnyFold, position: int, since: int
) -> None:
    """Write how far a projection has come; its rows have to be there by then."""
    at = Checkpoint(fold.version - mark_of_rows(connection), position, since)
    for name in fold.names:
        write_checkpoint(connection, name, "projection", at)


def is_stale(stored: Checkpoint, fold: AnyFold, extent: Extent) -> bool:
    """Tell whether the rows of the file are of no use: made by another version, or before a cut."""
    return stored.version != fold.version or stored.position < extent.cut
