"""The sixteen domain events, and `UnknownEvent` for the kinds of a newer producer.

Events are frozen values that know nothing of storage. The order of the fields is the order on the
wire, which is why each class spells out all of its own.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from journal.events.event_id import EventId, event_id
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS, Timestamp
from journal.events.values import U8, U64, PerformanceMetrics, SessionState, Text, Value


def _storable(timestamp: Timestamp) -> Timestamp:
    if not MIN_EPOCH_NS <= timestamp.epoch_ns <= MAX_EPOCH_NS:
        message = (
            f"{timestamp.rfc3339()} is out of range (expected 1677-09-21T00:12:43.145224192Z to "
            "2262-04-11T23:47:16.854775807Z, the nanoseconds that fit in 64 bits)"
        )
        raise ValueError(message)
    return timestamp


EventTimestamp = Annotated[Timestamp, AfterValidator(_storable)]
"""When an event happened: an instant whose nanoseconds since 1970 fit in an int64."""


class Event(Value):
    """What every event has, whatever its kind."""

    if TYPE_CHECKING:  # fields of each event class, in wire order

        @property
        def event_type(self) -> str: ...
        @property
        def session_id(self) -> SessionId: ...
        @property
        def stream_id(self) -> StreamId | None: ...
        @property
        def timestamp(self) -> Timestamp: ...

    is_critical: ClassVar[bool] = False
    is_error: ClassVar[bool] = False
    is_completion: ClassVar[bool] = False

    @property
    def occurred_at(self) -> Timestamp:
        """The timestamp, under its other name."""
        return self.timestamp

    @property
    def event_id(self) -> EventId:
        """The reference's id of this content, computed when asked; equal events share it."""
        return event_id(self)

    def metadata(self) -> dict[str, str]:
        """Return event_type, session_id, timestamp (RFC 3339, "+00:00") and any stream_id."""
        facts = {
            "event_type": self.event_type,
            "session_id": str(self.session_id),
            "timestamp": self.timestamp.rfc3339(offset="+00:00"),
        }
        if self.stream_id is not None:
            facts["stream_id"] = str(self.stream_id)
        return facts


class SessionEvent(Event):
    """An event that concerns a session and none of its streams."""

    @property
    def stream_id(self) -> None:
        """None: no stream is concerned."""
        return


class StreamEvent(Event):
    """An event that concerns one stream of a session."""

    if TYPE_CHECKING:

        @property
        def stream_id(self) -> StreamId: ...


class SessionActivated(SessionEvent):
    """A session began to serve."""

    event_type: Literal["session_activated"] = "session_activated"
    session_id: SessionId
    timestamp: EventTimestamp


class SessionClosed(SessionEvent):
    """A session ended in good order; its active streams end with it, cancelled."""

    is_completion = True

    event_type: Literal["session_closed"] = "session_closed"
    session_id: SessionId
    timestamp: EventTimestamp


class SessionExpired(SessionEvent):
    """A session outlived its lease."""

    is_critical = True

    event_type: Literal["session_expired"] = "session_expired"
    session_id: SessionId
    timestamp: EventTimestamp


class SessionTimedOut(SessionEvent):
    """A session was idle for longer than `timeout_duration` seconds."""

    event_type: Literal["session_timed_out"] = "session_timed_out"
    session_id: SessionId
    original_state: SessionState
    timeout_duration: U64
    timestamp: EventTimestamp


class SessionTimeoutExtended(SessionEvent):
    """A session's lease was extended by `additional_seconds`, until `new_expires_at`."""

    event_type: Literal["session_timeout_extended"] = "session_timeout_extended"
    session_id: SessionId
    additional_seconds: U64
    new_expires_at: Timestamp
    timestamp: EventTimestamp


class StreamCreated(StreamEvent):
    """A stream was prepared."""

    event_type: Literal["stream_created"] = "stream_created"
    session_id: SessionId
    stream_id: StreamId
    timestamp: EventTimestamp


class StreamStarted(StreamEvent):
    """A stream began to send."""

    event_type: Literal["stream_started"] = "stream_started"
    session_id: SessionId
    stream_id: StreamId
    timestamp: EventTimestamp


class StreamCompleted(StreamEvent):
    """A stream sent all it had."""

    is_completion = True

    event_type: Literal["stream_completed"] = "stream_completed"
    session_id: SessionId
    stream_id: StreamId
    timestamp: EventTimestamp


