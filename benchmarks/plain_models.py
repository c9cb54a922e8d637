"""The yardstick for parsing: the sixteen events as anybody would write them with pydantic alone.

They share nothing with the journal's own models, whose slowness would flatter it, and they do
less: a `datetime` drops the nanoseconds, duplicate fields pass, unsigned limits are not checked.
"""

from datetime import datetime
from enum import Enum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True)


class SessionState(Enum):
    """The state of a session."""

    INITIALIZING = "Initializing"
    ACTIVE = "Active"
    CLOSING = "Closing"
    COMPLETED = "Completed"
    FAILED = "Failed"


class PriorityDistribution(_Plain):
    """Frames by priority."""

    critical_frames: int
    high_frames: int
    medium_frames: int
    low_frames: int
    background_frames: int


class PerformanceMetrics(_Plain):
    """One measurement."""

    frames_per_second: float
    bytes_per_second: float
    average_frame_size: float
    priority_distribution: PriorityDistribution
    latency_ms: int | None = None


class _SessionEvent(_Plain):
    session_id: UUID
    timestamp: datetime


class _StreamEvent(_SessionEvent):
    stream_id: UUID


class SessionActivated(_SessionEvent):
    """One of the sixteen kinds, as are all below."""

    event_type: Literal["session_activated"]


class SessionClosed(_SessionEvent):  # noqa: D101
    event_type: Literal["session_closed"]


class SessionExpired(_SessionEvent):  # noqa: D101
    event_type: Literal["session_expired"]


class SessionTimedOut(_SessionEvent):  # noqa: D101
    event_type: Literal["session_timed_out"]
    original_state: SessionState
    timeout_duration: int


class SessionTimeoutExtended(_SessionEvent):  # noqa: D101
    event_type: Literal["session_timeout_extended"]
    additional_seconds: int
    new_expires_at: datetime


class StreamCreated(_StreamEvent):  # noqa: D101
    event_type: Literal["stream_created"]


class StreamStarted(_StreamEvent):  # noqa: D101
    event_type: Literal["stream_started"]


class StreamCompleted(_StreamEvent):  # noqa: D101
    event_type: Literal["stream_completed"]


class StreamFailed(_StreamEvent):  # noqa: D101
    event_type: Literal["stream_failed"]
    error: str


class StreamCancelled(_StreamEvent):  # noqa: D101
    event_type: Literal["stream_cancelled"]


class SkeletonGenerated(_StreamEvent):  # noqa: D101
    event_type: Literal["skeleton_generated"]
    frame_size_bytes: int


class PatchFramesGenerated(_StreamEvent):  # noqa: D101
    event_type: Literal["patch_frames_generated"]
    frame_count: int
    total_bytes: int
    highest_priority: int


class FramesBatched(_SessionEvent):  # noqa: D101
    event_type: Literal["frames_batched"]
    frame_count: int


class PriorityThresholdAdjusted(_SessionEvent):  # noqa: D101
    event_type: Literal["priority_threshold_adjusted"]
    old_threshold: int
    new_threshold: int
    reason: str


class StreamConfigUpdated(_StreamEvent):  # noqa: D101
    event_type: Literal["stream_config_updated"]


class PerformanceMetricsRecorded(_SessionEvent):  # noqa: D101
    event_type: Literal["performance_metrics_recorded"]
    metrics: PerformanceMetrics


PlainEvent = Annotated[
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
"""Any of the sixteen."""

parse_plain = TypeAdapter[PlainEvent](PlainEvent).validate_json
"""Parse one line."""
