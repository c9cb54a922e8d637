"""While it looks for long for what comes first, a command shows how far it has come."""

import io
import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from commands_support import EAGER, MIXED, all_of, ended, run_here, start

from journal import Journal, SessionId, limits, merge
from journal.commands import cli
from journal.commands.console import progress
from journal.commands.console.output import Output
from journal.maintenance import provenance
from journal.projections import listing

LINES = MIXED.read_text("utf-8").splitlines()
LAST = len(LINES)
FIGURES = re.compile(r"\[#* *\] \d+ %, [\d,]+ (event|stream|session)s, [\d,]+ \1s/s, .+ left")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("looking") / "tests.db"
    with Journal.open(path) as journal:
        journal.append_ndjson(LINES)
        journal.sessions()
    return path


class Screen:
    """A terminal that standard output and standard error are written to.

    `shown` has what was written, in turn: text of the one, bytes of the other.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str | bytes] = []
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        monkeypatch.setattr(err, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(err, "write", self.shown.append, raising=False)
        monkeypatch.setattr(sys, "stdout", self)
        monkeypatch.setattr(sys, "stderr", err)
        self.buffer, self.out = self, out

    def fileno(self) -> int:
        raise OSError

    def flush(self) -> None:
        pass

    def write(self, data: memoryview) -> int:
        self.shown.append(bytes(data))
        return len(data)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> list[str | bytes]:
    monkeypatch.setattr(progress, "_SECONDS_BEFORE", 0.0)
    monkeypatch.setattr(progress, "_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 100)
    monkeypatch.setattr(listing, "_KEYS_AT_ONCE", 20)
    monkeypatch.setattr(Output, "is_terminal", True)
    screen = Screen(monkeypatch)
    with pytest.raises(SystemExit) as caught:
        cli.main([*map(str, arguments)], prog_name="journal")
    assert caught.value.code in (0, None), screen.shown
    return screen.shown


COMMANDS: dict[str, list[str]] = {
    "events": ["--type", "session_timed_out"],
    "streams": ["--sort", "bytes", "--limit", "3"],
    "sessions": ["--sort", "failed"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_shows_how_far_it_has_come_and_takes_that_away(
    path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shown = run(monkeypatch, command, path, *COMMANDS[command])
    figures = [text for text in shown if isinstance(text, str) and FIGURES.search(text)]
    assert len(figures) >= 2
    assert all(f" {command}/s" in text for text in figures)
    for before, after in itertools.pairwise(shown):
        if before in figures and after not in figures:  # a line of blanks over it
            assert isinstance(after, str)
            assert re.fullmatch(r"\r +\r", after)
    assert shown[-1] not in figures
    assert any(isinstance(text, bytes) for text in shown)


def test_what_is_found_is_written_before_the_figures_that_come_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, session = re.findall(r'"(?:event_type|session_id)":"([^"]+)"', LINES[2_500])
    expected = [line for line in LINES if kind in line and session in line]
    shown = run(monkeypatch, "events", path, "--type", kind, "--session", session)
    assert b"".join(it for it in shown if isinstance(it, bytes)).decode().splitlines() == expected


def reported(journal: Journal) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    journal.report_looking(lambda done, last: calls.append((done, last)))
    return calls


def test_reading_tells_how_many_events_it_has_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 100)
    with Journal.open(path, read_only=True) as journal:
        calls = reported(journal)
        assert next(journal.lines(1_000, kinds=["nothing of the sort"]), None) is None
        assert calls == []  # it is known at once that there is none
        found = sum(1 for _ in journal.read(1_000, kinds=["session_timed_out"]))
        assert found > 0
        assert calls == sorted(set(calls))
        assert len(calls) >= (LAST - 1_000) / 100
        assert calls[-1] == (LAST - 1_000, LAST - 1_000)
        journal.report_looking(None)
        assert sum(1 for _ in journal.read(1_000, kinds=["session_timed_out"])) == found
        assert len(calls) < LAST / 50


def test_following_a_chain_tells_how_many_events_it_has_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 10)
    other = SessionId.new()
    session = re.search(r'"session_id":"([^"]+)"', LINES[0])
    assert session is not None
    own = LINES[0].replace(session[1], str(other))
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_ndjson([*[own] * 35, *LINES])
        calls = reported(journal)
        assert len([*journal.lines(session_id=other)]) == 35
    followed, read = (
        [(10, 35), (20, 35), (30, 35), (35, 35)],
        [(5, 35), (15, 35), (25, 35), (35, 35)],
    )
    assert calls == followed + read


@pytest.mark.parametrize("name", ["iter_sessions", "iter_streams"])
def test_sorting_tells_how_many_rows_it_has_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Journal.open(path, read_only=True) as journal:
        rows: Any = getattr(journal, name)
        expected = {order: [*rows(order=order)] for order in ("ended", "events", "anomalies")}
        count = len(expected["ended"])
        calls = reported(journal)
        monkeypatch.setattr(listing, "_KEYS_AT_ONCE", 7)
        assert [*rows(order="ended")] == expected["ended"]
        assert calls[:-1] == [(min(done, count), count) for done in range(7, count + 7, 7)]
        assert calls[-1] == (count, count)  # a page of them
        assert {order: [*rows(order=order)] for order in expected} == expected
        assert [*rows(order="events", limit=9)] == expected["events"][:9]
        monkeypatch.setattr(listing, "_PAGE_ROWS_MAX", 50)
        for order in ("oldest", "newest"):
            calls.clear()
            assert len([*rows(order=order)]) == count
            assert [*dict.fromkeys(calls)] == [
                (min(done, count), count) for done in range(50, count + 50, 50)
            ]


class Clock:
    """Goes on by a third of a second each time that somebody looks at it."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 0.34
        return self.now


