"""The events as values: what a Python program meets."""

import copy
import json
import pickle
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args
from uuid import UUID, uuid4

import pydantic
import pytest
from support import lines_of

import journal
from journal import (
    DomainEvent,
    FramesBatched,
    PerformanceMetrics,
    PriorityDistribution,
    SessionActivated,
    SessionId,
    SessionState,
    StreamFailed,
    StreamId,
    StreamState,
    Timestamp,
    parse_event,
)
from journal.events.decoding import decode
from journal.events.kinds import KINDS
from journal.events.records import encode
from journal.events.values import Value

LINES = lines_of("kinds.ndjson")
FACTS = lines_of("kinds.facts.ndjson")


def test_every_fact_of_the_reference_holds() -> None:
    for line, fact_line in zip(LINES, FACTS, strict=True):
        event, facts = parse_event(line), json.loads(fact_line)
        assert event.event_type == facts["event_type"]
        assert str(event.session_id) == facts["session_id"]
        assert (event.stream_id and str(event.stream_id)) == facts["stream_id"]
        assert event.timestamp.rfc3339(offset="+00:00") == facts["timestamp_rfc3339"]
        assert event.occurred_at == event.timestamp
        assert event.is_critical == facts["is_critical"]
        assert event.is_error == facts["is_error"]
        assert event.is_completion == facts["is_completion"]
        assert str(event.event_id) == facts["event_id"]
        assert event.metadata() == facts["metadata"]


def test_there_is_a_model_for_each_kind_with_its_fields_in_wire_order() -> None:
    assert len(KINDS) == 16
    assert set(get_args(get_args(DomainEvent)[0])) == {kind.model for kind in KINDS.values()}
    for kind in KINDS.values():
        own = dict.fromkeys(field.path[0] for field in kind.fields)
        stream = ["stream_id"] if kind.has_stream else []
        expected = ["event_type", "session_id", *stream, *own, "timestamp"]
        assert list(kind.model.model_fields) == expected


def test_the_union_tells_the_kinds_apart() -> None:
    union = pydantic.TypeAdapter[Any](DomainEvent)

    for line in LINES[:32]:
        assert union.validate_json(line) == parse_event(line)
        assert union.validate_python(json.loads(line)) == parse_event(line)


def test_an_event_is_made_from_ordinary_values() -> None:
    session_id, now = SessionId.new(), datetime.now(UTC)

    event = SessionActivated(session_id=session_id, timestamp=now)

    assert event.timestamp == now
    assert event.event_type == "session_activated"
    assert event.stream_id is None
    assert SessionActivated(session_id=UUID(str(session_id)), timestamp=now) == event  # type: ignore[arg-type]
    assert SessionActivated(session_id=str(session_id), timestamp=now.isoformat()) == event  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "timestamp",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001
        1767225600,
        None,
        "2026-01-01T00:00:00",
        datetime(1600, 1, 1, tzinfo=UTC),
    ],
)
def test_a_timestamp_without_an_offset_or_out_of_range_is_refused(timestamp: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        SessionActivated(session_id=SessionId.new(), timestamp=timestamp)


def test_other_offsets_become_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    event = SessionActivated(
        session_id=SessionId.new(), timestamp=datetime(2026, 1, 1, 9, tzinfo=tokyo)
    )

    assert event.model_dump_json().endswith('"timestamp":"2026-01-01T00:00:00Z"}')


def test_session_and_stream_ids_are_not_interchangeable() -> None:
    now = datetime.now(UTC)

    with pytest.raises(pydantic.ValidationError, match="SessionId or a UUID, not StreamId"):
        SessionActivated(session_id=StreamId.new(), timestamp=now)  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError, match="StreamId or a UUID, not int"):
        StreamFailed(session_id=SessionId.new(), stream_id=5, error="", timestamp=now)  # type: ignore[arg-type]


def test_a_wrong_id_is_one_error_in_its_field() -> None:
    for wrong in (5, "x", StreamId.new()):
        with pytest.raises(pydantic.ValidationError) as caught:
            SessionActivated(session_id=wrong, timestamp=datetime.now(UTC))  # type: ignore[arg-type]
        (error,) = caught.value.errors()
        assert error["loc"] == ("session_id",)


def test_an_event_takes_an_id_as_it_is_and_makes_one_of_a_uuid_or_text() -> None:
    now = datetime.now(UTC)
    session_id = SessionId.new()

    assert SessionActivated(session_id=session_id, timestamp=now).session_id is session_id
    for same in (str(session_id), session_id.hex, UUID(str(session_id))):
        event = SessionActivated(session_id=same, timestamp=now)  # type: ignore[arg-type]
        assert type(event.session_id) is SessionId
        assert event.session_id == session_id
        assert pickle.loads(pickle.dumps(event)) == event


