"""Forks: whoever closes first and in any order, nothing that was acknowledged is lost.

Every test forks real processes. What a child does is in a function; it ends without Python's own
cleaning up, with the number of events that it was told are appended.
"""

import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
from support import ROUNDS, SEEDS, Channel, Child, activated, check_file, within

from journal import BusyError, ClosedError, Journal, SessionId
from journal.file import forking

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def append(journal: Journal, count: int) -> int:
    for _ in range(count):
        journal.append_events([activated(SessionId.new())])
    return count


def forked(child: Callable[[], int]) -> Callable[[], int]:
    """Call a function in a forked process; return what waits for its result."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, result = 1, 0
        try:
            result = child()
            code = 0
        except BaseException as error:
            os.write(2, f"in the child: {type(error).__name__}: {error}\n".encode())
        os.write(theirs, str(result).encode())
        os._exit(code)
    os.close(theirs)

    def result() -> int:
        with os.fdopen(ours) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"the child ended with {status}"
        return int(text)

    return result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@contextmanager
def checked(path: Path, count: Callable[[], int]) -> Iterator[None]:
    """Check afterwards that the file is whole and has what was acknowledged, and no more."""
    yield
    with closing(apsw.Connection(str(path))) as file:
        assert file.pragma("integrity_check") == "ok"
    assert len(check_file(path)) == count()


def child_appends(path: Path, count: int) -> int:
    with Journal.open(path) as journal:
        return append(journal, count)


def append_in_another(_channel: Channel, path: Path, count: int) -> int:
    return child_appends(path, count)


def test_the_child_appends_and_the_parent_closes(path: Path) -> None:
    journal = Journal.open(path)
    count = append(journal, 3)
    count += forked(lambda: child_appends(path, 70))()
    count += append(journal, 2)
    journal.close()

    assert len(check_file(path, closed=True)) == count == 75


def test_the_parent_reopens_while_the_child_appends(path: Path) -> None:
    journal = Journal.open(path)
    count = append(journal, 3)
    child = forked(lambda: child_appends(path, 200))
    journal.close()
    for _ in range(5):
        with Journal.open(path) as journal:
            count += append(journal, 5)
    count += child()

    assert len(check_file(path)) == count


def test_the_child_stays_open_when_the_parent_closes(path: Path) -> None:
    go_on, told = os.pipe()

    def child() -> int:
        with Journal.open(path) as journal:
            count = append(journal, 10)
            os.read(go_on, 1)  # the parent has closed
            return count + append(journal, 10)

    journal = Journal.open(path)
    count = append(journal, 3)
    waiting = forked(child)
    while journal.event_count() < 13:
        time.sleep(0.01)
    journal.close()
    os.write(told, b"x")
    count += waiting()

    assert len(check_file(path)) == count == 23


def test_three_processes_deep(path: Path) -> None:
    def grandchild() -> int:
        return child_appends(path, 20)

    def child() -> int:
        with Journal.open(path) as journal:
            count = append(journal, 5)
            count += forked(grandchild)()
            return count + append(journal, 5)

    with Journal.open(path) as journal:
        count = append(journal, 3)
        count += forked(child)()
        count += append(journal, 3)

    assert len(check_file(path, closed=True)) == count == 36


def test_a_daemon_forks_twice_and_outlives_its_parents(path: Path) -> None:
    done, tell = os.pipe()

    def middle() -> int:
        if os.fork() == 0:
            count = child_appends(path, 30)
            os.write(tell, str(count).encode())
            os._exit(0)
        return 0

    journal = Journal.open(path)
    count = append(journal, 3)
    forked(middle)()
    journal.close()
    count += int(os.read(done, 100))

    assert len(check_file(path)) == count


def test_an_innocent_third_process_is_not_harmed(path: Path) -> None:
    """It opens, appends and closes while a parent and its child do."""
    journal = Journal.open(path)
    count = append(journal, 3)
    with Child(append_in_another, path, 100) as third:
        children = [forked(lambda: child_appends(path, 20)) for _ in range(3)]
        count += append(journal, 20)
        journal.close()
        count += sum(child() for child in children)
        count += third.receive()

    assert len(check_file(path)) == count


def test_multiprocessing_with_fork(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with Journal.open(path) as journal:
        append(journal, 3)
        with context.Pool(3) as pool:
            appended = sum(pool.starmap(child_appends, [(path, 10)] * 6))
        append(journal, 3)

    assert len(check_file(path)) == 6 + appended


def test_a_fork_in_a_thread_while_others_read_and_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's mutexes are copied: without waiting, some of these children hang for ever."""
    monkeypatch.setattr(forking, "_WAIT_SECONDS", 60)  # however busy the machine is
    stop = threading.Event()
    counts: list[int] = []

    def write(journal: Journal) -> None:
        count = 0
        while not stop.is_set():
            count += append(journal, 1)
        counts.append(count)

    def read(journal: Journal) -> None:
        while not stop.is_set():
            list(journal.read(limit=200))
            journal.sessions()

    def fork() -> None:
        for _ in range(8 * ROUNDS):
            counts.append(forked(lambda: child_appends(path, 3))())

    with Journal.open(path, durability="normal") as journal:
        threads = [
            threading.Thread(target=target, args=arguments)
            for target, arguments in ((write, (journal,)), (read, (journal,)), (fork, ()))
        ]
        for thread in threads:
            thread.start()
        with within(60 * ROUNDS, "in a forked child"):
            threads[2].join()
        stop.set()
        for thread in threads:
            thread.join()

    assert counts.count(3) >= 8 * ROUNDS
    assert len(check_file(path)) == sum(counts)


