"""What a person sees while a command counts events, or waits for another process."""

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest
from commands_support import EAGER, MIXED, environment, make, run, start

from journal import BusyError, Journal
from journal.file import info, lock_waits

pty = pytest.importorskip("pty")

WAITING = "waiting for another process that is writing to {}, for a minute at most\r\n"


@contextmanager
def written_by_a_journal(path: Path) -> Iterator[None]:
    with Journal.open(path) as journal, journal._database.write():
        yield


@contextmanager
def written_by_sqlite(path: Path) -> Iterator[None]:
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def read_until(terminal: int, wanted: bytes) -> bytes:
    """Return what a terminal shows up to some text, or to its end."""
    seen = b""
    while wanted not in seen:
        try:
            seen += os.read(terminal, 65_536)
        except OSError:  # Linux: the other side is closed
            break
    return seen


@pytest.mark.parametrize("held", [written_by_a_journal, written_by_sqlite])
def test_a_command_that_waits_for_another_process_says_so(held, tmp_path):
    path = make(tmp_path / "a.db", MIXED.read_bytes().splitlines()[0])
    ours, theirs = pty.openpty()
    wanted = WAITING.format(path).encode()
    with held(path):
        process = start("label", path, "new", stdout=theirs, stderr=theirs)
        os.close(theirs)
        assert read_until(ours, wanted) == wanted
        assert process.poll() is None
    assert b"waiting" not in read_until(ours, b"never")
    assert process.wait() == 0
    os.close(ours)


def test_only_a_terminal_is_told_of_a_wait(tmp_path):
    path = make(tmp_path / "a.db", MIXED.read_bytes().splitlines()[0])
    early = "from journal.file import lock_waits as it; it._SAID_AFTER_SECONDS = 0.0; "
    early += "it.BUSY_TIMEOUT_MS = 500; from journal.__main__ import main; main()"
    with written_by_a_journal(path):
        ended = run("label", path, "new", program=("-c", early), is_loaded=False)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "is being written by another process" in ended.err


def test_a_wait_is_logged_once_and_not_in_the_first_second(caplog):
    caplog.set_level("INFO", logger="journal")
    wait = lock_waits.Wait("a.db")
    began = wait._say_at - 1.0
    for seconds in (0.0, 0.9):
        wait.goes_on(began + seconds)
    assert caplog.messages == []
    for seconds in (1.0, 2.0, 59.0):
        wait.goes_on(began + seconds)
    assert caplog.messages == [WAITING.format("a.db").strip()]


def test_a_wait_for_sqlite_is_logged_once_each_time(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(lock_waits, "_SAID_AFTER_SECONDS", 0.01)
    caplog.set_level("INFO", logger="journal")
    path = make(tmp_path / "a.db", MIXED.read_bytes().splitlines()[0])
    with Journal.open(path) as journal, written_by_sqlite(path):
        for _ in range(2):
            with pytest.raises(BusyError), journal._database.write(100):
                pass
    assert caplog.messages == [WAITING.format(path).strip()] * 2


def test_info_shows_its_progress_on_a_terminal_and_takes_it_away(tmp_path):
    path = make(tmp_path / "a.db", *MIXED.read_bytes().splitlines())
    few = "from journal.file import info; info._POSITIONS_AT_ONCE = 1_000\n"
    ours, theirs = pty.openpty()
    program = ("-c", few + EAGER[1])
    env = environment(TERM="xterm")
    process = start("info", path, stdout=theirs, stderr=theirs, program=program, env=env)
    os.close(theirs)
    progress, _, page = read_until(ours, b"never").decode().replace("\r\n", "\n").rpartition("\r")
    assert process.wait() == 0
    os.close(ours)

    assert re.search(r"\r\[#+ *\] \d+ %, [\d,]+ events, [\d,]+ events/s, \d+ s left", progress)
    assert page.startswith("Events      5,442, positions 1 to 5442\n")
    assert "events/s" not in page


def test_counting_in_steps_gives_what_counting_at_once_gives(tmp_path, monkeypatch):
    path = make(tmp_path / "a.db", *MIXED.read_bytes().splitlines())
    steps = []
    with Journal.open(path, read_only=True) as journal:
        expected = journal.info()
        monkeypatch.setattr(info, "_POSITIONS_AT_ONCE", 1_000)
        found = journal.info(progress=lambda done, total: steps.append((done, total)))
    assert found == expected
    assert found.event_count == sum(found.counts_by_kind.values()) == 5_442
    assert steps == [(min(done, 5_442), 5_442) for done in range(1_000, 6_001, 1_000)]
