"""The fold: every row of its table, what the table is silent about, the reference's own states, and
a plain fold that is slow and obviously right, held against the real one by random events.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import apsw
import pydantic
import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from support import NOON, ROUNDS, fold_in_steps

from journal import (
    DomainEvent,
    FramesBatched,
    Journal,
    PatchFramesGenerated,
    PerformanceMetrics,
    PerformanceMetricsRecorded,
    PriorityDistribution,
    PriorityThresholdAdjusted,
    Projection,
    SessionActivated,
    SessionClosed,
    SessionExpired,
    SessionId,
    SessionState,
    SessionTimedOut,
    SessionTimeoutExtended,
    SkeletonGenerated,
    StreamCancelled,
    StreamCompleted,
    StreamConfigUpdated,
    StreamCreated,
    StreamFailed,
    StreamId,
    StreamStarted,
    StreamState,
    Timestamp,
    UnknownEvent,
    parse_event,
)
from journal.events import AnyEvent
from journal.projections import Anomaly, SessionStatus, StreamStatus, lifecycle_states

DATA = Path(__file__).parent / "data"

Json = dict[str, Any]


# The plain fold: DESIGN section 6, one sentence after the other, over event objects. It counts
# nothing that it can find by looking at all streams, and knows nothing of batches or files.

NOTHING: Json = {"events": 0, "sessions": {}, "streams": {}, "anomalies": []}

NEW_SESSION: Json = {
    "state": "Initializing",
    "activated_at": None,
    "ended_at": None,
    "expires_at": None,
    "event_count": 0,
    "priority_threshold": None,
    "batched_frames": 0,
    "metrics": None,
    "anomalies": 0,
}
NEW_STREAM: Json = {
    "state": "Preparing",
    "error": None,
    "started_at": None,
    "ended_at": None,
    "event_count": 0,
    "frames": 0,
    "bytes": 0,
    "highest_priority": None,
    "config_updates": 0,
    "anomalies": 0,
}
STILL_ACTIVE = ("Preparing", "Streaming")
LEGAL_IN = {
    "session_activated": ["Initializing"],
    "session_closed": ["Active"],
    "stream_created": [],  # again
    "stream_started": ["Preparing"],
    "stream_completed": ["Streaming"],
    "stream_failed": STILL_ACTIVE,
    "stream_cancelled": STILL_ACTIVE,
}
LARGEST = 2**63 - 1


def plain_apply(state: Json, event: DomainEvent) -> Json:
    """Return the state after an event. An anomaly's `number` counts the events of known kinds."""
    state = json.loads(json.dumps(state))
    state["events"] += 1
    name = str(event.session_id)
    session = state["sessions"].setdefault(name, dict(NEW_SESSION))
    session["event_count"] += 1
    if event.stream_id is None:
        wrong = not is_legal(event, session["state"])
        found_in = session["state"]
        apply_to_session(state, name, session, event)
        stream = None
    else:
        stream = state["streams"].get(str(event.stream_id))
        if stream is None:
            stream = {**NEW_STREAM, "session_id": name, "created_at": event.timestamp.rfc3339()}
            state["streams"][str(event.stream_id)] = stream
            is_created = isinstance(event, StreamCreated)
            wrong = not is_created or session["state"] != "Active"
            found_in = session["state"] if is_created else None
        else:
            wrong = stream["session_id"] != name or not is_legal(event, stream["state"])
            found_in = stream["state"]
        stream["event_count"] += 1
        apply_to_stream(stream, event)
    if wrong:
        for where in [session] if stream is None else [session, stream]:
            where["anomalies"] += 1
        anomaly = {
            "number": state["events"],
            "session_id": name,
            "stream_id": None if event.stream_id is None else str(event.stream_id),
            "event_type": event.event_type,
            "state": found_in,
        }
        state["anomalies"].append(anomaly)
    return state


def is_legal(event: DomainEvent, state: str) -> bool:
    return event.event_type not in LEGAL_IN or state in LEGAL_IN[event.event_type]


def apply_to_session(state: Json, name: str, session: Json, event: DomainEvent) -> None:
    at = event.timestamp.rfc3339()
    match event:
        case SessionActivated():
            session.update(state="Active", activated_at=at, ended_at=None)
        case SessionClosed() | SessionTimedOut() | SessionExpired():
            end_state = "Completed" if isinstance(event, SessionClosed) else "Failed"
            session.update(state=end_state, ended_at=at)
            for stream in state["streams"].values():
                if stream["session_id"] == name and stream["state"] in STILL_ACTIVE:
                    stream.update(state="Cancelled", ended_at=at)
        case SessionTimeoutExtended():
            session["expires_at"] = event.new_expires_at.rfc3339()
        case FramesBatched():
            session["batched_frames"] = min(session["batched_frames"] + event.frame_count, LARGEST)
        case PriorityThresholdAdjusted():
            session["priority_threshold"] = event.new_threshold
        case PerformanceMetricsRecorded():
            session["metrics"] = json.loads(event.metrics.model_dump_json())
        case _:
            raise AssertionError(event)


def apply_to_stream(stream: Json, event: DomainEvent) -> None:
    at = event.timestamp.rfc3339()
    match event:
        case StreamCreated():
            stream.update(
                state="Preparing", created_at=at, started_at=None, ended_at=None, error=None
            )
        case StreamStarted():
            stream.update(state="Streaming", started_at=at, ended_at=None, error=None)
        case StreamCompleted():
            stream.update(state="Completed", ended_at=at, error=None)
        case StreamCancelled():
            stream.update(state="Cancelled", ended_at=at, error=None)
        case StreamFailed():
            stream.update(state="Failed", ended_at=at, error=event.error)
        case SkeletonGenerated():
            stream["frames"] = min(stream["frames"] + 1, LARGEST)
            stream["bytes"] = min(stream["bytes"] + event.frame_size_bytes, LARGEST)
        case PatchFramesGenerated():
            stream["frames"] = min(stream["frames"] + event.frame_count, LARGEST)
            stream["bytes"] = min(stream["bytes"] + event.total_bytes, LARGEST)
            before = stream["highest_priority"]
            stream["highest_priority"] = max(before or 0, event.highest_priority)
        case StreamConfigUpdated():
            stream["config_updates"] += 1
        case _:
            raise AssertionError(event)


