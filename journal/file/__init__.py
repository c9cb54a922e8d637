"""One journal file: its schema, opening it, appending to it and reading from it.

`FORMAT.md` specifies the file. Nothing here knows of projections. The types of what `Journal`
returns of a file are to be imported from here.
"""

from journal.file.info import JournalInfo as JournalInfo
from journal.file.ndjson import LineAppender as LineAppender
from journal.file.origins import Origin as Origin
