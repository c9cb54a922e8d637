"""Following a journal: what is there, and then what is appended, for ever."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import journal
from journal.commands.console.output import Output, one_line, say
from journal.errors import FileReplacedError, JournalError

if TYPE_CHECKING:
    from journal import Journal

_POLL_SECONDS = 0.1

Lines = Callable[["Journal", int], "Iterator[tuple[int, str]]"]
"""Returns position and text of the events after a position that are there now and are wanted."""


def followed(
    opened: "Journal", after: int, lines: Lines, output: Output
) -> Iterator[tuple[int, str]]:
    """Yield what is there and then, for ever, what is appended; flush before each wait.

    Raises:
        FileReplacedError: the file was moved, deleted or replaced.
    """
    seen = -1  # nothing, not even whether there is anything
    while True:
        last = opened.last_position
        if last > seen:
            for position, text in lines(opened, max(after, seen)):
                seen = position
                yield position, text
            seen = max(seen, last)
        output.flush()
        output.wait(_POLL_SECONDS)
        opened.check_file()


def followed_by_name(
    opened: "Journal", after: int, lines: Lines, output: Output
) -> Iterator[tuple[int, str]]:
    """Yield the same, and go on in whatever journal takes the place of the file.

    In a copy that has the event that was shown last, what comes after it. Of anything else all is
    shown, as of another journal: a position alone proves nothing.
    """
    identity, shown, begin = None, None, after
    while True:
        try:
            with opened:
                if identity is not None and (
                    opened.journal_id != identity
                    or (shown and next(lines(opened, shown[0] - 1), None) != shown)
                ):
                    shown, begin = None, 0
                identity = opened.journal_id
                if shown:
                    begin = shown[0]
                for line in followed(opened, begin, lines, output):
                    yield line
                    shown = line
        except FileReplacedError as error:
            say(f"{one_line(str(error))}; going on in what takes its place")
        opened = _waited_for(opened.path, output)


def _waited_for(path: Path, output: Output) -> "Journal":
    """Return the journal at a path, as soon as there is one."""
    while True:
        try:
            return journal.Journal.open(path, read_only=True)
        except JournalError:
            output.wait(_POLL_SECONDS)
