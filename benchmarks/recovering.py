"""Recovering a file: an intact one against reading it, and what it holds in memory."""

from functools import partial
from pathlib import Path
from time import perf_counter

import journal
from benchmarks.measure import Figure, Settings, in_turns
from benchmarks.peaks import memory_figure
from benchmarks.workload import expected, open_lines, verify, workload_lines
from journal import Journal

_FIRST_PAGE = 4096


def recover(settings: Settings) -> list[Figure]:
    """Recover an intact file, and one without its first page, against `read()` of it."""
    path = settings.folder / "intact.journal"
    lines = workload_lines("short", settings.size(1_000_000, 5_000), settings.seed)
    with Journal.open(path, durability="normal") as opened:
        opened.append_ndjson(lines)
    verify(path, expected(lines))
    damaged = settings.folder / "damaged.journal"
    damaged.write_bytes(bytes(_FIRST_PAGE) + path.read_bytes()[_FIRST_PAGE:])
    return [
        _recover(settings, "recover", path, path, len(lines), required=0.33),
        _recover(settings, "recover-pages", damaged, path, len(lines), required=None),
        _memory(settings, "memory-recover", is_damaged=False),
        _memory(settings, "memory-recover-pages", is_damaged=True),
    ]


def _recover(
    settings: Settings, name: str, path: Path, whole: Path, count: int, *, required: float | None
) -> Figure:
    rates, read_rates = in_turns(
        settings.repeat, partial(_recover_rate, path, count), partial(_read_rate, whole, count)
    )
    return Figure(
        name=name,
        peer_name="read() of the file",
        unit="events/s",
        ours=rates,
        peer=read_rates,
        required=required,
    )


def _recover_rate(path: Path, count: int) -> float:
    out = path.with_name("out.journal")
    began = perf_counter()
    found = journal.recover(path, out, force=True)
    seconds = perf_counter() - began
    assert (found.proven_count, found.lost_count) == (count, 0), found
    return count / seconds


def _read_rate(path: Path, count: int) -> float:
    with Journal.open(path, read_only=True) as opened:
        began = perf_counter()
        found = sum(1 for _ in opened.read())
        seconds = perf_counter() - began
    assert found == count
    return count / seconds


def _memory(settings: Settings, name: str, *, is_damaged: bool) -> Figure:
    """Recover a file and one of a third of its events in fresh processes."""
    count = settings.size(900_000, 6_000)
    paths = []
    for events in (count, count // 3):
        path = settings.folder / f"{name}-{events}.journal"
        with Journal.open(path, durability="normal") as opened:
            opened.append_ndjson(open_lines(events, 2_000, settings.seed))
        if is_damaged:
            with path.open("r+b") as file:
                file.write(bytes(_FIRST_PAGE))
        paths.append(path)
    return memory_figure(name, "recover", *paths)
