"""The tables that projections keep their states in: made, held against the package's, written.

A `Fold` says what a projection is; its `States` are what it has made of the events so far: those in
use in memory, the others in the tables of `tables.sql`, which are those of the file (schema "main")
or temporary ones like them, in which a rebuild works beside ("temp").
"""

from collections.abc import Iterable
from functools import cache
from itertools import chain, islice
from typing import Any, Literal, Protocol, TypeVar

import apsw

from journal._resources import text_of
from journal.errors import PrunedError
from journal.events.kinds import KINDS
from journal.file.decoding import StoredEvent
from journal.file.extent import Extent, end_of_fold, read_extent
from journal.file.reading import rows_between
from journal.file.schema import object_sql
from journal.projections.as_of import AsOf, up_to
from journal.projections.neighbourhood import Neighbourhood, rows_of

Schema = Literal["main", "temp", "base"] | None
"""Whose tables hold the states: the file's, temporary ones, those of a cut, or nobody's. With the
last two, all that is folded stays in memory."""

_OWN = "projection_state"
TABLES = ("projection_session", "projection_stream", "projection_anomaly", _OWN)
VIEWS = ("sessions", "streams", "projection_states")

COUNTER_MAX = 2**63 - 1
"""Counters stop here, at SQLite's largest integer; the events keep the exact figures."""

# One statement that writes many rows takes two thirds of the time of one for each.
_ROWS_AT_ONCE = 50


class States(Protocol):
    """The states of a projection."""

    position: int
    """That of the last event folded."""

    def fold(self, rows: Iterable[StoredEvent]) -> None:
        """Fold the events of these rows, which follow `position`."""

    def write(self) -> None:
        """Write the states that changed since they were last written."""

    def make_room(self) -> None:
        """Write and drop what is least likely to change again, if there is much in memory."""


StatesT_co = TypeVar("StatesT_co", bound=States, covariant=True)


class Fold(Protocol[StatesT_co]):
    """What a projection is, to those who keep it up to date."""

    names: tuple[str, ...]
    version: int
    tables: dict[str, tuple[str, ...]]
    """The tables it keeps its states in, each with its columns, key first."""
    base_sql: dict[str, str]
    """Of those tables that a base has states for: the query that gives them, column by column."""
    owner: str | None
    """The name under which it shares `projection_state` with others; None: they are its own."""

    def states(self, connection: apsw.Connection, schema: Schema, position: int) -> StatesT_co:
        """Return the states that are in the tables of `schema`, which have come to `position`."""


AnyFold = Fold[States]


# Making them


@cache
def _statements() -> dict[str, str]:
    """Return the statements of tables.sql by the names of what they make."""
    text = text_of("journal.projections", "tables.sql")
    metrics = KINDS["performance_metrics_recorded"].fields
    metrics_sql = object_sql("p.metrics", metrics, inside=("metrics",))
    text = text.replace("json_object(/* metrics */)", metrics_sql)
    found = {}
    for statement in text.split(";\n"):
        _, create, rest = statement.partition("CREATE ")
        if create:
            found[rest.split()[1]] = create + rest
    return found


@cache
def _shapes() -> dict[str, list[Any]]:
    """Return the columns of the package's tables, as SQLite describes them."""
    connection = apsw.Connection(":memory:")
    for name in TABLES:
        connection.execute(_statements()[name])
    return {name: _shape(connection, name) for name in TABLES}


def _shape(connection: apsw.Connection, name: str) -> list[Any]:
    return connection.execute(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main')",
        (name,),
    ).fetchall()


def have_our_shape(connection: apsw.Connection) -> bool:
    """Tell whether the tables of the file are as this version makes them, and its views are there.

    Where they are not, another version made them, or somebody else, and they are to be made anew.
    """
    names = (*TABLES, *VIEWS)
    marks = ", ".join("?" * len(names))
    here = dict(
        connection.execute(f"SELECT name, type FROM sqlite_schema WHERE name IN ({marks})", names)
    )
    wanted = {**dict.fromkeys(TABLES, "table"), **dict.fromkeys(VIEWS, "view")}
    return here == wanted and all(
        _shape(connection, name) == shape for name, shape in _shapes().items()
    )


def has_own_states(connection: apsw.Connection) -> bool:
    """Tell whether the table of the application's states is as this version makes it."""
    kind = connection.execute("SELECT type FROM sqlite_schema WHERE name = ?", (_OWN,)).get
    return kind == "table" and _shape(connection, _OWN) == _shapes()[_OWN]


