"""What was acknowledged in "full" rests on nobody's sync but a journal's own, and what became of a
commit that failed is said once and for ever.

Whoever wrote to the -wal before may have been killed between writing and syncing, may have failed
to sync, or may not have meant to (durability "normal"). Then the power is cut. What could be on the
disk is worked out from a log of what all the processes did to it: see `disks`.
"""

import contextlib
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from disks import Disk, Entry, PowerCut, io_error
from support import Channel, Child, activated, check_file, number_of, texts

from journal import (
    AccessDeniedError,
    CommitFailedError,
    DamagedError,
    Journal,
    JournalError,
    SessionId,
    StorageError,
    parse_event,
)
from journal.events import AnyEvent
from journal.file import wal
from journal.store import Appended

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the disk is that of Linux"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # apsw's
]

SESSION = SessionId(f"{1:032x}")


def event(number: int) -> AnyEvent:
    return activated(SESSION, number)


def numbers_in(path: Path) -> list[int]:
    """Return which events a program finds that starts on these files; they must be sound."""
    with Journal.open(path) as journal:
        found = [number_of(each) for _, each in journal.read()]
    assert [number_of(parse_event(line)) for line in check_file(path)] == found
    return found


class World:
    """A file, the disk that it is on, and what was said about it."""

    def __init__(self, folder: Path, disk: Disk, cuts_at: int | None = None) -> None:
        self.folder = folder
        self.cuts_at = cuts_at
        self.path = folder / "files" / "a.db"
        self.disk = disk
        self.cuts = 0

    def append(self, journal: Journal, *numbers: int) -> None:
        for number in numbers:
            journal.append_events([event(number)], key=str(number))
            if journal._database.durability == "full":
                self.disk.note("yes", number=number)

    def fail(self, what: str, *, times: float = 1) -> None:
        """Let the next operations of a kind on the -wal fail."""

        def before(operation: str, file: str, *_: object) -> None:
            nonlocal times
            if operation == what and file.endswith("-wal") and times > 0:
                times -= 1
                raise io_error(what)

        self.disk.before = before

    def heal(self) -> None:
        self.disk.before = lambda *_: None

    def check(self, *, also: int = 0) -> None:
        """Assert that a power cut does not make wrong what was said, and that the file is sound.

        It comes at the end and after each of the operations before, `also` so many; in long tests
        at some of all the times since something was said, too.
        """
        cut = PowerCut(self.folder / "log")
        entries = cut.entries()
        points = [*range(len(entries) - also, len(entries) + 1)]
        if self.cuts_at is not None:
            begin = next(at for at, each in enumerate(entries, 1) if each.what in ("yes", "no"))
            points += range(begin, len(entries), (len(entries) - begin) // self.cuts_at + 1)
        chances = (0.3, 0.7) if also or self.cuts_at is not None else (0.0, 1.0)
        for at in points:
            for chance in chances:
                self.cuts += 1
                left = self.folder / f"after cut {self.cuts}"
                cut.leave(left, entries[:at], chance, random.Random(at))
                with noted(f"power cut after operation {at} of {len(entries)}, chance {chance}"):
                    check_said(entries[:at], numbers_in(left / "a.db"))
                shutil.rmtree(left)

    def check_recovery(self) -> None:
        """Assert the same of what is there when every process is killed."""
        left = self.folder / "after a crash"
        left.mkdir()
        for name in ("a.db", "a.db-wal"):
            if (file := self.path.with_name(name)).exists():
                shutil.copyfile(file, left / name)
        check_said(PowerCut(self.folder / "log").entries(), numbers_in(left / "a.db"))
        shutil.rmtree(left)


@contextlib.contextmanager
def noted(note: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(note)
        raise


def check_said(entries: list[Entry], found: list[int]) -> None:
    """Assert that a file has what was said to be there, and not what was said not to be."""
    said = {each.number: each.what for each in entries if each.what in ("yes", "no")}
    assert not {number for number, what in said.items() if what == "yes"} - set(found), "lost"
    assert not {number for number, what in said.items() if what == "no"} & set(found), "it took"


@pytest.fixture(
    params=[None, pytest.param(support.LONG_ROUNDS, marks=pytest.mark.slow)],
    ids=["", "many cuts"],
)
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    (tmp_path / "files").mkdir()
    with Disk(tmp_path / "log", tmp_path / "files") as disk:
        yield World(tmp_path, disk, request.param)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read from the -wal meanwhile, so that it cannot be emptied."""
    with Journal.open(path, read_only=True) as journal, journal._database.read() as connection:
        connection.execute("SELECT count(*) FROM event").fetchall()
        yield


def read_until_killed(channel: Channel, path: Path) -> None:
    with reading(path):
        channel.send("reading")
        channel.receive()


@contextlib.contextmanager
def read_elsewhere(path: Path) -> Iterator[None]:
    with Child(read_until_killed, path) as child:
        assert child.receive() == "reading"
        yield


READERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "nobody reads": lambda _: contextlib.nullcontext(),
    "somebody reads": reading,
    "another process reads": read_elsewhere,
}
nobody, somebody, elsewhere = READERS.values()
with_readers = pytest.mark.parametrize(
    "reader", [nobody, pytest.param(somebody, marks=pytest.mark.slow), elsewhere], ids=READERS
)
here = dict(list(READERS.items())[:2])
with_readers_here = pytest.mark.parametrize("reader", here.values(), ids=here)


# Killed between writing and syncing


def append_and_die_before_the_sync(_channel: Channel, path: Path, log: Path) -> None:
    with Disk(log, path.parent) as disk:
        journal = Journal.open(path)
        journal.append_events([event(1)], key="1")
        disk.note("yes", number=1)

        def before(what: str, file: str, *_: object) -> None:
            if what == "sync" and file.endswith("-wal"):
                support.die()

        disk.before = before
        journal.append_events([event(2)], key="2")


@with_readers
@pytest.mark.parametrize("since", ["before", "after"])
def test_what_comes_after_a_process_that_was_killed_before_its_sync_is_kept(
    world: World, reader: Any, since: str
) -> None:
    with contextlib.ExitStack() as stack:
        if since == "before":
            Journal.open(world.path).close()
            stack.enter_context(reader(world.path))
        log = world.folder / "log"
        with Child(append_and_die_before_the_sync, world.path, log) as child:
            child.wait_until_killed()
        if since == "after":  # it is then the reader that finds what the killed one has left
            stack.enter_context(reader(world.path))

        with Journal.open(world.path) as journal:
            world.append(journal, 2)  # as the program does when it starts again
            world.check()
            world.append(journal, 3)
            world.check()
    world.check()
    assert numbers_in(world.path) == [1, 2, 3]


# A sync that failed


@contextlib.contextmanager
def opened(path: Path, durability: Any) -> Iterator[Journal]:
    """Lend a journal whose close may say that the disk has failed, too."""
    journal = Journal.open(path, durability=durability)
    try:
        yield journal
    finally:
        with contextlib.suppress(StorageError):
            journal.close()


@with_readers
@pytest.mark.parametrize("other", ["full", "normal"])
def test_what_comes_after_a_sync_that_failed_is_kept(world: World, reader: Any, other: Any) -> None:
    """The pages that it should have written may never be, though the next sync succeeds."""
    with opened(world.path, durability=other) as before:
        world.append(before, 1, 2)
        with reader(world.path):
            journal = Journal.open(world.path)
            world.append(before, 3)
            world.fail("sync", times=float("inf"))
            for number in (4, 5):
                with pytest.raises(CommitFailedError):
                    world.append(journal, number)
            world.heal()
            world.append(journal, 8)  # it is opened again by itself
            world.check()
            journal.close()
            with Journal.open(world.path) as journal:
                world.append(journal, 6, 3, 7)
                world.check()
        world.check()


def test_who_had_the_file_open_when_the_sync_of_another_failed_is_told(world: World) -> None:
    """Each on its own descriptor: so it cannot acknowledge what comes after what was lost."""
    with Journal.open(world.path, durability="normal") as careless:
        world.append(careless, 1)
        with Journal.open(world.path) as first, Journal.open(world.path) as second:
            world.append(careless, 2)
            world.fail("sync")
            for journal in (first, second):
                with pytest.raises(CommitFailedError):
                    world.append(journal, 3)
            world.heal()
        with Journal.open(world.path) as journal:
            world.append(journal, 4)
            world.check()


@pytest.mark.parametrize("who", ["who failed closes", "another goes on"])
def test_a_checkpoint_after_a_sync_that_failed_does_not_rely_on_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """What of the -wal is not on the disk would be missing when it stops half-way."""
    with Journal.open(world.path) as journal:
        world.append(journal, *range(40))
    with Journal.open(world.path, durability="normal") as careless:
        journal = Journal.open(world.path)
        world.append(careless, *range(40, 60))
        world.fail("sync")
        if who == "who failed closes":
            with pytest.raises(CommitFailedError):
                world.append(journal, 60)
            world.heal()
            journal.close()
        else:
            monkeypatch.setattr(wal, "_CHECKPOINT_PAGES", 1)
            world.append(careless, 60)  # the checkpoint that follows is what fails,
            world.append(careless, 61)  # and this is followed by the next one
        world.check(also=20)
        journal.close()


# Answers that write nothing

ANSWERS: dict[str, Callable[[Journal], object]] = {
    "a key": lambda journal: journal.append_events([event(1)], key="1"),
    "versions": lambda journal: journal.append_events([], expected_versions={SESSION: 1}),
    "a label": lambda journal: journal.set_label("pump 7"),
}
with_answers = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)


@with_readers_here
@with_answers
@pytest.mark.parametrize("opened", ["before", "after"])
def test_an_answer_from_what_a_normal_writer_wrote_is_kept(
    world: World, reader: Any, answer: Callable[[Journal], object], opened: str
) -> None:
    Journal.open(world.path).close()
    with contextlib.ExitStack() as stack:
        stack.enter_context(reader(world.path))
        if opened == "before":
            journal = stack.enter_context(Journal.open(world.path))
        careless = stack.enter_context(Journal.open(world.path, durability="normal"))
        careless.set_label("pump 7")
        world.append(careless, 1)
        if opened == "after":
            journal = stack.enter_context(Journal.open(world.path))
        answer(journal)
        world.disk.note("yes", number=1)
        world.check()


@with_answers
def test_an_answer_whose_sync_fails_is_a_commit_that_failed(
    world: World, answer: Callable[[Journal], object]
) -> None:
    with Journal.open(world.path, durability="normal") as careless:
        careless.set_label("pump 7")
        with Journal.open(world.path) as journal:
            world.append(careless, 1)
            world.fail("sync", times=float("inf"))
            for match in (r"Journal\.resolve", "the cause has not gone"):
                with pytest.raises(CommitFailedError, match=match):
                    answer(journal)
            world.heal()
            answer(journal)
            world.disk.note("yes", number=1)
            world.check()
        with Journal.open(world.path) as journal:
            answer(journal)
            world.disk.note("yes", number=1)
            world.check()


def test_a_normal_writer_answers_without_a_sync(world: World) -> None:
    with Journal.open(world.path, durability="normal") as journal:
        journal.append_events([event(1)], key="1")
        world.fail("sync")
        assert journal.append_events([event(1)], key="1") == Appended(1, 1)
        world.heal()


# Opened again and again

BETWEEN: dict[str, Callable[[Journal], object]] = {
    "nothing": lambda _: None,
    "lines": lambda journal: journal.append_ndjson(texts([event(100)])),
    "a label": lambda journal: journal.set_label("pump 7"),
    "a rebuild": lambda journal: journal.rebuild(),
    "sessions": lambda journal: journal.sessions(),
}


@with_readers_here
@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_four_appends_after_reopening_are_kept(
    world: World, reader: Any, between: Callable[[Journal], object]
) -> None:
    Journal.open(world.path).close()
    with reader(world.path):
        for start, durability in ((10, "normal"), (20, "full"), (30, "normal"), (40, "full")):
            with Journal.open(world.path, durability=durability) as journal:  # type: ignore[arg-type]
                between(journal)
                world.append(journal, *range(start, start + 4))
                if durability == "full":
                    world.check()
    world.check()


# What became of a commit that failed

HOW: dict[str, tuple[str, float]] = {
    "its sync failed": ("sync", 1),
    "no sync works until the file is opened again": ("sync", float("inf")),
    "its write failed": ("write", 1),
}


@with_readers_here
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_became_of_a_failed_commit_is_said_once_and_for_ever(
    world: World, reader: Any, how: tuple[str, float], durability: Any
) -> None:
    with Journal.open(world.path) as journal:
        world.append(journal, 1)
    with reader(world.path):
        journal = Journal.open(world.path)
        world.append(journal, 2)
        world.fail(how[0], times=how[1])
        with pytest.raises(CommitFailedError):
            world.append(journal, 3)
        with contextlib.suppress(StorageError):  # it says what it could not do
            journal.close()
        world.heal()
        check_answer_is_final(world, 3, durability)


def fail_to_sync_and_die(_channel: Channel, path: Path, log: Path) -> None:
    with Disk(log, path.parent) as disk:
        journal = Journal.open(path)
        journal.append_events([event(1)])
        World(log.parent, disk).fail("sync")
        with pytest.raises(CommitFailedError):
            journal.append_events([event(2), event(3)])
        support.die()


@with_readers
@pytest.mark.parametrize("since", ["before", "after"])
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_became_of_it_is_final_where_its_process_is_gone(
    world: World, reader: Any, since: str, durability: Any
) -> None:
    """Where nobody has the file open, it is recovered, and it took."""
    with contextlib.ExitStack() as stack:
        if since == "before":
            Journal.open(world.path).close()
            stack.enter_context(reader(world.path))
        with Child(fail_to_sync_and_die, world.path, world.folder / "log") as child:
            child.wait_until_killed()
        if since == "after":
            stack.enter_context(reader(world.path))
        check_answer_is_final(world, 3, durability)


def append_and_checkpoint(_channel: Channel, path: Path, log: Path) -> None:
    with Disk(log, path.parent), Journal.open(path) as journal:
        journal.append_events([event(50)])
        writer = journal._database._writer
        assert writer is not None
        writer.set_busy_handler(None)
        with contextlib.suppress(apsw.BusyError):
            writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)


def check_answer_is_final(world: World, number: int, durability: Any) -> None:
    """Open the file and ask whether an event is there; nothing may change the answer."""
    with Journal.open(world.path, durability=durability) as journal:
        answer = [number_of(each) for _, each in journal.read()]
        world.disk.note("yes" if number in answer else "no", number=number)
        world.check_recovery()
        world.check()
        support.run(append_and_checkpoint, world.path, world.folder / "log")
        world.check_recovery()
        world.check()
        assert [number_of(each) for _, each in journal.read()] == [*answer, 50]
    world.check_recovery()
    world.check()
    assert numbers_in(world.path) == [*answer, 50]


def test_an_opening_that_cannot_settle_what_is_there_fails_and_says_nothing(world: World) -> None:
    with opened(world.path, durability="normal") as careless, reading(world.path):
        world.append(careless, 1)
        for what in ("sync", "write"):
            world.fail(what, times=float("inf"))
            with pytest.raises(StorageError):
                Journal.open(world.path)
            world.heal()
        with Journal.open(world.path) as journal:
            world.append(journal, 1)
            world.check()


# Anything, in any order


def append_and_die(
    _channel: Channel, path: Path, log: Path, todo: list[tuple[int, list[AnyEvent]]], at: int
) -> None:
    """Append batches in "full" and be killed at an operation that changes something."""
    wal._CHECKPOINT_PAGES = 12
    with Disk(log, path.parent) as disk:

        def before(what: str, *_: object) -> None:
            nonlocal at
            at -= what != "read"
            if at < 0:
                support.die()

        disk.before = before
        journal = Journal.open(path)
        for number, events in todo:
            journal.append_events(events, key=str(number))
            disk.note("yes", number=number)
        support.die()


class Program:
    """Random operations of up to three writers and a reader, on a disk that fails now and then.

    Batches have numbers, which their events tell.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.batches: dict[int, list[AnyEvent]] = {}
        self.said_before: dict[int, str] = {}
        self.history: list[str] = []

    def batch(self) -> int:
        number = len(self.batches) + 1
        sessions = [SessionId(f"{number % 3 + 1:032x}"), SessionId(f"{number + 10:032x}")]
        self.batches[number] = [
            activated(sessions[index % 2], number * 100 + index)
            for index in range(self.draw.choice([1, 1, 2, 5, 30]))
        ]
        return number

    def run(self, operations: int) -> None:
        """Go through two lives that a power cut ends; check what each cut has left."""
        try:
            self._run(operations)
        except BaseException as error:
            error.add_note("\n".join(self.history))
            raise

    def _run(self, operations: int) -> None:
        left: Path | None = None
        for life in range(2):
            folder = self.folder / f"life {life}"
            (folder / "files").mkdir(parents=True)
            with Disk(folder / "log", folder / "files") as disk:
                for file in [] if left is None else list(left.iterdir()):
                    shutil.copyfile(file, folder / "files" / file.name)
                    disk.note("was", file.name, file.read_bytes())
                Life(self, folder, disk).live(operations)
            left = self.cut(folder)

    def cut(self, folder: Path) -> Path:
        """Cut the power at several times; return what the last of these cuts has left."""
        cut = PowerCut(folder / "log")
        entries = cut.entries()
        times = [len(entries), *(self.draw.randrange(1, len(entries) + 1) for _ in range(3))]
        for index, at in enumerate(times):
            chance = self.draw.choice([0.0, 0.3, 0.7, 1.0])
            left = folder / f"after cut {index}"
            cut.leave(left, entries[:at], chance, random.Random(at))
            kept = folder / f"after cut {index}, as it was"
            shutil.copytree(left, kept)
            with noted(f"{folder.name}, power cut after operation {at}, chance {chance}"):
                found = self.check(left / "a.db", entries[:at])
        self.said_before = {one: "yes" if one in found else "no" for one in self.batches}
        return kept

    def check(self, path: Path, entries: list[Entry]) -> list[int]:
        """Assert that a file is sound, has whole batches, and what was said is so."""
        found = numbers_in(path)
        batches = list(dict.fromkeys(number // 100 for number in found))
        assert found == [number_of(one) for number in batches for one in self.batches[number]]
        before = [Entry(what, "", b"", number) for number, what in self.said_before.items()]
        check_said(before + entries, batches)
        return batches


class Life:
    """What happens between two power cuts."""

    def __init__(self, program: Program, folder: Path, disk: Disk) -> None:
        self.program = program
        self.draw = program.draw
        self.folder = folder
        self.path = folder / "files" / "a.db"
        self.disk = disk
        self.journals: list[Journal | None] = [None, None, None]
        self.unknown: list[set[int]] = [set(), set(), set()]
        self.written: list[int] = []
        self.reader = contextlib.ExitStack()
        self.crashes = 0

    def live(self, operations: int) -> None:
        draw = self.draw
        acts: list[tuple[int, Callable[[int], object]]] = [
            (12, self.append),
            (4, self.repeat),
            (5, self.open_again),
            (3, self.fail_soon),
            (3, self.read_on),
            (2, self.crash),
            (1, self.be_killed),
            (2, lambda which: self.use(which, lambda journal: journal.set_label("pump 7"))),
            (1, lambda which: self.use(which, lambda journal: journal.rebuild())),
            (1, lambda which: self.use(which, lambda journal: journal.sessions())),
        ]
        try:
            for which in range(3):
                self.open_again(which)
            for _ in range(operations):
                (act,) = draw.choices([act for _, act in acts], [weight for weight, _ in acts])
                which = draw.randrange(3)
                self.note(f"{getattr(act, '__name__', 'use')} {which}")
                act(which)
        finally:
            self.disk.before = lambda *_: None
            self.reader.close()
            for journal in self.journals:
                if journal is not None:
                    with contextlib.suppress(StorageError):  # a sync of before is told only now
                        journal.close()

    def note(self, text: str) -> None:
        self.program.history.append(text)

    def use(self, which: int, act: Callable[[Journal], object]) -> JournalError | None:
        """Return the error, if there is one."""
        journal = self.journals[which]
        assert journal is not None
        try:
            act(journal)
        except DamagedError:
            raise
        except JournalError as error:
            self.note(f"    {type(error).__name__}: {error}")
            return error
        return None

    def is_full(self, which: int) -> bool:
        journal = self.journals[which]
        assert journal is not None
        return journal._database.durability == "full"

    def append(self, which: int) -> None:
        number = self.program.batch()
        events = self.program.batches[number]
        self.note(f"    batch {number}, {'full' if self.is_full(which) else 'normal'}")
        error = self.use(which, lambda journal: journal.append_events(events, key=str(number)))
        if error is None:
            self.written.append(number)
            if self.is_full(which):
                self.disk.note("yes", number=number)
        elif isinstance(error, CommitFailedError) and "an earlier commit" not in str(error):
            self.unknown[which].add(number)
        else:
            self.disk.note("no", number=number)

    def repeat(self, which: int) -> None:
        if not self.written:
            return
        number = self.draw.choice(self.written)
        events = self.program.batches[number]
        error = self.use(which, lambda journal: journal.append_events(events, key=str(number)))
        if error is None and self.is_full(which):
            self.disk.note("yes", number=number)

    def open_again(self, which: int) -> None:
        """Close and open one, and ask what became of what nobody knows."""
        journal, self.journals[which] = self.journals[which], None
        if journal is not None:
            with contextlib.suppress(StorageError):
                journal.close()
        durability: Any = self.draw.choice(["full", "full", "normal"])
        try:
            self.journals[which] = Journal.open(self.path, durability=durability)
        except (StorageError, AccessDeniedError) as error:
            self.note(f"    {type(error).__name__}: {error}")
            self.disk.before = lambda *_: None
            self.journals[which] = Journal.open(self.path, durability=durability)
        found: list[int] = []
        if self.use(which, lambda journal: found.extend(map(number_of, events_in(journal)))):
            return
        for number in self.unknown[which]:
            is_there = number * 100 in found
            self.note(f"    {number} {'took' if is_there else 'did not take'}")
            self.disk.note("yes" if is_there else "no", number=number)
        self.unknown[which].clear()

    def fail_soon(self, _which: int) -> None:
        what = self.draw.choice(["sync", "sync", "write", "truncate", "read"])
        ends = self.draw.choice(["-wal", "-wal", "a.db", ""])
        wait = self.draw.choice([0, 0, 1, 3, 10])
        times = self.draw.choice([1, 1, 2, 10])
        self.note(f"    {what} of {ends}, {times} times from {wait} on")

        def before(operation: str, file: str, *_: object) -> None:
            nonlocal wait, times
            if operation == what and file.endswith(ends) and self.path.parent.name in file:
                wait -= 1
                if wait < 0 < times:
                    times -= 1
                    raise io_error(what)

        self.disk.before = before

    def read_on(self, _which: int) -> None:
        """Begin to read what there is now, or end it."""
        if self.draw.random() < 0.5:
            self.reader.close()
        else:
            with contextlib.suppress(StorageError, AccessDeniedError):
                self.reader.enter_context(reading(self.path))

    def crash(self, _which: int) -> None:
        """Look what another program would find if every process were killed now."""
        self.crashes += 1
        left = self.folder / f"crash {self.crashes}"
        left.mkdir()
        for file in self.path.parent.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copyfile(file, left / file.name)
        before, self.disk.before = self.disk.before, lambda *_: None
        self.program.check(left / "a.db", PowerCut(self.folder / "log").entries())
        self.disk.before = before

    def be_killed(self, _which: int) -> None:
        numbers = [self.program.batch() for _ in range(2)]
        todo = [(number, self.program.batches[number]) for number in numbers]
        at = self.draw.randrange(30)
        with Child(append_and_die, self.path, self.folder / "log", todo, at) as child:
            child.wait_until_killed()


def events_in(journal: Journal) -> list[AnyEvent]:
    return [each for _, each in journal.read()]


def run_program(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch, operations: int) -> None:
    monkeypatch.setattr(wal, "_CHECKPOINT_PAGES", 12)
    Program(folder, seed).run(operations)


@pytest.mark.parametrize("seed", range(2 * support.ROUNDS))
def test_what_is_said_is_so_whatever_happens(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_program(tmp_path, seed, monkeypatch, 25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", support.SEEDS)
def test_what_is_said_is_so_whatever_happens_for_long(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in range(3):
        with noted(f"part {part}"):
            run_program(tmp_path / str(part), seed * 1000 + part, monkeypatch, 60)
