"""What becomes of a copy before it is shipped: it is checked, folded, explained and closed."""

from collections.abc import Callable
from pathlib import Path

import apsw

from journal import errors
from journal._resources import text_of
from journal.file import forking
from journal.file.blocks import Tail
from journal.file.creating import add_missing_kinds
from journal.file.extent import read_extent
from journal.file.identity import meta, set_meta
from journal.file.schema import events_view_sql, flat_events_view_sql
from journal.maintenance.block_check import Progress, check_blocks
from journal.maintenance.file_check import check_sqlite
from journal.maintenance.findings import Findings
from journal.maintenance.manifest import Shipment, read_shipment, write_manifest
from journal.projections.catching_up import catch_up_copy
from journal.projections.lifecycle_states import LifecycleFold
from journal.projections.tables import have_our_shape, make_tables, make_views

Report = Callable[[float], None]
"""Is told how much of a step is done, from 0.0 to 1.0."""

_TABLES = ("README", "manifest")

# SQLite should not know that the tables of names are small: it would begin with them and look up
# the events one by one where a query asks for all. Nor are samples of texts to be left.
_FORGET_SQL = """
DELETE FROM sqlite_stat1 WHERE tbl IN ('session', 'stream', 'kind');
DROP TABLE IF EXISTS sqlite_stat4
"""


def check_events(connection: apsw.Connection, source: Path, report: Report) -> None:
    """Write the last block so that it covers all events, and hold every event against its block.

    Raises:
        DamagedError: one is not what was appended.
    """
    with forking.inside_sqlite(), connection:
        extent = read_extent(connection)
        Tail(connection, extent).write_open(connection, extent.last)
    found = Findings(source)
    connection.execute("BEGIN")
    check_blocks(connection, extent, found, progress=_share_of(report))
    connection.execute("COMMIT")
    _refuse(found)


def fold(connection: apsw.Connection, report: Report) -> None:
    """Bring the built-in projections up to the last event."""
    with forking.inside_sqlite():
        add_missing_kinds(connection)
        if not have_our_shape(connection):
            with connection:
                make_tables(connection)
    catch_up_copy(connection, LifecycleFold(), _share_of(report))


def check_pages(connection: apsw.Connection, source: Path) -> None:
    """Have SQLite look at everything, before the read indexes are there, which take it long.

    Raises:
        DamagedError: it finds something.
    """
    found = Findings(source)
    check_sqlite(connection, found)
    _refuse(found)


def close_for_good(
    connection: apsw.Connection, path: Path, *, indexes: bool, report: Report
) -> Shipment:
    """Say in the file that it is a closed copy, and add what its readers need.

    Returns:
        what it holds.
    """
    with forking.inside_sqlite(), connection:
        if meta(connection, "closed") is None:  # what closed it before says more
            set_meta(connection, "closed", "ship")
        connection.execute("DELETE FROM meta WHERE key IN ('wal_id', 'wal_follows')")
        _make_tables(connection)
        _make_views(connection, flat=indexes)
    _make_indexes(connection, wanted=indexes, report=report)
    with forking.inside_sqlite(), connection:
        shipment = read_shipment(connection, path, read_indexes=indexes)
        write_manifest(connection, shipment)
    with forking.inside_sqlite():
        connection.execute("PRAGMA incremental_vacuum").fetchall()  # a page with each step
    return shipment


def _make_tables(connection: apsw.Connection) -> None:
    """Make what explains the file, in place of whatever has those names."""
    for name in _TABLES:
        kind = connection.execute(
            "SELECT type FROM sqlite_schema WHERE name = ? COLLATE NOCASE", (name,)
        ).get
        if kind is not None:
            connection.execute(f"DROP {kind} main.{name}")
    connection.execute(text_of("journal.maintenance", "shipped.sql"))


def _make_views(connection: apsw.Connection, *, flat: bool) -> None:
    connection.execute("DROP VIEW IF EXISTS main.events")
    connection.execute(flat_events_view_sql() if flat else events_view_sql())
    make_views(connection, flat=flat)


def _make_indexes(connection: apsw.Connection, *, wanted: bool, report: Report) -> None:
    """Make the read indexes anew, or drop those that are there; and let SQLite count everything."""
    statements = text_of("journal.maintenance", "read_indexes.sql").split(";\n")[:-1]
    steps = len(statements) + 1
    for done, statement in enumerate(statements):
        name = statement.split("CREATE INDEX ")[1].split()[0]
        with forking.inside_sqlite():
            connection.execute(f"DROP INDEX IF EXISTS main.{name}")
            if wanted:
                connection.execute(statement)
        report((done + 1) / steps)
    with forking.inside_sqlite():
        connection.execute("ANALYZE")  # which reads every index through
        connection.execute(_FORGET_SQL)


def _refuse(found: Findings) -> None:
    if found.count:
        first = found.first[0]
        raise errors.DamagedError(found.path, f"is damaged: {first.text}", first.position)


def _share_of(report: Report) -> Progress:
    return lambda done, total: report(done / total if total else 1.0)
