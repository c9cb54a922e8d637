"""Ctrl-C, SIGTERM and SIGHUP, whatever the command is at: exit code 130, and no word too many."""

import json
import os
import random
import re
import signal
import sqlite3
import sys
import time

import pytest
from commands_support import (
    MIXED,
    SESSION,
    STREAM,
    THOUSAND,
    activated,
    ended,
    give,
    holds,
    make,
    run,
    start,
    start_append,
    started,
    stored,
    taken,
    until,
)
from support import SEEDS, check_file, names_in

import journal
from journal import limits

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")

NAMES = ["SIGINT", "SIGTERM", "SIGHUP"]

APPENDED_NOTHING = "interrupted: appended no events from 0 bytes"
GOES_ON = "interrupted: what was added stays, and the same command goes on\n"
NOTHING_MADE = "interrupted: no file was made\n"
NOTHING_PRUNED = "interrupted: no events pruned, the rest is left\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tests.db"


@pytest.fixture
def full_pipe():
    """A pipe that takes no more, so that a command cannot end before it is interrupted."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, bytes(4096))
    except BlockingIOError:
        os.set_blocking(write_end, True)
    yield write_end
    os.close(read_end)
    os.close(write_end)


def printing(path):
    """Return each command that prints something."""
    return [
        ["append", path],
        ["events", path],
        ["events", path, "--follow"],
        ["info", path],
        ["label", path],
        ["sessions", path],
        ["streams", path, "--json"],
        ["session", path, SESSION],
        ["anomalies", path, "--json"],
        ["projections", path],
        ["verify", path],
        ["verify", path, "--full", "--json"],
        ["ship", path, path.with_name("copy.db"), "--force"],
        ["continue", path.with_name("shipped.db"), path.with_name("new.db"), "--force"],
        ["merge", path.with_name("fleet.db"), path.with_name("shipped.db")],
        ["origins", path],
        ["ship", path, path.with_name("delta.db"), "--after", 1, "--force"],
    ]


def ship(path):
    with journal.Journal.open(path, read_only=True) as opened:
        opened.ship(path.with_name("shipped.db"))


def test_every_command_ends_with_130_whenever_the_signal_comes(path, full_pipe):
    """While it is loaded, and while it waits for somebody to read what it prints."""
    orphan = activated(1).replace(b"session_activated", b"stream_started")
    orphan = orphan.replace(b',"timestamp"', f',"stream_id":"{STREAM}","timestamp"'.encode())
    make(path, *MIXED.read_bytes().splitlines()[:100], orphan, label="a name")
    ship(path)
    processes = []
    for place, arguments in enumerate(printing(path)):
        loading = started(*arguments, stdout=full_pipe)
        loading.send_signal(getattr(signal, NAMES[place % 3]))
        processes.append(loading)
    waiting = [started(*it, stdout=full_pipe, is_loaded=True) for it in printing(path)]
    time.sleep(0.3)
    for place, process in enumerate(waiting, 1):
        process.send_signal(getattr(signal, NAMES[place % 3]))
    for process in processes + waiting:
        result = ended(process)
        assert result.code == 130, (process.args[3:], result)
        said = result.err.removeprefix(APPENDED_NOTHING)
        assert re.fullmatch("( in .*\n|interrupted: .*\n)?", said), (process.args[3:], result)


AT_WORK = """
import os, signal
from journal import limits
from journal.commands.console.progress import Progress
from journal.projections import rebuilding
limits.FOLD_EVENTS_MAX = rebuilding._EVENTS_AT_ONCE = 10
def show(self, events, share):
    os.kill(os.getpid(), signal.SIGINT)
