"""How projections live: catching up, checkpoints, staleness, rebuilding beside readers and writers,
as of a moment, read-only files; by threads, by processes, and by processes that are killed.

What they say is the matter of `test_lifecycle`; an application's own are that of
`test_own_projections`.
"""

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import NOON, ROUNDS, Channel, Child, activated, bytes_in, die, let_go
from test_lifecycle import SESSIONS, STREAMS, check_views, open_new, plain_fold

from journal import (
    AnyEvent,
    DamagedError,
    FramesBatched,
    Journal,
    PatchFramesGenerated,
    Projection,
    ReadOnlyError,
    RebuildInterruptedError,
    RebuildReport,
    SessionActivated,
    SessionClosed,
    SessionExpired,
    SessionId,
    StreamCancelled,
    StreamCompleted,
    StreamCreated,
    StreamFailed,
    StreamId,
    StreamStarted,
    UnknownProjectionError,
    folds,
    opening,
    projecting,
)
from journal.folds import LifecycleFold

DATA = Path(__file__).parent / "data"
TABLES = ("projection_session", "projection_stream", "projection_anomaly", "projection_state")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with open_new(path) as journal:
        yield journal


# Events and answers

_KINDS: list[tuple[Any, dict[str, Any]]] = [
    (StreamCreated, {}),
    (StreamCreated, {}),
    (StreamStarted, {}),
    (StreamStarted, {}),
    (StreamCompleted, {}),
    (StreamFailed, {"error": "reset"}),
    (StreamCancelled, {}),
    (PatchFramesGenerated, {"frame_count": 3, "total_bytes": 2**62, "highest_priority": 9}),
    (SessionActivated, {}),
    (SessionActivated, {}),
    (SessionClosed, {}),
    (SessionExpired, {}),
    (FramesBatched, {"frame_count": 7}),
]


def random_events(count: int, seed: int = 1) -> list[AnyEvent]:
    """Return events of few sessions and streams, legal or not."""
    draw = random.Random(seed)
    events: list[AnyEvent] = []
    for _ in range(count):
        kind, fields = draw.choice(_KINDS)
        place: dict[str, Any] = {"session_id": draw.choice(SESSIONS)}
        if "stream_id" in kind.model_fields:
            place["stream_id"] = draw.choice(STREAMS)
        at = NOON + timedelta(seconds=draw.randrange(1000))
        events.append(kind(**place, timestamp=at, **fields))
    return events


def new_sessions(count: int) -> list[AnyEvent]:
    """Return one event for each of so many sessions: there are as many sessions as events."""
    return [activated(SessionId.new(), number) for number in range(count)]


def busy_sessions(count: int, streams: int = 3) -> list[AnyEvent]:
    """Return the interleaved events of so many sessions, with so many streams in each."""
    sessions = [(SessionId.new(), [StreamId.new() for _ in range(streams)]) for _ in range(count)]
    events: list[AnyEvent] = [
        SessionActivated(session_id=session_id, timestamp=NOON) for session_id, _ in sessions
    ]
    for kind in (StreamCreated, StreamStarted):
        for number in range(streams):
            for session_id, ids in sessions:
                place = {"session_id": session_id, "stream_id": ids[number]}
                events.append(kind(**place, timestamp=NOON + timedelta(seconds=len(events))))
    return events


def answers(journal: Journal, as_of: int | None = None) -> list[Any]:
    return [
        journal.sessions(as_of=as_of),
        journal.streams(as_of=as_of),
        journal.anomalies(as_of=as_of),
    ]


def check_right(journal: Journal) -> None:
    """Assert that a journal at rest answers as a fold of all its events."""
    assert answers(journal) == answers(journal, journal.last_position)


def query(path: Path, sql: str, *parameters: object) -> list[Any]:
    """Return what plain SQL says, as an analyst would ask."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(10_000)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def change(path: Path, sql: str) -> None:
    """Change the file behind the journal's back."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    try:
        connection.execute(sql)
    finally:
        connection.close()


def stored(path: Path) -> dict[str, list[Any]]:
    return {
        table: query(path, f"SELECT * FROM {table} ORDER BY 1, 2")
        for table in ("projection", *TABLES)
    }


def check_no_garbage(path: Path) -> None:
    """Assert that there is one build for each projection, and no row of any other."""
    assert query(path, "SELECT count(*) FROM projection WHERE NOT live") == [(0,)]
    assert query(path, "SELECT max(n) FROM (SELECT count(*) AS n FROM projection GROUP BY name)")[
        0
    ] <= (1,)
    for table in TABLES:
        sql = f"SELECT count(*) FROM {table} WHERE build NOT IN (SELECT build FROM projection)"
        assert query(path, sql) == [(0,)], table


def position_of(path: Path, name: str = "sessions") -> int:
    ((position,),) = query(path, "SELECT position FROM projection WHERE name = ? AND live", name)
    return int(position)


# What it costs

Steps = dict[str, int]


@contextmanager
def counting(journal: Journal) -> Iterator[Steps]:
    """Count what SQLite does for a journal that has been read from: virtual machine steps."""
    steps = {"steps": 0, "scanned": 0}

    def count(profile: dict[str, Any]) -> None:
        steps["steps"] += profile["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]
        steps["scanned"] += profile["stmt_status"]["SQLITE_STMTSTATUS_FULLSCAN_STEP"]

    database = journal._database
    assert database._readers
    with ExitStack() as stack:
        for connection in [*database._readers, database._writer]:
            if connection is not None:
                connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, count, id=count)
                stack.callback(connection.trace_v2, 0, None, id=count)
        yield steps


