"""Writing: data to standard output, words to standard error, figures as people read them.

Data bypasses Python's buffers: it is UTF-8 with plain line feeds everywhere, and nothing is left
behind that the interpreter would try to write at its end, to a pipe that may be broken.
"""

import errno
import io
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

_CHUNK_CHARACTERS = 64 * 1024
_HOLD_SECONDS = 0.1
_READING_SECONDS = 1.0


class OutputClosed(Exception):  # noqa: N818 (not an error: `| head` has seen enough)
    """Whoever read standard output has gone away."""


class Output:
    """Standard output: the first line at once, then in large chunks, if they come quickly."""

    def __init__(self) -> None:
        self._stream, self._descriptor = _standard_output()
        self._held: list[str] = []
        self._held_characters = 0
        self._flush_at = 0.0
        self.has_waited = False
        """Whether a pipe has taken nothing for so long as only people do, who read in `less`."""

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def line(self, text: str) -> None:
        """Write a line, at the latest with the next one after a tenth of a second, or at `flush`.

        Raises:
            OutputClosed: nobody reads it.
        """
        self.text(f"{text}\n")

    def text(self, text: str) -> None:
        """Write a part of a line, or a line with its end, as `line` does."""
        self._held.append(text)
        self._held_characters += len(text)
        if self._held_characters >= _CHUNK_CHARACTERS or time.monotonic() >= self._flush_at:
            self.flush()

    def json_line(self, value: Any) -> None:
        """Write a value as one line of JSON."""
        self.line(json_text(value))

    def flush(self) -> None:
        """Write what is held back.

        Raises:
            OutputClosed: nobody reads it.
        """
        if not self._held:
            return
        # Only a file name can hold what is not Unicode; in JSON the escape is even the right one.
        data = "".join(self._held).encode("utf-8", "backslashreplace")
        self._held, self._held_characters = [], 0
        began = time.monotonic()
        self._flush_at = began + _HOLD_SECONDS
        try:
            write_all(self._stream, data)
        except OSError as error:
            if _is_closed(error):
                raise OutputClosed from error
            raise OSError(error.errno, error.strerror, "standard output") from error
        self.has_waited |= time.monotonic() - began > _READING_SECONDS

    def wait(self, seconds: float) -> None:
        """Sleep, unless the reader of a pipe has gone away, where that can be seen.

        Raises:
            OutputClosed: it has.
        """
        # It is not poll that waits: macOS tells of a reader that went away only who asks whether
        # something can be written, and that is so at once.
        if self._descriptor is not None and hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(0)):
                raise OutputClosed
        time.sleep(seconds)


def _standard_output() -> tuple[BinaryIO | io.RawIOBase, int | None]:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "closed", "standard output")
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # something in its place that is not a file, in a test
        return sys.stdout.buffer, None
    return open(descriptor, "wb", buffering=0, closefd=False), descriptor


def write_all(stream: BinaryIO | io.RawIOBase, data: bytes) -> None:
    """Write to a stream without a buffer, which may take less than it is given.

    Raises:
        OSError: as the stream does; some of it may be written.
    """
    rest = memoryview(data)
    while rest:
        written = stream.write(rest)
        if written is None:  # the descriptor does not block, and is full
            time.sleep(0.01)
        rest = rest[written or 0 :]


def _is_closed(error: OSError) -> bool:
    # Windows reports a pipe without a reader as an invalid argument.
    return isinstance(error, ConnectionError) or (os.name == "nt" and error.errno == errno.EINVAL)


def drop_held_output() -> None:
    """Lead to nowhere what standard output holds and cannot write: Python tries again at its end.

    It would say that this fails, and end with another exit code.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def say(text: str) -> None:
    """Write a line to standard error; when nobody listens, the work goes on."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def json_text(value: Any) -> str:
    """Return a value as JSON in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def one_line(text: str) -> str:
    """Return the text with line ends and terminal controls escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def counted(number: int, noun: str) -> str:
    """Return "no events", "1 event", "1,234 events"."""
    return f"{number or 'no':{',' if number else ''}} {noun}{'' if number == 1 else 's'}"


def size_text(size_bytes: int) -> str:
    """Return a size as people read it, in powers of a thousand: "412 kB", "1.1 MB"."""
    if size_bytes < 1000:
        return f"{size_bytes} byte{'' if size_bytes == 1 else 's'}"
    size: float = size_bytes
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:,.0f} {unit}"
