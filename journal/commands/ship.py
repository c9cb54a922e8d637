"""`journal ship`: make a complete, checked and closed copy of a journal."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import FileType, journal_argument, json_option
from journal.commands.console.output import Output, counted, one_line, size_text
from journal.commands.console.progress import CountProgress
from journal.commands.console.tables import told

if TYPE_CHECKING:
    from journal.maintenance import Shipment

_EPILOG = """\b
Example:
  journal ship tests.db copy.db
  journal ship tests.db /media/stick --manifest
  journal ship tests.db copy.db --no-indexes --force --json
"""


@click.command(epilog=_EPILOG, short_help="Make a complete, closed copy to read anywhere.")
@journal_argument
@click.argument("dest", metavar="DEST", type=FileType(path_type=str))
@click.option(
    "--manifest", is_flag=True, help="Also write what it holds as JSON, DEST.manifest.json."
)
@click.option("--no-indexes", is_flag=True, help="Leave out the indexes for reading.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@json_option
def ship(
    path: Path, dest: str, *, manifest: bool, no_indexes: bool, force: bool, as_json: bool
) -> None:
    """Make a complete, checked and closed copy of JOURNAL, while others go on writing to it.

    DEST is the file, or a folder: then it is named after the label, the journal and its positions.
    It holds everything up to one moment in one file, with sessions and streams folded, and opens
    from read-only media in anything that reads SQLite; its table README says how to ask it. Nobody
    appends to it. JOURNAL is not changed.

    The indexes for reading find sessions, streams and times at once, and add some 75 % to the file.
    The manifest has size and SHA-256, and tells what the file must hold.
    """
    output = Output()
    progress = CountProgress()
    try:
        with journal.Journal.open(path, read_only=True) as opened:
            found = opened.ship(
                dest,
                manifest=manifest,
                indexes=not no_indexes,
                force=force,
                progress=progress.take,
            )
    finally:
        progress.clear()
    if as_json:
        output.json_line(found.model_dump(mode="json"))
    else:
        for line in _summary(found, manifest=manifest):
            output.line(line)
    output.flush()


def _summary(found: "Shipment", *, manifest: bool) -> list[str]:
    events = counted(found.event_count, "event")
    if found.event_count:
        events += f", positions {found.first_position} to {found.last_position}"
    absent = sum(it.last_position - it.first_position + 1 for it in found.absent)
    if absent:
        events += f" (and {absent:,} absent)"
    facts = {
        "Shipped": one_line(str(found.path)),
        **({} if found.label is None else {"Label": told(found.label)}),
        "Events": events,
        **({} if found.head is None else {"Head": found.head}),
        "Size": size_text(found.file_bytes),
        "SHA-256": found.sha256,
        **({"Manifest": one_line(str(found.manifest_path))} if manifest else {}),
    }
    return [f"{name:<12}{value}" for name, value in facts.items()]
