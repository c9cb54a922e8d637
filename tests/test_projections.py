"""How projections live: catching up, checkpoints, staleness, rebuilding beside readers and writers,
as of a moment, read-only files; by threads, by processes, and by processes that are killed.

What they say is the matter of `test_lifecycle`; an application's own are that of
`test_own_projections`.
"""

import gc
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import (
    NOON,
    ROUNDS,
    Channel,
    Child,
    activated,
    bytes_in,
    die,
    fold_in_steps,
    let_go,
    lines_of,
    unfold,
)
from test_lifecycle import SESSIONS, STREAMS, check_views, open_new, plain_fold

from journal import (
    DamagedError,
    FramesBatched,
    Journal,
    PatchFramesGenerated,
    Projection,
    ReadOnlyError,
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
    limits,
)
from journal.events import AnyEvent
from journal.file import lock_waits
from journal.file.extent import Extent
from journal.projections import RebuildReport, catching_up, lifecycle_states, rebuilding, tables
from journal.projections.lifecycle_states import LifecycleFold, LifecycleStates
from journal.projections.own_states import OwnStates

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
        for table in ("checkpoint", *TABLES)
    }


@cache
def new_schema() -> list[Any]:
    """Return what a new journal is made of."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        Journal.open(path).close()
        return query(path, _SCHEMA_SQL)


_SCHEMA_SQL = "SELECT type, name FROM sqlite_schema ORDER BY 1, 2"


def check_nothing_left(path: Path) -> None:
    """Assert that whoever folded has left rows of what is kept and nothing else, also beside."""
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, _SCHEMA_SQL) == new_schema()
    beside = {found.name for found in path.parent.iterdir()} - {path.name}
    assert beside <= {f"{path.name}-wal", f"{path.name}-shm"}
    kept = {name for (name,) in query(path, "SELECT name FROM checkpoint")}
    assert ("sessions" in kept) == ("streams" in kept)
    for table in TABLES:
        owner = "projection" if table == "projection_state" else "'sessions'"
        owners = query(path, f"SELECT DISTINCT {owner} FROM {table}")
        assert {name for (name,) in owners} <= kept, table


_SPOIL_SQL = """
    UPDATE projection_session SET batched_frames = batched_frames + 4711;
    DELETE FROM projection_stream WHERE stream = (SELECT max(stream) FROM projection_stream);
    DELETE FROM projection_anomaly;
"""


def spoil(path: Path) -> dict[str, list[Any]]:
    """Make rows wrong, so that it shows whether a rebuild has replaced them; return all rows."""
    change(path, _SPOIL_SQL)
    return stored(path)


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


def watch_rebuilds(journal: Journal, each: Callable[[apsw.Connection], object]) -> None:
    """Have a look at every connection that a journal folds with beside the file's rows."""
    aside = journal._database.aside

    @contextmanager
    def watched() -> Iterator[apsw.Connection]:
        with aside() as connection:
            each(connection)
            yield connection

    journal._database.aside = watched  # type: ignore[method-assign]


@contextmanager
def recording_rebuilds(journal: Journal) -> Iterator[list[str]]:
    """Collect every statement of the connections that a journal folds with beside."""
    aside = journal._database.aside
    statements: list[str] = []

    def record(_cursor: object, sql: str, _bindings: object) -> bool:
        statements.append(sql)
        return True

    watch_rebuilds(journal, lambda connection: connection.set_exec_trace(record))
    try:
        yield statements
    finally:
        journal._database.aside = aside  # type: ignore[method-assign]


def row_changes(statements: list[str]) -> list[str]:
    """Return the statements that change rows of the file, but for how far they are."""
    changing = ("INSERT", "DELETE", "UPDATE", "REPLACE")
    return [
        sql
        for sql in statements
        if sql.startswith(changing) and "projection_" in sql and "INTO temp." not in sql
    ]


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
                assert steps["scanned"] < 100  # most of them kinds

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
    fold_in_steps(monkeypatch, 10)
    journal.append_events(new_sessions(35))

    with recording_writes(journal) as statements:
        journal.sessions()

    assert statements.count("COMMIT") == 4
    *transactions, rest = " ".join(statements).split("COMMIT")
    assert all("INSERT OR REPLACE INTO checkpoint (" in sql for sql in transactions)
    assert "INSERT" not in rest


