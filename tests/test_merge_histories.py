"""Merging the histories of one journal, originals and redacted shipments of them, in any order."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from support import FIRST_SEED, LONG_ROUNDS, ROUNDS, activated

import journal
from journal import Journal, SessionId, StreamId, merge, verify
from journal.events import AnyEvent
from journal.maintenance import Merged

pytestmark = pytest.mark.usefixtures("small_merge_steps")

SESSION = SessionId.from_bytes(bytes(16))
BLANK = {"stream_failed.error": "blank"}


class Source(NamedTuple):
    """A file, and which events it has, by their numbers."""

    path: Path
    numbers: tuple[int, ...]
    before: tuple[int, ...]
    """Those of its history that it has not."""
    is_redacted: bool


class World:
    """Copies of one journal that all go on; each event has a number, which no other one has."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.histories: dict[Path, tuple[int, ...]] = {}
        self.sources: list[Source] = []
        self.next = 1
        self.append(self.path(), rng.randint(1, 24))

    def path(self) -> Path:
        return self.folder / f"{len(self.histories)}-{len(self.sources)}.db"

    def append(self, path: Path, count: int) -> None:
        numbers = range(self.next, self.next + count)
        self.next += count
        with Journal.open(path) as opened:
            for number in numbers:
                opened.append_events([self._event(number)])
        self.histories[path] = (*self.histories.get(path, ()), *numbers)

    def _event(self, number: int) -> AnyEvent:
        event = activated(SESSION, number)
        if self.rng.random() < 0.7:
            return event
        return journal.StreamFailed(
            session_id=SESSION,
            stream_id=StreamId.from_bytes(number.to_bytes(16)),
            error=f"secret {number}",
            timestamp=event.timestamp,
        )

    def step(self) -> None:
        path = self.rng.choice([*self.histories])
        numbers = self.histories[path]
        match self.rng.choice(["append", "part", "ship", "ship", "delta"]):
            case "append":
                self.append(path, self.rng.randint(1, 14))
            case "part" if len(self.histories) < 4:
                copy = shutil.copy(path, self.path())
                self.histories[copy] = numbers
                self.append(copy, self.rng.randint(1, 14))
            case "ship":
                self.ship(path, None)
            case "delta":
                self.ship(path, self.rng.randrange(len(numbers)))

    def ship(self, path: Path, after: int | None, *, redact: bool | None = None) -> None:
        numbers, to = self.histories[path], self.path()
        if redact is None:
            redact = self.rng.random() < 0.5
        with Journal.open(path, read_only=True) as opened:
            shipped = opened.ship(to, after=after, redact=BLANK if redact else None)
        first = shipped.first_position or 1
        source = Source(to, numbers[first - 1 :], numbers[: first - 1], redact)
        self.sources.append(source)


def numbers_of(fleet: Path) -> list[int]:
    """Return the numbers of the events of a file, negative where a text was redacted."""
    with Journal.open(fleet, read_only=True) as opened:
        events = [sequenced.event for sequenced in opened.read()]
    base = activated(SESSION, 0).timestamp
    return [
        round((it.timestamp - base).total_seconds())
        * (-1 if getattr(it, "error", "-") == "" else 1)
        for it in events
    ]


def ends_of(sources: list[Source]) -> set[tuple[int, ...]]:
    """Return the histories that are not the beginning of another one."""
    found = {(*it.before, *it.numbers) for it in sources}
    return {it for it in found if not any(it == more[: len(it)] and it != more for more in found)}


def check(done: Merged, sources: list[Source], *, is_settled: bool) -> None:
    expected = {number for source in sources for number in source.numbers}
    numbers = numbers_of(done.path)
    found = [abs(number) for number in numbers]
    waiting = sum(last - first + 1 for it in done.waiting for first, last in it.positions)
    assert len(set(found)) == len(found)
    assert set(found) <= expected
    if is_settled:
        assert not waiting
        assert set(found) == expected
        assert len(done.origins) == len(ends_of(sources))
        originals = {it for source in sources if not source.is_redacted for it in source.numbers}
        redacted = {-number for number in numbers if number < 0}
        assert not redacted & originals
    verified = verify(done.path, full=True)
    assert verified.sound, verified.findings


def run(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), rng)
        for _ in range(rng.randint(4, 14)):
            world.step()
        for path in world.histories:
            world.ship(path, None)
        fleet, left = world.folder / "fleet.db", world.sources
        left = rng.sample(left, len(left)) + rng.sample(left, rng.randint(0, len(left)))
        merged: list[Source] = []
        while left:
            count = rng.choice([1, 2, 3, len(left)])
            some, left = left[:count], left[count:]
            merged += some
            done = merge(fleet, [it.path for it in some], rewrite=rng.random() < 0.2)
            check(done, merged, is_settled=False)
        paths = [it.path for it in world.sources]
        done = merge(fleet, rng.sample(paths, len(paths)), rewrite=True)
        check(done, world.sources, is_settled=True)
        again = merge(fleet, rng.sample(paths, len(paths)), rewrite=True)
        assert (again.added_count, again.rewritten, again.origins) == (0, False, done.origins)
        at_once = merge(world.folder / "at_once.db", rng.sample(paths, len(paths)))
        check(at_once, world.sources, is_settled=True)
        pruned_stays_away(world, at_once.path)


def pruned_stays_away(world: World, fleet: Path) -> None:
    """Check that a file has nothing to gain from what it has pruned, and goes on."""
    with Journal.open(fleet) as opened:
        opened.prune(before=world.rng.randint(1, opened.last_position + 1))
    left = numbers_of(fleet)
    for source in world.rng.sample(world.sources, len(world.sources)):
        done = merge(fleet, source.path)
        assert (done.added_count, done.waiting) == (0, ())
    ends = ends_of(world.sources)
    path = next(path for path, numbers in world.histories.items() if numbers in ends)
    before = world.histories[path]
    world.append(path, 12)
    world.ship(path, None, redact=False)
    done = merge(fleet, [it.path for it in world.sources])
    assert (done.added_count, len(done.origins)) == (12, len(ends))
    assert {it.reason for it in done.waiting} <= {"they are redacted there"}
    assert [abs(it) for it in numbers_of(fleet)] == [
        *map(abs, left),
        *world.histories[path][len(before) :],
    ]
    verified = verify(fleet, full=True)
    assert verified.sound, verified.findings


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 4 * ROUNDS))
def test_each_event_of_each_history_is_there_once(seed: int) -> None:
    run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED + 1_000, FIRST_SEED + 1_000 + 10 * LONG_ROUNDS))
def test_so_it_is_for_long(seed: int) -> None:
    run(seed)
