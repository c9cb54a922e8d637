"""Shipping: against VACUUM INTO, the same indexes, and one read of the rows, and what it holds.

And a delta of what is new in a large file, against one in a small file.
"""

from functools import partial
from pathlib import Path
from time import perf_counter

import apsw

import journal
from benchmarks.commands import make_folded
from benchmarks.measure import Figure, Settings, in_turns
from benchmarks.peaks import memory_figure
from benchmarks.workload import expected, mixed_lines, remove, verify
from journal import Journal
from journal._resources import text_of


def ship(settings: Settings) -> list[Figure]:
    """Ship a million mixed events that are folded, and hold the memory against a third of them."""
    count = settings.size(1_000_000, 6_000)
    path = _made(settings, count)
    verify(path, expected(mixed_lines(count, settings.seed)))
    out, floor_out = settings.folder / "out.db", settings.folder / "floor.db"
    seconds, peer_seconds = in_turns(
        settings.repeat, partial(_ship_seconds, path, out), partial(_floor_seconds, path, floor_out)
    )
    verify(out, expected(mixed_lines(count, settings.seed)))
    figure = Figure(
        name="ship",
        peer_name="VACUUM INTO, the same indexes, one read of the rows",
        unit="s",
        ours=seconds,
        peer=peer_seconds,
        required=1.5,
        sense="at most",
        details={"mb": out.stat().st_size / 1e6, "live_mb": path.stat().st_size / 1e6},
    )
    return [figure, memory_figure("memory-ship", "ship", path, _made(settings, count // 3))]


def delta(settings: Settings) -> list[Figure]:
    """Ship the latest ten thousand of five million mixed events, and of a hundred thousand."""
    new = settings.size(10_000, 1_000)
    paths = (
        _made(settings, settings.size(settings.mixed_events, 6_000), settings.mixed_file),
        _made(settings, settings.size(100_000, 3_000)),
    )
    out = settings.folder / "delta.db"
    seconds, small_seconds = in_turns(
        settings.repeat, *(partial(_delta_seconds, path, out, new) for path in paths)
    )
    figure = Figure(
        name="delta",
        peer_name="a delta of as many from a small file",
        unit="s",
        ours=seconds,
        peer=small_seconds,
        required=1.5,
        sense="at most",
        details={"mb": out.stat().st_size / 1e6, "live_mb": paths[0].stat().st_size / 1e6},
    )
    return [figure]


def _delta_seconds(path: Path, out: Path, new: int) -> float:
    began = perf_counter()
    with Journal.open(path, read_only=True) as opened:
        last = opened.last_position
        shipment = opened.ship(out, after=last - new, force=True)
    seconds = perf_counter() - began
    assert shipment.last_position == last
    assert new <= shipment.event_count <= new + 1_000
    assert journal.verify(out).sound
    return seconds


def _made(settings: Settings, count: int, path: Path | None = None) -> Path:
    """Make a journal of mixed events that are folded, unless it is there."""
    path = path or settings.folder / f"{count}.journal"
    make_folded(path, count, settings.seed)
    return path


def _ship_seconds(path: Path, out: Path) -> float:
    with Journal.open(path, read_only=True) as opened:
        began = perf_counter()
        opened.ship(out, force=True)
        return perf_counter() - began


def _floor_seconds(path: Path, out: Path) -> float:
    """Return how long apsw alone takes, which checks nothing and syncs nothing."""
    remove(out)
    source = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    began = perf_counter()
    source.execute("VACUUM INTO ?", (str(out),))
    source.close()
    file = apsw.Connection(str(out))
    file.execute("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")
    file.execute(text_of("journal.maintenance", "read_indexes.sql"))
    found = 0
    for _ in file.execute("SELECT * FROM event"):
        found += 1
    file.close()
    seconds = perf_counter() - began
    assert found
    return seconds
