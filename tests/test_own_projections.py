"""An application's own projections: keyed or global, kept, rebuilt and asked as of a moment as the
built-in ones are, and what happens when they fail.
"""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import NOON, ROUNDS, activated, fold_in_steps
from test_lifecycle import SESSIONS, STREAMS, new_journal, open_new, unknown

from journal import (
    DomainEvent,
    FoldError,
    FramesBatched,
    Journal,
    Projection,
    SessionActivated,
    SessionClosed,
    SessionId,
    StreamCreated,
    StreamFailed,
    StreamId,
    Timestamp,
    UnknownProjectionError,
)
from journal.errors import JournalError
from journal.events import AnyEvent
from journal.projections import own_states

A, B, C = SESSIONS
X, Y = STREAMS[:2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with open_new(path) as journal:
        yield journal


def at(second: int) -> Timestamp:
    return NOON + timedelta(seconds=second)


def batched(session_id: SessionId, count: int, second: int = 0) -> FramesBatched:
    return FramesBatched(session_id=session_id, frame_count=count, timestamp=at(second))


def failed(session_id: SessionId, stream_id: StreamId, error: str) -> StreamFailed:
    return StreamFailed(session_id=session_id, stream_id=stream_id, error=error, timestamp=at(0))


def query(path: Path, sql: str, *parameters: object) -> list[Any]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def visible(path: Path) -> list[tuple[str, str, Any, int]]:
    """Return what plain SQL sees of an application's own projections."""
    rows = query(path, "SELECT projection, key, state, as_of_position FROM projection_states")
    return [(name, key, json.loads(state), position) for name, key, state, position in rows]


def position_of(journal: Journal, name: str) -> int:
    (position,) = [one.position for one in journal.projections() if one.name == name]
    return position


# Projections to try: the errors seen, the kinds of each session, and the frames of each session


def add_error(errors: list[str], event: DomainEvent) -> list[str]:
    return [*errors, event.error] if isinstance(event, StreamFailed) else errors


def add_kind(counts: dict[str, int], event: DomainEvent) -> dict[str, int]:
    return {**counts, event.event_type: counts.get(event.event_type, 0) + 1}


def add_frames(total: int, event: DomainEvent) -> int:
    assert isinstance(event, FramesBatched)
    return total + event.frame_count


def by_session(event: DomainEvent) -> SessionId:
    return event.session_id


ERRORS = Projection("errors", 1, [], add_error)
KINDS = Projection("kinds", 1, {}, add_kind, key=by_session)
FRAMES = Projection(
    "frames",
    1,
    0,
    add_frames,
    key=lambda event: event.session_id if isinstance(event, FramesBatched) else None,
)

SOME: list[AnyEvent] = [
    activated(A, 0),
    batched(A, 3, 1),
    failed(A, X, "reset"),
    unknown(A),
    batched(B, 4, 9),
    failed(B, Y, 'a "quote"'),
    batched(A, 5, 2),
]


def test_a_global_projection_has_one_state(journal: Journal) -> None:
    journal.register(ERRORS)
    assert journal.state("errors") == []
    assert journal.states("errors") == {}

    journal.append_events(SOME)

    assert journal.state("errors") == ["reset", 'a "quote"']
    assert journal.states("errors") == {"": ["reset", 'a "quote"']}


def test_a_keyed_projection_has_a_state_for_each_key_that_was_met(journal: Journal) -> None:
    journal.register(KINDS)
    journal.append_events(SOME)
    of_a = {"session_activated": 1, "frames_batched": 2, "stream_failed": 1}

    assert journal.states("kinds") == {
        str(A): of_a,
        str(B): {"frames_batched": 1, "stream_failed": 1},
    }
    assert journal.state("kinds", A) == journal.state("kinds", str(A)) == of_a
    assert journal.state("kinds", UUID(str(A))) == of_a
    assert journal.state("kinds", C) == {}


def test_an_event_without_a_key_is_passed_over(journal: Journal) -> None:
    journal.register(FRAMES)
    journal.append_events(SOME)

    assert journal.states("frames") == {str(A): 8, str(B): 4}
    assert position_of(journal, "frames") == len(SOME)


def test_events_of_unknown_kinds_are_passed_over(journal: Journal) -> None:
    seen: list[DomainEvent] = []

    def key(event: DomainEvent) -> str:
        seen.append(event)
        return "x"

    journal.register(Projection("all", 1, 0, lambda number, _: number + 1, key=key))
    journal.append_events([unknown(A), activated(A), unknown(A, X)])

    assert journal.state("all", "x") == 1
    assert seen == [activated(A)]
    assert position_of(journal, "all") == 3


def test_an_apply_is_given_the_event_that_was_appended(journal: Journal) -> None:
    seen: list[DomainEvent] = []

    def apply(number: int, event: DomainEvent) -> int:
        seen.append(event)
        return number + 1

    journal.register(Projection("all", 1, 0, apply))
    events = [event for event in SOME if event.event_type != "stream_paused"]
    journal.append_events(events)

    assert journal.state("all") == len(events)
    assert seen == events


def test_states_are_json_in_plain_sql(journal: Journal, path: Path) -> None:
    journal.register(ERRORS)
    journal.register(FRAMES)
    journal.append_events(SOME)
    journal.state("errors")
    journal.state("frames")

    assert sorted(visible(path)) == sorted(
        [
            ("errors", "", ["reset", 'a "quote"'], 7),
            ("frames", str(A), 8, 7),
            ("frames", str(B), 4, 7),
        ]
    )
    assert query(
        path, "SELECT state ->> '$[1]' FROM projection_states WHERE projection = 'errors'"
    ) == [('a "quote"',)]


@pytest.mark.parametrize(
    "state",
    [
        0,
        -(2**70),
        2**64 - 1,
        1e300,
        1.5,
        True,
        "",
        "\0é☃\u2028",
        [],
        {},
        [None],
        {"": [{"a": [1, 2.0, "3", None, False]}]},
    ],
)
def test_a_state_is_whatever_json_can_hold(journal: Journal, path: Path, state: Any) -> None:
    journal.register(Projection("any", 1, None, lambda _state, _event: state))
    journal.append_events([activated(A)])

    for _ in range(2):
        assert journal.state("any") == state
        assert type(journal.state("any")) is type(state)
    assert visible(path) == [("any", "", state, 1)]


def test_keys_are_any_text(journal: Journal, path: Path) -> None:
    keys = ["", " ", "a'b\"c", "\0", "é", "e\u0301", "🂡", "A", "a", "%_"]
    journal.append_events([failed(A, X, key) for key in keys])
    journal.register(Projection("keys", 1, 0, lambda n, _: n + 1, key=lambda event: event.error))

    assert journal.states("keys") == dict.fromkeys(keys, 1)
    assert list(journal.states("keys")) == sorted(keys)
    assert [journal.state("keys", key) for key in keys] == [1] * len(keys)
    assert {key for _, key, _, _ in visible(path)} == set(keys)


def test_as_of_a_moment_is_a_fold_of_the_events_until_then(journal: Journal) -> None:
    journal.register(ERRORS)
    journal.register(FRAMES)
    journal.append_events(SOME)

    assert [len(journal.state("errors", as_of=position)) for position in range(8)] == [
        0, 0, 0, 1, 1, 1, 2, 2
    ]  # fmt: skip
    assert journal.states("frames", as_of=5) == {str(A): 3, str(B): 4}
    assert journal.states("frames", as_of=at(8)) == {str(A): 8}
    assert journal.state("frames", B, as_of=at(8)) == 0
    assert position_of(journal, "frames") == 0


def test_it_is_kept_in_the_file_and_goes_on_after_reopening(path: Path) -> None:
    seen = []

    def apply(number: int, event: DomainEvent) -> int:
        seen.append(event)
        return number + 1

    for round_number in range(1, 4):
        with Journal.open(path) as journal:
            journal.register(Projection("count", 1, 0, apply))
            journal.append_events(SOME[:3])
            assert journal.state("count") == 3 * round_number
    assert len(seen) == 9


def test_a_projection_that_is_not_registered_now_stays_and_is_listed(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.register(ERRORS)
        journal.append_events(SOME)
        journal.state("errors")

    with Journal.open(path) as journal:
        journal.append_events(SOME)
        journal.rebuild()
        listed = {one.name: (one.position, one.lag, one.stale) for one in journal.projections()}
        assert listed["errors"] == (7, 7, None)
        with pytest.raises(UnknownProjectionError, match="'errors' is not registered"):
            journal.state("errors")
        assert visible(path) == [("errors", "", ["reset", 'a "quote"'], 7)]
        journal.register(ERRORS)
        assert len(journal.state("errors")) == 4


@pytest.mark.parametrize("name", ["sessions", "streams", "nothing"])
def test_only_what_was_registered_has_states(journal: Journal, name: str) -> None:
    for ask in (journal.state, journal.states):
        with pytest.raises(UnknownProjectionError, match=name):
            ask(name)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("", 1), ("sessions", 1), ("streams", 1), ("taken", 2)),
        *(("a", 0), ("a", -1), ("a", True), ("a", "1"), ("a", 1.0), ("a", None)),
    ],
)
def test_a_name_that_is_taken_or_a_version_that_is_none_is_refused(
    journal: Journal, name: str, version: Any
) -> None:
    journal.register(Projection("taken", 1, 0, lambda number, _: number))

    with pytest.raises(ValueError, match="projection"):
        journal.register(Projection(name, version, 0, lambda number, _: number))

    journal.append_events(SOME)
    assert journal.state("taken") == 0


