"""Many callers at once: commits they share, against one caller; and what a loop feels of it."""

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from benchmarks.appending import batched_events
from benchmarks.measure import Figure, Settings, in_turns
from benchmarks.workload import remove, workload_lines
from journal import AsyncJournal, DomainEvent, Journal, SessionId
from journal.live import shared_commits
from journal.testing import FaultVFS

CALLERS = 64
_LAG_TASKS = 20
_EVENTS_A_SECOND = 2_000
_TICK_SECONDS = 0.002
_ALLOWED_LAG_MS = 8.0
_SLOW_SYNC_SECONDS = 0.02


def sharing(settings: Settings) -> list[Figure]:
    """Append single events from 64 threads or tasks that share a journal, against one caller."""
    lines = workload_lines("steady", settings.size(6_400, 128), settings.seed)
    events = [event for (event,) in batched_events(lines, 1)]
    few = events[: settings.size(800, 32)]
    numbers = count()

    @contextmanager
    def path() -> Iterator[Path]:
        path = settings.folder / f"sharing-{next(numbers)}.journal"
        yield path
        with Journal.open(path, read_only=True) as journal:
            assert journal.event_count() == journal.last_position > 0
        remove(path)

    def one() -> float:
        with path() as file, Journal.open(file) as journal:
            return _rate(few, lambda: [journal.append_events([event]) for event in few])

    def threads() -> float:
        with path() as file, Journal.open(file) as journal:
            return _rate(events, lambda: _append_from_threads(journal, events))

    def tasks() -> float:
        async def main(file: Path) -> float:
            async with AsyncJournal.open(file) as journal:
                began = perf_counter()
                parts = [events[first::CALLERS] for first in range(CALLERS)]
                await asyncio.gather(*(_append_in_task(journal, part) for part in parts))
                return len(events) / (perf_counter() - began)

        with path() as file:
            return asyncio.run(main(file))

    def syncs(append: Callable[[Journal], object], appended: int) -> float:
        with path() as file, FaultVFS(sync_seconds=0.0003) as disk, Journal.open(file) as journal:
            before = disk.syncs
            append(journal)
            return (disk.syncs - before) / appended

    def append_one_by_one(journal: Journal) -> None:
        for event in few:
            journal.append_events([event])

    many_syncs = partial(syncs, lambda journal: _append_from_threads(journal, events), len(events))
    return [
        _figure("threads-64", "one caller", "events/s", in_turns(settings.repeat, threads, one), 4),
        _figure("tasks-64", "one caller", "events/s", in_turns(settings.repeat, tasks, one), 10),
        _figure(
            "syncs-64",
            "one caller",
            "syncs/event",
            in_turns(settings.repeat, many_syncs, partial(syncs, append_one_by_one, len(few))),
            1 / 20,
            at_most=True,
        ),
    ]


def fairness(settings: Settings) -> list[Figure]:
    """Find the longest wait of a thread while 64 of another process append, pausing or not."""
    numbers = count()

    def longest_ms(long_wait_seconds: float) -> float:
        path = settings.folder / f"fairness-{next(numbers)}.journal"
        lines = workload_lines("steady", settings.size(300, 10), settings.seed)
        events = [event for (event,) in batched_events(lines, 1)]
        context = multiprocessing.get_context("spawn")
        begun, ended = context.Event(), context.Event()
        Journal.open(path).close()
        arguments = path, events, long_wait_seconds, begun, ended
        other = context.Process(target=_append_until, args=arguments)
        other.start()
        begun.wait()
        longest = 0.0
        with Journal.open(path) as journal:
            for event in events:
                began = perf_counter()
                journal.append_events([event])
                longest = max(longest, perf_counter() - began)
        ended.set()
        other.join()
        remove(path)
        return 1000 * longest

    usual = partial(longest_ms, shared_commits._LONG_WAIT_SECONDS)
    turns = in_turns(settings.repeat, usual, partial(longest_ms, 3600.0))
    return [_figure("fairness-64", "without a pause", "ms at most", turns, None, at_most=True)]


def lag(settings: Settings) -> list[Figure]:
    """Find how late a loop is while 20 tasks append 2,000 events a second, against an idle one."""
    slow_disk = partial(FaultVFS, sync_seconds=_SLOW_SYNC_SECONDS)
    return [
        # So many events an append that direct calls, which wait for each sync, keep up, too.
        _lag(settings, "lag", nullcontext, 20),
        _lag(settings, "lag-slow-sync", slow_disk, 100),
    ]


