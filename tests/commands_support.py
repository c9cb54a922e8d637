"""Running the `journal` command as users do: as a process of its own."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

from forked import Forked, can_fork

import journal
from journal.commands import cli

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"

MIXED = DATA / "mixed" / "events.ndjson"
NEXT_VERSION = DATA / "next_version.ndjson"

SESSION = "27d6e509-7176-4298-b638-040339ee3651"
STREAM = "887bb866-43dd-4c89-beb0-c7a8aa63fb01"

_STARTED: list[tuple[subprocess.Popen[bytes], threading.Timer]] = []


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: str


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("_JOURNAL")}
    ours = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": ""}
    return {**kept, **ours, **variables}


def start(
    *arguments: Any,
    program: Sequence[str] = ("-m", "journal"),
    is_loaded: bool = True,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start `journal` with pipes on all three sides.

    Args:
        arguments: of the command.
        program: for Python.
        is_loaded: it need not load the package, where that can be had.
        options: of `subprocess.Popen`.
    """
    pipe = subprocess.PIPE
    options = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "env": environment(), **options}
    texts = list(map(str, arguments))
    process: Any
    if is_loaded and can_fork(program, options["env"], environment()):
        process = Forked(program, texts, usual=environment(), **options)
    else:
        process = subprocess.Popen([sys.executable, *program, *texts], **options)
    watchdog = threading.Timer(100, process.kill)  # so that a test fails rather than waits for ever
    watchdog.start()
    _STARTED.append((process, watchdog))
    return process


_UP = """
import sys
from journal import __main__
def handle(handler, handle=__main__.handle):
    handle(handler)
    if handler is __main__.end_at_once:
        print("up", file=sys.stderr, flush=True)
__main__.handle = handle
__main__.main()
"""


_PROGRESS = """
from journal.__main__ import main
from journal.commands.console import progress
progress._SECONDS_BEFORE = progress._INTERVAL_SECONDS = float("{}")
main()
"""

EAGER = ("-c", _PROGRESS.format(0))
"""A `program` that shows its progress from the first moment on."""

CALM = ("-c", _PROGRESS.format("inf"))
"""A `program` that shows none, however busy the machine is."""


def started(*arguments: Any, is_loaded: bool = False, **options: Any) -> subprocess.Popen[bytes]:
    """Start `journal`, and return when it is ready for signals: it loads the commands then."""
    process = start(*arguments, **options, program=["-c", _UP], is_loaded=is_loaded, bufsize=0)
    assert process.stderr is not None
    assert process.stderr.readline() == b"up\n"
    return process


def end_all() -> None:
    """End what a test has left running."""
    while _STARTED:
        process, watchdog = _STARTED.pop()
        watchdog.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):  # what was not written yet
                    pipe.close()


def ended(process: subprocess.Popen[bytes], given: bytes | None = None) -> Ended:
    """Wait for the end of a process; there must never be a traceback."""
    try:
        out, err = process.communicate(given, timeout=60)
    finally:
        process.kill()
    text = (err or b"").decode()
    assert "Traceback" not in text, text
    assert "Exception ignored" not in text, text
    return Ended(process.returncode, out or b"", text)


def all_of(terminal: int) -> bytes:
    """Return what is written to a terminal until its other side is closed; close it, too."""
    seen = b""
    try:
        while chunk := os.read(terminal, 65_536):
            seen += chunk
    except OSError:
        pass  # Linux says so when the other side is closed
    finally:
        os.close(terminal)
    return seen


def run(*arguments: Any, given: bytes | None = None, **options: Any) -> Ended:
    """Run `journal`, with `given` as its standard input."""
    return ended(start(*arguments, **options), given)


def run_all(*commands: list[Any], **options: Any) -> list[Ended]:
    """Run several at the same time."""
    processes = [start(*command, **options) for command in commands]
    return [ended(process) for process in processes]


def run_here(*arguments: Any) -> Ended:
    """Run `journal` in this process, which takes a third of a second less."""
    out, err = TextIOWrapper(BytesIO(), encoding="ascii"), StringIO()
    code: Any = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main([str(argument) for argument in arguments], prog_name="journal")
        except SystemExit as ending:
            code = ending.code
    out.flush()
    assert "Traceback" not in err.getvalue()
    return Ended(code, out.buffer.getvalue(), err.getvalue())


def activated(second: int, session: str = SESSION) -> bytes:
    """Return a canonical line that tells by its timestamp which one it is."""
    return (
        f'{{"event_type":"session_activated","session_id":"{session}",'
        f'"timestamp":"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"}}\n'
    ).encode()


THOUSAND = b"".join(map(activated, range(1_000)))
"""As many lines as are committed at once."""


def make(path: Path, *lines: bytes, label: str | None = None) -> Path:
    """Make a journal without a process."""
    with journal.Journal.open(path, label=label) as opened:
        opened.append_ndjson(lines)
    return path


def start_append(path: Path, *options: Any) -> subprocess.Popen[bytes]:
    """Start to append, and return when a thousand events are committed."""
    process = start("append", path, *options)
    give(process, THOUSAND)
    until(holds(path, 1_000))
    return process


def give(process: subprocess.Popen[bytes], lines: bytes) -> None:
    """Write to the standard input of a process, which goes on waiting for more."""
    assert process.stdin is not None
    process.stdin.write(lines)
    process.stdin.flush()


def stored(path: Path) -> bytes:
    """Return what a journal holds, as lines."""
    with journal.Journal.open(path, read_only=True) as opened:
        return b"".join(f"{text}\n".encode() for _, text in opened.lines())


def taken(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """Return a condition: the process has read all that it was given.

    What it has read before the latest piece is then in the hands of its main thread, too. Where
    the system does not tell (Linux does), it is true at once.
    """
    import fcntl  # noqa: PLC0415 (Windows has none)
    import termios  # noqa: PLC0415

    assert process.stdin is not None
    pipe = process.stdin.fileno()
    return lambda: not any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))


def until(condition: Callable[[], bool], seconds: float = 60.0, pause: float = 0.01) -> None:
    """Wait for a condition; so long only where it will not come true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(pause)


def holds(path: Path, at_least: int) -> Callable[[], bool]:
    """Return a condition: the journal is there and has so many events."""

    def condition() -> bool:
        try:
            with journal.Journal.open(path, read_only=True) as opened:
                return opened.event_count() >= at_least
        except journal.JournalError:
            return False

    return condition