class StreamFailed(StreamEvent):
    """A stream broke off, for the reason in `error`."""

    is_critical = True
    is_error = True

    event_type: Literal["stream_failed"] = "stream_failed"
    session_id: SessionId
    stream_id: StreamId
    error: Text
    timestamp: EventTimestamp


class StreamCancelled(StreamEvent):
    """A stream was called off."""

    event_type: Literal["stream_cancelled"] = "stream_cancelled"
    session_id: SessionId
    stream_id: StreamId
    timestamp: EventTimestamp


class SkeletonGenerated(StreamEvent):
    """The skeleton frame of a stream was made, of `frame_size_bytes`."""

    event_type: Literal["skeleton_generated"] = "skeleton_generated"
    session_id: SessionId
    stream_id: StreamId
    frame_size_bytes: U64
    timestamp: EventTimestamp


class PatchFramesGenerated(StreamEvent):
    """Patch frames of a stream were made; `highest_priority` is from 0 to 255."""

    event_type: Literal["patch_frames_generated"] = "patch_frames_generated"
    session_id: SessionId
    stream_id: StreamId
    frame_count: U64
    total_bytes: U64
    highest_priority: U8
    timestamp: EventTimestamp


class FramesBatched(SessionEvent):
    """Frames of several streams were sent together."""

    event_type: Literal["frames_batched"] = "frames_batched"
    session_id: SessionId
    frame_count: U64
    timestamp: EventTimestamp


class PriorityThresholdAdjusted(SessionEvent):
    """The priority (0 to 255) below which a session sends nothing was changed."""

    event_type: Literal["priority_threshold_adjusted"] = "priority_threshold_adjusted"
    session_id: SessionId
    old_threshold: U8
    new_threshold: U8
    reason: Text
    timestamp: EventTimestamp


class StreamConfigUpdated(StreamEvent):
    """A stream was reconfigured."""

    event_type: Literal["stream_config_updated"] = "stream_config_updated"
    session_id: SessionId
    stream_id: StreamId
    timestamp: EventTimestamp


class PerformanceMetricsRecorded(SessionEvent):
    """A session's throughput was measured."""

    event_type: Literal["performance_metrics_recorded"] = "performance_metrics_recorded"
    session_id: SessionId
    metrics: PerformanceMetrics
    timestamp: EventTimestamp


DomainEvent = Annotated[
    SessionActivated
    | SessionClosed
    | SessionExpired
    | SessionTimedOut
    | SessionTimeoutExtended
    | StreamCreated
    | StreamStarted
    | StreamCompleted
    | StreamFailed
    | StreamCancelled
    | SkeletonGenerated
    | PatchFramesGenerated
    | FramesBatched
    | PriorityThresholdAdjusted
    | StreamConfigUpdated
    | PerformanceMetricsRecorded,
    Field(discriminator="event_type"),
]
"""Any of the sixteen events, told apart by `event_type`."""


class _Envelope(BaseModel):
    """What an event of any kind says of itself."""

    event_type: str
    session_id: SessionId
    stream_id: StreamId | None = None
    timestamp: EventTimestamp


class UnknownEvent(Value):
    """An event of a kind that this version does not know, kept whole.

    It has what every event has but an `event_id`, which the reference defines for its own kinds
    only. `original_json` is the text that was appended, one line, and says what the fields say;
    `parse_event(text, unknown="keep")` makes one of it.
    """

    event_type: str
    session_id: SessionId
    stream_id: StreamId | None = None
    timestamp: EventTimestamp
    original_json: Text

    @model_validator(mode="after")
    def _says_what_its_text_says(self) -> Self:
        if self.event_type in KINDS:
            raise ValueError(f"{self.event_type} is a known kind: use its model")
        if "\n" in self.original_json or "\r" in self.original_json:
            raise ValueError("original_json is more than one line")
        said = _Envelope.model_validate_json(self.original_json)
        for name, value in said:
            if value != getattr(self, name):
                raise ValueError(f"original_json has {value!r} for {name}")
        return self

    is_critical: ClassVar[bool] = False
    is_error: ClassVar[bool] = False
    is_completion: ClassVar[bool] = False

    @property
    def occurred_at(self) -> Timestamp:
        """The timestamp, under its other name."""
        return self.timestamp

    metadata = Event.metadata

    def model_dump_json(self, **options: Any) -> str:
        """Return `original_json`; with `options`, pydantic's dump of the fields of this model."""
        return super().model_dump_json(**options) if options else self.original_json


AnyEvent = DomainEvent | UnknownEvent
"""What a journal holds and every query returns."""
