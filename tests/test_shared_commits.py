"""Appends that meet share a commit: conditions, errors, interrupts, forks, closing are as if each
append were alone."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from support import Channel, activated, check_file, number_of, numbered

from journal import (
    BusyError,
    ClosedError,
    CommitFailedError,
    ConcurrencyError,
    DamagedError,
    FileReplacedError,
    InvalidEventError,
    Journal,
    KeyConflictError,
    OverloadedError,
    ReadOnlyError,
    SessionId,
    StorageFullError,
    StreamFailed,
    StreamId,
)
from journal.events import AnyEvent
from journal.events.codecs import Record
from journal.file import appending, connections, lock_waits
from journal.live import Ticket, shared_commits
from journal.store import Appended, Outcome
from journal.testing import FaultVFS

THREAD = "journal commits"
ONE, TWO = (SessionId(f"{number:032x}") for number in (1, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path, durability="normal") as journal:
        journal.append_events([activated(ONE)])
        yield journal


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + support.TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextlib.contextmanager
def held_up(journal: Journal) -> Iterator[None]:
    """Have the journal's thread wait for the lock while the block lasts, so that appends gather."""
    entered, left = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._database.write():
            entered.set()
            assert left.wait(support.TIMEOUT_S)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(support.TIMEOUT_S)
    try:
        yield
    finally:
        left.set()
        thread.join()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """For each insert, by how many records each append had."""
    seen: list[list[int]] = []
    append_in = appending.Appender.append_in

    def noted(self: Any, connection: Any, appends: Sequence[appending.Append]) -> Any:
        seen.append([len(append.records) for append in appends])
        return append_in(self, connection, appends)

    monkeypatch.setattr(appending.Appender, "append_in", noted)
    return seen


def results(tickets: list[Ticket]) -> list[Any]:
    found: list[Any] = []
    for ticket in tickets:
        try:
            found.append(tuple(ticket.wait()))
        except Exception as error:
            found.append(type(error))
    return found


# Who commits


def test_a_caller_that_meets_nobody_commits_by_itself(journal: Journal) -> None:
    for _ in range(20):
        journal.append_events([activated(ONE)])

    assert journal._commits._thread is None


