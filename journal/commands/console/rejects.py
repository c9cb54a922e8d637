"""What becomes of the lines that are not events: told on standard error, kept in a file."""

import json
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journal.commands.console.incoming import LINE_BYTES_MAX, TOO_LONG_BYTES_KEPT
from journal.commands.console.output import one_line, write_all

if TYPE_CHECKING:
    from journal.store import RejectedLine

TOO_LONG_REASON = f"too long: more than {LINE_BYTES_MAX} bytes"

MARK_REASON = "begins with a byte order mark of UTF-8 (ef bb bf), which JSON has none of"

_TOLD_MAX = 10


class Rejects:
    """Takes the rejected lines of one input.

    Args:
        file: gets a JSON object for each, at once, unbuffered; None: they are only told.
        tell: says a line to the user, of the first ten only; None: says nothing.
    """

    def __init__(self, file: FileIO | None, tell: Callable[[str], None] | None) -> None:
        self._file = file
        self._tell = tell
        self._told = 0

    def take(self, rejected: "RejectedLine") -> None:
        """Tell and keep a line.

        Raises:
            OSError: it cannot be kept.
        """
        if self._file is not None:
            try:
                write_all(self._file, reject_record(rejected))
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._file.name) from error
        if self._tell is None:
            return
        if self._told < _TOLD_MAX:
            self._tell(one_line(f"rejected line {rejected.line_number}: {rejected.reason}"))
        elif self._told == _TOLD_MAX:
            self._tell("more lines were rejected, from here on they are only counted")
        self._told += 1


def open_rejects(path: Path) -> FileIO:
    """Open the file for rejected lines; what it holds already is kept.

    Raises:
        OSError: it cannot be opened.
    """
    file = path.open("ab", buffering=0)
    if file.seekable() and file.tell() and not _ends_a_line(path):
        file.write(b"\n")  # the process before was killed while it wrote
    return file


def reject_record(rejected: "RejectedLine") -> bytes:
    """Return the line of JSON that is kept of a rejected line."""
    record: dict[str, Any] = {"line_number": rejected.line_number, "reason": rejected.reason}
    if rejected.reason == TOO_LONG_REASON:
        record["reason"] += f"; only its first {TOO_LONG_BYTES_KEPT} are kept here"
        record["truncated"] = True
    line = rejected.line
    if isinstance(line, bytes):
        with suppress(UnicodeDecodeError):
            line = line.decode()
    if isinstance(line, str):
        record["line"] = line
    else:
        record["line_base64"] = b64encode(line).decode()
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _ends_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"
    except OSError:
        return True  # it can be written and not read, so nobody knows
