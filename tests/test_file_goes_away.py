"""The file that was opened is the file that is written: what happens when it is taken away."""

import contextlib
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SEEDS, Channel, Child, activated, check_file, names_in

from journal import (
    FileReplacedError,
    Journal,
    JournalError,
    JournalNotFoundError,
    SessionId,
)
from journal.file import foreign_writes

EVENT = activated(SessionId.new())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "a.db"


def delete(path: Path) -> None:
    path.unlink()


def delete_everything(path: Path) -> None:
    for name in path.parent.iterdir():
        name.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("b.db"))


def rotate(path: Path) -> None:
    """As logrotate does."""
    path.rename(path.with_name("a.db.1"))
    path.touch()


def replace_by_rename(path: Path) -> None:
    """As an editor does that writes a new file, and as restoring a backup does."""
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


def replace_by_another_journal(path: Path) -> None:
    other = path.with_name("other.db")
    with Journal.open(other) as journal:
        journal.append_events([EVENT] * 7)
    other.replace(path)


def remove_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def delete_the_wal(path: Path) -> None:
    path.with_name("a.db-wal").unlink()


def delete_the_shm(path: Path) -> None:
    path.with_name("a.db-shm").unlink()


def replace_the_shm(path: Path) -> None:
    path.with_name("a.db-shm").rename(path.with_name("gone"))
    shutil.copyfile(path.with_name("gone"), path.with_name("a.db-shm"))


WAYS: list[Callable[[Path], None]] = [
    delete,
    delete_everything,
    rename,
    rotate,
    replace_by_rename,
    replace_by_another_journal,
    remove_the_folder,
    delete_the_wal,
    delete_the_shm,
    replace_the_shm,
]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
@pytest.mark.parametrize(
    "take_away",
    WAYS,
    ids=lambda function: function.__name__,
)
def test_the_next_append_says_so_and_acknowledges_nothing(
    path: Path, take_away: Callable[[Path], None]
) -> None:
    journal = Journal.open(path)
    journal.append_events([EVENT])
    take_away(path)
    before = names_in(path.parent) if path.parent.exists() else None

    for _ in range(2):
        with pytest.raises(FileReplacedError):
            journal.append_events([EVENT])
    with pytest.raises(FileReplacedError):
        journal.rebuild()
    assert journal.event_count() == 1  # it answers from the file that it opened, or not at all
    journal.close()
    assert before is None or set(before) >= set(names_in(path.parent))  # nothing is made there


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
def test_a_journal_never_answers_from_two_files(path: Path) -> None:
    """Not even a reader that is opened later, when the ones before are lent out."""
    journal = Journal.open(path)
    journal.append_events([EVENT])
    replace_by_another_journal(path)
    seen = set()
    with journal._database.read():
        for _ in range(3):
            try:
                seen.add(journal.event_count())
            except FileReplacedError:
                seen.add(1)
    assert seen == {1}
    journal.close()
    with Journal.open(path) as other:
        assert other.event_count() == 7


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
@pytest.mark.parametrize("read_only", [False, True])
def test_shipping_what_was_moved_is_refused_and_takes_nothing_from_readers(
    path: Path, *, read_only: bool
) -> None:
    with Journal.open(path) as journal:
        journal.append_events([EVENT])
    journal = Journal.open(path, read_only=read_only)
    assert journal.event_count() == 1
    path.rename(path.with_name("moved.db"))
    with pytest.raises(FileReplacedError):
        journal.ship(path.with_name("copy.db"))
    assert journal.event_count() == 1
    with contextlib.suppress(JournalError):
        journal.close()
    assert not path.with_name("copy.db").exists()


# Written to in place, by somebody who knows nothing of a -wal


def overwrite(path: Path, content: bytes) -> None:
    """Write into the very file, as `cp`, an editor or a restored backup does."""
    time.sleep(0.02)  # the clock of a file system ticks in milliseconds
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def edit(path: Path) -> None:
    overwrite(path, b"something else\n")


def empty(path: Path) -> None:
    """As logrotate does with copytruncate."""
    overwrite(path, b"")


def put_a_backup_over_it(path: Path) -> None:
    overwrite(path, path.with_name("backup").read_bytes())