def test_callers_that_meet_share_commits(path: Path, commits: list[list[int]]) -> None:
    with FaultVFS() as disk, Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        before = disk.commits
        disk.sync_seconds = 0.02
        sessions = [SessionId.new() for _ in range(8)]

        def append(session: SessionId) -> None:
            for number in range(10):
                first, last = journal.append_events(numbered(session, [2 * number, 2 * number + 1]))
                assert first is not None
                assert last == first + 1
                ((position, event),) = journal.read(first, 1)
                assert (position, event) == (last, activated(session, 2 * number + 1))

        threads = [threading.Thread(target=append, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert disk.commits - before < 40  # instead of 80
        assert max(map(len, commits)) > 2
        disk.sync_seconds = 0
        for session in sessions:
            events = journal.get_events_for_session(session)
            assert [number_of(event) for event in events] == list(range(20))
    assert len(check_file(path, closed=True)) == 161


def test_the_thread_ends_without_work_and_comes_back_with_it(journal: Journal) -> None:
    assert journal.submit([activated(ONE)]).wait() == Appended(2, 2)
    (thread,) = own_threads()
    assert not thread.daemon

    thread.join(support.TIMEOUT_S)

    assert not thread.is_alive()
    assert journal.append_events([activated(ONE)]) == Appended(3, 3)
    assert own_threads() == []
    assert journal.submit([activated(ONE)]).wait() == Appended(4, 4)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="POSIX only")
def test_no_signal_reaches_the_thread(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []
    append_in = appending.Appender.append_in

    def noted(*arguments: Any) -> Any:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return append_in(*arguments)

    monkeypatch.setattr(appending.Appender, "append_in", noted)
    journal.submit([activated(ONE)]).wait()

    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= masks[0]


def test_nothing_is_reordered_within_a_caller(journal: Journal) -> None:
    tickets = [journal.submit([activated(TWO, number)]) for number in range(300)]
    journal.append_events([activated(TWO, 300)])

    positions = [ticket.wait() for ticket in tickets]

    assert positions == sorted(positions)
    numbers = [number_of(event) for event in journal.get_events_for_session(TWO)]
    assert numbers == list(range(301))


# Tickets


def test_a_ticket_tells_what_became_of_an_append(journal: Journal) -> None:
    with held_up(journal):
        ticket = journal.submit([activated(TWO)] * 3)
        assert (ticket.positions, ticket.outcome) == (None, None)

    assert [ticket.wait(), ticket.wait()] == [Appended(2, 4)] * 2
    assert ticket.positions == Appended(2, 4)
    assert ticket.outcome == Outcome("committed", Appended(2, 4))
    refused = journal.submit([activated(TWO)], expected_versions={TWO: 9})
    with pytest.raises(ConcurrencyError, match="is at version 3, expected 9"):
        refused.wait()
    assert (refused.positions, refused.outcome) == (None, Outcome("rejected", None))


def test_what_is_wrong_at_once_is_an_error_of_handing_in(path: Path, journal: Journal) -> None:
    with pytest.raises(InvalidEventError):
        journal.submit(["not an event"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="key"):
        journal.submit([], key="")
    with pytest.raises(TypeError, match="expected_versions"):
        journal.submit([], expected_versions={ONE: "1"})  # type: ignore[dict-item]
    with Journal.open(path, read_only=True) as reader, pytest.raises(ReadOnlyError):
        reader.submit([activated(ONE)])


def test_versions_are_those_that_were_given_when_it_was_handed_in(journal: Journal) -> None:
    versions = {TWO: 0}
    with held_up(journal):
        ticket = journal.submit([activated(TWO)], expected_versions=versions)
        versions[TWO] = 7

    assert ticket.wait() == Appended(2, 2)


def test_an_append_of_nothing_may_be_handed_in(journal: Journal) -> None:
    assert journal.submit([]).wait() == Appended(None, None)


# Conditions in a batch


def test_conditions_count_what_comes_before_in_the_batch(
    journal: Journal, commits: list[list[int]]
) -> None:
    event, two = [activated(ONE)], [activated(TWO)] * 2
    with held_up(journal):
        tickets = [
            journal.submit(event, expected_versions={ONE: 1, TWO: 0}),
            journal.submit(event, expected_versions={ONE: 1}),
            journal.submit(two, key="k"),
            journal.submit(two, expected_versions={TWO: 2}, key="l"),
            journal.submit(two, key="k"),
            journal.submit(event, key="k"),
            journal.submit([], expected_versions={ONE: 2, TWO: 4}),
            journal.submit([], expected_versions={TWO: 5}),
            journal.submit([], key="nothing"),
            journal.submit([], key="nothing"),
            journal.submit(event, key="nothing"),
            journal.submit(event, expected_versions={ONE: 2}),
        ]

    assert results(tickets) == [
        (2, 2),
        ConcurrencyError,
        (3, 4),
        (5, 6),
        (3, 4),
        KeyConflictError,
        (None, None),
        ConcurrencyError,
        (None, None),
        (None, None),
        KeyConflictError,
        (7, 7),
    ]
    assert len(commits) == 1
    assert journal.append_events(two, key="k") == Appended(3, 4)
    assert journal.append_events([], key="nothing") == Appended(None, None)
    assert len(journal.get_events_for_session(TWO)) == 4


def test_a_batch_in_which_nothing_is_to_be_written_waits_for_a_sync(path: Path) -> None:
    with FaultVFS() as disk, Journal.open(path) as journal:
        for key in "kl":
            journal.append_events([activated(ONE)], key=key)
        with held_up(journal):
            tickets = [journal.submit([activated(ONE)], key=key) for key in "kl"]
            before = disk.syncs

        assert results(tickets) == [(1, 1), (2, 2)]
        assert disk.syncs > before


def test_batches_are_of_no_more_than_a_thousand_events_or_four_megabytes(
    journal: Journal, commits: list[list[int]]
) -> None:
    def failed(size: int) -> AnyEvent:
        timestamp = support.NOON
        return StreamFailed(
            session_id=TWO, stream_id=StreamId.new(), error="x" * size, timestamp=timestamp
        )

    with held_up(journal):
        tickets = [journal.submit([activated(ONE)] * count) for count in (600, 400, 1, 5000, 1)]
        tickets += [journal.submit([failed(size)]) for size in (1, 3_000_000, 2_000_000)]

    assert all(result is not None for result in results(tickets))
    assert commits == [[600, 400], [1], [5000], [1, 1, 1], [1]]
    assert shared_commits.BATCH_EVENTS_MAX == 1_000


# Errors


def poison(monkeypatch: pytest.MonkeyPatch, session: SessionId) -> list[int]:
    """Have every insert fail that has an event of a session; return the sizes of all of them."""
    inserts: list[int] = []
    insert = appending._Tip.insert

    def fails(self: Any, records: Sequence[Record]) -> None:
        inserts.append(len(records))
        insert(self, records)
        if any(record[1] == session for record in records):
            raise apsw.exception_for(apsw.SQLITE_TOOBIG)

    monkeypatch.setattr(appending._Tip, "insert", fails)
    return inserts


def test_an_append_that_cannot_be_written_does_not_keep_others_from_it(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_up(journal):
        tickets = [
            journal.submit([activated(ONE)] * 2, key="k"),
            journal.submit([activated(TWO)] * 3),
            journal.submit([activated(ONE)], expected_versions={ONE: 3}),
            journal.submit([activated(ONE)], expected_versions={ONE: 7}),
            journal.submit([activated(ONE)] * 2, key="k"),
        ]
        inserts = poison(monkeypatch, TWO)

    assert results(tickets) == [(2, 3), DamagedError, (4, 4), ConcurrencyError, (2, 3)]
    assert inserts == [6, 2, 3, 1]  # all of them, and each that could be written alone, once
    monkeypatch.undo()
    journal.close()
    assert len(check_file(path, closed=True)) == 4


@pytest.mark.parametrize("fault", ["commit", "sync"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_a_commit_that_failed_nothing_is_repeated_and_all_hear_the_same(
    path: Path, commits: list[list[int]], fault: Any
) -> None:
    with FaultVFS() as disk, contextlib.suppress(CommitFailedError), Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        commits.clear()
        with held_up(journal):
            tickets = [journal.submit([activated(SessionId.new())]) for _ in range(5)]
            refused = journal.submit([], expected_versions={ONE: 5})
            disk.fail(fault)  # what holds it up has nothing to write

        assert results(tickets) == [CommitFailedError] * 5
        assert len(commits) == 1
        outcomes = [ticket.outcome for ticket in tickets]
        expected = [("unknown", Appended(n, n)) for n in range(2, 7)]
        assert [outcome and outcome[:2] for outcome in outcomes] == expected
        assert results([refused]) == [ConcurrencyError]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_conflicts_with_what_a_commit_that_failed_has_not_written(path: Path) -> None:
    with FaultVFS() as disk, Journal.open(path) as journal:
        journal.append_events([activated(ONE)], key="old")
        with held_up(journal):
            tickets = [
                journal.submit([activated(TWO)], expected_versions={TWO: 0}, key="new"),
                journal.submit([activated(TWO)], expected_versions={TWO: 0}),
                journal.submit([activated(ONE)], key="new"),
                journal.submit([activated(TWO)], key="old"),
                journal.submit([], expected_versions={ONE: 5}),
            ]
            disk.fail("commit")

        genuine = [KeyConflictError, ConcurrencyError]
        assert results(tickets) == [CommitFailedError] * 3 + genuine
        states = [ticket.outcome and ticket.outcome.state for ticket in tickets]
        assert states == ["unknown"] + ["rejected"] * 4
        with pytest.raises(CommitFailedError) as caught:
            tickets[1].wait()
        assert caught.value.outcome == tickets[1].outcome
        again = journal.submit([activated(TWO)], expected_versions={TWO: 0})
        assert again.wait() == Appended(2, 2)


def test_a_disk_that_is_full_rejects_all_of_a_batch(path: Path) -> None:
    with FaultVFS() as disk, Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        with held_up(journal):
            tickets = [journal.submit([activated(ONE)]) for _ in range(3)]
            disk.is_full = True

        assert results(tickets) == [StorageFullError] * 3
        disk.heal()
        assert [ticket.outcome for ticket in tickets] == [Outcome("rejected", None)] * 3
        assert journal.append_events([activated(ONE)]) == Appended(2, 2)


def test_each_caller_raises_an_error_of_its_own(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_up(journal):
        tickets = [journal.submit([activated(TWO)]) for _ in range(2)]
        poison(monkeypatch, TWO)

    errors = []
    for ticket in (*tickets, tickets[0]):
        with pytest.raises(DamagedError) as caught:
            ticket.wait()
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3
    assert len({str(error) for error in errors}) == 1
    for error in errors:
        assert isinstance(error.__cause__, apsw.TooBigError)
        names = []
        at = error.__traceback__
        while at is not None:
            names.append(at.tb_frame.f_code.co_name)
            at = at.tb_next
        assert names == [sys._getframe().f_code.co_name, "wait"]


def test_an_error_that_is_none_of_the_journals_reaches_the_caller(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_up(journal):
        ticket = journal.submit([activated(TWO)])
        monkeypatch.setattr(appending._Tip, "insert", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        ticket.wait()
    monkeypatch.undo()
    assert journal.submit([activated(TWO)]).wait() == Appended(2, 2)


def test_all_who_wait_hear_that_the_file_is_gone(journal: Journal, path: Path) -> None:
    with held_up(journal):
        tickets = [journal.submit([activated(ONE)]) for _ in range(3)]
        path.rename(path.with_name("b.db"))

    assert results(tickets) == [FileReplacedError] * 3
    path.with_name("b.db").rename(path)


def test_who_has_waited_for_the_lock_too_long_is_told_and_nobody_else(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Ticket] = []
    write = connections.Database.write
    tries = []

    def busy(self: Any) -> Any:
        tries.append(1)
        if len(tries) > 1:
            return write(self)
        late.append(journal.submit([activated(ONE)]))  # it comes while the first one waits
        raise BusyError("a.db", "is being written by another process")

    monkeypatch.setattr(connections.Database, "write", busy)
    first = journal.submit([activated(ONE)])

    assert results([first]) == [BusyError]
    assert results(late) == [(2, 2)]


# The limit


def test_more_than_the_limit_do_not_wait(path: Path) -> None:
    with Journal.open(path, waiting_max=3) as journal:
        journal.append_events([activated(ONE)])
        with held_up(journal):
            tickets = [journal.submit([activated(ONE)] * 10) for _ in range(3)]
            for append in (journal.submit, journal.append_events):
                with pytest.raises(OverloadedError, match="3 appends wait to be committed") as it:
                    append([activated(TWO)])  # type: ignore[operator]
                assert (it.value.waiting, it.value.waiting_max) == (3, 3)

        assert results(tickets) == [(2, 11), (12, 21), (22, 31)]
        assert journal.append_events([activated(ONE)]) == Appended(32, 32)
        assert journal.get_events_for_session(TWO) == []


@pytest.mark.parametrize("waiting_max", [0, -1])
def test_a_limit_is_a_number_of_appends(path: Path, waiting_max: int) -> None:
    with pytest.raises(ValueError, match="waiting_max: expected 1 or more"):
        Journal.open(path, waiting_max=waiting_max)
    assert not path.exists()


# The journal's own thread


def write_until_told(channel: Channel, path: Path) -> None:
    with Journal.open(path) as journal, journal._database.write():
        channel.meet()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there are no such locks here")
def test_what_the_thread_calls_may_not_wait_for_it(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler of logging is called in that thread, while it waits for another process."""
    monkeypatch.setattr(lock_waits, "_SAID_AFTER_SECONDS", 0.0)
    found: list[str] = []

    class Journalling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert "waiting for another process" in record.getMessage()
            handed_in = journal.submit([activated(TWO)])
            for use in (lambda: journal.append_events([activated(TWO)]), handed_in.wait, close):
                try:
                    use()
                except BusyError as error:
                    found.append(error.reason)

    close = journal.close
    handler = Journalling()
    logger = logging.getLogger("journal")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        with support.Child(write_until_told, path) as other:
            assert other.receive() == "ready"
            ticket = journal.submit([activated(ONE)])
            wait_for(lambda: len(found) == 3)
            other.send("go")
            other.receive()
        assert ticket.wait() == Appended(2, 2)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)

    assert [reason.partition(" by ")[2] for reason in found] == ["what it has called itself"] * 3
    wait_for(lambda: journal.version(TWO) == 1)


# Closing


def test_closing_commits_what_waits_and_refuses_what_comes_later(path: Path) -> None:
    journal = Journal.open(path)
    journal.append_events([activated(ONE)])
    with held_up(journal):
        tickets = [journal.submit([activated(ONE)]) for _ in range(5)]
        closing = threading.Thread(target=journal.close)
        closing.start()
        wait_for(lambda: journal._commits._is_closed)
        for append in (journal.append_events, journal.submit):
            with pytest.raises(ClosedError):
                append([activated(TWO)])  # type: ignore[operator]
    closing.join()

    assert results(tickets) == [(number, number) for number in range(2, 7)]
    assert own_threads() == []
    with pytest.raises(ClosedError):
        journal.submit([activated(TWO)])
    journal.close()
    assert len(check_file(path, closed=True)) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
def test_an_interrupt_while_it_is_closed_drops_nothing_that_waits(journal: Journal) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with held_up(journal):
            tickets = [journal.submit([activated(ONE)]) for _ in range(3)]

            def interrupt() -> None:
                wait_for(lambda: journal._commits._is_closed)
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                journal.close()
            thread.join()
            with pytest.raises(ClosedError):
                journal.append_events([activated(TWO)])
    finally:
        signal.signal(signal.SIGINT, before)
    journal.close()

    assert results(tickets) == [(2, 2), (3, 3), (4, 4)]
    assert len(check_file(journal.path, closed=True)) == 4


def run_program(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=support.TIMEOUT_S,
    )


PROGRAM = """
import atexit, sys, threading
from journal import Journal, SessionActivated, SessionId, Timestamp
from datetime import UTC
event = SessionActivated(session_id=SessionId.new(), timestamp=Timestamp(2026, 1, 1, tzinfo=UTC))
journal = Journal.open(sys.argv[1])
"""


def test_what_was_handed_in_is_committed_when_the_program_ends(path: Path) -> None:
    done = run_program(PROGRAM + "for _ in range(50): journal.submit([event])", path)

    assert (done.returncode, done.stderr) == (0, "")
    with Journal.open(path) as journal:
        assert journal.last_position == 50


def test_it_can_be_appended_when_no_thread_can_be_started_any_more(path: Path) -> None:
    text = """
def at_the_end():
    print(journal.append_events([event]), journal.submit([event]).wait())
    journal.close()
atexit.register(at_the_end)
journal.submit([event])
"""
    done = run_program(PROGRAM + text, path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Appended(first=2, last=2) Appended(first=3, last=3)\n"
    assert len(check_file(path, closed=True)) == 3


# Other processes


def test_who_waited_long_for_another_process_leaves_the_lock_for_a_moment(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    sleep = time.sleep

    def noted(seconds: float) -> None:
        if threading.current_thread().name == THREAD and seconds == 0.001:
            pauses.append(journal._database._holding)
        sleep(seconds)

    monkeypatch.setattr(shared_commits.time, "sleep", noted)
    for wait_s in (0.0, 0.1):
        with held_up(journal):
            ticket = journal.submit([activated(ONE)])
            sleep(wait_s)
        ticket.wait()
        wait_for(lambda: not journal._commits._committing)

    assert len(pauses) >= 1
    monkeypatch.setattr(shared_commits, "_LONG_WAIT_SECONDS", 60.0)
    pauses.clear()
    with held_up(journal):
        ticket = journal.submit([activated(ONE)])
        sleep(0.1)
    ticket.wait()
    assert pauses == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_in_the_middle_leaves_the_queue_to_the_parent(path: Path, tmp_path: Path) -> None:
    with FaultVFS(sync_seconds=0.005), Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        is_done = threading.Event()
        appended: list[int] = []

        def append() -> None:
            session = SessionId.new()
            while not is_done.is_set():
                appended.append(journal.append_events([activated(session)]).first or 0)

        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(5):
            tickets = [journal.submit([activated(ONE)]) for _ in range(20)]
            pid = os.fork()
            if pid == 0:
                os._exit(in_fork(journal, tickets, tmp_path / f"of child {number}.db"))
            _, status = os.waitpid(pid, 0)
            assert status == 0
            appended += [ticket.wait().first or 0 for ticket in tickets]
        is_done.set()
        for thread in threads:
            thread.join()

    assert sorted(appended) == list(range(2, len(appended) + 2))
    assert len(check_file(path, closed=True)) == len(appended) + 1


def in_fork(journal: Journal, tickets: list[Ticket], own: Path) -> int:
    """Return 0 where everything in a forked child is as it should be."""
    for use in (
        lambda: journal.append_events([activated(ONE)]),
        lambda: journal.submit([activated(ONE)]),
        tickets[-1].wait,
    ):
        try:
            use()
        except ClosedError as error:
            if "before" not in str(error):
                return 3
        else:
            if use != tickets[-1].wait:  # it may have been committed before
                return 4
    journal.close()
    with Journal.open(own) as mine:
        if mine.submit([activated(ONE)]).wait() != Appended(1, 1):
            return 5
        mine.append_events([activated(ONE)])
    return 0


# Interrupts


def append_and_be_interrupted(channel: Channel, path: Path, interrupts: int) -> list[int]:
    """Append in eight threads, of which the main one is interrupted again and again.

    Return how many events of the main thread's session were acknowledged, how often it was
    interrupted, and how many events the others appended.
    """
    is_armed = False

    def handler(*_: object) -> None:
        if is_armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    errors: list[BaseException] = []
    counts: list[int] = []
    is_done = threading.Event()
    with FaultVFS(sync_seconds=0.0005), Journal.open(path) as journal:

        def neighbour() -> None:
            session, count = SessionId.new(), 0
            try:
                while not is_done.is_set():
                    journal.append_events([activated(session)], expected_versions={session: count})
                    count += 1
            except BaseException as error:
                errors.append(error)
            counts.append(count)

        def interrupt() -> None:
            for number in range(interrupts):
                time.sleep(0.001 + number % 7 / 1000)
                os.kill(os.getpid(), signal.SIGINT)

        threads = [threading.Thread(target=neighbour) for _ in range(7)]
        threads.append(threading.Thread(target=interrupt))
        for thread in threads:
            thread.start()
        acknowledged = interrupted = 0
        while threads[-1].is_alive():
            try:
                is_armed = True
                journal.append_events([activated(ONE)])
                is_armed = False
                acknowledged += 1
            except KeyboardInterrupt:
                is_armed = False
                interrupted += 1
        is_done.set()
        for thread in threads:
            thread.join(support.TIMEOUT_S)
            assert not thread.is_alive(), "a neighbour hangs"
        assert errors == []
        there = len(journal.get_events_for_session(ONE))
    return [acknowledged, there, interrupted, sum(counts)]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
def test_two_hundred_interrupts_reach_one_thread_only(path: Path) -> None:
    acknowledged, there, interrupted, others = support.run(append_and_be_interrupted, path, 200)

    assert interrupted > 20
    assert acknowledged <= there <= acknowledged + interrupted
    assert len(check_file(path, closed=True)) == there + others


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
def test_who_is_interrupted_while_it_waits_is_taken_out(journal: Journal) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with held_up(journal):
            journal.submit([activated(ONE)])  # so that the next one meets somebody

            def interrupt() -> None:
                wait_for(lambda: len(journal._commits._queue) == 2)
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                journal.append_events([activated(TWO)])
            thread.join()
            assert len(journal._commits._queue) == 1
    finally:
        signal.signal(signal.SIGINT, before)

    assert journal.append_events([activated(ONE)]) == Appended(3, 3)
    assert journal.get_events_for_session(TWO) == []


@pytest.mark.parametrize("where", ["make_ready", "append_in", "commit", "settle", "each alone"])
def test_where_callers_commit_an_interrupt_is_for_one_of_them_only(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    commits = journal._commits
    monkeypatch.setattr(commits, "_running", lambda: None)  # no thread can be started
    commits._have_met = True
    is_over = threading.Event()
    commit_batch = commits._commit_batch

    def after_the_other() -> None:
        if threading.current_thread() is not threading.main_thread():
            assert is_over.wait(support.TIMEOUT_S)
        commit_batch()

    def interrupt_after(owner: Any, name: str) -> None:
        act = getattr(owner, name)

        def interrupted(*arguments: Any) -> None:
            monkeypatch.setattr(owner, name, act)
            act(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(owner, name, interrupted)

    found: list[Any] = []

    def append() -> None:
        try:
            found.append(journal.append_events([activated(TWO)], expected_versions={TWO: 0}))
        except BaseException as error:
            found.append(error)

    monkeypatch.setattr(commits, "_commit_batch", after_the_other)
    neighbour = threading.Thread(target=append)
    neighbour.start()
    wait_for(lambda: commits._queue)
    (waiting,) = commits._queue
    if where == "settle":
        interrupt_after(waiting, "_commit")
    elif where == "each alone":
        commits._appender.make_ready()
        insert = appending._Tip.insert

        def fails(*arguments: Any) -> None:
            monkeypatch.setattr(appending._Tip, "insert", insert)
            raise LookupError

        monkeypatch.setattr(appending._Tip, "insert", fails)
        interrupt_after(journal._database, "_commit")
    else:
        owner: Any = journal._database if where == "commit" else journal._appender
        interrupt_after(owner, "_commit" if where == "commit" else where)
    with pytest.raises(KeyboardInterrupt) as caught:
        journal.append_events([activated(ONE)])
    is_over.set()
    neighbour.join(support.TIMEOUT_S)

    assert found == [Appended(2, 2)]
    is_committed = where in ("commit", "settle")
    outcome = Outcome("committed", Appended(3, 3)) if is_committed else Outcome("rejected")
    assert caught.value.outcome == outcome  # type: ignore[attr-defined]
    assert journal.last_position == 2 + is_committed


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
def test_a_signals_handler_may_append_while_its_thread_does(path: Path) -> None:
    appended: list[Any] = []

    def handler(*_: object) -> None:
        with contextlib.suppress(BusyError):
            appended.append(journal.append_events([activated(TWO)]))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with support.within(50, "in a handler"):
            pass
        signal.signal(signal.SIGALRM, handler)
        with FaultVFS(), Journal.open(path) as journal:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
            for _ in range(400):
                journal.append_events([activated(ONE)])
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert len(journal.get_events_for_session(ONE)) == 400
            assert len(journal.get_events_for_session(TWO)) == len(appended)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert appended
