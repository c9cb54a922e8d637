"""Retention: pruning by itself, a little at a time. Nothing that goes wrong fails an append."""

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from disks import Disk, io_error
from prune_support import BLOCK, check_against, check_closed, rows, small_blocks
from support import NOON, activated, lines_of, numbered, texts
from test_shared_commits import held_up, poison, results, wait_for

from journal import (
    DamagedError,
    Journal,
    Projection,
    Retention,
    SessionClosed,
    SessionId,
    StreamCreated,
    StreamFailed,
    StreamId,
    parse_event,
)
from journal.events import AnyEvent
from journal.events.records import encode
from journal.maintenance import retention, space
from journal.maintenance.pruning import Pruner
from journal.maintenance.space import pages_of

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

LINES = lines_of("mixed/events.ndjson")


def without_late_ones(lines: list[str]) -> list[AnyEvent]:
    """Leave out what comes after an end: under an id that is forgotten by then it would be new."""
    events, over = [], set()
    for event in map(parse_event, lines):
        if event.session_id not in over and event.stream_id not in over:
            events.append(event)
            if event.event_type in ("session_closed", "session_timed_out", "session_expired"):
                over.add(event.session_id)
            elif event.event_type in ("stream_completed", "stream_failed", "stream_cancelled"):
                over.add(event.stream_id)
    return events


EVENTS = without_late_ones(LINES)[:1_500]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def test_what_is_open_takes_as_much_as_the_readme_says(path: Path) -> None:
    sizes, count = [], 2_000
    keeping = Retention(keep_bytes=100_000)
    with Journal.open(path, durability="normal", retention=keeping) as journal:
        for _ in range(2):
            for _ in range(count):
                session, stream = SessionId.new(), StreamId.new()
                created = StreamCreated(session_id=session, stream_id=stream, timestamp=NOON)
                journal.append_events([activated(session), created])
            journal.prune(keep_bytes=100_000)
            assert journal.event_count() == 0
            sizes.append(pages_of(journal.connection()).used_bytes)
    assert sizes[0] > 100_000
    assert (sizes[1] - sizes[0]) / (2 * count) == pytest.approx(400, rel=0.15)


def test_a_key_takes_as_much_as_the_readme_says(path: Path) -> None:
    sizes, count = [], 1_500
    keeping = Retention(keep_events=BLOCK)
    with Journal.open(path, durability="normal", retention=keeping) as journal:
        session = SessionId.new()
        for first in (0, count):
            for at in range(first, first + count):
                journal.append_events([activated(session)], key=f"order-{at}")
            journal.prune(keep_events=0)
            sizes.append(pages_of(journal.connection()).used_bytes)
    assert (sizes[1] - sizes[0]) / count == pytest.approx(120, rel=0.15)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "whole.db", durability="normal") as journal:
        yield journal


def begun_and_ended(session_id: SessionId, second: float) -> list[AnyEvent]:
    """Return the events of a session that ends at once."""
    end = SessionClosed(session_id=session_id, timestamp=NOON + timedelta(seconds=second))
    return [activated(session_id, second), end]


ENDED = [begun_and_ended(SessionId.new(), number) for number in range(300)]


def cut_of(journal: Journal) -> int:
    return next(iter(journal.read()), (journal.last_position + 1,))[0] - 1


def appended(journal: Journal, events: list[AnyEvent], size: int) -> list[int]:
    """Append in batches, and return how many events the journal has after each."""
    counts = []
    for first in range(0, len(events), size):
        journal.append_events(events[first : first + size])
        assert journal.retention_failure is None
        counts.append(journal.event_count())
    return counts


@pytest.mark.parametrize("size", [1, 7, 50, 70, 400])
def test_no_more_is_kept_than_the_rule_says_and_what_a_block_has(
    path: Path, whole: Journal, size: int
) -> None:
    events = EVENTS[: 300 if size == 1 else 1_500]
    whole.append_events(events)
    with Journal.open(path, durability="normal", retention=Retention(keep_events=120)) as journal:
        counts = appended(journal, events, size)
        assert max(counts) < 120 + 2 * BLOCK + size
        assert 120 <= counts[-1] < 120 + 2 * BLOCK
        check_against(journal, whole, cut_of(journal))
    check_closed(path)


