"""`journal info`: what is in a journal, in figures."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import journal_argument, json_option
from journal.commands.console.output import Output, counted, one_line, size_text
from journal.commands.console.progress import CountProgress
from journal.commands.console.tables import Look, look_of, told
from journal.commands.console.widths import padded, shortened, width_of

if TYPE_CHECKING:
    from journal.file import JournalInfo

_TEXT_MAX = 28
_ROWS_MIN = 3
_PROMPT_LINES = 1

_EPILOG = """\b
Example:
  journal info tests.db
  journal info tests.db --json
"""


@click.command(epilog=_EPILOG, short_help="Show what is in a journal, in figures.")
@journal_argument
@json_option
def info(path: Path, *, as_json: bool) -> None:
    """Show what is in JOURNAL: how many events of which kinds, of which times, and how large it is.

    Times are RFC 3339, sizes in JSON are in bytes. On a terminal it fits the screen; a pipe gets
    every kind. The head is the digest at the last position: noted elsewhere, it lets `journal
    verify --head` find out later whether the history up to there is still the same. Reads the whole
    file once; changes nothing.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        progress = CountProgress()
        try:
            found = opened.info(progress=progress.take)
        finally:
            progress.clear()
    if as_json:
        output.json_line(found.model_dump(mode="json"))
    else:
        for text in _page(found, look_of(output)):
            output.line(text)
    output.flush()


def _page(found: "JournalInfo", look: Look) -> list[str]:
    """Return the most important first; on a terminal, no more than fits the screen."""
    made = f"{found.created_at.rfc3339()} by journal {told(found.library_version, _TEXT_MAX)}"
    size = size_text(found.file_bytes)
    if found.wal_bytes:
        size += f", and {size_text(found.wal_bytes)} in the -wal"
    facts = {
        **({} if found.label is None else {"Label": told(found.label)}),
        "Events": _events_text(found),
        "Timestamps": _times_text(found),
        "Sessions": f"{found.session_count:,}",
        "Streams": f"{found.stream_count:,}",
        "Size": size,
        "File": one_line(str(found.path)),
        "Journal": str(found.journal_id),
        "Created": made,
        **({} if found.closed_by is None else {"Closed by": told(found.closed_by, _TEXT_MAX)}),
        **_origins_facts(found),
        "Format": f"{found.format_version}, {counted(found.sealed_block_count, 'sealed block')}",
        **({} if found.head is None else {"Head": found.head}),
    }
    page = [f"{name:<12}{value}" for name, value in facts.items()]
    if found.counts_by_kind:
        room = None
        if look.height is not None and look.width is not None:
            taken = sum(-(-width_of(line) // look.width) for line in page)
            room = max(_ROWS_MIN, look.height - _PROMPT_LINES - taken - len(["", "header"]))
        page += ["", *_kinds_table(found.counts_by_kind, look.width, room)]
    return page


def _origins_facts(found: "JournalInfo") -> dict[str, str]:
    """Return what is to be said of events that were appended to other journals."""
    if not found.origins:
        return {}
    if all(it.first_position == it.source_first_position for it in found.origins):
        return {"Goes on": _origins_text(found)}
    count = len({it.journal_id for it in found.origins})
    return {"Merged": f"events of {counted(count, 'journal')}; journal origins lists them"}


def _origins_text(found: "JournalInfo") -> str:
    """Return which journal it goes on from, the last one where there are several."""
    last = found.origins[-1]
    label = "" if last.label is None else f"{told(last.label, _TEXT_MAX)}, "
    text = f"from {label}{last.journal_id}, after position {last.last_position}"
    others = len(found.origins) - 1
    return f"{text} (and {counted(others, 'journal')} before)" if others else text


def _events_text(found: "JournalInfo") -> str:
    text = counted(found.event_count, "event").rpartition(" ")[0]
    if found.absent_count:
        text += f" (and {found.absent_count:,} absent)"
    if found.event_count:
        return f"{text}, positions {found.first_position} to {found.last_position}"
    return "none" if found.last_position is None else f"none, last position {found.last_position}"


def _times_text(found: "JournalInfo") -> str:
    if found.first_timestamp is None or found.last_timestamp is None:
        return "none"
    return f"{found.first_timestamp.rfc3339()} to {found.last_timestamp.rfc3339()}"


def _kinds_table(counts: dict[str, int], width: int | None, room: int | None) -> list[str]:
    """Return how many events there are of each kind, the most first, in columns if need be.

    Args:
        counts: by the names of kinds.
        width: of the screen, in characters.
        room: how many rows there may be; None: any number.
    """
    by_count = sorted(counts.items(), key=lambda item: -item[1])
    rows = [(told(kind), f"{count:,}") for kind, count in by_count]
    header = "Events by kind"
    if width is None or room is None:
        return [header, *_beside(rows, 1)]
    rows = [(shortened(name, _TEXT_MAX), count) for name, count in rows]
    table, columns = _beside(rows, 1), 1
    while len(table) > room and columns < len(rows):
        wider = _beside(rows, columns + 1)
        if max(map(width_of, wider)) > width:
            break
        columns, table = columns + 1, wider
    if len(table) > room:
        header += f" (without the {len(rows) - room * columns:,} rarest; a pipe gets all)"
        table = _beside(rows[: room * columns], columns)
    return [header, *table]


def _beside(rows: list[tuple[str, str]], columns: int) -> list[str]:
    """Return names and figures in some columns, downwards."""
    height = -(-len(rows) // columns)
    lines = [""] * height
    for first in range(0, len(rows), height):
        column = rows[first : first + height]
        names = max(width_of(name) for name, _ in column)
        digits = max(len(figure) for _, figure in column)
        for line, (name, figure) in enumerate(column):
            lines[line] += f"  {padded(name, names)}  {figure:>{digits}}"
    return lines
