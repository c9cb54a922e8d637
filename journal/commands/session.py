"""`journal session`: one session on one screen."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

import journal
from journal.commands.console.arguments import (
    SESSION,
    as_of_option,
    journal_argument,
    json_option,
    wide_option,
)
from journal.commands.console.group import CommandError
from journal.commands.console.lookups import session_named
from journal.commands.console.output import Output, counted, one_line, size_text
from journal.commands.console.tables import (
    NOTHING,
    Column,
    Look,
    as_of_text,
    bytes_text,
    error_text,
    few_text,
    id_text,
    look_of,
    shortened,
    table,
)
from journal.commands.console.times import Clock, ago_text, duration_text
from journal.commands.streams import WIDE_COLUMNS, wide_row

if TYPE_CHECKING:
    from journal import Journal, SessionId, Timestamp
    from journal.events import AnyEvent
    from journal.projections import SessionStatus, StreamStatus

_LINES_MAX = 40
_LINES_FIRST = 10
_LINES_LAST = 25
_TEXT_MAX = 60

_EPILOG = """\b
Example:
  journal session tests.db eb7cff5e
  journal session tests.db eb7cff5e-5202-4c59-8696-0fef4a7f7f27 --as-of 5000
"""

_STREAM_COLUMNS = (
    Column("STREAM"),
    Column("STATE", "state"),
    Column("CREATED", "number"),
    Column("LASTED"),
    Column("FRAMES", "number"),
    Column("BYTES", "number"),
    Column("PRIO", "number"),
    Column("!", "number", optional=True),
    Column("ERROR", "cut", optional=True),
)
_EVENT_COLUMNS = (
    Column("", "state", optional=True),
    Column("POS", "number"),
    Column("TIME", "number"),
    Column("STREAM", optional=True),
    Column("EVENT", "wrap"),
)


class _Found(NamedTuple):
    """A session and all that is told of it, as of one moment."""

    session: "SessionStatus"
    streams: "list[StreamStatus]"
    events: "list[tuple[int, str, AnyEvent]]"  # position, canonical JSON
    reasons: dict[int, str]  # of its anomalies, by position


@click.command(epilog=_EPILOG, short_help="Show one session, its streams and its events.")
@journal_argument
@click.argument("named", metavar="ID", type=SESSION)
@as_of_option
@json_option
@wide_option
def session(
    path: Path,
    named: "SessionId | str",
    *,
    as_of: "int | Timestamp | None",
    as_json: bool,
    wide: bool,
) -> None:
    """Show what is known of the session ID in JOURNAL: its state, its streams, its events.

    The first 4 or more digits of ID will do. Times in the tables count from the session's first
    event. Events marked with ! are those that the protocol could not have produced there. On a
    terminal, the middle of long tables is left out without --wide. Nothing is written to JOURNAL.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        found = _found(opened, session_named(opened, named), as_of)
    if as_json:
        output.line(_json_text(found))
    else:
        for line in _page(found, as_of, look_of(output, wide=wide), wide=wide):
            output.line(line)
    output.flush()


def _found(opened: "Journal", session_id: "SessionId", as_of: "int | Timestamp | None") -> _Found:
    # As of a position, each question reads the events of this session and no others, and writers
    # cannot come between two of them.
    moment = opened.last_position if as_of is None else as_of
    status = opened.session(session_id, as_of=moment)
    events = []
    for position, text in opened.lines(session_id=session_id):
        event = journal.parse_event(text, unknown="keep")
        if position <= moment if isinstance(moment, int) else event.timestamp <= moment:
            events.append((position, text, event))
    if status is None:
        known = "of kinds that are known " if events else ""
        message = f"session {session_id} has no events {known}in {opened.path}{as_of_text(as_of)}"
        raise CommandError(message)
    reasons: dict[int, str] = {}
    if status.anomalies:
        found = opened.anomalies(session_id, as_of=moment)
        reasons = {anomaly.position: anomaly.reason for anomaly in found}
    return _Found(status, opened.streams(session_id, as_of=moment), events, reasons)


