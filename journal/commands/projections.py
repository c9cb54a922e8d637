"""`journal projections`: how far each projection has come."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import journal_argument, json_option
from journal.commands.console.output import Output, counted, one_line, say
from journal.commands.console.tables import NOTHING, Column, look_of, table

if TYPE_CHECKING:
    from journal.projections import ProjectionStatus

_EPILOG = """\b
Example:
  journal projections tests.db
  journal projections tests.db --json
"""

_COLUMNS = (
    Column("NAME"),
    Column("VERSION", "number"),
    Column("POSITION", "number"),
    Column("LAG", "number"),
    Column("STALE"),
)


@click.command(epilog=_EPILOG, short_help="Show how far each projection has come.")
@journal_argument
@json_option
def projections(path: Path, *, as_json: bool) -> None:
    """Show the projections in JOURNAL: what is folded from its events, and up to which position.

    LAG is how many events a projection has not folded yet; whoever reads it folds them then.
    STALE: another version of the fold made it, so it will be made anew; of an application's own
    projections (-) only the application knows. Nothing is written to JOURNAL.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        found = opened.projections()
    if as_json:
        for projection in found:
            output.json_line(projection.model_dump(mode="json"))
    else:
        for line in table(_COLUMNS, [_row(it) for it in found], look_of(output, wide=False)):
            output.line(line)
    output.flush()
    counts = {
        "behind": sum(projection.lag > 0 for projection in found),
        "stale": sum(bool(projection.stale) for projection in found),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    say(f"{counted(len(found), 'projection')}: {told or 'up to date'}")


def _row(projection: "ProjectionStatus") -> list[str]:
    return [
        one_line(projection.name),
        str(projection.version),
        str(projection.position),
        f"{projection.lag:,}",
        {True: "yes", False: "no", None: NOTHING}[projection.stale],
    ]
