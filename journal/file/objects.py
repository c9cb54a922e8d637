"""A file is input: what its schema says is held against the package before anything is queried.

Definitions are never taken from the file. Under our names there must be the tables and views that
the package makes, with no trigger on them but ours and no index but those that are known. Else a
view in the place of a table could run for ever, and a trigger do what it likes when we write.
"""

import re
from functools import cache
from typing import Any, NamedTuple

import apsw

from journal.errors import DamagedError
from journal.file.schema import schema_sql

# Besides those of schema.sql: what projections own, and what ANALYZE makes.
_OTHERS_TABLES = re.compile(r"projection_[a-z_]+|sqlite_stat\d|sqlite_sequence")
_KNOWN_INDEXES = re.compile(r"sqlite_autoindex_.*|read_[a-z_]+")

_OBJECTS_SQL = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema"
ADDED_TABLES = ("writer", "origin_block", "origin_absent", "origin_key")
"""What earlier versions of the format did not have; opening a file for writing makes them."""

ADDED_INDEXES = ("origin_source",)

_COLUMNS_SQL = (
    'SELECT name, upper(type), "notnull", pk, hidden FROM pragma_table_xinfo(?, ?) ORDER BY cid'
)


def check_objects(connection: apsw.Connection) -> None:
    """Refuse a file in which something else stands under the names of the format.

    Raises:
        DamagedError: it is so.
    """
    expected = _expected()
    here: dict[str, str] = {}
    as_made: set[str] = set()
    rows: Any = connection.execute(_OBJECTS_SQL)
    for kind, name, table, sql in rows:
        if not isinstance(name, str):
            raise _refused(connection, f"{name!r} in its schema is no name")
        if table in expected.types or _OTHERS_TABLES.fullmatch(str(table)):
            _check_object(connection, kind, name, sql)
        if kind in ("table", "view"):
            here[name] = kind
            if expected.tables.get(name) == sql:
                as_made.add(name)  # SQLite has its columns from that very text
    for name, kind in expected.types.items():
        found = here.get(name, "missing")
        may_be_missing = kind == "view" or name in ADDED_TABLES  # nothing here needs the views
        if found != kind and not (may_be_missing and found == "missing"):
            raise _refused(connection, f"{name} is not a {kind}: it is {found}")
    _check_columns(connection, here.keys() - as_made)


def _check_columns(connection: apsw.Connection, names: set[str]) -> None:
    """Refuse tables of ours, among those of these names, that have not the columns they should."""
    for name, wanted in _expected().columns.items():
        if name in names:
            found: Any = connection.execute(_COLUMNS_SQL, (name, "main")).fetchall()
            if found[: len(wanted)] != wanted or any(row[4] for row in found):
                raise _refused(connection, f"the table {name} has other columns than the journal's")


def _check_object(connection: apsw.Connection, kind: str, name: str, sql: str | None) -> None:
    """Refuse a trigger, an index or a virtual table of a name or on a table of ours."""
    expected = _expected()
    if kind == "trigger" and expected.triggers.get(name) != _plain(sql):
        raise _refused(connection, f"the trigger {name!r} is not the journal's")
    if kind == "index" and name not in expected.indexes and not _KNOWN_INDEXES.fullmatch(name):
        raise _refused(connection, f"the index {name!r} is not the journal's")
    if kind == "table" and not str(sql).upper().startswith("CREATE TABLE"):
        raise _refused(connection, f"{name} is not a plain table")


def check_is_table(connection: apsw.Connection, name: str) -> None:
    """Refuse a file in which something else than a table has this name.

    Raises:
        DamagedError: it is so.
    """
    kinds: Any = connection.execute(
        "SELECT type, sql FROM main.sqlite_schema WHERE name = ?", (name,)
    ).fetchall()
    if [kind for kind, _ in kinds] != ["table"] or not str(kinds[0][1]).startswith("CREATE TABLE"):
        raise _refused(connection, f"{name} is not a table")


def our_columns() -> dict[str, list[str]]:
    """Return the columns of each table that the package makes; none for its views."""
    types, columns = _expected()[:2]
    return {name: [column[0] for column in columns.get(name, ())] for name in types}


def _refused(connection: apsw.Connection, what: str) -> DamagedError:
    shown = what if what.isprintable() else ascii(what)
    return DamagedError(connection.filename, f"is damaged: {shown[:300]}")


class _Expected(NamedTuple):
    """What the package makes."""

    types: dict[str, str]
    """Whether a table or a view, by name."""
    columns: dict[str, list[Any]]
    """Those of each table."""
    tables: dict[str, str]
    """The statements that make them."""
    triggers: dict[str, str]
    indexes: frozenset[str]


@cache
def _expected() -> _Expected:
    connection = apsw.Connection(":memory:")
    connection.execute(schema_sql())
    rows: list[Any] = connection.execute(_OBJECTS_SQL).fetchall()
    types = {name: kind for kind, name, _, _ in rows if kind in ("table", "view")}
    columns = {
        name: connection.execute(_COLUMNS_SQL, (name, "main")).fetchall()
        for name, kind in types.items()
        if kind == "table"
    }
    tables = {name: sql for kind, name, _, sql in rows if kind == "table"}
    triggers = {name: _plain(sql) for kind, name, _, sql in rows if kind == "trigger"}
    indexes = frozenset(name for kind, name, _, _ in rows if kind == "index")
    return _Expected(types, columns, tables, triggers, indexes)


def _plain(sql: object) -> str:
    """Return a statement without what may be written otherwise and means the same."""
    return " ".join(str(sql).split())
