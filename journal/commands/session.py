"""`journal session`: one session on one screen."""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

import journal
from journal.commands.console.arguments import (
    SESSION,
    as_of_option,
    journal_argument,
    json_option,
    read_only_option,
    wide_option,
)
from journal.commands.console.group import CommandError
from journal.commands.console.looking import looking_at
from journal.commands.console.lookups import note_on_end, session_named
from journal.commands.console.output import Output, counted, say, size_text
from journal.commands.console.records import record, records
from journal.commands.console.short_ids import ShortIds
from journal.commands.console.tables import (
    NOTHING,
    Column,
    Look,
    as_of_text,
    bytes_text,
    few_text,
    lasted_text,
    look_of,
    table,
    told,
    without_middle,
)
from journal.commands.console.times import Clock, moment_text
from journal.commands.console.widths import shortened

if TYPE_CHECKING:
    from journal import Journal, SessionId, Timestamp
    from journal.events import AnyEvent
    from journal.projections import SessionStatus, StreamStatus

_TEXT_MAX = 40
_FACTS_MIN = 8
_ROWS_MIN = 3
_PROMPT_LINES = 1

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
    Column("FRAMES", "number", spare=2),
    Column("BYTES", "number", spare=3),
    Column("PRIO", "number", spare=1),
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


class _Timeline:
    """The events of a session: all, or the first and the last ones and how many there are.

    Args:
        ends: how many to keep of the beginning, and of the end; None: all.
    """

    def __init__(self, ends: int | None) -> None:
        self.count = 0
        self.positions: tuple[int, int] | None = None
        self._ends = ends
        self._first: list[tuple[int, str]] = []
        self._last: deque[tuple[int, str]] = deque(maxlen=ends)

    def add(self, position: int, text: str) -> None:
        """Take the next one: its position and canonical JSON."""
        self.count += 1
        self.positions = (self.positions or (position, position))[0], position
        kept = self._first if self._ends is None or self.count <= self._ends else self._last
        kept.append((position, text))

    @property
    def kept(self) -> list[tuple[int, str]]:
        """Those that were kept."""
        return [*self._first, *self._last]


class _Found(NamedTuple):
    """A session and all that is told of it, as of one moment."""

    session: "SessionStatus"
    streams: "list[StreamStatus]"
    events: _Timeline
    reasons: dict[int, str]  # of its anomalies, by position


@click.command(epilog=_EPILOG, short_help="Show one session, its streams and its events.")
@journal_argument
@click.argument("named", metavar="ID", type=SESSION)
@as_of_option
@json_option
@wide_option
@read_only_option
def session(
    path: Path,
    named: "SessionId | str",
    *,
    as_of: "int | Timestamp | None",
    as_json: bool,
    wide: bool,
    read_only: bool,
) -> None:
    """Show what is known of the session ID in JOURNAL: its state, its streams, its events.

    The first 4 or more digits of ID will do. Times in the tables count from the session's first
    event. Events marked with ! are those that the protocol could not have produced there. On a
    terminal, the middle of long tables is left out, so that all of it fits the screen; a pipe, as
    to `less`, gets every line.

    What is folded for this is stored in JOURNAL, if it is much and JOURNAL is your own.
    """
    output = Output()
    look = look_of(output)
    with looking_at(path, as_of, read_only=read_only) as opened:
        session_id = session_named(opened, named)
        note = note_on_end(opened, as_of)
        found = _found(opened, session_id, as_of, None if as_json or wide else look.height)
        if as_json:
            lines: Iterable[str] = [_json_text(found)]
        elif wide:
            lines = _records(found)
        else:
            lines = _page(found, as_of, look, ShortIds(opened))
        for line in lines:
            output.line(line)
    output.flush()
    if note is not None:
        say(note)


