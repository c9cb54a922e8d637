"""Beside others in the same run: the peer `eventsourcing`, a file of lines, and plain sqlite3."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.appending import BATCH_EVENTS, append_batches, batched_events
from benchmarks.measure import Figure, Settings, in_turns, timed_calls
from benchmarks.workload import Workload, expected, remove, verify, workload_lines
from journal import DomainEvent, Journal

HAS_PEER = find_spec("eventsourcing") is not None
"""Whether the extra `benchmark` is installed."""

_PEER = "eventsourcing"
_WORKLOADS: tuple[Workload, ...] = ("steady", "short")


def peer_single(settings: Settings) -> list[Figure]:
    """Append one event per call, safe on the disk; events and stored events are made before."""
    from benchmarks import peer  # noqa: PLC0415

    def figure(workload: Workload) -> Figure:
        lines = workload_lines(workload, settings.size(4_000, 100), settings.seed)
        batches = batched_events(lines, 1)
        stored = [[peer.stored(raw)] for raw in peer.raw_events(lines)]

        def theirs(path: Path) -> float:
            recorder = peer.open_recorder(path)
            seconds = sum(timed_calls(partial(recorder.insert_events, one) for one in stored))
            assert recorder.max_notification_id() == len(lines)
            recorder.datastore.close()
            return len(lines) / seconds

        def ours(path: Path) -> float:
            seconds = sum(append_batches(path, batches, "full"))
            verify(path, expected(lines))
            return len(lines) / seconds

        return _beside(settings, f"peer-single-{workload}", ours, theirs, _PEER, 1.0)

    return [figure(workload) for workload in _WORKLOADS]


def peer_append(settings: Settings) -> list[Figure]:
    """Append batches of a thousand, safe on the disk, each event made where it is appended."""
    from benchmarks import peer  # noqa: PLC0415

    def figure(workload: Workload) -> Figure:
        lines = workload_lines(workload, settings.size(100_000, 3_000), settings.seed)
        made_of = [_made_of(event) for (event,) in batched_events(lines, 1)]
        raws = list(peer.raw_events(lines))

        def theirs(path: Path) -> float:
            recorder = peer.open_recorder(path)
            began = perf_counter()
            for batch in _batches(raws):
                recorder.insert_events([peer.stored(raw) for raw in batch])
            seconds = perf_counter() - began
            assert recorder.max_notification_id() == len(lines)
            recorder.datastore.close()
            return len(lines) / seconds

        def ours(path: Path) -> float:
            with Journal.open(path) as journal:
                began = perf_counter()
                for batch in _batches(made_of):
                    journal.append_events([make(**values) for make, values in batch])
                seconds = perf_counter() - began
            verify(path, expected(lines))
            return len(lines) / seconds

        return _beside(settings, f"peer-append-{workload}", ours, theirs, _PEER, 1.6)

    return [figure(workload) for workload in _WORKLOADS]


def peer_read(settings: Settings) -> list[Figure]:
    """Read everything: events, against the peer's stored events, which it has not decoded."""
    from benchmarks import peer  # noqa: PLC0415

    def figure(workload: Workload) -> Figure:
        lines = workload_lines(workload, settings.size(100_000, 3_000), settings.seed)
        our_path, path = _paths(settings, f"peer-read-{workload}")
        with Journal.open(our_path, durability="normal") as journal:
            journal.append_ndjson(lines)
        recorder = peer.open_recorder(path)
        for batch in _batches(list(peer.raw_events(lines))):
            recorder.insert_events([peer.stored(raw) for raw in batch])

        def ours() -> float:
            with Journal.open(our_path, read_only=True) as journal:
                return _rate(journal.read(), len(lines))

        def theirs() -> float:
            return _rate(peer.notifications(recorder, BATCH_EVENTS), len(lines))

        figure = _figure(settings, f"peer-read-{workload}", ours, theirs, _PEER, 2.0)
        recorder.datastore.close()
        return figure

    return [figure(workload) for workload in _WORKLOADS]