PLAIN = Projection("plain", 1, NOTHING, plain_apply)
"""The plain fold through the public door."""


class Expected:
    """What a journal should say after events, given with their positions."""

    def __init__(self, state: Json, recorded: list[tuple[int, AnyEvent]]) -> None:
        positions = [position for position, event in recorded if not_unknown(event)]
        self.events = [event for _, event in recorded]
        self.state = state
        self.sessions = {name: self._session(name) for name in state["sessions"]}
        self.streams = {
            name: {"stream_id": name, **stream} for name, stream in state["streams"].items()
        }
        self.anomalies = []
        for anomaly in state["anomalies"]:
            known = dict(anomaly)
            self.anomalies.append({"position": positions[known.pop("number") - 1], **known})

    def _session(self, name: str) -> Json:
        streams = [it for it in self.state["streams"].values() if it["session_id"] == name]

        def count(*states: str) -> int:
            return sum(stream["state"] in states for stream in streams)

        return {
            "session_id": name,
            **self.state["sessions"][name],
            "total_streams": len(streams),
            "active_streams": count(*STILL_ACTIVE),
            "completed_streams": count("Completed"),
            "failed_streams": count("Failed"),
            "cancelled_streams": count("Cancelled"),
        }


def not_unknown(event: AnyEvent) -> bool:
    return not isinstance(event, UnknownEvent)


def plain_fold(recorded: list[tuple[int, AnyEvent]]) -> Expected:
    state = NOTHING
    for _, event in recorded:
        if not isinstance(event, UnknownEvent):
            state = plain_apply(state, event)
    return Expected(state, recorded)


def plain(status: SessionStatus | StreamStatus | Anomaly) -> Json:
    """Return an answer of a journal as the plain fold writes it."""
    values: Json = status.model_dump()
    values.pop("reason", None)
    for name, value in values.items():
        if isinstance(value, Timestamp):
            values[name] = value.rfc3339()
        elif isinstance(value, UUID):
            values[name] = str(value)
    return values


def by_id(statuses: list[Any], name: str) -> dict[str, Json]:
    found = {str(getattr(status, name)): plain(status) for status in statuses}
    assert len(found) == len(statuses)
    return found


def in_order(names: Iterable[str], events: Iterable[AnyEvent]) -> list[str]:
    """Return ids in the order of their first events, of whatever kind."""
    met = [str(found) for event in events for found in (event.session_id, event.stream_id)]
    return sorted(names, key=met.index)


def check_answers(
    journal: Journal, expected: Expected, as_of: int | datetime | None = None
) -> None:
    """Assert that each method says what the plain fold says."""
    sessions = journal.sessions(as_of=as_of)
    assert by_id(sessions, "session_id") == expected.sessions
    streams = journal.streams(as_of=as_of)
    assert by_id(streams, "stream_id") == expected.streams
    if not isinstance(as_of, datetime):
        session_ids = [str(one.session_id) for one in sessions]
        assert session_ids == in_order(session_ids, expected.events)
        stream_ids = [str(one.stream_id) for one in streams]
        assert stream_ids == in_order(stream_ids, expected.events)
    assert [plain(one) for one in journal.anomalies(as_of=as_of)] == expected.anomalies
    for session_id in SESSIONS:
        status = journal.session(session_id, as_of=as_of)
        assert (plain(status) if status else None) == expected.sessions.get(str(session_id))
        own = journal.streams(session_id, as_of=as_of)
        assert own == [one for one in streams if one.session_id == session_id]
    for stream_id in STREAMS:
        found = journal.stream(stream_id, as_of=as_of)
        assert (plain(found) if found else None) == expected.streams.get(str(stream_id))


def key_of(connection: apsw.Connection, table: str, text: str) -> Any:
    """Return the small integer that stands for an id in the file."""
    return connection.execute(f"SELECT id FROM {table} WHERE uuid = ?", (UUID(text).bytes,)).get