def test_lines_are_pruned_as_they_come(path: Path, whole: Journal) -> None:
    lines = texts(EVENTS)
    whole.append_ndjson(lines)
    with Journal.open(path, durability="normal", retention=Retention(keep_events=120)) as journal:
        journal.append_ndjson(lines)
        assert journal.retention_failure is None
        assert journal.event_count() < 120 + 2 * BLOCK
        check_against(journal, whole, cut_of(journal))
    check_closed(path)


def test_by_age_and_by_size(path: Path) -> None:
    with Journal.open(path, retention=Retention(keep_age=timedelta(days=1))) as journal:
        appended(journal, EVENTS[:120], 30)
        assert journal.event_count() == 120 - 100  # they are of another year
    with Journal.open(path, retention=Retention(keep_bytes=300_000)) as journal:
        appended(journal, EVENTS, 50)
        assert path.stat().st_size <= 330_000 or journal.event_count() < BLOCK
    check_closed(path)


def test_a_file_with_much_to_prune_is_brought_down_in_steps(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events(EVENTS)
    with Journal.open(path, retention=Retention(keep_events=100)) as journal:
        retention_steps = 0
        while journal.event_count() > 200:
            before = journal.event_count()
            journal.append_events(EVENTS[:1])
            assert journal.event_count() <= before + 1
            retention_steps += 1
        assert journal.retention_failure is None
    check_closed(path)


@pytest.fixture
def much(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with much in it, to which each append makes as few steps as it may."""
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)
    with Journal.open(path) as journal:
        journal.append_events(EVENTS)
    return path


def test_one_append_makes_one_step_while_little_is_left_to_do(much: Path) -> None:
    with Journal.open(much, retention=Retention(keep_events=1_350)) as journal:
        for number in range(1, 16):  # one to fold a block, three to make its cut ready, one to cut
            journal.append_events(EVENTS[:1])
            assert cut_of(journal) == number // 5 * BLOCK
        journal.append_events(EVENTS[:220])
        assert cut_of(journal) == (3 + 4) * BLOCK  # all that it has given away
    check_closed(much)


def test_one_append_makes_one_cut_while_much_is_left_to_do(much: Path) -> None:
    with Journal.open(much, retention=Retention(keep_events=100)) as journal:
        for number in range(1, 10):
            journal.append_events(EVENTS[:1])
            assert cut_of(journal) == number * BLOCK
    check_closed(much)


@pytest.mark.parametrize("keep_open", [False, True])
def test_handles_that_append_once_keep_no_more(path: Path, *, keep_open: bool) -> None:
    """What such a handle has made ready is lost when it is closed."""
    keeping = Retention(keep_events=100, keep_open=keep_open)
    for first in range(0, len(ENDED), 5):
        events = [event for some in ENDED[first : first + 5] for event in some]
        with Journal.open(path, durability="normal", retention=keeping) as journal:
            journal.append_events(events)
            assert journal.event_count() < 100 + 5 * BLOCK
    check_closed(path)


@pytest.mark.parametrize("size", [5, 250])
def test_many_projections_do_not_make_it_fall_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)
    with Journal.open(path, retention=Retention(keep_events=100)) as journal:
        for number in range(12):
            journal.register(Projection(str(number), 1, 0, lambda state, _: state + 1))
        assert max(appended(journal, EVENTS[:1_000], size)) < 100 + size + 5 * BLOCK
    check_closed(path)


def test_open_sessions_and_names_hold_it_back_if_that_is_wanted(path: Path) -> None:
    is_open = SessionId.new()
    with Journal.open(path) as journal:
        journal.append_events([activated(is_open)])
        with journal._database.write() as connection:
            connection.execute("INSERT INTO checkpoint VALUES ('reader', 'subscription', 1, 60, 1)")
    others = numbered(SessionId.new(), range(600))
    keep_open = Retention(keep_events=10, keep_open=True, give_up=("reader",))
    with Journal.open(path, retention=keep_open) as journal:
        assert appended(journal, others[:300], 60)[-1] == 301
    with Journal.open(path, retention=Retention(keep_events=10)) as journal:
        assert appended(journal, others[:60], 60)[-1] == 361 - 50
    with Journal.open(path, retention=Retention(keep_events=10, give_up=("reader",))) as journal:
        assert appended(journal, others, 60)[-1] < 10 + 2 * BLOCK
    check_closed(path)


def test_what_each_append_brings_does_not_put_it_off(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a session is open is known once all is folded, and each append brings new events."""
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)  # as if every step took longer
    with Journal.open(path, retention=Retention(keep_events=100, keep_open=True)) as journal:
        appended(journal, [event for events in ENDED for event in events], 5)
        assert journal.event_count() < 100 + 3 * BLOCK
    check_closed(path)


def test_what_another_version_folded_does_not_tell_which_sessions_are_open(path: Path) -> None:
    with Journal.open(path) as journal:
        for events in ENDED[:150]:
            journal.append_events(events)
        assert len(journal.sessions()) == 150
    with closing(apsw.Connection(str(path))) as file:
        file.execute("UPDATE checkpoint SET version = 0 WHERE type = 'projection'")
    is_open = [activated(SessionId.new()) for _ in range(100)]
    with Journal.open(path) as journal:
        journal.append_events(is_open)
    others = numbered(SessionId.new(), range(600))
    with Journal.open(path, retention=Retention(keep_events=10, keep_open=True)) as journal:
        for event in others:
            journal.append_events([event])
            assert cut_of(journal) <= 300
        assert cut_of(journal) == 300
        assert sum(session.state == "Active" for session in journal.sessions()) == 101
    check_closed(path)


def test_keys_are_forgotten_by_age(path: Path) -> None:
    keeping = Retention(keep_events=10, forget_keys_older_than=timedelta(0))
    with Journal.open(path, retention=keeping) as journal:
        for number in range(10):
            journal.append_events(EVENTS[number * 30 : number * 30 + 30], key=str(number))
        assert journal.retention_failure is None
    left = {key for (key,) in rows(path, "SELECT key FROM append_key")}
    assert "9" in left
    assert not left & {"0", "1", "2", "3", "4"}


def test_an_applications_projection_is_kept_up(path: Path, whole: Journal) -> None:
    counts: Projection[int] = Projection("counts", 1, 0, lambda state, _: state + 1)
    whole.append_events(EVENTS)
    with Journal.open(path, retention=Retention(keep_events=100)) as journal:
        journal.register(counts)
        appended(journal, EVENTS, 70)
        assert journal.event_count() < 200
        assert journal.state("counts") == 1_500
        (report,) = journal.rebuild(["counts"], check=True)
        assert (report.since, report.change_count) == (1, 0)
    check_closed(path)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"keep_events": 1, "keep_bytes": 1},
        {"keep_events": -1},
        {"keep_age": 5},
        {"keep_events": 1, "forget_keys_older_than": 1},
    ],
)
def test_what_is_no_retention_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Retention(**values)


