"""`journal rebuild`: fold projections anew, and tell what differs."""

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import journal
from journal.commands.console.arguments import journal_argument, json_option
from journal.commands.console.group import CommandError
from journal.commands.console.output import Output, OutputClosed, counted, one_line, say
from journal.commands.console.progress import CountProgress, interruptible
from journal.commands.console.tables import told

if TYPE_CHECKING:
    from journal.projections import Change, ProjectionStatus, RebuildReport

_DIFFERENT = 3
"""Exit code: the old rows were not what the events say."""

_EPILOG = """\b
Example:
  journal rebuild tests.db --check
  journal rebuild tests.db sessions streams

\b
Exit codes:
  0    done, and the old rows were the same, or there were none
  1    failed; standard error says why
  2    wrong usage; nothing was done
  3    done, and the old rows differed from the new ones
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); the old rows are in place
"""


@click.command(epilog=_EPILOG, short_help="Fold the events again, and print what differs.")
@journal_argument
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--check", is_flag=True, help="Only compare; the old rows stay.")
@json_option
def rebuild(path: Path, names: tuple[str, ...], *, check: bool, as_json: bool) -> None:
    """Fold the projections NAME in JOURNAL, or all, from the first event on.

    The built-in ones are "sessions" and "streams"; one is never made without the other. An
    application's own can only be rebuilt by the application. Readers and writers go on meanwhile,
    and see the old rows until the new ones are complete. Prints a line for each value that differs
    between the two: normally none. It would mean that the rows in the file had been damaged.
    """
    output = Output()
    progress = CountProgress()

    def told() -> str:
        done = progress.complete and not check
        return "the new rows are in place already" if done else "the old rows stay"

    with interruptible(progress, told):
        reports = _rebuilt(path, names, progress, check=check)
    with suppress(OutputClosed):  # what was found is told nevertheless
        for change in (change for report in reports for change in report.changes or ()):
            if as_json:
                output.json_line(_json_value(change))
            else:
                output.line(_change_text(change))
        output.flush()
    for report in reports:
        say(_summary(report, check=check))
    if any(report.change_count for report in reports):
        click.get_current_context().exit(_DIFFERENT)


def _rebuilt(
    path: Path, names: tuple[str, ...], progress: "CountProgress", *, check: bool
) -> "list[RebuildReport]":
    """Rebuild in a journal that is there.

    Raises:
        CommandError: one of the names cannot be rebuilt here.
    """
    with journal.Journal.open(path, read_only=True) as opened:  # which makes no file
        _check_names(opened.path, names, opened.projections())
    # A power cut could cost no more than what can be made again.
    with journal.Journal.open(path, durability="normal") as opened:
        return opened.rebuild(names or None, progress=progress.take, check=check)


def _check_names(path: Path, names: tuple[str, ...], projections: "list[ProjectionStatus]") -> None:
    """Refuse the names of what is not there, and of what only its application can fold."""
    here = [projection.name for projection in projections if projection.stale is not None]
    own = [projection.name for projection in projections if projection.stale is None]
    for name in names:
        if name in own:
            message = (
                f"projection {name!r} is an application's own, and only that has its code: "
                f"the application can rebuild it, with Journal.rebuild([{name!r}])"
            )
            raise CommandError(message)
        if name not in here:
            message = f"{path}: has no projection {name!r}, only {', '.join([*here, *own])}"
            raise CommandError(message)
    if own and not names:
        say(one_line(f"left out, as their code is in the application: {', '.join(own)}"))


def _json_value(change: "Change") -> dict[str, Any]:
    """Return a change as JSON can hold it, whatever it was that damaged the old row."""
    plain = {"old": _plain(change.old), "new": _plain(change.new)}
    return change.model_copy(update=plain).model_dump(mode="json")


def _change_text(change: "Change") -> str:
    where = f"{change.projection} {change.key}"
    if change.column is not None:
        where += f" {change.column}"
    old, new = (_value_text(change.column, value) for value in (change.old, change.new))
    return f"{told(where)}: {told(old)} -> {told(new)}"


def _value_text(column: str | None, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, int) and column is not None and column.endswith("_at"):
        return journal.Timestamp.from_epoch_ns(value).rfc3339()
    return str(_plain(value))


def _plain(value: Any) -> Any:
    """Return a value of SQLite's, those that JSON lacks as SQL writes them."""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _summary(report: "RebuildReport", *, check: bool) -> str:
    text = f"{'compared' if check else 'rebuilt'} {' and '.join(report.projections)}: "
    text += f"{counted(report.event_count, 'event')} in {report.seconds:.1f} s"
    if report.event_count and report.seconds:
        text += f" ({report.event_count / report.seconds:,.0f}/s)"
    if report.changes is None:
        return f"{text}, no earlier rows to compare with"
    verb = ("differs" if report.change_count == 1 else "differ") if check else "changed"
    if not report.change_count:
        return f"{text}, nothing {'differs' if check else verb}"
    text += f", {counted(report.change_count, 'value')} {verb}"
    if len(report.changes) < report.change_count:
        text += f" (the first {len(report.changes):,} are listed)"
    return text + ("; the old rows stay" if check else "")
