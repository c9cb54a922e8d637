"""Buffered appends: what returns at once is written soon after, and only a crash loses it."""

import contextlib
import logging
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import support
from support import Channel, activated, check_file, number_of, numbered
from test_shared_commits import held_up, own_threads, poison, results, wait_for

from journal import (
    AsyncJournal,
    BufferedJournal,
    BusyError,
    ClosedError,
    CommitFailedError,
    FlushFailedError,
    InvalidEventError,
    Journal,
    OverloadedError,
    Retention,
    SessionId,
    StorageFullError,
)
from journal.live import buffered_commits
from journal.store import REJECTED, Appended, Outcome
from journal.testing import FaultVFS

NEVER = math.inf
ONE, TWO = (SessionId(f"{number:032x}") for number in (1, 2))
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def journal(path: Path) -> Iterator[BufferedJournal]:
    """Lend a journal that flushes only what it is told to."""
    with Journal.open(path, durability="buffered", max_delay=NEVER) as journal:
        yield journal


# Appending


def test_an_append_returns_a_ticket_at_once_and_is_written_by_a_flush(
    journal: BufferedJournal,
) -> None:
    with held_up(journal):  # so nothing can be written yet
        tickets = [journal.append_events(numbered(ONE, [2 * n, 2 * n + 1])) for n in range(3)]
        tickets.append(journal.submit([activated(TWO)]))
        assert [(each.positions, each.outcome) for each in tickets] == [(None, None)] * 4
    assert (journal.event_count(), list(journal.read()), journal.version(ONE)) == (0, [], 0)

    journal.flush()

    assert results(tickets) == [(1, 2), (3, 4), (5, 6), (7, 7)]
    assert tickets[0].outcome == Outcome("committed", Appended(1, 2))
    events = journal.get_events_for_session(ONE)
    assert [number_of(event) for event in events] == list(range(6))
    journal.flush()  # of nothing


def test_what_is_buffered_shares_a_commit_and_a_sync(path: Path) -> None:
    with FaultVFS() as disk, Journal.open(path, durability="buffered", max_delay=NEVER) as journal:
        journal.append_events([activated(ONE)])
        journal.flush()
        commits, syncs = disk.commits, disk.syncs
        for number in range(500):
            journal.append_events([activated(ONE, number)])
        journal.flush()

        assert disk.commits == commits + 1
        assert disk.syncs == syncs + 1
        wait_for(lambda: not journal._buffer._committing)
        journal.flush()
        assert (disk.commits, disk.syncs) == (commits + 1, syncs + 1)
    assert len(check_file(path, closed=True)) == 501


@pytest.mark.parametrize("max_delay", [0, 0.001, timedelta(milliseconds=300)])
def test_it_is_written_when_it_has_waited_for_long_enough(path: Path, max_delay: Any) -> None:
    with Journal.open(path, durability="buffered", max_delay=max_delay) as journal:
        for number in range(1, 4):
            assert journal.append_events([activated(ONE)]).wait() == Appended(number, number)


def test_it_is_written_when_half_of_the_buffer_is_full(path: Path) -> None:
    options: Any = {"durability": "buffered", "max_delay": NEVER, "max_events": 10}
    with Journal.open(path, **options) as journal:
        first = [journal.append_events([activated(ONE)]) for _ in range(4)]
        threads = own_threads()
        assert [ticket.outcome for ticket in first] == [None] * 4
        journal.append_events([activated(ONE)]).wait()

        assert results(first) == [(number, number) for number in range(1, 5)]
        last = journal.append_events([activated(ONE)])
        assert last.outcome is None
    assert last.outcome == Outcome("committed", Appended(6, 6))
    assert len(threads) == 1