def _json_text(found: _Found) -> str:
    dumped = {
        "session": found.session.model_dump(mode="json"),
        "streams": [stream.model_dump(mode="json") for stream in found.streams],
    }
    head = json.dumps(dumped, ensure_ascii=False, separators=(",", ":"))[:-1]
    events = ",".join(f'{{"position":{it[0]},"event":{it[1]}}}' for it in found.events)
    return f'{head},"events":[{events}]}}'


# For people


def _page(found: _Found, as_of: "int | Timestamp | None", look: Look, *, wide: bool) -> list[str]:
    instants = [event.timestamp.epoch_ns for _, _, event in found.events]
    clock = Clock(instants[0], max(abs(instant - instants[0]) for instant in instants))
    facts = [f"{name:<12}{value}" for name, value in _facts(found, as_of, look, wide=wide).items()]
    tables = [_events_table(found, clock, look, wide=wide)]
    if found.streams:
        tables.insert(0, _streams_table(found.streams, clock, look, wide=wide))
    return facts + [line for lines in tables for line in ["", *_without_middle(lines, look)]]


def _without_middle(lines: list[str], look: Look) -> list[str]:
    """Return the lines of a table as far as a person on a terminal wants to see them."""
    header, *rows = lines
    if look.width is None or len(rows) <= _LINES_MAX:
        return lines
    left_out = len(rows) - _LINES_FIRST - _LINES_LAST
    note = f"... {left_out:,} lines are left out, --wide shows all ..."
    return [header, *rows[:_LINES_FIRST], note, *rows[-_LINES_LAST:]]


def _facts(
    found: _Found, as_of: "int | Timestamp | None", look: Look, *, wide: bool
) -> dict[str, str]:
    status = found.session
    now_ns = time.time_ns()

    def instant(moment: "Timestamp | None") -> str:
        if moment is None:
            return NOTHING
        return f"{moment.rfc3339()}, {ago_text(moment.epoch_ns, now_ns)}"

    lasted = ""
    if status.activated_at is not None and status.ended_at is not None:
        span = status.ended_at.epoch_ns - status.activated_at.epoch_ns
        lasted = f", after {duration_text(span)}"
    first, last = found.events[0][0], found.events[-1][0]
    threshold = status.priority_threshold
    return {
        "Session": str(status.session_id),
        "State": look.styled(status.state, status.state) + as_of_text(as_of),
        "Activated": instant(status.activated_at),
        "Ended": instant(status.ended_at) + lasted,
        "Expires": instant(status.expires_at),
        "Events": f"{len(found.events):,}, positions {first} to {last}",
        "Streams": _streams_text(status),
        "Threshold": NOTHING if threshold is None else str(threshold),
        "Batched": counted(status.batched_frames, "frame") if status.batched_frames else NOTHING,
        **_metrics_facts(status, wide=wide),
        "Anomalies": f"{status.anomalies:,}, marked with ! below" if status.anomalies else "none",
    }