def check_views(path: Path, expected: Expected, position: int) -> None:
    """Assert that plain SQL says what the plain fold says."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        for view, found_by, answers in [
            ("sessions", "session_id", expected.sessions),
            ("streams", "stream_id", expected.streams),
        ]:
            cursor = connection.execute(f"SELECT * FROM {view}")
            rows = [
                dict(zip([column[0] for column in cursor.get_description()], row, strict=True))
                for row in cursor
            ]
            assert [row.pop("as_of_position") for row in rows] == [position] * len(rows)
            for row in rows:
                for table in ("session", "stream"):
                    if f"{table}_id" in row:
                        key = row.pop(f"{table}_key")
                        assert key == key_of(connection, table, row[f"{table}_id"])
                for name in ("activated_at", "created_at", "started_at", "ended_at", "expires_at"):
                    if row.get(name) is not None:
                        assert len(row[name]) == len("2026-01-01T00:00:00.123456789Z")
                        row[name] = Timestamp.parse(row[name]).rfc3339()
                if row.get("metrics") is not None:
                    row["metrics"] = json.loads(row["metrics"])
            assert {row[found_by]: row for row in rows} == answers
            assert len(rows) == len(answers)
    finally:
        connection.close()


# Random events: few sessions and streams, so that they meet

SESSIONS = [SessionId(f"aaaaaaaa-0000-4000-8000-00000000000{number}") for number in range(3)]
STREAMS = [StreamId(f"bbbbbbbb-0000-4000-8000-00000000000{number}") for number in range(4)]

_COUNTS = st.sampled_from([0, 1, 7, 2**62, LARGEST - 1, LARGEST, 2**63, 2**64 - 1])
_PRIORITIES = st.integers(0, 255)
_SECONDS = st.integers(0, 12).map(lambda second: NOON.epoch_ns + second * 1_000_000_000)
_INSTANTS = st.one_of(
    _SECONDS,
    _SECONDS.map(lambda ns: ns + 1),
    st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1]),
).map(Timestamp.from_epoch_ns)
_LATER = st.one_of(
    _INSTANTS,
    st.sampled_from(
        [
            Timestamp(1, 1, 1, tzinfo=UTC),
            Timestamp(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC, nanosecond=999),
        ]
    ),
)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_METRICS = st.builds(
    PerformanceMetrics,
    frames_per_second=_FLOATS,
    bytes_per_second=_FLOATS,
    average_frame_size=_FLOATS,
    priority_distribution=st.builds(
        PriorityDistribution,
        critical_frames=_COUNTS,
        high_frames=_COUNTS,
        medium_frames=_COUNTS,
        low_frames=_COUNTS,
        background_frames=_COUNTS,
    ),
    latency_ms=st.none() | _COUNTS,
)
_TEXT = st.sampled_from(["", "reset", 'a "quoted" [1,2] \\ line\n', "\0é☃"])


Shape = tuple[Any, Json]


def _shape(cls: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Shape]:
    """Return a strategy for what to build: a class, and its fields but for ids and timestamp."""
    return st.tuples(st.just(cls), st.fixed_dictionaries(fields))


_SHAPES = st.one_of(
    _shape(StreamCreated),
    _shape(StreamStarted),
    _shape(StreamCompleted),
    _shape(StreamFailed, error=_TEXT),
    _shape(StreamCancelled),
    _shape(SkeletonGenerated, frame_size_bytes=_COUNTS),
    _shape(
        PatchFramesGenerated,
        frame_count=_COUNTS,
        total_bytes=_COUNTS,
        highest_priority=_PRIORITIES,
    ),
    _shape(StreamConfigUpdated),
    _shape(SessionActivated),
    _shape(SessionClosed),
    _shape(SessionExpired),
    _shape(
        SessionTimedOut,
        original_state=st.sampled_from(list(SessionState)),
        timeout_duration=_COUNTS,
    ),
    _shape(SessionTimeoutExtended, additional_seconds=_COUNTS, new_expires_at=_LATER),
    _shape(FramesBatched, frame_count=_COUNTS),
    _shape(
        PriorityThresholdAdjusted,
        old_threshold=_PRIORITIES,
        new_threshold=_PRIORITIES,
        reason=_TEXT,
    ),
    _shape(PerformanceMetricsRecorded, metrics=_METRICS),
    _shape(UnknownEvent, names_stream=st.booleans()),
)


def unknown(
    session_id: SessionId, stream_id: StreamId | None = None, at: Timestamp = NOON
) -> AnyEvent:
    """Return an event of a kind that only a newer version knows."""
    fields = {"event_type": "stream_paused", "session_id": str(session_id)}
    if stream_id is not None:
        fields["stream_id"] = str(stream_id)
    text = json.dumps({**fields, "why": "lunch", "timestamp": at.rfc3339()})
    return parse_event(text, unknown="keep")


Place = tuple[StreamId, SessionId]

# A stream is usually named under the same session, and sometimes under another.
_HOME = st.integers(0, 3).map(lambda number: (STREAMS[number], SESSIONS[number % 2]))
_PLACES = st.one_of(_HOME, _HOME, st.tuples(st.sampled_from(STREAMS), st.sampled_from(SESSIONS)))


def _event(place: Place, at: Timestamp, shape: Shape) -> AnyEvent:
    (stream_id, session_id), (cls, fields) = place, shape
    if cls is UnknownEvent:
        return unknown(session_id, stream_id if fields["names_stream"] else None, at)
    if "stream_id" in cls.model_fields:
        fields = {**fields, "stream_id": stream_id}
    built: AnyEvent = cls(session_id=session_id, timestamp=at, **fields)
    return built


_EVENTS = st.builds(_event, _PLACES, _INSTANTS, _SHAPES)

READS: dict[str, Callable[[Journal], object]] = {
    "nothing": lambda _: None,
    "session": lambda journal: journal.session(SESSIONS[0]),
    "sessions": lambda journal: journal.sessions(),
    "stream": lambda journal: journal.stream(STREAMS[0]),
    "streams": lambda journal: journal.streams(),
    "anomalies": lambda journal: journal.anomalies(),
    "plain": lambda journal: journal.state("plain"),
    "rebuild": lambda journal: journal.rebuild(),
}
_BATCHES = st.lists(
    st.tuples(st.lists(_EVENTS, max_size=10), st.sampled_from(list(READS))), max_size=5
)


@cache
def _new_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        Journal.open(path).close()
        return path.read_bytes()


def open_new(path: Path) -> Journal:
    """Open a new journal that does not wait for the disk, which is most of the time in tests."""
    path.write_bytes(_new_file())
    journal = Journal.open(path, durability="normal")
    assert journal._database._writer is not None
    journal._database._writer.execute("PRAGMA synchronous = OFF")
    return journal


@contextmanager
def new_journal(*, events_at_once: int = 10_000, ended_max: int = 500) -> Iterator[Journal]:
    """Open a journal in a folder that goes away, with these limits set for so long."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        fold_in_steps(patch, events_at_once)
        patch.setattr(lifecycle_states, "_ENDED_IN_MEMORY_MAX", ended_max)
        with open_new(Path(folder) / "a.db") as journal:
            yield journal


def thorough(examples: int) -> settings:
    return settings(max_examples=examples * ROUNDS)