def _found(
    opened: "Journal", session_id: "SessionId", as_of: "int | Timestamp | None", ends: int | None
) -> _Found:
    # As of a position, each question reads the events of this session and no others, and writers
    # cannot come between two of them.
    moment = opened.last_position if as_of is None else as_of
    status = opened.session(session_id, as_of=moment)
    events = _Timeline(ends)
    for position, text in opened.lines(session_id=session_id):
        if position <= moment if isinstance(moment, int) else _event(text).timestamp <= moment:
            events.add(position, text)
    if status is None:
        known = "of kinds that are known " if events.count else ""
        message = f"session {session_id} has no events {known}in {opened.path}{as_of_text(as_of)}"
        raise CommandError(message)
    reasons: dict[int, str] = {}
    if status.anomalies:
        found = opened.anomalies(session_id, as_of=moment)
        reasons = {anomaly.position: anomaly.reason for anomaly in found}
    return _Found(status, opened.streams(session_id, as_of=moment), events, reasons)


def _event(text: str) -> "AnyEvent":
    return journal.parse_event(text, unknown="keep")


def _json_text(found: _Found) -> str:
    dumped = {
        "session": found.session.model_dump(mode="json"),
        "streams": [stream.model_dump(mode="json") for stream in found.streams],
    }
    head = json.dumps(dumped, ensure_ascii=False, separators=(",", ":"))[:-1]
    events = ",".join(f'{{"position":{it[0]},"event":{it[1]}}}' for it in found.events.kept)
    return f'{head},"events":[{events}]}}'


def _records(found: _Found) -> Iterator[str]:
    yield from records([found.session, *found.streams])
    for position, text in found.events.kept:
        fields = {"position": position, **json.loads(text)}
        if position in found.reasons:
            fields["anomaly"] = found.reasons[position]
        yield ""
        yield from record(fields)


# For people