def test_values_of_the_right_classes_are_looked_at_in_one_call_into_python() -> None:
    values = {
        "session_id": SessionId.new(),
        "stream_id": StreamId.new(),
        "timestamp": Timestamp.parse("2026-01-01T00:00:00.123456789Z"),
        "error": "timeout",
    }
    called = []

    def note(frame: Any, what: str, _: object) -> None:
        if what == "call" and "pydantic" not in frame.f_code.co_filename:
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        StreamFailed(**values)
    finally:
        sys.setprofile(None)
    assert called == ["_encodable", "_storable"]  # the text, and the instant


@pytest.mark.parametrize(
    "spelling", ["{}", "urn:uuid:{}", "{{{}}}", pytest.param("simple", id="simple")]
)
def test_an_id_is_read_in_four_spellings(spelling: str) -> None:
    uuid = uuid4()
    text = uuid.hex if spelling == "simple" else spelling.format(uuid)

    assert SessionId(text) == SessionId.parse(text.replace(uuid.hex, uuid.hex.upper())) == uuid


@pytest.mark.parametrize("text", ["", "{}", "x" * 36, f" {UUID(int=1)}", f"{UUID(int=1)}"[:-1]])
def test_an_id_is_read_in_no_other_spelling(text: str) -> None:
    for read in (SessionId, SessionId.parse):
        with pytest.raises(ValueError, match="is not a UUID"):
            read(text)
    with pytest.raises(TypeError):
        SessionId(5)  # type: ignore[arg-type]


def test_an_id_is_a_uuid_that_can_be_pickled_and_copied() -> None:
    session_id = SessionId.new()

    assert isinstance(session_id, UUID)
    for copied in (pickle.loads(pickle.dumps(session_id)), copy.deepcopy(session_id)):
        assert type(copied) is SessionId
        assert copied == session_id
    assert {session_id: 1}[SessionId(str(session_id))] == 1


def test_events_are_frozen_hashable_values() -> None:
    for line in LINES[:16]:
        event = parse_event(line)
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            event.timestamp = Timestamp.from_epoch_ns(0)
        assert {event: 1}[parse_event(line)] == 1
        assert pickle.loads(pickle.dumps(event)) == event
        assert copy.deepcopy(event) == event


def test_model_copy_validates_what_it_changes() -> None:
    event = parse_event(LINES[0])

    later = event.model_copy(update={"timestamp": datetime(2026, 1, 1, tzinfo=UTC)})

    assert type(later.timestamp) is Timestamp
    assert event.model_copy() == event
    with pytest.raises(pydantic.ValidationError):
        event.model_copy(update={"timestamp": 5})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"session_id": "x", "frame_count": 1},
        {"frame_count": "many"},
        {"frame_count": -1},
        {"frame_count": 2**64},
        {"frame_count": 1, "timestamp": Timestamp(2262, 4, 12, tzinfo=UTC)},
    ],
)
def test_there_is_no_way_around_validation(values: dict[str, Any]) -> None:
    """So whatever is appended can be read back."""
    whole = {"session_id": SessionId.new(), "timestamp": datetime.now(UTC), **values}

    with pytest.raises(pydantic.ValidationError):
        FramesBatched.model_construct(**whole)


UNKNOWN = '{"event_type":"new","session_id":"%s","timestamp":"2026-01-01T00:00:00Z","why":1}'


@pytest.mark.parametrize(
    "changes",
    [
        {"event_type": "frames_batched"},
        {"event_type": "newer"},
        {"session_id": SessionId("67e55044-10b1-426f-9247-bb680e5fe0c8")},
        {"stream_id": StreamId("f47ac10b-58cc-4372-a567-0e02b2c3d479")},
        {"timestamp": Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=1)},
        {"original_json": "{}"},
        {"original_json": "new"},
        {"original_json": (UNKNOWN % SessionId(UUID(int=1))).replace(",", ",\n")},
        {"original_json": '"\ud800"'},
    ],
    ids=str,
)
def test_an_unknown_event_says_what_its_text_says(changes: dict[str, Any]) -> None:
    event = parse_event(UNKNOWN % SessionId(UUID(int=1)), unknown="keep")
    assert event.model_copy(update={"session_id": event.session_id}) == event

    with pytest.raises(pydantic.ValidationError):
        event.model_copy(update=changes)


