"""`journal events`: print the events of a journal."""

import difflib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import (
    SESSION,
    STREAM,
    KindType,
    TimeType,
    journal_argument,
    kind_names,
)
from journal.commands.console.following import followed, followed_by_name
from journal.commands.console.lookups import session_named, stream_named
from journal.commands.console.output import Output, json_text, one_line
from journal.commands.console.progress import LookingProgress
from journal.commands.console.tables import told

if TYPE_CHECKING:
    from journal import Journal, SessionId, StreamId, Timestamp

_EPILOG = """\b
Example:
  journal events tests.db > events.ndjson
  journal events tests.db --type stream_failed --since yesterday
  journal events tests.db --since "2026-01-31 12:00" --until 2026-02-01
  journal events tests.db --after 5000 --follow --json

\b
Exit codes:
  0    done, even if the reader of a pipe has seen enough
  1    failed, also where --follow finds the file replaced; see standard error
  2    wrong usage, as a --type that is neither known nor in the file
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): how --follow ends
"""


@click.command(epilog=_EPILOG, short_help="Print events, oldest first.")
@journal_argument
@click.option(
    "--session", type=SESSION, help="Only those of this session: its id, or the first digits of it."
)
@click.option("--stream", type=STREAM, help="Only those of this stream, likewise.")
@click.option(
    "--since",
    type=TimeType(),
    help="Only those with a timestamp later than this, not those at this very nanosecond.",
)
@click.option("--until", type=TimeType(), help="Only those with a timestamp at or before this.")
@click.option(
    "--type",
    "kinds",
    type=KindType(),
    multiple=True,
    help="Only those of this kind. May be repeated.",
)
@click.option(
    "--origin",
    metavar="LABEL|ID|BRANCH",
    help="Only those that were appended to the journal with this label or id; of one with two"
    " histories, the branch has those of the second one. As `journal origins` shows them.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Only those at positions after this one.",
)
@click.option(
    "--limit", type=click.IntRange(min=0), metavar="N", help="At most N of those that fit."
)
@click.option(
    "--follow",
    is_flag=True,
    help="Then print what is appended, until Ctrl-C, or until the file is moved or replaced.",
)
@click.option(
    "-F",
    "--follow-name",
    is_flag=True,
    help="As --follow, and go on in the file that takes its place, as tail -F does.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print {"position": N, "event": {...}}, and where it was appended first.',
)
def events(
    path: Path,
    *,
    session: "SessionId | str | None",
    stream: "StreamId | str | None",
    since: "Timestamp | None",
    until: "Timestamp | None",
    kinds: tuple[str, ...],
    origin: str | None,
    after: int,
    limit: int | None,
    follow: bool,
    follow_name: bool,
    as_json: bool,
) -> None:
    """Print the events in JOURNAL that fit every option given, in the order of their positions.

    One line of canonical JSON for each: what `append` was given, byte for byte, where that was
    canonical. The first one comes at once, however many there are.

    TIME is RFC 3339, to the nanosecond, or, always in UTC, as all times are printed: 2026-01-31
    (its first instant), "2026-01-31 12:00", 12:00 (of today), yesterday, today, now, or how long
    ago: 2h, "1d 12h", 90s.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        _check_kinds(opened, frozenset(kinds))
        if origin is not None:
            _check_origin(opened, origin)
        looking = LookingProgress(opened, output, limit=limit)
        lines_of = partial(
            journal.Journal.lines,
            session_id=None if session is None else session_named(opened, session),
            stream_id=None if stream is None else stream_named(opened, stream),
            since=since,
            until=until,
            kinds=kinds or None,
            origin=origin,
        )
        shown = _Shown(opened) if as_json else None
        if follow_name:
            lines = followed_by_name(opened, after, lines_of, output)
        elif follow:
            lines = followed(opened, after, lines_of, output)
        else:
            lines = lines_of(opened, after)
        try:
            for position, text in looking.stopping(_limited(lines, limit)):
                output.line(text if shown is None else shown.line(position, text))
        except Exception:  # not an interrupt: whoever reads a pipe may never take it
            output.flush()
            raise
        output.flush()


class _Shown:
    """Makes the lines of --json, with where each event was appended first."""

    def __init__(self, opened: "Journal") -> None:
        self._opened = opened
        self._first, self._last = 1, 0
        self._offset = 0
        self._facts = ""

    def line(self, position: int, text: str) -> str:
        if not self._first <= position <= self._last:
            self._find(position)
        facts = self._facts
        if facts:
            facts = f'{facts}"source_position":{position + self._offset},'
        return f'{{"position":{position},{facts}"event":{text}}}'

    def _find(self, position: int) -> None:
        origin = self._opened.origin_of(position)
        if origin is None:
            self._last = 2**63
            return
        self._first, self._last = origin.first_position, origin.last_position
        self._offset = origin.source_first_position - origin.first_position
        facts = {
            "label": origin.label,
            "journal_id": str(origin.journal_id),
            "branch": origin.branch,
        }
        self._facts = f"{json_text(facts)[1:-1]},"


def _limited(lines: Iterator[tuple[int, str]], limit: int | None) -> Iterator[tuple[int, str]]:
    if limit is None:
        yield from lines
        return
    # Not islice: it would wait for one more than is wanted.
    for _ in range(limit):
        line = next(lines, None)
        if line is None:
            return
        yield line


def _check_origin(opened: "Journal", origin: str) -> None:
    """Refuse what no event came from.

    Raises:
        click.BadParameter: it is that.
    """
    try:
        opened.lines(origin=origin)
    except ValueError as error:
        message = f"no event in {opened.path.name} came from {told(origin)}: `journal origins` "
        message += "lists what they came from"
        context = click.get_current_context()
        raise click.BadParameter(one_line(message), context, param_hint="'--origin'") from error


def _check_kinds(opened: "Journal", kinds: frozenset[str]) -> None:
    """Refuse a kind that is neither known nor in the file: most likely it is misspelt.

    Raises:
        click.BadParameter: one of them is.
    """
    known = kind_names()
    if kinds <= {*known}:
        return
    here = opened.kind_names()
    for kind in sorted(kinds.difference(here)):
        similar = difflib.get_close_matches(kind[:100].lower(), here, n=1)
        hint = f"did you mean {told(similar[0])}?" if similar else "`journal kinds` lists the known"
        message = f"{told(kind)} is neither a known kind nor one in {opened.path.name}, {hint}"
        context = click.get_current_context()
        raise click.BadParameter(one_line(message), context, param_hint="'--type'")
