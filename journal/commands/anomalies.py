"""`journal anomalies`: the events that the protocol could not have produced."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import (
    as_of_option,
    journal_argument,
    json_option,
    wide_option,
)
from journal.commands.console.output import Output, counted, say
from journal.commands.console.rebuild_hint import hint_at_rebuild
from journal.commands.console.tables import (
    NOTHING,
    Column,
    anomalies_text,
    as_of_text,
    id_text,
    look_of,
    table,
)

if TYPE_CHECKING:
    from journal import Timestamp
    from journal.projections import Anomaly

_EPILOG = """\b
Example:
  journal anomalies tests.db
  journal anomalies tests.db --as-of 5000 --json
"""

_COLUMNS = (
    Column("POSITION", "number"),
    Column("SESSION"),
    Column("STREAM"),
    Column("EVENT"),
    Column("REASON", "wrap"),
)


@click.command(epilog=_EPILOG, short_help="List the events that should not have come.")
@journal_argument
@as_of_option
@json_option
@wide_option
def anomalies(path: Path, *, as_of: "int | Timestamp | None", as_json: bool, wide: bool) -> None:
    """List the events in JOURNAL that the protocol could not have produced where they stand.

    They applied all the same: events are facts. Nothing is written to JOURNAL.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        if as_of is None:
            hint_at_rebuild(opened, path)
        found = opened.anomalies(as_of=as_of)
    if as_json:
        for anomaly in found:
            output.json_line(anomaly.model_dump(mode="json"))
    elif found:
        rows = [_row(anomaly, wide=wide) for anomaly in found]
        for line in table(_COLUMNS, rows, look_of(output, wide=wide)):
            output.line(line)
    output.flush()
    text = anomalies_text(len(found))
    if found:
        text += f" in {counted(len({anomaly.session_id for anomaly in found}), 'session')}"
    say(text + as_of_text(as_of))


def _row(anomaly: "Anomaly", *, wide: bool) -> list[str]:
    stream_id = anomaly.stream_id
    return [
        str(anomaly.position),
        id_text(anomaly.session_id, wide=wide),
        NOTHING if stream_id is None else id_text(stream_id, wide=wide),
        anomaly.event_type,
        anomaly.reason,
    ]