def peer_rebuild(settings: Settings) -> list[Figure]:
    """Fold all sessions and streams, against the peer's aggregates; and weigh both files."""
    from benchmarks import peer  # noqa: PLC0415

    figures = []
    for workload, required in (("steady", 18.0), ("short", 9.0)):
        lines = workload_lines(workload, settings.size(200_000, 3_000), settings.seed)  # type: ignore[arg-type]
        # The peer takes some 30 us an event, however many there are.
        their_lines = lines[: settings.size(20_000, 3_000)]
        our_path, path = _paths(settings, f"peer-rebuild-{workload}")
        with Journal.open(our_path, durability="normal") as journal:
            journal.append_ndjson(lines)
        our_bytes = our_path.stat().st_size  # before a rebuild leaves free pages in it
        ids = peer.build_aggregates(path, their_lines, BATCH_EVENTS)

        def ours(path: Path = our_path, count: int = len(lines)) -> float:
            with Journal.open(path, durability="normal") as journal:
                began = perf_counter()
                (report,) = journal.rebuild()
                seconds = perf_counter() - began
            assert (report.event_count, report.change_count) == (count, 0), report
            return count / seconds

        def theirs(path: Path = path, ids: Any = ids, wanted: int = len(their_lines)) -> float:
            began = perf_counter()
            count = peer.fold_aggregates(path, ids)
            assert count == wanted + len(ids)  # each has been created by an event more
            return count / (perf_counter() - began)

        figures += [
            _figure(settings, f"peer-rebuild-{workload}", ours, theirs, _PEER, required),
            Figure(
                name=f"peer-bytes-{workload}",
                peer_name=_PEER,
                unit="bytes/event",
                ours=[our_bytes / len(lines)],
                peer=[path.stat().st_size / (len(their_lines) + len(ids))],
                required=1 / 7,
                sense="at most",
            ),
        ]
    return figures


def others(settings: Settings) -> list[Figure]:
    """Append batches, safe on the disk, against a file of lines, and against plain sqlite3."""
    figures = []
    for workload in _WORKLOADS:
        lines = workload_lines(workload, settings.size(100_000, 3_000), settings.seed)
        batches = batched_events(lines, BATCH_EVENTS)

        def ours(path: Path, batches: Any = batches, lines: list[str] = lines) -> float:
            seconds = sum(append_batches(path, batches, "full"))
            verify(path, expected(lines))
            return len(lines) / seconds

        theirs: tuple[tuple[str, Callable[..., float]], ...] = (
            ("NDJSON file", _append_lines),
            ("sqlite3", _append_json),
        )
        for name, append in theirs:
            slug = name.split()[0].lower()
            figure_name = f"beside-{slug}-{workload}"
            peer_append = partial(append, batches)
            figures.append(_beside(settings, figure_name, ours, peer_append, name, None))
    return figures


def _append_lines(batches: list[list[DomainEvent]], path: Path) -> float:
    """Append the text of events to a file, with fsync for each batch."""
    began = perf_counter()
    with path.open("ab") as file:
        for batch in batches:
            file.write("".join([f"{event.model_dump_json()}\n" for event in batch]).encode())
            file.flush()
            os.fsync(file.fileno())
    return sum(map(len, batches)) / (perf_counter() - began)


def _append_json(batches: list[list[DomainEvent]], path: Path) -> float:
    """Insert events into a table with a JSON column, indexed by session and by stream."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE event"
            " (position INTEGER PRIMARY KEY, session TEXT, stream TEXT, body TEXT);"
            "CREATE INDEX event_session ON event (session);"
            "CREATE INDEX event_stream ON event (stream)"
        )
        began = perf_counter()
        for batch in batches:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO event (session, stream, body) VALUES (?, ?, ?)",
                [
                    (
                        str(event.session_id),
                        event.stream_id and str(event.stream_id),
                        event.model_dump_json(),
                    )
                    for event in batch
                ],
            )
            connection.execute("COMMIT")
        return sum(map(len, batches)) / (perf_counter() - began)


def _made_of(event: DomainEvent) -> tuple[type[DomainEvent], dict[str, Any]]:
    values = {name: getattr(event, name) for name in type(event).model_fields}
    del values["event_type"]
    return type(event), values


def _batches(all_of_them: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(all_of_them), BATCH_EVENTS):
        yield all_of_them[first : first + BATCH_EVENTS]


def _rate(things: Iterable[object], count: int) -> float:
    """Go through some things that there should be so many of, and return how many a second."""
    began = perf_counter()
    found = sum(1 for _ in things)
    seconds = perf_counter() - began
    assert found == count
    return count / seconds


def _paths(settings: Settings, name: str) -> tuple[Path, Path]:
    return settings.folder / f"{name}.journal", settings.folder / f"{name}.other"


def _beside(
    settings: Settings,
    name: str,
    ours: Callable[[Path], float],
    theirs: Callable[[Path], float],
    peer_name: str,
    required: float | None,
) -> Figure:
    """Compare what makes a new file at each turn."""
    numbers = count()

    def turn(measured: Callable[[Path], float]) -> float:
        path = settings.folder / f"{name}-{next(numbers)}"
        try:
            return measured(path)
        finally:
            remove(path)

    return _figure(settings, name, partial(turn, ours), partial(turn, theirs), peer_name, required)


def _figure(
    settings: Settings,
    name: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    peer_name: str,
    required: float | None,
) -> Figure:
    rates, peer_rates = in_turns(settings.repeat, ours, theirs)
    return Figure(
        name=name,
        peer_name=peer_name,
        unit="events/s",
        ours=rates,
        peer=peer_rates,
        required=required,
    )
