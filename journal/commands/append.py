"""`journal append`: append events from lines of JSON."""

import os
import shlex
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

import journal
from journal._signals import INTERRUPTED
from journal.commands.console.arguments import FileType, journal_argument
from journal.commands.console.group import LOSSES, CommandError, os_error_text
from journal.commands.console.incoming import (
    BYTE_ORDER_MARK,
    EncodedError,
    Incoming,
    LineSplitter,
    TooLong,
    open_input,
    refuse_encoded,
)
from journal.commands.console.interrupting import Interruption, pass_interruption
from journal.commands.console.output import counted, one_line, say, size_text
from journal.commands.console.own_files import refuse_own_files
from journal.commands.console.progress import Progress
from journal.commands.console.rejects import MARK_REASON, TOO_LONG_REASON, Rejects, open_rejects
from journal.errors import JournalError, LineRejectedError, UnknownKindError

if TYPE_CHECKING:
    from journal import Journal
    from journal.file import LineAppender
    from journal.store import LinesAppended

_EPILOG = """\b
Example:
  journal append tests.db events.ndjson
  producer | journal append tests.db --on-error skip --rejects rejects.ndjson

\b
Exit codes:
  0    every line is in the journal
  1    failed; standard error says why, and what is in the journal
  2    wrong usage; nothing was done
  3    lines were rejected (--on-error skip), all others are in the journal
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); every complete line read until then
       is in the journal, unless it was interrupted a second time
"""


@click.command(epilog=_EPILOG, short_help="Append events from lines of JSON.")
@journal_argument
@click.argument("file", default="-", type=FileType(allow_dash=True))
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a line that is not an event: stop, with all lines before it appended, or go on.",
)
@click.option(
    "--rejects",
    "rejects_path",
    metavar="FILE",
    type=FileType(),
    help="Add a JSON object to FILE for each rejected line: line_number, reason and line "
    "(line_base64 where it is not UTF-8). What FILE holds already is kept.",
)
@click.option(
    "--unknown",
    type=click.Choice(["reject", "keep"]),
    default="reject",
    show_default=True,
    help="Reject events of kinds that this version does not know, or keep them as they are.",
)
@click.option(
    "--durability",
    type=click.Choice(["full", "normal"]),
    default="full",
    show_default=True,
    help="What is committed survives a power cut, or only a crash of this program (faster).",
)
@pass_interruption
def append(
    interruption: Interruption,
    path: Path,
    file: Path,
    *,
    on_error: Literal["stop", "skip"],
    rejects_path: Path | None,
    unknown: Literal["reject", "keep"],
    durability: Literal["full", "normal"],
) -> None:
    """Append the events in FILE, one JSON object per line, to JOURNAL.

    Without FILE, or with -, they come from standard input. If JOURNAL is not there, the first event
    creates it.
    Lines are committed a thousand at a time, and at the latest a second after they came. Ctrl-C
    commits what has come; pressed again, it ends at once, without what is not committed yet.
    """
    source = str(file)
    refuse_own_files(path, source, rejects_path)
    name = "standard input" if source == "-" else source
    with ExitStack() as stack:
        incoming = Incoming(_opened_input(source, name))  # before anything is created
        stack.callback(incoming.close)
        rejects = None
        if rejects_path is not None:
            rejects = stack.enter_context(open_rejects(rejects_path))
            refuse_own_files(path, "-", rejects_path)  # names may hide it until it is there
        progress = Progress(wanted=not incoming.stream.isatty())
        stack.callback(progress.clear)
        interrupted = stack.enter_context(interruption.asking())
        target = _Target(path, durability, stack)
        taken = Rejects(rejects, progress.say if on_error == "skip" else None)
        appender = journal.Journal.line_appender_to(
            target.opened, on_error=on_error, unknown=unknown, on_reject=taken.take
        )
        run = _Run(appender, incoming, progress)
        with _failing_with_figures(appender, name, _Pipe(source, path)):
            run.append_all(interrupted)
    prefix = "interrupted: " if interrupted.is_set() else ""
    say(one_line(f"{prefix}{run.summary()}; {path.name} {_file_text(path)}"))
    if interrupted.is_set():
        click.get_current_context().exit(INTERRUPTED)
    if appender.result.rejected:
        click.get_current_context().exit(LOSSES)


class _Target:
    """The journal that is appended to. A new one is not made before there is something to append.

    What is there already is opened at once, so that what is no journal is told before any waiting.
    """

    def __init__(self, path: Path, durability: Literal["full", "normal"], stack: ExitStack) -> None:
        self._path = path
        self._durability = durability
        self._stack = stack
        self._opened: Journal | None = None
        if not _can_be_made(path):
            self.opened()

    def opened(self) -> "Journal":
        """Return the journal, opened by the first call and closed with the stack."""
        if self._opened is None:
            opening = journal.Journal.open(self._path, durability=self._durability)
            self._opened = self._stack.enter_context(opening)
        return self._opened


