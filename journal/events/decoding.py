"""Stored values back to events.

What was validated when it came in is not validated again. But the data of a row is checked while it
is parsed, which costs next to nothing and shows a damaged file. A model is made by filling the
dictionary of a new instance, in a fraction of the time of `model_construct`;
`values.Value` answers for what else pydantic's BaseModel would have set. `test_events` compares the
result with a model that was built the public way, so that a pydantic that changes it is noticed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import length_hint
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import (
    CoreSchema,
    SchemaValidator,
    ValidationError,
    core_schema,
    from_json,
    to_json,
)

from journal.errors import DamagedError, JournalError
from journal.events.canonical import object_pieces
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.events.models import AnyEvent, UnknownEvent
from journal.events.records import EVENT_CLASSES
from journal.events.timestamps import KNOWN_SECONDS, Timestamp, parse_and_remember, state_of_second
from journal.events.values import PerformanceMetrics, PriorityDistribution, SessionState, Value

StoredEvent = tuple[int, int, int, int | None, int, str | None]
"""seq, kind, session, stream, timestamp, data, as the file has them."""


class Page(NamedTuple):
    """Some stored events."""

    positions: Sequence[int]
    rows: list[tuple[int, int, int | None, int, str | None]]
    """kind, session, stream, timestamp, data: the positions, where they are known, cost time."""

    @classmethod
    def of(cls, events: Iterable[StoredEvent]) -> "Page":
        """Return a page of whole rows."""
        events = list(events)
        return cls([event[0] for event in events], [event[1:] for event in events])


Fields = dict[str, Any]
Fill = Callable[[Fields, Any, Timestamp], None]
Blueprint = tuple[type[Value], str, bool | None, Fill | None]
"""What events of a kind are built from: model, event_type, whether there is a stream (None: there
may be), and what adds the values in the data and the timestamp to the fields (None: no data)."""


class Names(NamedTuple):
    """What the small integers in rows stand for."""

    kinds: Mapping[int, Blueprint]
    sessions: Mapping[int, SessionId]
    streams: Mapping[int | None, StreamId | None]


NOT_DECODED = (KeyError, ValueError, TypeError, AttributeError)
"""What is raised where a row is not what the file format says."""


def decode(
    kind: str, session: SessionId, stream: StreamId | None, timestamp_ns: int, data: str | None
) -> AnyEvent:
    """Put one event together again; see `decode_rows`."""
    row = (0, 0, 0 if stream else None, timestamp_ns, data)
    names = Names({0: blueprint(kind)}, {0: session}, {0: stream, None: None})
    (event,) = decode_rows("", Page([0], [row]), names, lambda: names)
    return event


def decode_rows(
    path: Path | str, page: Page, names: Names, learn: Callable[[], Names]
) -> Iterator[AnyEvent]:
    """Yield the event of each row of a page when it is asked for.

    It is written for speed: what most events have is made here, without a call.

    Args:
        path: of the journal, for errors.
        page: as it was read.
        names: what is known already of what its rows name.
        learn: returns all of it that there is; called when something is not known.

    Raises:
        DamagedError: a row is not what the file format says.
        JournalError: whatever `learn` raises.
    """
    remaining = iter(page.rows)
    kinds, sessions, streams = names
    second_ns = next_second_ns = state = 0
    try:
        for kind, session, stream, timestamp_ns, data in remaining:
            try:
                cls, event_type, has_stream, fill = kinds[kind]
                session_id, stream_id = sessions[session], streams[stream]
            except KeyError:
                kinds, sessions, streams = learn()
                cls, event_type, has_stream, fill = kinds[kind]
                session_id, stream_id = sessions[session], streams[stream]
            if (stream is None) is has_stream:
                raise ValueError(f"its kind {'needs a' if has_stream else 'has no'} stream")
            # What Timestamp.from_epoch_ns(timestamp_ns) makes: most events share a second.
            if not second_ns <= timestamp_ns < next_second_ns:
                second = timestamp_ns // 1_000_000_000
                second_ns = second * 1_000_000_000
                next_second_ns = second_ns + 1_000_000_000
                state = state_of_second(second, timestamp_ns)
            microsecond = (timestamp_ns - second_ns) // 1_000
            timestamp = _new_datetime(Timestamp, (state + microsecond).to_bytes(10), UTC)
            timestamp._epoch_ns = timestamp_ns
            event = _new(cls)
            fields = event.__dict__
            fields["event_type"] = event_type
            fields["session_id"] = session_id
            if has_stream is not False:
                fields["stream_id"] = stream_id
            if fill is not None:
                fill(fields, data, timestamp)
            elif data is None:
                fields["timestamp"] = timestamp
            else:
                raise ValueError("its kind has no data")
            yield event
    except JournalError:
        raise
    except NOT_DECODED as error:
        position = page.positions[len(page.rows) - length_hint(remaining) - 1]
        raise damaged(path, position, error) from error


def damaged(path: Path | str, position: int, error: Exception) -> DamagedError:
    """Return the error for an event that is not as the file format says."""
    what = f"the event at position {position} is damaged: {sentence(error)}"
    return DamagedError(path, what, position)


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


# What each kind has besides its ids, in the order of its model.


def _timed_out(fields: Fields, data: str, timestamp: Timestamp) -> None:
    state, seconds = _timed_out_values(data)
    fields["original_state"] = SessionState(state)
    fields["timeout_duration"] = seconds
    fields["timestamp"] = timestamp


def _extended(fields: Fields, data: str, timestamp: Timestamp) -> None:
    # Like [60,"2026-01-01T00:00:00.123456789Z"]: to cut it up takes two thirds of the
    # time that parsing it does.
    second = KNOWN_SECONDS.get(data[-32:-12])
    seconds, digits = data[1:-34], data[-12:-3]
    if second is None or not (digits.isdigit() and seconds.isdigit()):
        fields["additional_seconds"], expires_at = _extended_values(data)
        fields["new_expires_at"] = parse_and_remember(expires_at)
    else:
        state, second_ns = second
        below_ns = int(digits)
        known = _new_datetime(Timestamp, (state + below_ns // 1_000).to_bytes(10), UTC)
        known._epoch_ns = second_ns + below_ns
        fields["additional_seconds"] = int(seconds)
        fields["new_expires_at"] = known
    fields["timestamp"] = timestamp


def _failed(fields: Fields, data: str, timestamp: Timestamp) -> None:
    (error,) = _text_value(data)
    fields["error"] = error
    fields["timestamp"] = timestamp


def _skeleton(fields: Fields, data: str, timestamp: Timestamp) -> None:
    (size,) = _integer_value(data)
    fields["frame_size_bytes"] = size
    fields["timestamp"] = timestamp


def _patches(fields: Fields, data: str, timestamp: Timestamp) -> None:
    count, size, priority = _patches_values(data)
    fields["frame_count"] = count
    fields["total_bytes"] = size
    fields["highest_priority"] = priority
    fields["timestamp"] = timestamp


def _batched(fields: Fields, data: str, timestamp: Timestamp) -> None:
    (count,) = _integer_value(data)
    fields["frame_count"] = count
    fields["timestamp"] = timestamp


def _threshold(fields: Fields, data: str, timestamp: Timestamp) -> None:
    old, new, reason = _threshold_values(data)
    fields["old_threshold"] = old
    fields["new_threshold"] = new
    fields["reason"] = reason
    fields["timestamp"] = timestamp


def _metrics(fields: Fields, data: str, timestamp: Timestamp) -> None:
    fields["metrics"] = metrics_of(data)
    fields["timestamp"] = timestamp


def metrics_of(data: str) -> PerformanceMetrics:
    """Return the metrics in the data of performance_metrics_recorded.

    Raises:
        ValueError: it is not what metrics are stored as.
    """
    frames, size, average, critical, high, medium, low, background, latency = _metrics_values(data)
    distribution = _new(PriorityDistribution)
    counts = distribution.__dict__
    counts["critical_frames"] = critical
    counts["high_frames"] = high
    counts["medium_frames"] = medium
    counts["low_frames"] = low
    counts["background_frames"] = background
    metrics: PerformanceMetrics = _new(PerformanceMetrics)
    fields = metrics.__dict__
    fields["frames_per_second"] = frames
    fields["bytes_per_second"] = size
    fields["average_frame_size"] = average
    fields["priority_distribution"] = distribution
    fields["latency_ms"] = latency
    return metrics


def _unknown(names: Sequence[str] | None) -> Fill:
    """Return what adds the last fields of an `UnknownEvent`.

    `names` are those of the values in its data, where a newer version of the journal, which knew
    the kind, has stored it by fields; None where its data is its text.
    """

    def fill(fields: Fields, data: Any, timestamp: Timestamp) -> None:
        if names is not None:
            found = {name: value for name, value in fields.items() if value is not None}
            found.update(zip(names, from_json(data or "[]"), strict=True))
            found["timestamp"] = timestamp.rfc3339()
            *pieces, end = object_pieces([*found])
            pairs = zip(pieces, found.values(), strict=True)
            data = f"{{{''.join(piece + to_json(value).decode() for piece, value in pairs)}{end}}}"
        if not (isinstance(data, str) and data.startswith("{")):
            raise ValueError("it has lost its text")
        fields["timestamp"] = timestamp
        fields["original_json"] = data

    return fill


_FILLS: dict[str, Fill] = {
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
    name: (EVENT_CLASSES[name], name, kind.has_stream, _FILLS.get(name))
    for name, kind in KINDS.items()
}


def blueprint(kind: str, names: Sequence[str] | None = None) -> Blueprint:
    """Return what events of a kind are built from; `UnknownEvent` for a kind that is not known.

    `names` are those of the values in the data of a kind that is not known, None for whole texts.
    """
    return _BLUEPRINTS.get(kind) or (UnknownEvent, kind, None, _unknown(names))
