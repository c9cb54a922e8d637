"""Verifying: every event against its block, against a bare loop over the same rows, and memory."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from time import perf_counter

import journal
from benchmarks.folding import loop_rate
from benchmarks.measure import Figure, Settings, in_turns
from benchmarks.peaks import memory_of
from benchmarks.workload import Workload, workload_lines
from journal import Journal
from journal.file.opening import open_reader
from journal.file.paths import uri_of
from journal.maintenance.block_check import check_blocks
from journal.maintenance.file_check import extent_of
from journal.maintenance.findings import Findings


def verify(settings: Settings) -> list[Figure]:
    """Verify the blocks alone, and everything, against apsw alone iterating the rows."""
    figures = []
    workloads: list[tuple[Workload, int]] = [
        ("short", settings.size(1_000_000, 5_000)),
        ("steady", settings.size(200_000, 5_000)),
    ]
    for workload, count in workloads:
        path = settings.folder / f"verify-{workload}.journal"
        with Journal.open(path, durability="normal") as opened:
            opened.append_ndjson(workload_lines(workload, count, settings.seed))
            opened.sessions()
        figures += [
            _figure(settings, f"verify-blocks-{workload}", _blocks_rate, path, count, 0.25),
            _figure(settings, f"verify-full-{workload}", _full_rate, path, count, None),
        ]
    path, count = settings.folder / "verify-short.journal", workloads[0][1]
    return [*figures, _merged(settings, path, count), memory_of(settings, "verify")]


def _merged(settings: Settings, path: Path, count: int) -> Figure:
    """Compare a file into which a journal was merged with that journal."""
    fleet = settings.folder / "verify-merged.journal"
    journal.merge(fleet, path)
    with Journal.open(fleet) as opened:
        opened.sessions()
    rates, peer_rates = in_turns(
        settings.repeat, partial(_full_rate, fleet, count), partial(_full_rate, path, count)
    )
    return Figure(
        name="verify-full-merged",
        peer_name="the same events, not merged",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
    )


def _figure(
    settings: Settings,
    name: str,
    rate: Callable[[Path, int], float],
    path: Path,
    count: int,
    required: float | None,
) -> Figure:
    rates, peer_rates = in_turns(
        settings.repeat, partial(rate, path, count), partial(loop_rate, path, count)
    )
    return Figure(
        name=name,
        peer_name="apsw alone iterating the rows",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
        required=required,
    )


def _blocks_rate(path: Path, count: int) -> float:
    found = Findings(path)
    with closing(open_reader(uri_of(path, mode="ro"), path)) as connection:
        connection.execute("BEGIN")
        began = perf_counter()
        proof = check_blocks(connection, extent_of(connection, found), found)
        seconds = perf_counter() - began
    assert (proof.proven_count, found.count) == (count, 0), found.first
    return count / seconds


def _full_rate(path: Path, count: int) -> float:
    began = perf_counter()
    found = journal.verify(path, full=True)
    seconds = perf_counter() - began
    assert (found.proven_count, found.finding_count) == (count, 0), found.findings
    return count / seconds
