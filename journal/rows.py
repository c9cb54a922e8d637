"""Events to stored values and back: what the file keeps of an event, and how it is rebuilt.

A *record* is an event taken apart: kind, session, stream, timestamp in nanoseconds, and data. Of a
known kind, data is the JSON array of the values in field order (None where there are none); of an
unknown kind it is the original JSON text.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from journal import events
from journal.canonical import float_text, line, quoted
from journal.errors import InvalidEventError
from journal.events import AnyEvent, UnknownEvent
from journal.ids import SessionId, StreamId
from journal.kinds import KINDS
from journal.timestamps import Timestamp, epoch_ns_from_text, text_from_epoch_ns
from journal.values import PerformanceMetrics, PriorityDistribution, SessionState

Record = tuple[str, SessionId, StreamId | None, int, str | None]
"""kind, session, stream, timestamp_ns, data."""

Fields = Mapping[str, Any]

DATA_SIZE_MAX = 64 * 1024 * 1024
"""The most that an event's data may hold, in characters. The text of a block of them stays far
below the largest that SQLite accepts, a billion bytes, even with every character escaped."""


def encode(events: Iterable[AnyEvent]) -> list[Record]:
    """Take events apart.

    Raises:
        InvalidEventError: something is not an event, or was built unchecked (`model_construct`)
            with values that do not fit.
    """
    encoders = _ENCODERS
    try:
        return [encoders[type(event)](event.__dict__) for event in events]
    except KeyError as error:
        if isinstance(error.args[0], type):
            message = f"expected an event, found a {error.args[0].__name__}"
            raise InvalidEventError(message) from None
        raise InvalidEventError(f"an event has no value for its field {error}") from error
    except (AttributeError, TypeError) as error:
        raise InvalidEventError(f"an event holds a value of the wrong type: {error}") from error


def decode(
    kind: str,
    session: SessionId,
    stream: StreamId | None,
    timestamp_ns: int,
    data: str | None,
) -> AnyEvent:
    """Put one event together again; see `decode_rows`."""
    row = (0, 0, 0, 0, timestamp_ns, data)
    ((_, event),) = decode_rows([row], {0: blueprint(kind)}, {0: session}, {0: stream})
    return event


def decode_rows(
    rows: Iterable[tuple[int, int, int, int | None, int, str | None]],
    blueprints: Mapping[int, "Blueprint"],
    sessions: Mapping[int, SessionId],
    streams: Mapping[int | None, StreamId | None],
) -> Iterator[tuple[int, AnyEvent]]:
    """Yield the position and the event of each row, as they are asked for.

    What was validated when it came in is not validated again. A model is built through the slots
    that pydantic's BaseModel declares, which takes a fifth of the time of `model_construct`;
    `test_events` compares the result with a model that was built the public way, so that a
    pydantic that changes them is noticed.

    Raises:
        ValueError, KeyError, TypeError: a row is not what the file format says.
    """
    instant = Timestamp.from_epoch_ns
    for position, kind, session, stream, timestamp_ns, data in rows:
        name, cls, names, fields_of = blueprints[kind]
        event = _new(cls)
        fields = fields_of(name, sessions[session], streams[stream], instant(timestamp_ns), data)
        _set_fields(event, fields)
        _set_fields_set(event, names)
        _set_extra(event, None)
        _set_private(event, None)
        yield position, event


_new: Any = object.__new__
_set_fields = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def canonical_json(record: Record) -> str:
    """Return the canonical text of a record: what the event's `model_dump_json()` gives."""
    kind, session, stream, timestamp_ns, data = record
    if kind not in KINDS:
        return data or ""
    stream_text = None if stream is None else str(stream)
    return line(kind, str(session), stream_text, text_from_epoch_ns(timestamp_ns), data)


def content_digest(records: Iterable[Record]) -> str:
    """Return the SHA-256 of the canonical text of records, a line feed after each."""
    hasher = hashlib.sha256()
    for record in records:
        hasher.update(f"{canonical_json(record)}\n".encode())
    return hasher.hexdigest()


# The values of each kind as a JSON array. f-strings of int and str are what Python does fastest.


def _timed_out(fields: Fields) -> str:
    return f'["{fields["original_state"]}",{fields["timeout_duration"]}]'