Progress.show = show
"""


def test_what_takes_long_says_in_one_line_what_holds_when_it_is_interrupted(tmp_path, path):
    make(path, *MIXED.read_bytes().splitlines()[:100])
    ship(path)
    shipped = tmp_path / "shipped.db"
    unsaid = "interrupted: no findings until then, and not all was looked at\n"
    said = {
        ("ship", path, tmp_path / "copy.db"): NOTHING_MADE,
        ("ship", path, tmp_path / "delta.db", "--after", 40, "--standalone"): NOTHING_MADE,
        ("continue", shipped, tmp_path / "new.db"): NOTHING_MADE,
        ("recover", path, "-o", tmp_path / "recovered.db"): NOTHING_MADE,
        ("verify", path, "--full"): unsaid,
        ("rebuild", path): "interrupted: the old rows stay\n",
        ("rebuild", path, "--check"): "interrupted: the old rows stay\n",
        ("prune", path, "--before", 200, "--dry-run"): "interrupted: nothing was changed\n",
    }
    before = names_in(tmp_path), stored(path)
    for command, line in said.items():
        assert scripted(AT_WORK, *command) == (130, b"", line), command
        assert (names_in(tmp_path), stored(path)) == before, command
    for rewrite in ((), ("--rewrite",)):
        command = ["merge", tmp_path / "fleet.db", shipped, *rewrite]
        assert scripted(AT_WORK, *command) == (130, b"", GOES_ON)
    for command in said:
        assert run(*command).code == 0, command


def test_an_interrupt_while_a_file_gets_its_name_does_not_say_that_there_is_none(tmp_path, path):
    make(path, activated(1))
    ship(path)
    code = """
import os, signal
from journal.maintenance import targets
def sync(folder):
    os.kill(os.getpid(), signal.SIGINT)
targets._sync_folder = sync
"""
    line = "interrupted: it was at its end, so the new file is there, complete, or no file was made"
    shipped = tmp_path / "shipped.db"
    for command in (
        ["ship", path, tmp_path / "copy.db"],
        ["continue", shipped, tmp_path / "new.db"],
        ["recover", path, "-o", tmp_path / "recovered.db"],
    ):
        assert scripted(code, *command) == (130, b"", f"{line}\n")
    for name in ("copy.db", "new.db", "recovered.db"):
        assert stored(tmp_path / name) == activated(1)


@pytest.mark.parametrize("name", NAMES)
def test_what_waits_for_a_lock_ends_too(path, name):
    make(path, activated(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    commands = ["label", path, "a name"], ["rebuild", path], ["prune", path, "--before", 9]
    for delay in (0, 0.3):
        processes = [started(*arguments, is_loaded=True) for arguments in commands]
        time.sleep(delay)
        for process in processes:
            process.send_signal(getattr(signal, name))
        for process in processes:
            result = ended(process)
            assert result[:2] == (130, b"")
            assert result.err in ("", "interrupted: the old rows stay\n", NOTHING_PRUNED)
    other.close()
    assert stored(path) == activated(1)


@pytest.mark.parametrize("name", NAMES)
def test_following_ends_quietly(path, name):
    make(path, activated(1))
    process = start("events", path, "--follow")
    assert process.stdout.readline() == activated(1)
    process.send_signal(getattr(signal, name))

    assert ended(process) == (130, b"", "")


@pytest.mark.parametrize("name", NAMES)
def test_the_complete_lines_that_were_read_are_committed(path, name):
    process = start_append(path)
    for some in (activated(2) + activated(3), activated(4)[:20], activated(4)[20:21]):
        give(process, some)
        until(taken(process))  # and what was taken before is in good hands
    process.send_signal(getattr(signal, name))
    process.wait(timeout=60)  # while the pipe is still open
    result = ended(process)

    assert result.code == 130
    assert result.err.startswith("interrupted: appended 1,002 events (positions 1 to 1002) from ")
    assert " leaving out 2" in result.err
    assert stored(path) == THOUSAND + activated(2) + activated(3)


@pytest.mark.parametrize("names", [["SIGINT"], ["SIGTERM", "SIGHUP"], ["SIGINT", "SIGTERM"]])
def test_one_signal_or_two_in_one_go_leave_time_to_commit(path, names):
    process = start_append(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for some in (THOUSAND, b"\n", b"\n"):  # it waits for the lock with the first of them
        give(process, some)
        until(taken(process))
    for name in names:
        process.send_signal(getattr(signal, name))
    time.sleep(0.3)  # for a process that would end at once
    assert process.poll() is None
    other.execute("ROLLBACK")
    other.close()

    assert ended(process).code == 130
    assert stored(path) == THOUSAND + THOUSAND


def test_one_who_insists_does_not_wait(path):
    process = start_append(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    give(process, THOUSAND + b"\n")
    until(taken(process))

    def insisted():
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    until(insisted, pause=0.2)
    assert ended(process) == (130, b"", "")
    other.close()
    assert stored(path) == THOUSAND


TERMINAL_OF_ITS_OWN = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from journal.__main__ import main
main()
"""


