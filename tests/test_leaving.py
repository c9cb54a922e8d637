"""Leaving a process without closing the journal: what was acknowledged is there, and it opens."""

import os
import signal
import sqlite3
import subprocess
from itertools import islice
from pathlib import Path

import commands_support
import pytest

import journal

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

# Every number that is written to standard output is that of an event whose append has returned.
PRELUDE = """
import atexit, gc, os, signal, sys, threading, time, warnings, weakref
from datetime import timedelta
from itertools import count
import journal

warnings.simplefilter("default")
START = journal.Timestamp.parse("2026-01-01T00:00:00Z")
SESSION = journal.SessionId.parse("27d6e509-7176-4298-b638-040339ee3651")
numbers = count(1)
lock = threading.Lock()

def append(times=1, opened=None):
    for _ in range(times):
        with lock:
            number = next(numbers)
            event = journal.SessionActivated(
                session_id=SESSION, timestamp=START + timedelta(seconds=number)
            )
            (opened or kept).append_events([event])
            os.write(1, b"%d\\n" % number)

def in_thread(work, **options):
    thread = threading.Thread(target=work, **options)
    thread.start()
    return thread

path = sys.argv[1]
"""

OPENED = "kept = journal.Journal.open(path)\nappend(30)\n"

FOR_EVER = "while True: append()"

WAYS = {
    "falls off the end": (OPENED, 0),
    "os._exit": (OPENED + "os._exit(5)", 5),
    "os._exit in a thread": (OPENED + "in_thread(lambda: (append(), os._exit(5))).join()", 5),
    "os.abort": (OPENED + "os.abort()", None),
    "sys.exit": (OPENED + "sys.exit(5)", 5),
    "sys.exit within a with block of another journal": (
        OPENED + "with journal.Journal.open(path) as other:\n    append(3, other)\n    sys.exit(5)",
        5,
    ),
    "an exception that nobody handles": (OPENED + "raise ValueError", 1),
    "an exception in the middle of an append": (
        OPENED + "def events():\n    raise ValueError\n    yield\nkept.append_events(events())",
        1,
    ),
    "an exception in a thread": (OPENED + "in_thread(lambda: (append(3), 1 / 0)).join()", 0),
    "atexit, registered before the journal was opened": (
        "atexit.register(append, 3)\n" + OPENED,
        0,
    ),
    "atexit, registered after the journal was opened": (
        OPENED + "atexit.register(append, 3)\natexit.register(os._exit, 5)\n",
        5,
    ),
    "threads that go on for a while": (
        OPENED + "for _ in range(3): in_thread(lambda: (time.sleep(0.1), append(20)))",
        0,
    ),
    "daemon threads that go on for ever": (
        OPENED + f"def work():\n    {FOR_EVER}\n"
        "for _ in range(3): in_thread(work, daemon=True)\ntime.sleep(0.2)",
        0,
    ),
    "collected as garbage, one after the other": (
        "for _ in range(4):\n    kept = journal.Journal.open(path)\n    append(10)\n    del kept",
        0,
    ),
    "collected as garbage, in a cycle": (
        OPENED + "kept.itself = kept\ngone = weakref.ref(kept)\ndel kept\ngc.collect()\n"
        "assert gone() is None\nkept = journal.Journal.open(path)\nappend(5)",
        0,
    ),
    "collected as garbage, by a thread that did not open it": (
        OPENED + "held = [kept]\ndel kept\nin_thread(held.clear).join()\n"
        "kept = journal.Journal.open(path)\nappend(5)",
        0,
    ),
    "an iterator that is open": (OPENED + "lines = kept.lines()\nnext(lines)\nappend(3)", 0),
    "an iterator that outlives its journal": (
        OPENED + "events = kept.read()\nnext(events)\ndel kept\ngc.collect()\nsys.exit(5)",
        5,
    ),
    "an iterator in a module that is torn down": (
        OPENED
        + "journal.held = kept.read()\nnext(journal.held)\nsys.modules[__name__].kept = None",
        0,
    ),
    "another program in its place": (
        OPENED + "os.execv(sys.executable, [sys.executable, '-c', ''])",
        None,
    ),
}


def acknowledged(process: subprocess.Popen[bytes]) -> list[int]:
    """Return what a process has told until its end, or as much as ends in a line end."""
    assert process.stdout is not None
    return [int(line) for line in process.stdout if line.endswith(b"\n")]


def start(code: str, path: Path) -> subprocess.Popen[bytes]:
    return commands_support.start(path, program=["-c", PRELUDE + code], stdin=subprocess.DEVNULL)


def check(path: Path, told: list[int], at_most: int) -> None:
    """Check that a file has what was acknowledged, and nothing but that and what was under way."""
    with journal.Journal.open(path, read_only=True) as opened:  # before anything is mended
        seen = [recorded.event for recorded in opened.read()]
    reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    reader.close()
    start_ns = journal.Timestamp.parse("2026-01-01T00:00:00Z").epoch_ns
    numbers = [(event.timestamp.epoch_ns - start_ns) // 1_000_000_000 for event in seen]
    assert told == list(range(1, len(told) + 1))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(told) <= len(numbers) <= len(told) + at_most

    with journal.Journal.open(path) as opened:
        assert [recorded.event for recorded in opened.read()] == seen
        assert opened.append_events(seen[:1]).last == len(seen) + 1
        assert opened.version(seen[0].session_id) == len(seen) + 1
        assert sum(session.event_count for session in opened.sessions()) == len(seen) + 1
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("code", "expected"), WAYS.values(), ids=WAYS.keys())
def test_what_was_acknowledged_is_there_however_a_process_leaves(tmp_path, code, expected):
    process = start(code, tmp_path / "tests.db")
    told, error = acknowledged(process), process.stderr.read().decode()
    process.wait()

    if expected is not None:
        assert process.returncode == expected, error
    assert len(told) >= 30, error
    check(tmp_path / "tests.db", told, at_most=1 if "daemon" in code else 0)


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL", "SIGHUP", "SIGABRT", "SIGPIPE"])
def test_what_was_acknowledged_is_there_after_a_signal(tmp_path, name):
    before = "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
    process = start(before + OPENED + FOR_EVER, tmp_path / "tests.db")
    told = [int(line) for line in islice(process.stdout, 40)]
    process.send_signal(getattr(signal, name))
    told += acknowledged(process)
    process.wait()

    assert process.returncode == -getattr(signal, name)
    check(tmp_path / "tests.db", told, at_most=1)
