"""Every append that did not simply return has an outcome, and the file tells the unknown ones."""

import contextlib
import math
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from support import Channel, activated, check_file, number_of
from test_shared_commits import held_up, results, wait_for

from journal import (
    BusyError,
    ClosedError,
    CommitFailedError,
    ConcurrencyError,
    DamagedError,
    InvalidEventError,
    Journal,
    JournalError,
    KeyConflictError,
    OverloadedError,
    ReadOnlyError,
    SessionId,
    StorageError,
    StorageFullError,
    continue_copy,
    recover,
)
from journal.file import writers
from journal.store import REJECTED, Appended, Outcome
from journal.testing import FaultVFS

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX only"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # apsw's
]

ONE, TWO = (SessionId(f"{number:032x}") for number in (1, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "a.db"


def rows(path: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)) as file:
        return file.execute("SELECT id, token, commit_no, last_seq FROM writer").fetchall()


@contextlib.contextmanager
def failing_commit(path: Path, *, first: bool = False) -> Iterator[tuple[FaultVFS, Any, Outcome]]:
    """Lend a journal whose commit has failed on a disk that goes on failing, and the outcome."""
    with FaultVFS() as disk:
        journal = Journal.open(path)
        if not first:
            journal.append_events([activated(ONE)])
        else:
            journal._appender.make_ready()
        disk.fail("sync", times=math.inf)
        with pytest.raises(CommitFailedError) as caught:
            journal.append_events([activated(TWO)] * 2)
        yield disk, journal, caught.value.outcome
        disk.heal()
        with contextlib.suppress(JournalError):
            journal.close()


# What is known at once


def test_an_append_that_is_refused_is_rejected(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events([activated(ONE)], key="k")
        for kind, arguments in (
            (ConcurrencyError, {"expected_versions": {ONE: 7}}),
            (KeyConflictError, {"key": "k"}),
        ):
            with pytest.raises(kind) as caught:
                journal.append_events([activated(TWO)], **arguments)  # type: ignore[arg-type]
            assert caught.value.outcome == REJECTED
            assert pickle.loads(pickle.dumps(caught.value)).outcome == REJECTED
        assert len(rows(path)) == 1
    assert rows(path) == []


def test_an_append_for_which_there_is_no_room_is_rejected(path: Path) -> None:
    with FaultVFS() as disk, Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        disk.is_full = True
        with pytest.raises(StorageFullError) as caught:
            journal.append_events([activated(TWO)])
        disk.heal()
        assert caught.value.outcome == REJECTED
        assert journal.resolve(caught.value.outcome) == REJECTED
        journal.append_events([activated(ONE)])
    assert rows(path) == []


def test_the_errors_of_tickets_say_it_too(path: Path) -> None:
    with Journal.open(path, waiting_max=1) as journal:
        journal.append_events([activated(ONE)])
        with held_up(journal):
            ticket = journal.submit([activated(ONE)], expected_versions={ONE: 7})
            with pytest.raises(OverloadedError) as overloaded:
                journal.append_events([activated(ONE)])
        with pytest.raises(ConcurrencyError) as conflict:
            ticket.wait()
    assert overloaded.value.outcome == conflict.value.outcome == ticket.outcome == REJECTED
    with pytest.raises(ClosedError):
        journal.append_events([activated(ONE)])


def refusals(path: Path) -> Iterator[tuple[Any, type[JournalError], dict[str, Any]]]:
    """Yield journals that refuse an append before it is begun, and by which error."""
    with Journal.open(path, durability="buffered", max_events=1, when_full="raise") as buffered:
        with held_up(buffered):
            buffered.append_events([activated(ONE)])
            yield buffered, OverloadedError, {}
    yield buffered, ClosedError, {}
    with Journal.open(path, waiting_max=1) as journal:
        yield journal, InvalidEventError, {"events": ["not an event"]}
        with held_up(journal):
            journal.submit([activated(ONE)])
            yield journal, OverloadedError, {}
        with journal._database.write():
            yield journal, BusyError, {"expected_versions": {ONE: 2}}
    yield journal, ClosedError, {}
    with Journal.open(path, read_only=True) as reader:
        yield reader, ReadOnlyError, {}


def test_an_append_that_is_refused_before_it_is_begun_is_rejected(path: Path) -> None:
    for journal, kind, arguments in refusals(path):
        for append in (journal.append_events, journal.submit):
            with pytest.raises(kind) as caught:
                append(**{"events": [activated(TWO)], **arguments})
            assert caught.value.outcome == REJECTED


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_submit_that_does_not_return_has_an_outcome(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, is_begun: bool
) -> None:
    with Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        hand_in = journal._commits._hand_in

        def interrupted(ticket: Any) -> None:
            hand_in(ticket)
            if is_begun:
                held.close()
                wait_for(lambda: ticket._has_begun)
            raise KeyboardInterrupt

        monkeypatch.setattr(journal._commits, "_hand_in", interrupted)
        with contextlib.ExitStack() as held:
            held.enter_context(held_up(journal))
            with pytest.raises(KeyboardInterrupt) as caught:
                journal.submit([activated(TWO)])
        outcome = caught.value.outcome  # type: ignore[attr-defined]
        assert outcome == (Outcome("committed", Appended(2, 2)) if is_begun else REJECTED)
        assert journal.version(TWO) == is_begun


# What only the file knows


@pytest.mark.parametrize("first", [False, True], ids=["later", "the first"])
@pytest.mark.parametrize("how", ["the same journal", "another one", "in another process"])
def test_a_commit_that_failed_is_unknown_until_the_file_is_asked(
    path: Path, how: str, *, first: bool
) -> None:
    with failing_commit(path, first=first) as (disk, journal, outcome):
        assert outcome.state == "unknown"
        at = 1 if first else 2
        assert outcome.positions == Appended(at, at + 1)
        with pytest.raises(CommitFailedError, match="the cause has not gone"):
            journal.resolve(outcome)
        disk.heal()

        if how == "the same journal":
            assert journal.resolve(outcome) == REJECTED
            assert journal.append_events([activated(ONE)]) == Appended(at, at)
        else:
            journal.close()
            if how == "another one":
                with Journal.open(path) as again:
                    assert again.resolve(outcome) == REJECTED
            else:
                assert support.run(resolve_there, path, outcome) == REJECTED
    assert len(rows(path)) == (how != "the same journal")  # of what was unknown when it closed


def resolve_there(_channel: Channel, path: Path, outcome: Outcome) -> Outcome:
    with Journal.open(path) as journal:
        for _ in range(3):
            journal.append_events([activated(ONE)])
        return journal.resolve(outcome)


def test_a_commit_that_took_is_committed_whoever_appends_afterwards(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        with held_up(journal):
            ticket = journal.submit([activated(TWO)] * 2)
        ticket.wait()
        number = journal._appender._writer.number
        outcome = Outcome("unknown", ticket.positions, journal._appender._writer.token, number)
        later = outcome._replace(number=number + 1)

        assert journal.resolve(outcome) == Outcome("committed", Appended(2, 3))
        assert journal.resolve(later) == REJECTED
        journal.append_events([activated(ONE)])
        assert journal.resolve(outcome) == Outcome("committed", Appended(2, 3))
        assert journal.resolve(ticket.outcome or REJECTED) == ticket.outcome
    with Journal.open(path) as journal:
        assert journal.resolve(outcome) == outcome  # the row went with the journal
    with Journal.open(path, read_only=True) as journal, pytest.raises(ReadOnlyError):
        journal.resolve(outcome)


def test_it_is_told_only_when_the_disk_has_it(path: Path) -> None:
    with FaultVFS() as disk, Journal.open(path, durability="normal") as journal:
        journal.append_events([activated(ONE)])
        outcome = journal._appender.attempt(Appended(1, 1))
        disk.fail("sync", times=math.inf)
        with pytest.raises(StorageError):
            journal.resolve(outcome)
        disk.heal()
        with contextlib.suppress(StorageError):  # each descriptor is told once of a failed sync
            journal.resolve(outcome)
        before = disk.syncs
        journal.append_events([activated(ONE)])

        assert journal.resolve(outcome).state == "committed"

        assert disk.syncs > before
        assert not Path(f"{path}-wal").stat().st_size


def test_after_a_commit_that_failed_the_journal_goes_on_when_the_disk_does(path: Path) -> None:
    outcomes = []
    with failing_commit(path) as (disk, journal, outcome):
        outcomes.append(outcome)
        with pytest.raises(CommitFailedError) as caught:
            journal.append_events([activated(ONE)])
        assert caught.value.outcome == REJECTED  # it was not tried
        for number in range(3):
            disk.heal()
            assert journal.append_events([activated(ONE)]).first == 2 + number
            assert journal.event_count() == 2 + number
            disk.fail("commit")
            with pytest.raises(CommitFailedError) as caught:
                journal.append_events([activated(TWO)])
            outcomes.append(caught.value.outcome)
        disk.heal()
        assert [journal.resolve(each) for each in outcomes] == [REJECTED] * 4
        assert len({each.token for each in outcomes}) == 4
    assert len(check_file(path, closed=True)) == 4


def test_all_of_a_batch_whose_commit_failed_are_told_apart_from_their_retries(path: Path) -> None:
    """A retry that succeeds must not make the first attempt look as if it had."""
    with FaultVFS() as disk, Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        with held_up(journal):
            tickets = [journal.submit([activated(TWO, number)]) for number in range(5)]
            disk.fail("sync", times=math.inf)
        assert results(tickets) == [CommitFailedError] * 5
        disk.heal()
        unknown = [ticket.outcome or REJECTED for ticket in tickets]
        assert len({(each.token, each.number) for each in unknown}) == 1

        again = [journal.submit([activated(TWO, number)]).wait() for number in range(5)]

        assert again == [each.positions for each in unknown]  # so positions cannot tell
        assert [journal.resolve(each) for each in unknown[:4]] == [REJECTED] * 4
    assert [token for _, token, *_ in rows(path)] == [unknown[4].token]  # nobody asked for one
    with Journal.open(path) as journal:
        assert journal.resolve(unknown[4]) == REJECTED


def test_a_writer_that_was_killed_leaves_its_row_and_others_theirs_alone(path: Path) -> None:
    support.Child(support.append_and_die, path, [activated(ONE)]).wait_until_killed()
    ((number, token, commit_no, last_seq),) = rows(path)
    outcome = Outcome("unknown", Appended(1, 1), token, commit_no)
    assert (number, last_seq) == (1, 1)
    for _ in range(2):
        with Journal.open(path) as first, Journal.open(path) as second:
            first.append_events([activated(ONE)])
            second.append_events([activated(ONE)])
            assert len(rows(path)) == 3
            assert second.resolve(outcome) == Outcome("committed", Appended(1, 1))
            assert second.resolve(outcome._replace(number=commit_no + 1)) == REJECTED
    assert [row[1] for row in rows(path)] == [token]


def test_no_more_than_the_newest_rows_are_kept_and_one_that_went_comes_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_ROWS_MAX", 3)
    with Journal.open(path) as old:
        old.append_events([activated(ONE)])
        journals = [Journal.open(path) for _ in range(5)]
        for journal in journals:
            journal.append_events([activated(ONE)])
        assert len(rows(path)) == 3
        old.append_events([activated(ONE)])
        outcome = old._appender.attempt(Appended(7, 7))
        assert old.resolve(outcome).state == "committed"
        for journal in journals:
            journal.close()
    assert rows(path) == []


def test_the_row_of_another_that_has_the_same_number_by_now_stays_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_ROWS_MAX", 2)
    with Journal.open(path) as old:
        for _ in range(2):
            old.append_events([activated(ONE)])
        journals = [Journal.open(path) for _ in range(3)]
        for journal in journals:
            journal.append_events([activated(ONE)])
        for journal in journals:
            journal.close()
        assert rows(path) == []
        with Journal.open(path) as another:
            another.append_events([activated(ONE)])
            ((number, token, commit_no, last_seq),) = rows(path)
            assert number == 1
            assert token != old._appender._writer.token
            for _ in range(3):
                old.append_events([activated(ONE)])
            assert rows(path)[0] == (number, token, commit_no, last_seq)
            assert rows(path)[1][1:] == (old._appender._writer.token, 5, 9)


def test_an_append_alone_takes_five_statements_one_of_them_for_the_row(path: Path) -> None:
    ran: list[str] = []

    def note(_cursor: Any, sql: str, _values: Any) -> bool:
        ran.append(" ".join(sql.split()[:2]))
        return True

    with Journal.open(path) as journal:
        for _ in range(3):
            journal.append_events([activated(ONE)])
        assert journal._database._writer is not None
        journal._database._writer.exec_trace = note
        journal.append_events([activated(ONE)])
        assert ran == ["BEGIN IMMEDIATE", "INSERT INTO", "INSERT INTO", "UPDATE writer", "COMMIT"]
        journal._database._writer.exec_trace = None


def test_a_file_of_an_earlier_version_gets_the_table(path: Path) -> None:
    Journal.open(path).close()
    with contextlib.closing(apsw.Connection(str(path))) as file:
        file.execute("DROP TABLE writer")
    with Journal.open(path, read_only=True) as journal:
        assert journal.event_count() == 0

    with Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        assert len(rows(path)) == 1


def test_a_row_that_says_no_number_is_damage(path: Path) -> None:
    outcome = Outcome("unknown", Appended(1, 1), "f" * 32, 1)
    Journal.open(path).close()
    with contextlib.closing(apsw.Connection(str(path))) as file:
        file.execute("INSERT INTO writer VALUES (1, ?, 'many', 0)", (outcome.token,))

    with Journal.open(path) as journal, pytest.raises(DamagedError, match="writer"):
        journal.resolve(outcome)


def test_a_copy_says_nothing_of_commits(path: Path, tmp_path: Path) -> None:
    """What was committed after it was made is not in it, and is not rejected for that."""
    with Journal.open(path) as journal:
        journal.append_events([activated(ONE)])
        token, number = journal._appender.attempt(Appended(1, 1))[2:]
        shipped = journal.ship(tmp_path / "shipped.db").path
        assert rows(shipped) == []
        shutil.copy(path, tmp_path / "damaged.db")
        shutil.copy(f"{path}-wal", tmp_path / "damaged.db-wal")
        recovered = recover(tmp_path / "damaged.db", tmp_path / "recovered.db").path
        assert rows(recovered) == []
        journal.append_events([activated(TWO)])  # the copies know nothing of it
    later = Outcome("unknown", Appended(2, 2), token, (number or 0) + 1)
    with contextlib.closing(apsw.Connection(str(shipped))) as file:  # as earlier versions made it
        file.execute("INSERT INTO writer VALUES (1, ?, ?, 1)", (token, number))

    for name, copy in (("one.db", shipped), ("two.db", recovered)):
        with Journal.open(continue_copy(copy, tmp_path / name).path) as journal:
            assert journal.resolve(later) == later


# Interrupts


def interrupt_appends(channel: Channel, path: Path, interrupts: int, neighbours: int) -> Any:
    """Append in the main thread, which is interrupted again and again; return what it was told."""
    is_armed = False

    def handler(*_: object) -> None:
        nonlocal is_armed
        if is_armed:
            is_armed = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    told: dict[int, str] = {}
    is_done = threading.Event()

    def neighbour() -> None:
        session = SessionId.new()
        while not is_done.is_set():
            journal.append_events([activated(session)])

    def interrupt() -> None:
        for number in range(interrupts):
            time.sleep(0.0005 + number % 11 / 5000)
            os.kill(os.getpid(), signal.SIGINT)

    with FaultVFS(), Journal.open(path) as journal:
        threads = [threading.Thread(target=neighbour) for _ in range(neighbours)]
        interrupting = threading.Thread(target=interrupt)
        for thread in (*threads, interrupting):
            thread.start()
        number = -1
        while interrupting.is_alive():
            number += 1
            told[number] = "not begun"
            try:
                is_armed = True
                journal.append_events([activated(ONE, number)])
                is_armed = False
                told[number] = "committed"
            except KeyboardInterrupt as error:
                outcome = getattr(error, "outcome", None)
                if outcome is not None:
                    told[number] = journal.resolve(outcome).state
        interrupting.join()
        is_done.set()
        for thread in threads:
            thread.join()
        there = {number_of(event) for event in journal.get_events_for_session(ONE)}
    return told, there


@pytest.mark.parametrize("neighbours", [0, 7])
def test_whoever_is_interrupted_knows_what_became_of_the_append(
    path: Path, neighbours: int
) -> None:
    told, there = support.run(interrupt_appends, path, 150 * support.ROUNDS, neighbours)

    states = list(told.values())
    for number, state in told.items():
        if state != "not begun":  # the interrupt came outside of append_events, or just at its edge
            assert state in ("committed", "rejected")
            assert (state == "committed") == (number in there), (number, state)
    assert "committed" in states
    assert states.count("rejected") + states.count("not begun") > 10
    assert states.count("not begun") < len(states) / 3
