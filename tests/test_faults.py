"""Crashes, power cuts, disks that fail or fill, damaged files, interrupts: nothing acknowledged is
lost, nothing is there by halves, and what cannot be done is a `JournalError`.

A test that draws at random names its seed when it fails. JOURNAL_TEST_ROUNDS=50 draws more.
"""

import contextlib
import itertools
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from disks import Disk, PowerCut, TornWrite, io_error
from support import (
    Channel,
    Child,
    InterruptAfterCall,
    activated,
    check_file,
    names_in,
    numbered,
    started,
    texts,
    tried,
)

from journal import (
    ClosedError,
    CommitFailedError,
    ConcurrencyError,
    DamagedError,
    FramesBatched,
    Journal,
    JournalError,
    KeyConflictError,
    Projection,
    SessionId,
    StorageError,
    StorageFullError,
    StreamFailed,
    StreamId,
    limits,
    parse_event,
)
from journal.events import AnyEvent
from journal.file import appending, blocks, chain_heads, connections, forking, wal
from journal.file.connections import Database
from journal.file.holding import Holding
from journal.store import Appended

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "a.db"


def shrink() -> None:
    """Let blocks be sealed and checkpoints be made after a few events (in this process)."""
    limits.BLOCK_EVENTS_MAX = 10
    wal._CHECKPOINT_PAGES = 12


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
    monkeypatch.setattr(wal, "_CHECKPOINT_PAGES", 12)


def batches(count: int, seed: int = 0) -> list[list[AnyEvent]]:
    """Return batches of events with several sessions, streams, kinds and sizes."""
    rng = random.Random(seed)
    sessions = [SessionId(f"{number:032x}") for number in range(5)]
    streams = [StreamId(f"{number:032x}") for number in range(5)]

    def event(number: int) -> AnyEvent:
        session, stream = rng.choice(sessions), rng.choice(streams)
        match rng.randrange(4):
            case 0:
                return activated(session, number)
            case 1:
                return started(session, stream, number)
            case 2:
                error = "e" * rng.choice([1, 100, 5000])
                timestamp = support.NOON
                return StreamFailed(
                    session_id=session, stream_id=stream, error=error, timestamp=timestamp
                )
        return FramesBatched(session_id=session, frame_count=number, timestamp=support.NOON)

    return [[event(number) for _ in range(rng.choice([1, 2, 7, 25]))] for number in range(count)]


def use(
    path: Path, todo: list[list[AnyEvent]], acknowledge: Callable[[int], object], **options: Any
) -> None:
    """Append batches, reading now and then, over two openings; acknowledge what was appended."""
    half = len(todo) // 2
    for part in (range(half), range(half, len(todo))):
        with Journal.open(path, **options) as journal:
            for index in part:
                journal.append_events(todo[index], key=f"batch {index}")
                acknowledge(index)
                if index % 3 == 0:
                    list(journal.read())
                    journal.get_events_for_session(todo[index][0].session_id)


def check_whole_batches(
    path: Path, todo: list[list[AnyEvent]], acknowledged: int, *, lossy: bool = False
) -> int:
    """Assert that a file holds the first batches and no part of one; return how many.

    All that were acknowledged are there, unless it is `lossy`, and at most one that was not.
    """
    expected = [texts(batch) for batch in todo]
    with Journal.open(path) as journal:  # as the next start of the program does
        journal.append_events([])
    lines = check_file(path)
    counts = [len(batch) for batch in expected]
    present = list(itertools.accumulate(counts, initial=0)).index(len(lines))
    assert lines == list(itertools.chain(*expected[:present]))
    assert present <= acknowledged + 1
    if not lossy:
        assert present >= acknowledged
    return present


def check_usable(path: Path) -> None:
    """Assert that a file takes another event and closes well."""
    before = len(check_file(path))
    session = SessionId.new()
    with Journal.open(path) as journal:
        assert journal.append_events([activated(session)]) == Appended(before + 1, before + 1)
        assert len(journal.get_events_for_session(session)) == 1
    assert names_in(path.parent) == ["a.db"], names_in(path.parent)
    assert len(check_file(path, closed=True)) == before + 1


# Crashes


def append_until_killed(channel: Channel, path: Path, seed: int) -> None:
    shrink()
    use(path, batches(400, seed), channel.send, durability=["full", "normal"][seed % 2])


@pytest.mark.usefixtures("_small")
@tried(3, many=5)
def test_what_was_acknowledged_survives_the_writers_being_killed(path: Path, count: int) -> None:
    for seed in range(count):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        todo = batches(400, seed)
        with Child(append_until_killed, path, seed) as child:
            acknowledged = [child.receive() for _ in range(random.Random(seed).randrange(1, 40))]
            child.kill()
            acknowledged += child.received()

        try:
            check_whole_batches(path, todo, len(acknowledged))
            check_usable(path)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def count_operations(folder: Path, todo: list[list[AnyEvent]]) -> int:
    """Return how many operations `use` needs that change something."""
    folder.mkdir()
    count = itertools.count()
    with Disk() as disk:
        disk.before = lambda what, *_: what == "read" or next(count)
        use(folder / "a.db", todo, lambda _: None)
    return next(count)


def use_and_die(channel: Channel, path: Path, todo: list[list[AnyEvent]], at: int) -> None:
    """Be killed at an operation; every other time it is a write that stops half way."""
    shrink()
    disk = Disk()
    count = itertools.count()

    def before(what: str, *_: object) -> None:
        if what != "read" and next(count) >= at:
            if what == "write" and at % 2:
                raise TornWrite
            support.die()

    disk.before = before
    use(path, todo, channel.send)
    support.die()  # it took fewer operations this time


