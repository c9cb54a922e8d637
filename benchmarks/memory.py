"""The process whose memory is measured: `python -m benchmarks.memory HOW FILE EVENTS SEED`.

HOW is `ndjson`, lines from a generator, `events`, batches of a thousand event objects, or what is
done to FILE as it is: `rebuild`, `verify`, `recover`, `ship`, `merge`, `prune`.
"""

import resource
import sys
from itertools import islice
from pathlib import Path

from pydantic import BaseModel

import journal
from benchmarks.workload import mixed_lines
from journal import Journal, parse_event

BATCH_EVENTS = 1_000


class Peak(BaseModel):
    """What the process found, on standard output."""

    after_import_mb: float
    peak_mb: float


def peak_mb() -> float:
    """Return the most memory that this process has had resident so far.

    Where Linux tells it, that is VmHWM: `ru_maxrss` counts what the parent had when it started us.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def rebuild(path: Path) -> None:
    """Rebuild the projections of a file."""
    with Journal.open(path, durability="normal") as opened:
        opened.rebuild()


def recover(path: Path) -> None:
    """Recover a file."""
    journal.recover(path, path.with_suffix(".recovered"))


def verify(path: Path) -> None:
    """Verify a whole file."""
    assert journal.verify(path, full=True).sound


def ship(path: Path) -> None:
    """Ship a file."""
    with Journal.open(path, read_only=True) as opened:
        opened.ship(path.with_suffix(".out.db"), force=True)


def merge(path: Path) -> None:
    """Merge a file into a new one."""
    assert journal.merge(path.with_suffix(".fleet"), path).complete


def prune(path: Path) -> None:
    """Prune all of a file."""
    with Journal.open(path, durability="normal") as opened:
        assert opened.prune(keep_events=0).event_count


def append(how: str, path: Path, count: int, seed: int) -> None:
    """Append so many events."""
    lines = mixed_lines(count, seed)
    with Journal.open(path, durability="normal") as opened:
        if how == "ndjson":
            opened.append_ndjson(lines)
        else:
            while batch := [parse_event(line) for line in islice(lines, BATCH_EVENTS)]:
                opened.append_events(batch)


DONE = {it.__name__: it for it in (rebuild, verify, recover, ship, merge, prune)}


if __name__ == "__main__":
    after_import = peak_mb()
    if sys.argv[1] in DONE:
        DONE[sys.argv[1]](Path(sys.argv[2]))
    else:
        append(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    print(Peak(after_import_mb=after_import, peak_mb=peak_mb()).model_dump_json())
