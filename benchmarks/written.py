"""What reaches the disk: the bytes that the system counts for this process, by event."""

from pathlib import Path

import apsw

from benchmarks.appending import BATCH_EVENTS, Events, batched_events
from benchmarks.measure import Figure, Settings
from benchmarks.workload import Workload, expected, remove, verify, workload_lines
from journal import Journal
from journal.file.opening import Durability

_IO = Path("/proc/self/io")
_FRAME_BYTES = 24 + 4_096


def written(settings: Settings) -> list[Figure]:
    """Count what is written for each event, against the bytes of the file that it makes.

    That of the -wal is counted by SQLite, a frame for each page that a commit changes; the rest is
    what checkpoints copy to the file, and the file system's own.
    """
    if not _IO.exists():
        return []
    return [
        _written(settings, "steady", BATCH_EVENTS, "normal"),
        _written(settings, "short", BATCH_EVENTS, "normal"),
        _written(settings, "steady", 1, "full"),
        _written(settings, "short", 1, "full"),
    ]


def _written(
    settings: Settings, workload: Workload, batch_events: int, durability: Durability
) -> Figure:
    name = f"written-{'single' if batch_events == 1 else 'append'}-{workload}"
    count = settings.size(20_000, 100) if batch_events == 1 else settings.size(200_000, 5_000)
    lines = workload_lines(workload, count, settings.seed)
    batches = batched_events(lines, batch_events)
    path = settings.folder / f"{name}.journal"
    before = _bytes_written()
    wal_bytes = _append(path, batches, durability)
    all_bytes = _bytes_written() - before
    file_bytes = path.stat().st_size
    verify(path, expected(lines))
    remove(path)
    return Figure(
        name=name,
        peer_name="the closed file",
        unit="bytes/event",
        ours=[max(all_bytes, wal_bytes) / count],
        peer=[file_bytes / count],
        details={
            "wal_bytes": wal_bytes / count,
            "other_bytes": max(0, all_bytes - wal_bytes) / count,
        },
    )


def _append(path: Path, batches: list[Events], durability: Durability) -> int:
    """Append batches to a new journal, and return the bytes of the frames of its -wal."""
    with Journal.open(path, durability=durability) as journal:
        for batch in batches:
            journal.append_events(batch)
        writer = journal._database._writer
        assert writer is not None
        return writer.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0] * _FRAME_BYTES


def _bytes_written() -> int:
    """Return how many bytes this process has caused to be sent to storage."""
    fields = dict(line.split(": ") for line in _IO.read_text().splitlines())
    return int(fields["write_bytes"])
