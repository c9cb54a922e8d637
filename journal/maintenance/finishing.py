"""What becomes of a copy before it is shipped: it is checked, folded, explained and closed."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

import apsw

from journal import errors
from journal._resources import text_of
from journal.file import forking
from journal.file.blocks import Tail
from journal.file.creating import add_missing_kinds
from journal.file.extent import Extent, read_extent
from journal.file.identity import meta, set_meta
from journal.file.opening import open_reader
from journal.file.origins import has_origins
from journal.file.paths import uri_of
from journal.file.schema import events_view_sql, flat_events_view_sql
from journal.file.writers import forget_writers
from journal.maintenance.block_check import Progress, Proof, check_blocks
from journal.maintenance.file_check import check_sqlite
from journal.maintenance.findings import Findings
from journal.maintenance.manifest import (
    Counts,
    Shipment,
    read_shipment,
    write_manifest,
)
from journal.projections.catching_up import catch_up_copy
from journal.projections.lifecycle_states import LifecycleFold
from journal.projections.tables import have_our_shape, make_tables, make_views

Report = Callable[[float], None]
"""Is told how much of a step is done, from 0.0 to 1.0."""

ClosedBy = Literal["ship", "delta"]
"""What made a copy, as it says itself."""

_TABLES = ("README", "manifest")
_ANALYSIS_ROWS = 1_000  # of each index: more would take as long as making one
_SLICE_SECONDS = 0.05
_STEPS_BETWEEN_LOOKS = 5_000  # of SQLite's machine; its own check looks once for so many pages

# SQLite should not know that the tables of names are small: it would begin with them and look up
# the events one by one where a query asks for all. Nor are samples of texts to be left.
_FORGET_SQL = """
DELETE FROM sqlite_stat1 WHERE tbl IN ('session', 'stream', 'kind');
DROP TABLE IF EXISTS sqlite_stat4
"""


def check(connection: apsw.Connection, copy: Path, source: Path, report: Report) -> Counts:
    """Write the last block so that it covers all events, and hold everything against it.

    Every event is held against its block, in two halves at once, and SQLite looks at every page
    meanwhile: nearly all of that happens inside SQLite, so that threads share the processors.

    Returns:
        how many events there are of each kind.

    Raises:
        DamagedError: something in it is not what was appended.
    """
    with forking.inside_sqlite(), connection:
        extent = read_extent(connection)
        if meta(connection, "closed") is None:  # else nothing was appended since it was written
            Tail(connection, extent).write_open(connection, extent.last)
    middle = _middle(connection, extent)
    found = [Findings(source) for _ in range(3)]
    is_over = threading.Event()
    with ExitStack() as stack:
        readers = [stack.enter_context(closing(_open_beside(copy, is_over))) for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        rest = pool.submit(check_blocks, readers[0], extent, found[1], after=middle)
        pages = pool.submit(check_sqlite, readers[1], found[2])
        both: list[Future[Any]] = [rest, pages]
        try:
            with connection:
                first_half = check_blocks(
                    connection, extent, found[0], up_to=middle, progress=_share_of(report)
                )
            while not all(each.done() for each in both):
                wait(both, timeout=_SLICE_SECONDS)  # on Windows no Ctrl-C ends one without an end
        except BaseException:
            is_over.set()
            raise
        pages.result()
        proofs = first_half, rest.result()
    for each in found:
        if each.count:
            first = each.first[0]
            raise errors.DamagedError(source, f"is damaged: {first.text}", first.position)
    with forking.inside_sqlite():
        return _counts(connection, proofs)


def _middle(connection: apsw.Connection, extent: Extent) -> int:
    """Return the end of the block in the middle, 0 where there is none."""
    sql = "SELECT last_seq FROM block WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1"
    with forking.inside_sqlite():
        last: Any = connection.execute(sql, ((extent.cut + extent.last) // 2,)).get
    return last if isinstance(last, int) else 0


def _open_beside(copy: Path, is_over: threading.Event) -> apsw.Connection:
    """Open a copy once more, for a thread that is to end when nobody waits for it any more."""
    connection = open_reader(uri_of(copy, mode="ro"), copy)
    connection.set_progress_handler(is_over.is_set, _STEPS_BETWEEN_LOOKS)
    return connection


def _counts(connection: apsw.Connection, proofs: Iterable[Proof]) -> Counts:
    """Return how many events of each kind there are, and over which time, as they were proven."""
    by_code: Counter[int] = Counter()
    times: list[int] = []
    for proof in proofs:
        by_code.update(proof.counts_by_code)
        times += [each for each in (proof.smallest_ns, proof.largest_ns) if each is not None]
    by_kind: Counter[str] = Counter()  # one that was kept whole before it was known has two codes
    for code, name in connection.execute("SELECT code, name FROM kind ORDER BY code"):
        if by_code[code]:
            by_kind[name] += by_code[code]
    return Counts(dict(by_kind), min(times, default=None), max(times, default=None))


def fold(connection: apsw.Connection, report: Report) -> None:
    """Bring the built-in projections up to the last event."""
    with forking.inside_sqlite():
        add_missing_kinds(connection)
        if not have_our_shape(connection):
            with connection:
                make_tables(connection, keep_own=True)
    catch_up_copy(connection, LifecycleFold(), _share_of(report))


def close_for_good(
    connection: apsw.Connection,
    path: Path,
    counts: Counts,
    *,
    closed_by: ClosedBy,
    indexes: bool,
    report: Report,
) -> Shipment:
    """Say in the file that it is a closed copy, and add what its readers need.

    Returns:
        what it holds.
    """
    with forking.inside_sqlite(), connection:
        if meta(connection, "closed") is None:  # what closed it before says more
            set_meta(connection, "closed", closed_by)
        connection.execute("DELETE FROM meta WHERE key IN ('wal_id', 'wal_follows')")
        forget_writers(connection)
        _make_tables(connection)
        _make_views(connection, flat=indexes)
    _make_indexes(connection, wanted=indexes, report=report)
    with forking.inside_sqlite(), connection:
        shipment = read_shipment(connection, path, counts, read_indexes=indexes)
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
    sql = flat_events_view_sql if flat else events_view_sql
    connection.execute(sql(has_origins=has_origins(connection)))
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
        connection.pragma("analysis_limit", _ANALYSIS_ROWS)
        connection.execute("ANALYZE")
        connection.execute(_FORGET_SQL)


def _share_of(report: Report) -> Progress:
    return lambda done, total: report(done / total if total else 1.0)
