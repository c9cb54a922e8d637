"""Pruning: beside apsw alone that deletes the same rows, and what retention costs an append."""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

import apsw

from benchmarks.measure import Figure, Settings, in_turns, percentiles_ms
from benchmarks.peaks import memory_of
from benchmarks.workload import Workload, mixed_lines, open_lines
from journal import Journal, Retention, limits, parse_event
from journal.file.opening import open_writer

_CHECKPOINT_PAGES = 1_000  # what SQLite does by default

_WORKLOADS: tuple[Workload, ...] = ("short", "steady", "many")

Deleted = dict[str, list[int]]
"""Rowids by table."""


def prune(settings: Settings) -> list[Figure]:
    """Prune half of the mixed events, beside deleting the same rows; retention; and memory."""
    return [
        _prune(settings, "short", settings.size(1_000_000, 4_000)),
        _prune(settings, "many", settings.size(200_000, 4_000)),
        *(_retention(settings, each, settings.size(300, 4)) for each in _WORKLOADS),
        memory_of(settings, "prune"),
    ]


def _lines(workload: Workload, count: int, seed: int) -> Iterator[str]:
    if workload == "short":
        return mixed_lines(count, seed)
    return open_lines(count, {"steady": 20, "many": 2_000}[workload], seed)


def _prune(settings: Settings, workload: Workload, count: int) -> Figure:
    whole = settings.folder / f"{workload}.journal"
    with Journal.open(whole, durability="normal") as journal:
        journal.append_ndjson(_lines(workload, count, settings.seed))
        journal.sessions(limit=1)
    work = settings.folder / "work.journal"
    batches = _deleted(Path(shutil.copy(whole, work)), count)
    rates, peer_rates = in_turns(
        settings.repeat,
        partial(_prune_rate, whole, work, count),
        partial(_delete_rate, whole, work, count, batches),
    )
    return Figure(
        name=f"prune-{workload}",
        peer_name="apsw alone deleting the same rows",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
        required=0.5 if workload == "short" else None,
        details={
            "batches": len(batches),
            "rows_per_event": sum(len(rows) for each in batches for rows in each.values())
            / (count / 2),
        },
    )


def _prune_rate(whole: Path, work: Path, count: int) -> float:
    with Journal.open(shutil.copy(whole, work), durability="normal") as journal:
        began = perf_counter()
        report = journal.prune(keep_events=count // 2)
        seconds = perf_counter() - began
    assert (report.event_count, report.erased) == (count // 2, True), report
    return report.event_count / seconds


def _delete_rate(whole: Path, work: Path, count: int, batches: list[Deleted]) -> float:
    """Delete the same rows in the same batches, give the space back, and empty the -wal."""
    connection = open_writer(Path(shutil.copy(whole, work)), "normal")
    connection.wal_autocheckpoint(_CHECKPOINT_PAGES)
    connection.execute(
        "INSERT INTO absent (first_seq, last_seq, reason, declared_at, check_digest)"
        " VALUES (1, ?, 'pruned', '', '')",
        (count // 2,),
    )
    began = perf_counter()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        for table, rows in batch.items():
            if table in ("event", "block"):
                sql = f"DELETE FROM {table} WHERE rowid BETWEEN ? AND ?"
                connection.execute(sql, (min(rows), max(rows)))
            else:
                sql = f"DELETE FROM {table} WHERE rowid = ?"
                connection.executemany(sql, [(row,) for row in rows])
        connection.execute("COMMIT")
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    seconds = perf_counter() - began
    assert connection.execute("SELECT count(*) FROM event").get == count - count // 2
    connection.close()
    return count // 2 / seconds


def _deleted(path: Path, count: int) -> list[Deleted]:
    """Return which rows a prune deletes for good, transaction by transaction."""
    batches: list[Deleted] = []
    deleted: Deleted = {}

    def note(kind: int, _database: str, table: str, row: int) -> None:
        if kind == apsw.SQLITE_DELETE and not table.startswith("base"):
            deleted.setdefault(table, []).append(row)

    def committed() -> bool:
        if "event" in deleted:
            batches.append(deleted.copy())
        deleted.clear()
        return False

    with Journal.open(path, durability="normal") as journal:
        writer = journal._database._writer
        assert writer is not None
        writer.set_update_hook(note)
        writer.set_commit_hook(committed)
        journal.prune(keep_events=count // 2)
        writer.set_update_hook(None)
        writer.set_commit_hook(None)
    for batch in batches:
        batch.pop("absent", None)
    return batches


def _retention(settings: Settings, workload: Workload, blocks: int) -> Figure:
    """Append batches of a hundred with retention, which is due at every tenth, and without."""
    seconds: dict[str, list[float]] = {}
    for name, retention in (("with", Retention(keep_events=10_000)), ("without", None)):
        path = settings.folder / f"{name}-{workload}.journal"
        lines = _lines(workload, blocks * limits.BLOCK_EVENTS_MAX, settings.seed)
        with Journal.open(path, durability="normal", retention=retention) as journal:
            took = seconds[name] = []
            while some := list(islice(lines, 100)):
                events = [parse_event(line) for line in some]
                began = perf_counter()
                journal.append_events(events)
                took.append(perf_counter() - began)
            assert journal.retention_failure is None
            if retention is not None:
                assert journal.event_count() < 12_000
    ours, peer = ([1000 * each for each in seconds[name]] for name in ("with", "without"))
    sealing = [(one, other) for one, other in zip(ours[9::10], peer[9::10], strict=True)]
    return Figure(
        name=f"retention-{workload}",
        peer_name="the same appends without retention",
        unit="ms/append",
        ours=[one for one, _ in sealing],
        peer=[other for _, other in sealing],
        details={
            **percentiles_ms(seconds["with"], "with"),
            **percentiles_ms(seconds["without"], "without"),
            "with_max_ms": max(ours),
            "without_max_ms": max(peer),
        },
    )
