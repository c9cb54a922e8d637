"""Events to stored values: what the file keeps of an event.

A *record* is an event taken apart: kind, session, stream, timestamp in nanoseconds, and data. Of a
known kind, data is the JSON array of the values in field order (None where there are none); of an
unknown kind it is the original JSON text.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from journal.errors import InvalidEventError
from journal.events import models
from journal.events.canonical import line, quoted, rust_floats
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.events.models import AnyEvent, UnknownEvent
from journal.events.timestamps import text_from_epoch_ns

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
    check_iterable(events)
    try:
        return [encoders[type(event)](event.__dict__) for event in events]
    except KeyError as error:
        if isinstance(error.args[0], type):
            message = f"expected an event, found {error.args[0].__name__}"
            raise InvalidEventError(message) from None
        raise InvalidEventError(f"an event has no value for its field {error}") from error
    except (AttributeError, TypeError) as error:
        raise InvalidEventError(f"an event holds a value of the wrong type: {error}") from error


def check_iterable(events: object) -> None:
    """Refuse a single event (a model can be iterated) and what cannot be iterated.

    Raises:
        InvalidEventError: `events` is such.
    """
    if isinstance(events, BaseModel | str | bytes) or not isinstance(events, Iterable):
        message = f"expected events, as in a list, found one {type(events).__name__}"
        raise InvalidEventError(message)


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
    expires_at = text_from_epoch_ns(fields["new_expires_at"]._epoch_ns)
    return f'[{fields["additional_seconds"]},"{expires_at}"]'


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
    values = [
        metrics["frames_per_second"],
        metrics["bytes_per_second"],
        metrics["average_frame_size"],
        counts["critical_frames"],
        counts["high_frames"],
        counts["medium_frames"],
        counts["low_frames"],
        counts["background_frames"],
        metrics["latency_ms"],
    ]
    return rust_floats(to_json(values).decode())


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

EVENT_CLASSES: dict[str, type[models.Event]] = {
    cls.model_fields["event_type"].default: cls
    for base in (models.SessionEvent, models.StreamEvent)
    for cls in base.__subclasses__()
}

Encoder = Callable[[Fields], Record]


def _encoder(kind: str, data_of: DataEncoder | None, *, has_stream: bool) -> Encoder:
    """Return what takes events of one kind apart, with as few calls as possible."""
    if data_of is None:
        if has_stream:
            return lambda f: (kind, f["session_id"], f["stream_id"], f["timestamp"]._epoch_ns, None)
        return lambda f: (kind, f["session_id"], None, f["timestamp"]._epoch_ns, None)
    if has_stream:
        return lambda f: (
            kind,
            f["session_id"],
            f["stream_id"],
            f["timestamp"]._epoch_ns,
            data_of(f),
        )
    return lambda f: (kind, f["session_id"], None, f["timestamp"]._epoch_ns, data_of(f))


def _unknown_encoder(f: Fields) -> Record:
    timestamp_ns = f["timestamp"]._epoch_ns
    return f["event_type"], f["session_id"], f["stream_id"], timestamp_ns, f["original_json"]


_ENCODERS: dict[type[Any], Encoder] = {
    EVENT_CLASSES[kind.name]: _encoder(
        kind.name, DATA_ENCODERS.get(kind.name), has_stream=kind.has_stream
    )
    for kind in KINDS.values()
}
_ENCODERS[UnknownEvent] = _unknown_encoder
