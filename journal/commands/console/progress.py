"""A line on a terminal that says how far a long job has come."""

import sys
import time
from typing import Final

from journal.commands.console.output import say, size_text

_INTERVAL_SECONDS: Final = 0.2


class Progress:
    """Shows how many bytes of a known total are done, if standard error is a terminal.

    Whatever else is said meanwhile goes through `say`, which takes the line away first.
    """

    def __init__(self, total_bytes: int | None) -> None:
        visible = sys.stderr is not None and sys.stderr.isatty()
        self._total_bytes = total_bytes if visible else None
        self._shown_at = 0.0
        self._width = 0

    def show(self, done_bytes: int, rest: str) -> None:
        """Show the figures, and some words after them; no more than five times a second."""
        if not self._total_bytes or time.monotonic() - self._shown_at < _INTERVAL_SECONDS:
            return
        self._shown_at = time.monotonic()
        percent = min(100, 100 * done_bytes // self._total_bytes)
        bar = "#" * (percent // 5)
        text = f"[{bar:<20}] {percent} % of {size_text(self._total_bytes)}, {rest}"
        self._draw(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._width:
            self._write(f"\r{'':<{self._width}}\r")
            self._width = 0

    def say(self, text: str) -> None:
        """Say a line, in the place of this one, which comes back below."""
        self.clear()
        say(text)

    def _draw(self, text: str) -> None:
        before, self._width = self._width, max(self._width, len(text))  # it may be interrupted
        self._write(f"\r{text:<{before}}")
        self._width = len(text)

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._total_bytes = None
