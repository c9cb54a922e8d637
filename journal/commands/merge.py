"""`journal merge`: have the events of many journals in one."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import journal
from journal.commands.console.arguments import FileType, json_option
from journal.commands.console.group import LOSSES
from journal.commands.console.output import Output, counted, one_line, say
from journal.commands.console.progress import CountProgress, interruptible
from journal.commands.console.tables import told
from journal.commands.origins import origin_notes, ranges_text

if TYPE_CHECKING:
    from journal.maintenance import Merged

_NAMES_MAX: Final = 3

_EPILOG = """\b
Example:
  journal merge fleet.db inbox/
  journal merge fleet.db pump-7.db pump-8.db
  journal origins fleet.db

\b
Exit codes:
  0    done: of each journal, everything up to its last event is there, or is
       gone for good, as its sources say
  1    failed; standard error says why
  2    wrong usage
  3    done, and something waits, or a journal has two histories
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); the same command again goes on
"""


@click.command(epilog=_EPILOG, short_help="Have the events of many journals in one.")
@click.argument("path", metavar="FLEET", type=FileType())
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=FileType())
@click.option(
    "--rewrite", is_flag=True, help="Make FLEET anew where something waits that a SOURCE has."
)
@json_option
def merge(path: Path, sources: tuple[Path, ...], *, rewrite: bool, as_json: bool) -> None:
    """Add to FLEET what it lacks of the events of each SOURCE; FLEET is made if it is not there.

    A SOURCE is a shipment, a delta, a journal that is closed, a merged journal, or a folder with
    such files. They may come in any order, twice, and overlap: each event is known by the journal
    that it was appended to and its position there. All are checked before anything is written.

    An event that comes when later ones of its journal are there waits, and positions that are
    missing without a word are waited for. With --rewrite, FLEET is made anew with the former in
    their place; it gets other positions, and so an id of its own. Two histories of one journal, as
    of a device that was set back to an older state, are both kept, the later one as a branch.

    In a FLEET that is made anew, subscriptions begin anew, and what was pruned from the old one is
    back. So the SOURCEs have to have all of that: else it is not made anew, since the states,
    versions and counts that pruning kept would be lost.
    """
    output = Output()
    progress = CountProgress()
    with interruptible(progress, lambda: "what was added stays, and the same command goes on"):
        done = journal.merge(path, sources, rewrite=rewrite, progress=progress.take)
    if as_json:
        output.json_line({**done.model_dump(mode="json"), "complete": done.complete})
    else:
        for name, value in _facts(done):
            output.line(f"{name:<12}{value}")
    output.flush()
    for line in _open_ends(done):
        say(line)
    if not done.complete:
        click.get_current_context().exit(LOSSES)


def _facts(done: "Merged") -> list[tuple[str, str]]:
    facts = [
        ("Merged", counted(done.source_count, "source")),
        ("Added", counted(done.added_count, "event")),
        ("Known", counted(done.known_count, "event")),
    ]
    if done.rewritten:
        facts.append(("Made anew", "with other positions, and an id of its own"))
    if done.skipped:
        names = ", ".join(told(one_line(path.name), 60) for path in done.skipped[:_NAMES_MAX])
        more = len(done.skipped) - _NAMES_MAX
        names += f" and {more:,} more" if more > 0 else ""
        facts.append(("Left out", f"{names}: no journals"))
    return facts


def _open_ends(done: "Merged") -> Iterator[str]:
    """Yield what waits, and which journals have two histories, in words."""
    for part in done.waiting:
        name = told(part.label) if part.label is not None else str(part.journal_id)
        ranges = ranges_text(part.positions)
        text = f"positions {ranges} of {name} wait, as {part.reason} (--rewrite places them)"
        yield f"{one_line(str(part.path))}: {text}"
    for origin in done.origins:
        yield from origin_notes(origin)