@contextmanager
def recording_writes(journal: Journal) -> Iterator[list[str]]:
    """Collect every statement of the writing connection."""
    writer = journal._database._writer
    assert writer is not None
    statements: list[str] = []

    def record(_cursor: object, sql: str, _bindings: object) -> bool:
        statements.append(sql)
        return True

    writer.set_exec_trace(record)
    try:
        yield statements
    finally:
        writer.set_exec_trace(None)


def test_appending_does_not_touch_projections(journal: Journal, path: Path) -> None:
    journal.append_events(random_events(20))
    journal.sessions()
    before = stored(path)

    with recording_writes(journal) as statements:
        journal.append_events(random_events(2_500, seed=2))
        journal.append_ndjson(event.model_dump_json() for event in random_events(20, seed=3))

    assert any("INSERT INTO event" in sql for sql in statements)
    assert not [sql for sql in statements if "projection" in sql]
    assert stored(path) == before
    check_right(journal)


def test_what_is_up_to_date_is_read_without_writing(journal: Journal) -> None:
    journal.append_events(random_events(20))
    journal.sessions()

    with recording_writes(journal) as statements:
        answers(journal)
        journal.session(SESSIONS[0])
        journal.stream(STREAMS[0])
        answers(journal, 7)
        journal.projections()

    assert statements == []