def put_another_journal_over_it(path: Path) -> None:
    other = path.with_name("other.db")
    with Journal.open(other) as journal:
        journal.append_events([EVENT] * 7)
    overwrite(path, other.read_bytes())


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    overwrite(path, content)


def append_a_line(path: Path) -> None:
    overwrite(path, path.read_bytes() + b"a line\n")


def touch(path: Path) -> None:
    """It changes nothing, but the time is all there is to go by."""
    time.sleep(0.02)
    path.touch()


@pytest.mark.skipif(sys.platform != "linux", reason="needs locks of our own")
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    "write",
    [
        edit,
        empty,
        put_a_backup_over_it,
        put_another_journal_over_it,
        change_a_byte,
        append_a_line,
        touch,
    ],
    ids=lambda function: function.__name__,
)
def test_what_is_written_into_the_file_is_noticed_and_left_as_it_is(
    path: Path,
    write: Callable[[Path], None],
    checkpointed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if checkpointed:
        monkeypatch.setattr("journal.file.wal._CHECKPOINT_PAGES", 2)
    with Journal.open(path) as journal:
        journal.append_events([EVENT])
    shutil.copyfile(path, path.with_name("backup"))
    journal = Journal.open(path)
    reader = Journal.open(path, read_only=True)
    for _ in range(20):
        journal.append_events([EVENT])
    assert reader.event_count() == journal.event_count() == 21
    write(path)
    content = path.read_bytes()

    for _ in range(2):
        with pytest.raises(FileReplacedError, match="written to by something else"):
            journal.append_events([EVENT])
        for opened in (journal, reader):
            with pytest.raises(FileReplacedError, match="written to by something else"):
                opened.event_count()
        with pytest.raises(FileReplacedError):
            Journal.open(path)
    reader.close()
    journal.close()
    assert path.read_bytes() == content


@pytest.mark.skipif(sys.platform != "linux", reason="needs locks of our own")
def test_another_wal_is_noticed_by_whoever_opens_it(path: Path) -> None:
    journal = Journal.open(path)
    journal.append_events([EVENT])
    other = Journal.open(path.with_name("other.db"))
    other.append_events([EVENT] * 7)
    shutil.copyfile(path.with_name("other.db-wal"), path.with_name("copy"))
    path.with_name("copy").replace(path.with_name("a.db-wal"))

    for read_only in (False, True):
        with pytest.raises(FileReplacedError, match="another -wal"):
            Journal.open(path, read_only=read_only)
    with pytest.raises(FileReplacedError, match="another -wal"):
        journal.rebuild()
    journal.close()
    other.close()
    path.with_name("a.db-wal").unlink(missing_ok=True)
    assert len(check_file(path)) == 1


def test_checkpoints_and_commits_of_others_are_no_foreign_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journal.file.wal._CHECKPOINT_PAGES", 3)
    with Journal.open(path) as journal, Journal.open(path, read_only=True) as reader:
        for count in range(1, 25, 3):
            journal.append_events([EVENT])
            with Child(append_two, path) as child:
                assert child.receive() == count + 2
            assert reader.event_count() == count + 2


def test_a_checkpoint_that_ends_during_the_first_look_is_no_foreign_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def checkpointed(_shm: int) -> tuple[int, bytes, int, int]:
        if not looks:  # after the time of change was asked
            os.utime(path, ns=(1, 1))
        looks.append(1)
        return 5, b"salt", 5, 5

    monkeypatch.setattr(foreign_writes, "read_wal_index", checkpointed)
    path.touch()
    with path.open("rb") as file:
        seen = foreign_writes.ForeignWrites(file.fileno(), file.fileno())
        assert not seen.are_found()
        os.utime(path, ns=(2, 2))
        assert seen.are_found()


def append_two(_channel: Channel, path: Path) -> int:
    with Journal.open(path) as journal:
        journal.append_events([EVENT])
        journal._database._writer.wal_checkpoint()
        return journal.append_events([EVENT]).last


def append_until_it_is_gone(channel: Channel, path: Path, durability: Any) -> str:
    """Say after each append what it got, and at the end with which error it ended."""
    journal = Journal.open(path, durability=durability)
    try:
        while True:
            channel.send(journal.append_events([EVENT]).last)
    except FileReplacedError:
        for _ in range(3):
            with pytest.raises(FileReplacedError):
                journal.append_events([EVENT])
        journal.close()
        return "gone"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
@pytest.mark.parametrize("seed", SEEDS)
def test_whenever_it_is_taken_away_appending_ends_with_a_sentence(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    for take_away in draw.sample(WAYS, len(WAYS)):
        path = tmp_path / take_away.__name__ / "a.db"
        path.parent.mkdir()
        children = draw.choice([1, 2])
        durabilities = [draw.choice(["full", "normal"]) for _ in range(children)]
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(Child(append_until_it_is_gone, path, durability))
                for durability in durabilities
            ]
            said = [[writer.receive()] for writer in writers]
            time.sleep(draw.random() / 20)
            take_away(path)
            for writer, positions in zip(writers, said, strict=True):
                while (answer := writer.receive()) != "gone":
                    positions.append(answer)
        everything = sorted(position for positions in said for position in positions)
        assert everything == list(range(1, len(everything) + 1)), take_away.__name__
        if take_away is replace_by_another_journal:  # it holds what it held, and no more
            assert len(check_file(path)) == 7


# What a path leads to


@pytest.mark.skipif(os.name == "nt", reason="links work otherwise there")
def test_a_file_that_is_in_use_under_another_name_is_refused(path: Path) -> None:
    journal = Journal.open(path)
    journal.append_events([EVENT])
    link = path.with_name("other.db")
    link.hardlink_to(path)

    with pytest.raises(FileReplacedError, match="another name that leads to the same file"):
        Journal.open(link)
    with Child(open_under_another_name, link) as child:
        assert child.receive() == "FileReplacedError"
    with Journal.open(path) as again:
        assert again.append_events([EVENT]) == (2, 2)
    journal.close()

    with Journal.open(link) as journal:  # nobody uses it any more
        assert journal.append_events([EVENT]) == (3, 3)
    assert len(check_file(path, closed=True)) == 3


def open_under_another_name(_channel: Channel, path: Path) -> str:
    try:
        Journal.open(path).close()
    except JournalError as error:
        return type(error).__name__
    return "opened"


@pytest.mark.skipif(os.name == "nt", reason="links work otherwise there")
def test_a_dangling_link_is_no_journal_and_makes_none(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.db"))

    for read_only in (False, True):
        with pytest.raises(JournalNotFoundError):
            Journal.open(path, read_only=read_only)
    assert names_in(path.parent) == ["a.db"]


@pytest.mark.parametrize("length", [248, 250, 255, 256])
def test_a_name_too_long_for_what_stands_beside_it_is_refused(path: Path, length: int) -> None:
    with pytest.raises(JournalError, match="too long"):
        Journal.open(path.with_name("x" * length))
    assert names_in(path.parent) == []


def test_a_path_too_long_for_sqlite_is_refused(path: Path) -> None:
    folder = path.parent
    for _ in range(6):
        folder = folder / ("y" * 90)
    folder.mkdir(parents=True)

    with pytest.raises(JournalError, match="too long"):
        Journal.open(folder / "a.db")
    assert names_in(folder) == []


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_not_utf8_is_refused(path: Path) -> None:
    strange = path.with_name(os.fsdecode(b"\xff\xfe.db"))

    for read_only in (False, True):
        with pytest.raises(JournalError, match="name is not UTF-8"):
            Journal.open(strange, read_only=read_only)
    assert names_in(path.parent) == []


@pytest.mark.skipif(os.name == "nt", reason="a working directory cannot be removed there")
def test_a_working_directory_that_was_removed_is_a_clear_error(path: Path) -> None:
    with Child(open_in_a_removed_folder, path.parent) as child:
        assert child.receive() == "JournalNotFoundError"


def open_in_a_removed_folder(_channel: Channel, folder: Path) -> str:
    os.chdir(folder)
    folder.rmdir()
    return open_under_another_name(_channel, Path("a.db"))


def test_a_journal_that_cannot_be_made_leaves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("journal.file.opening.create_journal", fail)
    with pytest.raises(OSError, match="No space left"):
        Journal.open(path)
    assert names_in(path.parent) == []
