"""Merging against a model: what devices appended, shipped, pruned and went on with."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from support import FIRST_SEED, LONG_ROUNDS, ROUNDS, lines_of

from journal import Journal, SessionId, StreamId, continue_copy, merge, verify
from journal.events.wire import read_record
from journal.maintenance import Merged

pytestmark = pytest.mark.usefixtures("small_merge_steps")

LINES = lines_of("mixed/events.ndjson")

Event = tuple[str, int]
"""The journal that an event was appended to, and its position there."""

Texts = dict[Event, str]


class File(NamedTuple):
    """A source, and what it has."""

    path: Path
    texts: Texts


class Device:
    """A journal, and what was appended to it and to those that it goes on from."""

    def __init__(self, path: Path, label: str, before: list[tuple[Event, str]]) -> None:
        self.path = path
        self.label = label
        self.events = before
        self.cut = 0
        with Journal.open(path, label=label) as opened:
            self.journal_id = str(opened.journal_id)

    def append(self, lines: list[str]) -> None:
        with Journal.open(self.path) as opened:
            opened.append_ndjson(lines)
        for line in lines:
            self.events.append(((self.journal_id, len(self.events) + 1), line))

    def having(self, first: int) -> Texts:
        return dict(self.events[max(first, self.cut + 1) - 1 :])


class World:
    """Devices that do something at random, and the files that come of it."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.devices = [Device(folder / f"{name}.db", name, []) for name in ("a", "b")]
        self.files: list[File] = []
        self.shipments: list[tuple[Device, Path, list[tuple[Event, str]], int]] = []
        self._next = 0

    def path(self) -> Path:
        self._next += 1
        return self.folder / f"file{self._next}"

    def step(self) -> None:
        device = self.rng.choice(self.devices)
        actions = [self.append, self.append, self.ship, self.ship_delta, self.copy, self.prune]
        if len(self.devices) < 4:
            actions.append(self.go_on)
        self.rng.choice(actions)(device)

    def append(self, device: Device) -> None:
        begin = self.rng.randrange(len(LINES) - 40)
        device.append(LINES[begin : begin + self.rng.randint(1, 24)])

    def ship(self, device: Device) -> None:
        if len(device.events) == device.cut:
            return
        path = self.path()
        with Journal.open(device.path, read_only=True) as opened:
            opened.ship(path)
        self.files.append(File(path, device.having(1)))
        self.shipments.append((device, path, list(device.events), device.cut))

    def ship_delta(self, device: Device) -> None:
        if len(device.events) == device.cut:
            return
        path = self.path()
        after = self.rng.randint(device.cut, len(device.events) - 1)
        with Journal.open(device.path, read_only=True) as opened:
            first = opened.ship(path, after=after).first_position
        assert first is not None
        self.files.append(File(path, device.having(first)))

    def copy(self, device: Device) -> None:
        path = self.path()
        shutil.copy(device.path, path)
        if len(device.events) > device.cut:
            self.files.append(File(path, device.having(1)))

    def prune(self, device: Device) -> None:
        with Journal.open(device.path) as opened:
            opened.prune(before=self.rng.randint(1, len(device.events) + 1))
            device.cut = opened.last_position - opened.event_count()

    def go_on(self, _device: Device) -> None:
        if not self.shipments:
            return
        device, path, events, cut = self.rng.choice(self.shipments)
        new = self.path()
        label = f"{device.label}+"
        continue_copy(path, new, label=label)
        made = Device(new, label, list(events))
        made.cut = cut
        self.devices.append(made)


def texts_of(fleet: Path) -> list[tuple[Event, str]]:
    """Return the events of a file in order, by where they were appended first."""
    found = []
    with Journal.open(fleet, read_only=True) as opened:
        for position, text in opened.lines():
            origin = opened.origin_of(position)
            assert origin is not None
            assert origin.branch == ""
            there = position - origin.first_position + origin.source_first_position
            found.append(((str(origin.journal_id), there), text))
    return found


def check(fleet: Path, expected: Texts) -> None:
    found = texts_of(fleet)
    assert dict(found) == expected
    assert len(found) == len(expected)
    for journal_id in {event[0] for event, _ in found}:
        positions = [at for (owner, at), _ in found if owner == journal_id]
        assert positions == sorted(positions)
    verified = verify(fleet, full=True)
    assert verified.sound, verified.findings
    with Journal.open(fleet) as opened:
        assert not any(report.changes for report in opened.rebuild(check=True))
        versions: dict[SessionId | StreamId, int] = {}
        for _, text in found:
            session = read_record(text)[1]
            versions[session] = versions.get(session, 0) + 1
        for session, version in versions.items():
            assert isinstance(session, SessionId)
            assert opened.version(session) == version


def waits(done: Merged) -> bool:
    return bool(done.waiting)


def run(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), rng)
        for _ in range(rng.randint(4, 22)):
            world.step()
        if not world.files:
            return
        files = world.files
        expected: Texts = {}
        for file in files:
            expected |= file.texts
        paths = [file.path for file in files]
        # All at once: nothing comes too late.
        sorted_fleet = world.folder / "sorted.db"
        done = merge(sorted_fleet, paths)
        assert not done.waiting
        check(sorted_fleet, expected)
        assert merge(sorted_fleet, rng.sample(paths, len(paths))).added_count == 0
        # Some at a time, in any order, also through another merged journal.
        fleet, region = world.folder / "fleet.db", world.folder / "region.db"
        left = rng.sample(paths, len(paths)) + rng.sample(paths, rng.randint(0, len(paths)))
        while left:
            some, left = left[: rng.randint(1, 4)], left[4:] if rng.random() < 0.2 else left[1:]
            target = rng.choice([fleet, region])
            done = merge(target, some, rewrite=rng.random() < 0.3)
            assert not any(origin.branch for origin in done.origins)
        if region.exists():
            merge(fleet, region)
        done = merge(fleet, [*paths, *([region] if region.exists() else [])], rewrite=True)
        assert not done.waiting
        check(fleet, expected)
        assert merge(fleet, paths).added_count == 0


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 3 * ROUNDS))
def test_whatever_the_order_the_result_is_that_of_a_sorted_merge(seed: int) -> None:
    run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED + 1_000, FIRST_SEED + 1_000 + 10 * LONG_ROUNDS))
def test_so_it_is_for_long(seed: int) -> None:
    run(seed)
