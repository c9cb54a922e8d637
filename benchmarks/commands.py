"""The commands on a large file, each as a process of its own: first line, total time, memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import apsw

from benchmarks.measure import Figure, Settings
from benchmarks.workload import mixed_lines
from journal import Journal, SessionId

_REPOSITORY = Path(__file__).parent.parent
_PEAK_MAX_MB = 80
_HEAD_MAX_S = 0.5
_CHUNK_BYTES = 1024 * 1024


class Ended(NamedTuple):
    """What was seen of a process."""

    first_s: float
    """When its first line was there."""
    total_s: float
    lines: int
    peak_mb: float


def commands(settings: Settings) -> list[Figure]:
    """Run every command that reads, with its filters, on a folded file of mixed events."""
    path = settings.mixed_file or settings.folder / "mixed.journal"
    count = settings.size(settings.mixed_events, 6_000)
    make_folded(path, count, settings.seed)
    run("info", path)  # so that everything is compiled and the file is in the system's cache
    long = settings.folder / "long.journal"
    found = _commands(path, count)
    found |= _folded_beside(path, settings.folder / "unfolded.journal")
    found |= _of_one_session(long, settings.size(1_000_000, 6_000), settings.seed)
    figures = [_figure(name, run(*given)) for name, given in found.items()]
    heads = [run("sessions", path, lines_max=3) for _ in range(settings.repeat)]
    head = Figure(
        name="command-sessions-head",
        peer_name=f"{_HEAD_MAX_S} s",
        unit="s at most",
        ours=[ended.total_s for ended in heads],
        peer=[_HEAD_MAX_S] * len(heads),
        required=1.0,
        sense="at most",
    )
    return [*figures, head]


def make_folded(path: Path, count: int, seed: int) -> None:
    """Make a journal of mixed events, unless it is there, and fold it."""
    with Journal.open(path, durability="normal") as journal:
        if journal.event_count() == 0:
            journal.append_ndjson(mixed_lines(count, seed))
        assert journal.event_count() == count, path
        next(journal.iter_sessions(limit=1))  # which folds


def _of_one_session(path: Path, count: int, seed: int) -> dict[str, tuple[object, ...]]:
    """Make a file of mixed events, of which one session has all but a fiftieth.

    Return the commands that tell of it.
    """
    one = SessionId.new()

    def lines() -> Iterator[str]:
        for number, line in enumerate(mixed_lines(count, seed)):
            before, key, rest = line.partition('"session_id":"')
            yield line if number % 50 == 0 else f"{before}{key}{one}{rest[36:]}"

    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(lines())
        next(journal.iter_sessions(limit=1))  # which folds
    session = ("session", path, one)
    return {
        "session-long": session,
        "session-long-json": (*session, "--json"),
        "session-long-wide": (*session, "--wide"),
        "session-long-as-of": (*session, "--as-of", count * 9 // 10),
    }


def _folded_beside(path: Path, unfolded: Path) -> dict[str, tuple[object, ...]]:
    """Copy a file without what was folded, and return commands that may not write to the copy."""
    shutil.copyfile(path, unfolded)
    with closing(apsw.Connection(str(unfolded))) as connection:
        connection.execute("DELETE FROM checkpoint")
    return {
        f"{noun}-beside": (noun, unfolded, "--read-only", "--last", 20)
        for noun in ("sessions", "streams")
    }


def _commands(path: Path, count: int) -> dict[str, tuple[object, ...]]:
    """Return the commands, with filters that fit events in the middle of the file."""
    with Journal.open(path, read_only=True) as journal:
        some = next(it.event for it in journal.read(count // 2, kinds=["patch_frames_generated"]))
        times = sorted(event.timestamp for _, event in islice(journal.read(), 5_000))
    since = ("--since", times[4_950].rfc3339())
    until = ("--until", times[50].rfc3339())
    session, stream = ("--session", some.session_id), ("--stream", some.stream_id)
    failed = ("--type", "stream_failed")
    filters: dict[str, tuple[object, ...]] = {
        "events": (),
        "events-json": ("--json",),
        "events-since": since,
        "events-until": until,
        "events-type": failed,
        "events-type-none": ("--type", "session_expired"),  # known, and there is none
        "events-session": session,
        "events-stream": stream,
        "events-since-type": (*since, *failed),
        "events-session-since": (*session, *since),
        "events-session-type": (*session, *failed),
        "events-session-stream": (*session, *stream),
        "events-stream-since": (*stream, *since),
        "events-stream-type": (*stream, *failed),
        "events-session-stream-type": (*session, *stream, *failed),
        "events-session-stream-since": (*session, *stream, *since),
        "events-session-type-since": (*session, *failed, *since),
        "events-stream-type-since": (*stream, *failed, *since),
        "events-all-filters": (*session, *stream, *failed, *since),
        "events-after": ("--after", count - 1_000),
        "events-type-limit": (*failed, "--limit", 10),
    }
    found = {name: ("events", path, *more) for name, more in filters.items()}
    for noun, value in (("sessions", "events"), ("streams", "bytes")):
        found |= {
            noun: (noun, path),
            f"{noun}-json": (noun, path, "--json"),
            f"{noun}-failed": (noun, path, "--state", "Failed"),
            f"{noun}-sort": (noun, path, "--sort", value),
            f"{noun}-sort-limit": (noun, path, "--sort", value, "--limit", 20),
            f"{noun}-last": (noun, path, "--last", 20),
        }
    found |= {
        "streams-session": ("streams", path, *session),
        "session": ("session", path, some.session_id),
        "anomalies": ("anomalies", path),
        "info": ("info", path),
        "projections": ("projections", path),
    }
    return found


def run(*arguments: object, lines_max: int | None = None) -> Ended:
    """Run a command, and read what it prints, all or so many lines.

    Raises:
        AssertionError: it failed.
    """
    began = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.command", *map(str, arguments)],
        cwd=_REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout as printed:
        lines = int(bool(printed.readline()))
        first_s = perf_counter() - began
        if lines_max is None:
            while chunk := printed.read(_CHUNK_BYTES):
                lines += chunk.count(b"\n")
        else:
            lines += sum(1 for _ in islice(printed, lines_max - 1))
            total_s = perf_counter() - began
            printed.close()
        *told, peak = process.stderr.read().decode().splitlines()
    if lines_max is None:
        total_s = perf_counter() - began
    assert process.returncode == 0, told
    return Ended(first_s, total_s, lines, float(peak))


def _figure(name: str, ended: Ended) -> Figure:
    return Figure(
        name=f"command-{name}",
        peer_name=f"{_PEAK_MAX_MB} MB",
        unit="MB at most",
        ours=[ended.peak_mb],
        peer=[_PEAK_MAX_MB],
        required=1.0,
        sense="at most",
        details={"first_s": ended.first_s, "total_s": ended.total_s, "lines": ended.lines},
    )