def test_what_is_none_at_all_is_refused(path: Path) -> None:
    with pytest.raises(TypeError, match="retention: expected a Retention, found 5"):
        Journal.open(path, retention=5)  # type: ignore[arg-type]
    assert not path.exists()


def test_a_file_that_is_only_read_has_none(path: Path) -> None:
    Journal.open(path).close()
    with pytest.raises(ValueError, match="retention"):
        Journal.open(path, read_only=True, retention=Retention(keep_events=1))


def test_threads_that_share_commits_are_pruned_after_them(path: Path) -> None:
    with Journal.open(path, durability="normal", retention=Retention(keep_events=100)) as journal:

        def append() -> None:
            session = SessionId.new()
            for first in range(0, 300, 10):
                journal.append_events(numbered(session, range(first, first + 10)))

        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        tickets = [journal.submit(EVENTS[first : first + 10]) for first in range(0, 300, 10)]
        for thread in threads:
            thread.join()
        for ticket in tickets:
            assert ticket.wait().first
        assert journal.last_position == 1500
        for _ in range(100):  # whoever did not get the lock in time leaves it to the next ones
            journal.append_events(EVENTS[:10])
        assert journal.retention_failure is None
        assert journal.event_count() < 100 + 3 * BLOCK
        assert journal.rebuild(check=True)[0].change_count == 0
    check_closed(path)