@thorough(10)
@given(
    batches=_BATCHES,
    events_at_once=st.sampled_from([1, 2, 3, 7, 10_000]),
    ended_max=st.sampled_from([0, 0, 500]),
)
def test_however_it_is_read_the_fold_equals_the_plain_fold(
    batches: list[tuple[list[AnyEvent], str]], events_at_once: int, ended_max: int
) -> None:
    recorded = list(enumerate((event for batch, _ in batches for event in batch), 1))
    expected = plain_fold(recorded)
    note(f"{expected.state}")

    with new_journal(events_at_once=events_at_once, ended_max=ended_max) as journal:
        journal.register(PLAIN)
        for batch, read in batches:
            journal.append_events(batch)
            READS[read](journal)

        with Journal.open(journal.path, read_only=True) as reader:
            reader.register(PLAIN)
            check_answers(reader, expected)
            assert reader.state("plain") == expected.state
        check_answers(journal, expected)
        check_views(journal.path, expected, len(recorded))
        assert journal.state("plain") == expected.state
        for report in journal.rebuild(check=True):
            assert report.changes == ()
            assert report.change_count == 0
        journal.rebuild()
        check_answers(journal, expected)
        check_views(journal.path, expected, len(recorded))
        assert [one.lag for one in journal.projections()] == [0, 0, 0]


@thorough(6)
@given(events=st.lists(_EVENTS, max_size=25), data=st.data())
@example(
    events=[
        unknown(SESSIONS[0], STREAMS[0]),
        SessionActivated(session_id=SESSIONS[1], timestamp=NOON),
        StreamCreated(session_id=SESSIONS[1], stream_id=STREAMS[0], timestamp=NOON),
        SessionClosed(session_id=SESSIONS[1], timestamp=NOON),
    ],
    data=None,
)
def test_as_of_any_moment_equals_the_plain_fold_of_just_those_events(
    events: list[AnyEvent], data: Any
) -> None:
    recorded = list(enumerate(events, 1))
    everywhen = sorted({event.timestamp.epoch_ns for event in events})
    instants = [Timestamp.from_epoch_ns(ns) for ns in everywhen]
    if data is not None and instants:
        instants = data.draw(st.lists(st.sampled_from(instants), max_size=5, unique=True))
        instants += [instant + timedelta(microseconds=1) for instant in instants[:1]]

    with new_journal() as journal:
        journal.append_events(events)
        for position in range(len(events) + 2):
            check_answers(journal, plain_fold(recorded[:position]), position)
        journal.register(PLAIN)
        for instant in instants:
            by_then = [(at, event) for at, event in recorded if event.timestamp <= instant]
            expected = plain_fold(by_then)
            check_answers(journal, expected, instant)
            assert journal.state("plain", as_of=instant) == expected.state
        with Journal.open(journal.path, read_only=True) as reader:
            middle = len(events) // 2
            check_answers(reader, plain_fold(recorded[:middle]), middle)


# The table, row by row

A, B = SESSIONS[:2]
X, Y, Z = STREAMS[:3]


