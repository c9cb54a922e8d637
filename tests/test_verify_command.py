"""`journal verify` through real processes: what it prints, how it ends, and on Ctrl-C."""

import json
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from commands_support import MIXED, ended, make, run, run_here, start, started, until
from verify_support import execute

import journal

posix = pytest.mark.skipif(os.name == "nt", reason="signals and terminals of POSIX")

LINES = MIXED.read_bytes().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "tests.db", *LINES[:2500])


def spoil(path: Path) -> None:
    execute(
        path,
        "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 1200;"
        "UPDATE session SET event_count = event_count + 1 WHERE id = 1;"
        "DELETE FROM checkpoint",
    )


def test_it_says_what_is_proven(path: Path) -> None:
    with journal.Journal.open(path, read_only=True) as opened:
        head = opened.info().head
    quick, full = run("verify", path), run("verify", path, "--full", "--head", head)

    assert (quick.code, quick.err) == (full.code, full.err) == (0, "")
    assert quick.out.decode().splitlines() == [
        "Looked at   the last 2,500 events, from position 1 on (--full: everything)",
        "Proven      2,500 events, covered up to position 2500",
        f"Head        {head}",
        "Result      sound",
    ]
    assert full.out.decode().splitlines() == [
        "Looked at   all 2,500 events",
        "Proven      2,500 events, covered up to position 2500",
        f"Head        {head}",
        "Result      sound",
    ]


def test_it_lists_what_it_finds_and_exits_with_1(path: Path) -> None:
    spoil(path)
    text, lines = run_here("verify", path, "--full"), run_here("verify", path, "--full", "--json")

    assert text.code == lines.code == 1
    assert text.err == lines.err == ""
    shown = text.out.decode().splitlines()
    assert shown[0] == "damaged: the events from position 1001 to 2000 are not what they were"
    assert shown[1].startswith("derived: the session ")
    assert shown[-1] == "Result      not sound: 2 findings"
    *findings, summary = map(json.loads, lines.out.splitlines())
    assert [finding["code"] for finding in findings] == ["block-content", "head"]
    assert {*findings[0]} == {"code", "where", "position", "severity", "text"}
    assert (findings[0]["where"], findings[0]["position"]) == ("event", 1001)
    assert (summary["sound"], summary["finding_count"]) == (False, 2)
    assert (summary["event_count"], summary["proven_count"]) == (2500, 1500)
    assert summary["unchecked"] == ["sessions and streams: they are not folded yet"]


def test_what_no_block_covers_is_said(path: Path) -> None:
    with journal.Journal.open(path) as opened:
        opened.append_ndjson(LINES[:7])
        result = run_here("verify", path)

    assert "Uncovered   7 events that no block proves\n" in result.out.decode()
    assert result.code == 0


def test_bad_input_is_one_sentence(path: Path, tmp_path: Path) -> None:
    for arguments, code, expected in [
        ([tmp_path / "none.db"], 1, f"Error: {tmp_path / 'none.db'}: does not exist\n"),
        ([tmp_path], 1, f"Error: {tmp_path}: is a directory, not a journal\n"),
        ([path, "--head", "7"], 2, "Error: head: expected POSITION:DIGEST, "),
        ([], 2, "Error: Missing argument 'JOURNAL'"),
    ]:
        result = run_here("verify", *arguments)
        assert (result.code, result.out) == (code, b""), arguments
        assert expected in result.err
    (tmp_path / "text").write_bytes(b"hello" * 1000)
    result = run_here("verify", tmp_path / "text")
    shown = b"damaged: is not an SQLite database\nResult      not sound: 1 finding\n"
    assert result == (1, shown, "")


def test_a_reader_that_has_seen_enough_is_told_by_the_code_that_it_is_not_sound(
    path: Path,
) -> None:
    execute(path, "UPDATE event SET session_prev = 1, stream_prev = 1")
    process = start("verify", path, "--full")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"derived: ")
    process.stdout.close()

    assert process.wait(60) == 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes a while, most of it in SQLite's own check and in sorting."""
    path = make(tmp_path_factory.mktemp("large") / "tests.db", *LINES)
    with closing(apsw.Connection(str(path))) as file:
        file.execute(
            "CREATE TABLE ballast (a, b, c); CREATE INDEX ballast_a ON ballast (a, b, c);"
            "INSERT INTO ballast SELECT value % 977, value, 'x' FROM"
            " (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 200000)"
            " SELECT value FROM n)"
        )
    return path


@posix
@pytest.mark.parametrize("delay", [0.05, 0.2])
def test_ctrl_c_ends_it(large: Path, delay: float) -> None:
    before = large.read_bytes()
    process = started("verify", large, "--full", is_loaded=True)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    result = ended(process)

    assert result.code in (0, 130)  # on a quick machine it may have been done
    if result.code == 130:
        said = "interrupted: no findings until then, and not all was looked at\n"
        assert (result.out, result.err) in ((b"", said), (b"", ""))  # it may not have begun
    assert large.read_bytes() == before
    until(lambda: not large.with_name("tests.db-wal").exists())