def test_a_batch_that_falls_apart_is_pruned_after_as_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(path, durability="normal", retention=Retention(keep_events=100)) as journal:
        journal.append_events(EVENTS[:10])
        told: list[tuple[int, int]] = []
        monkeypatch.setattr(journal._commits, "after_commit", lambda *it: told.append(it))
        bad = SessionId.new()
        with held_up(journal):
            tickets = [journal.submit(EVENTS[:10]), journal.submit(numbered(bad, [1, 2]))]
            poison(monkeypatch, bad)
        assert results(tickets) == [(11, 20), DamagedError]
        wait_for(lambda: not journal._commits._committing)
        size = sum(len(record[4] or "") for record in encode(EVENTS[:10]))
        assert told == [(10, size)]


# What goes wrong


def failing(*_: Any, **__: Any) -> None:
    raise LookupError("no")


def test_whatever_goes_wrong_fails_no_append_and_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(path, retention=Retention(keep_events=100)) as journal:
        monkeypatch.setattr("journal.maintenance.cutting.move_bases", failing)
        for first in range(0, 600, 60):
            assert journal.append_events(EVENTS[first : first + 60]) == (first + 1, first + 60)
        assert isinstance(journal.retention_failure, LookupError)
        assert journal.event_count() == 600
        monkeypatch.undo()
        small_blocks(monkeypatch)
        appended(journal, EVENTS[600:], 60)
        assert journal.event_count() < 200
    check_closed(path)


def test_a_projection_that_fails_holds_it_back(path: Path) -> None:
    bad: Projection[int] = Projection("bad", 1, 0, failing)
    with Journal.open(path, retention=Retention(keep_events=100)) as journal:
        journal.register(bad)
        with journal._database.write() as connection:
            connection.execute("INSERT INTO checkpoint VALUES ('bad', 'projection', 1, 0, 1)")
        assert appended(journal, EVENTS[:600], 60)[-1] == 600
    check_closed(path)


def test_who_else_writes_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_WAIT_MS", 1)
    with (
        Journal.open(path, retention=Retention(keep_events=10)) as journal,
        Journal.open(path) as other,
    ):
        cut_once = journal._retainer._pruner.cut_once  # type: ignore[union-attr]
        begun, done = threading.Event(), threading.Event()

        def hold() -> None:
            with other._database.write():
                begun.set()
                done.wait(20)

        def while_held(*arguments: Any, **options: Any) -> Any:
            holder = threading.Thread(target=hold)
            holder.start()
            begun.wait(20)
            try:
                return cut_once(*arguments, **options)
            finally:
                done.set()
                holder.join()

        monkeypatch.setattr(journal._retainer._pruner, "cut_once", while_held)  # type: ignore[union-attr]
        assert journal.append_events(EVENTS[:120]) == (1, 120)
        assert type(journal.retention_failure).__name__ == "BusyError"
        monkeypatch.undo()
        small_blocks(monkeypatch)
        appended(journal, EVENTS[120:240], 60)
        assert journal.event_count() < 10 + 2 * BLOCK
    check_closed(path)