def test_an_inherited_journal_is_refused(path: Path) -> None:
    journal = Journal.open(path)
    append(journal, 3)

    def child() -> int:
        for use in (lambda: append(journal, 1), journal.event_count, journal.sessions):
            with pytest.raises(ClosedError, match="opened before this process was forked"):
                use()
        journal.close()  # does nothing
        return child_appends(path, 4)

    assert forked(child)() == 4
    assert append(journal, 1) == 1
    journal.close()
    assert len(check_file(path, closed=True)) == 8


def test_the_child_of_a_fork_that_waited_in_vain_is_refused_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "_WAIT_SECONDS", 0.1)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with forking.inside_sqlite():
            inside.set()
            leave.wait()

    def child() -> int:
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(BusyError, match="forked while another thread was using a journal"):
                Journal.open(path)
        assert time.monotonic() - began < 30  # others wait for a minute
        return 0

    journal = Journal.open(path)
    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    waiting = forked(child)
    leave.set()
    thread.join()
    waiting()
    assert append(journal, 1) == 1  # the parent goes on
    assert forked(lambda: child_appends(path, 2))() == 2  # and the next fork is a good one
    journal.close()
    assert len(check_file(path)) == 3


def test_a_child_that_ends_in_good_order_leaves_the_parents_files_alone(path: Path) -> None:
    """It collects what it inherited: closing that must not delete the -wal."""
    journal = Journal.open(path)
    append(journal, 3)
    pid = os.fork()
    if pid == 0:
        del journal
        import gc  # noqa: PLC0415

        gc.collect()
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.with_name("a.db-wal").exists()
    append(journal, 3)
    journal.close()

    assert len(check_file(path, closed=True)) == 6


def test_a_killed_parent_leaves_no_lock_to_its_child(path: Path) -> None:
    """The child would otherwise hold the parent's lock for writing for as long as it lives."""
    ready, tell = os.pipe()
    wait, go_on = os.pipe()
    middle = os.fork()
    if middle == 0:
        journal = Journal.open(path)
        append(journal, 3)
        if os.fork() == 0:
            os.read(wait, 1)
            os._exit(0)
        with journal._database.write():
            os.write(tell, b"x")
            os.kill(os.getpid(), 9)
    os.read(ready, 1)
    os.waitpid(middle, 0)
    with Journal.open(path) as journal:
        assert append(journal, 1) == 1
    os.write(go_on, b"x")

    assert len(check_file(path)) == 4


# In any order


def live(path: Path, draw: random.Random, depth: int) -> int:
    """Open, append, fork and close at random; return how many events were appended in all."""
    journals: list[Journal] = []
    children: list[Callable[[], int]] = []
    count = 0
    for _ in range(draw.randrange(4, 12)):
        match draw.choice(["open", "append", "append", "fork", "close", "read", "wait"]):
            case "open":
                durability = draw.choice(["full", "normal"])
                journals.append(Journal.open(path, durability=durability))  # type: ignore[arg-type]
            case "append" if journals:
                count += append(draw.choice(journals), draw.randrange(1, 20))
            case "fork" if depth < 3 and len(children) < 3:
                seed = draw.getrandbits(32)
                children.append(
                    forked(lambda seed=seed: live(path, random.Random(seed), depth + 1))  # type: ignore[misc]
                )
            case "close" if journals:
                journals.pop(draw.randrange(len(journals))).close()
            case "read" if journals:
                list(draw.choice(journals).read())
            case "wait" if children:
                count += children.pop(draw.randrange(len(children)))()
    draw.shuffle(journals)
    half = len(journals) // 2
    for journal in journals[:half]:
        journal.close()
    count += sum(child() for child in children)
    for journal in journals[half:]:
        journal.close()
    return count


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_a_family_of_processes_does_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    for number in range(12):
        path = tmp_path / f"{number}.db"
        with within(60, "in a family of processes"):
            count = live(path, draw, 0)
        assert not path.exists() or len(check_file(path)) == count, f"family {number}"
