"""One journal file: its schema, opening it, appending to it and reading from it.

`FORMAT.md` specifies the file. Nothing here knows of projections. The types of what `Journal`
returns of a file are to be imported from here.
"""

from typing import TYPE_CHECKING

from journal._lazily import imported_lazily

if TYPE_CHECKING:
    from journal.file.info import JournalInfo as JournalInfo
    from journal.file.ndjson import LineAppender as LineAppender
    from journal.file.origins import Origin as Origin

_HOMES = {
    "JournalInfo": "info",
    "LineAppender": "ndjson",
    "Origin": "origins",
}


if not TYPE_CHECKING:  # with it, a type checker would believe that every name is here
    __getattr__ = imported_lazily(__name__, _HOMES)
