"""`journal append`: append events from lines of JSON."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

import journal
from journal.commands.console.arguments import FileType, journal_argument
from journal.commands.console.group import INTERRUPTED, LOSSES, CommandError, os_error_text
from journal.commands.console.incoming import Incoming, LineSplitter, TooLong, open_input
from journal.commands.console.interrupting import Interruption
from journal.commands.console.output import counted, one_line, say, size_text
from journal.commands.console.progress import Progress
from journal.commands.console.rejects import TOO_LONG_REASON, Rejects, open_rejects
from journal.errors import JournalError, LineRejectedError, UnknownKindError

if TYPE_CHECKING:
    from journal.file import LineAppender
    from journal.store import LinesAppended

_PROGRESS_BYTES_MIN = 10_000_000

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
  130  interrupted (Ctrl-C or SIGTERM); every complete line read until then is in
       the journal, unless it was interrupted a second time
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
def append(
    path: Path,
    file: Path,
    *,
    on_error: Literal["stop", "skip"],
    rejects_path: Path | None,
    unknown: Literal["reject", "keep"],
    durability: Literal["full", "normal"],
) -> None:
    """Append the events in FILE, one JSON object per line, to JOURNAL.

    Without FILE, or with -, they come from standard input. JOURNAL is created if it is not there.
    Lines are committed a thousand at a time, and at the latest a second after they came. Ctrl-C
    commits what has come; pressed again, it ends at once, without what is not committed yet.
    """
    source = str(file)
    _refuse_same_file(path, source, rejects_path)
    name = "standard input" if source == "-" else source
    with ExitStack() as stack:
        incoming = Incoming(_opened_input(source, name))  # before anything is created
        stack.callback(incoming.close)
        rejects = None if rejects_path is None else stack.enter_context(open_rejects(rejects_path))
        progress = Progress(_size_worth_showing(incoming.stream))
        stack.callback(progress.clear)
        interruption = stack.enter_context(Interruption())
        opened = stack.enter_context(journal.Journal.open(path, durability=durability))
        taken = Rejects(rejects, progress.say if on_error == "skip" else None)
        appender = opened.line_appender(on_error=on_error, unknown=unknown, on_reject=taken.take)
        run = _Run(appender, incoming, progress)
        with _failing_with_figures(appender, name):
            run.append_all(interruption.requested)
    interrupted = interruption.requested.is_set()
    prefix = "interrupted: " if interrupted else ""
    say(one_line(f"{prefix}{run.summary()}; {path.name} is {size_text(_file_bytes(path))}"))
    if interrupted:
        click.get_current_context().exit(INTERRUPTED)
    if appender.result.rejected:
        click.get_current_context().exit(LOSSES)


class _Run:
    """One input on its way into a journal."""

    def __init__(self, appender: "LineAppender", incoming: Incoming, progress: Progress) -> None:
        self._appender = appender
        self._incoming = incoming
        self._progress = progress
        self._lines = LineSplitter()
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
            if isinstance(line, TooLong):
                self._appender.reject(line.start, TOO_LONG_REASON)
            else:
                self._appender.add(line)

    def _show(self) -> None:
        self._progress.show(self._read_bytes, counted(self._appender.result.appended, "event"))

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


@contextmanager
def _failing_with_figures(appender: "LineAppender", name: str) -> Iterator[None]:
    """Make every failure say what is in the journal nevertheless."""
    try:
        yield
    except LineRejectedError as error:
        done = _appended_text(appender.result, " of the lines before it")
        option = "--on-error skip goes on after such a line"
        if isinstance(error.__context__, UnknownKindError):
            option = "--unknown keep appends such events, --on-error skip leaves them out"
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


def _refuse_same_file(path: Path, file: str, rejects_path: Path | None) -> None:
    """Refuse to read or to write as text what SQLite has open: it would damage the journal."""
    companions = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    if file != "-" and _is_among(Path(file), companions):
        raise click.UsageError(f"{file} is the journal itself, it cannot be FILE, too")
    if rejects_path is None:
        return
    if _is_among(rejects_path, companions):
        raise click.UsageError(f"{rejects_path} belongs to the journal, it cannot take --rejects")
    if file != "-" and _is_among(rejects_path, [Path(file)]):
        raise click.UsageError(f"{rejects_path} is what is read, it cannot take --rejects")


def _is_among(path: Path, others: list[Path]) -> bool:
    with suppress(OSError):
        if any(other.exists() and path.exists() and path.samefile(other) for other in others):
            return True
    return path.absolute() in [other.absolute() for other in others]


def _size_worth_showing(stream: RawIOBase) -> int | None:
    """Return the size of a regular file that takes long enough to be watched."""
    status = os.fstat(stream.fileno())
    large = stat.S_ISREG(status.st_mode) and status.st_size >= _PROGRESS_BYTES_MIN
    return status.st_size if large else None


def _file_bytes(path: Path) -> int:
    """Return the size of a journal, with its -wal if another process has it open."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
