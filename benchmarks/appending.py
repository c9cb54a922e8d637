"""Appending: events against apsw alone, lines against pydantic alone."""

from collections.abc import Iterable
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

from pydantic import TypeAdapter

from benchmarks.floor import batches_of, open_floor, write_batch
from benchmarks.measure import Figure, Settings, in_turns, percentiles_ms, timed_calls
from benchmarks.plain_models import parse_plain
from benchmarks.workload import Workload, expected, remove, verify, workload_lines
from journal import DomainEvent, Journal
from journal.file.blocks import Tail
from journal.file.opening import Durability

BATCH_EVENTS = 1_000

Events = list[DomainEvent]

_events: TypeAdapter[DomainEvent] = TypeAdapter(DomainEvent)


def append(settings: Settings) -> list[Figure]:
    """Append event objects in batches of a thousand, against apsw alone inserting the same rows."""
    return [
        _append(settings, "many", "normal", 0.40),
        _append(settings, "steady", "normal", 0.40),
        _append(settings, "short", "normal", 0.40),
        _append(settings, "steady", "full", None),
        _append(settings, "short", "full", None),
    ]


def single(settings: Settings) -> list[Figure]:
    """Append events one by one, each in a transaction of its own, against apsw alone."""
    return [
        _append(settings, "steady", "full", 0.65, batch_events=1),
        _append(settings, "short", "full", 0.65, batch_events=1),
        _append(settings, "steady", "normal", 0.50, batch_events=1),
        _append(settings, "short", "normal", 0.50, batch_events=1),
    ]


def ndjson(settings: Settings) -> list[Figure]:
    """Append lines of JSON, against pydantic alone parsing them into plain models, one by one."""
    return [
        _ndjson(settings, "steady", "normal", 0.38),
        _ndjson(settings, "short", "normal", 0.17),
        _ndjson(settings, "steady", "full", None),
        _ndjson(settings, "short", "full", None),
    ]


def _ndjson(
    settings: Settings, workload: Workload, durability: Durability, required: float | None
) -> Figure:
    lines = workload_lines(workload, settings.size(200_000, 5_000), settings.seed)
    wanted = expected(lines)
    numbers = count()

    def ours() -> float:
        path = settings.folder / f"ndjson-{next(numbers)}.journal"
        with Journal.open(path, durability=durability) as journal:
            began = perf_counter()
            journal.append_ndjson(lines)
            seconds = perf_counter() - began
        verify(path, wanted)
        remove(path)
        return len(lines) / seconds

    rates, peer_rates = in_turns(settings.repeat, ours, partial(parse_rate, lines))
    return Figure(
        name=_name("ndjson", workload, durability),
        peer_name="pydantic alone",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
        required=required,
    )


def sealing(settings: Settings) -> list[Figure]:
    """Time spent in sealing blocks, as a share of appending event objects in batches."""
    lines = workload_lines("steady", settings.size(200_000, 5_000), settings.seed)
    batches = batched_events(lines, BATCH_EVENTS)
    wanted = expected(lines)
    whole: list[float] = []
    sealed: list[float] = []
    seal = Tail.add

    def timed_seal(*arguments: object) -> None:
        sealed[-1] += timed_calls([partial(seal, *arguments)])[0]  # type: ignore[arg-type]

    with patch.object(Tail, "add", timed_seal):
        for number in range(settings.repeat):
            sealed.append(0.0)
            path = settings.folder / f"sealing-{number}.journal"
            whole.append(sum(append_batches(path, batches, "normal")))
            verify(path, wanted)
            remove(path)
    figure = Figure(
        name="sealing",
        peer_name="all of appending",
        unit="us/event",
        ours=[1e6 * seconds / len(lines) for seconds in sealed],
        peer=[1e6 * seconds / len(lines) for seconds in whole],
    )
    return [figure]


def batched_events(lines: Iterable[str], batch_events: int) -> list[Events]:
    """Return the events of lines, validated by the public models, in batches."""
    events = [_events.validate_json(line) for line in lines]
    return [events[i : i + batch_events] for i in range(0, len(events), batch_events)]


def append_batches(path: Path, batches: list[Events], durability: Durability) -> list[float]:
    """Append batches to a new journal and return the seconds that each took."""
    with Journal.open(path, durability=durability) as journal:
        return timed_calls(partial(journal.append_events, batch) for batch in batches)


def parse_rate(lines: list[str]) -> float:
    """Parse lines with pydantic alone, drop what comes out, and return the lines per second."""
    began = perf_counter()
    for line in lines:
        parse_plain(line)
    return len(lines) / (perf_counter() - began)


def _name(what: str, workload: Workload, durability: Durability) -> str:
    return f"{what}-{workload}" + ("-full" if durability == "full" else "")


def _append(
    settings: Settings,
    workload: Workload,
    durability: Durability,
    required: float | None,
    *,
    batch_events: int = BATCH_EVENTS,
) -> Figure:
    name = _name("single" if batch_events == 1 else "append", workload, durability)
    count = settings.size(4_000, 100) if batch_events == 1 else settings.size(200_000, 5_000)
    lines = workload_lines(workload, count, settings.seed)
    wanted = expected(lines)
    batches = batched_events(lines, batch_events)
    first = settings.folder / f"{name}.journal"
    append_batches(first, batches, "normal")
    rows = batches_of(first, batch_events)
    path = settings.folder / f"{name}-turn.journal"
    seconds: dict[str, list[float]] = {"ours": [], "floor": []}

    def rate(who: str, taken: list[float]) -> float:
        verify(path, wanted)
        remove(path)
        seconds[who] += taken
        return len(lines) / sum(taken)

    def ours() -> float:
        return rate("ours", append_batches(path, batches, durability))

    def floor() -> float:
        connection = open_floor(path, durability)
        taken = timed_calls(partial(write_batch, connection, batch) for batch in rows)
        connection.close()
        return rate("floor", taken)

    rates, floor_rates = in_turns(settings.repeat, ours, floor)
    return Figure(
        name=name,
        peer_name="apsw alone",
        unit="events/s",
        ours=rates,
        peer=floor_rates,
        required=required,
        details={
            **percentiles_ms(seconds["ours"], "ours"),
            **percentiles_ms(seconds["floor"], "floor"),
        },
    )
