"""`journal prune`: delete old events, and keep what became of them."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import journal
from journal.commands.console.arguments import (
    AsOfType,
    FileType,
    SizeType,
    SpanType,
    journal_argument,
    json_option,
)
from journal.commands.console.group import CommandError
from journal.commands.console.output import Output, counted, one_line, size_text
from journal.commands.console.progress import Progress, interruptible
from journal.errors import JournalError

if TYPE_CHECKING:
    from journal.maintenance import PruneReport

_RULES = ("before", "keep_events", "keep_bytes", "keep_age", "shipped", "file")

_EPILOG = """\b
Example:
  journal prune tests.db --keep-age 30d --dry-run
  journal prune tests.db --keep-events 1000000
  journal prune tests.db --keep-bytes 500MB --keep-open
  journal prune tests.db --shipped tests.manifest.json

\b
Exit codes:
  0    done, also where there was nothing to prune, or something held it back
  1    failed; standard error says why
  2    wrong usage; nothing was done
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); what was pruned by then is said
"""


@click.command(epilog=_EPILOG, short_help="Delete old events, keep what became of them.")
@journal_argument
@click.option(
    "--before",
    type=AsOfType(),
    metavar="POSITION|TIME",
    help="Events before this position, or of before this time, as for `journal events --since`.",
)
@click.option(
    "--keep-events",
    type=click.IntRange(min=0),
    metavar="N",
    help="All but so many of the latest events; 0: all.",
)
@click.option(
    "--keep-bytes",
    type=SizeType(),
    metavar="SIZE",
    help="As many as it takes to make the file no larger than this, and a tenth of it free: 500MB,"
    " 2GiB.",
)
@click.option(
    "--keep-age", type=SpanType(), metavar="SPAN", help="Events older than this: 30d, '1d 12h'."
)
@click.option(
    "--shipped",
    type=FileType(),
    metavar="MANIFEST",
    help="What was shipped, as the JSON beside a shipped file says.",
)
@click.option(
    "--file", type=FileType(), metavar="SHIPMENT", help="The same, as the shipped file says."
)
@click.option("--keep-open", is_flag=True, help="Stop at the first event of an open session.")
@click.option(
    "--give-up",
    multiple=True,
    metavar="NAME",
    help="A projection or subscription that need not have come so far; may be repeated.",
)
@click.option(
    "--forget-keys-older-than",
    type=SpanType(),
    metavar="SPAN",
    help="Forget the keys of pruned events that were used longer ago. Else all are kept.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go, and about how much.")
@json_option
def prune(path: Path, *, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Delete the oldest events of JOURNAL for good, and keep what became of them.

    One of --before, --keep-events, --keep-bytes, --keep-age, --shipped and --file says which. Whole
    blocks of a thousand events or fewer go, so some more may stay. States, counts and versions of
    sessions and streams stay, also of open sessions whose events go; a session that has ended is
    forgotten with its last event, and so is a stream. The age of events is the latest timestamp
    before them that is not in the future. No event goes that a named projection or subscription has
    not taken yet, unless you give that up.
    """
    if sum(options[name] is not None for name in _RULES) != 1:
        rules = [f"--{name.replace('_', '-')}" for name in _RULES]
        message = f"expected exactly one of {', '.join(rules[:-1])} and {rules[-1]}"
        raise click.UsageError(message)
    output = Output()
    progress = _PruneProgress()

    def told() -> str:
        if dry_run:
            return "nothing was changed"
        return f"{counted(progress.done, 'event')} pruned, the rest is left"

    with interruptible(progress, told):
        report = _pruned(path, progress, dry_run=dry_run, **options)
    if as_json:
        output.json_line(report.model_dump(mode="json"))
    else:
        for line in _page(report, options["keep_bytes"]):
            output.line(line)
    output.flush()


class _PruneProgress(Progress):
    """Shows how many events are pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def take(self, done: int, total: int) -> None:
        """Show the figures."""
        self.done = done
        self.show(done, done / total if total else 1.0)


def _pruned(
    path: Path, progress: _PruneProgress, *, dry_run: bool, **options: Any
) -> "PruneReport":
    """Prune a journal that is there.

    Raises:
        CommandError: what was asked for cannot be.
    """
    for name in ("keep_age", "forget_keys_older_than"):
        if options[name] is not None:
            options[name] = timedelta(microseconds=options[name] // 1_000)
    try:
        with journal.Journal.open(path, read_only=True) as opened:  # which makes no file
            if dry_run:
                return opened.prune(**options, dry_run=True, progress=progress.take)
        # A power cut could cost no more than what can be pruned again.
        with journal.Journal.open(path, durability="normal") as opened:
            return opened.prune(**options, progress=progress.take)
    except JournalError:  # some are ValueErrors, too
        raise
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from error


def _page(report: "PruneReport", bytes_max: int | None) -> list[str]:
    first = report.first_position
    facts = {
        "Would go" if report.dry_run else "Pruned": _gone_text(report),
        "Forgotten": _forgotten_text(report),
        "Left": f"{counted(report.events_left, 'event')}, from position {first} on; "
        f"{counted(report.sessions_left, 'session')}, {counted(report.streams_left, 'stream')}",
        **({} if report.held_by is None else {"Held back": _held_text(report)}),
        "File": _file_text(report),
    }
    if bytes_max is not None and report.file_bytes > bytes_max:
        facts["Too large"] = f"nothing more may go, and {size_text(bytes_max)} were asked for"
    if report.erased is not None and first > 1:
        whose = "" if report.event_count else "of what was pruned before: "
        facts["Texts"] = whose + (
            "gone from the file and its -wal"
            if report.erased
            else "may still be in the file: prune it again when nobody reads or writes it"
        )
    return [f"{name:<12}{text}" for name, text in facts.items()]


def _gone_text(report: "PruneReport") -> str:
    if not report.event_count:
        return "nothing"
    last = report.first_position - 1
    text = f"{counted(report.event_count, 'event')}, up to position {last}"
    return f"{text}, in {counted(report.block_count, 'block')}"


def _forgotten_text(report: "PruneReport") -> str:
    parts = []
    for noun, states in (
        ("session", report.sessions_forgotten),
        ("stream", report.streams_forgotten),
    ):
        if states:
            details = ", ".join(f"{count:,} {state}" for state, count in states.items())
            parts.append(f"{counted(sum(states.values()), noun)} ({details})")
    if report.keys_forgotten:
        parts.append(counted(report.keys_forgotten, "key"))
    return ", ".join(parts) or "nothing"


def _held_text(report: "PruneReport") -> str:
    return one_line(f"by {report.held_by}: nothing after position {report.held_at} may go yet")


def _file_text(report: "PruneReport") -> str:
    about = "about " if report.dry_run else ""
    text = f"{about}{size_text(report.file_bytes)}"
    if report.returned_bytes > 0:
        text += f", {about}{size_text(report.returned_bytes)} smaller"
    kept = report.freed_bytes - report.returned_bytes
    if kept > 0:
        text += f", {about}{size_text(kept)} got free in it"
    return f"{text}: by the share of events, and states that stay take more" if about else text
