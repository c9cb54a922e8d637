"""The table of kinds: what each kind of event is called, and what it carries.

A class here is a row. It gives the kind's name on the wire and its own fields, in order, with their
types and units; what all events have (`event_type`, `session_id`, `stream_id` for a `StreamEvent`,
`timestamp`) stands around them. Everything else that knows the fields of a kind is made from these
classes when it is needed: the union below, what takes events apart and puts them together
(`codecs`), the readers of the wire, the canonical text, the rows of the table `kind`, the view
`events`. Only the fold says by itself what a kind does.

To add a kind, add its class, in the last place, and its line to the union that type checkers see.
"""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from journal.events.event import Kind, SessionEvent, StreamEvent
from journal.events.timestamps import Instant
from journal.events.values import U8, U64, PerformanceMetrics, SessionState, Text


class SessionActivated(SessionEvent):
    """A session began to serve."""

    event_type: Literal["session_activated"] = "session_activated"


class SessionClosed(SessionEvent):
    """A session ended in good order; its active streams end with it, cancelled."""

    is_completion = True

    event_type: Literal["session_closed"] = "session_closed"


class SessionExpired(SessionEvent):
    """A session outlived its lease."""

    is_critical = True

    event_type: Literal["session_expired"] = "session_expired"


class SessionTimedOut(SessionEvent):
    """A session was idle for longer than `timeout_duration` seconds."""

    event_type: Literal["session_timed_out"] = "session_timed_out"
    original_state: SessionState
    timeout_duration: Annotated[U64, "seconds"]


class SessionTimeoutExtended(SessionEvent):
    """A session's lease was extended by `additional_seconds`, to `new_expires_at`."""

    event_type: Literal["session_timeout_extended"] = "session_timeout_extended"
    additional_seconds: Annotated[U64, "seconds"]
    new_expires_at: Instant


class StreamCreated(StreamEvent):
    """A stream was prepared."""

    event_type: Literal["stream_created"] = "stream_created"


class StreamStarted(StreamEvent):
    """A stream began to send."""

    event_type: Literal["stream_started"] = "stream_started"


class StreamCompleted(StreamEvent):
    """A stream sent all it had."""

    is_completion = True

    event_type: Literal["stream_completed"] = "stream_completed"


class StreamFailed(StreamEvent):
    """A stream broke off, for the reason in `error`."""

    is_critical = True
    is_error = True

    event_type: Literal["stream_failed"] = "stream_failed"
    error: Text


class StreamCancelled(StreamEvent):
    """A stream was called off."""

    event_type: Literal["stream_cancelled"] = "stream_cancelled"


class SkeletonGenerated(StreamEvent):
    """The skeleton frame of a stream was made, of `frame_size_bytes`."""

    event_type: Literal["skeleton_generated"] = "skeleton_generated"
    frame_size_bytes: Annotated[U64, "bytes"]


class PatchFramesGenerated(StreamEvent):
    """Patch frames of a stream were made; `highest_priority` is from 0 to 255."""

    event_type: Literal["patch_frames_generated"] = "patch_frames_generated"
    frame_count: Annotated[U64, "frames"]
    total_bytes: Annotated[U64, "bytes"]
    highest_priority: Annotated[U8, "priority"]


class FramesBatched(SessionEvent):
    """Frames of several streams were sent together."""

    event_type: Literal["frames_batched"] = "frames_batched"
    frame_count: Annotated[U64, "frames"]


class PriorityThresholdAdjusted(SessionEvent):
    """The priority (0 to 255) below which a session sends nothing was changed."""

    event_type: Literal["priority_threshold_adjusted"] = "priority_threshold_adjusted"
    old_threshold: Annotated[U8, "priority"]
    new_threshold: Annotated[U8, "priority"]
    reason: Text


class StreamConfigUpdated(StreamEvent):
    """A stream was reconfigured."""

    event_type: Literal["stream_config_updated"] = "stream_config_updated"


class PerformanceMetricsRecorded(SessionEvent):
    """A session's throughput was measured."""

    event_type: Literal["performance_metrics_recorded"] = "performance_metrics_recorded"
    metrics: PerformanceMetrics


_rows: list[Kind] = [
    cls._kind for cls in globals().values() if "_kind" in getattr(cls, "__dict__", {})
]

KINDS = {kind.name: kind for kind in _rows}
"""Every known kind by its name, in the order above."""

if len(KINDS) < len(_rows):
    raise TypeError("two of the classes above declare the same kind")

if TYPE_CHECKING:
    DomainEvent = (
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
        | PerformanceMetricsRecorded
    )
else:
    DomainEvent = Annotated[
        reduce(or_, (kind.model for kind in KINDS.values())),
        Field(discriminator="event_type"),
    ]
"""Any of the known events, told apart by `event_type`."""
