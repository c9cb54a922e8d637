"""Folding: a rebuild against a bare loop over the same rows, and what it holds in memory."""

from functools import partial
from pathlib import Path
from time import perf_counter

import apsw

from benchmarks.measure import Figure, Settings, in_turns
from benchmarks.peaks import memory_of
from benchmarks.workload import Workload, expected, verify, workload_lines
from journal import Journal


def rebuild(settings: Settings) -> list[Figure]:
    """Rebuild both built-in projections, against apsw alone iterating the rows."""
    return [
        _rebuild(settings, "short", settings.size(1_000_000, 5_000)),
        _rebuild(settings, "steady", settings.size(200_000, 5_000)),
        memory_of(settings, "rebuild"),
    ]


def _rebuild(settings: Settings, workload: Workload, count: int) -> Figure:
    path = settings.folder / f"rebuild-{workload}.journal"
    lines = workload_lines(workload, count, settings.seed)
    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(lines)
        journal.sessions()  # so that there is something to be replaced
    verify(path, expected(lines))
    rates, peer_rates = in_turns(
        settings.repeat, partial(_rebuild_rate, path, count), partial(loop_rate, path, count)
    )
    return Figure(
        name=f"rebuild-{workload}",
        peer_name="apsw alone iterating the rows",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
    )


def _rebuild_rate(path: Path, count: int) -> float:
    with Journal.open(path, durability="normal") as journal:
        began = perf_counter()
        (report,) = journal.rebuild()
        seconds = perf_counter() - began
    assert (report.event_count, report.change_count) == (count, 0), report
    return count / seconds


def loop_rate(path: Path, count: int) -> float:
    """Return how many rows of events apsw alone gives in a second."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    began = perf_counter()
    found = 0
    for _ in connection.execute("SELECT * FROM event"):
        found += 1
    seconds = perf_counter() - began
    connection.close()
    assert found == count
    return count / seconds
