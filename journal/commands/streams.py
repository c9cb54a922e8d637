"""`journal streams`: what has become of every stream."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import (
    SESSION,
    STREAM_STATES,
    as_of_option,
    journal_argument,
    json_option,
    state_option,
    wide_option,
)
from journal.commands.console.lookups import session_named
from journal.commands.console.output import Output, say
from journal.commands.console.rebuild_hint import hint_at_rebuild
from journal.commands.console.tables import (
    NOTHING,
    Column,
    anomalies_text,
    bytes_text,
    error_text,
    few_text,
    id_text,
    look_of,
    states_text,
    table,
    time_text,
)

if TYPE_CHECKING:
    from journal import SessionId, Timestamp
    from journal.projections import StreamStatus

_EPILOG = """\b
Example:
  journal streams tests.db --state Failed
  journal streams tests.db --session eb7cff5e --wide
"""

_COLUMNS = (
    Column("STREAM"),
    Column("SESSION"),
    Column("STATE", "state"),
    Column("CREATED"),
    Column("ENDED"),
    Column("FRAMES", "number"),
    Column("BYTES", "number"),
    Column("!", "number", optional=True),
    Column("ERROR", "cut", optional=True),
)
WIDE_COLUMNS = (
    Column("STREAM"),
    Column("SESSION"),
    Column("STATE", "state"),
    Column("CREATED"),
    Column("STARTED"),
    Column("ENDED"),
    Column("EVENTS", "number"),
    Column("FRAMES", "number"),
    Column("BYTES", "number"),
    Column("PRIORITY", "number"),
    Column("CONFIGS", "number"),
    Column("ANOMALIES", "number"),
    Column("ERROR"),
)


@click.command(epilog=_EPILOG, short_help="List the streams and their states.")
@journal_argument
@click.option(
    "--session",
    "named",
    type=SESSION,
    help="Only those of this session: its id, or the first digits of it.",
)
@state_option(STREAM_STATES)
@as_of_option
@json_option
@wide_option
def streams(
    path: Path,
    *,
    named: "SessionId | str | None",
    state: str | None,
    as_of: "int | Timestamp | None",
    as_json: bool,
    wide: bool,
) -> None:
    """List the streams in JOURNAL and what has become of them, oldest first.

    FRAMES and BYTES are those of a stream's skeleton and patches. Where there are anomalies, the
    column ! counts them. Nothing is written to JOURNAL.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        session_id = None if named is None else session_named(opened, named)
        if as_of is None and session_id is None:
            hint_at_rebuild(opened, path)
        wanted = None if state is None else journal.StreamState(state)
        found = opened.streams(session_id, wanted, as_of=as_of)
    if as_json:
        for stream in found:
            output.json_line(stream.model_dump(mode="json"))
    elif found:
        row, columns = (wide_row, WIDE_COLUMNS) if wide else (_row, _COLUMNS)
        now_ns = time.time_ns()
        rows = [row(stream, now_ns) for stream in found]
        for line in table(columns, rows, look_of(output, wide=wide)):
            output.line(line)
    output.flush()
    text = states_text("stream", (stream.state for stream in found), STREAM_STATES, as_of)
    anomalies = sum(stream.anomalies for stream in found)
    say(text + (f"; {anomalies_text(anomalies)}" if anomalies else ""))


def _row(stream: "StreamStatus", now_ns: int) -> list[str]:
    return [
        id_text(stream.stream_id, wide=False),
        id_text(stream.session_id, wide=False),
        stream.state,
        time_text(stream.created_at, now_ns, wide=False),
        time_text(stream.ended_at, now_ns, wide=False),
        f"{stream.frames:,}",
        bytes_text(stream.bytes),
        few_text(stream.anomalies),
        "" if stream.error is None else error_text(stream.error),
    ]


def wide_row(stream: "StreamStatus", now_ns: int) -> list[str]:
    """Return the cells of a stream for `WIDE_COLUMNS`."""
    priority = stream.highest_priority
    return [
        id_text(stream.stream_id, wide=True),
        id_text(stream.session_id, wide=True),
        stream.state,
        time_text(stream.created_at, now_ns, wide=True),
        time_text(stream.started_at, now_ns, wide=True),
        time_text(stream.ended_at, now_ns, wide=True),
        f"{stream.event_count:,}",
        f"{stream.frames:,}",
        f"{stream.bytes:,}",
        NOTHING if priority is None else str(priority),
        f"{stream.config_updates:,}",
        f"{stream.anomalies:,}",
        NOTHING if stream.error is None else error_text(stream.error),
    ]