SUBSCRIBED = "INSERT INTO checkpoint VALUES ('reader', 'subscription', 1, 2, 1)"


def test_a_projection_is_refused_under_the_name_of_a_subscription(path: Path) -> None:
    reader = Projection("reader", 1, 0, lambda number, _: number + 1)
    with Journal.open(path) as journal:
        journal.append_events([activated(A)] * 5)
    with apsw.Connection(str(path)) as file:
        file.execute(SUBSCRIBED)
    for read_only in (True, False):
        with Journal.open(path, read_only=read_only) as journal:
            with pytest.raises(
                ValueError, match="a subscription of this journal is called 'reader'"
            ):
                journal.register(reader)
            assert [status.name for status in journal.projections()] == ["sessions", "streams"]
            found = journal.connection().execute("SELECT * FROM checkpoint WHERE name = 'reader'")
            assert list(found) == [("reader", "subscription", 1, 2, 1)]


def test_the_names_of_the_built_in_ones_are_theirs(path: Path) -> None:
    """What the file says of them otherwise is damage, which a rebuild mends."""
    with Journal.open(path) as journal:
        journal.append_events([activated(A)] * 5)
        journal.rebuild()
    with apsw.Connection(str(path)) as file:
        file.execute("UPDATE checkpoint SET type = 'subscription'")
    with Journal.open(path) as journal:
        assert len(journal.sessions()) == 1
        journal.rebuild()
        found = journal.connection().execute("SELECT name, type FROM checkpoint ORDER BY name")
        assert list(found) == [("sessions", "projection"), ("streams", "projection")]


