"""`journal sessions`: what has become of every session."""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import SESSION_STATES, journal_argument
from journal.commands.console.listing import (
    SESSION_ORDERS,
    Tally,
    listing_options,
    order_and_limit,
    print_list,
)
from journal.commands.console.looking import looking_at
from journal.commands.console.lookups import note_on_end
from journal.commands.console.output import Output, say
from journal.commands.console.pages import listed
from journal.commands.console.progress import LookingProgress
from journal.commands.console.short_ids import ShortIds
from journal.commands.console.tables import (
    Column,
    Look,
    few_text,
    lasted_text,
    look_of,
    time_text,
)

if TYPE_CHECKING:
    from journal import Journal, Timestamp
    from journal.projections import SessionStatus

_EPILOG = """\b
Example:
  journal sessions tests.db --state Active
  journal sessions tests.db --last 20
  journal sessions tests.db --sort failed --limit 10
  journal sessions tests.db --as-of 2026-01-31T12:00:00Z --json
"""

_COLUMNS = (
    Column("SESSION"),
    Column("STATE", "state"),
    Column("ACTIVATED", "time", spare=3),
    Column("ENDED", "time"),
    Column("LASTED"),
    Column("EVENTS", "number", spare=4),
    Column("STREAMS", "number", spare=2),
    Column("ACTIVE", "number", spare=1),
    Column("FAILED", "number"),
    Column("!", "number", optional=True),
)


@click.command(epilog=_EPILOG, short_help="List the sessions and their states.")
@journal_argument
@listing_options(SESSION_STATES, SESSION_ORDERS)
def sessions(
    path: Path,
    *,
    state: str | None,
    sort: str | None,
    limit: int | None,
    last: int | None,
    as_of: "int | Timestamp | None",
    as_json: bool,
    wide: bool,
    read_only: bool,
) -> None:
    """List the sessions in JOURNAL and what has become of them.

    STREAMS counts all of a session, ACTIVE those that are Preparing or Streaming. Where there are
    anomalies, the column ! counts them. Dates are UTC; LASTED is from ACTIVATED to ENDED. Each id
    of the first hundred rows is as long as it takes to type it for ID; where a later one is too
    short, `journal session` lists the candidates. A narrow terminal gets fewer columns.

    What is folded for this is stored in JOURNAL, if it is much and JOURNAL is your own.
    """
    output, tally = Output(), Tally()
    order, at_most = order_and_limit(
        sort, limit, last, for_people=output.is_terminal and not as_json
    )
    with looking_at(path, as_of, read_only=read_only) as opened:
        note = note_on_end(opened, as_of)
        wanted = None if state is None else journal.SessionState(state)
        looking = LookingProgress(opened, output, what="session", limit=at_most)
        statuses = opened.iter_sessions(wanted, order=order, limit=at_most, as_of=as_of)
        found = tally.counting(looking.stopping(statuses))
        table = partial(_table, opened, found, look_of(output))
        print_list(output, found, table, as_json=as_json, wide=wide)
    output.flush()
    say(tally.text("session", SESSION_STATES, as_of))
    if note is not None:
        say(note)


def _table(opened: "Journal", found: "Iterable[SessionStatus]", look: Look) -> Iterator[str]:
    ids, now_ns = ShortIds(opened), time.time_ns()

    def rows_of(page: "list[SessionStatus]") -> list[list[str]]:
        ids.learn(sessions=(session.session_id for session in page))
        return [_row(session, ids, now_ns) for session in page]

    return listed(_COLUMNS, found, rows_of, look)


def _row(session: "SessionStatus", ids: ShortIds, now_ns: int) -> list[str]:
    return [
        ids.session(session.session_id),
        session.state,
        time_text(session.activated_at, now_ns),
        time_text(session.ended_at, now_ns),
        lasted_text(session.activated_at, session.ended_at),
        f"{session.event_count:,}",
        f"{session.total_streams:,}",
        f"{session.active_streams:,}",
        f"{session.failed_streams:,}",
        few_text(session.anomalies),
    ]