def _extended(fields: Fields) -> str:
    return f'[{fields["additional_seconds"]},"{fields["new_expires_at"].rfc3339()}"]'


def _failed(fields: Fields) -> str:
    return f"[{quoted(fields['error'])}]"


def _skeleton(fields: Fields) -> str:
    return f"[{fields['frame_size_bytes']}]"


def _patches(fields: Fields) -> str:
    return f"[{fields['frame_count']},{fields['total_bytes']},{fields['highest_priority']}]"


def _batched(fields: Fields) -> str:
    return f"[{fields['frame_count']}]"


def _threshold(fields: Fields) -> str:
    old, new = fields["old_threshold"], fields["new_threshold"]
    return f"[{old},{new},{quoted(fields['reason'])}]"


def _metrics(fields: Fields) -> str:
    metrics = fields["metrics"].__dict__
    return metrics_data(metrics, metrics["priority_distribution"].__dict__)


def metrics_data(metrics: Fields, counts: Fields) -> str:
    """Return the data of performance_metrics_recorded from its two nested mappings."""
    latency_ms = metrics["latency_ms"]
    return (
        f"[{float_text(metrics['frames_per_second'])},{float_text(metrics['bytes_per_second'])},"
        f"{float_text(metrics['average_frame_size'])},{counts['critical_frames']},"
        f"{counts['high_frames']},{counts['medium_frames']},{counts['low_frames']},"
        f"{counts['background_frames']},{'null' if latency_ms is None else latency_ms}]"
    )


DataEncoder = Callable[[Fields], str]

DATA_ENCODERS: dict[str, DataEncoder] = {
    "session_timed_out": _timed_out,
    "session_timeout_extended": _extended,
    "stream_failed": _failed,
    "skeleton_generated": _skeleton,
    "patch_frames_generated": _patches,
    "frames_batched": _batched,
    "priority_threshold_adjusted": _threshold,
    "performance_metrics_recorded": _metrics,
}

EVENT_CLASSES: dict[str, type[events.Event]] = {
    cls.model_fields["event_type"].default: cls
    for base in (events.SessionEvent, events.StreamEvent)
    for cls in base.__subclasses__()
}

Encoder = Callable[[Fields], Record]


def _encoder(kind: str, data_of: DataEncoder | None, *, has_stream: bool) -> Encoder:
    """Return what takes events of one kind apart, with as few calls as can be."""
    if data_of is None:
        if has_stream:
            return lambda f: (kind, f["session_id"], f["stream_id"], f["timestamp"].epoch_ns, None)
        return lambda f: (kind, f["session_id"], None, f["timestamp"].epoch_ns, None)
    if has_stream:
        return lambda f: (
            kind,
            f["session_id"],
            f["stream_id"],
            f["timestamp"].epoch_ns,
            data_of(f),
        )
    return lambda f: (kind, f["session_id"], None, f["timestamp"].epoch_ns, data_of(f))


def _unknown_encoder(f: Fields) -> Record:
    timestamp_ns = f["timestamp"].epoch_ns
    return f["event_type"], f["session_id"], f["stream_id"], timestamp_ns, f["original_json"]


_ENCODERS: dict[type[Any], Encoder] = {
    EVENT_CLASSES[kind.name]: _encoder(
        kind.name, DATA_ENCODERS.get(kind.name), has_stream=kind.has_stream
    )
    for kind in KINDS.values()
}
_ENCODERS[UnknownEvent] = _unknown_encoder

# The fields of each kind, in the order of its model. Every function takes the same arguments.

FieldsOf = Callable[[str, SessionId, StreamId | None, Timestamp, Any], dict[str, Any]]
Blueprint = tuple[str, type[BaseModel], set[str], FieldsOf]
"""What `decode_rows` builds an event of one kind from: name, model, names and values of fields."""


def _session_fields(
    kind: str, session: SessionId, _: StreamId | None, timestamp: Timestamp, _data: str | None
) -> dict[str, Any]:
    return {"event_type": kind, "session_id": session, "timestamp": timestamp}


