"""Stored values back to events.

What was validated when it came in is not validated again, but for what a damaged file could show:
the data of a row is checked while it is parsed, which costs next to nothing. A model is built
through the slots that pydantic's BaseModel declares, in a fifth of the time of `model_construct`;
`test_events` compares the result with a model that was built the public way, so that a pydantic
that changes them is noticed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from journal.events import AnyEvent, UnknownEvent
from journal.ids import SessionId, StreamId
from journal.kinds import KINDS
from journal.rows import EVENT_CLASSES
from journal.store import RecordedEvent
from journal.timestamps import Timestamp, epoch_ns_from_text
from journal.values import PerformanceMetrics, PriorityDistribution, SessionState

StoredEvent = tuple[int, int, int, int | None, int, str | None]
"""seq, kind, session, stream, timestamp, data, as the file has them."""

FieldsOf = Callable[[SessionId, StreamId | None, Timestamp, Any], dict[str, Any]]
Blueprint = tuple[type[BaseModel], set[str], bool | None, FieldsOf]
"""What events of a kind are built from: model, names of fields, whether there is a stream (None:
there may be), and what makes the fields of the model."""

NOT_DECODED = (KeyError, ValueError, TypeError, AttributeError)
"""What `decode_rows` raises where a row is not what the file format says."""


def decode(
    kind: str, session: SessionId, stream: StreamId | None, timestamp_ns: int, data: str | None
) -> AnyEvent:
    """Put one event together again; see `decode_rows`."""
    row = (0, 0, 0, 0 if stream else None, timestamp_ns, data)
    ((_, event),) = decode_rows([row], {0: blueprint(kind)}, {0: session}, {0: stream, None: None})
    return event


def decode_rows(
    rows: Iterable[StoredEvent],
    blueprints: Mapping[int, Blueprint],
    sessions: Mapping[int, SessionId],
    streams: Mapping[int | None, StreamId | None],
) -> Iterator[RecordedEvent]:
    """Yield the position and the event of each row, as they are asked for.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: a row is not what the file format says.
    """
    instant = Timestamp.from_epoch_ns
    for position, kind, session, stream, timestamp_ns, data in rows:
        cls, names, has_stream, fields_of = blueprints[kind]
        if (stream is None) is has_stream:
            raise ValueError(f"its kind {'needs a' if has_stream else 'has no'} stream")
        event = _new(cls)
        _set_fields(
            event, fields_of(sessions[session], streams[stream], instant(timestamp_ns), data)
        )
        _set_fields_set(event, names)
        _set_extra(event, None)
        _set_private(event, None)
        yield _new_tuple(RecordedEvent, (position, event))


_new: Any = object.__new__
_new_tuple: Any = tuple.__new__  # a third of the time of the named tuple's own
_set_fields = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def _built(cls: type[BaseModel], fields: dict[str, Any]) -> Any:
    model = _new(cls)
    _set_fields(model, fields)
    _set_fields_set(model, {*fields})
    _set_extra(model, None)
    _set_private(model, None)
    return model


def _parser(*types: CoreSchema) -> Callable[[Any], tuple[Any, ...]]:
    """Return what parses data: a JSON array of values of these types.

    Their ranges are not looked at again: what is checked is that the row was not mixed up.
    """
    return SchemaValidator(core_schema.tuple_schema([*types], strict=True)).validate_json


_INTEGER = core_schema.int_schema(strict=True)
_FLOAT = core_schema.float_schema(strict=True)
_TEXT = core_schema.str_schema(strict=True)

_STATE = core_schema.literal_schema([state.value for state in SessionState])

_timed_out_values = _parser(_STATE, _INTEGER)
_extended_values = _parser(_INTEGER, _TEXT)
_text_value = _parser(_TEXT)
_integer_value = _parser(_INTEGER)
_patches_values = _parser(_INTEGER, _INTEGER, _INTEGER)
_threshold_values = _parser(_INTEGER, _INTEGER, _TEXT)
_metrics_values = _parser(
    _FLOAT, _FLOAT, _FLOAT, *[_INTEGER] * 5, core_schema.nullable_schema(_INTEGER)
)


# The fields of each kind, in the order of its model. Every function takes the same arguments.


def _only_ids(kind: str, *, has_stream: bool) -> FieldsOf:
    """Return what makes the fields of a kind that has no data."""

    def stream_fields(
        session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: None
    ) -> dict[str, Any]:
        if data is not None:
            raise ValueError("its kind has no data")
        return {
            "event_type": kind,
            "session_id": session,
            "stream_id": stream,
            "timestamp": timestamp,
        }

    def session_fields(
        session: SessionId, _: StreamId | None, timestamp: Timestamp, data: None
    ) -> dict[str, Any]:
        if data is not None:
            raise ValueError("its kind has no data")
        return {"event_type": kind, "session_id": session, "timestamp": timestamp}

    return stream_fields if has_stream else session_fields


def _timed_out(
    session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    state, seconds = _timed_out_values(data)
    return {
        "event_type": "session_timed_out",
        "session_id": session,
        "original_state": SessionState(state),
        "timeout_duration": seconds,
        "timestamp": timestamp,
    }


def _extended(
    session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    seconds, text = _extended_values(data)
    return {
        "event_type": "session_timeout_extended",
        "session_id": session,
        "additional_seconds": seconds,
        "new_expires_at": Timestamp.from_epoch_ns(epoch_ns_from_text(text)),
        "timestamp": timestamp,
    }


def _failed(
    session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    (error,) = _text_value(data)
    return {
        "event_type": "stream_failed",
        "session_id": session,
        "stream_id": stream,
        "error": error,
        "timestamp": timestamp,
    }


def _skeleton(
    session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    (size,) = _integer_value(data)
    return {
        "event_type": "skeleton_generated",
        "session_id": session,
        "stream_id": stream,
        "frame_size_bytes": size,
        "timestamp": timestamp,
    }


def _patches(
    session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    count, size, priority = _patches_values(data)
    return {
        "event_type": "patch_frames_generated",
        "session_id": session,
        "stream_id": stream,
        "frame_count": count,
        "total_bytes": size,
        "highest_priority": priority,
        "timestamp": timestamp,
    }


def _batched(
    session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    (count,) = _integer_value(data)
    return {
        "event_type": "frames_batched",
        "session_id": session,
        "frame_count": count,
        "timestamp": timestamp,
    }


def _threshold(
    session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    old, new, reason = _threshold_values(data)
    return {
        "event_type": "priority_threshold_adjusted",
        "session_id": session,
        "old_threshold": old,
        "new_threshold": new,
        "reason": reason,
        "timestamp": timestamp,
    }


def _metrics(
    session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    return {
        "event_type": "performance_metrics_recorded",
        "session_id": session,
        "metrics": metrics_of(data),
        "timestamp": timestamp,
    }


def metrics_of(data: str) -> PerformanceMetrics:
    """Return the metrics in the data of performance_metrics_recorded.

    Raises:
        ValueError: it is none.
    """
    frames, size, average, critical, high, medium, low, background, latency = _metrics_values(data)
    distribution = {
        "critical_frames": critical,
        "high_frames": high,
        "medium_frames": medium,
        "low_frames": low,
        "background_frames": background,
    }
    metrics = {
        "frames_per_second": frames,
        "bytes_per_second": size,
        "average_frame_size": average,
        "priority_distribution": _built(PriorityDistribution, distribution),
        "latency_ms": latency,
    }
    found: PerformanceMetrics = _built(PerformanceMetrics, metrics)
    return found


def _unknown(kind: str) -> FieldsOf:
    def fields(
        session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: Any
    ) -> dict[str, Any]:
        if not (isinstance(data, str) and data.startswith("{")):
            raise ValueError("it has lost its text")
        return {
            "event_type": kind,
            "session_id": session,
            "stream_id": stream,
            "timestamp": timestamp,
            "original_json": data,
        }

    return fields


_FIELDS_OF: dict[str, FieldsOf] = {
    "session_timed_out": _timed_out,
    "session_timeout_extended": _extended,
    "stream_failed": _failed,
    "skeleton_generated": _skeleton,
    "patch_frames_generated": _patches,
    "frames_batched": _batched,
    "priority_threshold_adjusted": _threshold,
    "performance_metrics_recorded": _metrics,
}

_BLUEPRINTS: dict[str, Blueprint] = {
    name: (
        EVENT_CLASSES[name],
        {*EVENT_CLASSES[name].model_fields},
        kind.has_stream,
        _FIELDS_OF.get(name) or _only_ids(name, has_stream=kind.has_stream),
    )
    for name, kind in KINDS.items()
}


def blueprint(kind: str) -> Blueprint:
    """Return what events of a kind are built from; `UnknownEvent` for a kind that is not known."""
    return _BLUEPRINTS.get(kind) or (
        UnknownEvent,
        {*UnknownEvent.model_fields},
        None,
        _unknown(kind),
    )
