"""`journal sessions`: what has become of every session."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import (
    SESSION_STATES,
    as_of_option,
    journal_argument,
    json_option,
    state_option,
    wide_option,
)
from journal.commands.console.output import Output, say
from journal.commands.console.rebuild_hint import hint_at_rebuild
from journal.commands.console.tables import (
    NOTHING,
    Column,
    anomalies_text,
    few_text,
    id_text,
    look_of,
    states_text,
    table,
    time_text,
)

if TYPE_CHECKING:
    from journal import Timestamp
    from journal.projections import SessionStatus

_EPILOG = """\b
Example:
  journal sessions tests.db --state Active
  journal sessions tests.db --as-of 2026-01-31T12:00:00Z --json
"""

_COLUMNS = (
    Column("SESSION"),
    Column("STATE", "state"),
    Column("ACTIVATED"),
    Column("ENDED"),
    Column("EVENTS", "number"),
    Column("STREAMS", "number"),
    Column("ACTIVE", "number"),
    Column("FAILED", "number"),
    Column("!", "number", optional=True),
)
_WIDE_COLUMNS = (
    Column("SESSION"),
    Column("STATE", "state"),
    Column("ACTIVATED"),
    Column("ENDED"),
    Column("EXPIRES"),
    Column("EVENTS", "number"),
    Column("STREAMS", "number"),
    Column("ACTIVE", "number"),
    Column("COMPLETED", "number"),
    Column("FAILED", "number"),
    Column("CANCELLED", "number"),
    Column("THRESHOLD", "number"),
    Column("BATCHED", "number"),
    Column("ANOMALIES", "number"),
)


@click.command(epilog=_EPILOG, short_help="List the sessions and their states.")
@journal_argument
@state_option(SESSION_STATES)
@as_of_option
@json_option
@wide_option
def sessions(
    path: Path, *, state: str | None, as_of: "int | Timestamp | None", as_json: bool, wide: bool
) -> None:
    """List the sessions in JOURNAL and what has become of them, oldest first.

    STREAMS counts all of a session, ACTIVE those that are Preparing or Streaming. Where there are
    anomalies, the column ! counts them. Nothing is written to JOURNAL.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        if as_of is None:
            hint_at_rebuild(opened, path)
        found = opened.sessions(None if state is None else journal.SessionState(state), as_of=as_of)
    if as_json:
        for session in found:
            output.json_line(session.model_dump(mode="json"))
    elif found:
        row, columns = (_wide_row, _WIDE_COLUMNS) if wide else (_row, _COLUMNS)
        now_ns = time.time_ns()
        rows = [row(session, now_ns) for session in found]
        for line in table(columns, rows, look_of(output, wide=wide)):
            output.line(line)
    output.flush()
    text = states_text("session", (session.state for session in found), SESSION_STATES, as_of)
    anomalies = sum(session.anomalies for session in found)
    say(text + (f"; {anomalies_text(anomalies)}" if anomalies else ""))


def _row(session: "SessionStatus", now_ns: int) -> list[str]:
    return [
        id_text(session.session_id, wide=False),
        session.state,
        time_text(session.activated_at, now_ns, wide=False),
        time_text(session.ended_at, now_ns, wide=False),
        f"{session.event_count:,}",
        f"{session.total_streams:,}",
        f"{session.active_streams:,}",
        f"{session.failed_streams:,}",
        few_text(session.anomalies),
    ]


def _wide_row(session: "SessionStatus", now_ns: int) -> list[str]:
    threshold = session.priority_threshold
    return [
        id_text(session.session_id, wide=True),
        session.state,
        time_text(session.activated_at, now_ns, wide=True),
        time_text(session.ended_at, now_ns, wide=True),
        time_text(session.expires_at, now_ns, wide=True),
        f"{session.event_count:,}",
        f"{session.total_streams:,}",
        f"{session.active_streams:,}",
        f"{session.completed_streams:,}",
        f"{session.failed_streams:,}",
        f"{session.cancelled_streams:,}",
        NOTHING if threshold is None else str(threshold),
        f"{session.batched_frames:,}",
        f"{session.anomalies:,}",
    ]
