"""A line on a terminal that says how far long work has come, how fast it is, and when it ends."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import click

from journal._signals import INTERRUPTED
from journal.commands.console.output import Output, counted, one_line, say
from journal.commands.console.times import duration_text
from journal.commands.console.widths import shortened
from journal.errors import JournalError

if TYPE_CHECKING:
    from journal import Journal

_SECONDS_BEFORE: Final = 1.0  # nobody asks before
_INTERVAL_SECONDS: Final = 0.2
_ITEMS_PER_LOOK: Final = 1_000
_S: Final = 1_000_000_000

_Item = TypeVar("_Item")


class Progress:
    """Shows how many events are done, if standard error is a terminal, and from a second on.

    Whatever else is said meanwhile goes through `say`, which takes the line away first.

    Args:
        wanted: False: it is never shown.
        what: what is counted.
    """

    def __init__(self, *, wanted: bool = True, what: str = "event") -> None:
        self._what = what
        self._visible = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._shown_at = 0.0
        self._width = 0
        self.begin()

    def begin(self) -> None:
        """Count the time from now on."""
        self._began = time.monotonic()

    def show(self, events: int, share: float | None) -> None:
        """Show the figures; no more than five times a second.

        Args:
            events: how many were done since it began.
            share: how much of the work that was then is done, from 0.0 to 1.0; None: nobody knows.
        """
        now = time.monotonic()
        seconds = now - self._began
        early = seconds < _SECONDS_BEFORE or now - self._shown_at < _INTERVAL_SECONDS
        if not self._visible or early:
            return
        self._shown_at = now
        rate = events / max(seconds, 0.001)
        text = f"{counted(events, self._what)}, {rate:,.0f} {self._what}s/s"
        if share is not None:
            text = f"[{'#' * int(20 * share):<20}] {100 * share:.0f} %, {text}"
            if share > 0:
                left = max(1, round(seconds * (1 - share) / share))
                text += f", {duration_text(left * _S).replace('.0', '')} left"
        self._draw(shortened(text, shutil.get_terminal_size().columns - 1))

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
            self._visible = False


class CountProgress(Progress):
    """Shows how far folding, counting or looking for something has come."""

    def __init__(self, *, what: str = "event") -> None:
        super().__init__(what=what)
        self.complete = False
        self._first: int | None = None

    def take(self, position: int, last: int) -> None:
        """Show the figures, counted from the first call on; take them away when all is done."""
        self.complete = position >= last
        if self.complete:
            self.clear()
            self._first = None
            return
        if self._first is None:
            self._first = position
            self.begin()
        self.show(position - self._first, (position - self._first) / (last - self._first))

    def begin_again(self) -> None:
        """Take the figures away, and count from the next call on."""
        self.clear()
        self._first = None


class LookingProgress(CountProgress):
    """Shows how far it has come; where what is found goes to a terminal, while nothing is found.

    Args:
        opened: the journal that is looked through.
        output: where it is written what is found.
        what: what is looked at.
        limit: how many are wanted at most; None: all.
    """

    def __init__(
        self, opened: "Journal", output: Output, *, what: str = "event", limit: int | None = None
    ) -> None:
        super().__init__(what=what)
        self._output, self._is_beside = output, output.is_terminal
        self._limit, self._found = limit, 0
        if self._visible:
            opened.report_looking(self.take)

    def take(self, position: int, last: int) -> None:
        """Show the figures below what was found before."""
        self._output.flush()
        if self._output.has_waited:
            self.clear()
            return
        if self._limit and self._found:  # it may end long before the last one is looked at
            last = min(last, position * self._limit // self._found)
        super().take(position, last)

    def stopping(self, found: Iterable[_Item]) -> Iterator[_Item]:
        """Yield what is found, and take the figures away each time where it stands beside them."""
        try:
            for one in found:
                self._found += 1
                if self._is_beside:
                    self.begin_again()
                yield one
        finally:
            self.clear()


def writing_shown(
    output: Output, items: Iterable[_Item], expected: int, what: str = "event"
) -> Iterator[_Item]:
    """Yield items, and show how many were written, where that does not go to a terminal itself.

    Args:
        output: where they are written.
        items: those that are.
        expected: about how many there are.
        what: what they are.
    """
    progress = Progress(wanted=not output.is_terminal, what=what)
    try:
        for count, item in enumerate(items, 1):
            yield item
            if count % _ITEMS_PER_LOOK == 0 and not output.has_waited:
                progress.show(count, min(1.0, count / max(1, expected)))
    finally:
        progress.clear()


@contextmanager
def working(progress: Progress) -> Iterator[None]:
    """In this block, a value that cannot be is wrong usage; after it, take the figures away.

    Raises:
        UsageError: a `ValueError` came out of the block, and none of the journal's own errors.
    """
    try:
        yield
    except JournalError:  # some are ValueErrors, too
        raise
    except ValueError as error:
        raise click.UsageError(one_line(str(error))) from error
    finally:
        progress.clear()


@contextmanager
def interruptible(progress: Progress, told: Callable[[], str]) -> Iterator[None]:
    """In this block, an interrupt ends the command with a line that says what holds then.

    After it, take the figures away.
    """
    try:
        yield
    except KeyboardInterrupt:
        progress.clear()
        say(f"interrupted: {told()}")
        click.get_current_context().exit(INTERRUPTED)
    finally:
        progress.clear()


@contextmanager
def making(progress: CountProgress) -> Iterator[None]:
    """Do the same where a file is made that gets its name when it is complete."""

    def told() -> str:
        at_the_end = "it was at its end, so the new file is there, complete, or no file was made"
        return at_the_end if progress.complete else "no file was made"

    with interruptible(progress, told):
        yield


@contextmanager
def folding_shown(opened: "Journal") -> Iterator[None]:
    """In this block, show what a journal folds before it can answer."""
    progress = CountProgress()
    opened.report_folding(progress.take)
    try:
        yield
    finally:
        progress.clear()