def test_what_needs_an_answer_is_refused(journal: BufferedJournal) -> None:
    for append in (journal.append_events, journal.submit):
        for arguments in ({"key": "k"}, {"expected_versions": {ONE: 0}}, {"expected_versions": {}}):
            with pytest.raises(ValueError, match=r"a buffered append cannot have them.*\bopen\b"):
                append([activated(ONE)], **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidEventError):
        journal.append_events(["not an event"])  # type: ignore[list-item]
    assert journal.append_events([]).wait() == Appended(None, None)
    journal.flush()
    assert journal.event_count() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "buffered", "max_delay": -1}, "max_delay"),
        ({"durability": "buffered", "max_delay": math.nan}, "max_delay"),
        ({"durability": "buffered", "max_delay": timedelta(-1)}, "max_delay"),
        ({"durability": "buffered", "max_delay": "1"}, "max_delay"),
        ({"durability": "buffered", "max_events": 0}, "max_events"),
        ({"durability": "buffered", "max_events": 1.5}, "max_events"),
        ({"durability": "buffered", "when_full": "drop"}, "when_full"),
        ({"durability": "buffered", "read_only": True}, "read_only"),
        ({"durability": "buffered", "waiting_max": 5}, "waiting_max"),
        ({"durability": "full", "max_delay": 1}, "max_delay"),
        ({"max_events": 1}, "max_events"),
        ({"durability": "normal", "when_full": "block"}, "when_full"),
        ({"on_flush_failed": print}, "on_flush_failed"),
        ({"durability": "later"}, "'full', 'normal' or 'buffered'"),
    ],
)
def test_wrong_arguments_are_refused_before_there_is_a_file(
    path: Path, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Journal.open(path, **options)
    assert not path.exists()


def test_the_journal_of_a_loop_says_what_to_do_instead(path: Path) -> None:
    with pytest.raises(ValueError, match="when_full='raise'"):
        AsyncJournal.open(path, durability="buffered")  # type: ignore[arg-type]


def test_lines_have_batches_of_their_own_after_what_is_buffered(journal: BufferedJournal) -> None:
    ticket = journal.append_events([activated(ONE)])
    lines = [activated(TWO, number).model_dump_json() for number in range(2_500)]

    assert journal.append_ndjson(lines) == (2_500, 0, 2, 2_501)

    assert ticket.positions == Appended(1, 1)
    assert journal.event_count() == 2_501


def test_threads_keep_their_order(path: Path) -> None:
    options: Any = {"durability": "buffered", "max_delay": 0.002, "max_events": 50}
    sessions = [SessionId.new() for _ in range(4)]
    with Journal.open(path, **options) as journal:

        def append(session: SessionId) -> None:
            for number in range(200):
                journal.append_events([activated(session, number)])

        threads = [threading.Thread(target=append, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        journal.flush()
        for session in sessions:
            events = journal.get_events_for_session(session)
            assert [number_of(event) for event in events] == list(range(200))
    assert len(check_file(path, closed=True)) == 800


def test_retention_prunes_after_a_flush(path: Path) -> None:
    retention = Retention(keep_events=1_000)
    with Journal.open(path, durability="buffered", retention=retention) as journal:
        for number in range(600):
            journal.append_events(numbered(ONE, range(10 * number, 10 * number + 10)))
        journal.flush()
        assert journal.version(ONE) == 6_000
        wait_for(lambda: not own_threads())  # it prunes once those who wait know of their appends
        assert journal.event_count() < 3_000  # it prunes as much as was appended at once
        assert journal.retention_failure is None


# A full buffer


def test_an_append_waits_for_room(path: Path) -> None:
    options: Any = {"durability": "buffered", "max_delay": NEVER, "max_events": 10}
    with Journal.open(path, **options) as journal:
        with held_up(journal):
            first = [journal.append_events([activated(ONE)] * 3) for _ in range(3)]
            late: list[Any] = []
            threads = [
                threading.Thread(
                    target=lambda count=count: late.append(
                        journal.append_events([activated(TWO)] * count)
                    )
                )
                for count in (2, 25)
            ]
            for thread in threads:
                thread.start()
                thread.join(0.2)
                assert thread.is_alive()
            assert late == []
            assert journal.append_events([activated(ONE)]).outcome is None  # this one fits
        for thread in threads:
            thread.join(support.TIMEOUT_S)
            assert not thread.is_alive()
        journal.flush()
        assert results(first) == [(1, 3), (4, 6), (7, 9)]
        assert journal.version(TWO) == 27


def test_an_append_to_a_full_buffer_is_refused_where_that_was_asked(path: Path) -> None:
    options: Any = {"durability": "buffered", "max_delay": NEVER, "max_events": 10}
    with Journal.open(path, when_full="raise", **options) as journal:
        with held_up(journal):
            journal.append_events([activated(ONE)] * 8)
            for count in (3, 11):
                with pytest.raises(OverloadedError, match=r"8 events wait.* limit is 10") as caught:
                    journal.append_events([activated(TWO)] * count)
                assert (caught.value.waiting, caught.value.waiting_max) == (8, 10)
                assert caught.value.outcome == REJECTED
            journal.append_events([activated(ONE)] * 2)
            with pytest.raises(OverloadedError):
                journal.append_events([activated(TWO)])
        journal.flush()
        journal.append_events([activated(ONE)] * 25)  # more than the limit, into an empty buffer
        journal.flush()
        assert (journal.version(ONE), journal.version(TWO)) == (35, 0)


def test_who_waits_for_room_hears_that_the_journal_is_closed(path: Path) -> None:
    journal = Journal.open(path, durability="buffered", max_delay=NEVER, max_events=2)
    found: list[Any] = []

    def append() -> None:
        try:
            journal.append_events([activated(TWO)] * 2)
        except ClosedError as error:
            found.append(error.outcome)

    with held_up(journal):
        journal.append_events([activated(ONE)] * 2)
        waiting, closing = threading.Thread(target=append), threading.Thread(target=journal.close)
        waiting.start()
        waiting.join(0.1)
        closing.start()
        wait_for(lambda: journal._buffer._is_closed)
    waiting.join(support.TIMEOUT_S)
    assert found == [REJECTED]
    closing.join()
    with pytest.raises(ClosedError):
        journal.append_events([activated(ONE)])
    with pytest.raises(ClosedError):
        journal.flush()
    journal.close()
    assert len(check_file(path, closed=True)) == 2


# Flushes that fail


class Told:
    """What the callback was called with, and by which threads."""

    def __init__(self) -> None:
        self.errors: list[FlushFailedError] = []
        self.threads: set[str] = set()

    def __call__(self, error: FlushFailedError) -> None:
        self.errors.append(error)
        self.threads.add(threading.current_thread().name)


@contextlib.contextmanager
def failing(path: Path) -> Iterator[tuple[FaultVFS, BufferedJournal, Told]]:
    told = Told()
    options: Any = {"durability": "buffered", "max_delay": NEVER, "on_flush_failed": told}
    with FaultVFS() as disk, Journal.open(path, **options) as journal:
        journal.append_events([activated(ONE)])
        journal.flush()
        yield disk, journal, told


def test_a_full_disk_reaches_the_tickets_the_next_call_and_the_callback(path: Path) -> None:
    with failing(path) as (disk, journal, told):
        disk.is_full = True
        tickets = [journal.append_events([activated(ONE)] * 2) for _ in range(3)]
        journal._buffer._is_urgent = True
        assert results(tickets) == [StorageFullError] * 3
        assert [ticket.outcome for ticket in tickets] == [REJECTED] * 3
        disk.heal()

        with pytest.raises(FlushFailedError, match="6 buffered events were not written: ") as it:
            journal.append_events([activated(TWO)])

        assert (it.value.event_count, it.value.outcome) == (6, REJECTED)
        assert isinstance(it.value.__cause__, StorageFullError)
        assert it.value.errno == it.value.__cause__.errno
        wait_for(lambda: told.errors)
        assert [str(error) for error in told.errors] == [str(it.value)]
        assert told.threads == {"journal commits"}
        assert journal.append_events([activated(ONE)]) is not None  # it was said once
        journal.flush()
        assert (journal.version(ONE), journal.version(TWO)) == (2, 0)
    assert len(check_file(path, closed=True)) == 2


@pytest.mark.parametrize("fault", ["commit", "sync"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_a_flush_that_failed_half_way_the_tickets_can_be_resolved(
    path: Path, fault: Any
) -> None:
    with failing(path) as (disk, journal, told):
        disk.fail(fault)
        tickets = [journal.append_events([activated(TWO)]) for _ in range(3)]
        with pytest.raises(FlushFailedError, match=r"may not have been written.*Journal\.resolve"):
            journal.flush()
        assert results(tickets) == [CommitFailedError] * 3
        assert "Journal.resolve" in str(tickets[0]._error)
        disk.heal()
        journal.flush()  # it was said
        for ticket in tickets:
            assert ticket.outcome is not None
            assert ticket.outcome.state == "unknown"
            assert journal.resolve(ticket.outcome) == REJECTED
        journal.append_events([activated(ONE)])
        journal.flush()
        assert len(told.errors) == 1


@pytest.mark.parametrize("call", ["close", "flush", "append_ndjson"])
def test_whatever_comes_next_says_it(path: Path, call: str) -> None:
    with failing(path) as (disk, journal, _):
        disk.is_full = True
        ticket = journal.append_events([activated(ONE)])
        if call == "append_ndjson":
            journal._buffer._is_urgent = True
            assert results([ticket]) == [StorageFullError]
        else:
            tell = journal._buffer._tell

            def told(batch: Any) -> None:
                tell(batch)
                if ticket in batch:  # that of the batch before may come as late as this
                    disk.heal()

            journal._buffer._tell = told  # type: ignore[method-assign]
        arguments = ([activated(TWO).model_dump_json()],) if call == "append_ndjson" else ()
        with pytest.raises(FlushFailedError, match="1 buffered events were not written"):
            getattr(journal, call)(*arguments)
        disk.heal()
    assert len(check_file(path, closed=True)) == 1


def test_a_with_statement_that_ends_by_another_error_has_it_as_a_note(path: Path) -> None:
    with pytest.raises(LookupError) as caught:  # noqa: PT012
        with FaultVFS() as disk:
            with Journal.open(path, durability="buffered", max_delay=NEVER) as journal:
                journal.append_events([activated(ONE)])
                journal.flush()
                disk.is_full = True
                journal.append_events([activated(ONE)])
                raise LookupError
    assert any("1 buffered events were not written" in note for note in caught.value.__notes__)


def test_an_append_that_cannot_be_written_costs_no_other(
    journal: BufferedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_up(journal):
        tickets = [journal.append_events([activated(each)]) for each in (ONE, TWO, ONE)]
        poison(monkeypatch, TWO)
    with pytest.raises(FlushFailedError, match="1 buffered events were not written: is damaged"):
        journal.flush()
    assert [ticket.positions for ticket in tickets] == [Appended(1, 1), None, Appended(2, 2)]


def test_a_callback_may_fail_or_append_but_not_wait_for_itself(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[type[BaseException]] = []

    def callback(_: FlushFailedError) -> None:
        for call in (journal.flush, journal.close, lambda: journal.append_events([activated(ONE)])):
            try:
                call()
            except BusyError as error:
                found.append(type(error))
        raise LookupError("of the program")

    options: Any = {"durability": "buffered", "max_delay": NEVER, "on_flush_failed": callback}
    with FaultVFS() as disk, Journal.open(path, **options) as journal:
        journal.append_events([activated(ONE)])
        journal.flush()
        disk.is_full = True
        journal.append_events([activated(ONE)])
        with pytest.raises(FlushFailedError):
            journal.flush()
        disk.heal()
        wait_for(lambda: "of the program" in caplog.text)
        assert found == [BusyError] * 3
        assert journal.append_events([activated(ONE)]) is not None
        journal.flush()
        assert journal.event_count() == 2


# The ends of a program


def test_the_readmes_program_runs(tmp_path: Path) -> None:
    readme = Path(__file__).parent.parent.joinpath("README.md").read_text("utf-8")
    (text,) = re.findall(
        r"^```python\n([^`]*durability=\"buffered\"[^`]*)^```$", readme, re.MULTILINE
    )

    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == ("Appended(first=1, last=1) 1\n", "")


PRELUDE = """
import atexit, gc, multiprocessing, os, signal, sys, threading, time
from datetime import timedelta
import journal
from journal.testing import FaultVFS

SESSION = journal.SessionId.new()
event = journal.SessionActivated(
    session_id=SESSION, timestamp=journal.Timestamp.parse("2026-01-01T00:00:00Z")
)
path = sys.argv[1]

def opened(max_delay=3600.0, **options):
    return journal.Journal.open(path, durability="buffered", max_delay=max_delay, **options)

def append(times=1):
    for _ in range(times):
        kept.append_events([event])
        os.write(1, b"1")

def in_thread(work, **options):
    thread = threading.Thread(target=work, **options)
    thread.start()
    return thread
"""

OPENED = "kept = opened()\nappend(30)\n"

MULTIPROCESSING = """
def child():
    global kept
    kept = opened()
    append(30)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
"""

WAYS: dict[str, tuple[str, int]] = {
    "falls off the end": (OPENED, 0),
    "sys.exit": (OPENED + "sys.exit(5)", 5),
    "an exception that nobody handles": (OPENED + "raise ValueError", 1),
    "Ctrl-C": (OPENED + "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)", -2),
    "closed": (OPENED + "kept.close()", 0),
    "a with statement": ("with opened() as kept:\n    append(30)\n    sys.exit(5)", 5),
    "forgotten": (OPENED + "del kept\ngc.collect()", 0),
    "a thread": ("kept = opened()\nin_thread(lambda: append(30)).join()", 0),
    "threads that go on for a while": (
        OPENED + "for _ in range(3): in_thread(lambda: (time.sleep(0.2), append(20)))",
        0,
    ),
    "daemon threads that go on for ever": (
        OPENED + "def work():\n    while True: append()\n"
        "for _ in range(2): in_thread(work, daemon=True)\ntime.sleep(0.2)",
        0,
    ),
    "atexit, registered before": (
        "atexit.register(lambda: append(3))\nimport journal.live.buffered_commits\n" + OPENED,
        0,
    ),
    "atexit, registered after": (OPENED + "atexit.register(append, 3)", 0),
    "opened at exit": (
        "def late():\n    global kept\n    kept = opened()\n    append(30)\natexit.register(late)",
        0,
    ),
    "a signal's handler that exits": (
        OPENED + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)",
        5,
    ),
    "Ctrl-C again at the end, on a slow disk": (
        "FaultVFS(sync_seconds=0.2).__enter__()\n" + OPENED + "def again():\n"
        "    while threading.main_thread().is_alive(): time.sleep(0.01)\n"
        "    time.sleep(0.1)\n    os.kill(os.getpid(), signal.SIGINT)\nin_thread(again)",
        0,
    ),
    "os.fork, whose child exits": (
        OPENED + "pid = os.fork()\nif pid == 0: sys.exit(0)\nos.waitpid(pid, 0)",
        0,
    ),
    "multiprocessing, in a forked child": (MULTIPROCESSING, 0),
}


def run_program(text: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + text, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=support.TIMEOUT_S,
    )


@POSIX
@pytest.mark.parametrize(("text", "expected"), WAYS.values(), ids=WAYS.keys())
def test_every_ordinary_end_writes_what_is_buffered(path: Path, text: str, expected: int) -> None:
    done = run_program(text, path)

    told = done.stdout.count("1")
    assert done.returncode == expected, done.stderr
    assert told >= 30
    there = len(check_file(path))
    # What a daemon thread was about to tell of may be there, too.
    assert told <= there <= told + (2 if "daemon" in text else 0), done.stderr


@POSIX
@pytest.mark.parametrize(
    "crash",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os._exit(3)",
        "os.abort()",
    ],
)
def test_a_crash_loses_the_buffer_and_nothing_else(path: Path, crash: str) -> None:
    done = run_program(OPENED + "kept.flush()\nappend(7)\n" + crash, path)

    assert done.returncode
    assert done.stdout == "1" * 37
    assert len(check_file(path)) == 30


@POSIX
def test_a_crash_loses_no_more_than_the_limit(path: Path) -> None:
    text = """
    kept = opened(max_events=64)
    def die():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    in_thread(die)
    while True: append()
    """
    done = run_program(textwrap.dedent(text), path)

    told = len(done.stdout)
    assert told > 64
    assert told - 64 <= len(check_file(path)) <= told + 1


@POSIX
def test_at_exit_an_error_is_logged_in_one_line(path: Path) -> None:
    text = """
    disk = FaultVFS()
    disk.__enter__()
    kept = opened()
    append(30)
    kept.flush()
    disk.is_full = True
    append(3)
    """
    done = run_program(textwrap.dedent(text), path)

    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "buffered" in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{path}: 3 buffered events were not written: the disk is full")
    assert len(check_file(path)) == 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_writes_the_buffer(path: Path) -> None:
    with Journal.open(path, durability="buffered", max_delay=NEVER) as journal:
        ticket = journal.append_events([activated(ONE)])
        pid = os.fork()
        if pid == 0:
            calls: list[Callable[[], object]] = [
                lambda: journal.append_events([activated(TWO)]),
                lambda: journal.append_ndjson([activated(TWO).model_dump_json()]),
                journal.flush,
                ticket.wait,
            ]
            refused = 0
            for call in calls:
                with contextlib.suppress(ClosedError):
                    call()
                    os._exit(1)
                refused += 1
            buffered_commits._at_exit()
            journal.close()
            os._exit(10 + refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 14
        journal.flush()
        assert ticket.positions == Appended(1, 1)
    assert len(check_file(path, closed=True)) == 1


# Interrupts


@POSIX
def test_who_is_interrupted_while_it_waits_for_room_has_appended_nothing(path: Path) -> None:
    options: Any = {"durability": "buffered", "max_delay": NEVER, "max_events": 4}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Journal.open(path, **options) as journal:
            with held_up(journal):
                journal.append_events([activated(ONE)] * 4)
                timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
                timer.start()
                with pytest.raises(KeyboardInterrupt) as caught:
                    journal.append_events([activated(TWO)])
                assert caught.value.outcome == REJECTED  # type: ignore[attr-defined]
            journal.append_events([activated(ONE)] * 4)
            journal.flush()
            assert journal.event_count() == 8
    finally:
        signal.signal(signal.SIGINT, before)


def append_and_be_interrupted(_channel: Channel, path: Path) -> Any:
    """Return the outcomes of what has a ticket, what is in the file, and how often it was."""
    is_armed = False

    def handler(*_: object) -> None:
        if is_armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    events = [[activated(ONE, number)] for number in range(1_500)]
    tickets, interrupted = [], 0
    options: Any = {"durability": "buffered", "max_delay": 0.001, "max_events": 20}
    with FaultVFS(), Journal.open(path, **options) as journal:
        journal.append_events(events[0]).wait()
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
        for number in range(1, 1_500):
            try:
                is_armed = True
                ticket = journal.append_events(events[number])
                is_armed = False
                tickets.append((number, ticket))
            except KeyboardInterrupt:
                is_armed = False
                interrupted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        journal.flush()
        numbers = [number_of(event) for event in journal.get_events_for_session(ONE)]
    told = {number: ticket.outcome and ticket.outcome.state for number, ticket in tickets}
    return told, numbers, interrupted


@POSIX
def test_interrupts_lose_no_event_whose_ticket_was_given(path: Path) -> None:
    told, numbers, interrupted = support.run(append_and_be_interrupted, path)

    assert set(told.values()) == {"committed"}
    assert numbers == sorted(numbers)
    assert told.keys() <= set(numbers)
    assert len(numbers) <= 1 + len(told) + interrupted
    assert interrupted


def test_nothing_is_logged_where_nothing_went_wrong(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), Journal.open(path, durability="buffered") as journal:
        journal.append_events([activated(ONE)])
        buffered_commits._at_exit()
        assert journal.event_count() == 1
    assert caplog.records == []
