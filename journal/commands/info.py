"""`journal info`: what is in a journal, in figures."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import journal_argument, json_option
from journal.commands.console.output import Output, counted, one_line, size_text

if TYPE_CHECKING:
    from journal.file import JournalInfo

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

    Times are RFC 3339, sizes in JSON are in bytes. Reads the whole file once; changes nothing.
    """
    output = Output()
    with journal.Journal.open(path, read_only=True) as opened:
        found = opened.info()
    if as_json:
        output.json_line(found.model_dump(mode="json"))
    else:
        for text in _page(found):
            output.line(text)
    output.flush()


def _page(found: "JournalInfo") -> list[str]:
    facts = {
        "Journal": str(found.journal_id),
        **({} if found.label is None else {"Label": one_line(found.label)}),
        "File": one_line(str(found.path)),
        "Size": size_text(found.file_bytes)
        + (f", and {size_text(found.wal_bytes)} in the -wal" if found.wal_bytes else ""),
        "Created": f"{found.created_at.rfc3339()} by journal {one_line(found.library_version)}",
        "Format": str(found.format_version),
        "Events": _events_text(found),
        "Timestamps": _times_text(found),
        "Sessions": f"{found.session_count:,}",
        "Streams": f"{found.stream_count:,}",
        "Blocks": f"{found.sealed_block_count:,} sealed",
    }
    page = [f"{name:<12}{value}" for name, value in facts.items()]
    if found.counts_by_kind:
        page += ["", *_kinds_table(found.counts_by_kind)]
    return page


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


def _kinds_table(counts: dict[str, int]) -> list[str]:
    names = {one_line(kind): f"{count:,}" for kind, count in counts.items()}
    width = max(map(len, names))
    digits = max(map(len, names.values()))
    return ["Events by kind", *(f"  {name:<{width}}  {n:>{digits}}" for name, n in names.items())]