def _page(
    found: _Found, as_of: "int | Timestamp | None", look: Look, ids: ShortIds
) -> Iterator[str]:
    events = [(position, _event(text)) for position, text in found.events.kept]
    ids.learn(
        streams=[
            *(stream.stream_id for stream in found.streams),
            *(event.stream_id for _, event in events),
        ]
    )
    instants = [event.timestamp.epoch_ns for _, event in events]
    clock = Clock(instants[0], max(abs(instant - instants[0]) for instant in instants))
    facts = [f"{name:<12}{value}" for name, value in _facts(found, as_of, look).items()]
    streams = [_stream_row(stream, clock, ids) for stream in found.streams]
    stream_lines = table(_STREAM_COLUMNS, streams, look) if streams else []
    event_lines = table(_EVENT_COLUMNS, [_event_row(*it, found, clock, ids) for it in events], look)
    hidden = found.events.count - len(events)
    if look.height is not None:
        facts = facts[: max(_FACTS_MIN, look.height // 3)]
        room = look.height - _PROMPT_LINES - len(facts) - len(["", "header"])
        room -= as_of is not None  # for a word about it
        if streams:
            room -= len(["", "header"])
            rows = sum(line.count("\n") + 1 for line in event_lines[1:]) + hidden
            share = max(room // 2, room - rows, _ROWS_MIN)
            stream_lines = without_middle(stream_lines, share, "stream")
            room -= len(stream_lines) - 1
        event_lines = without_middle(event_lines, max(room, _ROWS_MIN), "event", hidden)
    yield from facts
    for lines in (stream_lines, event_lines):
        if lines:
            yield from ["", *lines]


def _facts(found: _Found, as_of: "int | Timestamp | None", look: Look) -> dict[str, str]:
    """Return what is known of a session, the most important first."""
    status = found.session
    now_ns = time.time_ns()

    def instant(moment: "Timestamp") -> str:
        text, ago = moment.rfc3339(), moment_text(moment.epoch_ns, now_ns)
        return text if ago.startswith(text[:10]) else f"{text}, {ago}"

    first, last = found.events.positions or (0, 0)
    facts = {
        "Session": str(status.session_id),
        "State": look.styled(status.state, status.state) + as_of_text(as_of),
        "Activated": NOTHING if status.activated_at is None else instant(status.activated_at),
    }
    if status.ended_at is not None:
        facts["Ended"] = instant(status.ended_at)
        if status.activated_at is not None:
            facts["Ended"] += f", after {lasted_text(status.activated_at, status.ended_at)}"
    facts |= {
        "Events": f"{found.events.count:,}, positions {first} to {last}",
        "Streams": _streams_text(status),
    }
    if status.anomalies:
        facts["Anomalies"] = f"{status.anomalies:,}, marked with ! below"
    if status.expires_at is not None:
        facts["Expires"] = instant(status.expires_at)
    if status.priority_threshold is not None:
        facts["Threshold"] = str(status.priority_threshold)
    if status.batched_frames:
        facts["Batched"] = counted(status.batched_frames, "frame")
    return facts | _metrics_facts(status)


def _streams_text(status: "SessionStatus") -> str:
    counts = {
        "active": status.active_streams,
        "completed": status.completed_streams,
        "failed": status.failed_streams,
        "cancelled": status.cancelled_streams,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{status.total_streams:,} ({told})" if told else "none"


def _metrics_facts(status: "SessionStatus") -> dict[str, str]:
    metrics = status.metrics
    if metrics is None:
        return {}
    speeds = [
        f"{_figure(metrics.frames_per_second)} frames/s",
        f"{_rough_size(metrics.bytes_per_second)}/s",
        f"{_rough_size(metrics.average_frame_size)} a frame",
    ]
    if metrics.latency_ms is not None:
        speeds.append(f"latency {metrics.latency_ms:,} ms")
    frames = metrics.priority_distribution.model_dump().items()
    counts = [f"{count:,} {name.removesuffix('_frames')}" for name, count in frames if count]
    return {"Metrics": ", ".join(speeds), "  frames": ", ".join(counts) or "none"}


def _stream_row(stream: "StreamStatus", clock: Clock, ids: ShortIds) -> list[str]:
    priority = stream.highest_priority
    return [
        ids.stream(stream.stream_id),
        stream.state,
        NOTHING if stream.created_at is None else clock.text(stream.created_at.epoch_ns),
        lasted_text(stream.created_at, stream.ended_at),
        f"{stream.frames:,}",
        bytes_text(stream.bytes),
        NOTHING if priority is None else str(priority),
        few_text(stream.anomalies),
        "" if stream.error is None else told(stream.error),
    ]


def _event_row(
    position: int, event: "AnyEvent", found: _Found, clock: Clock, ids: ShortIds
) -> list[str]:
    texts = [shortened(told(event.event_type), _TEXT_MAX), _data_text(event)]
    reason = found.reasons.get(position)
    if reason is not None:
        texts.append(f"! {reason}")
    return [
        "" if reason is None else "!",
        str(position),
        clock.text(event.timestamp.epoch_ns),
        "" if event.stream_id is None else ids.stream(event.stream_id),
        "  ".join(filter(None, texts)),
    ]


def _data_text(event: "AnyEvent") -> str:
    """Return what an event says beyond its kind, as far as it is essential."""
    match event:
        case journal.SessionTimedOut():
            text = f"was {event.original_state}, after {event.timeout_duration:,} s"
        case journal.SessionTimeoutExtended():
            text = f"by {event.additional_seconds:,} s"
        case journal.StreamFailed():
            text = shortened(told(event.error), _TEXT_MAX)
        case journal.SkeletonGenerated():
            text = size_text(event.frame_size_bytes)
        case journal.PatchFramesGenerated():
            frames, size = counted(event.frame_count, "frame"), size_text(event.total_bytes)
            text = f"{frames}, {size}, prio {event.highest_priority}"
        case journal.FramesBatched():
            text = counted(event.frame_count, "frame")
        case journal.PriorityThresholdAdjusted():
            reason = shortened(told(event.reason), _TEXT_MAX) if event.reason else ""
            text = f"{event.old_threshold} -> {event.new_threshold}  {reason}".rstrip()
        case journal.PerformanceMetricsRecorded():
            speed = _rough_size(event.metrics.bytes_per_second)
            text = f"{_figure(event.metrics.frames_per_second)} fps, {speed}/s"
        case journal.UnknownEvent():
            text = "(a kind not known here)"
        case _:
            text = ""
    return text


def _rough_size(size_bytes: float) -> str:
    if not 0 <= size_bytes < 1e15:
        return f"{_figure(size_bytes)} bytes"
    return size_text(round(size_bytes))


def _figure(value: float) -> str:
    """Return a measured value as exactly as people care for it."""
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) < 1e12 else f"{value:.3g}"
