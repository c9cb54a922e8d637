"""Crashes, power cuts and disks that fail while a journal is pruned: block by block, whole or not.

A test that draws at random names its seed when it fails.
"""

import contextlib
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support
from disks import Disk, PowerCut, io_error
from prune_support import BLOCK, check_against, check_closed, small_blocks
from support import Channel, Child, let_go, lines_of

from journal import Journal, JournalError, Retention, StorageFullError, limits, verify
from journal.file import wal
from journal.maintenance import space

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")

LINES = lines_of("mixed/events.ndjson")[:620]


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(wal, "_CHECKPOINT_PAGES", 12)
    monkeypatch.setattr(space, "PAGES_AT_ONCE", 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a whole journal, in small blocks."""
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        path = tmp_path_factory.mktemp("made") / "whole.db"
        with Journal.open(path, durability="normal") as journal:
            journal.append_ndjson(LINES)
            journal.sessions()
        yield path


def check(path: Path, made: Path) -> int:
    """Assert that a file is as some cut has left it, and can be pruned further; return the cut."""
    with Journal.open(path) as journal, Journal.open(made, read_only=True) as whole:
        cut = 620 - journal.event_count()
        assert cut % BLOCK == 0 or cut == 620
        check_against(journal, whole, cut)
        assert journal.prune(keep_events=100).first_position == max(cut, 500) + 1
        check_against(journal, whole, max(cut, 500))
    check_closed(path)
    return cut


CUTS = [4, pytest.param(10 * support.LONG_ROUNDS, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", CUTS)
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_a_power_cut_leaves_a_whole_number_of_cuts(
    tmp_path: Path, made: Path, durability: Any, count: int
) -> None:
    draw = random.Random(support.FIRST_SEED)
    folder = tmp_path / "files"
    folder.mkdir()
    path = Path(shutil.copy(made, folder / "a.db"))
    with Disk(tmp_path / "log", folder) as disk:
        disk.note("was", path.name, path.read_bytes())
        with Journal.open(path, durability=durability) as journal:
            journal.prune(keep_events=100)
    power = PowerCut(tmp_path / "log")
    entries = power.entries()
    cuts = set()
    for at in sorted(draw.sample(range(1, len(entries) + 1), count)):
        for chance in (0.0, 0.5, 1.0):
            left = tmp_path / f"cut {at} {chance}"
            power.leave(left, entries[:at], chance, random.Random(at))
            try:
                cuts.add(check(left / "a.db", made))
            except BaseException as error:
                error.add_note(f"power cut after operation {at}, chance {chance}")
                raise
            shutil.rmtree(left)
    assert len(cuts) > 1 or count < 10


def prune_slowly(channel: Channel, path: Path, by_itself: bool) -> None:
    limits.BLOCK_EVENTS_MAX, limits.FOLD_EVENTS_MAX = BLOCK, 1
    channel.send("begun")
    if by_itself:
        with Journal.open(path, retention=Retention(keep_events=60)) as journal:
            for line in LINES:
                journal.append_ndjson([line])
        return
    with Journal.open(path, durability="normal") as journal:
        journal.prune(keep_events=100)


@pytest.mark.parametrize(
    "rounds", [3, pytest.param(10 * support.LONG_ROUNDS, marks=pytest.mark.slow)]
)
def test_a_process_that_is_killed_leaves_a_whole_number_of_cuts(
    tmp_path: Path, made: Path, rounds: int
) -> None:
    draw = random.Random(support.FIRST_SEED)
    for number in range(rounds):
        path = Path(shutil.copy(made, tmp_path / f"{number}.db"))
        with Child(prune_slowly, path, False) as child:
            child.receive()
            time.sleep(draw.random() * 0.12)
            child.kill()
        check(path, made)


@pytest.mark.parametrize(
    "rounds", [2, pytest.param(10 * support.LONG_ROUNDS, marks=pytest.mark.slow)]
)
def test_retention_in_a_process_that_is_killed_loses_nothing_that_is_to_be_kept(
    tmp_path: Path, rounds: int
) -> None:
    draw = random.Random(support.FIRST_SEED)
    for number in range(rounds):
        path = tmp_path / f"{number}.db"
        with Child(prune_slowly, path, True) as child:
            child.receive()
            time.sleep(0.1 + draw.random() * 0.6)
            child.kill()
        with Journal.open(path) as journal:
            positions = [one.position for one in journal.read()]
            last = journal.last_position
            assert positions == list(range(last - len(positions) + 1, last + 1))
            assert len(positions) >= min(60, last)
            assert (last - len(positions)) % BLOCK == 0
            for report in journal.rebuild(check=True):
                assert report.change_count == 0
            journal.append_ndjson(LINES[:1])
        check_closed(path)


def prune_beside(channel: Channel, path: Path) -> None:
    limits.BLOCK_EVENTS_MAX, limits.FOLD_EVENTS_MAX = BLOCK, 1
    with Journal.open(path, durability="normal") as journal:
        channel.meet()
        for before in range(51, 552, 50):
            journal.prune(before=before)


def append_beside(channel: Channel, path: Path) -> None:
    limits.BLOCK_EVENTS_MAX = BLOCK
    with Journal.open(path, retention=Retention(keep_events=100)) as journal:
        channel.meet()
        for line in LINES[:200]:
            journal.append_ndjson([line])


def test_processes_that_prune_at_once_while_another_appends_lose_nothing(
    tmp_path: Path, made: Path
) -> None:
    path = Path(shutil.copy(made, tmp_path / "a.db"))
    with (
        Child(prune_beside, path) as one,
        Child(prune_beside, path) as other,
        Child(append_beside, path) as third,
    ):
        let_go([one, other, third])
        assert [child.receive() for child in (one, other, third)] == [None] * 3
    found = verify(path, full=True)
    assert found.sound, found.findings
    with Journal.open(path) as journal:
        kept = dict(journal.lines())
        whole = dict(enumerate(LINES + LINES[:200], 1))
        assert journal.last_position == 820
        assert kept == {at: whole[at] for at in range(821 - len(kept), 821)}
        assert 100 <= len(kept) <= 270
        assert not any(report.change_count for report in journal.rebuild(check=True))
    check_closed(path)


def test_a_disk_that_stays_full_is_one_error_and_changes_nothing(
    tmp_path: Path, made: Path
) -> None:
    path = Path(shutil.copy(made, tmp_path / "a.db"))

    def full(what: str, *_: Any) -> None:
        if what in ("write", "truncate"):
            raise io_error(what, full=True)

    with Disk() as disk, Journal.open(path) as journal:
        disk.before = full
        for _ in range(2):
            with pytest.raises(StorageFullError) as raised:
                journal.prune(keep_events=100)
            assert str(raised.value).startswith(f"{path}: ")
            assert (journal.event_count(), len(list(journal.read()))) == (620, 620)
        disk.before = lambda *_: None
        assert journal.event_count() == 620
        assert journal.prune(keep_events=100).event_count == 500
    check(path, made)


@pytest.mark.parametrize(
    "step", [41, pytest.param(max(1, 10 // support.LONG_ROUNDS), marks=pytest.mark.slow)]
)
def test_an_operation_that_fails_leaves_a_whole_number_of_cuts(
    tmp_path: Path, made: Path, step: int
) -> None:
    number, failures = 1, 0
    while True:
        path = Path(shutil.copy(made, tmp_path / f"{number}.db"))
        count = [0]

        def fail_once(what: str, *_: Any, count: list[int] = count, number: int = number) -> None:
            count[0] += 1
            if count[0] == number:
                raise io_error(what, full=number % 2 == 0)

        with Disk() as disk:
            journal = Journal.open(path)
            disk.before = fail_once
            try:
                journal.prune(keep_events=100)
            except JournalError:
                failures += 1
            finally:
                disk.before = lambda *_: None
                with contextlib.suppress(JournalError):
                    journal.close()
        try:
            check(path, made)
        except BaseException as error:
            error.add_note(f"operation {number} failed")
            raise
        for file in tmp_path.iterdir():
            file.unlink()
        if count[0] < number:
            break
        number += step
    assert failures > 3
