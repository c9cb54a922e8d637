"""`journal verify`: find out whether a journal is what was appended to it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import journal_argument, json_option
from journal.commands.console.output import Output, OutputClosed, counted, one_line
from journal.commands.console.progress import Progress, interruptible, working

if TYPE_CHECKING:
    from journal import Finding, Verification

_NOT_SOUND = 1

_EPILOG = """\b
Example:
  journal verify tests.db
  journal verify tests.db --full --json
  journal verify tests.db --head 5442:24b1...

\b
Exit codes:
  0    sound: nothing was found
  1    not sound, or failed; standard error says why it failed
  2    wrong usage
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP)
"""


@click.command(epilog=_EPILOG, short_help="Find out whether a journal is sound.")
@journal_argument
@click.option("--full", is_flag=True, help="Look at everything, not only at the end.")
@click.option(
    "--head",
    metavar="POSITION:DIGEST",
    help="What `journal info` or `journal verify` printed earlier: find a history that was written"
    " anew up to there, or set back.",
)
@json_option
def verify(path: Path, *, full: bool, head: str | None, as_json: bool) -> None:
    """Find out whether JOURNAL is what was appended to it.

    Prints a line for each finding at once, and at the end what is proven. "damaged" are events, or
    the proof of them; "derived" is what can be made from the events again. Looks at the last blocks
    of events and what they touch; with --full at every event, link and index. Others may go on
    writing meanwhile; the file is not changed.

    Blocks prove events against each other. Who can write to the file can write all of it anew, or
    put an older state of it back: only --head finds that.
    """
    output = Output()
    progress = Progress()
    count = 0

    def tell(finding: "Finding") -> None:
        nonlocal count
        count += 1
        progress.clear()
        if as_json:
            output.json_line(finding.model_dump(mode="json"))
        else:
            output.line(_finding_text(finding))
        output.flush()

    def unfinished() -> str:
        return f"{counted(count, 'finding')} until then, and not all was looked at"

    try:
        with working(progress), interruptible(progress, unfinished):
            found = journal.verify(
                path,
                full=full,
                head=head,
                on_finding=tell,
                progress=lambda done, total: progress.show(done, done / total if total else None),
            )
    except OutputClosed:
        click.get_current_context().exit(_NOT_SOUND)
    with suppress(OutputClosed):
        if as_json:
            output.json_line(found.model_dump(mode="json", exclude={"findings"}))
        else:
            for line in _summary(found):
                output.line(line)
        output.flush()
    if not found.sound:
        click.get_current_context().exit(_NOT_SOUND)


def _finding_text(finding: "Finding") -> str:
    return f"{'damaged' if finding.severity == 'events' else 'derived'}: {finding.text}"


def _summary(found: "Verification") -> list[str]:
    """Return what is proven and what is not, and in the end whether the file is sound."""
    facts: dict[str, str] = {}
    if found.last_position is not None:
        facts["Looked at"] = _looked_at(found)
        facts["Proven"] = counted(found.proven_count, "event")
        if found.covered_up_to:
            facts["Proven"] += f", covered up to position {found.covered_up_to}"
        if found.redacted_count:
            text = f"{counted(found.redacted_count, 'event')} in blocks with redacted texts"
            facts["Redacted"] = f"{text}: only the manifest binds them"
        if found.uncovered_count:
            facts["Uncovered"] = f"{counted(found.uncovered_count, 'event')} that no block proves"
        if found.absent_count:
            facts["Absent"] = f"{counted(found.absent_count, 'event')}, as the file says"
    if found.unchecked:
        facts["Unchecked"] = one_line("; ".join(found.unchecked))
    if found.head is not None:
        facts["Head"] = found.head
    result = "sound" if found.sound else f"not sound: {counted(found.finding_count, 'finding')}"
    facts["Result"] = result
    return [f"{name:<12}{value}" for name, value in facts.items()]


def _looked_at(found: "Verification") -> str:
    events = counted(found.event_count, "event")
    if found.full:
        return f"all {events}" if found.event_count else events
    first = found.checked_after + 1
    return f"the last {events}, from position {first} on (--full: everything)"
