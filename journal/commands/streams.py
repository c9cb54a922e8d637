"""`journal streams`: what has become of every stream."""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import SESSION, STREAM_STATES, journal_argument
from journal.commands.console.listing import (
    STREAM_ORDERS,
    Tally,
    listing_options,
    order_and_limit,
    print_list,
)
from journal.commands.console.looking import looking_at
from journal.commands.console.lookups import note_on_end, session_named
from journal.commands.console.output import Output, say
from journal.commands.console.pages import listed
from journal.commands.console.progress import LookingProgress
from journal.commands.console.short_ids import ShortIds
from journal.commands.console.tables import (
    Column,
    Look,
    bytes_text,
    few_text,
    lasted_text,
    look_of,
    time_text,
    with_error_told,
)

if TYPE_CHECKING:
    from journal import Journal, SessionId, Timestamp
    from journal.projections import StreamStatus

_EPILOG = """\b
Example:
  journal streams tests.db --state Failed --last 20
  journal streams tests.db --sort bytes --limit 10
  journal streams tests.db --session eb7cff5e --wide
"""

_COLUMNS = (
    Column("STREAM"),
    Column("SESSION", spare=5),
    Column("STATE", "state"),
    Column("CREATED", "time", spare=1),
    Column("ENDED", "time", spare=4),
    Column("LASTED"),
    Column("FRAMES", "number", spare=2),
    Column("BYTES", "number", spare=3),
    Column("!", "number", optional=True),
    Column("ERROR", "cut", optional=True),
)


@click.command(epilog=_EPILOG, short_help="List the streams and their states.")
@journal_argument
@click.option(
    "--session",
    "named",
    type=SESSION,
    help="Only those of this session: its id, or the first digits of it.",
)
@listing_options(STREAM_STATES, STREAM_ORDERS)
def streams(
    path: Path,
    *,
    named: "SessionId | str | None",
    state: str | None,
    sort: str | None,
    limit: int | None,
    last: int | None,
    as_of: "int | Timestamp | None",
    as_json: bool,
    wide: bool,
    read_only: bool,
) -> None:
    """List the streams in JOURNAL and what has become of them.

    FRAMES and BYTES are those of a stream's skeleton and patches. Where there are anomalies, the
    column ! counts them. Dates are UTC; LASTED is from CREATED to ENDED. Each id of the first
    hundred rows is as long as it takes to type it for ID; where a later one is too short, `journal
    session` and `journal events --stream` list the candidates. A narrow terminal gets fewer
    columns.

    What is folded for this is stored in JOURNAL, if it is much and JOURNAL is your own.
    """
    output, tally = Output(), Tally()
    order, at_most = order_and_limit(
        sort, limit, last, for_people=output.is_terminal and not as_json
    )
    with looking_at(path, as_of, read_only=read_only) as opened:
        session_id = None if named is None else session_named(opened, named)
        note = note_on_end(opened, as_of)
        wanted = None if state is None else journal.StreamState(state)
        looking = LookingProgress(opened, output, what="stream", limit=at_most)
        statuses = opened.iter_streams(session_id, wanted, order=order, limit=at_most, as_of=as_of)
        found = tally.counting(looking.stopping(statuses))
        table = partial(_table, opened, found, look_of(output))
        print_list(output, found, table, as_json=as_json, wide=wide)
    output.flush()
    say(tally.text("stream", STREAM_STATES, as_of))
    if note is not None:
        say(note)


def _table(opened: "Journal", found: "Iterable[StreamStatus]", look: Look) -> Iterator[str]:
    ids, now_ns = ShortIds(opened), time.time_ns()

    def rows_of(page: "list[StreamStatus]") -> list[list[str]]:
        ids.learn((stream.session_id for stream in page), (stream.stream_id for stream in page))
        return [_row(stream, ids, now_ns) for stream in page]

    return listed(_COLUMNS, map(with_error_told, found), rows_of, look)


def _row(stream: "StreamStatus", ids: ShortIds, now_ns: int) -> list[str]:
    return [
        ids.stream(stream.stream_id),
        ids.session(stream.session_id),
        stream.state,
        time_text(stream.created_at, now_ns),
        time_text(stream.ended_at, now_ns),
        lasted_text(stream.created_at, stream.ended_at),
        f"{stream.frames:,}",
        bytes_text(stream.bytes),
        few_text(stream.anomalies),
        stream.error or "",
    ]
