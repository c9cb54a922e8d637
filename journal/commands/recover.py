"""`journal recover`: make a new file out of what is left of a damaged one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import FileType, json_option
from journal.commands.console.group import LOSSES
from journal.commands.console.output import Output, counted, one_line, say
from journal.commands.console.progress import CountProgress, making

if TYPE_CHECKING:
    from journal import Recovery

_RANGES_MAX = 3
"""How many ranges of positions are printed; the table `recovered` has all."""

_EPILOG = """\b
Example:
  journal recover damaged.db -o recovered.db
  journal verify recovered.db --full
  journal ship recovered.db /media/stick

\b
Exit codes:
  0    done: every event is there
  1    failed, or nothing of a journal was found; no file was made
  2    wrong usage
  3    done, and some events were lost
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); everything is as it was
"""


@click.command(epilog=_EPILOG, short_help="Make a new file out of a damaged one.")
@click.argument("damaged", metavar="DAMAGED", type=FileType())
@click.option("-o", "--out", metavar="OUT", type=FileType(), required=True, help="The new file.")
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@json_option
def recover(damaged: Path, out: Path, *, force: bool, as_json: bool) -> None:
    """Make a new file, OUT, out of what is left of DAMAGED, which is only read.

    Believes every event that a block proves. "Unproven" are events that no block proves, and that
    nothing speaks against. All keep their positions; OUT says which are lost, and has what was
    found and not believed in its table recovered_apart. It opens, read-only, like any journal, and
    verifies; nothing can be appended to it.

    Take away nothing first: a -wal beside DAMAGED belongs to it. Let nobody write to it meanwhile.
    """
    output = Output()
    progress = CountProgress(what="page")
    with making(progress):
        found = journal.recover(damaged, out, force=force, progress=progress.take)
    if as_json:
        output.json_line(found.model_dump(mode="json") | {"complete": found.is_complete})
    else:
        for line in _summary(found):
            output.line(line)
    output.flush()
    if not found.is_complete:
        say("some events were lost; the tables recovered and recovered_apart say which")
        click.get_current_context().exit(LOSSES)


def _summary(found: "Recovery") -> list[str]:
    events = counted(found.event_count, "event")
    facts = {
        "Recovered": f"{events}, positions {found.first_position} to {found.last_position}",
        "Proven": counted(found.proven_count, "event"),
    }
    if found.unproven_count:
        facts["Unproven"] = _counted_in(found.unproven_count, found.unproven)
    if found.lost_count:
        facts["Lost"] = _counted_in(found.lost_count, found.lost)
    if found.apart_count:
        rows = counted(found.apart_count, "row")
        facts["Apart"] = f"{rows} that are not believed, in the table recovered_apart"
    if found.rebuilt:
        facts["Rebuilt"] = ", ".join(f"{what} {count:,}" for what, count in found.rebuilt.items())
    if found.with_wal:
        facts["Read"] = "with its -wal"
    if found.head is not None:
        facts["Head"] = found.head
    facts["File"] = one_line(str(found.path))
    return [f"{name:<12}{value}" for name, value in facts.items()]


def _counted_in(count: int, ranges: "Sequence[tuple[int, int]]") -> str:
    """Return how many events, and at which positions."""
    where = [str(first) if first == last else f"{first} to {last}" for first, last in ranges]
    text = ", ".join(where[:_RANGES_MAX])
    if len(where) > _RANGES_MAX:
        text += ", ..."
    return f"{counted(count, 'event')}: positions {text}"