def _lag(
    settings: Settings,
    name: str,
    disk: Callable[[], AbstractContextManager[object]],
    events_per_append: int,
) -> Figure:
    events = settings.size(10_000, 400)
    lines = workload_lines("many", events, settings.seed)  # more sessions than a page has
    batches = batched_events(lines, events_per_append)
    numbers = count()
    lags: dict[str, list[float]] = {"idle": [], "direct": [], "async": []}
    rates: dict[str, list[float]] = {what: [] for what in lags}

    async def events_per_s(what: str, path: Path) -> float:
        async with AsyncJournal.open(path) as journal, _lags(lags[what]):
            if what == "idle":
                await asyncio.sleep(events / _EVENTS_A_SECOND)
                return 0.0
            append = (journal if what == "async" else journal.journal).append_events
            appending = asyncio.create_task(_append_on_schedule(append, batches))
            await _read_until(journal, batches[0][0].session_id, appending)
            return events / await appending

    def p99_ms(what: str) -> float:
        path = settings.folder / f"{name}-{next(numbers)}.journal"
        before = len(lags[what])
        with disk():
            rates[what].append(asyncio.run(events_per_s(what, path)))
            with Journal.open(path, read_only=True) as journal:
                assert journal.event_count() == (0 if what == "idle" else events)
        remove(path)
        return 1000 * _cuts(lags[what][before:])[1]

    ours, idle = in_turns(settings.repeat, partial(p99_ms, "async"), partial(p99_ms, "idle"))
    for _ in range(settings.repeat):
        p99_ms("direct")
    details = {}
    for what, seen in lags.items():
        for cut, value in zip(("p50", "p99", "max"), _cuts(seen), strict=True):
            details[f"{what}_{cut}_ms"] = 1000 * value
        details[f"{what}_events_per_s"] = min(rates[what])
    return Figure(
        name=name,
        peer_name=f"an idle loop and {_ALLOWED_LAG_MS:.0f} ms",
        unit="ms at p99",
        ours=ours,
        peer=[each + _ALLOWED_LAG_MS for each in idle],
        required=1.0,
        sense="at most",
        details=details,
    )


async def _append_on_schedule(
    append: Callable[[list[DomainEvent]], object], batches: list[list[DomainEvent]]
) -> float:
    """Append from 20 tasks in turn, 2,000 events a second, and return the seconds it took.

    When each batch is due does not depend on how long those before took: who is late catches up.
    """
    began = perf_counter()
    seconds_per_append = len(batches[0]) / _EVENTS_A_SECOND

    async def append_share(first: int) -> None:
        for number in range(first, len(batches), _LAG_TASKS):
            due = began + (number + 1) * seconds_per_append
            await asyncio.sleep(max(0.0, due - perf_counter()))
            done = append(batches[number])
            if asyncio.iscoroutine(done):
                await done

    await asyncio.gather(*(append_share(first) for first in range(_LAG_TASKS)))
    return perf_counter() - began


async def _read_until(
    journal: AsyncJournal, session: SessionId, ended: asyncio.Task[float]
) -> None:
    """Look at a session, two pages of events and two of sessions, again and again."""
    while not ended.done():
        await journal.session(session)
        async for _ in journal.read(limit=400):
            pass
        async for _ in journal.iter_sessions(limit=400):
            pass
        await asyncio.sleep(0.01)


def _cuts(lags: list[float]) -> tuple[float, float, float]:
    """Return the 50th and the 99th percentile, and the largest."""
    cuts = quantiles([*lags, *lags], n=100, method="inclusive")
    return cuts[49], cuts[98], max(lags)


@asynccontextmanager
async def _lags(lags: list[float]) -> AsyncIterator[None]:
    """Note how late the loop is at each tick."""

    async def tick() -> None:
        while True:
            due = perf_counter() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            lags.append(max(1e-6, perf_counter() - due))

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()


def _rate(events: list[DomainEvent], append: Callable[[], object]) -> float:
    began = perf_counter()
    append()
    return len(events) / (perf_counter() - began)


def _append_from_threads(journal: Journal, events: list[DomainEvent]) -> None:
    def append(part: list[DomainEvent]) -> None:
        for event in part:
            journal.append_events([event])

    parts = [events[first::CALLERS] for first in range(CALLERS)]
    threads = [threading.Thread(target=append, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _append_in_task(journal: AsyncJournal, events: list[DomainEvent]) -> None:
    for event in events:
        await journal.append_events([event])


def _append_until(
    path: Path, events: list[DomainEvent], long_wait_seconds: float, begun: Event, ended: Event
) -> None:
    """Append from 64 threads, in a process of its own, until it is told to end."""
    shared_commits._LONG_WAIT_SECONDS = long_wait_seconds
    with Journal.open(path) as journal:

        def append() -> None:
            while not ended.is_set():
                for event in events[:10]:
                    journal.append_events([event])
                begun.set()

        threads = [threading.Thread(target=append) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _figure(
    name: str,
    peer_name: str,
    unit: str,
    turns: tuple[list[float], list[float]],
    required: float | None,
    *,
    at_most: bool = False,
) -> Figure:
    return Figure(
        name=name,
        peer_name=peer_name,
        unit=unit,
        ours=turns[0],
        peer=turns[1],
        required=required,
        sense="at most" if at_most else "at least",
    )