def _streams_text(status: "SessionStatus") -> str:
    counts = {
        "active": status.active_streams,
        "completed": status.completed_streams,
        "failed": status.failed_streams,
        "cancelled": status.cancelled_streams,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{status.total_streams:,} ({told})" if told else "none"


def _metrics_facts(status: "SessionStatus", *, wide: bool) -> dict[str, str]:
    metrics = status.metrics
    if metrics is None:
        return {"Metrics": NOTHING}
    speeds = [
        f"{_figure(metrics.frames_per_second)} frames/s",
        f"{_rough_size(metrics.bytes_per_second, wide=wide)}/s",
        f"{_rough_size(metrics.average_frame_size, wide=wide)} a frame",
    ]
    if metrics.latency_ms is not None:
        speeds.append(f"latency {metrics.latency_ms:,} ms")
    frames = metrics.priority_distribution.model_dump().items()
    counts = [f"{count:,} {name.removesuffix('_frames')}" for name, count in frames if count]
    return {"Metrics": ", ".join(speeds), "  frames": ", ".join(counts) or "none"}


def _streams_table(
    streams: "list[StreamStatus]", clock: Clock, look: Look, *, wide: bool
) -> list[str]:
    if not wide:
        return table(_STREAM_COLUMNS, [_stream_row(stream, clock) for stream in streams], look)
    rows = [wide_row(stream, 0) for stream in streams]  # all but the session, which is the same
    columns = [WIDE_COLUMNS[0], *WIDE_COLUMNS[2:]]
    return table(columns, [[row[0], *row[2:]] for row in rows], look)


def _stream_row(stream: "StreamStatus", clock: Clock) -> list[str]:
    created, lasted = stream.created_at, NOTHING
    if created is not None and stream.ended_at is not None:
        lasted = duration_text(stream.ended_at.epoch_ns - created.epoch_ns)
    priority = stream.highest_priority
    return [
        id_text(stream.stream_id, wide=False),
        stream.state,
        NOTHING if created is None else clock.text(created.epoch_ns),
        lasted,
        f"{stream.frames:,}",
        bytes_text(stream.bytes),
        NOTHING if priority is None else str(priority),
        few_text(stream.anomalies),
        "" if stream.error is None else error_text(stream.error),
    ]


def _events_table(found: _Found, clock: Clock, look: Look, *, wide: bool) -> list[str]:
    rows = []
    for position, _, event in found.events:
        stream_id, moment = event.stream_id, event.timestamp
        texts = [one_line(event.event_type), _data_text(event, wide=wide)]
        reason = found.reasons.get(position)
        if reason is not None:
            texts.append(f"! {reason}")
        rows.append(
            [
                "" if reason is None else "!",
                str(position),
                moment.rfc3339() if wide else clock.text(moment.epoch_ns),
                "" if stream_id is None else id_text(stream_id, wide=wide),
                "  ".join(filter(None, texts)),
            ]
        )
    return table(_EVENT_COLUMNS, rows, look)


def _data_text(event: "AnyEvent", *, wide: bool) -> str:
    """Return what an event says beyond its kind, as far as it is essential."""
    match event:
        case journal.SessionTimedOut():
            text = f"was {event.original_state}, after {event.timeout_duration:,} s"
        case journal.SessionTimeoutExtended():
            until = f", until {event.new_expires_at.rfc3339()}" if wide else ""
            text = f"by {event.additional_seconds:,} s{until}"
        case journal.StreamFailed():
            text = _told(event.error, wide=wide) or '""'
        case journal.SkeletonGenerated():
            text = _size(event.frame_size_bytes, wide=wide)
        case journal.PatchFramesGenerated():
            size = _size(event.total_bytes, wide=wide)
            frames = counted(event.frame_count, "frame")
            text = f"{frames}, {size}, prio {event.highest_priority}"
        case journal.FramesBatched():
            text = counted(event.frame_count, "frame")
        case journal.PriorityThresholdAdjusted():
            reason = _told(event.reason, wide=wide)
            text = f"{event.old_threshold} -> {event.new_threshold}  {reason}".rstrip()
        case journal.PerformanceMetricsRecorded():
            speed = _rough_size(event.metrics.bytes_per_second, wide=wide)
            text = f"{_figure(event.metrics.frames_per_second)} fps, {speed}/s"
        case journal.UnknownEvent():
            text = one_line(event.original_json) if wide else "(a kind not known here)"
        case _:
            text = ""
    return text


def _told(text: str, *, wide: bool) -> str:
    text = one_line(text)
    return text if wide else shortened(text, _TEXT_MAX)


def _size(size_bytes: int, *, wide: bool) -> str:
    return f"{size_bytes:,} bytes" if wide else size_text(size_bytes)


def _rough_size(size_bytes: float, *, wide: bool) -> str:
    if wide or not 0 <= size_bytes < 1e15:
        return f"{_figure(size_bytes)} bytes"
    return size_text(round(size_bytes))


def _figure(value: float) -> str:
    """Return a measured value as exactly as people care for it."""
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) < 1e12 else f"{value:.3g}"