def make_tables(connection: apsw.Connection, *, keep_own: bool = False) -> None:
    """Make the tables and views in the file, in place of what has their names, with no rows.

    With `keep_own`, an application's states stay if they can be read, as they may be of events that
    are gone. Else their checkpoints go back to the cut: so they keep events from being pruned.
    """
    kept = {_OWN} if keep_own and has_own_states(connection) else set()
    names = [name for name in (*VIEWS, *TABLES) if name not in kept]
    for name in names:
        kind = connection.execute("SELECT type FROM sqlite_schema WHERE name = ?", (name,)).get
        if kind in ("table", "view"):
            connection.execute(f"DROP {kind.upper()} main.{name}")
    own = "type = 'projection' AND name NOT IN ('sessions', 'streams')"
    if keep_own and not kept:
        cut = read_extent(connection).cut
        sql = "UPDATE checkpoint SET version = 0, position = ?, since = ? WHERE"
        connection.execute(f"{sql} {own}", (cut, cut + 1))
    sql = "DELETE FROM checkpoint WHERE type = 'projection'"
    connection.execute(f"{sql} AND NOT ({own})" if keep_own else sql)
    for name, statement in _statements().items():
        if name not in kept:
            connection.execute(statement)


def make_views(connection: apsw.Connection, *, flat: bool) -> None:
    """Make the views anew, where the tables are.

    Args:
        connection: to the file.
        flat: for a file that has indexes on the texts of ids: then SQLite finds rows by those,
            without making all of a view first.
    """
    for name in VIEWS:
        statement = _statements()[name]
        connection.execute(f"DROP VIEW IF EXISTS main.{name}")
        connection.execute(statement.replace(" AS MATERIALIZED (", " AS (") if flat else statement)


def make_temporary(connection: apsw.Connection, tables: Iterable[str]) -> None:
    """Make some of the tables as temporary ones."""
    for name in tables:
        statement = _statements()[name]
        connection.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))


# Filling them


def fold_next(
    connection: apsw.Connection,
    states: States,
    extent: Extent,
    at_most: int,
    as_of: AsOf = None,
    near: Neighbourhood | None = None,
) -> None:
    """Fold the events that follow, up to a position at most, in memory; fewer if they are large.

    Only those of a neighbourhood, if there is one, and those by then, as of a moment.

    Raises:
        DamagedError: one of them is missing.
        PrunedError: they were pruned meanwhile.
    """
    if states.position < extent.cut:
        raise PrunedError(connection.filename, f"position {states.position}", extent.first)
    end = end_of_fold(connection, states.position, at_most)
    if near is None:
        rows = rows_between(connection, extent, states.position, end)
    else:
        rows = rows_of(connection, extent, near, states.position, end)
    states.fold(up_to(rows, as_of))
    states.position = end


def copy_rows(connection: apsw.Connection, fold: AnyFold) -> None:
    """Put what the file has of a projection into the temporary tables, which are empty."""
    for table in fold.tables:
        select = f"INSERT INTO temp.{table} SELECT * FROM main.{table}"
        if fold.owner is None:
            connection.execute(select)
        else:
            connection.execute(f"{select} WHERE projection = ?", (fold.owner,))


def delete_rows(connection: apsw.Connection, fold: AnyFold) -> None:
    """Delete what the file has of a projection."""
    for table in fold.tables:
        if fold.owner is None:
            connection.execute(f"DELETE FROM main.{table}")
        else:
            connection.execute(f"DELETE FROM main.{table} WHERE projection = ?", (fold.owner,))


@cache
def _insert_sql(table: str, columns: tuple[str, ...], count: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    rows = ", ".join([row] * count)
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES {rows}"


def insert(
    connection: apsw.Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Iterable[Iterable[Any]],
) -> None:
    """Write rows, their counters no larger than SQLite's largest integer."""
    remaining = iter(rows)
    while some := list(islice(remaining, _ROWS_AT_ONCE)):
        sql = _insert_sql(table, columns, len(some))
        values = list(chain.from_iterable(some))
        try:
            connection.execute(sql, values)
        except OverflowError:
            connection.execute(sql, list(map(storable, values)))


def storable(value: Any) -> Any:
    """Return a value that SQLite can hold: counters stop at its largest integer."""
    return min(value, COUNTER_MAX) if isinstance(value, int) else value
