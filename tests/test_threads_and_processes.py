"""Threads share a journal, and processes a file: nothing fails, gets lost, mixed up or held up."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from support import (
    Channel,
    Child,
    activated,
    check_file,
    names_in,
    number_of,
    numbered,
    started,
    texts,
)

from journal import (
    BusyError,
    ClosedError,
    ConcurrencyError,
    Journal,
    KeyConflictError,
    SessionId,
    StreamFailed,
    StreamId,
    limits,
)
from journal.events import AnyEvent
from journal.file import lock_waits, opening, wal
from journal.store import Appended


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "a.db"


SMALL = 50


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seal often, so that sealing is contended, too; children that append do the same."""
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", SMALL)


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Return what functions return that run in threads, all at once."""
    barrier = threading.Barrier(len(functions))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait(support.TIMEOUT_S)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(call, each) for each in functions]]


def random_batches(session: SessionId, shared: SessionId, seed: int) -> Iterator[list[AnyEvent]]:
    """Yield batches of events: numbered ones of one session, and some of a shared one."""
    rng = random.Random(seed)
    stream = StreamId.new()
    number = 0
    for _ in range(40):
        size = rng.choice([1, 1, 1, 2, 10, 60])
        batch: list[AnyEvent] = numbered(session, range(number, number + size))
        number += size
        if rng.random() < 0.5:
            batch.append(activated(shared))
        if rng.random() < 0.5:
            batch.insert(0, started(shared, stream))
        yield batch


def append_batches(journal: Journal, session: SessionId, shared: SessionId, seed: int) -> int:
    """Append batches, and check where each one went; return how many events there were."""
    count = 0
    for batch in random_batches(session, shared, seed):
        first, last = journal.append_events(batch)
        assert first is not None
        assert last == first + len(batch) - 1
        assert [event for _, event in journal.read(first - 1, len(batch))] == batch
        count += len(batch)
    return count


def check_own_order(path: Path, sessions: list[SessionId]) -> None:
    with Journal.open(path, read_only=True) as journal:
        for session in sessions:
            numbers = [number_of(event) for event in journal.get_events_for_session(session)]
            assert numbers == list(range(len(numbers)))
            assert numbers


# Threads


def test_threads_append_to_one_journal(path: Path) -> None:
    sessions, shared = [SessionId.new() for _ in range(4)], SessionId.new()
    with Journal.open(path, durability="normal") as journal:
        counts = at_once(
            *[
                lambda session=session, seed=seed: append_batches(journal, session, shared, seed)
                for seed, session in enumerate(sessions)
            ]
        )
        positions = [position for position, _ in journal.read()]

    assert positions == list(range(1, sum(counts) + 1))
    assert names_in(path.parent) == ["a.db"]
    assert len(check_file(path, closed=True)) == sum(counts)
    check_own_order(path, sessions)


def test_threads_read_while_others_append(path: Path) -> None:
    """Each read shows a moment: a beginning of what will be there, and whole batches."""
    session, stream, size = SessionId.new(), StreamId.new(), 7
    batch = [started(session, stream)] * size
    done = threading.Event()

    with Journal.open(path, durability="normal") as journal:
        journal.append_events(batch)

        def append() -> None:
            try:
                for _ in range(300):
                    journal.append_events(batch)
            finally:
                done.set()

        def read() -> int:
            reads, seen = 0, 0
            while not done.is_set() or reads == 0:
                counts = [
                    len(journal.get_events_for_session(session)),
                    len(journal.get_events_for_stream(stream)),
                    journal.event_count(),
                    journal.last_position,
                    len([position for position, _ in journal.read()]),
                    len(list(journal.lines())),
                    len(list(journal.lines(session_id=session))),
                    len(journal.get_events_since(support.NOON.replace(year=2025))),
                    journal.info().event_count,
                ]
                assert all(count % size == 0 for count in counts), counts
                assert counts[0] >= seen
                assert counts == sorted(counts)
                seen = counts[-1]
                reads += 1
            return reads

        at_once(append, read, read, read)

    assert len(check_file(path, closed=True)) == 301 * size


def test_more_readers_at_once_than_connections_are_kept(path: Path) -> None:
    events = numbered(SessionId.new(), range(3))
    with Journal.open(path) as journal:
        journal.append_events(events)
        inside = threading.Barrier(12)

        def read() -> int:
            with journal._database.read() as connection:
                inside.wait(support.TIMEOUT_S)
                return connection.execute("SELECT count(*) FROM event").get

        assert at_once(*[read] * 12) == [3] * 12
        assert len(list(journal.read())) == 3

    assert names_in(path.parent) == ["a.db"]


def test_readers_do_not_wait_for_a_writer(path: Path) -> None:
    session = SessionId.new()
    with Journal.open(path) as journal, Journal.open(path) as other:
        journal.append_events([activated(session)])
        with other._database.write() as connection:
            connection.execute("UPDATE session SET event_count = 99")

            for reader in (journal, other):
                assert len(reader.get_events_for_session(session)) == 1
                assert len(list(reader.read())) == 1
            with Journal.open(path, read_only=True) as reader:
                assert len(reader.get_events_for_session(session)) == 1
            connection.execute("UPDATE session SET event_count = 1")


def test_a_writer_waits_for_another_process_and_says_so_when_it_takes_too_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SessionId.new()
    with Journal.open(path) as journal:
        journal.append_events([activated(session)])
        really = journal._database.write
        monkeypatch.setattr(journal._database, "write", lambda _=0: really(50))  # ms, no minute
        with contextlib.closing(apsw.Connection(str(path))) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BusyError, match="is locked by another process"):
                journal.append_events([activated(session)])
            other.execute("ROLLBACK")

        assert journal.append_events([activated(session)]) == Appended(2, 2)

    assert len(check_file(path, closed=True)) == 2


def test_ctrl_c_ends_the_wait_for_another_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SessionId.new()
    waited = threading.Event()

    def interrupt() -> None:
        waited.wait()
        signal.raise_signal(signal.SIGINT)  # Python's handler runs in the main thread

    def sleep(seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        waited.set()
        sleep(seconds)

    monkeypatch.setattr(lock_waits.time, "sleep", sleep)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Journal.open(path) as journal:
            with contextlib.closing(apsw.Connection(str(path))) as other:
                other.execute("BEGIN IMMEDIATE")
                thread = threading.Thread(target=interrupt)
                thread.start()
                with pytest.raises(KeyboardInterrupt):  # and not BusyError, after a minute
                    journal.append_events([activated(session)])
                thread.join()

            assert journal.append_events([activated(session)]) == Appended(1, 1)
    finally:
        signal.signal(signal.SIGINT, before)

    assert len(check_file(path, closed=True)) == 1


def close_while_threads_work(path: Path, reads_before: int) -> None:
    session, some = SessionId.new(), threading.Event()
    journal = Journal.open(path, durability="normal")
    before = journal.last_position

    def append() -> int:
        count = 0
        with contextlib.suppress(ClosedError):
            while True:
                journal.append_events([activated(session)])
                count += 1
                if count == 5:
                    some.set()
        return count

    def read() -> None:
        with contextlib.suppress(ClosedError):
            while True:
                assert len(list(journal.read())) >= before

    def close() -> None:
        assert some.wait(support.TIMEOUT_S)
        for _ in range(reads_before):
            list(journal.read())
        journal.close()

    results = at_once(append, append, read, close)

    with Journal.open(path) as again:
        assert again.last_position == before + results[0] + results[1]


def test_closing_while_threads_work_loses_nothing_that_was_acknowledged(path: Path) -> None:
    for reads_before in range(5 * support.ROUNDS):
        close_while_threads_work(path, reads_before % 7)

    assert names_in(path.parent) == ["a.db"]
    check_file(path)


def test_threads_that_create_one_journal_at_once_get_the_same(tmp_path: Path) -> None:
    for attempt in range(10 * support.ROUNDS):
        path = tmp_path / str(attempt) / "a.db"
        path.parent.mkdir()

        def create(path: Path = path) -> str:
            with Journal.open(path, durability="normal") as journal:
                journal.append_events([activated(SessionId.new())])
                return str(journal.info().journal_id)

        assert len(set(at_once(*[create] * 6))) == 1
        assert names_in(path.parent) == ["a.db"]
        assert len(check_file(path, closed=True)) == 6


def test_two_journals_of_one_process_see_each_other(path: Path) -> None:
    session, stream = SessionId.new(), StreamId.new()
    with Journal.open(path) as one, Journal.open(path) as two:
        for version in range(20):
            writer, reader = (one, two) if version % 3 else (two, one)
            writer.append_events([started(session, stream)], expected_versions={session: version})
            assert len(reader.get_events_for_stream(stream)) == version + 1
            with pytest.raises(ConcurrencyError):
                reader.append_events([activated(session)], expected_versions={session: version})

    assert len(check_file(path, closed=True)) == 20


# Processes


def append_in_a_process(
    channel: Channel, path: Path, session: SessionId, shared: SessionId, seed: int
) -> int:
    limits.BLOCK_EVENTS_MAX = SMALL
    channel.meet()
    with Journal.open(path, durability="normal") as journal:
        return append_batches(journal, session, shared, seed)


def append_and_reopen(
    channel: Channel, path: Path, session: SessionId, shared: SessionId, seed: int
) -> int:
    limits.BLOCK_EVENTS_MAX = SMALL
    channel.meet()
    count = 0
    for batch in random_batches(session, shared, seed):
        with Journal.open(path) as journal:
            journal.append_events(batch)
        count += len(batch)
    return count


def read_and_reopen(channel: Channel, path: Path, read_only: bool) -> int:
    """Open and read again and again until told to stop; return how often."""
    channel.meet()
    times, seen = 0, 0
    while not channel._connection.poll() or not times:
        with Journal.open(path, read_only=read_only) as journal:
            positions = [position for position, _ in journal.read()]
        assert positions == list(range(1, len(positions) + 1))
        assert len(positions) >= seen
        seen = len(positions)
        times += 1
    return times


def test_processes_append_to_one_file_while_others_come_and_go(path: Path) -> None:
    Journal.open(path).close()
    sessions, shared = [SessionId.new() for _ in range(4)], SessionId.new()
    functions = [append_in_a_process, append_in_a_process, append_in_a_process, append_and_reopen]
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(Child(function, path, session, shared, seed))
            for seed, (function, session) in enumerate(zip(functions, sessions, strict=True))
        ]
        readers = [
            stack.enter_context(Child(read_and_reopen, path, read_only))
            for read_only in (True, False)
        ]
        support.let_go(writers + readers)
        counts = [writer.receive() for writer in writers]
        for reader in readers:
            reader.send("stop")
            assert reader.receive() > 0

    with Journal.open(path) as journal:  # which closes last, and so leaves one file
        journal.append_events([activated(shared)])
    assert names_in(path.parent) == ["a.db"]
    assert len(check_file(path, closed=True)) == sum(counts) + 1
    check_own_order(path, sessions)


def increment(channel: Channel, path: Path, session: SessionId, times: int) -> int:
    """Append to a session at the version that was seen, again where others were faster."""
    limits.BLOCK_EVENTS_MAX = SMALL
    channel.meet()
    conflicts = 0
    with Journal.open(path, durability="normal") as journal:
        for number in range(times):
            while True:
                version = len(journal.get_events_for_session(session))
                try:
                    journal.append_events(
                        numbered(session, [number]), expected_versions={session: version}
                    )
                except ConcurrencyError as error:
                    if error.session_id != session or not error.expected == version < error.actual:
                        raise
                    conflicts += 1
                else:
                    break
    return conflicts


def test_of_processes_that_increment_a_session_each_success_counts_once(path: Path) -> None:
    session, times, count = SessionId.new(), 40, 3
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(Child(increment, path, session, times)) for _ in range(count)
        ]
        support.let_go(children)
        conflicts = sum(child.receive() for child in children)

    with Journal.open(path) as journal:
        numbers = [number_of(event) for event in journal.get_events_for_session(session)]
    assert sorted(numbers) == sorted([*range(times)] * count)
    assert conflicts > 0, "the processes did not meet"


def append_under_keys(
    channel: Channel, path: Path, sessions: list[SessionId], order: int
) -> list[Appended]:
    limits.BLOCK_EVENTS_MAX = SMALL
    channel.meet()
    with Journal.open(path) as journal:
        results = []
        for number, session in enumerate(sessions):
            events = numbered(session, range(number % 5))
            results.append(journal.append_events(events, key=f"key {number}"))
            if number % 7 == order:
                journal.append_events([activated(session, 99)])
        return results


def test_a_key_that_processes_use_at_once_stands_for_one_append(path: Path) -> None:
    sessions = [SessionId.new() for _ in range(60)]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(Child(append_under_keys, path, sessions, order))
            for order in range(3)
        ]
        support.let_go(children)
        one, two, three = [child.receive() for child in children]

    assert one == two == three
    with Journal.open(path) as journal:
        for number, (session, (first, last)) in enumerate(zip(sessions, one, strict=True)):
            events = numbered(session, range(number % 5))
            if first is None:
                assert (last, events) == (None, [])
            else:
                assert [event for _, event in journal.read(first - 1, len(events))] == events
            once = [e for e in journal.get_events_for_session(session) if number_of(e) != 99]
            assert once == events
        with pytest.raises(KeyConflictError):
            journal.append_events([activated(sessions[0])], key="key 0")
    check_file(path, closed=True)


# Reading meanwhile


def test_a_read_ends_where_the_journal_ended_when_it_began(path: Path) -> None:
    session = SessionId.new()
    with Journal.open(path, durability="normal") as journal:
        journal.append_events(numbered(session, range(2500)))
        iterators = [journal.read(), journal.read(after=1200), journal.lines()]
        started_ones = [next(iterator) for iterator in iterators]
        untouched = journal.read()
        expected = [len(list(iterator)) for iterator in (journal.read(),)]

        for number in range(50):
            journal.append_events(numbered(session, range(2500 + number, 2500 + number + 20)))

        counts = [1 + len(list(iterator)) for iterator in iterators]
        late = [number_of(event) for _, event in untouched]
        assert [each[0] for each in started_ones] == [1, 1201, 1]
        assert counts == [2500, 1300, 2500]
        assert late == list(range(2500))
        assert expected == [2500]
        assert journal.event_count() == 3500


def read_without_end(channel: Channel, path: Path, session: SessionId) -> int:
    """Read a long session again and again, until told to stop; return how often."""
    count = 0
    with Journal.open(path, read_only=True) as journal:
        channel.send("ready")
        while not channel._connection.poll() or not count:
            journal.get_events_for_session(session)
            count += 1
    return count


def test_readers_that_come_one_upon_the_other_do_not_keep_the_wal_growing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is never a moment without one, so now and then it has to be made."""
    monkeypatch.setattr(wal, "_CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(wal, "_TOO_MANY_PAGES", 400)
    session = SessionId.new()
    wal_path = path.with_name("a.db-wal")
    sizes = []
    with Journal.open(path, durability="normal") as journal:
        journal.append_events(numbered(session, range(5_000)))
        with Child(read_without_end, path, session) as child:
            assert child.receive() == "ready"
            for _ in range(120):
                journal.append_events([activated(SessionId.new()) for _ in range(50)])
                sizes.append(wal_path.stat().st_size)
            child.send("stop")
            assert child.receive() > 0

    assert max(sizes) < 4_000_000  # without it 20 million: it grows with every append


def test_a_forgotten_iterator_does_not_keep_the_wal_from_being_reused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open transaction would, which is shown at the end, so that this test can fail."""
    monkeypatch.setattr(wal, "_CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(opening, "WAL_BYTES_KEPT", 0)
    session, stream = SessionId.new(), StreamId.new()
    wal_path = path.with_name("a.db-wal")
    large = StreamFailed(
        session_id=session, stream_id=stream, error="x" * 50_000, timestamp=support.NOON
    )

    def largest_wal() -> int:
        sizes = []
        for _ in range(60):
            journal.append_events([large])
            sizes.append(wal_path.stat().st_size)
        return max(sizes)

    with Journal.open(path, durability="normal") as journal:
        journal.append_events([large] * 3)
        reader = Journal.open(path, read_only=True)
        iterators: list[Iterator[Any]] = [journal.read(), journal.lines(), reader.read()]
        iterators += [journal.lines(session_id=session), journal.lines(since=support.NOON)]
        for iterator in iterators:
            next(iterator, None)

        assert largest_wal() < 1_000_000
        with journal._database.read() as connection:
            assert connection.execute("SELECT count(*) FROM event").get == 63
            assert largest_wal() > 3_000_000
        reader.close()


def append_sevens(channel: Channel, path: Path, session: SessionId, stream: StreamId) -> None:
    limits.BLOCK_EVENTS_MAX = SMALL
    with Journal.open(path, durability="normal") as journal:
        channel.meet()
        for _ in range(150):
            journal.append_events([started(session, stream), activated(session)] * 7)


def test_what_another_process_appends_appears_in_whole_batches(path: Path) -> None:
    session, stream = SessionId.new(), StreamId.new()
    with Journal.open(path) as journal, Child(append_sevens, path, session, stream) as child:
        support.let_go([child])
        seen = set()
        while 150 * 14 not in seen:
            chain = journal.get_events_for_session(session)
            assert texts(chain[::2]) == texts([started(session, stream)] * (len(chain) // 2))
            since = journal.get_events_since(support.NOON.replace(year=2025))
            counts = [len(chain), len(since), 2 * len(journal.get_events_for_stream(stream))]
            assert counts == sorted(counts)
            assert all(count % 14 == 0 for count in counts), counts
            seen.update(counts)
        child.receive()

    assert len(check_file(path)) == 150 * 14
