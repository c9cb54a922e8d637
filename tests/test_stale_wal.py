"""Companions that were left, or put back, beside a file that they were not written for.

SQLite applies a -wal to whatever file it lies beside. What can be told is refused; a -shm is always
made anew by whoever comes first.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from commands_support import run_here
from support import (
    Channel,
    Child,
    activated,
    become_nobody,
    bytes_in,
    check_file,
    folder_for_everybody,
    names_in,
)

from journal import Journal, JournalError, SessionId, StaleWalError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a look into the -shm")

SESSION = SessionId.new()


def append(journal: Journal, count: int) -> None:
    for _ in range(count):
        journal.append_events([activated(SESSION)])


def append_and_die(_channel: Channel, path: Path, counts: list[int]) -> None:
    """Append in several openings, and leave the last one by a crash, with a -wal."""
    for count in counts[:-1]:
        with Journal.open(path) as journal:
            append(journal, count)
    journal = Journal.open(path)
    append(journal, counts[-1])
    journal._database._writer.pragma("wal_autocheckpoint")
    os._exit(0)


def crash(path: Path, *counts: int) -> None:
    with Child(append_and_die, path, list(counts)) as child, pytest.raises(EOFError):
        child.receive()
    assert path.with_name(path.name + "-wal").stat().st_size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "a.db"


@pytest.fixture
def backup(tmp_path: Path, path: Path) -> Path:
    """A backup of the closed file, with ten events."""
    with Journal.open(path) as journal:
        append(journal, 10)
    return Path(shutil.copyfile(path, tmp_path / "backup"))


def check_refused(path: Path, reason: str) -> None:
    """Assert that nobody can open the file, and that nothing has changed but the -shm."""
    before = bytes_in(path.parent)
    before.pop(f"{path.name}-shm", None)
    for read_only in (False, True):
        with pytest.raises(StaleWalError, match=reason) as caught:
            Journal.open(path, read_only=read_only)
        assert f"move {path.name}-wal and {path.name}-shm away" in str(caught.value)
    refused = run_here("events", path)
    assert refused.code == 1
    assert refused.out == b""
    after = bytes_in(path.parent)
    after.pop(f"{path.name}-shm", None)
    assert after == before


def test_a_crash_leaves_a_wal_that_belongs(path: Path) -> None:
    for count in (1, 2, 30):
        crash(path, count)
    crash(path, 1, 1, 5)
    with Journal.open(path, read_only=True) as journal:
        assert journal.event_count() == 40
    assert len(check_file(path)) == 40


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_wal_of_another_journal_is_refused(path: Path, backup: Path, count: int) -> None:
    other = path.with_name("other.db")
    crash(other, count)
    other.with_name("other.db-wal").rename(path.with_name("a.db-wal"))
    if count == 2:
        other.with_name("other.db-shm").rename(path.with_name("a.db-shm"))

    check_refused(path, "is of another journal|makes it unreadable")

    path.with_name("a.db-wal").unlink()
    assert len(check_file(path)) == 10
    assert backup.read_bytes()


@pytest.mark.parametrize("counts", [[3, 1], [1, 1, 1], [50, 2], [3, 400]])
def test_an_older_file_beside_a_newer_wal_is_refused(
    path: Path, backup: Path, counts: list[int]
) -> None:
    crash(path, *counts)
    shutil.copyfile(backup, path)

    check_refused(path, "was written for another state of it")

    path.with_name("a.db-wal").unlink()
    assert len(check_file(path)) == 10


def test_an_older_wal_beside_a_newer_file_is_refused(path: Path, tmp_path: Path) -> None:
    crash(path, 3)
    old_wal = shutil.copyfile(path.with_name("a.db-wal"), tmp_path / "wal")
    crash(path, 5, 5)
    with Journal.open(path) as journal:
        append(journal, 1)
    shutil.copyfile(old_wal, path.with_name("a.db-wal"))

    check_refused(path, "was written for another state of it")

    path.with_name("a.db-wal").unlink()
    assert len(check_file(path)) == 14


def test_the_file_that_the_wal_was_written_for_can_be_put_back(path: Path, backup: Path) -> None:
    """A backup of just before: SQLite lays the -wal over it, and all that was appended is there."""
    crash(path, 7)
    shutil.copyfile(backup, path)

    assert len(check_file(path)) == 17


def test_a_backup_of_all_three_files_is_as_good_as_they_were(path: Path, tmp_path: Path) -> None:
    crash(path, 4, 6)
    copy = shutil.copytree(path.parent, tmp_path / "copy")
    crash(path, 1, 1)

    assert len(check_file(copy / "a.db")) == 10
    assert len(check_file(path)) == 12


@pytest.mark.parametrize("source", ["other.db-shm", None])
def test_a_shm_of_another_is_made_anew(path: Path, source: str | None) -> None:
    crash(path.with_name("other.db"), 20)
    crash(path, 4)
    shm = path.with_name("a.db-shm")
    shm.write_bytes(path.with_name(source).read_bytes() if source else bytes(100_000))

    with Journal.open(path, read_only=True) as journal:
        assert journal.event_count() == 4
    assert len(check_file(path)) == 4


def test_garbage_for_a_wal_is_no_wal(path: Path, backup: Path) -> None:
    path.with_name("a.db-wal").write_bytes(b"no wal\n" * 1000)

    assert len(check_file(path)) == 10
    assert backup.read_bytes()


def test_it_is_refused_where_nothing_may_be_written_too(path: Path, backup: Path) -> None:
    crash(path, 3, 2)
    shutil.copyfile(backup, path)
    with folder_for_everybody() as folder:
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", folder / f"{path.name}{suffix}")
        with Child(open_as_nobody, folder / path.name) as child:
            assert child.receive() == "StaleWalError"


def open_as_nobody(_channel: Channel, path: Path) -> str:
    path.chmod(0o644)
    path.with_name("a.db-wal").chmod(0o644)
    path.parent.chmod(0o555)
    become_nobody()
    try:
        Journal.open(path, read_only=True).close()
    except JournalError as error:
        return type(error).__name__
    return "opened"


def test_who_has_it_open_is_not_asked_again(path: Path) -> None:
    """Others come and go; whether the -wal belongs was seen by the first one."""
    with Journal.open(path) as journal:
        append(journal, 30)
        for read_only in (False, True):
            with Child(open_and_count, path, read_only) as child:
                assert child.receive() == 30


def open_and_count(_channel: Channel, path: Path, read_only: bool) -> int:
    with Journal.open(path, read_only=read_only) as journal:
        return journal.event_count()


def test_a_checkpoint_that_was_cut_short_is_no_other_state(path: Path) -> None:
    """The file has some of the -wal's pages then, and is whole with it only."""
    for pages in range(1, 12, 2):
        with Child(die_in_a_checkpoint, path, pages) as child, pytest.raises(EOFError):
            child.receive()
        with Journal.open(path) as journal:
            append(journal, 1)
    assert len(check_file(path)) >= 6 * 21


def die_in_a_checkpoint(_channel: Channel, path: Path, pages: int) -> None:
    journal = Journal.open(path)
    for number in range(20):
        journal.append_events([activated(SessionId.new(), number)])
    with closing(DyingDisk(pages)):
        other = apsw.Connection(str(path), vfs="dying")
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    os._exit(1)


class DyingDisk(apsw.VFS):
    """Ends the process when so many pages of the main file were written."""

    def __init__(self, pages: int) -> None:
        self.left = pages
        super().__init__("dying", "")

    def close(self) -> None:
        self.unregister()

    def xOpen(self, name: object, flags: list[int]) -> "DyingFile":  # noqa: N802
        return DyingFile(self, name, flags)


class DyingFile(apsw.VFSFile):
    """A file of it."""

    def __init__(self, disk: DyingDisk, name: object, flags: list[int]) -> None:
        self._disk = disk
        self._is_main = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._is_main:
            self._disk.left -= 1
            if self._disk.left < 0:
                os._exit(0)
        super().xWrite(data, offset)


@pytest.fixture(autouse=True)
def _leave_nothing(path: Path) -> Iterator[None]:
    yield
    assert not [name for name in names_in(path.parent) if "journal-" in name]
