"""Pruning: what goes, what is forgotten, what stays, and what comes back."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from commands_support import run_here
from prune_support import BLOCK, check_against, check_closed, rows, small_blocks
from support import NOON, activated, fold_in_steps, lines_of, made_once, numbered, started

from journal import (
    DamagedError,
    FoldError,
    Journal,
    Projection,
    PrunedError,
    ReadOnlyError,
    Retention,
    SessionClosed,
    SessionId,
    StreamCreated,
    StreamFailed,
    StreamId,
    StreamStarted,
    Timestamp,
    parse_event,
)
from journal.events import AnyEvent
from journal.maintenance import pruning
from journal.projections import listing, rebuilding

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

LINES = lines_of("mixed/events.ndjson")[:620]
EVENTS = [parse_event(line) for line in LINES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def make(path: Path) -> None:
    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(LINES)


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(made_once(path, "pruning", make), durability="normal") as journal:
        yield journal
    check_closed(path)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Journal]:
    path = made_once(tmp_path / "whole.db", "pruning", make)
    with Journal.open(path, durability="normal") as journal:
        yield journal


@pytest.mark.parametrize("is_folded", [True, False])
@pytest.mark.parametrize("cuts", [[251], [51, 101, 301], [601], [251, 621]])
def test_a_pruned_journal_answers_as_a_whole_one(
    journal: Journal, whole: Journal, cuts: list[int], is_folded: bool
) -> None:
    if is_folded:
        journal.sessions()
    cut = 0
    for before in cuts:
        report = journal.prune(before=before)
        expected = before - 1 if before > 620 else (before - 1) // BLOCK * BLOCK
        assert report.event_count == expected - cut
        assert report.counts_by_kind == Counter(event.event_type for event in EVENTS[cut:expected])
        cut = expected
        assert report.first_position == cut + 1
        assert report.events_left == 620 - cut
        assert report.erased
        check_against(journal, whole, cut)
    open_sessions = {one.session_id for one in journal.sessions("Active")}
    late = [e for e in EVENTS if e.session_id in open_sessions and e.stream_id is None]
    assert late
    for other in (journal, whole):
        other.append_events(late)
    check_against(journal, whole, cut)


def test_what_is_forgotten_has_ended_and_has_no_events_left(
    journal: Journal, whole: Journal, path: Path
) -> None:
    report = journal.prune(before=401)

    left = {event.session_id for event in EVENTS[400:]}
    before = whole.sessions(as_of=400)
    gone = [
        one for one in before if one.state in ("Completed", "Failed") and one.session_id not in left
    ]
    assert report.sessions_forgotten == Counter(one.state.value for one in gone)
    assert sum(report.sessions_forgotten.values()) > 5
    assert {one.session_id for one in journal.sessions()} == {
        one.session_id for one in whole.sessions()
    } - {one.session_id for one in gone}
    streams_left = {event.stream_id for event in EVENTS[400:]}
    streams_gone = [
        one
        for one in whole.streams(as_of=400)
        if one.state not in ("Preparing", "Streaming") and one.stream_id not in streams_left
    ]
    assert report.streams_forgotten == Counter(one.state.value for one in streams_gone)
    assert all(journal.version(one.session_id) == 0 for one in gone)
    assert all(journal.session(one.session_id) is None for one in gone)
    ((forgotten,),) = rows(path, "SELECT forgotten FROM absent")
    assert json.loads(forgotten) == {
        "sessions": report.sessions_forgotten,
        "streams": report.streams_forgotten,
    }
    assert (report.sessions_left, report.streams_left) == rows(
        path, "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM stream)"
    )[0]


# The rules


def ended(session: SessionId, second: float) -> SessionClosed:
    return SessionClosed(session_id=session, timestamp=NOON + timedelta(seconds=second))


def cut_of(journal: Journal) -> int:
    return next(iter(journal.read()), (journal.last_position + 1,))[0] - 1


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ({"before": 0}, 0),
        ({"before": 50}, 0),
        ({"before": 51}, 50),
        ({"before": 10_000}, 620),
        ({"keep_events": 10_000}, 0),
        ({"keep_events": 570}, 50),
        ({"keep_events": 571}, 0),
        ({"keep_events": 0}, 620),
        ({"keep_events": 20}, 600),
        ({"keep_events": 19}, 600),
        ({"keep_bytes": 10**9}, 0),
        ({"keep_bytes": 0}, 620),
        ({"keep_age": timedelta(0)}, 620),
        ({"keep_age": timedelta(days=400_000)}, 0),
    ],
)
def test_whole_blocks_go_that_a_rule_gives_away(
    journal: Journal, options: dict[str, Any], cut: int
) -> None:
    planned = journal.prune(**options, dry_run=True)
    assert cut_of(journal) == 0
    assert journal.prune(**options).event_count == planned.event_count == cut
    assert cut_of(journal) == cut
    assert journal.prune(**options).event_count == 0
    journal.append_events(EVENTS[:3])
    assert [one.position for one in journal.read(after=620)] == [621, 622, 623]


def large(journal: Journal) -> None:
    """Append events of a kilobyte each, of sessions that end."""
    for _ in range(600 // BLOCK):
        session = SessionId.new()
        failed = [
            StreamFailed(
                session_id=session, stream_id=StreamId.new(), error="x" * 900, timestamp=NOON
            )
            for _ in range(BLOCK - 2)
        ]
        journal.append_events([activated(session), *failed, ended(session, 1)])


def test_by_size_no_more_goes_than_it_takes(path: Path) -> None:
    with Journal.open(path) as journal:
        large(journal)
        size = journal.prune(before=0).file_bytes
        assert journal.prune(keep_bytes=size).event_count == 0
        for wanted in (size * 9 // 10, size // 2):
            planned = journal.prune(keep_bytes=wanted, dry_run=True)
            report = journal.prune(keep_bytes=wanted)
            assert 0 < report.event_count < 450
            assert abs(report.event_count - planned.event_count) <= 100
            assert wanted * 3 // 4 < report.file_bytes == path.stat().st_size <= wanted
            assert report.returned_bytes > 0
            assert journal.prune(keep_bytes=wanted).event_count == 0
    check_closed(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"before": 5, "keep_events": 3},
        {"before": -1},
        {"before": True},
        {"before": "5"},
        {"before": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"keep_events": -1},
        {"keep_events": 1.5},
        {"keep_bytes": "5"},
        {"keep_age": 5},
        {"keep_age": timedelta(-1)},
        {"before": 5, "forget_keys_older_than": 5},
        {"before": 5, "give_up": ["nobody"]},
    ],
)
def test_what_is_no_rule_is_refused_and_changes_nothing(
    journal: Journal, options: dict[str, Any]
) -> None:
    for dry_run in (False, True):
        with pytest.raises(ValueError, match=r"expected|no projection or subscription|UTC offset"):
            journal.prune(**options, dry_run=dry_run)
    assert cut_of(journal) == 0


def seconds_ago(*ages: float) -> list[AnyEvent]:
    """Return blocks of events, each so many seconds old."""
    now_ns = time.time_ns()
    return [
        activated(SessionId.new()).model_copy(
            update={"timestamp": Timestamp.from_epoch_ns(now_ns - int(age * 10**9) + number)}
        )
        for age in ages
        for number in range(BLOCK)
    ]


@pytest.mark.parametrize(
    ("ages", "blocks_gone"),
    [
        ([100, 90, 80, 5, 4], 3),
        ([100, 5, 90, 80, 4], 1),  # it is as old as what came before
        ([100, 10**9, 90, 5, 4], 3),  # the clock was in 1994 for a while
        ([100, -(10**8), 90, 5, 4], 3),  # or in the future
        ([-(10**8), 100, 90, 5, 4], 3),  # even at the beginning
        ([-(10**8), 5, 4, 3, 2], 0),
        ([-(10**8)] * 5, 0),
        ([100, 90, 80, 70, 60], 5),
        ([10**9, 10**9, 5, 4, 3], 2),
    ],
)
def test_the_age_of_a_block_is_the_latest_time_before_it_that_is_not_in_the_future(
    path: Path, ages: list[float], blocks_gone: int
) -> None:
    with Journal.open(path) as journal:
        journal.append_events(seconds_ago(*ages))
        assert journal.prune(keep_age=timedelta(seconds=50)).block_count == blocks_gone
        assert cut_of(journal) == BLOCK * blocks_gone
        before = Timestamp.from_epoch_ns(time.time_ns() - 50 * 10**9)
        assert journal.prune(before=before).block_count == 0
    check_closed(path)


def test_a_clock_that_falls_back_makes_nothing_old_also_after_pruning(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events(seconds_ago(5, 10**9, 10**9))
        assert journal.prune(before=BLOCK + 1).block_count == 1
        assert journal.prune(keep_age=timedelta(seconds=50)).block_count == 0


# What holds it back


def checkpoint(path: Path, name: str, position: int, kind: str = "subscription") -> None:
    rows(path, "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, 1, ?, 1)", name, kind, position)


@pytest.mark.parametrize("kind", ["subscription", "projection"])
def test_nothing_goes_that_somebody_has_not_taken(journal: Journal, path: Path, kind: str) -> None:
    checkpoint(path, "reader", 149, kind)
    checkpoint(path, "other", 300, kind)
    for dry_run in (True, False):
        report = journal.prune(keep_events=0, dry_run=dry_run)
        assert (report.event_count, report.held_by, report.held_at) == (100, "reader", 149)
    assert journal.prune(keep_events=0).event_count == 0
    report = journal.prune(keep_events=0, give_up=["reader"])
    assert (report.event_count, report.held_by) == (200, "other")
    report = journal.prune(keep_events=0)
    assert (report.event_count, report.held_by) == (0, "reader")  # it was given up that once
    report = journal.prune(before=301, give_up=["reader"])
    assert (report.event_count, report.held_by) == (0, None)
    with pytest.raises(PrunedError) as error:
        next(journal.read(after=149))
    assert error.value.first == 301
    assert journal.prune(keep_events=0, give_up=["reader", "other"]).event_count == 320


def test_keep_open_stops_at_the_first_event_of_an_open_session(path: Path) -> None:
    over, is_open, later = SessionId.new(), SessionId.new(), SessionId.new()
    with Journal.open(path) as journal:
        journal.append_events(
            [
                activated(over),
                *numbered(over, range(150)),
                activated(is_open),
                *numbered(later, range(200)),
                ended(over, 900),
                ended(later, 901),
            ]
        )
        for dry_run in (True, False):
            report = journal.prune(keep_events=0, keep_open=True, dry_run=dry_run)
            assert (report.event_count, report.held_by) == (150, str(is_open))
            assert report.held_at == 151
        assert journal.prune(keep_events=0, keep_open=True).event_count == 0
        journal.append_events([ended(is_open, 902)])
        report = journal.prune(keep_events=0, keep_open=True)
        assert (report.event_count, report.held_by) == (205, None)
        assert report.sessions_forgotten == {"Completed": 3}
    check_closed(path)


def test_events_of_open_sessions_go_and_their_states_stay(path: Path) -> None:
    session, stream = SessionId.new(), StreamId.new()
    created = StreamCreated(session_id=session, stream_id=stream, timestamp=NOON)
    with Journal.open(path) as journal:
        journal.append_events([activated(session), created])
        state, of_stream = journal.session(session), journal.stream(stream)
        report = journal.prune(keep_events=0)
        assert (report.sessions_left, report.streams_left) == (1, 1)
        assert report.sessions_forgotten == {}
        assert (journal.session(session), journal.stream(stream)) == (state, of_stream)
        assert journal.get_events_for_session(session) == []
        assert journal.version(session) == 2
        journal.append_events([ended(session, 5)], expected_versions={session: 2})
        found = journal.stream(stream)
        assert found is not None
        assert (found.state, found.ended_at) == ("Cancelled", NOON + timedelta(seconds=5))
        report = journal.prune(keep_events=0)
        assert report.sessions_forgotten == {"Completed": 1}
        assert report.streams_forgotten == {"Cancelled": 1}
        assert (journal.sessions(), journal.streams(), journal.version(session)) == ([], [], 0)
    check_closed(path)


def test_what_comes_late_under_a_forgotten_id_is_new(path: Path) -> None:
    session, stream, other = SessionId.new(), StreamId.new(), SessionId.new()
    with Journal.open(path) as journal, Journal.open(path) as elsewhere:
        made = [
            activated(session),
            StreamCreated(session_id=session, stream_id=stream, timestamp=NOON),
        ]
        for appender in (journal, elsewhere):  # both know their heads
            appender.append_events(made)
        journal.append_events([ended(session, 5), activated(other)])
        assert journal.prune(keep_events=0).sessions_forgotten == {"Completed": 1}
        keys = rows(path, "SELECT value FROM meta WHERE key LIKE '%mark' ORDER BY key")
        assert keys == [("2",), ("1",)]
        for number, appender in enumerate((elsewhere, journal), 1):
            appended = appender.append_events(
                [activated(session)], expected_versions={session: number - 1}
            )
            assert appended == (6 + number, 6 + number)
            assert journal.version(session) == number
        found = journal.session(session)
        assert found is not None
        assert (found.event_count, found.total_streams) == (2, 0)
        assert rows(path, "SELECT DISTINCT session, session_prev FROM event") == [(3, None), (3, 7)]
        assert journal.rebuild(check=True)[0].change_count == 0
    check_closed(path)


def test_a_session_lives_as_long_as_a_stream_of_its_own_has_events(path: Path) -> None:
    """The stream is named under another session, so none of its own events is left."""
    owner, other, stream = SessionId.new(), SessionId.new(), StreamId.new()
    with Journal.open(path) as journal, Journal.open(path.parent / "whole.db") as whole:
        first = [
            activated(owner),
            StreamCreated(session_id=owner, stream_id=stream, timestamp=NOON),
            activated(other),
            ended(owner, 1),
            *numbered(other, range(46)),
        ]
        late = [StreamStarted(session_id=other, stream_id=stream, timestamp=NOON)]
        for each in (journal, whole):
            each.append_events(first + late)
        report = journal.prune(before=51)
        assert (report.event_count, report.sessions_forgotten) == (50, {})
        check_against(journal, whole, 50)
        for position in (50, 51):
            assert journal.session(owner, as_of=position) == whole.session(owner, as_of=position)
            found = journal.streams(owner, as_of=position)
            assert found == whole.streams(owner, as_of=position) != []
            assert journal.stream(stream, as_of=position) == found[0]
        for each in (journal, whole):  # the owner has ended, and its stream lives again
            each.append_events(late)
        check_against(journal, whole, 50)
        report = journal.prune(keep_events=0)
        assert report.sessions_forgotten == {"Completed": 1}
        assert report.streams_forgotten == {"Streaming": 1}  # it goes with its session
    check_closed(path)


# An application's projections


def counting(version: int = 1) -> Projection[dict[str, int]]:
    return Projection(
        name="counts",
        version=version,
        initial={"events": 0},
        apply=lambda state, _: {"events": state["events"] + 1},
        key=lambda event: event.session_id,
    )


def test_a_registered_projection_is_brought_up_and_gets_a_base(
    journal: Journal, whole: Journal
) -> None:
    for each in (journal, whole):
        each.register(counting())
    assert journal.prune(before=301).event_count == 300
    status = {one.name: one.position for one in journal.projections()}
    assert status["counts"] >= 300
    assert journal.prune(before=401).event_count == 100
    assert journal.states("counts") == whole.states("counts")
    (report,) = journal.rebuild(["counts"], check=True)
    assert (report.since, report.change_count) == (1, 0)
    (report,) = journal.rebuild(["counts"])
    assert journal.states("counts") == whole.states("counts")


def test_a_projection_that_is_not_registered_keeps_its_states_and_a_rebuild_says_since(
    journal: Journal, whole: Journal, path: Path
) -> None:
    with Journal.open(path) as application:
        application.register(counting())
        states = application.states("counts")
        application.prune(before=101)
        assert rows(path, "SELECT projection FROM base")[0] == ("counts",)
    report = journal.prune(keep_events=100)
    assert (report.event_count, report.held_by) == (400, None)
    assert rows(path, "SELECT * FROM base_state") == []
    whole.append_events(EVENTS[:5])
    journal.append_events(EVENTS[:5])
    with Journal.open(path) as application:
        application.register(counting())
        whole.register(counting())
        assert application.states("counts") == whole.states("counts") != states
        (report_,) = application.rebuild(["counts"])
        assert report_.since == 501
        assert sum(state["events"] for state in application.states("counts").values()) == 125


def test_a_projection_that_fails_holds_back_until_it_is_given_up(journal: Journal) -> None:
    def fail(state: int, event: AnyEvent) -> int:
        if state == 120:
            raise LookupError(event)
        return state + 1

    journal.register(Projection(name="failing", version=1, initial=0, apply=fail))
    with pytest.raises(FoldError):
        journal.state("failing")
    report = journal.prune(keep_events=0)
    assert (report.event_count, report.held_by) == (100, "failing")
    report = journal.prune(keep_events=0, give_up=["failing"])
    assert (report.event_count, report.held_by) == (520, None)


# Keys


def test_keys_of_pruned_events_are_kept_unless_told_to_forget(journal: Journal, path: Path) -> None:
    appended = journal.append_events(EVENTS[:10], key="old")
    journal.append_events([], key="empty")
    journal.append_events(EVENTS[:40], key="new")
    rows(path, "UPDATE append_key SET used_at = used_at - 3600000000000 WHERE key <> 'new'")
    assert journal.prune(keep_events=0).keys_forgotten == 0
    assert journal.append_events(EVENTS[:10], key="old") == appended
    for age, count in ((timedelta(hours=2), 0), (timedelta(minutes=30), 2), (timedelta(0), 1)):
        planned = journal.prune(keep_events=0, forget_keys_older_than=age, dry_run=True)
        report = journal.prune(keep_events=0, forget_keys_older_than=age)
        assert report.keys_forgotten == planned.keys_forgotten == count
    journal.append_events(EVENTS[:10], key="here")
    options = {"before": 1, "forget_keys_older_than": timedelta(0)}
    assert journal.prune(**options).keys_forgotten == 0


def test_keys_may_be_kept_for_longer_than_time(journal: Journal) -> None:
    journal.append_events(EVENTS[:10], key="old")
    for days in (5_000 * 365, timedelta.max.days):
        span = timedelta(days=days)
        for dry_run in (True, False):
            report = journal.prune(keep_events=0, forget_keys_older_than=span, dry_run=dry_run)
            assert report.keys_forgotten == 0


@pytest.mark.parametrize("keep_open", [False, True])
def test_a_dry_run_tells_its_progress(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, keep_open: bool
) -> None:
    fold_in_steps(monkeypatch, 100)
    events = numbered(SessionId.new(), range(BLOCK * 4))
    told: list[tuple[int, int]] = []
    with Journal.open(path) as journal:
        journal.append_events([SessionClosed(session_id=SessionId.new(), timestamp=NOON)] * 120)
        journal.append_events(events)
        report = journal.prune(
            keep_events=0,
            keep_open=keep_open,
            dry_run=True,
            progress=lambda done, total: told.append((done, total)),
        )
    assert report.event_count == (100 if keep_open else 320)
    assert told == sorted(told)
    assert {total for _, total in told} == {320}
    assert (len(told) > 2, told[-1][0]) == (True, 320)


# Space


@pytest.mark.parametrize("table", ["session", "stream"])
def test_ids_that_are_lost_are_damage(path: Path, table: str) -> None:
    """Also where they are forgotten without being looked at one by one."""
    session = SessionId.new()
    events: list[AnyEvent] = [
        StreamFailed(session_id=session, stream_id=StreamId.new(), error="", timestamp=NOON)
        for _ in range(4 * BLOCK)
    ]
    with Journal.open(path) as journal:
        journal.append_events(events)
    with closing(apsw.Connection(str(path))) as file:
        file.execute(f"DELETE FROM {table}")
    with Journal.open(path) as journal:
        with pytest.raises(DamagedError, match=f"{table}"):
            journal.prune(keep_events=0)
        with pytest.raises(DamagedError, match=f"{table}"):
            journal.prune(before=2 * BLOCK + 1)
    assert rows(path, "SELECT count(*) FROM event") == [(4 * BLOCK,)]


def test_deleted_texts_are_neither_in_the_file_nor_in_the_wal(path: Path) -> None:
    session = SessionId.new()
    with Journal.open(path) as journal:
        for first in range(0, 800, 20):
            events: list[AnyEvent] = [activated(session)]
            for number in range(first, first + 20):
                stream = StreamId.new()
                error = f"secret {number:04} " + "x" * (number % 3 * 900)
                events.append(
                    StreamFailed(session_id=session, stream_id=stream, error=error, timestamp=NOON)
                )
            journal.append_events(events)
        journal.rebuild()
        gone = journal.prune(before=421)
        assert gone.erased
        last_number = 399 - (gone.first_position - 421)
        found = {text for name in ("", "-wal") for text in secrets_in(path, name)}
        assert found <= set(range(380, 800))
        assert found >= set(range(420, 800))
        assert journal.prune(keep_events=0).erased
        assert not secrets_in(path, "") + secrets_in(path, "-wal")
        assert last_number
    assert not secrets_in(path, "")


def test_a_shipment_has_no_deleted_texts(path: Path, tmp_path: Path) -> None:
    """Also where rows of states grew, so that SQLite moved them from page to page."""
    session = SessionId.new()
    streams = [StreamId.new() for _ in range(400)]
    failed = [
        StreamFailed(session_id=session, stream_id=it, error=f"secret {at:04} {at}", timestamp=NOON)
        for at, it in enumerate(streams)
    ]
    with Journal.open(path, durability="normal") as journal:
        journal.append_events([started(session, stream) for stream in streams])
        for first in range(4):  # each fourth, so that rows in all pages grow
            assert len(journal.streams()) == 400
            journal.append_events(failed[first::4])
        journal.streams()
        assert journal.prune(keep_events=50).event_count == 750
        left = {number_of(recorded.event) for recorded in journal.read()}
        shipped = journal.ship(tmp_path / "shipped.db").path
    assert set(secrets_in(shipped, "")) == left


def number_of(event: AnyEvent) -> int:
    assert isinstance(event, StreamFailed)
    return int(event.error.split()[1])


def secrets_in(path: Path, suffix: str) -> list[int]:
    content = Path(f"{path}{suffix}").read_bytes()
    return [int(number) for number in re.findall(rb"secret ([0-9]{4})", content)]


def test_it_says_whether_texts_are_still_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_WAIT_FOR_READERS_SECONDS", 0.05)
    session = SessionId.new()
    events: list[AnyEvent] = [
        StreamFailed(
            session_id=session, stream_id=StreamId.new(), error=f"secret {n:04}", timestamp=NOON
        )
        for n in range(400)
    ]
    with Journal.open(path) as journal:
        journal.append_events(events)
    with Journal.open(path) as journal:
        with Journal.open(path, read_only=True) as reader:
            looking = reader.connection().execute("SELECT * FROM event")
            next(looking)
            assert journal.prune(keep_events=0).erased is False
            assert set(secrets_in(path, "")) == set(range(400))
            done = run_here("prune", path, "--keep-events", 0)
            assert b"before: may still be in the file: prune it again" in done.out
            assert set(secrets_in(path, "")) == set(range(400))
        assert journal.prune(keep_events=0).erased is True
        assert not secrets_in(path, "") + secrets_in(path, "-wal")


def test_space_goes_back_only_where_more_than_a_tenth_is_free(journal: Journal, path: Path) -> None:
    large(journal)
    journal.prune(before=601)
    size = path.stat().st_size
    report = journal.prune(before=651)
    assert report.event_count == 50
    assert report.freed_bytes > 0
    assert report.returned_bytes == 0
    assert rows(path, "PRAGMA freelist_count") != [(0,)]
    report = journal.prune(keep_events=100)
    assert report.returned_bytes > size // 10
    assert report.file_bytes == path.stat().st_size < size
    assert rows(path, "PRAGMA freelist_count") == [(0,)]


# Beside others


def test_a_read_only_journal_can_only_be_asked(journal: Journal, path: Path) -> None:
    with Journal.open(path, read_only=True) as reader:
        assert reader.prune(keep_events=0, dry_run=True).event_count == 620
        with pytest.raises(ReadOnlyError):
            reader.prune(keep_events=0)


@pytest.mark.parametrize("how", ["read", "lines", "filtered"])
def test_a_page_whose_names_are_forgotten_is_pruned_and_not_damaged(
    journal: Journal, path: Path, how: str
) -> None:
    journal.sessions()
    with Journal.open(path, read_only=True) as reader:
        asked: dict[str, Any] = {
            "read": reader.read,
            "lines": reader.lines,
            "filtered": lambda: reader.read(kinds=sorted({e.event_type for e in EVENTS})),
        }
        iterator = asked[how]()
        next(iterator)
        cut = cut_of(journal) + 600
        assert journal.prune(before=cut + 1).sessions_forgotten
        with pytest.raises(PrunedError) as error:
            list(iterator)
        assert error.value.first == cut + 1


@pytest.mark.parametrize("name", ["iter_sessions", "iter_streams", "iter_anomalies"])
def test_a_list_that_is_begun_leaves_out_what_is_forgotten_meanwhile(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(listing, "_PAGE_ROWS_MAX", 2)
    journal.append_events([e for e in EVENTS if "stream_completed" in e.event_type])  # anomalies
    for order in ("oldest", "events"):
        options = {} if name == "iter_anomalies" else {"order": order}
        listed = getattr(journal, name)(**options)
        first = next(listed)
        with Journal.open(path) as other:
            other.prune(keep_events=30 if order == "oldest" else 10)
        left = list(getattr(journal, name)(**options))
        rest = list(listed)
        assert len(rest) <= len(left) + 3
        assert [one for one in left if one not in rest] in ([], [first])


def test_a_rebuild_that_a_cut_overtakes_forgets_what_was_forgotten(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.sessions()
    replace = rebuilding._fold_beside

    def pruning_meanwhile(*arguments: Any) -> None:
        replace(*arguments)
        with Journal.open(path) as other:
            assert other.prune(keep_events=100).sessions_forgotten

    monkeypatch.setattr(rebuilding, "_fold_beside", pruning_meanwhile)
    (report,) = journal.rebuild(["sessions"])
    assert report.change_count == 0
    monkeypatch.undo()
    small_blocks(monkeypatch)
    (report,) = journal.rebuild(check=True)
    assert report.change_count == 0


def test_a_cut_reads_no_more_of_the_bases_than_it_changes(path: Path) -> None:
    """A thousand open sessions lie before the cut; later cuts touch one more."""
    with Journal.open(path) as journal:
        for _ in range(20):
            journal.append_events([activated(SessionId.new()) for _ in range(BLOCK)])
        journal.prune(keep_events=0)
        journal.append_events(numbered(SessionId.new(), range(2 * BLOCK)))
        journal.sessions(limit=1)
        steps: list[int] = []
        writer = journal._database._writer
        assert writer is not None
        writer.set_progress_handler(lambda: bool(steps.append(1)), 100)
        pruner, wanted = journal._pruner(), Retention(keep_events=0).wanted()
        assert pruner.cut_once(wanted, 0, events_max=0).cut is not None
        first = len(steps)  # the bases were held against their digests
        steps.clear()
        assert pruner.cut_once(wanted, 0, events_max=0).cut is not None
    assert len(steps) < first - 30
    check_closed(path)


def test_a_base_that_is_damaged_is_not_built_on(journal: Journal, path: Path) -> None:
    journal.prune(before=301)
    rows(path, "UPDATE base_session SET events_before = events_before + 1")
    with Journal.open(path) as other, pytest.raises(DamagedError, match="base"):
        other.prune(before=401)
    assert cut_of(journal) == 300
    rows(path, "UPDATE base_session SET events_before = events_before - 1")


def test_an_event_that_is_missing_stops_it(journal: Journal, path: Path) -> None:
    file = apsw.Connection(str(path))
    trigger = file.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    row = file.execute("SELECT * FROM event WHERE seq = 130").fetchone()
    file.execute("DROP TRIGGER event_is_deleted_only_where_absent")
    file.execute("DELETE FROM event WHERE seq = 130")
    with pytest.raises(DamagedError) as error:
        journal.prune(before=301)
    assert error.value.position == 130
    file.execute(f"INSERT INTO event VALUES ({', '.join('?' * 8)})", row)
    for (sql,) in trigger:
        if "only_where" in sql:
            file.execute(sql)
    file.close()
    assert journal.prune(before=301).event_count == 200  # those before had gone