def _can_be_made(path: Path) -> bool:
    """Return whether there is nothing at a path, or nothing in it, and its folder may be written.

    For all else, opening says what is wrong with it.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return not path.is_symlink() and os.access(path.parent, os.W_OK)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and not status.st_size and os.access(path, os.W_OK)


class _Run:
    """One input on its way into a journal."""

    def __init__(self, appender: "LineAppender", incoming: Incoming, progress: Progress) -> None:
        self._appender = appender
        self._incoming = incoming
        self._progress = progress
        self._size_bytes = _size_of(incoming.stream)
        self._lines = LineSplitter()
        self._begun = False
        self._read_bytes = 0
        self._seconds = 0.0

    def append_all(self, interrupted: threading.Event) -> None:
        """Append every line; with `interrupted`, every complete line that was read until then.

        Raises:
            JournalError, OSError: what was read before is appended, if it can be.
        """
        began = time.monotonic()
        try:
            for chunk in self._incoming.chunks(interrupted):
                self._read_bytes += len(chunk)
                self._add(self._lines.feed(chunk))
                self._appender.flush_if_old()
                self._show()
            if self._incoming.ended:
                self._add(self._lines.finish())
        except JournalError:
            raise
        except OSError:
            self._appender.flush()
            raise
        self._appender.flush()
        self._seconds = time.monotonic() - began

    def _add(self, lines: Iterator[bytes | TooLong]) -> None:
        for line in lines:
            text, reason = (
                (line.start, TOO_LONG_REASON) if isinstance(line, TooLong) else (line, None)
            )
            if not self._begun:
                self._begun = True
                refuse_encoded(text)
                if text.startswith(BYTE_ORDER_MARK):
                    reason = reason or MARK_REASON
            if reason is None:
                self._appender.add(text)
            else:
                self._appender.reject(text, reason)

    def _show(self) -> None:
        size = self._size_bytes
        share = None if size is None else min(1.0, self._read_bytes / size)
        self._progress.show(self._appender.result.appended, share)

    def summary(self) -> str:
        """Return what was done, in one sentence."""
        result, seconds = self._appender.result, self._seconds
        text = _appended_text(result)
        if result.rejected:
            text += f", rejected {counted(result.rejected, 'line')},"
        text += f" from {size_text(self._read_bytes)} in {seconds:.1f} s"
        if result.appended and seconds:
            text += f" ({result.appended / seconds:,.0f}/s)"
        if self._lines.held_bytes:
            text += f", leaving out {size_text(self._lines.held_bytes)} of an unfinished line"
        return text


def _appended_text(result: "LinesAppended", which: str = "") -> str:
    """Return how many events were appended and where they are."""
    text = f"appended {counted(result.appended, 'event')}{which}"
    if result.first is None or result.last is None:
        return text
    if result.appended == 1:
        return f"{text} (position {result.first})"
    others = result.last - result.first + 1 > result.appended
    among = ", among those of other writers" if others else ""
    return f"{text} (positions {result.first} to {result.last}{among})"


class _Pipe(NamedTuple):
    """The command to be recommended where something else has to read an input first."""

    source: str
    path: Path

    def through(self, program: str) -> str:
        """Return it, for a shell."""
        name = "" if self.source == "-" else f" {shlex.quote(self.source)}"
        return f"`{program}{name} | journal append {shlex.quote(str(self.path))}`"


@contextmanager
def _failing_with_figures(appender: "LineAppender", name: str, pipe: _Pipe) -> Iterator[None]:
    """Make every failure say what is in the journal nevertheless."""
    try:
        yield
    except EncodedError as error:
        message = f"{name}: {error}; nothing was appended ({pipe.through(error.decoder)} does)"
        raise CommandError(message) from error
    except LineRejectedError as error:
        done = _appended_text(appender.result, " of the lines before it")
        option = "--on-error skip goes on after such a line"
        if isinstance(error.__context__, UnknownKindError):
            option = "--unknown keep appends such events, --on-error skip leaves them out"
        elif error.reason == MARK_REASON:
            option = f"{pipe.through('tail -c +4')} leaves it out"
        message = f"{name}: {error}; {done}, and nothing of it or after it ({option})"
        raise CommandError(message) from error
    except JournalError as error:
        raise CommandError(f"{error}; {_appended_text(appender.result)} before that") from error
    except OSError as error:
        text = os_error_text(error, name)
        raise CommandError(f"{text}; {_appended_text(appender.result)} before that") from error


def _opened_input(file: str, name: str) -> RawIOBase:
    try:
        stream = open_input(file)
    except OSError as error:
        raise CommandError(os_error_text(error, name)) from error
    if stream.isatty():
        say("reading events from the terminal, one per line, until its end of file (Ctrl-D)")
    return stream


def _size_of(stream: RawIOBase) -> int | None:
    """Return the size of a regular file; None of what ends nobody knows when, or is empty."""
    status = os.fstat(stream.fileno())
    return (status.st_size or None) if stat.S_ISREG(status.st_mode) else None


def _file_text(path: Path) -> str:
    """Return how large a journal is, with its -wal if another process has it open."""
    if not path.exists():
        return "was not made"
    files = (path, path.with_name(path.name + "-wal"))
    return f"is {size_text(sum(file.stat().st_size for file in files if file.exists()))}"