def test_an_operation_of_the_disk_that_fails_while_it_prunes_fails_no_append(
    tmp_path: Path,
) -> None:
    """Each operation after the append's own commit fails once; the next appends succeed."""
    for number in range(1, 60, 3):
        path = tmp_path / f"{number}.db"
        with Disk() as disk:
            journal = Journal.open(path, retention=Retention(keep_events=50))
            journal.append_events(EVENTS[:40])
            after_append = journal._commits.after_commit
            assert after_append is not None
            count = [0]

            def fail_once(what: str, *_: Any) -> None:
                count[0] += 1
                if count[0] == number:
                    raise io_error(what)

            def watched(event_count: int, data_size: int) -> None:
                disk.before = fail_once
                try:
                    after_append(event_count, data_size)
                finally:
                    disk.before = lambda *_: None

            journal._commits.after_commit = watched
            for first in range(40, 400, 60):
                expected = (first + 1, first + 60)
                assert journal.append_events(EVENTS[first : first + 60]) == expected
            journal.close()
        assert count[0] >= number
        check_closed(path)
        assert len(rows(path, "SELECT seq FROM event")) < 200


def test_large_events_are_pruned_as_fast_as_they_come(tmp_path: Path) -> None:
    """A block that is full by the size of its data takes as many steps as one of many events."""
    session = SessionId.new()
    text = "x" * 100_000
    for name, keeping, most in (
        ("bytes", Retention(keep_bytes=5_000_000), 60),
        ("events", Retention(keep_events=20), 50),
    ):
        path = tmp_path / name
        with Journal.open(path, durability="normal", retention=keeping) as journal:
            for _ in range(30):
                failed = [
                    StreamFailed(
                        session_id=session, stream_id=StreamId.new(), timestamp=NOON, error=text
                    )
                    for _ in range(10)
                ]
                journal.append_events(failed)
                assert journal.retention_failure is None
            assert journal.event_count() <= most
        check_closed(path)


@pytest.mark.parametrize("names", ["reader", 7, (7,), ("reader", None)])
def test_what_are_no_names_is_refused(names: Any) -> None:
    with pytest.raises(TypeError, match="give_up: expected several names"):
        Retention(keep_events=1, give_up=names)


def test_a_span_may_be_longer_than_time(path: Path) -> None:
    for days in (5_000 * 365, timedelta.max.days):
        keeping = Retention(keep_events=10, forget_keys_older_than=timedelta(days=days))
        with Journal.open(path, retention=keeping) as journal:
            journal.append_events(EVENTS[:120], key=str(days))
            assert journal.retention_failure is None
    assert len(rows(path, "SELECT key FROM append_key")) == 2


def test_an_interrupt_in_retention_knows_that_the_append_is_committed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with Journal.open(path, retention=Retention(keep_events=20)) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(Pruner, "cut_once", interrupted)
            with pytest.raises(KeyboardInterrupt) as raised:
                journal.append_events(EVENTS[:120])
        outcome = raised.value.outcome  # type: ignore[attr-defined]
        assert (outcome.state, outcome.positions) == ("committed", (1, 120))
        assert journal.event_count() == 120
        appended(journal, EVENTS[120:140], 1)  # they seal no block: what was due is still due
        assert cut_of(journal) == 2 * BLOCK
    check_closed(path)


def test_a_file_that_is_large_already_is_brought_down_to_its_size(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a few steps for each block, and a few pages are given back with each append."""
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)
    monkeypatch.setattr(space, "PAGES_AT_ONCE", 3)
    session, text = SessionId.new(), "x" * 2_000
    events: list[AnyEvent] = [
        StreamFailed(session_id=session, stream_id=StreamId.new(), error=text, timestamp=NOON)
        for _ in range(1_000)
    ]
    with Journal.open(path, durability="normal") as journal:
        journal.append_events(events)
    wanted = path.stat().st_size // 4
    with Journal.open(path, durability="normal", retention=Retention(keep_bytes=wanted)) as journal:
        for _ in range(1_000 // BLOCK * 4 + pages_of(journal.connection()).page_count // 3):
            journal.append_events(events[:1])
            assert journal.retention_failure is None
        assert pages_of(journal.connection()).file_bytes <= wanted * 1.1
        assert journal.event_count() > 100
    assert path.stat().st_size <= wanted * 1.1
    check_closed(path)
