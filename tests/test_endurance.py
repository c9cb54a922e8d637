"""Long runs: processes that are killed again and again, many at once, thousands of operations on
one file beside the model, a million events.

JOURNAL_TEST_ROUNDS says how long, 10 unless it is set. A test that draws at random has its seed in
its id; JOURNAL_TEST_SEED is the first one.
"""

import hashlib
import itertools
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import apsw
import hypothesis
import pytest
import support
import test_lifecycle
import test_model
from support import Channel, Child, activated, check_file, let_go, names_in, texts
from test_projections import check_right, random_events

from journal import Journal, SessionId, StreamFailed, StreamId, Timestamp
from journal.events import AnyEvent
from journal.file import blocks, wal
from journal.projections import lifecycle_states
from journal.store import Appended

pytestmark = pytest.mark.slow

ROUNDS = support.LONG_ROUNDS

with_seeds = pytest.mark.parametrize("seed", support.SEEDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "a.db"


def is_told(channel: Channel) -> bool:
    """Tell whether the test has told this child to stop."""
    return channel._connection.poll()


def check_fold(journal: Journal) -> None:
    """Assert that stored projections are what folding everything anew gives."""
    assert [report.changes for report in journal.rebuild(check=True)] in ([()], [None])
    check_right(journal)


# Killed again and again

LIVES = 4
CHECKPOINT_PAGES = 500  # so that some are killed during a checkpoint


def batch_of(seed: int, writer: int, number: int) -> list[AnyEvent]:
    """Return the same events each time, among them one of a session that no other batch has."""
    draw = random.Random(f"{seed} {writer} {number}")
    events = random_events(draw.choice([0, 0, 1, 6, 40, 150]), seed=draw.getrandbits(32))
    session = SessionId(f"{writer + 1:08x}{number:024x}")
    error = "x" * draw.choice([0, 100, 50_000])
    events.append(
        StreamFailed(
            session_id=session,
            stream_id=StreamId(f"{number:032x}"),
            error=error,
            timestamp=support.NOON,
        )
    )
    return events


def key_of(writer: int, number: int) -> str:
    return f"writer {writer}, batch {number}"


def append_until_killed(
    channel: Channel, path: Path, told: Path, seed: int, writer: int, number: int, durability: Any
) -> None:
    """Append batches from a number on, and write down, line by line, where each one went."""
    wal._CHECKPOINT_PAGES = CHECKPOINT_PAGES
    channel.meet()
    with Journal.open(path, durability=durability) as journal, told.open("w", buffering=1) as file:
        for each in itertools.count(number):
            first, last = journal.append_events(
                batch_of(seed, writer, each), key=key_of(writer, each)
            )
            print(first, last, file=file)


def read_until_killed(channel: Channel, path: Path) -> None:
    wal._CHECKPOINT_PAGES = CHECKPOINT_PAGES
    channel.meet()
    with Journal.open(path) as journal:
        while True:
            committed = journal.last_position
            assert sum(one.event_count for one in journal.sessions()) >= committed


class Told:
    """What two writers were told, and so what has to be in the file."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts = [0, 0]
        self.lines: dict[int, str] = {}

    def note(self, writer: int, first: int, last: int) -> None:
        """Take in where the next batch of a writer is."""
        lines = texts(batch_of(self.seed, writer, self.counts[writer]))
        positions = range(first, last + 1)
        assert not self.lines.keys() & set(positions)
        self.lines.update(zip(positions, lines, strict=True))
        self.counts[writer] += 1

    def note_file(self, writer: int, file: Path) -> None:
        """Take in the lines of a writer, the last of which may not be whole."""
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        for line in lines:
            self.note(writer, *map(int, line.split()))

    def in_order(self) -> list[str]:
        assert sorted(self.lines) == list(range(1, len(self.lines) + 1))
        return [self.lines[position] for position in range(1, len(self.lines) + 1)]


def wait_until_all_are_told(files: list[Path]) -> None:
    end = time.monotonic() + support.TIMEOUT_S
    while not all(file.exists() and file.stat().st_size for file in files):
        if time.monotonic() > end:  # whoever looks at what the children say learns why
            return
        time.sleep(0.001)


def live(path: Path, told: Told, draw: random.Random, life: int) -> None:
    """Let two writers and a reader loose, and kill them after a while, in any order."""
    files = [path.parent.with_name(f"told by {writer} in life {life}") for writer in range(2)]
    with ExitStack() as stack:
        children = [stack.enter_context(Child(read_until_killed, path))]
        for writer, file in enumerate(files):
            durability = ["normal", "full"][(life >> writer) % 2]
            arguments = path, file, told.seed, writer, told.counts[writer], durability
            children.append(stack.enter_context(Child(append_until_killed, *arguments)))
        let_go(children)
        if life % 2 == 0:  # else some are killed while they open the file
            wait_until_all_are_told(files)
        time.sleep(draw.choice([0.02, 0.2, 0.5]) * draw.random())
        draw.shuffle(children)
        for child in children:
            child.kill()
        for child in children:
            with suppress(ConnectionResetError):  # it was killed before it knew that it may go
                assert child.received() == []
    for writer, file in enumerate(files):
        told.note_file(writer, file)


def repeat_what_nobody_was_told(journal: Journal, told: Told) -> bool:
    """Repeat the append that each writer was killed in: it took, or is made up for, and once.

    Return whether anything had to be appended.
    """
    committed = journal.last_position
    for writer in range(2):
        number, before = told.counts[writer], journal.last_position
        batch, key = batch_of(told.seed, writer, number), key_of(writer, number)
        result = journal.append_events(batch, key=key)
        assert result.first is not None
        assert result.last is not None
        assert result.last <= committed or result.first == before + 1
        assert journal.append_events(batch, key=key) == result
        assert journal.last_position == max(before, result.last)
        told.note(writer, result.first, result.last)
    return journal.last_position > committed


def check_sessions(journal: Journal, lines: list[str]) -> None:
    """Assert that the chain of each session leads to all of its events."""
    by_session: dict[str, list[str]] = {}
    for line in lines:
        by_session.setdefault(line.partition('"session_id":"')[2][:36], []).append(line)
    assert [str(one.session_id) for one in journal.sessions()] == list(by_session)
    for session, own in by_session.items():
        assert texts(journal.get_events_for_session(SessionId(session))) == own


@with_seeds
def test_what_was_acknowledged_survives_kill_9(path: Path, seed: int) -> None:
    draw, told = random.Random(seed), Told(seed)
    for life in range(LIVES):
        live(path, told, draw, life)
        with Journal.open(path) as journal:
            appended = repeat_what_nobody_was_told(journal, told)
            lines = told.in_order()
            check_fold(journal)
            check_sessions(journal, lines)
        assert names_in(path.parent) == ["a.db"]
        # Closing what has appended nothing leaves the blocks as the killed ones left them.
        assert check_file(path, closed=appended) == lines
    assert min(told.counts) > LIVES  # or they were killed before they did anything


# Many at once

SECONDS = 1.5 * ROUNDS
SESSIONS = 200
WAL_BYTES_MAX = 64 * 1024 * 1024
PAUSE_S = 0.05
"""Of whoever needs the file for long: SQLite begins its -wal again when nobody reads from it."""


def append_until_told(channel: Channel, path: Path, seed: int) -> int:
    """Return how many events were appended."""
    draw, count = random.Random(seed), 0
    durability: Any = "full" if seed == 0 else "normal"
    with Journal.open(path, durability=durability) as journal:
        channel.meet()
        while not is_told(channel) or not count:
            events = random_events(draw.choice([1, 1, 1, 3, 30]), seed=draw.getrandbits(32))
            events.append(activated(SessionId(f"{draw.randrange(SESSIONS):032x}")))
            appended = journal.append_events(events)
            assert appended == Appended(appended.first, (appended.first or 0) + len(events) - 1)
            count += len(events)
    return count


def read_until_told(channel: Channel, path: Path, seed: int) -> int:
    """Return how often everything was read."""
    times, seen = 0, 0
    with Journal.open(path) as journal:
        channel.meet()
        while not is_told(channel) or not times:
            positions = [position for position, _ in journal.read()]
            assert positions == list(range(1, len(positions) + 1))
            assert len(positions) >= seen
            times, seen = times + 1, len(positions)
    return times


def rebuild_until_told(channel: Channel, path: Path, seed: int) -> int:
    """Return how often projections were folded anew, every other time only to compare."""
    times = 0
    with Journal.open(path) as journal:
        channel.meet()
        while not is_told(channel) or not times:
            for report in journal.rebuild(check=times % 2 == 1):
                assert report.changes in (None, ())
                times += 1
            time.sleep(PAUSE_S)
    return times


def look_until_told(channel: Channel, path: Path, seed: int) -> int:
    """Return how often a journal that may only be read was opened and asked."""
    times = 0
    channel.meet()
    while not is_told(channel) or not times:
        with Journal.open(path, read_only=True) as journal:
            for session in [one.session_id for one in journal.sessions()][:50]:
                assert journal.get_events_for_session(session)
            committed = journal.last_position
            assert sum(one.event_count for one in journal.sessions()) >= committed
        times += 1
        time.sleep(PAUSE_S)
    return times


def largest_wal(path: Path, seconds: float) -> int:
    """Watch for so long, and return the largest size."""
    wal, sizes = path.with_name("a.db-wal"), [0]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sizes.append(wal.stat().st_size)
        time.sleep(0.01)
    return max(sizes)


def test_many_processes_at_once_fail_lose_and_fill_nothing(path: Path) -> None:
    writers = [append_until_told] * 3
    others = [read_until_told, rebuild_until_told, look_until_told]
    with Journal.open(path) as journal, ExitStack() as stack:
        children = [
            stack.enter_context(Child(function, path, seed))
            for seed, function in enumerate([*writers, *others])
        ]
        let_go(children)
        assert 0 < largest_wal(path, SECONDS) < WAL_BYTES_MAX
        for child in children:
            with suppress(BrokenPipeError):  # what it says next is why it failed
                child.send("stop")
        counts = [child.receive() for child in children]
        appended = sum(counts[:3])
        assert min(counts) > 0
        assert journal.last_position == journal.event_count() == appended
        check_fold(journal)

    assert names_in(path.parent) == ["a.db"]
    assert len(check_file(path, closed=True)) == appended


# A long program beside the model

OPERATIONS = 200 * ROUNDS


def drawn_events(count: int, seed: int) -> list[AnyEvent]:
    """Return events as `test_model` has them: of every kind, with values at their limits."""
    events: list[AnyEvent] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(test_model.events)
    def collect(event: AnyEvent) -> None:
        events.append(event)

    collect()
    return events


class Program:
    """Random operations, each of them on a journal and on the model.

    What each does and asserts is that of `test_model`, which also closes, opens and looks into the
    file; what this adds is their number, and the folds.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.events = drawn_events(500, seed)
        self.machine = test_model.JournalMachine()
        support.fold_in_steps(self.machine.patch, 50)
        self.machine.patch.setattr(lifecycle_states, "_ENDED_IN_MEMORY_MAX", 3)
        self.state = test_lifecycle.NOTHING
        self.anomalies: list[Any] = []
        self.folded = 0

    def run(self) -> None:
        try:
            for number in range(OPERATIONS):
                try:
                    self.step()
                    self.machine.positions_agree()
                except BaseException as error:
                    error.add_note(f"operation {number}")
                    raise
            self.check_states()
        finally:
            self.machine.teardown()

    def step(self) -> None:
        machine, draw = self.machine, self.draw
        handle = draw.randrange(2)
        session = draw.choice(test_model.SESSIONS)
        stream = draw.choice(test_model.STREAMS)
        operations: list[tuple[float, Callable[[], object]]] = [
            (60, lambda: self.append(handle)),
            (10, lambda: self.append_under_a_key_again(handle)),
            (4, lambda: self.append_lines(handle)),
            (3, lambda: machine.fail_while_giving_events(handle=handle, batch=self.batch())),
            (0.5, lambda: machine.append_while_reading(reader=0, writer=1, batch=self.batch())),
            (5, lambda: machine.query_a_session(handle=handle, session=session)),
            (5, lambda: machine.query_a_stream(handle=handle, stream=stream, session=session)),
            (0.5, lambda: machine.query_since(handle=handle, since=self.instant(), after=0)),
            (0.5, lambda: machine.read(handle=handle, after=draw.randrange(10_000), limit=20)),
            (5, lambda: machine.close_and_open_again(handle=handle)),
            (0.3, machine.close_all_and_open_again),
            (0.3, machine.read_only),
            (1, self.check_states),
            (0.5, lambda: check_fold(machine.journals[handle])),
        ]
        weights, functions = zip(*operations, strict=True)
        draw.choices(functions, weights)[0]()

    def batch(self) -> list[AnyEvent]:
        return self.draw.choices(self.events, k=self.draw.choice([0, 1, 1, 1, 2, 3, 12]))

    def instant(self) -> Timestamp:
        return self.draw.choice(self.events).timestamp

    def append(self, handle: int) -> None:
        """Append, every third time or so with a wrong version, and half the time under a key."""
        sessions = self.draw.sample(test_model.SESSIONS, k=self.draw.randrange(4))
        offsets = {session: self.draw.choice([0] * 8 + [1, -1]) for session in sessions}
        keys = [None, f"key {len(self.machine.keyed)}"]
        self.machine.append(
            handle=handle, batch=self.batch(), offsets=offsets, key=self.draw.choice(keys)
        )

    def append_under_a_key_again(self, handle: int) -> None:
        """Repeat an append, or every now and then use its key for other events."""
        if not self.machine.keyed:
            return
        key, batch = self.draw.choice(list(self.machine.keyed.items()))
        if self.draw.random() < 0.2:
            batch = self.batch()
        self.machine.append(handle=handle, batch=batch, offsets={}, key=key)

    def append_lines(self, handle: int) -> None:
        lines = texts(self.batch())
        if self.draw.random() < 0.5:
            lines.insert(self.draw.randrange(len(lines) + 1), "no event")
        stop, keep, as_bytes = (self.draw.random() < 0.5 for _ in range(3))
        self.machine.append_lines(
            handle=handle, lines=lines, stop=stop, keep=keep, as_bytes=as_bytes
        )

    def check_states(self) -> None:
        """Assert that each handle, and one that only reads, answer as the plain fold."""
        everything = self.machine.model.all_events()
        for event in filter(test_lifecycle.not_unknown, everything[self.folded :]):
            self.state = test_lifecycle.plain_apply(self.state, event)
            self.anomalies += self.state["anomalies"]
            self.state["anomalies"] = []  # for it copies all of its state at each event
        self.folded = len(everything)
        expected = test_lifecycle.Expected(
            {**self.state, "anomalies": self.anomalies}, list(enumerate(everything, 1))
        )
        journal = self.draw.choice(self.machine.journals)
        check_answers(journal, expected)
        check_one_by_one(journal)
        with Journal.open(self.machine.path, read_only=True) as reader:
            check_answers(reader, expected)


def check_answers(journal: Journal, expected: test_lifecycle.Expected) -> None:
    """As that of `test_lifecycle`, which cannot tell a stream from a session of the same UUID."""
    sessions, streams = journal.sessions(), journal.streams()
    assert test_lifecycle.by_id(sessions, "session_id") == expected.sessions
    assert test_lifecycle.by_id(streams, "stream_id") == expected.streams
    for found, name in [(sessions, "session_id"), (streams, "stream_id")]:
        known = {getattr(each, name) for each in found}
        met = dict.fromkeys(getattr(event, name) for event in expected.events)
        assert [getattr(each, name) for each in found] == [one for one in met if one in known]
    assert [test_lifecycle.plain(each) for each in journal.anomalies()] == expected.anomalies


def check_one_by_one(journal: Journal) -> None:
    sessions, streams = journal.sessions(), journal.streams()
    for session in sessions:
        session_id = session.session_id
        assert journal.session(session_id) == session
        own = [stream for stream in streams if stream.session_id == session_id]
        assert journal.streams(session_id) == own
    for stream in streams:
        assert journal.stream(stream.stream_id) == stream


@with_seeds
def test_thousands_of_operations_later_a_journal_answers_as_the_model_does(seed: int) -> None:
    Program(seed).run()


# A million events

EVENTS = 100_000 * ROUNDS
# From half a million events on, the caches are full and it stays at 70 MB.
MEMORY_BYTES_MAX = 96 * 1024 * 1024
MIXED = Path(__file__).parent / "data" / "mixed" / "events.ndjson"


def mixed_lines(count: int) -> Iterator[str]:
    """Yield the lines of a file again and again, each time with other ids."""
    lines = MIXED.read_text("utf-8").splitlines()
    ids = re.compile(r'(?<=_id":")[0-9a-f]{8}')
    numbers = itertools.count()
    repeated = (ids.sub(f"{number:08x}", line) for number in numbers for line in lines)
    return itertools.islice(repeated, count)


class Hash:
    """The SHA-256 of lines that pass by."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def over(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self._hasher.update(f"{line}\n".encode())
            yield line

    def of_all(self, lines: Iterator[str]) -> str:
        for _ in self.over(lines):
            pass
        return self.hexdigest()

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()


def peak_bytes() -> int:
    """Return the most memory that this process has had so far."""
    try:
        import resource  # noqa: PLC0415 (not on Windows)
    except ImportError as error:
        raise support.Skip("memory is measured on POSIX only") from error
    status = Path("/proc/self/status")
    if status.exists():  # of this process alone: ru_maxrss may count what its parent had
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def append_mixed_lines(_channel: Channel, path: Path, count: int) -> tuple[str, int]:
    """Return the hash of what was appended, and how much more memory that took."""
    hashed, before = Hash(), peak_bytes()
    with Journal.open(path, durability="normal") as journal:
        result = journal.append_ndjson(hashed.over(mixed_lines(count)))
    assert result == (count, 0, 1, count)
    return hashed.hexdigest(), peak_bytes() - before


def read_as_lines(_channel: Channel, path: Path) -> tuple[str, int]:
    before = peak_bytes()
    with Journal.open(path, read_only=True) as journal:
        return Hash().of_all(line for _, line in journal.lines()), peak_bytes() - before


def read_as_events(_channel: Channel, path: Path) -> tuple[str, int]:
    before = peak_bytes()
    with Journal.open(path, read_only=True) as journal:
        lines = (event.model_dump_json() for _, event in journal.read())
        return Hash().of_all(lines), peak_bytes() - before


def check_digests(path: Path, count: int) -> None:
    """Assert that blocks cover the events, and that the digest of each is as it should be."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        end, before = 0, "0" * 64
        for first, last, salt, content_digest, digest in connection.execute(
            "SELECT first_seq, last_seq, salt, content_digest, digest FROM block ORDER BY first_seq"
        ):
            assert first == end + 1
            text = connection.execute(blocks.TEXT_SQL, {"first": first, "last": last}).get
            assert hashlib.sha256(f"{salt}{text}".encode()).hexdigest() == content_digest
            assert hashlib.sha256(f"{before}{content_digest}".encode()).hexdigest() == digest
            end, before = last, digest
        assert end == count


def test_a_million_events_come_back_in_memory_that_does_not_grow_with_them(path: Path) -> None:
    expected, memory = support.run(append_mixed_lines, path, EVENTS)
    assert memory < MEMORY_BYTES_MAX
    assert names_in(path.parent) == ["a.db"]
    for read in (read_as_lines, read_as_events):
        assert (found := support.run(read, path))[0] == expected
        assert found[1] < MEMORY_BYTES_MAX

    check_digests(path, EVENTS)
