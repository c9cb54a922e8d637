"""Appending: events against apsw alone, lines against pydantic alone."""

from collections.abc import Iterable
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

from pydantic import TypeAdapter

from benchmarks.floor import batches_of, write_batch
from benchmarks.measure import Figure, Settings, in_turns, percentiles_ms, timed_calls
from benchmarks.plain_models import parse_plain
from benchmarks.workload import expected, mixed_lines, open_lines, remove, verify
from journal import DomainEvent, Journal
from journal.file.blocks import Tail
from journal.file.opening import Durability, open_writer
from journal.file.paths import create_file

BATCH_EVENTS = 1_000

Events = list[DomainEvent]

_events: TypeAdapter[DomainEvent] = TypeAdapter(DomainEvent)


def append_2000_sessions(settings: Settings) -> list[Figure]:
    """Append event objects of 2,000 open sessions, against apsw alone inserting the same rows."""
    lines = list(open_lines(settings.size(200_000, 5_000), 2_000, settings.seed))
    return [_append(settings, "append-2000-sessions", lines, required=0.40)]


def append_20_sessions(settings: Settings) -> list[Figure]:
    """Append event objects of 20 open sessions, against the same floor."""
    lines = list(open_lines(settings.size(200_000, 5_000), 20, settings.seed))
    return [_append(settings, "append-20-sessions", lines, required=0.35)]


def append_mixed(settings: Settings) -> list[Figure]:
    """Append event objects of sessions that come and go, against the same floor."""
    lines = list(mixed_lines(settings.size(200_000, 5_000), settings.seed))
    return [_append(settings, "append-mixed", lines)]


def one_per_transaction(settings: Settings) -> list[Figure]:
    """Append events one by one, each safe on the disk, against apsw alone with the same rows."""
    lines = list(open_lines(settings.size(2_000, 100), 20, settings.seed))
    figure = _append(
        settings, "one-per-transaction", lines, required=0.6, batch_events=1, durability="full"
    )
    return [figure]


def ndjson_20_sessions(settings: Settings) -> list[Figure]:
    """Append lines of JSON, against pydantic alone parsing them into plain models, one by one."""
    lines = list(open_lines(settings.size(200_000, 5_000), 20, settings.seed))
    wanted = expected(lines)
    numbers = count()

    def ours() -> float:
        path = settings.folder / f"ndjson-{next(numbers)}.journal"
        with Journal.open(path, durability="normal") as journal:
            began = perf_counter()
            journal.append_ndjson(lines)
            seconds = perf_counter() - began
        verify(path, wanted)
        remove(path)
        return len(lines) / seconds

    rates, peer_rates = in_turns(settings.repeat, ours, partial(parse_rate, lines))
    figure = Figure(
        name="ndjson-20-sessions",
        peer_name="pydantic alone",
        unit="events/s",
        ours=rates,
        peer=peer_rates,
        required=0.35,
    )
    return [figure]


def sealing(settings: Settings) -> list[Figure]:
    """Time spent in sealing blocks, as a share of appending event objects in batches."""
    lines = list(open_lines(settings.size(200_000, 5_000), 20, settings.seed))
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


def _append(
    settings: Settings,
    name: str,
    lines: list[str],
    *,
    required: float | None = None,
    batch_events: int = BATCH_EVENTS,
    durability: Durability = "normal",
) -> Figure:
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
        create_file(path)
        connection = open_writer(path, durability)
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
