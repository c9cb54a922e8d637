"""`journal events --follow` where the file goes away: it ends with a sentence, or goes on."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import pytest
from commands_support import SESSION, activated, ended, make, start
from test_file_goes_away import WAYS, delete_the_wal, edit, replace_the_shm

import journal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")

OTHER = "00000000-0000-4000-8000-000000000001"


def lines_read(process: Popen[bytes], count: int) -> list[bytes]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return make(tmp_path / "here" / "a.db", activated(1), activated(2))


@pytest.mark.parametrize(
    "take_away",
    [*(way for way in WAYS if way not in (delete_the_wal, replace_the_shm)), edit],
    ids=lambda function: function.__name__,
)
def test_following_ends_with_a_sentence(path: Path, take_away: Callable[[Path], None]) -> None:
    process = start("events", path, "--follow", bufsize=0)
    assert lines_read(process, 2) == [activated(1), activated(2)]
    take_away(path)
    code, out, err = ended(process)

    assert (code, out) == (1, b"")
    assert err.startswith(f"Error: {path}: ")
    assert "while it was open" in err
    assert err.count("\n") == 1


def follow_by_name(path: Path) -> Popen[bytes]:
    process = start("events", path, "-F", bufsize=0)
    assert lines_read(process, 2) == [activated(1), activated(2)]
    return process


def test_following_by_name_goes_on_in_another_journal_from_its_beginning(path: Path) -> None:
    process = follow_by_name(path)
    path.rename(path.with_name("a.db.1"))
    path.touch()  # as logrotate does; nothing in it yet
    make(path, activated(3, OTHER))
    assert lines_read(process, 1) == [activated(3, OTHER)]
    make(path, activated(4))
    assert lines_read(process, 1) == [activated(4)]
    path.unlink()
    for name in path.parent.glob("a.db-*"):
        name.unlink()
    make(path, activated(5), activated(6))
    assert lines_read(process, 2) == [activated(5), activated(6)]
    process.terminate()
    code, out, err = ended(process)

    assert (code, out) == (130, b"")
    assert err.count("going on in what takes its place") == err.count("\n") == 2


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_following_by_name_goes_on_in_a_copy_that_has_what_was_shown(path: Path, kept: int) -> None:
    """One that ends before that is shown from its beginning, though its positions were seen."""
    backup = path.with_name("backup")
    make(backup, *map(activated, range(1, kept + 1)))
    with journal.Journal.open(path) as opened:
        identity = str(opened.journal_id)
    set_identity(backup, identity)
    make(backup, activated(9))
    process = follow_by_name(path)
    backup.replace(path)

    expected = {1: [1, 9], 2: [9], 4: [3, 4, 9]}[kept]
    assert lines_read(process, len(expected)) == list(map(activated, expected))
    process.terminate()
    assert ended(process).code == 130


def set_identity(path: Path, identity: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE meta SET value = ? WHERE key = 'journal_id'", (identity,))
        other.commit()


def test_filters_and_a_limit_hold_in_what_takes_its_place(path: Path) -> None:
    options = "--session", SESSION, "--limit", 3, "--after", 1
    process = start("events", path, "-F", *options, bufsize=0)
    assert lines_read(process, 1) == [activated(2)]
    copy = path.with_name("copy")
    make(copy, activated(3), activated(4, OTHER), activated(5), activated(6))
    copy.replace(path)
    code, out, _ = ended(process)

    assert code == 0
    assert out == activated(3) + activated(5)


def test_a_file_that_is_not_there_at_first_is_an_error(tmp_path: Path) -> None:
    for option in ("--follow", "-F"):
        process = start("events", tmp_path / "missing.db", option)
        assert ended(process).code == 1
