"""`journal projections`: how far each projection has come."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import journal_argument, json_option
from journal.commands.console.output import Output, counted, one_line, say
from journal.commands.console.tables import NOTHING, Column, look_of, table, told

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

    LAG is how many events a projection has not folded yet. That is no fault: whoever reads it folds
    them then; `journal rebuild` does so now. STALE: another version of the fold made it, so it
    will be made anew; of an application's own projections (-) only the application knows. Nothing
    is written to JOURNAL.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        found = opened.projections()
    if as_json:
        for projection in found:
            output.json_line(projection.model_dump(mode="json"))
    else:
        for line in table(_COLUMNS, [_row(it) for it in found], look_of(output)):
            output.line(line)
    output.flush()
    counts = {
        "behind": sum(projection.lag > 0 for projection in found),
        "stale": sum(bool(projection.stale) for projection in found),
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    say(f"{counted(len(found), 'projection')}: {said or 'up to date'}")
    if not as_json:
        for line in _advice(path, found):
            say(line)


def _advice(path: Path, found: "list[ProjectionStatus]") -> Iterator[str]:
    """Yield what the figures mean, and what to do, where there is something to do."""
    rebuild = f"`journal rebuild {shlex.quote(str(path))}`"
    if any(it.lag and it.stale is False for it in found):
        yield "LAG: events that are not folded yet. Reading folds them each time, until they are"
        yield one_line(f"stored: by the application when it reads or closes, or by {rebuild}.")
    if any(it.stale for it in found):
        yield "STALE: another version of journal made it. It is made anew when it is read, or by"
        yield one_line(f"{rebuild}.")
    if any(it.lag and it.stale is None for it in found):
        yield "An application's own projection (-) is folded when the application reads it."


def _row(projection: "ProjectionStatus") -> list[str]:
    return [
        told(projection.name),
        str(projection.version),
        str(projection.position),
        f"{projection.lag:,}",
        {True: "yes", False: "no", None: NOTHING}[projection.stale],
    ]
