"""The sixteen kinds of event: their names, file codes and the names of what each one carries.

This table is the one place that lists the kinds. The models (`events`), the wire text
(`canonical`) and the `kind` table of the file (`schema`) are all held against it by tests.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of event.

    `code` is the small integer that stands for the kind in a journal file; it never changes.
    `fields` names the values between the ids and the timestamp, in wire order. A dotted name is a
    value inside a nested object: `metrics.latency_ms` is `{"metrics": {"latency_ms": ...}}`.
    """

    code: int
    name: str
    has_stream: bool
    fields: tuple[str, ...] = ()


_KINDS = (
    Kind(1, "session_activated", has_stream=False),
    Kind(2, "session_closed", has_stream=False),
    Kind(3, "session_expired", has_stream=False),
    Kind(4, "session_timed_out", False, ("original_state", "timeout_duration")),
    Kind(5, "session_timeout_extended", False, ("additional_seconds", "new_expires_at")),
    Kind(6, "stream_created", has_stream=True),
    Kind(7, "stream_started", has_stream=True),
    Kind(8, "stream_completed", has_stream=True),
    Kind(9, "stream_failed", True, ("error",)),
    Kind(10, "stream_cancelled", has_stream=True),
    Kind(11, "skeleton_generated", True, ("frame_size_bytes",)),
    Kind(12, "patch_frames_generated", True, ("frame_count", "total_bytes", "highest_priority")),
    Kind(13, "frames_batched", False, ("frame_count",)),
    Kind(14, "priority_threshold_adjusted", False, ("old_threshold", "new_threshold", "reason")),
    Kind(15, "stream_config_updated", has_stream=True),
    Kind(
        16,
        "performance_metrics_recorded",
        False,
        (
            "metrics.frames_per_second",
            "metrics.bytes_per_second",
            "metrics.average_frame_size",
            "metrics.priority_distribution.critical_frames",
            "metrics.priority_distribution.high_frames",
            "metrics.priority_distribution.medium_frames",
            "metrics.priority_distribution.low_frames",
            "metrics.priority_distribution.background_frames",
            "metrics.latency_ms",
        ),
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}
"""Every known kind by its name, in the order of the reference implementation."""