def beside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: object
) -> tuple[bytes, list[str]]:
    """Run a command whose standard output is a file, and whose standard error is a terminal.

    Return what was written to the one, and the figures on the other.
    """
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 100)
    monkeypatch.setattr(listing, "_KEYS_AT_ONCE", 20)
    monkeypatch.setattr(listing, "_PAGE_ROWS_MAX", 20)
    monkeypatch.setattr(provenance, "_EVENTS_PER_LOOK", 100)
    monkeypatch.setattr(progress, "_ITEMS_PER_LOOK", 2)
    monkeypatch.setattr(progress, "time", Clock())
    screen = Screen(monkeypatch)
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as caught:
            cli.main([*map(str, arguments)], prog_name="journal")
    assert caught.value.code in (0, None), screen.shown
    shown = [text for text in screen.shown if isinstance(text, str)]
    return (tmp_path / "out").read_bytes(), [text for text in shown if FIGURES.search(text)]


BESIDE: dict[str, list[str]] = {
    "all events": ["events"],
    "events of a kind": ["events", "--type", "stream_created"],
    "some events": ["events", "--limit", "2000"],
    "sessions": ["sessions"],
    "sessions as JSON": ["sessions", "--json"],
    "sessions, newest first": ["sessions", "--sort", "newest"],
    "streams": ["streams"],
    "streams, by bytes": ["streams", "--sort", "bytes", "--json"],
    "a session": ["session"],
    "a session as JSON": ["session", "--json"],
    "a session as records": ["session", "--wide"],
}


@pytest.mark.parametrize("name", BESIDE)
def test_it_shows_how_far_it_has_come_while_it_writes_a_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    command, *options = BESIDE[name]
    ids = re.findall(r'"session_id":"([^"]+)"', "".join(LINES))
    options += [max(set(ids), key=ids.count)] if command == "session" else []
    expected = run_here(command, path, *options)
    written, figures = beside(monkeypatch, tmp_path, command, path, *options)
    shares = [int(share) for share in re.findall(r"(\d+) %", "".join(figures))]

    assert written == expected.out
    assert len(figures) >= 3
    assert max(shares) > 50
    restarts = sum(after < before for before, after in itertools.pairwise(shares))
    assert restarts <= (2 if command == "session" else "bytes" in options)  # for each part


def test_origins_shows_how_far_it_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [tmp_path / "a.db", tmp_path / "b.db"]
    for source in sources:
        with Journal.open(source) as journal:
            journal.append_ndjson(LINES)
    merge(tmp_path / "merged.db", sources)
    written, figures = beside(monkeypatch, tmp_path, "origins", tmp_path / "merged.db")

    assert len(figures) >= 3
    assert written == run_here("origins", tmp_path / "merged.db").out


def test_nothing_is_shown_on_the_screen_of_who_reads_a_pipe(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journal.commands.console.output._READING_SECONDS", -1.0)

    assert beside(monkeypatch, tmp_path, "events", path)[1] == []


def test_a_file_is_written_while_a_terminal_shows_how_far_it_is(path: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = start("events", path, stdout=out, stderr=theirs, program=EAGER)
        os.close(theirs)
        shown = all_of(ours).decode()
        assert ended(process).code == 0

    assert (tmp_path / "out").read_text("utf-8").splitlines() == LINES
    assert FIGURES.search(shown)
    assert re.search(r"\r +\r$", shown)
