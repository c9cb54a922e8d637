"""`journal anomalies`: the events that the protocol could not have produced."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from journal.commands.console.arguments import (
    as_of_option,
    journal_argument,
    json_option,
    read_only_option,
    wide_option,
)
from journal.commands.console.listing import print_list
from journal.commands.console.looking import looking_at
from journal.commands.console.lookups import note_on_end
from journal.commands.console.output import Output, counted, say
from journal.commands.console.pages import listed
from journal.commands.console.progress import LookingProgress
from journal.commands.console.short_ids import ShortIds
from journal.commands.console.tables import (
    NOTHING,
    Column,
    Look,
    anomalies_text,
    as_of_text,
    look_of,
)

if TYPE_CHECKING:
    from journal import Journal, Timestamp
    from journal.projections import Anomaly

_EPILOG = """\b
Example:
  journal anomalies tests.db
  journal anomalies tests.db --as-of 5000 --json
"""

_COLUMNS = (
    Column("POSITION", "number"),
    Column("SESSION"),
    Column("STREAM", spare=1),
    Column("EVENT"),
    Column("REASON", "wrap"),
)


_SESSIONS_MAX = 100_000
"""As many are told apart, in some 10 MB: there may be millions."""


@click.command(epilog=_EPILOG, short_help="List the events that should not have come.")
@journal_argument
@as_of_option
@json_option
@wide_option
@read_only_option
def anomalies(
    path: Path,
    *,
    as_of: "int | Timestamp | None",
    as_json: bool,
    wide: bool,
    read_only: bool,
) -> None:
    """List the events in JOURNAL that the protocol could not have produced where they stand.

    They applied all the same: events are facts. What is folded for this is stored in JOURNAL, if it
    is much and JOURNAL is your own.
    """
    output, tally = Output(), _Tally()
    with looking_at(path, as_of, read_only=read_only) as opened:
        note = note_on_end(opened, as_of)
        looking = LookingProgress(opened, output)
        found = tally.counting(looking.stopping(opened.iter_anomalies(as_of=as_of)))
        table = partial(_table, opened, found, look_of(output))
        print_list(output, found, table, as_json=as_json, wide=wide)
    output.flush()
    say(tally.text() + as_of_text(as_of))
    if note is not None:
        say(note)


class _Tally:
    """Counts what goes by, for the words below the list."""

    def __init__(self) -> None:
        self._count = 0
        self._sessions: set[int] = set()  # the ids as integers, which take a fifth of the memory

    def counting(self, found: "Iterable[Anomaly]") -> "Iterator[Anomaly]":
        for anomaly in found:
            self._count += 1
            if len(self._sessions) <= _SESSIONS_MAX:
                self._sessions.add(anomaly.session_id.int)
            yield anomaly

    def text(self) -> str:
        text = anomalies_text(self._count)
        if not self._count:
            return text
        if len(self._sessions) > _SESSIONS_MAX:
            return f"{text} in more than {_SESSIONS_MAX:,} sessions"
        return f"{text} in {counted(len(self._sessions), 'session')}"


def _table(opened: "Journal", found: "Iterable[Anomaly]", look: Look) -> Iterator[str]:
    ids = ShortIds(opened)

    def rows_of(page: "list[Anomaly]") -> list[list[str]]:
        ids.learn((one.session_id for one in page), (one.stream_id for one in page))
        return [_row(anomaly, ids) for anomaly in page]

    return listed(_COLUMNS, found, rows_of, look)


def _row(anomaly: "Anomaly", ids: ShortIds) -> list[str]:
    stream_id = anomaly.stream_id
    return [
        str(anomaly.position),
        ids.session(anomaly.session_id),
        NOTHING if stream_id is None else ids.stream(stream_id),
        anomaly.event_type,
        anomaly.reason,
    ]