def _stream_fields(
    kind: str, session: SessionId, stream: StreamId | None, timestamp: Timestamp, _: str | None
) -> dict[str, Any]:
    return {
        "event_type": kind,
        "session_id": session,
        "stream_id": stream,
        "timestamp": timestamp,
    }


def _timed_out_fields(
    kind: str, session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    state, seconds = from_json(data)
    return {
        "event_type": kind,
        "session_id": session,
        "original_state": SessionState(state),
        "timeout_duration": seconds,
        "timestamp": timestamp,
    }


def _extended_fields(
    kind: str, session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    seconds, text = from_json(data)
    return {
        "event_type": kind,
        "session_id": session,
        "additional_seconds": seconds,
        "new_expires_at": Timestamp.from_epoch_ns(epoch_ns_from_text(text)),
        "timestamp": timestamp,
    }


def _failed_fields(
    kind: str, session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    (error,) = from_json(data)
    return {
        "event_type": kind,
        "session_id": session,
        "stream_id": stream,
        "error": error,
        "timestamp": timestamp,
    }


def _skeleton_fields(
    kind: str, session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    (size,) = from_json(data)
    return {
        "event_type": kind,
        "session_id": session,
        "stream_id": stream,
        "frame_size_bytes": size,
        "timestamp": timestamp,
    }


def _patches_fields(
    kind: str, session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    count, size, priority = from_json(data)
    return {
        "event_type": kind,
        "session_id": session,
        "stream_id": stream,
        "frame_count": count,
        "total_bytes": size,
        "highest_priority": priority,
        "timestamp": timestamp,
    }


def _batched_fields(
    kind: str, session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    (count,) = from_json(data)
    return {
        "event_type": kind,
        "session_id": session,
        "frame_count": count,
        "timestamp": timestamp,
    }


def _threshold_fields(
    kind: str, session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    old, new, reason = from_json(data)
    return {
        "event_type": kind,
        "session_id": session,
        "old_threshold": old,
        "new_threshold": new,
        "reason": reason,
        "timestamp": timestamp,
    }


def _metrics_fields(
    kind: str, session: SessionId, _: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    return {
        "event_type": kind,
        "session_id": session,
        "metrics": metrics_of(data),
        "timestamp": timestamp,
    }


def metrics_of(data: str) -> PerformanceMetrics:
    """Return the metrics in the data of performance_metrics_recorded."""
    frames_per_second, bytes_per_second, average_frame_size, *counts, latency_ms = from_json(data)
    names = PriorityDistribution.model_fields
    return PerformanceMetrics.model_construct(
        frames_per_second=frames_per_second,
        bytes_per_second=bytes_per_second,
        average_frame_size=average_frame_size,
        priority_distribution=PriorityDistribution.model_construct(
            **dict(zip(names, counts, strict=True))
        ),
        latency_ms=latency_ms,
    )


def _unknown_fields(
    kind: str, session: SessionId, stream: StreamId | None, timestamp: Timestamp, data: str
) -> dict[str, Any]:
    return {
        "event_type": kind,
        "session_id": session,
        "stream_id": stream,
        "timestamp": timestamp,
        "original_json": data,
    }


_FIELDS_OF: dict[str, FieldsOf] = {
    "session_timed_out": _timed_out_fields,
    "session_timeout_extended": _extended_fields,
    "stream_failed": _failed_fields,
    "skeleton_generated": _skeleton_fields,
    "patch_frames_generated": _patches_fields,
    "frames_batched": _batched_fields,
    "priority_threshold_adjusted": _threshold_fields,
    "performance_metrics_recorded": _metrics_fields,
}


def blueprint(kind: str) -> Blueprint:
    """Return what events of a kind are built from; `UnknownEvent` for a kind that is not known."""
    return _BLUEPRINTS.get(kind) or (
        kind,
        UnknownEvent,
        {*UnknownEvent.model_fields},
        _unknown_fields,
    )


_BLUEPRINTS: dict[str, Blueprint] = {
    kind.name: (
        kind.name,
        EVENT_CLASSES[kind.name],
        {*EVENT_CLASSES[kind.name].model_fields},
        _FIELDS_OF.get(kind.name) or (_stream_fields if kind.has_stream else _session_fields),
    )
    for kind in KINDS.values()
}
