"""The size of the file and of the process."""

from benchmarks.measure import Figure, Settings
from benchmarks.peaks import peak_of
from benchmarks.workload import Expected, mixed_lines, verify
from journal import Journal

_PEAK_MAX_MB = 150


def file_size(settings: Settings) -> list[Figure]:
    """Weigh a closed journal of the mixed events, against the same events as NDJSON."""
    wanted = Expected()
    path = settings.folder / "size.journal"
    text_bytes = 0

    def counted(line: str) -> str:
        nonlocal text_bytes
        text_bytes += len(line.encode()) + 1
        return wanted.note(line)

    lines = mixed_lines(settings.size(1_000_000, 2_000), settings.seed)
    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(map(counted, lines))
    assert not path.with_name(f"{path.name}-wal").exists()
    verify(path, wanted)
    figure = Figure(
        name="file-size",
        peer_name="NDJSON",
        unit="bytes/event",
        ours=[path.stat().st_size / wanted.count],
        peer=[text_bytes / wanted.count],
        required=0.35,
        sense="at most",
    )
    return [figure]


def memory(settings: Settings) -> list[Figure]:
    """Find the peak memory of a fresh process that appends, against 150 MB."""
    return [_memory(settings, how) for how in ("ndjson", "events")]


def _memory(settings: Settings, how: str) -> Figure:
    count = settings.size(1_000_000, 20_000)
    path = settings.folder / f"memory-{how}.journal"
    peak = peak_of(how, path, count, settings.seed)
    wanted = Expected()
    for line in mixed_lines(count, settings.seed):
        wanted.note(line)
    verify(path, wanted)
    return Figure(
        name=f"memory-{how}",
        peer_name=f"{_PEAK_MAX_MB} MB",
        unit="MB at most",
        ours=[peak.peak_mb],
        peer=[_PEAK_MAX_MB],
        required=1.0,
        sense="at most",
        details={"after_import_mb": peak.after_import_mb},
    )
