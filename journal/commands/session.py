"""`journal session`: one session on one screen."""

import json
import time
from collections.abc import Iterable, Iterator
from itertools import chain
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
from journal.commands.console.looking import looking_at
from journal.commands.console.lookups import note_on_end, session_named
from journal.commands.console.one_session import Ends, OneSession
from journal.commands.console.output import Output, counted, json_text, say, size_text
from journal.commands.console.pages import listed
from journal.commands.console.progress import Progress, writing_shown
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
    with_error_told,
    without_middle,
)
from journal.commands.console.times import Clock, moment_text
from journal.commands.console.widths import shortened

if TYPE_CHECKING:
    from journal import SessionId, StreamId, Timestamp
    from journal.events import AnyEvent
    from journal.projections import SessionStatus, StreamStatus

_TEXT_MAX = 40
_FACTS_MIN = 8
_ROWS_MIN = 3
_PROMPT_LINES = 1
_EVENTS_PER_LOOK = 1_000

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
        found = OneSession(opened, session_id, as_of)
        if as_json:
            for text in _json_texts(found, output):
                output.text(text)
        else:
            if wide:
                lines = _records(found, output)
            elif look.height is None:
                lines = _whole(found, as_of, look, ShortIds(opened), output)
            else:
                lines = _screen(found, as_of, look, look.height, ShortIds(opened))
            for line in lines:
                output.line(line)
    output.flush()
    if note is not None:
        say(note)


def _json_texts(found: OneSession, output: Output) -> Iterator[str]:
    """Yield one line, in pieces."""
    yield f'{{"session":{json_text(found.status.model_dump(mode="json"))},"streams":['
    for place, stream in enumerate(_streams(found, output)):
        yield f"{',' if place else ''}{json_text(stream.model_dump(mode='json'))}"
    yield '],"events":['
    lines = writing_shown(output, found.lines(), found.status.event_count)
    for place, (position, text) in enumerate(lines):
        yield f'{"," if place else ""}{{"position":{position},"event":{text}}}'
    yield "]}\n"


def _records(found: OneSession, output: Output) -> Iterator[str]:
    yield from records(chain([found.status], _streams(found, output)))
    lines = writing_shown(output, found.lines(), found.status.event_count)
    for position, text, reason in found.with_reasons(lines):
        fields = {"position": position, **json.loads(text)}
        if reason is not None:
            fields["anomaly"] = reason
        yield ""
        yield from record(fields)


def _streams(found: OneSession, output: Output) -> "Iterator[StreamStatus]":
    return writing_shown(output, found.streams(), found.status.total_streams, "stream")


# For people


class _Extent(NamedTuple):
    """Of the events of a session: how many, from which position to which, and over which time."""

    events: int
    first: int
    last: int
    clock: Clock


def _whole(
    found: OneSession,
    as_of: "int | Timestamp | None",
    look: Look,
    ids: ShortIds,
    output: Output,
) -> Iterator[str]:
    """Yield all there is, a page of rows at a time; the first lines before the events are read."""
    yield from _lines(_states(found.status, as_of, look))
    events = ((*event, None) for event in found.events())
    extent = _measured(events, None, found.status.event_count)
    rows = _Rows(extent.clock, ids)
    yield from _lines(_figures(found.status, extent))
    streams = map(with_error_told, _streams(found, output))
    yield from _below(listed(_STREAM_COLUMNS, streams, rows.of_streams, look))
    counted_events = writing_shown(output, found.events(), extent.events)
    shown = (_row_of(*event) for event in found.with_reasons(counted_events))
    yield from _below(listed(_EVENT_COLUMNS, shown, rows.of_events, look))


