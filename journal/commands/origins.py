"""`journal origins`: which journals the events of a file come from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

import journal
from journal.commands.console.arguments import journal_argument, json_option
from journal.commands.console.group import LOSSES
from journal.commands.console.output import Output, counted, say
from journal.commands.console.progress import CountProgress
from journal.commands.console.tables import NOTHING, Column, look_of, table, told

if TYPE_CHECKING:
    from journal.maintenance import MergedOrigin, SharedSession

_EPILOG = """\b
Example:
  journal origins fleet.db
  journal origins fleet.db --json

\b
Exit codes:
  0    done
  1    failed; standard error says why
  2    wrong usage
  3    done, and something is waited for, or a journal has two histories
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP)
"""

_COLUMNS: Final = (
    Column("LABEL"),
    Column("JOURNAL"),
    Column("BRANCH", optional=True),
    Column("EVENTS", "number"),
    Column("FIRST", "number"),
    Column("LAST", "number"),
    Column("ABSENT", "number"),
    Column("WAITING", "number"),
)
_BRANCH_DIGITS: Final = 8
_RANGES_MAX: Final = 3
_SESSIONS_MAX: Final = 10


@click.command(epilog=_EPILOG, short_help="Show which journals the events come from.")
@journal_argument
@json_option
def origins(path: Path, *, as_json: bool) -> None:
    """Show which journals the events in JOURNAL were appended to, and what is missing of each.

    FIRST and LAST are positions in those journals. ABSENT is how many of them are gone from JOURNAL
    or from what was merged into it, and not waited for, or lie before JOURNAL if that is a delta;
    WAITING is how many are missing and might
    still come. A BRANCH is a second history of a journal, since the two parted. `journal events
    --origin` takes a LABEL, JOURNAL or BRANCH. Sessions that several journals have events of are
    listed, too.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        progress = CountProgress()
        try:
            found = opened.origins(progress=progress.take)
        finally:
            progress.clear()
    if as_json:
        for origin in found.origins:
            output.json_line(origin.model_dump(mode="json"))
        for session in found.shared_sessions:
            output.json_line(session.model_dump(mode="json"))
    else:
        for line in table(_COLUMNS, [_row(it) for it in found.origins], look_of(output)):
            output.line(line)
    output.flush()
    for origin in found.origins:
        for line in origin_notes(origin):
            say(line)
    if not as_json:
        _tell_of_sessions(found.shared_sessions)
    if not found.complete:
        click.get_current_context().exit(LOSSES)


def _tell_of_sessions(shared: "Sequence[SharedSession]") -> None:
    if not shared:
        return
    say(f"{counted(len(shared), 'session')} with events of several journals:")
    for session in shared[:_SESSIONS_MAX]:
        say(f"  {session.session_id} ({counted(len(session.journal_ids), 'journal')})")
    if len(shared) > _SESSIONS_MAX:
        say(f"  and {len(shared) - _SESSIONS_MAX:,} more (--json prints all)")


def _row(origin: "MergedOrigin") -> list[str]:
    return [
        NOTHING if origin.label is None else told(origin.label),
        str(origin.journal_id),
        origin.branch[:_BRANCH_DIGITS],
        f"{origin.event_count:,}",
        NOTHING if origin.first_position is None else str(origin.first_position),
        NOTHING if origin.last_position is None else str(origin.last_position),
        f"{_count(origin.absent):,}",
        f"{_count(origin.waiting):,}",
    ]


def _count(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def origin_notes(origin: "MergedOrigin") -> Iterator[str]:
    """Yield what is not as it should be of a journal, in words."""
    name = str(origin.journal_id) if origin.label is None else told(origin.label)
    if origin.branch:
        where = (
            f"after position {origin.parted_after}" if origin.parted_after else "from the first on"
        )
        yield (
            f"{name} has two histories: branch {origin.branch[:_BRANCH_DIGITS]} has other events "
            f"{where}"
        )
    if origin.waiting:
        yield f"{name} is not complete: positions {ranges_text(origin.waiting)} have not come yet"


def ranges_text(ranges: Sequence[tuple[int, int]]) -> str:
    """Return the first ranges of positions as people read them, and how many more there are."""
    some = ", ".join(f"{first} to {last}" for first, last in ranges[:_RANGES_MAX])
    more = len(ranges) - _RANGES_MAX
    return f"{some} and {counted(more, 'range')} more" if more > 0 else some
