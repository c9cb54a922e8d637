"""Reading: events against pydantic alone, and what finding them in a large file costs."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter

from benchmarks.appending import parse_rate
from benchmarks.measure import Figure, Settings, in_turns
from benchmarks.workload import (
    Expected,
    Workload,
    expected,
    open_lines,
    verify,
    workload_lines,
)
from journal import Journal, parse_event


def read(settings: Settings) -> list[Figure]:
    """Read all events as objects, against pydantic alone parsing them from JSON, one by one."""
    return [_read(settings, "steady", 1.0), _read(settings, "short", 0.72)]


def _read(settings: Settings, workload: Workload, required: float) -> Figure:
    lines = workload_lines(workload, settings.size(200_000, 5_000), settings.seed)
    path = settings.folder / f"read-{workload}.journal"
    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(lines)
    verify(path, expected(lines))

    def ours() -> float:
        with Journal.open(path, read_only=True) as journal:
            began = perf_counter()
            for _ in journal.read():
                pass
            seconds = perf_counter() - began
        return len(lines) / seconds

    rates, peer_rates = in_turns(settings.repeat, ours, partial(parse_rate, lines))
    with Journal.open(path, read_only=True) as journal:
        texts = (recorded.event.model_dump_json() for recorded in journal.read())
        assert expected(texts).digest == expected(lines).digest
    return Figure(
        name=f"read-{workload}",
        peer_name="pydantic alone",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
        required=required,
    )


def large_file(settings: Settings) -> list[Figure]:
    """Open a large file, and find a session and the latest events in it, against a small one."""
    small, large = settings.folder / "few.journal", settings.folder / "many.journal"
    _build(small, settings, 1_000, sessions=20)
    _build(large, settings, settings.size(settings.big_events, 20_000), sessions=2_000)
    opened = settings._replace(repeat=10 * settings.repeat)
    seeds = itertools.count(settings.seed + 1)
    return [
        _compared("open", "us", opened, partial(_open_us, large), partial(_open_us, small)),
        _compared(
            "open-read-only",
            "us",
            opened,
            partial(_open_us, large, read_only=True),
            partial(_open_us, small, read_only=True),
        ),
        _compared(
            "session",
            "us/row",
            settings,
            partial(_session_us, large, settings.seed),
            partial(_session_us, small, settings.seed),
        ),
        _compared(
            "since", "us/row", settings, partial(_since_us, large), partial(_since_us, small)
        ),
        _compared(
            "catch-up",
            "us",
            opened,
            lambda: _catch_up_us(large, next(seeds)),
            lambda: _catch_up_us(small, next(seeds)),
        ),
    ]


def _build(path: Path, settings: Settings, count: int, *, sessions: int) -> None:
    wanted = Expected()
    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(map(wanted.note, open_lines(count, sessions, settings.seed)))
    verify(path, wanted)


def _compared(
    name: str,
    unit: str,
    settings: Settings,
    large: Callable[[], float],
    small: Callable[[], float],
) -> Figure:
    ours, peer = in_turns(settings.repeat, large, small)
    return Figure(
        name=name,
        peer_name="small file",
        unit=unit,
        ours=ours,
        peer=peer,
        required=1.5 if unit == "us" else None,
        sense="at most",
    )


def _open_us(path: Path, *, read_only: bool = False) -> float:
    """Return the time to open and close a journal."""
    began = perf_counter()
    Journal.open(path, read_only=read_only).close()
    return 1e6 * (perf_counter() - began)


def _session_us(path: Path, seed: int) -> float:
    """Return the time per event of getting ten sessions."""
    with Journal.open(path, read_only=True) as journal:
        found = {recorded.event.session_id for recorded in journal.read(limit=1_000)}
        sessions = Random(seed).sample(sorted(found), 10)
        began = perf_counter()
        count = sum(len(journal.get_events_for_session(session)) for session in sessions)
        return 1e6 * (perf_counter() - began) / count


def _since_us(path: Path) -> float:
    """Return the time per event of getting the latest 900."""
    with Journal.open(path, read_only=True) as journal:
        (last,) = journal.read(after=journal.last_position - 901, limit=1)
        began = perf_counter()
        events = journal.get_events_since(last.event.timestamp)
        seconds = perf_counter() - began
        assert len(events) == 900, len(events)
        return 1e6 * seconds / len(events)


def _catch_up_us(path: Path, seed: int) -> float:
    """Return the time of reading a session after 1,000 events of new sessions were appended."""
    lines = list(open_lines(1_000, 20, seed))
    with Journal.open(path, durability="normal") as journal:
        session = parse_event(lines[0]).session_id
        assert journal.session(session) is None
        journal.append_ndjson(lines)
        began = perf_counter()
        found = journal.session(session)
        seconds = perf_counter() - began
        assert found is not None
        return 1e6 * seconds