def _screen(
    found: OneSession, as_of: "int | Timestamp | None", look: Look, height: int, ids: ShortIds
) -> Iterator[str]:
    """Yield what a screen has room for."""
    events: Ends[_Row] = Ends(height)
    told_events = found.with_reasons(found.events())
    extent = _measured(told_events, events, found.status.event_count)
    streams: Ends[StreamStatus] = Ends(height)
    for stream in found.streams():
        streams.add(with_error_told(stream))
    ids.learn(streams=(event.stream_id for event in events.kept))
    rows = _Rows(extent.clock, ids)
    stream_lines = table(_STREAM_COLUMNS, rows.of_streams(streams.kept), look)
    event_lines = table(_EVENT_COLUMNS, rows.of_events(events.kept), look)

    facts = list(_lines(_states(found.status, as_of, look) | _figures(found.status, extent)))
    facts = facts[: max(_FACTS_MIN, height // 3)]
    room = height - _PROMPT_LINES - len(facts) - len(["", "header"])
    room -= as_of is not None  # for a word about it
    if streams.kept:
        room -= len(["", "header"])
        wanted = sum(line.count("\n") + 1 for line in event_lines[1:]) + events.hidden
        share = max(room // 2, room - wanted, _ROWS_MIN)
        stream_lines = without_middle(stream_lines, share, "stream", streams.hidden)
        room -= len(stream_lines) - 1
    event_lines = without_middle(event_lines, max(room, _ROWS_MIN), "event", events.hidden)
    yield from facts
    yield from _below(stream_lines if streams.kept else ())
    yield from _below(event_lines)


class _Row(NamedTuple):
    """What is shown of an event, whose own texts may be too long to hold."""

    position: int
    at_ns: int
    stream_id: "StreamId | None"
    text: str
    is_anomaly: bool


class _Rows(NamedTuple):
    """Makes the rows of tables."""

    clock: Clock
    ids: ShortIds

    def of_streams(self, streams: "list[StreamStatus]") -> list[list[str]]:
        """Return a row for each stream."""
        self.ids.learn(streams=(stream.stream_id for stream in streams))
        return [_stream_row(stream, self.clock, self.ids) for stream in streams]

    def of_events(self, events: "list[_Row]") -> list[list[str]]:
        """Return a row for each event."""
        self.ids.learn(streams=(event.stream_id for event in events))
        return [_event_cells(event, self.clock, self.ids) for event in events]


def _measured(
    events: "Iterable[tuple[int, AnyEvent, str | None]]", ends: "Ends[_Row] | None", expected: int
) -> _Extent:
    """Look at every event once, and keep the ends, if they are wanted; about so many are expected.

    Args:
        events: position, event, and what was wrong with it.
        ends: takes what is shown of them.
        expected: how many there may be.
    """
    progress = Progress()
    count = first = position = first_ns = span_ns = 0
    for position, event, reason in events:
        at_ns = event.timestamp.epoch_ns
        if count == 0:
            first, first_ns = position, at_ns
        span_ns = max(span_ns, abs(at_ns - first_ns))
        count += 1
        if count % _EVENTS_PER_LOOK == 0:
            progress.show(count, min(1.0, count / expected))
        if ends is not None:
            ends.add(_row_of(position, event, reason))
    progress.clear()
    return _Extent(count, first, position, Clock(first_ns, span_ns))


def _below(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a table, if there are some, below an empty one."""
    for place, line in enumerate(lines):
        if place == 0:
            yield ""
        yield line


def _lines(facts: dict[str, str]) -> Iterator[str]:
    return (f"{name:<12}{value}" for name, value in facts.items())


def _states(status: "SessionStatus", as_of: "int | Timestamp | None", look: Look) -> dict[str, str]:
    """Return what has become of a session."""
    facts = {
        "Session": str(status.session_id),
        "State": look.styled(status.state, status.state) + as_of_text(as_of),
        "Activated": NOTHING if status.activated_at is None else _instant(status.activated_at),
    }
    if status.ended_at is not None:
        facts["Ended"] = _instant(status.ended_at)
        if status.activated_at is not None:
            facts["Ended"] += f", after {lasted_text(status.activated_at, status.ended_at)}"
    return facts


def _figures(status: "SessionStatus", extent: _Extent) -> dict[str, str]:
    """Return what else is known of it, the most important first."""
    facts = {
        "Events": f"{extent.events:,}, positions {extent.first} to {extent.last}",
        "Streams": _streams_text(status),
    }
    if status.anomalies:
        facts["Anomalies"] = f"{status.anomalies:,}, marked with ! below"
    if status.expires_at is not None:
        facts["Expires"] = _instant(status.expires_at)
    if status.priority_threshold is not None:
        facts["Threshold"] = str(status.priority_threshold)
    if status.batched_frames:
        facts["Batched"] = counted(status.batched_frames, "frame")
    return facts | _metrics_facts(status)


def _instant(moment: "Timestamp") -> str:
    text, ago = moment.rfc3339(), moment_text(moment.epoch_ns, time.time_ns())
    return text if ago.startswith(text[:10]) else f"{text}, {ago}"


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
        stream.error or "",
    ]


def _row_of(position: int, event: "AnyEvent", reason: str | None) -> _Row:
    texts = [shortened(told(event.event_type), _TEXT_MAX), _data_text(event)]
    if reason is not None:
        texts.append(f"! {reason}")
    text = "  ".join(filter(None, texts))
    return _Row(position, event.timestamp.epoch_ns, event.stream_id, text, reason is not None)


def _event_cells(row: _Row, clock: Clock, ids: ShortIds) -> list[str]:
    return [
        "!" if row.is_anomaly else "",
        str(row.position),
        clock.text(row.at_ns),
        "" if row.stream_id is None else ids.stream(row.stream_id),
        row.text,
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
