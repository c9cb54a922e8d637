"""The peak memory of fresh processes, and whether it grows with the number of events."""

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Figure, Settings
from benchmarks.memory import Peak
from benchmarks.workload import open_lines
from journal import Journal

_REPOSITORY = Path(__file__).parent.parent


def peak_of(how: str, path: Path, count: int = 0, seed: int = 0) -> Peak:
    """Return what a fresh process needs to do to a file what `benchmarks.memory` names so."""
    command = [sys.executable, "-m", "benchmarks.memory", how, str(path), str(count), str(seed)]
    done = subprocess.run(command, cwd=_REPOSITORY, stdout=subprocess.PIPE, check=True)
    return Peak.model_validate_json(done.stdout)


def memory_of(settings: Settings, how: str) -> Figure:
    """Compare doing something to many events of twenty sessions with doing it to a third of them.

    Both files are larger than SQLite's page cache, which is a part of what is measured.
    """
    paths = []
    for count in (settings.size(1_200_000, 6_000), settings.size(400_000, 2_000)):
        paths.append(settings.folder / f"{how}-{count}.journal")
        with Journal.open(paths[-1], durability="normal") as journal:
            journal.append_ndjson(open_lines(count, 20, settings.seed))
    return memory_figure(f"memory-{how}", how, *paths)


def memory_figure(name: str, how: str, path: Path, third: Path) -> Figure:
    """Compare the memory that something needs for a file with that for a third of its events."""
    return Figure(
        name=name,
        peer_name="a third of the events",
        unit="MB",
        ours=[peak_of(how, path).peak_mb],
        peer=[peak_of(how, third).peak_mb],
        required=1.1,
        sense="at most",
    )
