"""Stored values back to events.

What was validated when it came in is not validated again, but for what a damaged file could show:
the data of a row is checked while it is parsed, which costs next to nothing. A model is made of its
fields alone, through the slot that pydantic's BaseModel declares for them, in a fraction of the
time of `model_construct`; `values.Value` answers for the slots that are left empty. `test_events`
compares the result with a model that was built the public way, so that a pydantic that changes
them is noticed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

from journal.errors import DamagedError
from journal.events import AnyEvent, UnknownEvent
from journal.ids import SessionId, StreamId
from journal.kinds import KINDS
from journal.rows import EVENT_CLASSES
from journal.timestamps import Timestamp, state_of_second
from journal.values import PerformanceMetrics, PriorityDistribution, SessionState

StoredEvent = tuple[int, int, int, int | None, int, str | None]
"""seq, kind, session, stream, timestamp, data, as the file has them."""

FieldsOf = Callable[[SessionId, StreamId | None, Timestamp, Any], dict[str, Any]]
Blueprint = tuple[type[BaseModel], str, bool | None, FieldsOf | None]
"""What events of a kind are built from: model, event_type, whether there is a stream (None: there
may be), and what makes the fields of the model (None for a kind that has ids and time only)."""

NOT_DECODED = (KeyError, ValueError, TypeError, AttributeError)
"""What is raised where a row is not what the file format says."""


def decode(
    kind: str, session: SessionId, stream: StreamId | None, timestamp_ns: int, data: str | None
) -> AnyEvent:
    """Put one event together again; see `decode_rows`."""
    row = (0, 0, 0, 0 if stream else None, timestamp_ns, data)
    streams = {0: stream, None: None}
    return next(decode_rows("", [row], {0: blueprint(kind)}, {0: session}, streams))


def decode_rows(
    path: Path | str,
    rows: Iterable[StoredEvent],
    blueprints: Mapping[int, Blueprint],
    sessions: Mapping[int, SessionId],
    streams: Mapping[int | None, StreamId | None],
) -> Iterator[AnyEvent]:
    """Yield the event of each row when it is asked for.

    It is written for speed: what most events have is made here, without a call.

    Raises:
        DamagedError: a row of the journal at `path` is not what the file format says.
    """
    position = 0
    second_ns, state = 0, state_of_second(0, 0)
    try:
        for position, kind, session, stream, timestamp_ns, data in rows:  # noqa: B007 (see below)
            cls, event_type, has_stream, fields_of = blueprints[kind]
            if (stream is None) is has_stream:
                raise ValueError(f"its kind {'needs a' if has_stream else 'has no'} stream")
            # What Timestamp.from_epoch_ns(timestamp_ns) makes: most events share a second.
            below_ns = timestamp_ns - second_ns
            if not 0 <= below_ns < 1_000_000_000:
                second = timestamp_ns // 1_000_000_000
                second_ns = second * 1_000_000_000
                below_ns = timestamp_ns - second_ns
                state = state_of_second(second, timestamp_ns)
            timestamp = _new_datetime(Timestamp, (state + below_ns // 1_000).to_bytes(10), UTC)
            timestamp._epoch_ns = timestamp_ns
            if fields_of is not None:
                fields = fields_of(sessions[session], streams[stream], timestamp, data)
            elif data is not None:
                raise ValueError("its kind has no data")
            elif has_stream:
                fields = {
                    "event_type": event_type,
                    "session_id": sessions[session],
                    "stream_id": streams[stream],
                    "timestamp": timestamp,
                }
            else:
                fields = {
                    "event_type": event_type,
                    "session_id": sessions[session],
                    "timestamp": timestamp,
                }
            event = _new(cls)
            _set_fields(event, fields)
            yield event
    except NOT_DECODED as error:
        raise damaged(path, position, error) from error


def damaged(path: Path | str, position: int, error: Exception) -> DamagedError:
    """Return what is to be said of an event that is not as the file format says."""
    return DamagedError(path, f"the event at position {position} is damaged: {sentence(error)}")


def sentence(error: Exception) -> str:
    """Return one of `NOT_DECODED` in words."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"its data: {first['msg']}"
    if isinstance(error, KeyError):
        return f"it names {error}, which is not there"
    return str(error)


_new: Any = object.__new__
_new_datetime: Any = datetime.__new__
_set_fields = BaseModel.__dict__["__dict__"].__set__


def _built(cls: type[BaseModel], fields: dict[str, Any]) -> Any:
    model = _new(cls)
    _set_fields(model, fields)
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


# The fields of each kind that has data, in the order of its model. Every function takes the same
# arguments.


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
    seconds, expires_at = _extended_values(data)
    return {
        "event_type": "session_timeout_extended",
        "session_id": session,
        "additional_seconds": seconds,
        "new_expires_at": Timestamp.parse(expires_at),
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
    name: (EVENT_CLASSES[name], name, kind.has_stream, _FIELDS_OF.get(name))
    for name, kind in KINDS.items()
}


def blueprint(kind: str) -> Blueprint:
    """Return what events of a kind are built from; `UnknownEvent` for a kind that is not known."""
    return _BLUEPRINTS.get(kind) or (UnknownEvent, kind, None, _unknown(kind))
