"""`journal continue`: make a journal that goes on from a closed copy."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import FileType, json_option
from journal.commands.console.output import Output, counted, one_line
from journal.commands.console.progress import CountProgress, making, working
from journal.commands.console.tables import told

if TYPE_CHECKING:
    from journal.maintenance import Continued

_EPILOG = """\b
Example:
  journal continue shipped.db new.db
  journal continue shipped.db new.db --label "pump 7, second disk"
"""


@click.command("continue", epilog=_EPILOG, short_help="Make a journal of a closed copy.")
@click.argument("path", metavar="COPY", type=FileType())
@click.argument("new", metavar="NEW", type=FileType())
@click.option("--label", metavar="NAME", help="What people call the new journal.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@json_option
def continue_(path: Path, new: Path, *, label: str | None, force: bool, as_json: bool) -> None:
    """Make NEW, a journal that goes on from COPY, which `ship` or `recover` has made.

    Nobody appends to a copy: a position would mean one event in it, and another one in the journal
    that it was made of. NEW has an id of its own, and says which positions came from which journal.
    Positions, versions, idempotency keys and digests go on. Without --label it is called what COPY
    is called. It is verified before it gets its name; COPY stays as it is.
    """
    output = Output()
    progress = CountProgress()
    with working(progress), making(progress):
        made = journal.continue_copy(path, new, label=label, force=force, progress=progress.take)
    if as_json:
        output.json_line(made.model_dump(mode="json"))
    else:
        for line in _summary(made):
            output.line(line)
    output.flush()


def _summary(made: "Continued") -> list[str]:
    events = counted(made.event_count, "event")
    if made.event_count:
        events += f", positions {made.first_position} to {made.last_position}"
    facts = [("Made", one_line(str(made.path)))]
    if made.label is not None:
        facts.append(("Label", told(made.label)))
    facts += [("Journal", str(made.journal_id)), ("Events", events)]
    for origin in made.origins:
        label = "" if origin.label is None else f"{told(origin.label)}, "
        text = f"{label}{origin.journal_id}, positions {origin.first_position} to "
        facts.append(("From", f"{text}{origin.last_position}"))
    if made.head is not None:
        facts.append(("Head", made.head))
    return [f"{name:<12}{value}" for name, value in facts]