def test_another_version_is_made_anew_by_itself(path: Path) -> None:
    def double(total: int, event: DomainEvent) -> int:
        return total + 2

    with Journal.open(path) as journal:
        journal.register(Projection("count", 1, 0, lambda number, _: number + 1))
        journal.append_events([activated(A)] * 5)
        assert journal.state("count") == 5
        journal.sessions()

    with Journal.open(path) as journal:
        journal.register(Projection("count", 2, 100, double))
        listed = {one.name: (one.version, one.position, one.stale) for one in journal.projections()}
        assert listed["count"] == (1, 5, True)
        assert listed["sessions"][2] is False
        assert journal.state("count", as_of=2) == 104
        assert visible(path) == [("count", "", 5, 5)]
        assert journal.state("count") == 110
        assert visible(path) == [("count", "", 110, 5)]
        assert query(path, "SELECT count(*) FROM projection_state") == [(1,)]


def test_a_rebuild_finds_what_was_changed_behind_its_back(journal: Journal, path: Path) -> None:
    journal.register(FRAMES)
    journal.append_events(SOME)
    journal.states("frames")
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE projection_state SET state = '4711' WHERE key = ?", (str(A),))
    connection.execute("DELETE FROM projection_state WHERE key = ?", (str(B),))
    connection.close()

    for check in (True, False):
        (report,) = journal.rebuild(["frames"], check=check)
        assert report.projections == ("frames",)
        assert report.changes is not None
        found = {(one.projection, one.key, one.column, one.old, one.new) for one in report.changes}
        assert found == {
            ("frames", str(A), "state", "4711", "8"),
            ("frames", str(B), None, "missing", "present"),
        }
        expected = {str(A): 4711} if check else {str(A): 8, str(B): 4}
        assert journal.states("frames") == expected
    assert journal.rebuild(["frames"])[0].changes == ()