@pytest.mark.usefixtures("_small")
@tried(8, many=16)
def test_a_crash_at_any_operation_on_the_disk_leaves_whole_batches(
    path: Path, tmp_path: Path, count: int
) -> None:
    todo = batches(12)
    total = count_operations(tmp_path / "count", todo)
    assert total > 300
    rng = random.Random(5)

    for at in rng.sample(range(total), min(total, count)):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        with Child(use_and_die, path, todo, at) as child:
            child.wait_until_killed()
            acknowledged = child.received()

        try:
            check_whole_batches(path, todo, len(acknowledged))
            check_usable(path)
        except BaseException as error:
            error.add_note(f"killed at operation {at} of {total}")
            raise


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("durability", ["full", "normal"])
@tried(4, many=16)
def test_a_power_cut_leaves_whole_batches_and_with_full_durability_all_of_them(
    path: Path, tmp_path: Path, durability: str, count: int
) -> None:
    todo = batches(12)
    log = tmp_path / "log"
    with Disk(log, path.parent) as disk:
        use(path, todo, lambda _: disk.note("acknowledged"), durability=durability)
    cut = PowerCut(log)
    entries = cut.entries()
    total = len(entries)
    rng = random.Random(9)
    acknowledged_at = [at for at, it in enumerate(entries, 1) if it.what == "acknowledged"]
    points = {total, *rng.sample(range(3, total), min(total - 3, count))}
    # Several, since what comes next may be a sync of all that was written.
    points.update(rng.sample(acknowledged_at, min(len(acknowledged_at), 2 * count)))
    lost = 0

    for at, chance in [(at, chance) for at in sorted(points) for chance in (0.0, 0.5, 0.95)]:
        folder = tmp_path / f"{at} {chance}"
        cut.leave(folder, entries[:at], chance, rng)
        acknowledged = sum(entry.what == "acknowledged" for entry in entries[:at])
        try:
            with Disk():  # whose syncs take no time
                present = check_whole_batches(
                    folder / "a.db", todo, acknowledged, lossy=durability == "normal"
                )
                check_usable(folder / "a.db")
        except BaseException as error:
            error.add_note(f"power cut before operation {at} of {total}, chance {chance}")
            raise
        lost += max(0, acknowledged - present)

    assert (lost > 0) == (durability == "normal")  # or this test could not notice a loss


# A disk that fails


def fail_at(disk: Disk, at: int, *, times: float, full: bool = False) -> None:
    """Let the operations from number `at` fail, and so many."""

    def before(what: str, *_: object) -> None:
        if at <= disk.operations < at + times:
            raise io_error(what, full=full)

    disk.before = before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # apsw's, of `Disk`