def test_memory_follows_the_states_in_use(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_in_steps(monkeypatch, 50)
    monkeypatch.setattr(lifecycle_states, "_ENDED_IN_MEMORY_MAX", 100)
    held = []
    write = lifecycle_states.LifecycleStates.write

    def noting(states: lifecycle_states.LifecycleStates) -> None:
        write(states)
        held.append(len(states.lifecycle.sessions) + len(states.lifecycle.streams))

    monkeypatch.setattr(lifecycle_states.LifecycleStates, "write", noting)
    make_room = lifecycle_states.LifecycleStates.make_room

    def noting_room(states: lifecycle_states.LifecycleStates) -> None:
        make_room(states)
        held.append(len(states.lifecycle.sessions) + len(states.lifecycle.streams))

    monkeypatch.setattr(lifecycle_states.LifecycleStates, "make_room", noting_room)
    for _ in range(30):
        session_ids = [SessionId.new() for _ in range(20)]
        journal.append_events([activated(one) for one in session_ids])
        ended = [SessionClosed(session_id=one, timestamp=NOON) for one in session_ids]
        journal.append_events(ended)
    late = FramesBatched(session_id=session_ids[0], frame_count=5, timestamp=NOON)
    journal.append_events([late])

    journal.sessions()
    steps = len(held)
    (report,) = journal.rebuild()

    assert len(held) > 2 * steps > 40
    assert max(held) <= 150
    assert report.changes == ()
    session = journal.session(session_ids[0])
    assert session is not None
    assert (session.batched_frames, session.event_count) == (5, 3)
    check_right(journal)


def test_states_are_freed_when_a_query_is_done(journal: Journal) -> None:
    """By the end of the query, and not when Python looks for circles: they hold a connection."""
    journal.append_events(random_events(50))
    journal.register(Projection("count", 1, 0, lambda count, _: count + 1))
    gc.collect()
    gc.disable()
    try:
        answers(journal)
        answers(journal, 20)
        journal.state("count")
        journal.rebuild()
        left = [one for one in gc.get_objects() if isinstance(one, LifecycleStates | OwnStates)]
    finally:
        gc.enable()

    assert left == []


# Killed in the middle


def steps_then_death(connection: apsw.Connection, steps: int) -> None:
    """Kill this process once the connection has done so many virtual machine steps."""
    connection.set_progress_handler(die, max(1, steps))


def catch_up_and_die(_channel: Channel, path: Path, steps: int, events_at_once: int) -> None:
    limits.FOLD_EVENTS_MAX = rebuilding._EVENTS_AT_ONCE = events_at_once
    journal = Journal.open(path)
    assert journal._database._writer is not None
    steps_then_death(journal._database._writer, steps)
    journal.sessions()
    die()


def view_of(path: Path) -> tuple[int, list[Any], list[Any]]:
    """Return how far the views are, and what they say."""
    found = query(path, "SELECT position FROM checkpoint WHERE name = 'sessions'")
    position = found[0][0] if found else 0
    return (
        position,
        query(path, "SELECT * FROM sessions ORDER BY session_id"),
        query(path, "SELECT * FROM streams ORDER BY stream_id"),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
@pytest.mark.parametrize("seed", range(2 * ROUNDS))
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
    check_nothing_left(path)


# Several at once


Step = tuple[str, int, int]


def note_folded(note: Callable[[Step], None]) -> None:
    """Have every step noted that is folded into tables: which, position before and after."""
    fold_next = tables.fold_next

    def noting(
        connection: apsw.Connection, states: Any, extent: Extent, end: int, *which: Any
    ) -> None:
        before = states.position
        fold_next(connection, states, extent, end, *which)
        if states.position != before:
            note((states._schema, before, states.position))

    catching_up.fold_next = rebuilding.fold_next = noting


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """The steps folded in this process."""
    for module in (catching_up, rebuilding):  # put back afterwards
        monkeypatch.setattr(module, "fold_next", module.fold_next)
    steps: list[Step] = []
    note_folded(steps.append)
    return steps


def catch_up_noting(channel: Channel, path: Path, version: int) -> tuple[list[Step], list[int]]:
    limits.FOLD_EVENTS_MAX = rebuilding._EVENTS_AT_ONCE = 100
    catching_up.WAIT_MS = 60_000  # nobody gives up and folds in memory
    LifecycleFold.version = version
    folded: list[Step] = []
    note_folded(folded.append)
    with Journal.open(path) as journal:
        channel.meet()
        counts = [len(answer) for answer in answers(journal)]
    return folded, counts


def check_folded_once(steps: list[Step], last: int, schema: str = "main") -> None:
    """Assert that steps lead from the first event to the last, without overlap, in one place."""
    assert {where for where, _, _ in steps} == {schema}
    end = 0
    for _, before, after in sorted(steps):
        assert before == end < after
        end = after
    assert end == last


def test_processes_that_catch_up_at_once_do_the_work_once(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_ndjson((DATA / "mixed" / "events.ndjson").read_text("utf-8").splitlines())
        expected = [len(answer) for answer in answers(journal, journal.last_position)]
    unfold(path)
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
    check_nothing_left(path)


def test_processes_that_find_a_projection_stale_at_once_answer_right(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(path) as journal:
        journal.append_ndjson((DATA / "mixed" / "events.ndjson").read_text("utf-8").splitlines())
        expected = [len(answer) for answer in answers(journal)]
        last = journal.last_position
    spoil(path)
    children = [Child(catch_up_noting, path, 2) for _ in range(3)]
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
        let_go(children)
        results = [child.receive() for child in children]

    assert [counts for _, counts in results] == [expected] * 3
    # Several may do the work, but each of them beside, and all of it.
    worked = [steps for steps, _ in results if steps]
    assert worked
    for steps in worked:
        check_folded_once(steps, last, "temp")
    assert query(path, "SELECT DISTINCT version, position FROM checkpoint") == [(2, last)]
    monkeypatch.setattr(LifecycleFold, "version", 2)
    with Journal.open(path) as journal:
        check_right(journal)
        assert journal.rebuild(check=True)[0].changes == ()
    check_nothing_left(path)


def test_threads_that_catch_up_at_once_do_the_work_once(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, folded: list[Step]
) -> None:
    fold_in_steps(monkeypatch, 20)
    monkeypatch.setattr(catching_up, "WAIT_MS", 60_000)
    journal.append_events(random_events(500))
    start = threading.Barrier(4)

    def read() -> list[Any]:
        start.wait()
        return answers(journal)

    with ThreadPoolExecutor(4) as pool:
        results = [future.result() for future in [pool.submit(read) for _ in range(4)]]

    check_folded_once(folded, 500)
    assert results == [answers(journal, 500)] * 4
    check_nothing_left(path)


def after_each_write(journal: Journal, then: Callable[[], None]) -> None:
    """Have something done after each of a journal's own transactions."""
    write = journal._database.write

    @contextmanager
    def noting(*arguments: Any, **options: Any) -> Iterator[apsw.Connection]:
        with write(*arguments, **options) as connection:
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


def before_calling(monkeypatch: pytest.MonkeyPatch, name: str, then: Callable[[], object]) -> None:
    """Have something done, once, after a journal has seen that it has to catch up.

    It is done before the function of `catching_up` that does so.
    """
    function = getattr(catching_up, name)
    meanwhile = once(then)

    def noting(*arguments: Any, **options: Any) -> Any:
        meanwhile()
        return function(*arguments, **options)

    monkeypatch.setattr(catching_up, name, noting)


def test_whoever_finds_that_another_has_begun_meanwhile_does_not_begin_again(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, folded: list[Step]
) -> None:
    journal.append_events(random_events(50))
    with Journal.open(path) as other:
        before_calling(monkeypatch, "_fold_live", other.sessions)
        with recording_writes(journal) as statements:
            journal.sessions()

    check_folded_once(folded, 50)
    assert not [sql for sql in statements if "projection_" in sql]
    check_right(journal)


def test_whoever_finds_that_another_has_come_further_meanwhile_leaves_it_there(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, folded: list[Step]
) -> None:
    journal.append_events(random_events(50))
    with Journal.open(path) as other:

        def go_further() -> None:
            other.append_events(random_events(10, seed=2))
            other.sessions()

        before_calling(monkeypatch, "_fold_live", go_further)
        journal.sessions()

    check_folded_once(folded, 60)
    assert query(path, "SELECT DISTINCT position FROM checkpoint") == [(60,)]
    check_right(journal)


def append_and_look(channel: Channel, path: Path, seed: int) -> int:
    limits.FOLD_EVENTS_MAX = rebuilding._EVENTS_AT_ONCE = 5
    count = 0
    with Journal.open(path, durability="normal") as journal:
        channel.meet()
        while not channel._connection.poll():
            journal.append_events(random_events(7, seed + count))
            count += 7
            journal.sessions()
            check_views_now(path)
    return count


def test_processes_that_append_and_catch_up_at_once_count_every_event_once(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events(busy_sessions(1) + [activated(one) for one in SESSIONS])
        before = journal.last_position
        journal.sessions()
    children = [Child(append_and_look, path, seed) for seed in range(3)]
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
        let_go(children)
        time.sleep(0.4 * ROUNDS)
        for child in children:
            child.send("stop")
        counts = [child.receive() for child in children]

    with Journal.open(path) as journal:
        assert journal.last_position == before + sum(counts)
        check_right(journal)
        assert journal.rebuild(check=True)[0].changes == ()
    check_nothing_left(path)


def test_whoever_finds_that_another_has_renewed_a_stale_projection_leaves_the_rows(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_events(random_events(50))
    journal.sessions()
    monkeypatch.setattr(LifecycleFold, "version", 2)
    with Journal.open(path) as other:
        before_calling(monkeypatch, "rebuild_one", other.sessions)
        with recording_rebuilds(journal) as statements:
            journal.sessions()

    check_right(journal)
    assert any("temp.projection_session" in sql for sql in statements)
    assert row_changes(statements) == []


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
    monkeypatch.setattr(catching_up, "WAIT_MS", 20)
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
    monkeypatch.setattr(catching_up, "WAIT_MS", 20)
    journal.append_events(random_events(60))
    expected = answers(journal)
    change(path, "UPDATE projection_session SET event_count = 4711")
    monkeypatch.setattr(LifecycleFold, "version", 2)

    before = stored(path)

    with locked_by_a_process(path, journal):
        began = time.monotonic()
        assert answers(journal) == expected
        assert time.monotonic() - began < 30  # others wait for a minute
        assert stored(path) == before

    assert answers(journal) == expected
    assert query(path, "SELECT DISTINCT version FROM checkpoint") == [(2,)]
    check_nothing_left(path)


def test_a_reader_who_renews_a_stale_projection_never_waits_long_for_the_lock(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_events(random_events(50))
    journal.sessions()
    monkeypatch.setattr(LifecycleFold, "version", 2)
    fold_in_steps(monkeypatch, 10)
    write = journal._database.write
    waits = []

    def noting(wait_ms: int = lock_waits.BUSY_TIMEOUT_MS, **options: Any) -> Any:
        waits.append(wait_ms)
        return write(wait_ms, **options)

    monkeypatch.setattr(journal._database, "write", noting)

    journal.sessions()

    assert [one.stale for one in journal.projections()] == [False, False]
    assert waits
    assert max(waits) <= catching_up.WAIT_MS


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
    check_nothing_left(path)


def test_of_a_stale_projection_the_views_show_the_old_rows_until_the_new_are_complete(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_events(new_sessions(50))
    journal.sessions()
    change(path, "UPDATE projection_session SET event_count = 4711")  # what the old fold made
    monkeypatch.setattr(LifecycleFold, "version", 2)
    fold_in_steps(monkeypatch, 10)
    sql = "SELECT count(*), min(event_count), max(event_count), max(as_of_position) FROM sessions"
    seen: list[Any] = []
    replace = rebuilding._replace

    def looking(connection: apsw.Connection) -> None:
        connection.set_exec_trace(lambda *_: seen.append(query(path, sql)[0]) is None)

    def replacing(*arguments: Any) -> None:
        replace(*arguments)
        seen.append("replaced")

    watch_rebuilds(journal, looking)
    monkeypatch.setattr(rebuilding, "_replace", replacing)

    journal.sessions()

    assert len(seen) > 20
    assert set(seen) == {(50, 4711, 4711, 50), "replaced"}
    assert seen[-1] != "replaced"  # so others looked when all was there, but for the commit
    assert query(path, sql) == [(50, 1, 1, 50)]


def test_programs_of_two_versions_at_once_do_not_both_show(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_in_steps(monkeypatch, 10)
    journal.append_events(new_sessions(30))
    with Journal.open(path) as newer:
        newer._projections._lifecycle.version = 2
        after_each_write(journal, once(newer.sessions))
        journal.sessions()

        assert query(path, "SELECT count(*) FROM sessions") == [(30,)]
        assert query(path, "SELECT DISTINCT version, position FROM checkpoint") == [(2, 30)]
        check_right(newer)


# Rebuilding


def test_a_rebuild_reports_progress_and_finds_nothing_changed(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_in_steps(monkeypatch, 20)
    journal.append_events(random_events(50))
    expected = answers(journal)
    told: list[tuple[int, int]] = []

    (report,) = journal.rebuild(progress=lambda done, of: told.append((done, of)))

    assert told == [(20, 50), (40, 50), (50, 50)]
    assert report.projections == ("sessions", "streams")
    assert (report.event_count, report.change_count, report.changes) == (50, 0, ())
    assert report.seconds > 0
    assert answers(journal) == expected
    check_nothing_left(path)


def wal_pages(path: Path) -> int:
    """Return how many pages were written since the -wal was emptied."""
    ((page_bytes,),) = query(path, "PRAGMA page_size")
    wal_bytes = path.with_name(f"{path.name}-wal").stat().st_size
    return max(0, wal_bytes - 32) // (page_bytes + 24)


@pytest.mark.parametrize("check", [True, False])
def test_a_rebuild_that_finds_nothing_changed_leaves_the_rows(
    journal: Journal, path: Path, check: bool
) -> None:
    journal.append_events(busy_sessions(1_000))
    journal.sessions()
    before = stored(path)
    change(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert wal_pages(path) == 0

    with recording_rebuilds(journal) as statements:
        (report,) = journal.rebuild(check=check)

    assert report.changes == ()
    assert row_changes(statements) == []
    assert wal_pages(path) <= 3  # how far it is, and which -wal this is
    assert stored(path) == before
    spoil(path)
    change(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    journal.rebuild()
    assert wal_pages(path) > 20
    assert stored(path) == before


def test_a_rebuild_of_what_was_never_read_has_nothing_to_compare_with(
    journal: Journal, path: Path
) -> None:
    assert journal.rebuild()[0].changes is None
    journal.append_events(random_events(50))
    with Journal.open(path) as other:
        other._projections._lifecycle.version = 2
        assert other.rebuild(["streams"])[0].changes is None
    check_right(journal)
    check_nothing_left(path)


def test_a_check_of_what_was_never_read_leaves_nothing(journal: Journal, path: Path) -> None:
    journal.append_events(random_events(50))

    assert journal.rebuild(check=True)[0].changes is None

    assert stored(path) == {table: [] for table in ("checkpoint", *TABLES)}
    check_nothing_left(path)


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


def append_when_told(channel: Channel, path: Path) -> None:
    with Journal.open(path, durability="normal") as journal:
        channel.meet()
        while channel.receive() == "append":
            journal.append_events(new_sessions(3))
            channel.send(journal.last_position)


@pytest.mark.parametrize("check", [True, False])
def test_a_rebuild_does_not_hold_the_lock_while_it_folds(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    fold_in_steps(monkeypatch, 10)
    journal.append_events(new_sessions(50))
    journal.sessions()
    spoil(path)
    done_when_appended = []

    with Child(append_when_told, path) as child:
        let_go([child])

        def progress(done: int, of: int) -> None:
            if done < of:
                child.send("append")  # the rebuild goes on when that is committed
                assert child.receive() == of + 3
                done_when_appended.append(done)

        (report,) = journal.rebuild(check=check, progress=progress)
        child.send("stop")

    assert done_when_appended == [10, 20, 30, 40, 50, 60]
    assert report.event_count == journal.last_position == 50 + 6 * 3
    assert report.change_count == 50  # every one of the old rows, none of the new ones
    assert query(path, "SELECT DISTINCT position FROM checkpoint") == [(68,)]
    if check:
        journal.rebuild()
    check_right(journal)
    check_nothing_left(path)


@pytest.mark.parametrize("check", [True, False])
def test_a_rebuild_takes_in_what_was_appended_until_its_last_transaction(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    fold_in_steps(monkeypatch, 10)
    journal.append_events(random_events(50))
    journal.sessions()
    change(path, "UPDATE projection_session SET priority_threshold = 7 WHERE session = 2")
    write = journal._database.write
    with Journal.open(path) as other:
        meanwhile = once(lambda: other.append_events(random_events(35, seed=2)))

        def writing(*arguments: Any, **options: Any) -> Any:
            if "through" in options:
                meanwhile()
            return write(*arguments, **options)

        monkeypatch.setattr(journal._database, "write", writing)
        (report,) = journal.rebuild(check=check)

    assert (report.event_count, report.change_count) == (85, 1)
    assert query(path, "SELECT DISTINCT position FROM checkpoint") == [(85,)]
    assert journal.rebuild()[0].change_count == int(check)
    check_right(journal)


def test_beside_a_rebuild_writers_write_and_readers_see_whole_states_only(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_in_steps(monkeypatch, 300)
    journal.append_events(new_sessions(2_000))
    journal.sessions()
    stop = threading.Event()
    sql = "SELECT count(*), ifnull(min(as_of_position), 0), max(as_of_position) FROM sessions"

    def look_with_sql() -> int:
        looks, latest = 0, 2_000
        while not stop.is_set() or not looks:
            ((count, least, position),) = query(path, sql)
            assert count == least == position >= latest
            looks, latest = looks + 1, position
        return looks

    def look_through_the_journal(reader: Journal) -> int:
        looks = 0
        while not stop.is_set() or not looks:
            committed = reader.last_position
            assert len(reader.sessions()) >= committed
            looks += 1
        return looks

    def append() -> int:
        count = 0
        while not stop.is_set() or not count:
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
        reports = []
        try:
            for damaged in (False, True, False, True):
                if damaged:  # so that all rows are replaced
                    change(
                        path,
                        "UPDATE projection_session SET priority_threshold = 7 WHERE session = 2",
                    )
                reports += journal.rebuild()
        finally:
            stop.set()
        child.send("stop")
        looks = [future.result() for future in looking]
        appended = appending.result() + child.receive()

    assert [report.change_count for report in reports] == [0, 1, 0, 1]
    assert min(looks) > 0
    assert appended > 0
    assert len(journal.sessions()) == journal.last_position == 2_000 + appended
    check_right(journal)
    check_nothing_left(path)


class PressedKeyError(Exception):
    pass


ERRORS = [PressedKeyError, KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("at", [10, 30])
def test_an_interrupted_rebuild_leaves_the_old_in_place_and_nothing_else(
    journal: Journal,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    at: int,
    check: bool,
) -> None:
    fold_in_steps(monkeypatch, 10)
    journal.append_events(random_events(50))
    expected = answers(journal)
    before = spoil(path)

    def progress(done: int, _of: int) -> None:
        assert stored(path) == before
        if done == at:
            raise error

    with pytest.raises(error):
        journal.rebuild(progress=progress, check=check)

    assert stored(path) == before
    check_nothing_left(path)
    assert journal.rebuild()[0].change_count > 0
    assert answers(journal) == expected
    check_nothing_left(path)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("at", ["_compared", "_replace", "write_checkpoints"])
def test_a_rebuild_interrupted_in_its_last_transaction_leaves_the_old_in_place(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, at: str
) -> None:
    journal.append_events(random_events(50))
    expected = answers(journal)
    before = spoil(path)
    function = getattr(rebuilding, at)

    def interrupted(*arguments: Any) -> None:
        function(*arguments)
        raise error

    monkeypatch.setattr(rebuilding, at, interrupted)
    with pytest.raises(error):
        journal.rebuild()
    monkeypatch.setattr(rebuilding, at, function)

    assert stored(path) == before
    with Journal.open(path) as other:  # the lock is given back
        other.append_events(random_events(1))
    assert journal.rebuild()[0].change_count > 0
    assert answers(journal, 50) == expected
    check_right(journal)
    check_nothing_left(path)


@pytest.mark.parametrize("error", ERRORS)
def test_whoever_is_interrupted_when_told_that_all_is_done_has_the_new_in_place(
    journal: Journal, path: Path, error: Any
) -> None:
    journal.append_events(random_events(50))
    journal.sessions()
    right = stored(path)
    spoil(path)

    def progress(done: int, of: int) -> None:
        if done == of:
            raise error

    with pytest.raises(error):
        journal.rebuild(progress=progress)

    assert stored(path) == right


# So many calls of SQLite's progress handler cut a rebuild into pieces.
_STEPS_A_CALL = 5


def dying_at_call(number: int) -> Callable[[], bool]:
    """Return a progress handler that kills this process when it is called so often."""
    calls = 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        if calls == number:
            die()
        return False

    return count


def dying_at_statement(number: int) -> Callable[..., bool]:
    """Return a trace that kills this process before such a statement of the last transaction."""
    statements: list[str] = []

    def count(_cursor: object, sql: str, _bindings: object) -> bool:
        if statements or sql == "BEGIN IMMEDIATE":
            statements.append(sql)
            if len(statements) == number:
                die()
        return True

    return count


def die_while_folding_beside(journal: Journal, where: str, number: int) -> None:
    """Have this process killed when a rebuild has come so far."""

    def arm(connection: apsw.Connection) -> None:
        if where == "anywhere":
            connection.set_progress_handler(dying_at_call(number), _STEPS_A_CALL)
        else:
            connection.set_exec_trace(dying_at_statement(number))

    watch_rebuilds(journal, arm)


def places_to_die(journal: Journal, rebuild: Callable[[], object]) -> list[tuple[str, int]]:
    """Do a rebuild; return everywhere that it could have been killed."""
    calls: list[None] = []
    watch_rebuilds(
        journal,
        lambda connection: connection.set_progress_handler(
            lambda: calls.append(None) is not None, _STEPS_A_CALL
        ),
    )
    with recording_rebuilds(journal) as statements:
        rebuild()
    last = statements[statements.index("BEGIN IMMEDIATE") :]
    assert len(calls) > 200
    assert len(last) > 8
    anywhere = [("anywhere", number + 1) for number in range(len(calls))]
    return anywhere + [("last transaction", number + 1) for number in range(len(last))]


def drawn(draw: random.Random, places: list[tuple[str, int]]) -> tuple[str, int]:
    """Return a place to die: there are few in the last transaction, but they matter most."""
    where = draw.choice(["anywhere", "last transaction"])
    return draw.choice([place for place in places if place[0] == where])


def rebuild_and_die(_channel: Channel, path: Path, where: str, number: int, check: bool) -> None:
    limits.FOLD_EVENTS_MAX = rebuilding._EVENTS_AT_ONCE = 20
    journal = Journal.open(path)
    die_while_folding_beside(journal, where, number)
    journal.rebuild(check=check)
    die()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
@pytest.mark.parametrize("seed", range(4 * ROUNDS))
def test_a_rebuild_that_was_killed_leaves_the_old_in_place_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    fold_in_steps(monkeypatch, 20)
    draw = random.Random(seed)
    events = random_events(200, seed)
    expected = plain_fold(list(enumerate(events, 1)))
    with Journal.open(path) as journal:
        journal.append_events(events)
        journal.sessions()
        right = stored(path)
        spoil(path)
        places = places_to_die(journal, journal.rebuild)
        assert stored(path) == right
        spoiled = spoil(path)

    for _ in range(3):
        where, number = drawn(draw, places)
        with Child(rebuild_and_die, path, where, number, draw.random() < 0.3) as child:
            child.wait_until_killed()
        assert stored(path) == spoiled, (where, number)
        check_nothing_left(path)

    with Journal.open(path) as journal:
        assert stored(path) == spoiled
        check = draw.random() < 0.5
        assert journal.rebuild(check=check)[0].change_count > 0
        assert journal.rebuild()[0].change_count == 0 or check
        assert stored(path) == right
        check_right(journal)
        check_views(path, expected, 200)
    check_nothing_left(path)


def find_stale_and_die(_channel: Channel, path: Path, where: str, number: int) -> None:
    LifecycleFold.version = 2
    limits.FOLD_EVENTS_MAX = rebuilding._EVENTS_AT_ONCE = 20
    journal = Journal.open(path)
    die_while_folding_beside(journal, where, number)
    journal.sessions()
    die()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
@pytest.mark.parametrize("seed", range(2 * ROUNDS))
def test_whoever_is_killed_while_renewing_a_stale_projection_leaves_it_to_the_next_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, folded: list[Step], seed: int
) -> None:
    fold_in_steps(monkeypatch, 20)
    draw = random.Random(seed)
    events = random_events(400, seed)
    with Journal.open(path) as journal:
        journal.append_events(events)
        journal.sessions()
        monkeypatch.setattr(LifecycleFold, "version", 2)
        places = places_to_die(journal, journal.sessions)
    change(path, "UPDATE checkpoint SET version = 1")
    spoiled = spoil(path)  # what the old fold made
    folded.clear()

    for _ in range(3):
        where, number = drawn(draw, places)
        with Child(find_stale_and_die, path, where, number) as child:
            child.wait_until_killed()
        assert stored(path) == spoiled, (where, number)
        check_nothing_left(path)
    with Journal.open(path) as journal:
        journal.sessions()
        check_folded_once(folded, 400, "temp")
        check_right(journal)
    assert query(path, "SELECT DISTINCT version FROM checkpoint") == [(2,)]
    check_views(path, plain_fold(list(enumerate(events, 1))), 400)
    check_nothing_left(path)


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
        """INSERT INTO projection_anomaly SELECT 4711, session, stream, event_type, state, reason
            FROM projection_anomaly LIMIT 1""",
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
    check_nothing_left(path)


def test_a_rebuild_tells_of_the_tables_in_turn_and_of_what_is_missing_first(
    journal: Journal, path: Path
) -> None:
    journal.append_events(random_events(200))
    journal.sessions()
    change(path, "UPDATE projection_session SET event_count = 0, metrics = '[]'")
    change(
        path,
        "UPDATE projection_stream SET frames = -1; DELETE FROM projection_stream"
        " WHERE stream = 2; UPDATE projection_stream SET stream = 4711 WHERE stream = 3",
    )
    change(path, "DELETE FROM projection_anomaly")

    (report,) = journal.rebuild()

    assert report.changes is not None
    told = [(one.projection, one.key, one.column, one.new) for one in report.changes]
    sessions, streams, anomalies = answers(journal)
    of_streams = [
        [(str(one.stream_id), None, "present")]
        if key in (2, 3)
        else [(str(one.stream_id), "frames", one.frames)]
        for key, one in enumerate(streams, 1)
    ]
    assert told == [
        *(
            ("sessions", str(one.session_id), column, value)
            for one in sessions
            for column, value in [("event_count", one.event_count), ("metrics", None)]
        ),
        *(("streams", *one) for some in of_streams for one in some),
        ("streams", "4711", None, "missing"),
        *(("anomalies", str(one.position), None, "present") for one in anomalies),
    ]


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
        "INSERT INTO projection_session SELECT 999, state, activated_at, ended_at,"
        " expires_at, event_count, total_streams, completed_streams, failed_streams,"
        " cancelled_streams, priority_threshold, batched_frames, metrics, anomalies,"
        " NULL FROM projection_session"
    ),
    "what is to be text is not UTF-8": (
        "UPDATE projection_stream SET error = CAST(x'ff' AS TEXT);"
        " UPDATE projection_session SET metrics = CAST(x'ff' AS TEXT)"
    ),
}


@pytest.mark.parametrize("then_closed", [True, False])
@pytest.mark.parametrize("sql", _BEYOND_READING.values(), ids=_BEYOND_READING.keys())
def test_a_rebuild_replaces_rows_that_cannot_even_be_read(
    journal: Journal, path: Path, sql: str, then_closed: bool
) -> None:
    session_id, stream_id = SessionId.new(), StreamId.new()
    place = {"session_id": session_id, "stream_id": stream_id}
    journal.append_events([activated(session_id), StreamCreated(**place, timestamp=NOON)])
    journal.sessions()
    change(path, sql)
    if then_closed:
        journal.append_events([SessionClosed(session_id=session_id, timestamp=NOON)])

    journal.rebuild()

    check_right(journal)
    assert journal.rebuild()[0].changes == ()
    check_nothing_left(path)


def test_a_check_that_cannot_catch_up_leaves_rows_and_checkpoint_together(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_in_steps(monkeypatch, 10)
    broken, sound = SessionId.new(), SessionId.new()
    place = {"session_id": broken, "stream_id": StreamId.new()}
    journal.append_events([activated(broken), StreamCreated(**place, timestamp=NOON)])
    journal.append_events([activated(sound)] * 18)
    journal.sessions()
    change(path, "DELETE FROM projection_stream")
    before = stored(path)
    last_words = [*[activated(sound)] * 10, SessionClosed(session_id=broken, timestamp=NOON)]
    meanwhile = once(lambda: journal.append_events(last_words))

    (report,) = journal.rebuild(check=True, progress=lambda *_: meanwhile())

    assert report.changes is None  # the stream that is to be cancelled is not there
    assert stored(path) == before
    journal.rebuild()
    check_right(journal)


@pytest.mark.parametrize("table", TABLES[:3])
def test_a_table_that_is_gone_is_damage_until_it_is_made_again(
    journal: Journal, path: Path, table: str
) -> None:
    """By a rebuild, or by opening the file for writing."""
    journal.append_events(random_events(50))
    expected = answers(journal)
    change(path, f"DROP TABLE {table}")

    with pytest.raises(DamagedError, match="no such table"):
        answers(journal)
    (report,) = journal.rebuild()
    assert report.changes is None
    assert answers(journal) == expected
    check_nothing_left(path)

    change(path, f"DROP TABLE {table}")
    with Journal.open(path) as other:
        assert answers(other) == expected
    assert answers(journal) == expected
    check_nothing_left(path)


@pytest.mark.parametrize("check", [True, False])
def test_of_two_rebuilds_at_once_the_later_finds_nothing_changed(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    fold_in_steps(monkeypatch, 10)
    journal.append_events(random_events(50))
    expected = answers(journal)
    right = stored(path)
    spoil(path)
    other_reports: list[RebuildReport] = []

    with Journal.open(path) as other, recording_rebuilds(journal) as statements:
        meanwhile = once(lambda: other_reports.extend(other.rebuild()))
        (report,) = journal.rebuild(check=check, progress=lambda *_: meanwhile())

    assert other_reports[0].change_count > 0
    assert report.changes == ()
    assert row_changes(statements) == []
    assert answers(journal) == expected
    assert stored(path) == right
    check_nothing_left(path)


@pytest.mark.parametrize("longer", ["sessions", "count"])
def test_rebuilds_of_different_projections_at_once_do_not_disturb_each_other(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, longer: str
) -> None:
    fold_in_steps(monkeypatch, 10)
    journal.append_events(random_events(50))
    with Journal.open(path) as other:
        for one in (journal, other):
            one.register(Projection("count", 1, 0, lambda number, _: number + 1))
            one.register(Projection("total", 1, 0, lambda number, _: number + 2))
            assert (one.state("count"), one.state("total")) == (50, 100)
        expected = answers(journal)
        right = stored(path)
        spoil(path)
        change(path, "UPDATE projection_state SET state = '4711'")
        shorter = "count" if longer == "sessions" else "sessions"
        other_reports: list[RebuildReport] = []
        meanwhile = once(lambda: other_reports.extend(other.rebuild([shorter])))

        (report,) = journal.rebuild([longer], progress=lambda *_: meanwhile())

        by_name = {one.projections[0]: one for one in [report, *other_reports]}
        assert by_name["count"].change_count == 1
        assert by_name["sessions"].change_count > 1
        assert (other.state("count"), other.state("total")) == (50, 4711)  # that was not asked for
        assert answers(other) == expected
        assert other.rebuild(["total"])[0].change_count == 1
        assert stored(path) == right
    check_nothing_left(path)


def rebuild_until_told(channel: Channel, path: Path, seed: int) -> int:
    limits.FOLD_EVENTS_MAX = rebuilding._EVENTS_AT_ONCE = 7
    draw = random.Random(seed)
    rebuilt = 0
    with Journal.open(path, durability="normal") as journal:
        channel.meet()
        while not channel._connection.poll() or not rebuilt:
            if draw.random() < 0.3:  # so that rows are replaced
                change(
                    path, "UPDATE projection_session SET priority_threshold = 7 WHERE session = 2"
                )
            for report in journal.rebuild(check=draw.random() < 0.5):
                found = {(one.column, one.new) for one in report.changes or ()}
                assert found <= {("priority_threshold", None)}
            rebuilt += 1
            if draw.random() < 0.3:
                journal.append_events(random_events(3, seed))
            if draw.random() < 0.3:
                journal.sessions()
            check_views_now(path)
    return rebuilt


def check_views_now(path: Path) -> None:
    """Assert that whatever the views show are all events up to one of them."""
    sql = (
        "SELECT (SELECT sum(event_count) FROM sessions),"
        " (SELECT min(as_of_position) FROM sessions), (SELECT max(as_of_position) FROM streams),"
        " (SELECT position FROM checkpoint WHERE name = 'sessions')"
    )
    ((events, of_sessions, of_streams, position),) = query(path, sql)
    assert events == of_sessions == of_streams == position


def test_processes_that_rebuild_without_end_do_each_other_no_harm(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events(random_events(60))
        check_right(journal)
    children = [Child(rebuild_until_told, path, seed) for seed in range(3)]
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
        let_go(children)
        time.sleep(0.5 * ROUNDS)
        for child in children:
            child.send("stop")
        rebuilt = [child.receive() for child in children]

    assert min(rebuilt) > 0
    with Journal.open(path) as journal:
        journal.rebuild()
        check_right(journal)
        assert journal.rebuild()[0].changes == ()
    check_nothing_left(path)


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
    assert before["checkpoint"] == []


# Read-only


@pytest.mark.parametrize("caught_up_to", [0, 30, 60])
def test_a_read_only_journal_folds_in_memory_and_writes_nothing(
    path: Path, caught_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = random_events(60)
    with Journal.open(path) as journal:
        journal.append_events(events[:caught_up_to])
        if caught_up_to:
            journal.sessions()
        monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 0)  # closing is not to fold the rest
        journal.append_events(events[caught_up_to:])
        expected = answers(journal, 60)
        was_stored = stored(path)
    monkeypatch.undo()
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


@pytest.mark.parametrize("caught_up", [False, True])
def test_a_read_only_journal_without_projection_tables_folds_everything(
    path: Path, caught_up: bool
) -> None:
    with Journal.open(path) as journal:
        journal.append_events(random_events(60))
        expected = answers(journal, 60)
        if caught_up:
            journal.sessions()
    for view in ("sessions", "streams", "projection_states"):
        change(path, f"DROP VIEW {view}")
    for table in TABLES:
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
    "damage",
    [
        "position = 'x'",
        "version = x'00'",
        "position = 1.5",
        "position = 51",
        "position = -1",
        "since = 0",
        "since = 'x'",
    ],
)
def test_a_checkpoint_that_was_damaged_is_named_and_made_anew_by_a_rebuild(
    path: Path, damage: str
) -> None:
    with Journal.open(path) as journal:
        journal.append_events(random_events(50))
        journal.sessions()
    change(path, f"UPDATE checkpoint SET {damage}")

    for read_only in (True, False):
        with Journal.open(path, read_only=read_only) as journal:
            for ask in (journal.sessions, journal.projections):
                with pytest.raises(DamagedError, match="the checkpoint 'sessions' is damaged"):
                    ask()
            assert len(journal.sessions(as_of=50)) == len(SESSIONS)
    with Journal.open(path) as journal:
        assert journal.rebuild()[0].changes is None
        check_right(journal)
        assert journal.rebuild()[0].changes == ()
    check_nothing_left(path)


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

    with pytest.raises(DamagedError, match="position 1 is damaged") as caught:
        journal.sessions()
    assert caught.value.position == 1


@pytest.mark.parametrize("read_only", [False, True])
def test_who_reads_is_told_how_far_a_long_fold_has_come(tmp_path, read_only):
    path = tmp_path / "a.db"
    lines = lines_of("mixed/events.ndjson") * 4
    with Journal.open(path) as journal:
        journal.append_ndjson(lines)
    told: list[tuple[int, int]] = []
    with Journal.open(path, read_only=read_only) as journal:
        journal.report_folding(lambda position, last: told.append((position, last)))
        sessions = journal.sessions()
        journal.sessions()

        assert len(sessions) == 300
        assert {last for _, last in told} == {len(lines)}
        positions = [position for position, _ in told]
        first = positions[: positions.index(len(lines)) + 1]
        assert len(first) > 2
        assert first == sorted(set(first))
        assert positions.count(len(lines)) == 1 + read_only
        journal.report_folding(None)
        journal.sessions(as_of=len(lines))
        assert len(told) == len(positions)