def test_a_decoded_event_is_the_same_as_a_validated_one() -> None:
    """`decoding` fills models itself; this notices if pydantic's change."""
    for line in LINES * 2:  # the second time, its times are of seconds met before
        decoded = decode(encode([parse_event(line)])[0])
        validated = type(decoded).model_validate(json.loads(line))

        def state(model: Any) -> Any:
            inner = {
                name: state(value) if isinstance(value, Value) else (type(value), value)
                for name, value in model.__dict__.items()
            }
            return (
                type(model),
                list(inner),
                inner,
                model.__pydantic_extra__,
                model.__pydantic_private__,
            )

        assert state(decoded) == state(validated)
        assert decoded == validated
        assert hash(decoded) == hash(validated)
        assert repr(decoded) == repr(validated)
        assert decoded.model_dump() == validated.model_dump()


@pytest.mark.parametrize("fraction", ["", ".5", ".123456", ".000000001", ".999999999"])
@pytest.mark.parametrize("seconds", [0, 60, 2**64 - 1])
def test_an_extended_lease_is_decoded_as_it_was(fraction: str, seconds: int) -> None:
    for _ in range(2):
        event = journal.SessionTimeoutExtended(
            session_id=SessionId.new(),
            additional_seconds=seconds,
            new_expires_at=Timestamp.parse(f"2026-01-01T00:00:59{fraction}Z"),
            timestamp=datetime.now(UTC),
        )
        decoded = decode(encode([event])[0])
        assert decoded == event
        assert decoded.model_dump_json() == event.model_dump_json()


@pytest.mark.parametrize(
    "data",
    [
        None,
        "",
        '[,"2026-01-01T00:00:59.123456789Z"]',
        '[-1.5,"2026-01-01T00:00:59.123456789Z"]',
        '["1","2026-01-01T00:00:59.123456789Z"]',
        '[1,"2026-01-01T00:00:59.12345678xZ"]',
        '[1,"2026-01-01T00:00:59.+23456789Z"]',
        '[1,"2026-01-01T00:00:61.123456789Z"]',
        '[1,2,"2026-01-01T00:00:59.123456789Z"]',
    ],
)
def test_a_damaged_lease_is_not_decoded(data: str | None) -> None:
    kind, session = "session_timeout_extended", SessionId.new()
    decode((kind, session, None, 1, '[1,"2026-01-01T00:00:59.123456789Z"]'))  # the second is known

    with pytest.raises(ValueError):  # noqa: PT011 (whoever reads a file says which event it is)
        decode((kind, session, None, 1, data))


@pytest.mark.parametrize("frame_count", [5.0, "5", True, -1, 2**64, None])
def test_integers_are_strict(frame_count: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        journal.FramesBatched(
            session_id=SessionId.new(), frame_count=frame_count, timestamp=datetime.now(UTC)
        )


def test_text_that_utf8_cannot_hold_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="lone surrogate at character 1"):
        StreamFailed(
            session_id=SessionId.new(),
            stream_id=StreamId.new(),
            error="x\ud800",
            timestamp=datetime.now(UTC),
        )


def test_the_distribution_counts_and_shares() -> None:
    distribution = PriorityDistribution.from_counts(1, 2, 3, 4, 0)

    assert distribution == PriorityDistribution(
        critical_frames=1, high_frames=2, medium_frames=3, low_frames=4
    )
    assert distribution.total_frames == 10
    percentages = distribution.as_percentages()
    assert percentages.model_dump() == {
        "critical": 0.1,
        "high": 0.2,
        "medium": 0.3,
        "low": 0.4,
        "background": 0.0,
    }
    assert set(PriorityDistribution().as_percentages().model_dump().values()) == {0.0}
    assert PriorityDistribution.from_counts(*[2**64 - 1] * 5).total_frames == 5 * (2**64 - 1)


def test_the_distribution_is_complete_on_the_wire() -> None:
    with pytest.raises(pydantic.ValidationError, match="missing field 'high_frames'"):
        PriorityDistribution.model_validate_json('{"critical_frames":1}')


def test_floats_are_printed_as_the_reference_prints_them() -> None:
    metrics = PerformanceMetrics(
        frames_per_second=1e21,
        bytes_per_second=1e-5,
        average_frame_size=1,
        priority_distribution=PriorityDistribution(),
    )

    assert metrics.model_dump_json().startswith(
        '{"frames_per_second":1e21,"bytes_per_second":0.00001,"average_frame_size":1.0,'
    )
    for nan in (float("nan"), float("inf"), "1.0", True):
        with pytest.raises(pydantic.ValidationError):
            metrics.model_copy(update={"average_frame_size": nan})


def test_the_states_are_spelled_as_on_the_wire() -> None:
    assert list(SessionState) == ["Initializing", "Active", "Closing", "Completed", "Failed"]
    assert list(StreamState) == ["Preparing", "Streaming", "Completed", "Failed", "Cancelled"]
