"""Which kinds a fold passes over is part of the version that its rows are stored with.

Two packages with the same fold, of which one knows a kind more, make different rows of the same
events. So where a file has kinds that a package does not know, it stores the version of a fold less
a multiple of 2^32, which the names of these kinds give. To a package that knows one of them, or
lacks another one, that is another version. Who knows all of them stores the version as it is.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import Final

import apsw
from pydantic_core import to_json

from journal.events.kinds import KINDS

_STEP: Final = 2**32
"""More than any version of a fold."""

_REMARK_SQL: Final = "SET version = version + :old - :new WHERE version BETWEEN 1 - :old AND :most"


def unknown_kinds(connection: apsw.Connection) -> set[str]:
    """Return the names of the kinds of the file that this version does not know."""
    return {name for (name,) in connection.execute("SELECT name FROM kind") if name not in KINDS}


def mark_of_rows(connection: apsw.Connection) -> int:
    """Return what to take from a fold's version to get that of its rows."""
    return _mark(unknown_kinds(connection))


def mark_of_base(connection: apsw.Connection, cut: int, codes: Iterable[int] = ()) -> int:
    """Return what to take from a fold's version to get that of its base.

    Only what was pruned counts: a base cannot be folded anew when a kind comes later. Where the
    file does not say which kinds that was, all of its kinds count.

    Args:
        connection: to the file.
        cut: where the base is.
        codes: the kinds of events up to there that are not pruned yet.
    """
    sql = "SELECT count(*) FROM absent WHERE last_seq <= ? AND counts IS NULL"
    if connection.execute(sql, (cut,)).get:
        return mark_of_rows(connection)
    counts = "json_each(iif(json_valid(counts), counts, '{}'))"  # a file is input
    sql = f"SELECT DISTINCT key FROM absent JOIN {counts} WHERE last_seq <= ?"
    names = {name for (name,) in connection.execute(sql, (cut,))}
    sql = "SELECT name FROM kind WHERE code IN (SELECT value FROM json_each(?))"
    names.update(name for (name,) in connection.execute(sql, (to_json(list(codes)).decode(),)))
    return _mark(names - KINDS.keys())


def shown_version(stored: int) -> int:
    """Return the version of a fold, whatever it passed over."""
    return stored if stored > 0 else stored % _STEP


def add_kind(connection: apsw.Connection, name: str, fields: str | None) -> int:
    """Add a kind to the file, and return its code.

    There is no event of it yet. So what is folded stays what it is, and is not folded anew because
    this version does not know the kind.
    """
    old = mark_of_rows(connection)
    connection.execute("INSERT INTO kind (name, fields) VALUES (?, ?)", (name, fields))
    code = connection.last_insert_rowid()
    new = mark_of_rows(connection)
    if new != old:
        marks = {"old": old, "new": new, "most": _STEP - 1 - old}
        connection.execute(f"UPDATE checkpoint {_REMARK_SQL} AND type = 'projection'", marks)
        of_all_kinds = "SELECT 1 FROM absent WHERE last_seq <= position AND counts IS NULL"
        connection.execute(f"UPDATE base {_REMARK_SQL} AND EXISTS ({of_all_kinds})", marks)
    return code


def _mark(names: Collection[str]) -> int:
    if not names:
        return 0
    digest = hashlib.sha256(to_json(sorted(map(str, names)))).digest()
    return (1 + int.from_bytes(digest[:4], "big") // 2) * _STEP
