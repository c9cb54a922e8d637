"""Merging: beside apsw alone that inserts the same rows, many small sources, and an overlap."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import apsw

from benchmarks.measure import Figure, Settings, in_turns
from benchmarks.peaks import memory_of, peak_of
from benchmarks.workload import mixed_lines
from journal import Journal, merge
from journal.file.opening import open_writer

_ROWS_AT_ONCE: Final = 10_000
_CHECKPOINT_PAGES: Final = 1_000  # what SQLite does by default
_TABLES: Final = ("session", "stream", "event", "block", "origin", "origin_block")
_SMALL: Final = 60

Rows = dict[str, list[Any]]


def merging(settings: Settings) -> list[Figure]:
    """Merge one source, the same again, and a thousand small ones; and what it holds in memory."""
    return [*_one(settings), _many(settings), memory_of(settings, "merge")]


def large(settings: Settings) -> list[Figure]:
    """Merge one large source in a fresh process, and again, and a tenth of it: each once."""
    count = settings.size(settings.big_events, 20_000)
    micros: list[float] = []
    details: dict[str, float] = {}
    for each in (count, count // 10):
        source = settings.folder / f"large-{each}.journal"
        with Journal.open(source, durability="normal") as journal:
            journal.append_ndjson(mixed_lines(each, settings.seed))
        for turn in ("first", "again"):
            began = perf_counter()
            peak_mb = peak_of("merge", source).peak_mb
            seconds = perf_counter() - began
            details |= {f"{turn}_{each}_s": seconds, f"{turn}_{each}_mb": peak_mb}
        micros.append(1e6 * details[f"first_{each}_s"] / each)
    return [
        Figure(
            name="merge-large",
            peer_name="a tenth of the events",
            unit="us/event",
            ours=micros[:1],
            peer=micros[1:],
            details=details,
        )
    ]


def _one(settings: Settings) -> Iterator[Figure]:
    count = settings.size(1_000_000, 4_000)
    source = settings.folder / "source.journal"
    with Journal.open(source, durability="normal") as journal:
        journal.append_ndjson(mixed_lines(count, settings.seed))
    fleet = settings.folder / "fleet.journal"
    _merged_rate(source, fleet, count)
    rows = _rows(fleet)
    rates, peer_rates = in_turns(
        settings.repeat,
        partial(_merged_rate, source, fleet, count),
        partial(_inserted_rate, settings.folder / "peer.journal", rows, count),
    )
    yield Figure(
        name="merge-short",
        peer_name="apsw alone inserting the same rows",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
        required=0.5,
        details={"events": count},
    )
    with Journal.open(source, durability="normal") as journal:
        journal.append_ndjson(mixed_lines(100, settings.seed + 1))
    overlaps, again = in_turns(
        settings.repeat,
        partial(_seconds, source, fleet),
        partial(_seconds, source, fleet),
    )
    yield Figure(
        name="merge-overlap",
        peer_name="with nothing new",
        unit="s",
        ours=overlaps,
        peer=again,
        details={"events": count},
    )


def _merged_rate(source: Path, fleet: Path, count: int) -> float:
    fleet.unlink(missing_ok=True)
    began = perf_counter()
    added = merge(fleet, source).added_count
    seconds = perf_counter() - began
    assert added == count
    return count / seconds


def _rows(fleet: Path) -> Rows:
    with Journal.open(fleet, read_only=True) as opened:
        connection = opened.connection()
        return {it: list(connection.execute(f"SELECT * FROM {it}")) for it in _TABLES}


def _inserted_rate(path: Path, rows: Rows, count: int) -> float:
    """Insert the rows of each table in the same number of transactions, and empty the -wal."""
    path.unlink(missing_ok=True)
    path.touch()
    connection = open_writer(path, "full")
    connection.wal_autocheckpoint(_CHECKPOINT_PAGES)
    left = {table: iter(some) for table, some in rows.items()}
    batches = -(-count // _ROWS_AT_ONCE)
    began = perf_counter()
    for _ in range(batches):
        connection.execute("BEGIN IMMEDIATE")
        for table, some in rows.items():
            marks = ", ".join("?" * len(some[0]))
            part = islice(left[table], -(-len(some) // batches))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", part)
        connection.execute("COMMIT")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    return count / (perf_counter() - began)


def _seconds(source: Path, fleet: Path) -> float:
    began = perf_counter()
    merge(fleet, source)
    return perf_counter() - began


def _many(settings: Settings) -> Figure:
    """Merge many files of sixty events each, and again."""
    count = settings.size(1_000, 5)
    folder = settings.folder / "sources"
    folder.mkdir()
    lines = mixed_lines(count * _SMALL, settings.seed)
    for number in range(count):
        with Journal.open(folder / f"{number}.journal", durability="normal") as journal:
            journal.append_ndjson(islice(lines, _SMALL))
    fleet = settings.folder / "many.journal"
    first: list[float] = []
    again: list[float] = []
    for _ in range(settings.repeat):
        fleet.unlink(missing_ok=True)
        first.append(1000 * _seconds(folder, fleet) / count)
        again.append(1000 * _seconds(folder, fleet) / count)
    return Figure(
        name="merge-many",
        peer_name="when all is there already",
        unit="ms a source",
        ours=first,
        peer=again,
        details={"sources": count},
    )