def test_catching_up_costs_what_is_new_however_long_the_journal_is(tmp_path: Path) -> None:
    costs = []
    for count in (1_000, 20_000):
        with open_new(tmp_path / f"{count}.db") as journal:
            journal.append_events(busy_sessions(count // 10))
            old = journal.last_position
            journal.append_events(new_sessions(count - old))
            journal.sessions()
            journal.append_events(busy_sessions(100)[:500] + random_events(500))
            with counting(journal) as steps:
                journal.session(SESSIONS[0])
            costs.append(steps["steps"])
            assert [one.lag for one in journal.projections()] == [0, 0]
            assert steps["scanned"] < 1_200

    small, large = costs
    assert large < 1.1 * small


def test_as_of_one_session_costs_what_the_session_is_long(tmp_path: Path) -> None:
    costs = []
    for count in (200, 2_000):
        with open_new(tmp_path / f"{count}.db") as journal:
            journal.append_events(busy_sessions(count))
            middle = journal.read(after=count // 2, limit=1)
            session_id = next(middle).event.session_id
            (stream_id, *_) = [one.stream_id for one in journal.streams(session_id)]
            last = journal.last_position
            for as_of in (last, last // 2, NOON + timedelta(seconds=last // 2)):
                with counting(journal) as steps:
                    session = journal.session(session_id, as_of=as_of)
                    assert journal.streams(session_id, as_of=as_of)
                    assert journal.stream(stream_id, as_of=as_of) is not None
                assert session is not None
                assert session.total_streams in (2, 3)
                costs.append(steps["steps"])
                assert steps["scanned"] < 30

    assert costs[:3] == costs[3:]
    assert max(costs) < 5_000


def test_one_session_is_read_without_the_others(tmp_path: Path) -> None:
    costs = []
    for count in (200, 2_000):
        with open_new(tmp_path / f"{count}.db") as journal:
            journal.append_events(busy_sessions(count))
            (first,) = journal.read(limit=1)
            (stream_id, *_) = [one.stream_id for one in journal.streams(first.event.session_id)]
            journal.sessions()
            with counting(journal) as steps:
                assert journal.session(first.event.session_id) is not None
                assert journal.stream(stream_id) is not None
                assert len(journal.streams(first.event.session_id)) == 3
            costs.append(steps["steps"])

    small, large = costs
    assert large < 1.3 * small < 3_000  # the blocks are counted, one in a thousand events


# Catching up


def test_an_answer_includes_everything_committed_before(journal: Journal, path: Path) -> None:
    events = random_events(40)
    with Journal.open(path) as other:
        for number, event in enumerate(events, 1):
            (journal if number % 2 else other).append_events([event])

            assert answers(journal if number % 3 else other) == answers(journal, number)


def test_the_views_say_how_far_they_are(journal: Journal, path: Path) -> None:
    journal.append_events(new_sessions(5))
    journal.sessions()
    journal.append_events(new_sessions(3))
    sql = "SELECT count(*), min(as_of_position), max(as_of_position) FROM sessions"

    assert query(path, sql) == [(5, 5, 5)]
    journal.session(SESSIONS[0])
    assert query(path, sql) == [(8, 8, 8)]


def test_projections_say_how_far_they_are(journal: Journal) -> None:
    def said() -> list[Any]:
        return [(one.name, one.position, one.lag, one.stale) for one in journal.projections()]

    journal.append_events(new_sessions(5))
    assert said() == [("sessions", 0, 5, False), ("streams", 0, 5, False)]
    journal.streams(state=None)
    assert said() == [("sessions", 5, 0, False), ("streams", 5, 0, False)]
    journal.append_events(new_sessions(2))
    assert said() == [("sessions", 5, 2, False), ("streams", 5, 2, False)]


def test_catching_up_commits_in_steps_so_that_appenders_are_not_held_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 10)
    journal.append_events(new_sessions(35))

    with recording_writes(journal) as statements:
        journal.sessions()

    assert statements.count("COMMIT") == 4
    assert sum(sql.startswith("UPDATE projection SET position") for sql in statements) == 4


def test_memory_follows_the_states_in_use(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 50)
    monkeypatch.setattr(folds, "_IN_MEMORY_MAX", 100)
    held = []
    write = folds.LifecycleStates.write

    def noting(states: folds.LifecycleStates) -> None:
        write(states)
        held.append(len(states.lifecycle.sessions) + len(states.lifecycle.streams))

    monkeypatch.setattr(folds.LifecycleStates, "write", noting)
    for _ in range(30):
        session_ids = [SessionId.new() for _ in range(20)]
        journal.append_events([activated(one) for one in session_ids])
        ended = [SessionClosed(session_id=one, timestamp=NOON) for one in session_ids]
        journal.append_events(ended)
    late = FramesBatched(session_id=session_ids[0], frame_count=5, timestamp=NOON)
    journal.append_events([late])

    journal.sessions()

    assert max(held) <= 150
    session = journal.session(session_ids[0])
    assert session is not None
    assert (session.batched_frames, session.event_count) == (5, 3)
    check_right(journal)


# Killed in the middle


def steps_then_death(connection: apsw.Connection, steps: int) -> None:
    """Kill this process once the connection has done so many virtual machine steps."""
    connection.set_progress_handler(die, max(1, steps))


def catch_up_and_die(_channel: Channel, path: Path, steps: int, events_at_once: int) -> None:
    projecting.EVENTS_AT_ONCE = events_at_once
    journal = Journal.open(path)
    assert journal._database._writer is not None
    steps_then_death(journal._database._writer, steps)
    journal.sessions()
    die()


def view_of(path: Path) -> tuple[int, list[Any], list[Any]]:
    """Return how far the views are, and what they say."""
    found = query(path, "SELECT position FROM projection WHERE name = 'sessions' AND live")
    position = found[0][0] if found else 0
    return (
        position,
        query(path, "SELECT * FROM sessions ORDER BY session_id"),
        query(path, "SELECT * FROM streams ORDER BY stream_id"),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
@pytest.mark.parametrize("seed", range(4 * ROUNDS))
def test_a_process_killed_while_catching_up_leaves_rows_and_checkpoint_together(
    path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    events = random_events(250, seed)
    recorded = list(enumerate(events, 1))
    with Journal.open(path) as journal:
        journal.append_events(events)
    positions = []

    for _ in range(2):
        steps = int(2 ** draw.uniform(8, 15))
        with Child(catch_up_and_die, path, steps, draw.choice([10, 40, 200])) as child:
            child.wait_until_killed()
        positions.append(view_of(path)[0])
        check_views(path, plain_fold(recorded[: positions[-1]]), positions[-1])

    assert positions == sorted(positions)
    with Journal.open(path) as journal:
        check_right(journal)
        check_views(path, plain_fold(recorded), len(events))
        assert journal.rebuild(check=True)[0].changes == ()
        check_no_garbage(path)


# Several at once


def note_folded(note: Callable[[tuple[int, int, int]], None]) -> None:
    """Have every step that is folded into the file noted: build, position before and after."""
    fold_batch = projecting.Projector._fold_batch

    def noting(self: Any, connection: Any, states: Any, build: int, up_to: int) -> int:
        before = states.position
        after = fold_batch(self, connection, states, build, up_to)
        if after > before:
            note((build, before, after))
        return after

    projecting.Projector._fold_batch = noting  # type: ignore[method-assign]


def catch_up_noting(channel: Channel, path: Path, version: int) -> tuple[list[Any], list[int]]:
    projecting.EVENTS_AT_ONCE = 100
    projecting._WAIT_MS = 60_000  # nobody gives up and folds in memory
    LifecycleFold.version = version
    folded: list[Any] = []
    note_folded(folded.append)
    with Journal.open(path) as journal:
        channel.meet()
        counts = [len(answer) for answer in answers(journal)]
    return folded, counts


def check_folded_once(steps: list[tuple[int, int, int]], last: int) -> None:
    """Assert that steps lead from the first event to the last, without overlap, in one build."""
    assert len({build for build, _, _ in steps}) == 1
    end = 0
    for _, before, after in sorted(steps):
        assert before == end
        end = after
    assert end == last


def test_processes_that_catch_up_at_once_do_the_work_once(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_ndjson((DATA / "mixed" / "events.ndjson").read_text("utf-8").splitlines())
        expected = [len(answer) for answer in answers(journal, journal.last_position)]
    children = [Child(catch_up_noting, path, 1) for _ in range(3)]
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
        let_go(children)
        results = [child.receive() for child in children]

    with Journal.open(path) as journal:
        assert [counts for _, counts in results] == [expected] * 3
        check_folded_once([step for steps, _ in results for step in steps], journal.last_position)
        check_right(journal)
        check_no_garbage(path)


def test_processes_that_find_a_projection_stale_at_once_answer_right(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_ndjson((DATA / "mixed" / "events.ndjson").read_text("utf-8").splitlines())
        expected = [len(answer) for answer in answers(journal)]
    children = [Child(catch_up_noting, path, 2) for _ in range(3)]
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
        let_go(children)
        results = [child.receive() for child in children]

    assert [counts for _, counts in results] == [expected] * 3
    assert query(path, "SELECT DISTINCT version, live FROM projection") == [(2, 1)]


def test_threads_that_catch_up_at_once_do_the_work_once(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 20)
    monkeypatch.setattr(projecting, "_WAIT_MS", 60_000)
    monkeypatch.setattr(
        projecting.Projector, "_fold_batch", projecting.Projector._fold_batch
    )  # put back afterwards
    folded: list[Any] = []
    note_folded(folded.append)
    journal.append_events(random_events(500))
    start = threading.Barrier(4)

    def read() -> list[Any]:
        start.wait()
        return answers(journal)

    with ThreadPoolExecutor(4) as pool:
        results = [future.result() for future in [pool.submit(read) for _ in range(4)]]

    assert results == [answers(journal, 500)] * 4
    check_folded_once(folded, 500)
    check_no_garbage(path)


def after_each_write(journal: Journal, then: Callable[[], None]) -> None:
    """Have something done after each of a journal's own transactions."""
    write = journal._database.write

    @contextmanager
    def noting(*arguments: Any) -> Iterator[apsw.Connection]:
        with write(*arguments) as connection:
            yield connection
        then()

    journal._database.write = noting  # type: ignore[method-assign]


def once(function: Callable[[], object]) -> Callable[[], None]:
    """Return a function that does something the first time it is called."""
    left = [function]

    def call() -> None:
        if left:
            left.pop()()

    return call


def test_whoever_finds_that_another_has_begun_meanwhile_does_not_begin_again(
    journal: Journal, path: Path
) -> None:
    journal.append_events(random_events(50))
    is_stale = journal._projector._is_stale
    with Journal.open(path) as other:
        meanwhile = once(other.sessions)

        def asked(*arguments: Any) -> bool:
            meanwhile()
            return is_stale(*arguments)

        journal._projector._is_stale = asked  # type: ignore[method-assign]
        with recording_writes(journal) as statements:
            journal.sessions()

    assert not [sql for sql in statements if "INSERT" in sql]
    check_right(journal)


def test_whoever_finds_that_another_has_renewed_a_stale_projection_does_not_do_it_again(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_events(random_events(50))
    journal.sessions()
    monkeypatch.setattr(LifecycleFold, "version", 2)
    rebuild = journal._projector._rebuild
    with Journal.open(path) as other:
        meanwhile = once(other.sessions)

        def rebuilding(*args: Any, **options: Any) -> RebuildReport:
            meanwhile()
            return rebuild(*args, **options)

        journal._projector._rebuild = rebuilding  # type: ignore[method-assign]
        with recording_writes(journal) as statements:
            journal.sessions()

    check_right(journal)
    assert not [sql for sql in statements if "INSERT" in sql]


# Where the write lock is not to be had


def hold_lock(channel: Channel, path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN IMMEDIATE")
    channel.meet()
    connection.execute("ROLLBACK")
    connection.close()


@contextmanager
def locked_by_a_process(path: Path, _journal: Journal) -> Iterator[None]:
    with Child(hold_lock, path) as child:
        assert child.receive() == "ready"
        yield
        child.send("go")
        child.receive()


@contextmanager
def locked_by_a_thread(_path: Path, journal: Journal) -> Iterator[None]:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._database.write():
            held.set()
            assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(hold)
        assert held.wait(60)
        yield
        done.set()
        future.result()


@pytest.mark.parametrize("caught_up_to", [0, 30])
@pytest.mark.parametrize("locked", [locked_by_a_process, locked_by_a_thread])
def test_while_another_holds_the_lock_the_rest_is_folded_in_memory(
    journal: Journal,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    locked: Any,
    caught_up_to: int,
) -> None:
    monkeypatch.setattr(projecting, "_WAIT_MS", 20)
    events = random_events(60)
    journal.register(Projection("count", 1, 0, lambda count, _: count + 1))
    journal.append_events(events[:caught_up_to])
    if caught_up_to:
        answers(journal)
        journal.state("count")
    journal.append_events(events[caught_up_to:])
    before = stored(path)

    with locked(path, journal):
        expected = answers(journal, len(events))
        assert answers(journal) == expected
        assert journal.session(SESSIONS[0]) in expected[0]
        assert journal.stream(STREAMS[0]) in expected[1]
        assert journal.state("count") == 60
        assert [one.lag for one in journal.projections()] == [60 - caught_up_to] * 3
        assert stored(path) == before

    assert answers(journal) == expected
    assert journal.state("count") == 60
    assert [one.lag for one in journal.projections()] == [0] * 3
    journal.append_events(events)
    check_right(journal)


def test_a_stale_projection_is_folded_in_memory_while_another_holds_the_lock(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "_WAIT_MS", 20)
    journal.append_events(random_events(60))
    expected = answers(journal)
    change(path, "UPDATE projection_session SET event_count = 4711")
    monkeypatch.setattr(LifecycleFold, "version", 2)

    with locked_by_a_process(path, journal):
        assert answers(journal) == expected

    assert answers(journal) == expected
    assert query(path, "SELECT DISTINCT version FROM projection") == [(2,)]


def test_a_reader_who_renews_a_stale_projection_never_waits_long_for_the_lock(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_events(random_events(50))
    journal.sessions()
    monkeypatch.setattr(LifecycleFold, "version", 2)
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 10)
    write = journal._database.write
    waits = []

    def noting(wait_ms: int = opening.BUSY_TIMEOUT_MS) -> Any:
        waits.append(wait_ms)
        return write(wait_ms)

    monkeypatch.setattr(journal._database, "write", noting)

    journal.sessions()

    assert len(waits) > 5
    assert max(waits) <= projecting._WAIT_MS


# Staleness


def test_a_change_of_the_folds_version_makes_what_is_stored_stale_by_itself(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_events(random_events(60))
    expected = answers(journal)
    change(path, "UPDATE projection_session SET event_count = 4711")  # what the old fold made
    change(path, "DELETE FROM projection_anomaly")
    assert {one.event_count for one in journal.sessions()} == {4711}
    monkeypatch.setattr(LifecycleFold, "version", 2)
    said = [(one.name, one.version, one.position, one.stale) for one in journal.projections()]
    assert said == [("sessions", 1, 60, True), ("streams", 1, 60, True)]

    with Journal.open(path, read_only=True) as reader:
        assert answers(reader) == expected
        assert [one.stale for one in reader.projections()] == [True, True]
    assert answers(journal) == expected

    assert [(one.version, one.stale) for one in journal.projections()] == [(2, False)] * 2
    check_views(path, plain_fold([(one.position, one.event) for one in journal.read()]), 60)
    check_no_garbage(path)


def test_of_a_stale_projection_the_views_show_the_old_rows_until_the_new_are_complete(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_events(new_sessions(50))
    journal.sessions()
    monkeypatch.setattr(LifecycleFold, "version", 2)
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 10)
    seen = []
    sql = "SELECT count(*) FROM sessions"
    after_each_write(journal, lambda: seen.append(query(path, sql)[0][0]))

    journal.sessions()

    assert len(seen) > 5
    assert set(seen) == {50}


def test_programs_of_two_versions_at_once_do_not_both_show(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 10)
    journal.append_events(new_sessions(30))
    with Journal.open(path) as newer:
        newer._projector._lifecycle.version = 2
        after_each_write(journal, once(newer.sessions))
        journal.sessions()

        assert query(path, "SELECT count(*) FROM sessions") == [(30,)]


# Rebuilding


def test_a_rebuild_reports_progress_and_finds_nothing_changed(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 20)
    journal.append_events(random_events(50))
    expected = answers(journal)
    told: list[tuple[int, int]] = []

    (report,) = journal.rebuild(progress=lambda done, of: told.append((done, of)))

    assert told == [(20, 50), (40, 50), (50, 50)]
    assert report.projections == ("sessions", "streams")
    assert (report.event_count, report.change_count, report.changes) == (50, 0, ())
    assert report.seconds > 0
    assert answers(journal) == expected
    check_no_garbage(path)


def test_a_rebuild_of_what_was_never_read_has_nothing_to_compare_with(
    journal: Journal, path: Path
) -> None:
    assert journal.rebuild()[0].changes is None
    journal.append_events(random_events(50))
    with Journal.open(path) as other:
        other._projector._lifecycle.version = 2
        assert other.rebuild(["streams"])[0].changes is None
    check_right(journal)
    check_no_garbage(path)


def test_a_check_of_what_was_never_read_leaves_nothing(journal: Journal, path: Path) -> None:
    journal.append_events(random_events(50))

    assert journal.rebuild(check=True)[0].changes is None

    assert stored(path) == {table: [] for table in ("projection", *TABLES)}


def test_a_rebuild_names_what_it_rebuilds(journal: Journal) -> None:
    journal.append_events(random_events(5))
    journal.register(Projection("count", 1, 0, lambda count, _: count + 1))

    def rebuilt(names: list[str] | None) -> list[tuple[str, ...]]:
        return [report.projections for report in journal.rebuild(names)]

    assert rebuilt(None) == [("sessions", "streams"), ("count",)]
    assert rebuilt(["streams"]) == rebuilt(["sessions", "streams"]) == [("sessions", "streams")]
    assert rebuilt(["count"]) == [("count",)]
    assert rebuilt([]) == []
    with pytest.raises(UnknownProjectionError, match="'anomaly' is not registered"):
        journal.rebuild(["count", "anomaly"])


def append_until_told(channel: Channel, path: Path) -> int:
    count = 0
    with Journal.open(path, durability="normal") as journal:
        channel.meet()
        while not channel._connection.poll():
            journal.append_events(new_sessions(3))
            count += 3
    return count


def test_beside_a_rebuild_writers_write_and_readers_see_whole_states_only(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 300)
    journal.append_events(new_sessions(2_000))
    journal.sessions()
    stop = threading.Event()
    sql = "SELECT count(*), ifnull(min(as_of_position), 0), max(as_of_position) FROM sessions"

    def look_with_sql() -> int:
        looks, latest = 0, 2_000
        while not stop.is_set():
            ((count, least, position),) = query(path, sql)
            assert count == least == position >= latest
            looks, latest = looks + 1, position
        return looks

    def look_through_the_journal(reader: Journal) -> int:
        looks = 0
        while not stop.is_set():
            committed = reader.last_position
            assert len(reader.sessions()) >= committed
            looks += 1
        return looks

    def append() -> int:
        count = 0
        while not stop.is_set():
            journal.append_events(new_sessions(2))
            count += 2
            time.sleep(0.001)
        return count

    with (
        Child(append_until_told, path) as child,
        Journal.open(path, read_only=True) as reader,
        ThreadPoolExecutor(4) as pool,
    ):
        let_go([child])
        looking = [
            pool.submit(look_with_sql),
            pool.submit(look_through_the_journal, journal),
            pool.submit(look_through_the_journal, reader),
        ]
        appending = pool.submit(append)
        try:
            reports = [journal.rebuild()[0] for _ in range(3)]
        finally:
            stop.set()
        child.send("stop")
        looks = [future.result() for future in looking]
        appended = appending.result() + child.receive()

    assert [report.changes for report in reports] == [()] * 3
    assert min(looks) > 0
    assert appended > 0
    assert len(journal.sessions()) == journal.last_position == 2_000 + appended
    check_right(journal)
    check_no_garbage(path)


class PressedKeyError(Exception):
    pass


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("error", [PressedKeyError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [10, 30])
def test_an_interrupted_rebuild_leaves_the_old_in_place_and_no_rows(
    journal: Journal,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    at: int,
    check: bool,
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 10)
    journal.append_events(random_events(50))
    expected = answers(journal)
    before = stored(path)

    def progress(done: int, _of: int) -> None:
        assert stored(path)["projection"][:1] == before["projection"][:1]
        if done == at:
            raise error

    with pytest.raises(error):
        journal.rebuild(progress=progress, check=check)

    assert stored(path) == before
    assert answers(journal) == expected
    assert journal.rebuild()[0].changes == ()
    assert answers(journal) == expected
    check_no_garbage(path)


def rebuild_and_die(_channel: Channel, path: Path, steps: int, check: bool) -> None:
    projecting.EVENTS_AT_ONCE = 20
    journal = Journal.open(path)
    assert journal._database._writer is not None
    steps_then_death(journal._database._writer, steps)
    journal.rebuild(check=check)
    die()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
@pytest.mark.parametrize("seed", range(4 * ROUNDS))
def test_a_rebuild_that_was_killed_leaves_the_old_in_place_and_the_next_one_cleans_up(
    path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    events = random_events(200, seed)
    expected = plain_fold(list(enumerate(events, 1)))
    with Journal.open(path) as journal:
        journal.append_events(events)
        journal.sessions()

    for _ in range(3):
        steps = int(2 ** draw.uniform(8, 15))
        with Child(rebuild_and_die, path, steps, draw.random() < 0.3) as child:
            child.wait_until_killed()
        check_views(path, expected, 200)

    with Journal.open(path) as journal:
        check_right(journal)
        assert journal.rebuild(check=draw.random() < 0.5)[0].changes == ()
        check_right(journal)
        check_views(path, expected, 200)
        check_no_garbage(path)


def find_stale_and_die(_channel: Channel, path: Path, steps: int) -> None:
    LifecycleFold.version = 2
    projecting.EVENTS_AT_ONCE = 20
    journal = Journal.open(path)
    assert journal._database._writer is not None
    steps_then_death(journal._database._writer, steps)
    journal.sessions()
    die()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
def test_renewing_a_stale_projection_goes_on_where_a_killed_process_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = random_events(400)
    with Journal.open(path) as journal:
        journal.append_events(events)
        journal.sessions()
    steps = 2_000
    while not query(
        path, "SELECT 1 FROM projection WHERE NOT live AND position BETWEEN 20 AND 380"
    ):
        with Child(find_stale_and_die, path, steps) as child:
            child.wait_until_killed()
        steps = int(steps * 1.3)
    monkeypatch.setattr(LifecycleFold, "version", 2)
    monkeypatch.setattr(
        projecting.Projector, "_fold_batch", projecting.Projector._fold_batch
    )  # put back afterwards
    folded: list[Any] = []
    note_folded(folded.append)

    with Journal.open(path) as journal:
        check_right(journal)

    assert folded[0][1] >= 20
    check_views(path, plain_fold(list(enumerate(events, 1))), 400)
    check_no_garbage(path)


@pytest.mark.parametrize("check", [True, False])
def test_a_rebuild_finds_what_was_damaged(journal: Journal, path: Path, check: bool) -> None:
    journal.append_events(random_events(60))
    expected = answers(journal)
    anomaly = expected[2][0]
    first, *_ = expected[0]
    gone = expected[1][-1].stream_id
    for sql in [
        "UPDATE projection_session SET event_count = 4711 WHERE session = 1",
        "UPDATE projection_session SET priority_threshold = 7 WHERE session = 1",
        "DELETE FROM projection_stream WHERE stream = 4",
        f"UPDATE projection_anomaly SET reason = 'none' WHERE position = {anomaly.position}",
        """INSERT INTO projection_anomaly SELECT build, 4711, session, stream, event_type, state,
            reason FROM projection_anomaly LIMIT 1""",
    ]:
        change(path, sql)
    damaged = answers(journal)
    assert damaged != expected

    (report,) = journal.rebuild(check=check)

    assert report.changes is not None
    found = {(one.projection, one.key, one.column, one.old, one.new) for one in report.changes}
    assert found == {
        ("sessions", str(first.session_id), "event_count", 4711, first.event_count),
        ("sessions", str(first.session_id), "priority_threshold", 7, None),
        ("streams", str(gone), None, "missing", "present"),
        ("anomalies", str(anomaly.position), "reason", "none", anomaly.reason),
        ("anomalies", "4711", None, "present", "missing"),
    }
    assert report.change_count == 5
    assert answers(journal) == (damaged if check else expected)
    check_no_garbage(path)


def test_a_rebuild_reports_the_first_thousand_changes_and_counts_all(
    journal: Journal, path: Path
) -> None:
    journal.append_events(new_sessions(1_500))
    journal.sessions()
    change(path, "UPDATE projection_session SET anomalies = 7")

    (report,) = journal.rebuild()

    assert report.changes is not None
    assert (len(report.changes), report.change_count) == (1_000, 1_500)


_BEYOND_READING = {
    "a stream is missing that is to be cancelled": "DELETE FROM projection_stream",
    "what is to be JSON is not": "UPDATE projection_session SET live_streams = 'nonsense'",
    "a counter is text": "UPDATE projection_session SET event_count = 'many'",
    "a session is not of this file": (
        "INSERT INTO projection_session SELECT build, 999, state, activated_at, ended_at,"
        " expires_at, event_count, total_streams, completed_streams, failed_streams,"
        " cancelled_streams, priority_threshold, batched_frames, metrics, anomalies, last_seq,"
        " NULL FROM projection_session"
    ),
}


@pytest.mark.parametrize("sql", _BEYOND_READING.values(), ids=_BEYOND_READING.keys())
def test_a_rebuild_replaces_rows_that_cannot_even_be_read(
    journal: Journal, path: Path, sql: str
) -> None:
    session_id, stream_id = SessionId.new(), StreamId.new()
    place = {"session_id": session_id, "stream_id": stream_id}
    journal.append_events([activated(session_id), StreamCreated(**place, timestamp=NOON)])
    journal.sessions()
    change(path, sql)
    journal.append_events([SessionClosed(session_id=session_id, timestamp=NOON)])

    journal.rebuild()

    check_right(journal)
    check_no_garbage(path)


def test_a_rebuild_that_begins_ends_the_one_that_was_under_way(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 10)
    journal.append_events(random_events(50))
    expected = answers(journal)
    second: list[RebuildReport] = []

    with Journal.open(path) as other:
        meanwhile = once(lambda: second.extend(other.rebuild()))
        with pytest.raises(RebuildInterruptedError, match="another rebuild of projection 'session"):
            journal.rebuild(progress=lambda *_: meanwhile())

    assert second[0].changes == ()
    assert answers(journal) == expected
    assert journal.rebuild()[0].changes == ()
    check_no_garbage(path)


def test_what_one_rebuild_sweeps_is_not_what_another_makes(journal: Journal, path: Path) -> None:
    """A number of a build that is gone may be given again while somebody still sweeps it."""
    journal.append_events(random_events(50))
    journal.sessions()
    dead_builds = journal._projector._dead_builds
    with Journal.open(path) as other:
        projector = other._projector

        def begin_anew() -> None:
            other.rebuild(check=True)  # which sweeps, too
            with other._database.write() as connection:
                build = projector._add_build(connection, projector._lifecycle, live=False)
                states = projector._lifecycle.states(connection, build, 0)
                projector._fold_batch(connection, states, build, 30)

        meanwhile = once(begin_anew)

        def listed(table: str) -> list[int]:
            found = dead_builds(table)
            meanwhile()
            return found

        journal._projector._dead_builds = listed  # type: ignore[method-assign]
        journal.rebuild(check=True)

        latest = "SELECT max(build) FROM projection"
        half = f"SELECT count(*) FROM projection_session WHERE build = ({latest})"
        assert query(path, half) == [(len(journal.sessions(as_of=30)),)]


def test_a_rebuild_never_goes_on_with_the_build_of_another_projection(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "EVENTS_AT_ONCE", 10)
    count = Projection("count", 1, 0, lambda number, _: number + 1)
    journal.append_events(random_events(50))
    journal.sessions()
    expected = answers(journal)
    begun, go_on = threading.Event(), threading.Event()

    def rebuild_sessions() -> None:
        def progress(_done: int, _of: int) -> None:
            begun.set()
            assert go_on.wait(60)

        with suppress(RebuildInterruptedError):
            journal.rebuild(["sessions"], progress=progress)

    with Journal.open(path) as other, ThreadPoolExecutor(1) as pool:
        other.register(count)
        assert other.state("count") == 50
        rebuilding = pool.submit(rebuild_sessions)
        assert begun.wait(60)
        other.rebuild(["sessions"], check=True)  # ends the one under way

        def let_it_go_on() -> None:
            go_on.set()
            rebuilding.result()

        meanwhile = once(let_it_go_on)
        try:
            other.rebuild(["count"], progress=lambda *_: meanwhile())
        finally:
            go_on.set()

        assert other.state("count") == 50
        assert answers(other) == expected
        assert query(path, "SELECT count(*) FROM sessions") == [(len(SESSIONS),)]
        assert query(path, "SELECT state FROM projection_states") == [("50",)]


def rebuild_until_told(channel: Channel, path: Path, seed: int) -> int:
    projecting.EVENTS_AT_ONCE = 7
    draw = random.Random(seed)
    rebuilt = 0
    with Journal.open(path, durability="normal") as journal:
        channel.meet()
        while not channel._connection.poll():
            try:
                for report in journal.rebuild(check=draw.random() < 0.5):
                    assert report.changes in (None, ())
                rebuilt += 1
            except RebuildInterruptedError:
                pass
            if draw.random() < 0.3:
                journal.append_events(random_events(3, seed))
            if draw.random() < 0.3:
                check_views_now(path)
    return rebuilt


def check_views_now(path: Path) -> None:
    sql = (
        "SELECT (SELECT count(*) FROM sessions), (SELECT sum(event_count) FROM sessions),"
        " (SELECT position FROM projection WHERE name = 'sessions' AND live)"
    )
    ((sessions, events, position),) = query(path, sql)
    assert sessions == len(SESSIONS)
    assert events == position


def test_processes_that_rebuild_without_end_do_each_other_no_harm(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events(random_events(60))
        check_right(journal)
    children = [Child(rebuild_until_told, path, seed) for seed in range(3)]
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
        let_go(children)
        time.sleep(1.5 * ROUNDS)
        for child in children:
            child.send("stop")
        rebuilt = [child.receive() for child in children]

    assert sum(rebuilt) > 0
    with Journal.open(path) as journal:
        check_right(journal)
        assert journal.rebuild()[0].changes == ()
        check_right(journal)
        check_no_garbage(path)


# As of a moment


@pytest.mark.parametrize(
    "as_of", [-1, True, 1.5, "2026-01-01T12:00:00Z", NOON.replace(tzinfo=None)]
)
def test_as_of_is_a_position_or_an_aware_datetime(journal: Journal, as_of: Any) -> None:
    journal.register(Projection("count", 1, 0, lambda count, _: count + 1))
    journal.append_events(random_events(5))
    for ask in (
        lambda: journal.session(SESSIONS[0], as_of=as_of),
        lambda: journal.stream(STREAMS[0], as_of=as_of),
        lambda: journal.sessions(as_of=as_of),
        lambda: journal.streams(as_of=as_of),
        lambda: journal.streams(SESSIONS[0], as_of=as_of),
        lambda: journal.anomalies(as_of=as_of),
        lambda: journal.state("count", as_of=as_of),
        lambda: journal.states("count", as_of=as_of),
    ):
        with pytest.raises(ValueError, match=r"as_of|offset"):
            ask()


def test_as_of_is_checked_in_an_empty_journal_too(journal: Journal) -> None:
    with pytest.raises(ValueError, match="as_of"):
        journal.sessions(as_of=-1)


def test_as_of_a_position_later_than_the_last_is_now(journal: Journal) -> None:
    journal.append_events(random_events(50))

    assert answers(journal, 2**70) == answers(journal)


def test_as_of_needs_no_projection_and_leaves_none(journal: Journal, path: Path) -> None:
    journal.append_events(random_events(50))
    before = stored(path)

    answers(journal, 30)

    assert stored(path) == before
    assert before["projection"] == []


# Read-only


@pytest.mark.parametrize("caught_up_to", [0, 30, 60])
def test_a_read_only_journal_folds_in_memory_and_writes_nothing(
    path: Path, caught_up_to: int
) -> None:
    events = random_events(60)
    with Journal.open(path) as journal:
        journal.append_events(events[:caught_up_to])
        if caught_up_to:
            journal.sessions()
        journal.append_events(events[caught_up_to:])
        expected = answers(journal, 60)
        was_stored = stored(path)
    before = bytes_in(path.parent)

    with Journal.open(path, read_only=True) as reader:
        reader.register(Projection("count", 1, 0, lambda count, _: count + 1))
        assert answers(reader) == expected
        assert answers(reader, 20) == answers(reader, 20)
        assert reader.session(SESSIONS[1]) in expected[0]
        assert reader.stream(STREAMS[1]) in expected[1]
        assert reader.state("count") == 60
        assert [one.lag for one in reader.projections()] == [
            60,
            60 - caught_up_to,
            60 - caught_up_to,
        ]
        for check in (False, True):
            with pytest.raises(ReadOnlyError):
                reader.rebuild(check=check)

    assert bytes_in(path.parent)["a.db"] == before["a.db"]
    assert stored(path) == was_stored


def test_a_read_only_journal_without_projection_tables_folds_everything(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events(random_events(60))
        expected = answers(journal, 60)
    for view in ("sessions", "streams", "projection_states"):
        change(path, f"DROP VIEW {view}")
    for table in ("projection", *TABLES):
        change(path, f"DROP TABLE {table}")

    with Journal.open(path, read_only=True) as reader:
        assert answers(reader) == expected
        assert [(one.position, one.lag) for one in reader.projections()] == [(0, 60)] * 2
    with Journal.open(path) as journal:  # gets them by being opened for writing
        assert answers(journal) == expected
        check_right(journal)


def test_a_read_only_journal_sees_what_others_append_and_catch_up(path: Path) -> None:
    with Journal.open(path) as journal, Journal.open(path, read_only=True) as reader:
        for number in range(10):
            journal.append_events(random_events(7, seed=number))
            if number % 3 == 0:
                journal.streams()
            if number % 4 == 0:
                journal.rebuild()
            assert answers(reader) == answers(journal, journal.last_position)


# Damage


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE event SET data = NULL",
        "UPDATE event SET data = '[1]'",
        "UPDATE event SET kind = 1",
        "UPDATE event SET stream = NULL",
    ],
)
def test_an_event_that_was_damaged_is_named(journal: Journal, path: Path, sql: str) -> None:
    place = {"session_id": SESSIONS[0], "stream_id": STREAMS[0], "timestamp": NOON}
    fields = {"frame_count": 1, "total_bytes": 2, "highest_priority": 3}
    journal.append_events([PatchFramesGenerated(**place, **fields)])
    change(path, f"DROP TRIGGER event_is_never_updated; {sql}")

    with pytest.raises(DamagedError, match="position 1 is damaged"):
        journal.sessions()