@pytest.mark.parametrize(
    "steps", [20, pytest.param(15 * support.LONG_ROUNDS, marks=pytest.mark.slow)]
)
def test_an_opening_that_fails_leaves_nothing_open_even_if_its_error_is_kept(
    tmp_path: Path, steps: int
) -> None:
    """At so many operations, evenly spread, or at every one where there are fewer."""
    new = tmp_path / "new"
    new.mkdir()
    with Disk() as disk, Journal.open(new / "a.db"):
        total = disk.operations
    kept = []

    tried = range(0, total, max(1, total // steps))
    for at in tried:
        path = tmp_path / str(at) / "a.db"
        path.parent.mkdir()
        with Disk() as disk, contextlib.suppress(JournalError):
            fail_at(disk, at, times=3)
            try:
                Journal.open(path).close()
            except JournalError as error:
                kept.append(error)  # with its traceback, and all variables
                raise
        assert not [one for one in apsw.connections() if one and one.filename == str(path)]
        Journal.open(path).close()
        check_usable(path)

    assert len(kept) > len(tried) / 2


@pytest.mark.usefixtures("_small")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # apsw's, of `Disk`
@pytest.mark.parametrize("times", [1, 3, float("inf")])
@pytest.mark.parametrize("full", [False, True], ids=["failing", "full"])
@tried(5, many=12)
def test_a_disk_that_fails_at_any_operation_loses_nothing_that_was_acknowledged(
    path: Path, tmp_path: Path, *, times: float, full: bool, count: int
) -> None:
    todo = batches(8)
    with Disk() as disk:
        use(path, todo, lambda _: None)
    total = disk.operations
    rng = random.Random(times * 2 + full if times < 9 else full)

    for at in rng.sample(range(1, total), min(total - 1, count)):
        again = tmp_path / str(at) / "a.db"
        again.parent.mkdir()
        acknowledged: list[int] = []
        try:
            with Disk() as disk, contextlib.suppress(JournalError):
                fail_at(disk, at, times=times, full=full)
                use(again, todo, acknowledged.append)
            check_whole_batches(again, todo, len(acknowledged))
            check_usable(again)
        except BaseException as error:
            error.add_note(f"failed at operation {at} of {total}")
            raise


def test_a_journal_whose_commit_failed_is_opened_again(path: Path) -> None:
    """Whether it took is not known before, so that nothing may be appended after it."""
    session = SessionId.new()
    for what, ends in (("sync", "-wal"), ("write", "-wal")):
        with Disk() as disk, Journal.open(path) as journal:
            before = journal.last_position
            journal.append_events([activated(session)])

            def fail(operation: str, file: str, *_: object, w: str = what, e: str = ends) -> None:
                if operation == w and file.endswith(e):
                    raise io_error(w)

            disk.before = fail
            with pytest.raises(CommitFailedError, match=r"Journal\.resolve tells it"):
                journal.append_events([activated(session)])
            for _ in range(2):
                with pytest.raises(CommitFailedError, match="an earlier commit failed"):
                    journal.append_events([activated(session)])
            disk.before = lambda *_: None
            assert len(list(journal.read())) == before + 1

            journal.append_events([activated(session)], expected_versions={session: before + 1})

        with Journal.open(path) as journal:
            assert journal.last_position == before + 2
    check_usable(path)


@pytest.mark.parametrize("ends", ["a.db", "-wal"])
def test_a_disk_that_cannot_be_read_is_a_storage_error_and_heals(path: Path, ends: str) -> None:
    """Not a damaged file, which would call for other measures."""
    todo = batches(30)
    with Journal.open(path) as journal:
        for batch in todo[:15]:
            journal.append_events(batch)
    with Disk() as disk, Journal.open(path) as journal:
        for batch in todo[15:]:
            journal.append_events(batch)
        session = todo[0][0].session_id
        uses: list[Callable[[], object]] = [
            lambda: list(journal.read()),
            lambda: list(journal.lines()),
            lambda: journal.get_events_for_session(session),
            lambda: journal.get_events_since(support.NOON.replace(year=2020)),
            journal.event_count,
            journal.info,
        ]
        expected = [use() for use in uses]
        failed = 0
        for index, read in enumerate(uses):
            for at in range(1, 30):
                journal._database._readers.clear()  # so that nothing is in a cache
                count = itertools.count(1)

                def fail(
                    what: str, file: str, *_: object, at: int = at, count: Any = count
                ) -> None:
                    if what == "read" and file.endswith(ends) and next(count) == at:
                        raise apsw.exception_for(apsw.SQLITE_IOERR_READ)

                disk.before = fail
                try:
                    found = read()
                except StorageError:
                    failed += 1
                else:
                    assert index == 5 or found == expected[index]
                disk.before = lambda *_: None
                if next(count) <= at:
                    break
            assert index == 5 or read() == expected[index]
        assert failed > len(uses)


def large_event(session: SessionId, size: int) -> StreamFailed:
    return StreamFailed(
        session_id=session, stream_id=StreamId.new(), error="x" * size, timestamp=support.NOON
    )


def fill_the_disk(_channel: Channel, folder: Path) -> dict[str, Any]:
    """Fill a real file system in several ways; return what happened."""
    support.own_mounts()
    support.mount_memory(folder, 24 * 1024 * 1024)
    path, filler = folder / "a.db", folder / "filler"
    session = SessionId.new()
    happened: dict[str, Any] = {}

    def fill(leave: int) -> None:
        with filler.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(file.tell() - leave)

    def attempt(what: str, act: Callable[[], object]) -> None:
        try:
            happened[what] = act()
        except BaseException as error:
            happened[what] = f"{type(error).__name__}: {error}"

    journal = Journal.open(path)
    with contextlib.suppress(StorageFullError), journal:
        journal.append_events([activated(session)])
        for name, size, leave in (("small", 10, 0), ("some pages", 60_000, 8192)):
            fill(leave)
            events = [large_event(session, size)]
            attempt(f"{name}, full", lambda events=events: journal.append_events(events))
            attempt(f"{name}, again", lambda events=events: journal.append_events(events))
            attempt(f"{name}, read", lambda: len(list(journal.read())))
            filler.unlink()
            attempt(f"{name}, room", lambda events=events: journal.append_events(events))
        huge = [large_event(session, 1_000_000) for _ in range(40)]
        filler.write_bytes(bytes(4 * 1024 * 1024))
        attempt("huge, full", lambda: journal.append_events(huge))
        filler.unlink()
        attempt("huge, read", lambda: len(list(journal.read())))
        attempt("huge, room", lambda: journal.append_events(huge[:1]))
        fill(0)
        attempt("closing, full", journal.close)
    happened["closed, full"] = names_in(folder)
    attempt("closed, full, read", lambda: read_all(path))
    filler.unlink()
    Journal.open(path).close()
    happened["closed, room"] = names_in(folder)
    fill(0)
    attempt("opening, full, read", lambda: read_all(path))
    attempt("opening, full", lambda: Journal.open(path).close())
    attempt("creating, full", lambda: Journal.open(folder / "b.db").close())
    filler.unlink()
    attempt("creating, room", lambda: Journal.open(folder / "b.db").close())
    (folder / "b.db").unlink()
    check_usable(path)
    return happened


COUNT_PROJECTION = Projection(
    name="errors", version=1, initial=0, apply=lambda count, _: count + 1, key=lambda e: e.stream_id
)


def answers(journal: Journal) -> list[Any]:
    """Return what projections answer, as plain values."""
    sessions, streams, anomalies = journal.sessions(), journal.streams(), journal.anomalies()
    return [
        [one.model_dump(mode="json") for one in (*sessions, *streams, *anomalies)],
        [journal.session(one.session_id) == one for one in sessions[::50]],
        [journal.stream(one.stream_id) == one for one in streams[::100]],
        journal.states("errors"),
        journal.state("errors", streams[0].stream_id),
    ]


def fold_on_a_full_disk(
    _channel: Channel,
    folder: Path,
    fold_events_max: int,
    fails_to_commit: bool,
) -> dict[str, Any]:
    """Ask projections when nothing more can be written; return what they answer, then and later."""
    support.own_mounts()
    support.mount_memory(folder, 24 * 1024 * 1024)
    limits.FOLD_EVENTS_MAX = fold_events_max
    path, filler = folder / "a.db", folder / "filler"
    lines = support.lines_of("mixed/events.ndjson")
    found: dict[str, Any] = {}
    with Journal.open(path) as journal:
        journal.register(COUNT_PROJECTION)
        journal.append_ndjson(lines[:500])
        answers(journal)
        journal.append_ndjson(lines[500:2_000])
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        with contextlib.suppress(StorageFullError):
            journal.append_events([large_event(SessionId.new(), 1_000_000)])
        journal._database._failed_commit = fails_to_commit
        found["full"] = answers(journal)
        with Journal.open(path, read_only=True) as reader:
            reader.register(COUNT_PROJECTION)
            found["read-only"] = answers(reader)
        filler.unlink()
        journal._database._failed_commit = False
        found["positions, full"] = {one.position for one in journal.projections()}
        found["room"] = answers(journal)
        found["positions, room"] = {one.position for one in journal.projections()}
    return found


@pytest.mark.parametrize("fails_to_commit", [False, True])
@pytest.mark.parametrize("fold_events_max", [100, 10_000])
def test_projections_answer_on_a_full_disk(
    path: Path,
    fold_events_max: int,
    fails_to_commit: bool,
) -> None:
    """In memory where little is missing, else in temporary storage, which lies elsewhere."""
    found = support.run(fold_on_a_full_disk, path.parent, fold_events_max, fails_to_commit)

    assert found["full"] == found["read-only"] == found["room"]
    assert sum(found["room"][3].values()) > 0
    assert found["positions, full"] == {500}
    assert found["positions, room"] == {2_000}


def read_all(path: Path) -> int:
    with Journal.open(path, read_only=True) as journal:
        return len(list(journal.read()))


def test_a_full_disk_is_an_error_that_room_cures(path: Path) -> None:
    happened = support.run(fill_the_disk, path.parent)

    full = f"StorageFullError: {path}: the disk is full"
    wanted = {
        "small, full": full,
        "small, again": full,
        "small, read": 1,
        "small, room": Appended(2, 2),
        "some pages, full": full,
        "some pages, again": full,
        "some pages, read": 2,
        "some pages, room": Appended(3, 3),
        "huge, full": full,
        "huge, read": 3,
        "huge, room": Appended(4, 4),
        "closing, full": full.replace(
            "the disk is full",
            "is closed, but what its -wal has cannot be brought into it (the disk is full): "
            "keep both together",
        ),
        "closed, full": ["a.db", "a.db-shm", "a.db-wal", "filler"],
        "closed, full, read": 4,
        "closed, room": ["a.db"],
        "creating, full": full.replace("a.db", "b.db"),
        "creating, room": None,
    }
    assert {key: happened.pop(key) for key in wanted} == wanted, happened
    # SQLite cannot make a -shm now, and calls it an I/O error.
    assert happened.pop("opening, full").startswith("Storage")
    assert str(happened.pop("opening, full, read")).startswith(("Storage", "4"))
    assert happened == {}


def exceed_a_limit(channel: Channel, path: Path) -> None:
    """Append until files may not grow any more, as `ulimit -f` has it."""
    resource = pytest.importorskip("resource")
    journal = Journal.open(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    with pytest.raises((CommitFailedError, StorageFullError, StorageError)):  # noqa: PT012
        for index, batch in enumerate(batches(200)):
            journal.append_events(batch)
            channel.send(index)
    list(journal.read())
    with contextlib.suppress(StorageError):  # it says that the -wal stays
        journal.close()


def test_a_file_that_may_not_grow_loses_nothing(path: Path) -> None:
    with Child(exceed_a_limit, path) as child:
        *acknowledged, result = child.received()

    assert result is None
    assert acknowledged
    check_whole_batches(path, batches(200), len(acknowledged))
    check_usable(path)


def test_a_statement_that_fails_leaves_the_journal_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large for SQLite is the same to it as a bug of ours: an error inside a transaction."""
    session = SessionId.new()
    with Journal.open(path) as journal:
        journal.append_events([activated(session)])
        assert journal._database._writer is not None
        journal._database._writer.limit(apsw.SQLITE_LIMIT_LENGTH, 1000)

        with pytest.raises(JournalError):
            journal.append_events([activated(session), large_event(session, 2000)])

        assert journal.append_events(
            [activated(session)], expected_versions={session: 1}
        ) == Appended(2, 2)
    assert len(check_file(path, closed=True)) == 2


# A damaged file

SESSIONS = [SessionId(f"{number:032x}") for number in (1, 2)]
STREAM = StreamId(f"{3:032x}")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a journal of fourteen events with a sealed block and an open one; not to be changed.

    Position 1 activates session 1, 2 to 6 are of stream 3 in it (6 fails it), 7 holds a number, 8
    is of an unknown kind; 9 to 14 are of session 2.
    """
    path = tmp_path_factory.mktemp("sound") / "a.db"
    one, two = SESSIONS
    unknown = (
        f'{{"event_type":"stream_paused","session_id":"{one}","stream_id":"{STREAM}",'
        '"timestamp":"2026-01-01T12:00:08Z","why":"é"}'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
        with Journal.open(path) as journal:
            journal.append_events([activated(one, 1)])
            journal.append_events([started(one, STREAM, second) for second in range(2, 6)])
            journal.append_events(
                [
                    StreamFailed(
                        session_id=one, stream_id=STREAM, error="é", timestamp=support.NOON
                    ),
                    FramesBatched(session_id=one, frame_count=7, timestamp=support.NOON),
                    parse_event(unknown, unknown="keep"),
                ]
            )
            journal.append_events(numbered(two, range(9, 15)))
    return path


READS: dict[str, Callable[[Journal], Any]] = {
    "read": lambda journal: texts(event for _, event in journal.read()),
    "lines": lambda journal: [line for _, line in journal.lines()],
    "session": lambda journal: texts(journal.get_events_for_session(SESSIONS[0])),
    "session lines": lambda journal: [line for _, line in journal.lines(session_id=SESSIONS[0])],
    "stream": lambda journal: texts(journal.get_events_for_stream(STREAM)),
    "stream lines": lambda journal: [line for _, line in journal.lines(stream_id=STREAM)],
    "since": lambda journal: texts(journal.get_events_since(support.NOON.replace(year=2025))),
    "other session": lambda journal: texts(journal.get_events_for_session(SESSIONS[1])),
}
BY_SESSION = {"session", "session lines"}
BY_STREAM = {"stream", "stream lines"}
BY_POSITION = {"read", "lines", "since"}
OF_SESSION_1 = BY_SESSION | BY_POSITION
OF_STREAM_3 = OF_SESSION_1 | BY_STREAM
# Reads that build events; the others print what is stored, which only its digest proves right.
EVENTS_OF_SESSION_1 = {"session", "read", "since"}
EVENTS_OF_STREAM_3 = EVENTS_OF_SESSION_1 | {"stream"}

session_1 = rf"chain of session {SESSIONS[0]} is damaged: expected \S+ events, found \d+"
head_1 = rf"the head {SESSIONS[0].hex} of a session is damaged: last .+, count .+, in a journal of"
stream_3 = rf"chain of stream {STREAM} is damaged: expected \S+ events, found \d+"
head_3 = rf"the head {STREAM.hex} of a stream is damaged: last .+, count .+, in a journal of"


def at(position: int) -> str:
    return rf"position {position} is damaged: "


def each(template: str, values: str, reads: set[str], message: str) -> dict[str, dict[str, str]]:
    """Return statements with each of the values (one a line), and which reads have to notice."""
    statements = [template.format(value.strip()) for value in values.strip().splitlines()]
    return {statement: dict.fromkeys(reads, message) for statement in statements}


INVALID_UTF_8 = "CAST(x'5b22ff225d' AS TEXT)"

LINKS = {
    **each(
        "UPDATE event SET session_prev = {} WHERE seq = 5",
        "NULL\n 5\n 6\n 99\n -1\n 1\n 3\n 'x'\n x'00'\n 2.5",
        BY_SESSION,
        session_1,
    ),
    **each(
        "UPDATE event SET stream_prev = {} WHERE seq = 5",
        "NULL\n 5\n 6\n 99\n -1\n 1\n 2\n 'x'\n x'00'\n 2.5",
        BY_STREAM,
        stream_3,
    ),
    **each(
        "UPDATE session SET {} WHERE id = 1",
        """event_count = 7
        last_seq = 9
        last_seq = 14, event_count = 6""",
        BY_SESSION,
        session_1,
    ),
    **each(
        "UPDATE session SET {} WHERE id = 1",
        """event_count = 9
        event_count = 0
        event_count = -1
        event_count = 8.5
        last_seq = 7
        last_seq = 0
        last_seq = 99
        last_seq = 'x'""",
        BY_SESSION,
        head_1,
    ),
    **each(
        "UPDATE stream SET {}",
        "event_count = 5\n event_count = 7\n last_seq = 6",
        BY_STREAM,
        stream_3,
    ),
    **each("UPDATE stream SET {}", "last_seq = 1\n last_seq = 0", BY_STREAM, head_3),
    "UPDATE event SET session_prev = 8 WHERE seq = 9": {"other session": "chain of session"},
}
"""Damaged links and heads: what is reached by them is noticed not to be all, the rest is read."""

DAMAGES = LINKS | {
    "UPDATE event SET session = 2 WHERE seq = 5": dict.fromkeys(BY_SESSION, session_1),
    "UPDATE event SET stream = NULL WHERE seq = 5": dict.fromkeys(BY_STREAM, stream_3),
    # A position that is not there.
    **each(
        "{} WHERE seq = 5",
        "DELETE FROM event\n UPDATE event SET seq = 20",
        BY_SESSION | BY_STREAM,
        "chain of",
    ),
    "DELETE FROM event WHERE seq = 4": {"read": "position 4", "lines": "position 4"},
    "DELETE FROM event WHERE seq = 14": dict.fromkeys(READS, "last event is at position 13"),
    "DELETE FROM event WHERE seq > 12": dict.fromkeys(READS, "last event is at position 12"),
    # An event that names what is not there.
    **each(
        "UPDATE event SET kind = {} WHERE seq = 5",
        "0\n 15000\n -1\n 2.5\n 'x'\n x'ff'",
        OF_STREAM_3,
        at(5),
    ),
    **each(
        "UPDATE event SET session = {} WHERE seq = 5",
        "0\n 15000\n 2.5\n 'x'\n x'ff'",
        BY_POSITION,
        at(5),
    ),
    **each(
        "UPDATE event SET stream = {} WHERE seq = 5",
        "0\n 15000\n 2.5\n 'x'\n x'ff'",
        BY_POSITION,
        at(5),
    ),
    "DELETE FROM session WHERE id = 1": dict.fromkeys(BY_POSITION, at(1)),
    "DELETE FROM stream": dict.fromkeys(BY_POSITION, at(2)),
    "DELETE FROM kind WHERE code = 7": dict.fromkeys(OF_STREAM_3, at(2)),
    # A kind that does not go with the rest of the row.
    "UPDATE event SET kind = 9 WHERE seq = 5": dict.fromkeys(EVENTS_OF_STREAM_3, at(5)),
    "UPDATE event SET kind = 1 WHERE seq = 5": dict.fromkeys(EVENTS_OF_STREAM_3, at(5)),
    "UPDATE event SET kind = 7 WHERE seq = 1": dict.fromkeys(EVENTS_OF_SESSION_1, at(1)),
    "UPDATE event SET kind = 13 WHERE seq = 6": dict.fromkeys(EVENTS_OF_STREAM_3, at(6)),
    "UPDATE event SET kind = 1 WHERE seq = 7": dict.fromkeys(EVENTS_OF_SESSION_1, at(7)),
    # Data.
    **each(
        "UPDATE event SET data = {} WHERE seq = 7",
        """NULL
        ''
        '['
        '[]'
        '[1,2]'
        '[1.5]'
        '["x"]'
        '{"a":1}'
        '7'
        5
        2.5
        x'ff'""",
        EVENTS_OF_SESSION_1,
        at(7),
    ),
    **each(
        "UPDATE event SET data = {} WHERE seq = 6",
        "NULL\n '[1]'\n '[null]'\n '[\"\\ud800\"]'",
        EVENTS_OF_STREAM_3,
        at(6),
    ),
    "UPDATE event SET data = '[1]' WHERE seq = 1": dict.fromkeys(EVENTS_OF_SESSION_1, at(1)),
    **each(
        "UPDATE event SET data = {} WHERE seq = 8",
        "NULL\n x'ff'\n 5",
        EVENTS_OF_STREAM_3,
        at(8),
    ),
    **each(
        "UPDATE event SET timestamp = {} WHERE seq = 5",
        "'x'\n x'00'\n 1e300\n 2.5",
        EVENTS_OF_STREAM_3 - {"since"},
        at(5),
    ),
    # Text that is no UTF-8, which the driver refuses before anybody knows where it is.
    **{
        f"UPDATE {place}": dict.fromkeys(EVENTS_OF_SESSION_1, "damaged")
        for place in (
            f"event SET data = {INVALID_UTF_8} WHERE seq = 7",
            f"event SET data = {INVALID_UTF_8} WHERE seq = 8",
            f"event SET timestamp = {INVALID_UTF_8} WHERE seq = 1",
            f"kind SET name = {INVALID_UTF_8} WHERE code = 7",
            f"kind SET fields = {INVALID_UTF_8} WHERE code = 7",
        )
    },
    # Names.
    **each(
        "UPDATE kind SET name = {} WHERE code = 7",
        "x'ff'\n 'stream_failed'\n 'frames_batched'",
        OF_STREAM_3,
        "is damaged: kind 7: ",
    ),
    **each(
        "UPDATE kind SET fields = {} WHERE code = 7",
        """'["error"]'
        '["frame_count"]'
        '['
        '{"a":1}'
        '[1]'
        ''
        x'ff'
        5""",
        OF_STREAM_3,
        "is damaged: kind 7: ",
    ),
    **each(
        "UPDATE session SET uuid = {} WHERE id = 1",
        "x'00'\n '0123456789abcdef'\n 5",
        BY_POSITION,
        "damaged",
    ),
    **each("UPDATE stream SET uuid = {}", "x'00'\n 5", OF_SESSION_1, "damaged"),
}
"""What was done to the file, which reads have to notice, and what their errors say."""


@pytest.fixture(scope="module")
def unguarded(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same journal without what keeps events and tables from being changed."""
    path = tmp_path_factory.mktemp("unguarded") / "a.db"
    shutil.copyfile(sound, path)
    damage(
        path,
        "DROP TRIGGER event_is_never_updated;"
        "DROP TRIGGER event_is_deleted_only_where_absent;"
        "DROP VIEW events",
    )
    return path


def damage(path: Path, statements: str) -> None:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"PRAGMA synchronous = OFF; {statements}")


def position_of(path: Path, message: str) -> int | None:
    """Return the position that the error must have: that of the event, or of the chain's head."""
    if named := re.search(r"event is at position (\d+), and a block ends", message):
        return int(named[1]) + 1
    if named := re.search(r"event at position (\d+)", message):
        return int(named[1])
    if head := re.search(r"the head (\S+) of a (session|stream) is", message):
        digits, table = head.groups()
    elif chain := re.search(r"chain of (session|stream) (\S+) is", message):
        table, digits = chain.groups()
    else:
        return None
    sql = f"SELECT last_seq FROM {table} WHERE uuid = ?"
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        last = connection.execute(sql, (bytes.fromhex(digits.replace("-", "")),)).get
    return last if isinstance(last, int) else None


@pytest.mark.parametrize("table", ["event", "kind", "session", "stream", "block"])
def test_a_missing_table_is_damage_at_opening(unguarded: Path, path: Path, table: str) -> None:
    shutil.copyfile(unguarded, path)
    damage(path, f"DROP TABLE {table}")

    for read_only in (False, True):
        with pytest.raises(DamagedError, match=f"{table} is not a table: it is missing"):
            Journal.open(path, read_only=read_only)


_BEFORE: dict[Path, dict[str, Any]] = {}


@pytest.mark.parametrize("statement", DAMAGES)
def test_damage_is_an_error_that_names_the_place(
    unguarded: Path, path: Path, statement: str
) -> None:
    """What has to be noticed is; nothing fails with anything else; other links read as before."""
    if unguarded not in _BEFORE:
        with Journal.open(unguarded, read_only=True) as journal:
            _BEFORE[unguarded] = {name: read(journal) for name, read in READS.items()}
    before = _BEFORE[unguarded]
    shutil.copyfile(unguarded, path)
    damage(path, statement)
    problems = {}

    with Journal.open(path, read_only=True) as journal:
        for name, read in READS.items():
            wanted = DAMAGES[statement].get(name)
            if wanted == "chain of" and name.endswith("lines"):  # they may go by the range instead
                wanted = "chain of|event at position 5 is missing"
            try:
                found = read(journal)
            except DamagedError as error:
                message = str(error).removeprefix(f"{path}: ")
                clear = "\n" not in message and str(path) not in message
                if not (clear and re.search(wanted or "", message)):
                    problems[name] = f"expected {wanted!r} in one sentence, found: {error}"
                elif message != error.what:
                    problems[name] = f"expected the words {message!r}, found {error.what!r}"
                elif error.position != position_of(path, message):
                    problems[name] = f"position {error.position} of {error}"
            except Exception as error:
                problems[name] = f"{type(error).__name__}: {error}"
            else:
                is_whole = name.endswith("lines") and statement in LINKS and found == before[name]
                if wanted is not None and not is_whole:
                    problems[name] = f"not noticed; {len(found)} events"
                elif statement in LINKS and found != before[name]:
                    problems[name] = "other events than before"
        try:
            journal.info()
        except Exception as error:
            if not isinstance(error, DamagedError):
                problems["info"] = f"{type(error).__name__}: {error}"

    assert problems == {}


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(it, marks=[] if number % 3 == 0 else pytest.mark.slow)
        for number, it in enumerate(DAMAGES)
    ],
)
def test_appending_to_a_damaged_journal_works_or_says_so(
    unguarded: Path, path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
    shutil.copyfile(unguarded, path)
    damage(path, statement)

    with contextlib.suppress(DamagedError), Journal.open(path, durability="normal") as journal:
        for number in range(3):
            with contextlib.suppress(DamagedError):
                journal.append_events(
                    [activated(SESSIONS[0]), started(SESSIONS[1], STREAM)] * 2, key=f"key {number}"
                )

    assert names_in(path.parent) == ["a.db"]


@pytest.mark.parametrize("statement", ["DELETE FROM meta", "UPDATE meta SET value = 'x'"])
def test_facts_that_are_missing_or_garbled_are_damage(
    unguarded: Path, path: Path, statement: str
) -> None:
    shutil.copyfile(unguarded, path)
    damage(path, statement)

    with Journal.open(path, read_only=True) as journal, pytest.raises(DamagedError):
        journal.info()


@pytest.mark.parametrize("where", ["closed", "after a crash"])
@tried(15, many=50)
def test_flipped_bits_are_damage_or_nothing_and_no_other_error(
    sound: Path, path: Path, where: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Events that are read without an error, and are not the same, are found by their digest."""
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
    shutil.copyfile(sound, path)
    expected = check_file(path)
    suffix = ""
    if where == "after a crash":
        with Child(support.append_and_die, path, numbered(SESSIONS[1], range(15, 25))) as child:
            child.wait_until_killed()
        Path(f"{path}-shm").unlink()
        expected += texts(numbered(SESSIONS[1], range(15, 25)))
        suffix = "-wal"
    files = {end: Path(f"{path}{end}").read_bytes() for end in ("", suffix)}
    rng = random.Random(3)
    noticed = 0
    used = [place for place, byte in enumerate(files[suffix]) if byte]

    for _ in range(count):
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        for end, content in files.items():
            Path(f"{path}{end}").write_bytes(content)
        damaged = bytearray(files[suffix])
        place, bit = rng.choice(used), rng.randrange(8)
        damaged[place] ^= 1 << bit
        Path(f"{path}{suffix}").write_bytes(damaged)
        try:
            noticed += _read_flipped(path, expected)
        except Exception as error:
            error.add_note(f"bit {bit} of byte {place} was flipped")
            raise

    assert noticed or suffix  # SQLite ignores the rest of a -wal from a wrong checksum on


def _read_flipped(path: Path, expected: list[str]) -> bool:
    """Return whether any damage was noticed."""
    damaged = False
    try:
        journal = Journal.open(path)
    except JournalError:
        return True
    lines = None
    for name, read in READS.items():
        try:
            found = read(journal)
        except JournalError:
            damaged = True
        else:
            if name == "lines":
                lines = found
    with contextlib.suppress(JournalError):
        journal.info()
    with contextlib.suppress(JournalError):
        journal.append_events([activated(SESSIONS[1], 30)], key="one more")
    journal.close()
    if not damaged and lines != expected and lines != expected[: len(lines or [])]:
        with pytest.raises((AssertionError, apsw.Error)):
            check_file(path)
    return damaged


# Errors and interrupts in the middle


def check_next_append(journal: Journal, path: Path, session: SessionId, stream: StreamId) -> None:
    """Assert that a journal knows its versions and links, whatever happened before."""
    version = len(journal.get_events_for_session(session))
    before = journal.last_position
    assert journal.append_events(
        [started(session, stream), activated(session)], expected_versions={session: version}
    ) == Appended(before + 1, before + 2)
    assert len(check_file(path)) == before + 2


def test_an_append_that_is_refused_changes_nothing(path: Path) -> None:
    session, other, stream = SessionId.new(), SessionId.new(), StreamId.new()
    with Journal.open(path) as journal:
        journal.append_events([started(session, stream)], key="used")
        for _ in range(3):
            with pytest.raises(ConcurrencyError):
                journal.append_events(
                    [started(session, stream), activated(other)],
                    expected_versions={other: 0, session: 99},
                )
            with pytest.raises(KeyConflictError):
                journal.append_events([activated(other)], key="used")
            assert journal.get_events_for_session(other) == []
            check_next_append(journal, path, session, stream)


POINTS: list[tuple[Any, str]] = [
    (chain_heads.Heads, "meet"),
    (chain_heads.Heads, "write"),
    (appending._Tip, "_add_kind"),
    (appending._Tip, "insert"),
    (blocks.Tail, "add"),
    (blocks.Tail, "_write"),
    (blocks.Tail, "_begin"),
    (blocks, "_content_so_far"),
    (blocks, "chained"),
    (connections.Database, "_notice_other_writers"),
    (connections.Database, "_commit"),
]


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("error", [KeyboardInterrupt, apsw.IOError])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"), POINTS, ids=[f"{each[0].__name__}.{each[1]}" for each in POINTS]
)
def test_an_error_inside_an_append_leaves_nothing_behind(
    path: Path, owner: Any, name: str, *, after: bool, error: type[BaseException]
) -> None:
    """It comes before a step of the append, or after it; only after the commit has it happened."""
    session, stream, calls = SessionId.new(), StreamId.new(), 0
    original = getattr(owner, name)
    text = (
        f'{{"event_type":"new kind","session_id":"{session}","timestamp":"2026-01-01T12:00:00Z"}}'
    )
    events = [
        parse_event(text, unknown="keep"),
        *[started(SessionId.new(), StreamId.new()) for _ in range(11)],
        *[started(session, stream) for _ in range(12)],
    ]

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if after:
            original(*args, **kwargs)
        raise error

    with Journal.open(path, durability="normal") as journal:
        journal.append_events([started(session, stream)] * 3)
        with Journal.open(path, durability="normal") as other:
            other.append_events([started(session, stream)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, failing)
            with pytest.raises(JournalError if error is apsw.IOError else error):
                journal.append_events(events, key="a key")
        assert calls == 1
        took = name == "_commit" and after
        assert journal.last_position == 4 + took * len(events)

        again = journal.append_events(events, key="a key")

        assert again == Appended(5, 4 + len(events))
        check_next_append(journal, path, session, stream)
    check_file(path, closed=True)


class Interrupted(apsw.Connection):
    """Raises what Ctrl-C raises, when a call that waited in SQLite comes back."""

    at: str | None = None

    def execute(self, statements: str, *args: Any, **kwargs: Any) -> apsw.Cursor:
        cursor = super().execute(statements, *args, **kwargs)
        if Interrupted.at is not None and re.fullmatch(Interrupted.at, statements, re.DOTALL):
            Interrupted.at = None
            raise KeyboardInterrupt
        return cursor


@pytest.mark.parametrize(
    "statement", ["BEGIN IMMEDIATE", "BEGIN", "COMMIT", "ROLLBACK", "SELECT.*"]
)
def test_an_interrupt_while_sqlite_was_waited_for_leaves_nothing_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Most of all while waiting for another process's lock, where a person presses Ctrl-C."""
    monkeypatch.setattr(apsw, "Connection", Interrupted)
    session, stream = SessionId.new(), StreamId.new()
    with Journal.open(path) as journal:
        journal.append_events([started(session, stream)])
        monkeypatch.setattr(Interrupted, "at", statement)

        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            for _ in range(3):
                journal.append_events([started(session, stream)])
                list(journal.read())
                journal.get_events_for_session(session)

        check_next_append(journal, path, session, stream)

    assert names_in(path.parent) == ["a.db"]
    check_file(path, closed=True)


ACTS: dict[str, Callable[[Journal, list[AnyEvent], list[str], str], object]] = {
    "append_events": lambda journal, events, _, key: journal.append_events(events, key=key),
    "append_ndjson": lambda journal, _, lines, __: journal.append_ndjson(lines),
    "read": lambda journal, *_: list(journal.read(after=3, limit=9)),
    "session": lambda journal, events, *_: journal.get_events_for_session(events[0].session_id),
}


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_an_interrupt_anywhere_leaves_nothing_behind(
    path: Path, every: int, act: Callable[[Journal, list[AnyEvent], list[str], str], object]
) -> None:
    stream, interrupted = StreamId.new(), 0
    journal = Journal.open(path, durability="normal")
    other = Journal.open(path, durability="normal")
    for call in itertools.count(1, every):
        session = SessionId.new()
        events: list[AnyEvent] = [started(session, stream), *numbered(session, range(3))]
        lines = texts(events)
        journal.append_events(events)
        other.append_events(events)
        before = journal.last_position
        try:
            with support.within(60, f"after an interrupt in call {call}"):
                try:
                    with InterruptAfterCall(call) as interrupt:
                        act(journal, events, lines, f"key {call}")
                except KeyboardInterrupt:
                    interrupted += 1
                assert journal.last_position in (before, before + len(events))
                version = len(journal.get_events_for_session(session))
                journal.append_events(events, expected_versions={session: version})
        except BaseException as error:
            error.add_note(f"interrupted in call {call}")
            raise
        if interrupt.left > 0:
            break
    journal.close()
    other.close()

    assert interrupted > 5
    assert forking._gate._inside == 0  # else every fork would wait in vain
    assert names_in(path.parent) == ["a.db"]
    check_file(path, closed=True)


def test_an_interrupted_read_leaves_no_connection_open(path: Path) -> None:
    """Not even while there is a traceback, which would hold it: so whoever closes is the last."""
    with Journal.open(path, durability="normal") as journal:
        journal.event_count()  # so that there is a connection to read with
        others = len(apsw.connections()) - len(journal._database._readers)
        for call in itertools.count(1):
            try:
                with InterruptAfterCall(call) as interrupt:
                    journal.event_count()
            except KeyboardInterrupt:
                assert len(apsw.connections()) == others + len(journal._database._readers), call
            if interrupt.left > 0:
                break
    assert call > 10


@pytest.mark.parametrize(
    ("owner", "name"), [(Holding, "stand"), (Database, "_discard_copy")], ids=["opening", "closing"]
)
def test_whoever_only_reads_and_is_interrupted_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    with Journal.open(path, durability="normal") as journal:
        journal.append_events(numbered(SessionId.new(), range(3)))
    plain = getattr(owner, name)
    interrupts = iter([KeyboardInterrupt])

    def interrupted(self: Any) -> Any:
        result = plain(self)
        for each in interrupts:
            raise each
        return result

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt), Journal.open(path, read_only=True) as reader:
        reader.event_count()
    assert names_in(path.parent) == ["a.db"]


@pytest.mark.parametrize(
    "steps", [20, pytest.param(20 * support.LONG_ROUNDS, marks=pytest.mark.slow)]
)
def test_an_interrupted_close_can_be_repeated(path: Path, steps: int) -> None:
    """Interrupted at so many calls, evenly spread, or at every one where there are fewer."""
    session, stream = SessionId.new(), StreamId.new()

    def close_interrupted(call: int) -> int:
        """Return how many calls were left to be made when all was closed."""
        journal = Journal.open(path, durability="normal")
        journal.sessions()  # so that there is never more than one event left to fold
        journal.append_events([started(session, stream)])
        list(journal.read())
        try:
            with InterruptAfterCall(call) as interrupt:
                journal.close()
        except KeyboardInterrupt:
            journal.close()
        with pytest.raises(ClosedError):
            journal.append_events([started(session, stream)])
        return interrupt.left

    many = 1_000_000
    total = max(many - close_interrupted(many) for _ in range(2))
    calls = range(1, total + 1, max(1, total // steps))
    for count, call in enumerate([*calls, many], 3):
        with support.within(60, f"after the interrupt in call {call}"):
            left = close_interrupted(call)
            assert names_in(path.parent) == ["a.db"], f"interrupted in call {call}"
            assert len(check_file(path)) == count
    assert len(calls) >= min(20, total)
    assert left > 0