def test_a_terminal_that_is_closed_interrupts_reading_from_it(path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start(
        *("append", path),
        program=["-c", TERMINAL_OF_ITS_OWN],
        stdin=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, activated(1))
    until(holds(path, 1))
    os.close(ours)
    result = ended(process)

    assert result.code == 130
    assert "\ninterrupted: appended 1 event (position 1) from " in result.err
    assert stored(path) == activated(1)


def test_what_the_parent_has_it_ignore_stays_ignored(path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    process = start_append(path)
    process.send_signal(signal.SIGHUP)
    result = ended(process, activated(2))

    assert result.code == 0
    assert stored(path) == THOUSAND + activated(2)


def scripted(code, *arguments, **options):
    """Run the command in a process that a script prepares."""
    program = ["-c", f"{code}\nfrom journal.__main__ import main\nmain()"]
    return ended(start(*arguments, program=program, **options))


def test_nothing_is_written_after_a_signal_to_one_who_does_not_read(path, full_pipe):
    make(path, activated(1))
    code = """
import signal
from journal.commands.console.output import Output
def line(self, text):
    self._flush_at = float("inf")  # hold it back, as all lines but the first
    write(self, text)
    signal.raise_signal(signal.SIGTERM)
write, Output.line = Output.line, line
"""
    assert scripted(code, "events", path, stdout=full_pipe) == (130, b"", "")


def test_ctrl_break_of_windows_is_one_of_them(path):
    """Another signal stands in for it, so that it can be had here."""
    make(path, activated(1))
    code = """
import os, signal
signal.SIGBREAK = signal.SIGUSR1
import journal
journal.Journal.last_position = property(lambda _: os.kill(os.getpid(), signal.SIGUSR1))
"""
    result = scripted(code, "events", path, "--follow", is_loaded=False)
    assert result == (130, b"", "")


def test_a_signal_is_not_lost_where_python_would_print_it_and_go_on(path):
    """Such as in what is called when an object goes away."""
    make(path, activated(1))
    code = """
import signal, time, weakref
import journal
def last_position(opened):
    class Thing: pass
    thing = Thing()
    seen = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    time.sleep(300)  # far longer than a test waits
journal.Journal.last_position = property(last_position)
"""
    assert scripted(code, "events", path, "--follow") == (130, b"", "")


def test_a_failure_to_close_after_a_signal_is_no_failure(path):
    """As where the terminal has gone: it can be written no more."""
    make(path, activated(1))
    code = """
import errno, signal
import journal
def close(self):
    raise OSError(errno.EIO, "no terminal")
def last_position(self):
    signal.raise_signal(signal.SIGHUP)
journal.Journal.close = close
journal.Journal.last_position = property(last_position)
"""
    assert scripted(code, "events", path, "--follow") == (130, b"", "")


IN_THE_MIDDLE = """
import os, signal
from journal import limits
from journal.maintenance import placement
from journal.maintenance.{module} import {name} as Worker
limits.BLOCK_EVENTS_MAX, placement._EVENTS_AT_ONCE = 10, 15
work = Worker.{method}
def working(self, *arguments):
    working.left -= 1
    if working.left == 0:
        os.kill(os.getpid(), signal.{signal})
    return work(self, *arguments)
working.left = {piece}
Worker.{method} = working
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_merge_that_is_interrupted_goes_on_with_the_same_command(
    tmp_path, path, monkeypatch, name
):
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
    make(path, *MIXED.read_bytes().splitlines()[:100])
    fleet = tmp_path / "fleet.db"
    where = {"module": "placing", "name": "Placer", "method": "place", "piece": 6}
    code = IN_THE_MIDDLE.format(signal=name, **where)
    command = ["merge", fleet, path]

    assert scripted(code, *command) == (130, b"", GOES_ON)
    assert journal.verify(fleet, full=True).sound
    some = stored(fleet)
    assert (stored(path).startswith(some), some.count(b"\n")) == (True, 40)
    result = ended(start(*command))
    assert (result.code, result.err) == (0, "")
    assert stored(fleet) == stored(path)
    assert journal.verify(fleet, full=True).sound


@pytest.mark.parametrize("name", NAMES)
def test_a_delta_that_is_interrupted_is_made_by_the_same_command(tmp_path, path, name):
    make(path, *MIXED.read_bytes().splitlines()[:100])
    command = ["ship", path, tmp_path / "delta.db", "--after", 40]
    before = names_in(tmp_path)
    where = {"module": "delta", "name": "_Delta", "method": "_copy", "piece": 2}
    code = IN_THE_MIDDLE.format(signal=name, **where)

    assert scripted(code, *command) == (130, b"", NOTHING_MADE)
    assert names_in(tmp_path) == before
    result = ended(start(*command))
    assert (result.code, result.err) == (0, "")
    with journal.Journal.open(tmp_path / "delta.db", read_only=True) as opened:
        assert opened.last_position == 100
    assert journal.verify(tmp_path / "delta.db", full=True).sound


STEP_BY_STEP = """
import atexit, importlib, json, os, signal, sys
import click.core
import journal, journal.commands
from journal import Journal, __main__, _signals
from journal.commands.console import group, interrupting

ours = {module.__file__ for module in (__main__, _signals, group, interrupting)}
seen = set()
at = 0


def watch(frame, event, argument):
    if frame.f_code.co_filename not in {*ours, click.core.__file__}:
        return None
    frame.f_trace_opcodes = frame.f_code.co_filename in ours
    if event in ("line", "opcode") and signal.getsignal(signal.SIGINT) is not before:
        seen.add((frame.f_code, frame.f_lasti if event == "opcode" else frame.f_lineno))
        if len(seen) == at:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
    return watch


def fork():
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for number, name in (1, "out"), (2, "err"):
        os.dup2(os.open(f"{folder}/{at}.{name}", os.O_CREAT | os.O_WRONLY, 0o600), number)
    sys.settrace(watch)
    __main__.main()


before = signal.getsignal(signal.SIGINT)
folder, every = sys.argv.pop(1), int(sys.argv.pop(1))
parent = os.getpid()
def tell():
    if os.getpid() != parent:
        with open(f"{folder}/told", "w") as file:
            json.dump([len(seen), list(sys.modules)], file)


atexit.register(tell)
fork()  # this first one is left alone
with open(f"{folder}/told") as file:
    steps, modules = json.load(file)
for name in modules:  # so that no other has to
    importlib.import_module(name)
for at in range(steps, 0, -every):
    print(at, fork(), flush=True)
"""


def interrupted_step_by_step(tmp_path, every, *arguments):
    """Return code, standard output and error of a command for a signal at each step it takes.

    Those are the lines of click's core, and each instruction of what decides in this package.
    """
    tmp_path.mkdir()
    done = ended(start(tmp_path, every, *arguments, program=["-c", STEP_BY_STEP]))
    assert (done.code, done.err) == (0, "")
    found = []
    for line in reversed(done.out.decode().splitlines()):
        at, code = map(int, line.split())
        texts = [(tmp_path / f"{at}.{name}").read_text() for name in ("out", "err")]
        found.append((code, *texts))
    return found


@pytest.mark.parametrize("every", [37, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["events", "tests.db"], 0, activated(1).decode(), ""),
        (["events", "missing.db"], 1, "", "Error: "),
        (["events", "tests.db", "--bogus"], 2, "", "Usage: "),
        (["--version"], 0, f"journal {journal.__version__}\n", ""),
    ],
    ids=["done", "failed", "wrong", "version"],
)
def test_there_is_no_moment_at_which_click_or_python_answers(
    tmp_path, monkeypatch, every, arguments, code, out, err
):
    """The signal comes at each step in turn, until it is too late for one."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "tests.db", activated(1))
    found = interrupted_step_by_step(tmp_path / "steps", every, *arguments)

    before = [one for one in found if one[0] == 130]
    late = [one for one in found if one[0] != 130]  # all is done, and nothing is heeded any more
    assert found == before + late
    assert late or sys.version_info[:2] == (3, 12)  # which traces no instructions, only lines
    assert len(before) > 300 // every
    assert {found_out for _, found_out, _ in before} <= {"", out}
    assert {found_err.partition(" ")[0] for *_, found_err in before} <= {"", err.strip()}
    assert {one[:2] for one in late} <= {(code, out)}
    assert all(found_err.startswith(err) for *_, found_err in late)


LOADED = """
import json, os, sys
import apsw, pydantic  # once for all, since it takes long
import journal.commands
from journal.commands.console.interrupting import Interruption
raising = Interruption.raising
def noting(self, work):
    before = set(sys.modules)
    result = raising(self, work)
    loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
    loaded &= {"journal", "pydantic", "pydantic_core", "apsw"}
    print(sys.argv[1], "loaded:", *loaded, file=sys.stderr)
    return result
Interruption.raising = noting
from journal.__main__ import main
for arguments in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        sys.argv[1:] = arguments
        break
    os.waitpid(child, 0)
else:
    sys.exit()
main()
"""


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_what_a_command_needs_is_loaded_before_a_signal_can_interrupt_its_work(path, every):
    """Of a KeyboardInterrupt while a model is made, older pydantic prints that it panics."""
    make(path, activated(1), label="a name")
    ship(path)
    ending = [arguments for arguments in printing(path) if "--follow" not in arguments]
    commands = [
        *ending,
        ["append", path, os.devnull],
        ["rebuild", path],
        ["prune", path, "--before", 9],
        ["recover", path, "-o", path.with_name("recovered.db")],
    ][::every]
    wanted = json.dumps([list(map(str, arguments)) for arguments in commands])
    result = ended(start(wanted, program=["-c", LOADED], is_loaded=False), b"")
    said = [line for line in result.err.splitlines() if " loaded:" in line]
    assert said == [f"{arguments[0]} loaded:" for arguments in commands]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_command_and_whenever_the_signals_come(path, full_pipe, seed):
    draw = random.Random(seed)
    lines = MIXED.read_bytes().splitlines()
    make(path, *lines[:200], label="a name")
    for _ in range(4):
        many = [draw.choice(printing(path)) for _ in range(3)] + [["rebuild", path]]
        processes = [started(*arguments, stdout=full_pipe) for arguments in many]
        for process in processes:
            time.sleep(draw.random() / 10)
            for _ in range(draw.choice([1, 1, 2])):
                process.send_signal(getattr(signal, draw.choice(NAMES)))
        for process in processes:
            result = ended(process)
            is_done = "rebuild" in process.args and result.code == 0
            assert result.code == 130 or is_done, (process.args[3:], result)
    assert len(check_file(path)) == 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_whenever_appending_is_interrupted_what_it_says_is_in_the_file(tmp_path, seed):
    draw = random.Random(seed)
    lines = MIXED.read_bytes().splitlines(keepends=True)
    for number in range(4):
        path = tmp_path / f"{number}.db"
        process = started("append", path)
        given = 0
        for _ in range(draw.randrange(12)):
            some = lines[given : given + draw.choice([1, 10, 300])]
            give(process, b"".join(some))
            given += len(some)
            time.sleep(draw.choice([0, 0, 0.01, 0.05]))
        process.send_signal(getattr(signal, draw.choice(NAMES)))
        process.wait(timeout=60)  # while the pipe is still open
        result = ended(process)
        assert result.code == 130
        found = stored(path) if path.exists() else b""
        assert found == b"".join(lines[: found.count(b"\n")])
        said = result.err.partition("appended ")[2].partition(" event")[0].replace(",", "")
        assert int(said.replace("no", "0") or 0) == found.count(b"\n")
        assert not path.exists() or len(check_file(path)) == found.count(b"\n")