def test_a_rebuild_tells_that_an_apply_was_changed_without_its_version(path: Path) -> None:
    for step in (1, 2):
        with Journal.open(path) as journal:
            journal.register(Projection("count", 1, 0, lambda number, _, step=step: number + step))
            if step == 1:
                journal.append_events([activated(A)] * 5)
            assert journal.state("count") == 5
            (report,) = journal.rebuild(["count"])
            assert report.change_count == step - 1
            assert journal.state("count") == 5 * step


def test_a_read_only_journal_folds_in_memory(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.register(FRAMES)
        journal.append_events(SOME[:3])
        journal.states("frames")
        journal.append_events(SOME[3:])
    before = path.read_bytes()

    with Journal.open(path, read_only=True) as reader:
        reader.register(FRAMES)
        reader.register(ERRORS)
        assert reader.states("frames") == {str(A): 8, str(B): 4}
        assert reader.state("frames", B) == 4
        assert reader.state("frames", C) == 0
        assert len(reader.state("errors")) == 2
        assert reader.states("frames", as_of=4) == {str(A): 3}
    assert path.read_bytes() == before
    assert visible(path) == [("frames", str(A), 3, 3)]


# An apply that is not as pure as it should be


def test_an_apply_that_changes_its_state_in_place_gives_the_same_states(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_in_steps(monkeypatch, 2)
    initial: dict[str, list[str]] = {"seen": []}

    def apply(state: dict[str, list[str]], event: DomainEvent) -> dict[str, list[str]]:
        state["seen"].append(event.event_type)
        return state

    journal.register(Projection("seen", 1, initial, apply, key=by_session))
    for number, event in enumerate(SOME, 1):
        journal.append_events([event])
        if number % 3 == 0:
            journal.states("seen")

    expected = {
        str(A): {
            "seen": ["session_activated", "frames_batched", "stream_failed", "frames_batched"]
        },
        str(B): {"seen": ["frames_batched", "stream_failed"]},
    }
    assert journal.states("seen") == expected
    assert journal.states("seen", as_of=7) == expected
    assert journal.rebuild(["seen"])[0].changes == ()
    assert initial == {"seen": []}
    assert journal.state("seen", C) == {"seen": []}
    journal.state("seen", C)["seen"].append("x")
    journal.state("seen", A)["seen"].append("x")
    assert journal.state("seen", C) == {"seen": []}
    assert journal.states("seen") == expected


def test_an_apply_may_read_the_journal(journal: Journal) -> None:
    def apply(_: int, event: DomainEvent) -> int:
        return len(journal.get_events_for_session(event.session_id))

    journal.register(Projection("reads", 1, 0, apply, key=by_session))
    journal.append_events(SOME)

    assert journal.states("reads") == {str(A): 5, str(B): 2}


# An apply that fails


def failing_at(number: int, fail: Callable[[], Any]) -> Projection[int]:
    """Return a projection that counts, and fails where it counts `number` events."""

    def apply(count: int, _event: DomainEvent) -> int:
        if count + 1 == number:
            result: int = fail()
            return result
        return count + 1

    return Projection("fragile", 1, 0, apply)


def divide_by_zero() -> float:
    return 1 / 0


class Odd:
    pass


FAILURES: dict[str, tuple[Callable[[], Any], str]] = {
    "raises": (divide_by_zero, "ZeroDivisionError: division by zero"),
    "raises what the journal raises": (
        lambda: (_ for _ in ()).throw(JournalError("mine")),
        "JournalError: mine",
    ),
    "returns None": (lambda: None, "None"),
    "returns what JSON cannot hold": (Odd, "JSON"),
    "returns a lone surrogate": (lambda: "\ud800", "JSON"),
    "returns a tuple": (lambda: (1, 2), "not the same"),
    "returns a tuple within": (lambda: {"a": [(1,)]}, "not the same"),
    "returns keys that are no text": (lambda: {1: 2}, "not the same"),
    "returns NaN": (lambda: float("nan"), "not the same"),
    "returns a datetime": (lambda: NOON, "not the same"),
    "returns an id": (lambda: A, "not the same"),
}


@pytest.mark.parametrize(("fail", "reason"), FAILURES.values(), ids=FAILURES.keys())
def test_a_fold_that_fails_names_the_projection_and_the_position_and_keeps_its_checkpoint(
    journal: Journal,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[], Any],
    reason: str,
) -> None:
    fold_in_steps(monkeypatch, 1)
    journal.register(failing_at(4, fail))
    journal.register(KINDS)
    journal.append_events([activated(A)] * 2)
    assert journal.state("fragile") == 2
    journal.append_events([activated(A)] * 5)

    for _ in range(2):
        for ask in (journal.state, journal.states):
            with pytest.raises(FoldError, match=reason) as caught:
                ask("fragile")
            assert (caught.value.projection, caught.value.position) == ("fragile", 4)
            assert "'fragile' failed at position 4" in str(caught.value)

    assert visible(path) == [("fragile", "", 3, 3)]
    assert journal.state("fragile", as_of=3) == 3
    assert len(journal.sessions()) == 1
    assert journal.states("kinds") == {str(A): {"session_activated": 7}}
    journal.append_events([activated(B)])
    assert len(journal.sessions()) == 2
    lags = {one.name: one.lag for one in journal.projections()}
    assert lags == {"fragile": 5, "kinds": 1, "sessions": 0, "streams": 0}


@pytest.mark.parametrize("key", [lambda _: 7, lambda _: b"x", divide_by_zero, lambda _: "\ud800"])
def test_a_key_function_that_fails_is_named_likewise(
    journal: Journal, key: Callable[..., Any]
) -> None:
    journal.register(Projection("fragile", 1, 0, lambda number, _: number + 1, key=key))
    journal.append_events([activated(A)])

    with pytest.raises(FoldError, match="'fragile' failed at position 1") as caught:
        journal.states("fragile")

    assert caught.value.__cause__ is not None
    assert journal.states("fragile", as_of=0) == {}


def test_a_fold_that_fails_does_not_stop_the_rebuild_of_others(
    journal: Journal, path: Path
) -> None:
    journal.register(failing_at(4, divide_by_zero))
    journal.register(KINDS)
    journal.append_events([activated(A)] * 3)
    assert journal.state("fragile") == 3
    journal.append_events([activated(A)] * 3)
    done = []

    with pytest.raises(FoldError, match="'fragile' failed at position 4"):
        journal.rebuild(progress=lambda *so_far: done.append(so_far))

    assert done == [(6, 6), (6, 6)]
    listed = {one.name: one.position for one in journal.projections()}
    assert listed == {"fragile": 3, "kinds": 6, "sessions": 6, "streams": 6}
    assert ("fragile", "", 3, 3) in visible(path)
    assert query(path, "SELECT count(*) FROM projection_state") == [(2,)]


def test_a_corrected_fold_goes_on_where_it_failed(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events([activated(A)] * 3)
        journal.register(failing_at(4, divide_by_zero))
        journal.state("fragile")
        journal.append_events([activated(A)] * 3)
        with pytest.raises(FoldError):
            journal.state("fragile")

    with Journal.open(path) as journal:
        journal.register(failing_at(0, divide_by_zero))
        assert journal.state("fragile") == 6


def test_a_new_version_that_fails_leaves_the_old_rows(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events([activated(A)] * 6)
        journal.register(failing_at(0, divide_by_zero))
        assert journal.state("fragile") == 6

    with Journal.open(path) as journal:
        newer = failing_at(4, divide_by_zero)
        journal.register(Projection("fragile", 2, 0, newer.apply))
        for _ in range(2):
            with pytest.raises(FoldError, match="position 4"):
                journal.state("fragile")
        assert visible(path) == [("fragile", "", 6, 6)]
        sql = "SELECT version, position FROM checkpoint WHERE name = 'fragile'"
        assert query(path, sql) == [(1, 6)]
        assert query(path, "SELECT count(*) FROM projection_state") == [(1,)]


@pytest.mark.parametrize("bad", [Odd(), (1, 2), float("nan")])
def test_a_state_that_is_no_json_is_refused_when_it_is_folded_in_memory_too(
    journal: Journal, bad: Any
) -> None:
    journal.register(Projection("fragile", 1, 0, lambda _state, _event: bad))
    journal.append_events([activated(A)])

    with Journal.open(journal.path, read_only=True) as reader:
        reader.register(Projection("fragile", 1, 0, lambda _state, _event: bad))
        for ask in (
            lambda: journal.state("fragile", as_of=1),
            lambda: reader.state("fragile"),
        ):
            with pytest.raises(FoldError, match="position 1"):
                ask()


def nested(depth: int) -> list[Any]:
    state: list[Any] = []
    for _ in range(depth):
        state = [state]
    return state


@pytest.mark.parametrize("bad", [float("inf"), [-float("inf")], nested(230)])
def test_what_is_not_quite_json_is_refused_as_a_fold_error(journal: Journal, bad: Any) -> None:
    journal.register(Projection("fragile", 1, 0, lambda _state, _event: bad))
    journal.append_events([activated(A)])

    with pytest.raises(FoldError):
        journal.state("fragile")


@pytest.mark.parametrize("bad", [Odd(), (1, 2)])
def test_an_initial_state_that_is_no_json_is_refused_when_it_is_registered(
    journal: Journal, bad: Any
) -> None:
    with pytest.raises(ValueError, match="initial"):
        journal.register(Projection("fragile", 1, bad, lambda state, _: state))


def test_a_name_that_is_no_text_is_refused(journal: Journal) -> None:
    wrong: Any = 7
    with pytest.raises(ValueError, match="name"):
        journal.register(Projection(wrong, 1, 0, lambda state, _: state))


def test_an_error_that_is_kept_does_not_keep_anybody_from_writing(
    journal: Journal, path: Path
) -> None:
    journal.register(failing_at(1, divide_by_zero))
    journal.append_events([activated(A)] * 2_500)
    with pytest.raises(FoldError) as kept:
        journal.state("fragile")
    with Journal.open(path) as other:
        other.append_events([activated(B)])

    journal.append_events([activated(A)])

    assert journal.last_position == 2_502
    assert kept.value.position == 1


# Much of it


def test_a_projection_of_many_keys_is_folded_in_bounded_memory(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_in_steps(monkeypatch, 80)
    monkeypatch.setattr(own_states, "_DECODED_AT_ONCE", 16)

    def apply(_state: str, event: DomainEvent) -> str:
        return str(event.session_id) * 100

    journal.register(Projection("wide", 1, "", apply, key=by_session))
    for _ in range(4):
        journal.append_events([activated(SessionId.new()) for _ in range(100)])
    journal.state("wide", as_of=0)

    tracemalloc.start()
    try:
        journal.state("wide")
        journal.rebuild(["wide"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    sql = "SELECT count(*), min(length(state)) FROM projection_state"
    assert query(path, sql) == [(400, 3_602)]
    assert peak < 830_000  # all states together are 1.4 million


# Whatever the application does


_EVENTS = st.builds(
    lambda kind, session_id, stream_id, second: kind(
        session_id=session_id,
        timestamp=at(second),
        **({"stream_id": stream_id} if kind is StreamCreated else {}),
        **({"frame_count": second} if kind is FramesBatched else {}),
    ),
    st.sampled_from([SessionActivated, SessionClosed, StreamCreated, FramesBatched]),
    st.sampled_from(SESSIONS),
    st.sampled_from(STREAMS),
    st.integers(0, 9),
)
_STEPS = st.lists(
    st.one_of(
        st.lists(st.one_of(_EVENTS, st.builds(unknown, st.sampled_from(SESSIONS))), max_size=6),
        st.sampled_from(["state", "states", "as of", "rebuild", "check", "reopen"]),
    ),
    max_size=12,
)


def trace(state: list[str], event: DomainEvent) -> list[str]:
    """Keep everything, in order, in place."""
    state.append(event.model_dump_json())
    return state


def key_of(event: DomainEvent) -> object:
    if isinstance(event, SessionClosed):
        return None
    return event.session_id if event.stream_id is None else f"stream {event.stream_id}"


@settings(max_examples=12 * ROUNDS)
@given(steps=_STEPS, events_at_once=st.sampled_from([1, 2, 5, 10_000]))
def test_every_state_is_made_of_its_events_in_order(steps: list[Any], events_at_once: int) -> None:
    projections = [
        Projection("whole", 1, [], trace),
        Projection("parts", 3, [], trace, key=key_of),
    ]

    def expected(events: list[AnyEvent]) -> dict[str, dict[str, list[str]]]:
        whole: dict[str, list[str]] = {}
        parts: dict[str, list[str]] = {}
        for event in events:
            if event.event_type == "stream_paused":
                continue
            whole.setdefault("", []).append(event.model_dump_json())
            key = key_of(event)  # type: ignore[arg-type]
            if key is not None:
                parts.setdefault(str(key), []).append(event.model_dump_json())
        return {"whole": whole, "parts": dict(sorted(parts.items()))}

    def opened(path: Path) -> Journal:
        journal = Journal.open(path, durability="normal")
        for projection in projections:
            journal.register(projection)
        return journal

    events: list[AnyEvent] = []
    with new_journal(events_at_once=events_at_once) as first:
        journal = opened(first.path)
        try:
            for step in [*steps, "state", "states", "check"]:
                now = expected(events)
                match step:
                    case "state":
                        for key in (*now["parts"], "nothing"):
                            assert journal.state("parts", key) == now["parts"].get(key, [])
                        assert journal.state("whole") == now["whole"].get("", [])
                    case "states":
                        for name in ("whole", "parts"):
                            assert journal.states(name) == now[name]
                    case "as of":
                        for position in range(len(events) + 1):
                            then = expected(events[:position])
                            assert journal.states("parts", as_of=position) == then["parts"]
                        then = expected([one for one in events if one.timestamp <= at(4)])
                        assert journal.states("parts", as_of=at(4)) == then["parts"]
                    case "rebuild" | "check":
                        reports = journal.rebuild(["whole", "parts"], check=step == "check")
                        assert all(report.change_count == 0 for report in reports)
                    case "reopen":
                        journal.close()
                        journal = opened(first.path)
                    case _:
                        journal.append_events(step)
                        events += step
            found: dict[str, dict[str, Any]] = {"whole": {}, "parts": {}}
            for name, key, state, position in visible(first.path):
                found[name][key] = state
                assert position == len(events)
            assert found == expected(events)
        finally:
            journal.close()