class Story:
    """Events that are told one a second: `story.tell(SessionActivated, A)`."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.events: list[AnyEvent] = []

    def append(self, *events: AnyEvent) -> None:
        self.events += events
        self.journal.append_events(events)

    def tell(
        self, kind: Any, session_id: SessionId, stream_id: StreamId | None = None, **fields: Any
    ) -> Timestamp:
        """Append an event, and return when it was."""
        at = NOON + timedelta(seconds=len(self.events))
        if stream_id is not None:
            fields["stream_id"] = stream_id
        self.append(kind(session_id=session_id, timestamp=at, **fields))
        return at

    def session(self, session_id: SessionId = A) -> SessionStatus:
        status = self.journal.session(session_id)
        assert status is not None
        return status

    def stream(self, stream_id: StreamId = X) -> StreamStatus:
        status = self.journal.stream(stream_id)
        assert status is not None
        return status

    def anomalies(self) -> list[Anomaly]:
        return self.journal.anomalies()


@pytest.fixture
def story() -> Iterator[Story]:
    with new_journal() as journal:
        yield Story(journal)


def patches(story: Story, frames: int, size: int, priority: int) -> None:
    fields = {"frame_count": frames, "total_bytes": size, "highest_priority": priority}
    story.tell(PatchFramesGenerated, A, X, **fields)


def test_a_session_is_initializing_until_an_event_says_otherwise(story: Story) -> None:
    story.tell(FramesBatched, A, frame_count=1)

    assert story.session() == SessionStatus(
        session_id=A,
        state=SessionState.INITIALIZING,
        activated_at=None,
        ended_at=None,
        expires_at=None,
        event_count=1,
        total_streams=0,
        active_streams=0,
        completed_streams=0,
        failed_streams=0,
        cancelled_streams=0,
        priority_threshold=None,
        batched_frames=1,
        metrics=None,
        anomalies=0,
    )


def test_activating_makes_a_session_active(story: Story) -> None:
    at = story.tell(SessionActivated, A)

    session = story.session()

    assert (session.state, session.activated_at, session.ended_at) == ("Active", at, None)
    assert story.anomalies() == []


def test_closing_completes_a_session_and_cancels_its_active_streams_at_that_instant(
    story: Story,
) -> None:
    story.tell(SessionActivated, A)
    story.tell(SessionActivated, B)
    for stream_id in (X, Y, Z):
        story.tell(StreamCreated, A, stream_id)
    story.tell(StreamCreated, B, STREAMS[3])
    story.tell(StreamStarted, A, Y)
    story.tell(StreamStarted, A, Z)
    done = story.tell(StreamCompleted, A, Z)
    closed = story.tell(SessionClosed, A)

    session = story.session()

    assert (session.state, session.ended_at) == ("Completed", closed)
    assert (session.total_streams, session.active_streams) == (3, 0)
    assert (session.completed_streams, session.cancelled_streams) == (1, 2)
    for stream_id, state, ended_at in [
        (X, "Cancelled", closed),
        (Y, "Cancelled", closed),
        (Z, "Completed", done),
        (STREAMS[3], "Preparing", None),
    ]:
        stream = story.stream(stream_id)
        assert (stream.state, stream.ended_at) == (state, ended_at)
    assert story.stream(X).event_count == 1
    assert story.anomalies() == []


@pytest.mark.parametrize("before", ["Initializing", "Active", "Completed", "Failed"])
@pytest.mark.parametrize("end", [SessionTimedOut, SessionExpired])
def test_timing_out_or_expiring_fails_a_session_whatever_it_was_before(
    story: Story, before: str, end: Any
) -> None:
    story.tell(FramesBatched, A, frame_count=1)
    if before != "Initializing":
        story.tell(SessionActivated, A)
        story.tell(StreamCreated, A, X)
    if before == "Completed":
        story.tell(SessionClosed, A)
    if before == "Failed":
        story.tell(SessionExpired, A)
    assert story.session().state == before
    fields = {"original_state": SessionState.ACTIVE, "timeout_duration": 1}

    at = story.tell(end, A, **(fields if end is SessionTimedOut else {}))

    session = story.session()
    assert (session.state, session.ended_at, session.active_streams) == ("Failed", at, 0)
    if before == "Active":
        assert (story.stream().state, story.stream().ended_at) == ("Cancelled", at)
    assert story.anomalies() == []


@pytest.mark.parametrize("end", [None, SessionClosed, SessionExpired])
def test_extending_moves_the_end_and_leaves_the_state_alone(story: Story, end: Any) -> None:
    story.tell(SessionActivated, A)
    if end is not None:
        story.tell(end, A)
    before = story.session()
    for year in (2031, 9999):
        until = Timestamp(year, 12, 31, 23, 59, 59, 123_456, tzinfo=UTC, nanosecond=789)
        story.tell(SessionTimeoutExtended, A, additional_seconds=60, new_expires_at=until)

    session = story.session()

    assert (before.expires_at, session.expires_at) == (None, until)
    assert session == before.model_copy(update={"expires_at": until, "event_count": 3 + bool(end)})
    assert story.anomalies() == []


def test_a_stream_is_created_started_and_completed(story: Story) -> None:
    story.tell(SessionActivated, A)
    created = story.tell(StreamCreated, A, X)
    assert story.stream() == StreamStatus(
        stream_id=X,
        session_id=A,
        state=StreamState.PREPARING,
        error=None,
        created_at=created,
        started_at=None,
        ended_at=None,
        event_count=1,
        frames=0,
        bytes=0,
        highest_priority=None,
        config_updates=0,
        anomalies=0,
    )
    assert (story.session().total_streams, story.session().active_streams) == (1, 1)
    started = story.tell(StreamStarted, A, X)
    assert (story.stream().state, story.stream().started_at) == ("Streaming", started)
    assert story.session().active_streams == 1
    ended = story.tell(StreamCompleted, A, X)
    stream = story.stream()
    assert (stream.state, stream.ended_at, stream.event_count) == ("Completed", ended, 3)
    assert (stream.created_at, stream.started_at) == (created, started)
    assert (story.session().completed_streams, story.session().active_streams) == (1, 0)
    assert story.anomalies() == []


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("end", [StreamFailed, StreamCancelled])
def test_a_stream_that_is_preparing_or_streaming_fails_with_its_error_or_is_cancelled(
    story: Story,
    begun: bool,
    end: Any,
) -> None:
    story.tell(SessionActivated, A)
    story.tell(StreamCreated, A, X)
    if begun:
        story.tell(StreamStarted, A, X)
    failed = end is StreamFailed
    error = 'connection "reset", [1]\n\0' if failed else None

    at = story.tell(end, A, X, **({"error": error} if failed else {}))

    stream, session = story.stream(), story.session()
    assert (stream.state, stream.error) == ("Failed" if failed else "Cancelled", error)
    assert stream.ended_at == at
    assert (session.failed_streams, session.cancelled_streams) == (failed, not failed)
    assert story.anomalies() == []


def test_frames_bytes_priority_and_configurations_of_a_stream_are_counted(story: Story) -> None:
    story.tell(SessionActivated, A)
    story.tell(StreamCreated, A, X)
    story.tell(SkeletonGenerated, A, X, frame_size_bytes=100)
    assert (story.stream().frames, story.stream().bytes) == (1, 100)
    assert story.stream().highest_priority is None
    patches(story, frames=3, size=1000, priority=0)
    assert story.stream().highest_priority == 0
    patches(story, frames=4, size=2000, priority=200)
    patches(story, frames=5, size=3000, priority=100)
    story.tell(StreamConfigUpdated, A, X)
    story.tell(StreamConfigUpdated, A, X)

    stream = story.stream()

    assert (stream.frames, stream.bytes) == (1 + 3 + 4 + 5, 100 + 1000 + 2000 + 3000)
    assert (stream.highest_priority, stream.config_updates) == (200, 2)
    assert stream.state == "Preparing"
    assert story.anomalies() == []


def test_a_session_counts_batched_frames_and_keeps_the_latest_threshold_and_metrics(
    story: Story,
) -> None:
    metrics = [
        PerformanceMetrics(
            frames_per_second=60.0,
            bytes_per_second=1e21,
            average_frame_size=0.1,
            priority_distribution=PriorityDistribution.from_counts(1, 2, 3, 4, 2**64 - 1),
            latency_ms=latency_ms,
        )
        for latency_ms in (None, 2**64 - 1)
    ]
    story.tell(FramesBatched, A, frame_count=3)
    story.tell(FramesBatched, A, frame_count=4)
    for old, new in [(0, 10), (10, 255), (255, 0)]:
        fields = {"old_threshold": old, "new_threshold": new, "reason": 'a, "b", 1'}
        story.tell(PriorityThresholdAdjusted, A, **fields)
    for latest in metrics:
        story.tell(PerformanceMetricsRecorded, A, metrics=latest)

        assert story.session().metrics == latest

    session = story.session()
    assert (session.batched_frames, session.priority_threshold) == (7, 0)
    assert session.event_count == 7
    assert story.anomalies() == []


def test_a_session_and_its_streams_keep_nine_digits_and_give_durations(story: Story) -> None:
    at = [NOON.replace(microsecond=0, nanosecond=number) for number in range(4)]
    story.append(
        SessionActivated(session_id=A, timestamp=at[0]),
        StreamCreated(session_id=A, stream_id=X, timestamp=at[1]),
        StreamStarted(session_id=A, stream_id=X, timestamp=at[2]),
        SessionClosed(session_id=A, timestamp=at[3] + timedelta(seconds=90)),
    )

    session, stream = story.session(), story.stream()

    assert session.activated_at == at[0]
    assert [stream.created_at, stream.started_at] == at[1:3]
    assert session.ended_at == stream.ended_at == at[3] + timedelta(seconds=90)
    assert session.ended_at - session.activated_at == timedelta(seconds=90)
    assert session.model_dump(mode="json")["ended_at"] == "2026-01-01T12:01:30.000000003Z"


def test_answers_have_the_documented_keys_and_are_frozen(story: Story) -> None:
    counts = ("total", "active", "completed", "failed", "cancelled")
    assert SessionStatus.model_fields.keys() >= {
        *("session_id", "state", "activated_at", "ended_at", "expires_at", "event_count"),
        *(f"{name}_streams" for name in counts),
        "anomalies",
    }
    assert StreamStatus.model_fields.keys() >= {
        *("stream_id", "session_id", "state", "error", "created_at", "started_at", "ended_at"),
        *("event_count", "frames", "bytes", "anomalies"),
    }
    story.tell(StreamCreated, A, X)
    for value in (story.session(), story.stream(), story.anomalies()[0]):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            value.anomalies = 7
        assert type(value).model_validate_json(value.model_dump_json()) == value


# Where the table is silent


def test_counts_are_of_present_states_and_always_add_up(story: Story) -> None:
    story.tell(SessionActivated, A)
    for stream_id in STREAMS:
        story.tell(StreamCreated, A, stream_id)
    story.tell(StreamFailed, A, X, error="")
    story.tell(StreamStarted, A, Y)
    story.tell(StreamCompleted, A, Y)
    story.tell(SessionClosed, A)
    counts = story.session()
    assert (counts.completed_streams, counts.failed_streams, counts.cancelled_streams) == (1, 1, 2)

    story.tell(StreamStarted, A, X)  # a failed stream starts again
    story.tell(StreamCompleted, A, Z)  # a cancelled one completes after all
    story.tell(StreamCreated, A, Y)  # a completed one is created once more

    counts = story.session()
    assert (counts.total_streams, counts.active_streams) == (4, 2)
    assert (counts.completed_streams, counts.failed_streams, counts.cancelled_streams) == (1, 0, 1)
    assert counts.anomalies == 3


def test_a_stream_that_starts_again_has_not_ended_and_has_no_error(story: Story) -> None:
    story.tell(SessionActivated, A)
    story.tell(StreamCreated, A, X)
    story.tell(StreamFailed, A, X, error="reset")
    at = story.tell(StreamStarted, A, X)

    stream = story.stream()

    assert (stream.state, stream.started_at, stream.ended_at) == ("Streaming", at, None)
    assert stream.error is None


def test_a_stream_belongs_to_the_session_of_its_first_event(story: Story) -> None:
    story.tell(SessionActivated, A)
    story.tell(SessionActivated, B)
    story.tell(StreamCreated, A, X)
    story.tell(StreamStarted, B, X)
    story.tell(StreamFailed, B, X, error="stray")

    stream, owner, other = story.stream(), story.session(A), story.session(B)

    assert (stream.session_id, stream.state, stream.error) == (A, "Failed", "stray")
    assert (owner.total_streams, owner.failed_streams, owner.event_count) == (1, 1, 2)
    assert (other.total_streams, other.failed_streams, other.event_count) == (0, 0, 3)
    assert (stream.anomalies, owner.anomalies, other.anomalies) == (2, 0, 2)
    assert [(one.position, one.session_id, one.stream_id) for one in story.anomalies()] == [
        (4, B, X),
        (5, B, X),
    ]
    assert "another session" in story.anomalies()[0].reason


def test_a_stream_that_was_strayed_into_is_cancelled_with_its_own_session_only(
    story: Story,
) -> None:
    for session_id in (A, B):
        story.tell(SessionActivated, session_id)
    story.tell(StreamCreated, A, X)
    story.tell(StreamStarted, B, X)
    story.tell(SessionClosed, B)
    assert story.stream().state == "Streaming"

    story.tell(SessionClosed, A)

    assert story.stream().state == "Cancelled"


@pytest.mark.parametrize(
    ("kind", "fields", "state"),
    [
        (StreamStarted, {}, "Streaming"),
        (StreamCompleted, {}, "Completed"),
        (StreamFailed, {"error": "e"}, "Failed"),
        (StreamCancelled, {}, "Cancelled"),
        (SkeletonGenerated, {"frame_size_bytes": 5}, "Preparing"),
        (StreamConfigUpdated, {}, "Preparing"),
    ],
)
def test_a_first_event_that_is_not_stream_created_creates_the_stream_and_is_an_anomaly(
    story: Story, kind: Any, fields: Json, state: str
) -> None:
    story.tell(SessionActivated, A)
    at = story.tell(kind, A, X, **fields)

    stream = story.stream()

    assert (stream.session_id, stream.state, stream.created_at) == (A, state, at)
    assert (stream.event_count, stream.anomalies) == (1, 1)
    assert (story.session().total_streams, story.session().anomalies) == (1, 1)
    (anomaly,) = story.anomalies()
    assert (anomaly.position, anomaly.stream_id, anomaly.state) == (2, X, None)
    assert anomaly.event_type == story.events[-1].event_type


def test_activating_again_clears_ended_at_and_is_an_anomaly(story: Story) -> None:
    story.tell(SessionActivated, A)
    story.tell(SessionClosed, A)
    at = story.tell(SessionActivated, A)

    session = story.session()

    assert (session.state, session.activated_at, session.ended_at) == ("Active", at, None)
    (anomaly,) = story.anomalies()
    assert (anomaly.position, anomaly.event_type) == (3, "session_activated")
    assert (anomaly.session_id, anomaly.stream_id, anomaly.state) == (A, None, "Completed")


def test_streams_that_a_session_cancelled_stay_so_when_it_is_activated_again(story: Story) -> None:
    story.tell(SessionActivated, A)
    story.tell(StreamCreated, A, X)
    closed = story.tell(SessionClosed, A)
    story.tell(SessionActivated, A)
    story.tell(SessionClosed, A)

    assert (story.stream().state, story.stream().ended_at) == ("Cancelled", closed)


def test_counters_stop_at_the_largest_integer_of_sqlite(story: Story) -> None:
    story.tell(SessionActivated, A)
    story.tell(StreamCreated, A, X)
    story.tell(FramesBatched, A, frame_count=2**64 - 1)
    story.tell(SkeletonGenerated, A, X, frame_size_bytes=LARGEST - 1)
    patches(story, frames=LARGEST - 1, size=1, priority=0)

    journal = story.journal
    for _ in range(2):  # the second time on top of what was stored
        stream, session = journal.stream(X), journal.session(A)
        assert stream is not None
        assert session is not None
        assert (stream.frames, stream.bytes) == (LARGEST, LARGEST)
        assert session.batched_frames == LARGEST
        check_views(journal.path, plain_fold(list(enumerate(story.events, 1))), len(story.events))
        assert journal.rebuild(check=True)[0].changes == ()
        patches(story, frames=2**64 - 1, size=2**64 - 1, priority=0)


def test_as_of_an_instant_is_no_prefix_where_timestamps_are_out_of_order(story: Story) -> None:
    story.append(
        SessionActivated(session_id=A, timestamp=NOON),
        StreamCreated(session_id=A, stream_id=X, timestamp=NOON + timedelta(seconds=20)),
        StreamStarted(session_id=A, stream_id=X, timestamp=NOON + timedelta(seconds=5)),
        SessionClosed(session_id=A, timestamp=NOON + timedelta(seconds=10)),
    )
    by_then = story.events[:1] + story.events[2:]

    journal = story.journal
    stream = journal.stream(X, as_of=NOON + timedelta(seconds=10))
    assert stream is not None
    assert (stream.state, stream.created_at) == ("Cancelled", by_then[1].timestamp)
    assert stream.anomalies == 1
    check_answers(
        journal,
        plain_fold([(1, by_then[0]), (3, by_then[1]), (4, by_then[2])]),
        NOON + timedelta(seconds=10),
    )


def test_as_of_an_instant_counts_nanoseconds_and_takes_any_zone(story: Story) -> None:
    at = NOON.replace(nanosecond=500)
    story.append(SessionActivated(session_id=A, timestamp=at))

    journal = story.journal
    assert journal.sessions(as_of=NOON.replace(nanosecond=499)) == []
    assert len(journal.sessions(as_of=at)) == 1
    assert journal.session(A, as_of=NOON) is None
    plain_datetime = datetime.fromisoformat("2026-01-01T21:00:00.000001+09:00")
    assert len(journal.sessions(as_of=plain_datetime)) == 1


def test_events_of_unknown_kinds_are_passed_over(story: Story) -> None:
    story.append(unknown(A), unknown(B, X))
    story.tell(SessionActivated, A)
    story.append(unknown(A, X))

    journal = story.journal
    (session,) = journal.sessions()
    assert (session.session_id, session.event_count) == (A, 1)
    assert journal.session(B) is None
    assert journal.stream(X) is None
    assert journal.streams(as_of=NOON + timedelta(days=1)) == journal.anomalies() == []
    assert [one.position for one in journal.projections()] == [4, 4]
    assert len(journal.get_events_for_session(A)) == 3


def test_a_stream_belongs_to_the_session_of_its_first_event_of_a_known_kind(story: Story) -> None:
    story.append(unknown(A, X))
    story.tell(SessionActivated, B)
    story.tell(StreamCreated, B, X)
    story.tell(SessionClosed, B)

    journal = story.journal
    stream = journal.stream(X)
    assert stream is not None
    assert (stream.session_id, stream.state) == (B, "Cancelled")
    assert journal.stream(X, as_of=4) == stream


# Legal and illegal transitions

_SESSION_STATES: dict[str, list[Any]] = {
    "Initializing": [],
    "Active": [SessionActivated],
    "Completed": [SessionActivated, SessionClosed],
    "Failed": [SessionActivated, SessionExpired],
}
_STREAM_STATES: dict[str, list[Any]] = {
    "Preparing": [],
    "Streaming": [StreamStarted],
    "Completed": [StreamStarted, StreamCompleted],
    "Failed": [StreamFailed],
    "Cancelled": [StreamCancelled],
}


@pytest.mark.parametrize("state", _SESSION_STATES)
@pytest.mark.parametrize(
    ("kind", "legal_in"),
    [
        (SessionActivated, {"Initializing"}),
        (SessionClosed, {"Active"}),
        (SessionExpired, set(_SESSION_STATES)),
        (StreamCreated, {"Active"}),
        (FramesBatched, set(_SESSION_STATES)),
    ],
)
def test_an_event_that_is_not_legal_in_the_state_of_its_session_is_an_anomaly(
    story: Story, state: str, kind: Any, legal_in: set[str]
) -> None:
    story.tell(FramesBatched, A, frame_count=1)
    for step in _SESSION_STATES[state]:
        story.tell(step, A)
    assert story.session().state == state
    fields = {"frame_count": 1} if kind is FramesBatched else {}

    story.tell(kind, A, X if kind is StreamCreated else None, **fields)

    expected = [] if state in legal_in else [(len(story.events), state)]
    assert [(one.position, one.state) for one in story.anomalies()] == expected
    assert story.session().anomalies == len(expected)
    for anomaly in story.anomalies():
        assert anomaly.reason == f"legal in {anomaly_place(kind, legal_in)} is {state}"


def anomaly_place(kind: Any, legal_in: set[str]) -> str:
    (legal,) = legal_in
    return (
        f"an {legal} session, but the session"
        if kind is StreamCreated
        else (f"{legal}, but the session")
    )


@pytest.mark.parametrize("state", _STREAM_STATES)
@pytest.mark.parametrize(
    ("kind", "legal_in", "result"),
    [
        (StreamCreated, set(), "Preparing"),
        (StreamStarted, {"Preparing"}, "Streaming"),
        (StreamCompleted, {"Streaming"}, "Completed"),
        (StreamFailed, {"Preparing", "Streaming"}, "Failed"),
        (StreamCancelled, {"Preparing", "Streaming"}, "Cancelled"),
        (StreamConfigUpdated, set(_STREAM_STATES), None),
    ],
)
def test_an_event_applies_in_any_state_of_its_stream_and_is_an_anomaly_where_it_is_not_legal(
    story: Story, state: str, kind: Any, legal_in: set[str], result: str | None
) -> None:
    story.tell(SessionActivated, A)
    story.tell(StreamCreated, A, X)
    for step in _STREAM_STATES[state]:
        story.tell(step, A, X, **({"error": "before"} if step is StreamFailed else {}))
    assert story.stream().state == state
    assert story.anomalies() == []

    at = story.tell(kind, A, X, **({"error": "after"} if kind is StreamFailed else {}))

    stream = story.stream()
    assert stream.state == (result or state)
    if result in ("Completed", "Failed", "Cancelled"):
        assert stream.ended_at == at
    if result is not None:
        assert stream.error == ("after" if kind is StreamFailed else None)
    expected = [] if state in legal_in else [(len(story.events), X, state)]
    found = [(one.position, one.stream_id, one.state) for one in story.anomalies()]
    assert found == expected
    assert stream.anomalies == story.session().anomalies == len(expected)
    assert all(one.reason.endswith(f"is {state}") for one in story.anomalies())


# Asking


def test_sessions_and_streams_can_be_asked_for_by_state_and_session(story: Story) -> None:
    for session_id, stream_id in [(A, X), (B, Y), (A, Z)]:
        if stream_id is not Z:
            story.tell(SessionActivated, session_id)
        story.tell(StreamCreated, session_id, stream_id)
    story.tell(StreamStarted, A, Z)
    story.tell(SessionClosed, B)

    journal = story.journal
    for as_of in (None, len(story.events), NOON + timedelta(days=1)):
        assert [one.session_id for one in journal.sessions(as_of=as_of)] == [A, B]
        active = journal.sessions(SessionState.ACTIVE, as_of=as_of)
        assert [one.session_id for one in active] == [A]
        assert journal.sessions(SessionState.CLOSING, as_of=as_of) == []
        assert [one.stream_id for one in journal.streams(as_of=as_of)] == [X, Y, Z]
        assert [one.stream_id for one in journal.streams(A, as_of=as_of)] == [X, Z]
        streaming = journal.streams(A, StreamState.STREAMING, as_of=as_of)
        assert [one.stream_id for one in streaming] == [Z]
        cancelled = journal.streams(state=StreamState.CANCELLED, as_of=as_of)
        assert [one.stream_id for one in cancelled] == [Y]


def test_what_has_no_events_is_none_or_an_empty_list() -> None:
    with new_journal() as journal:
        for as_of in (None, 0, 7, NOON):
            assert journal.session(A, as_of=as_of) is None
            assert journal.stream(X, as_of=as_of) is None
            assert journal.sessions(as_of=as_of) == journal.streams(as_of=as_of) == []
            assert journal.streams(A, as_of=as_of) == journal.anomalies(as_of=as_of) == []


# The reference's own states


@pytest.mark.parametrize("name", ["lifecycle", "mixed"])
def test_the_states_are_those_that_the_reference_reported_and_nothing_is_an_anomaly(
    tmp_path: Path, name: str
) -> None:
    lines = (DATA / name / "events.ndjson").read_text("utf-8").splitlines()
    states = map(json.loads, (DATA / name / "states.ndjson").read_text("utf-8").splitlines())
    expected = {state["session_id"]: state for state in states}

    with Journal.open(tmp_path / "a.db", durability="normal") as journal:
        journal.append_ndjson(lines)
        sessions = journal.sessions()
        streams = journal.streams()
        found: dict[str, dict[str, Json]] = {str(one.session_id): {} for one in sessions}
        for one in streams:
            found[str(one.session_id)][str(one.stream_id)] = {
                "state": one.state,
                "error": one.error,
            }

        assert found.keys() == expected.keys()
        for session in sessions:
            state = expected[str(session.session_id)]
            assert session.state == state["state"]
            assert (session.ended_at is not None) == state["completed"]
            assert session.event_count == state["events"]
            if session.expires_at is not None:
                assert session.expires_at == Timestamp.parse(state["expires_at"])
            stats = state["stats"]
            assert session.total_streams == stats["total_streams"] == len(state["streams"])
            assert session.completed_streams == stats["completed_streams"]
            assert session.failed_streams == stats["failed_streams"]
            assert found[str(session.session_id)] == state["streams"]
            assert session.anomalies == 0
        assert all(one.anomalies == 0 for one in streams)
        assert journal.anomalies() == []
        everything = [(one.position, one.event) for one in journal.read()]
        assert by_id(sessions, "session_id") == plain_fold_at_length(everything).sessions
        assert by_id(streams, "stream_id") == plain_fold_at_length(everything).streams


def plain_fold_at_length(recorded: list[tuple[int, AnyEvent]]) -> Expected:
    """Fold session by session, as the plain fold copies all that it has at every event."""
    whole: Json = {"sessions": {}, "streams": {}, "anomalies": []}
    by_session: dict[SessionId, list[tuple[int, AnyEvent]]] = {}
    for position, event in recorded:
        by_session.setdefault(event.session_id, []).append((position, event))
    for own in by_session.values():
        state = plain_fold(own).state
        whole["sessions"].update(state["sessions"])
        whole["streams"].update(state["streams"])
    return Expected(whole, recorded)
