"""Files that are made whole or not at all: where they may be, and what a killed run leaves."""

import errno
import itertools
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import support
from support import Channel, Child, InterruptAfterCall, become_nobody, names_in, run

from journal import errors
from journal.maintenance import targets
from journal.maintenance.targets import check_room, check_target, put_in_place, work_folder

if sys.platform == "win32":
    pytest.skip("links and killing are tried elsewhere", allow_module_level=True)


def made(target: Path, text: str, *, force: bool = False) -> None:
    with work_folder(target) as folder:
        (folder / "copy").write_text(text)
        put_in_place(folder / "copy", target, force=force)


# Where it may be


def test_a_target_that_is_not_there_is_returned_with_links_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "to.db").symlink_to(tmp_path / "real" / "made.db")

    assert check_target(tmp_path / "link" / "a.db") == tmp_path / "real" / "a.db"
    assert check_target(tmp_path / "to.db") == tmp_path / "real" / "made.db"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("spelt", ["same", "dots", "symbolic", "hard", "folder"])
def test_nothing_takes_the_place_of_its_source(tmp_path: Path, suffix: str, spelt: str) -> None:
    source = tmp_path / "a.db"
    source.write_text("source")
    own = tmp_path / f"a.db{suffix}"
    own.touch()
    if spelt == "dots":
        target = tmp_path / "x" / ".." / own.name
        (tmp_path / "x").mkdir()
    elif spelt == "symbolic":
        target = tmp_path / "other.db"
        target.symlink_to(own)
    elif spelt == "hard":
        target = tmp_path / "other.db"
        target.hardlink_to(own)
    elif spelt == "folder":
        (tmp_path / "x").symlink_to(tmp_path)
        target = tmp_path / "x" / own.name
    else:
        target = own

    with pytest.raises(errors.WrongTargetError, match="is the " + (suffix or "very file")):
        check_target(target, [source], force=True)


def test_a_source_s_companions_that_are_not_there_are_no_targets_either(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()

    with pytest.raises(errors.WrongTargetError, match="is the -wal of"):
        check_target(tmp_path / "a.db-wal", [tmp_path / "a.db"])
    with pytest.raises(errors.WrongTargetError, match=r"taken for the -journal of a\.db$"):
        check_target(tmp_path / "a.db-journal")


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_that_may_be_in_use_is_not_replaced(
    tmp_path: Path, suffix: str, is_there: bool
) -> None:
    (tmp_path / f"b.db{suffix}").touch()
    if is_there:
        (tmp_path / "b.db").touch()

    with pytest.raises(errors.WrongTargetError, match=rf"has b\.db{suffix} beside it"):
        check_target(tmp_path / "b.db", force=True)


def test_what_is_there_is_replaced_only_with_force(tmp_path: Path) -> None:
    target = tmp_path / "b.db"
    target.write_text("before")

    with pytest.raises(FileExistsError, match="exists already") as caught:
        check_target(target)

    assert isinstance(caught.value, errors.TargetExistsError)
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(target))
    made(check_target(target, force=True), "after", force=True)
    assert target.read_text() == "after"


def test_folders_and_devices_are_no_targets(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(errors.PathIsDirectoryError):
        check_target(tmp_path, force=True)
    with pytest.raises(errors.WrongTargetError, match="not a regular file"):
        check_target(tmp_path / "pipe", force=True)
    for folder in (tmp_path / "missing", tmp_path / "pipe"):
        with pytest.raises(errors.JournalNotFoundError, match="its folder does not exist"):
            check_target(folder / "b.db")
    with pytest.raises(errors.StorageError, match="too long"):
        check_target(tmp_path / ("b" * 300))


def look_at_forbidden_places(_channel: Channel, folder: Path) -> list[str]:
    become_nobody()
    found = []
    for path in (folder / "b.db", folder / "closed" / "inner" / "b.db"):
        try:
            check_target(path)
        except errors.AccessDeniedError as error:
            found.append(error.reason)
    return found


def test_a_folder_that_may_not_be_written_or_seen_is_told() -> None:
    with TemporaryDirectory() as name:  # that of pytest is for its user only
        folder = Path(name)
        (folder / "closed" / "inner").mkdir(parents=True)
        (folder / "closed").chmod(0o600)
        folder.chmod(0o555)

        found = run(look_at_forbidden_places, folder)

        for path in (folder, folder / "closed"):
            path.chmod(0o755)
    assert found == [
        "cannot be made: its folder cannot be written",
        "cannot be made: permission denied",
    ]


def test_what_needs_more_room_than_there_is_is_not_begun(tmp_path: Path) -> None:
    check_room(tmp_path / "b.db", 1)
    with pytest.raises(errors.StorageFullError, match="no room for it: it needs 1,000,000,"):
        check_room(tmp_path / "b.db", 10**18)


# Making it


def fail_in_the_middle(target: Path, ending: type[BaseException]) -> None:
    with work_folder(target) as folder:
        assert folder.parent == target.parent
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "copy").write_text("half")
        raise ending


def test_the_folder_is_removed_whatever_happens(tmp_path: Path) -> None:
    made(tmp_path / "b.db", "made")
    for ending in (ValueError, KeyboardInterrupt):
        with pytest.raises(ending):
            fail_in_the_middle(tmp_path / "c.db", ending)

    assert names_in(tmp_path) == ["b.db"]


def make_interrupted(target: Path, call: int) -> bool:
    """Tell whether there was a call left to be interrupted in."""
    interrupt = InterruptAfterCall(call, ("journal.", "pathlib"))
    with suppress(KeyboardInterrupt):
        with interrupt, work_folder(target) as folder:
            (folder / "copy").touch()
        return interrupt.left == 0
    return True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in pathlib itself
def test_an_interrupt_at_any_call_leaves_no_folder(tmp_path: Path) -> None:
    """Such as one that comes while the folder is made, or removed."""
    for call in itertools.count(1):
        if not make_interrupted(tmp_path / "b.db", call):
            break
        assert names_in(tmp_path) == [], f"interrupted in call {call}"
    assert call > 50


def be_killed_while_making(channel: Channel, target: Path) -> None:
    with work_folder(target) as folder:
        (folder / "copy").write_text("half")
        channel.send(folder)
        channel.receive()


def test_what_a_killed_run_left_is_removed_by_the_next_whatever_it_makes(tmp_path: Path) -> None:
    with Child(be_killed_while_making, tmp_path / "b.db") as child:
        left = child.receive()
        child.kill()
    (tmp_path / ".journal-part-0123456789abcdef").mkdir()  # killed before it had its lock
    (tmp_path / ".journal-part-mine").mkdir()
    assert (left / "copy").read_text() == "half"

    made(tmp_path / "c.db", "made")

    assert names_in(tmp_path) == [".journal-part-mine", "c.db"]


def test_what_a_living_run_makes_stays(tmp_path: Path) -> None:
    with Child(be_killed_while_making, tmp_path / "b.db") as child, work_folder(tmp_path) as mine:
        theirs = child.receive()
        made(tmp_path / "c.db", "made")

        assert theirs.exists()
        assert mine.parent == tmp_path.parent
        child.send("go on")
        child.receive()
        assert not theirs.exists()
    with work_folder(tmp_path / "d.db") as mine:
        made(tmp_path / "e.db", "made")
        assert mine.exists()


def test_many_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def make_some(name: int) -> None:
        try:
            for number in range(50 * support.ROUNDS):
                made(tmp_path / f"{name}-{number}", "made")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make_some, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(names_in(tmp_path)) == 6 * 50 * support.ROUNDS


def test_one_who_finds_the_folder_before_its_lock_only_makes_another_necessary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open, disturbed = os.open, []

    def open_late(path: Path, flags: int, mode: int = 0o777, **where: int) -> int:
        if flags & os.O_EXCL and len(disturbed) < 2:
            disturbed.append(path)
            if len(disturbed) == 1:  # before the lock is there
                targets._remove_dead(tmp_path)
                return really_open(path, flags, mode, **where)
            descriptor = really_open(path, flags, mode, **where)
            targets._remove_dead(tmp_path)  # and before it is locked
            return descriptor
        return really_open(path, flags, mode, **where)

    monkeypatch.setattr(os, "open", open_late)
    with work_folder(tmp_path / "b.db") as folder:
        assert len(disturbed) == 2
        assert folder not in [path.parent for path in disturbed]
        assert (folder / "lock").exists()


# Giving it its name


@pytest.mark.parametrize("has_links", [True, False])
def test_who_is_slower_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    target = tmp_path / "b.db"
    if not has_links:

        def no_links(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", no_links)
    with work_folder(target) as folder:
        (folder / "copy").write_text("slower")
        made(target, "faster")

        with pytest.raises(errors.TargetExistsError):
            put_in_place(folder / "copy", target)

    assert target.read_text() == "faster"
    assert target.stat().st_nlink == 1
    assert names_in(tmp_path) == ["b.db"]


def test_file_and_folder_are_synced_around_the_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synced = tmp_path / "b.db", []

    def sync(descriptor: int) -> None:
        synced.append((Path(f"/dev/fd/{descriptor}").resolve().name, target.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    made(target, "made")

    assert [is_there for _, is_there in synced] == [False, True]
    if sys.platform == "linux":
        assert [name for name, _ in synced] == ["copy", tmp_path.name]


def test_a_sync_that_fails_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(errors.StorageError, match="cannot be made"):
        made(tmp_path / "b.db", "made")

    assert names_in(tmp_path) == []


def make_on_a_full_disk(_channel: Channel, folder: Path) -> list[str]:
    support.own_mounts()
    support.mount_memory(folder, 64 * 1024)
    (folder / "filler").write_bytes(bytes(40 * 1024))
    try:
        made(folder / "b.db", "made" * 16 * 1024)
    except OSError as error:
        return [targets.target_error(folder / "b.db", error).reason, *names_in(folder)]
    return []


def test_a_full_disk_is_named_and_what_was_begun_is_removed(tmp_path: Path) -> None:
    assert run(make_on_a_full_disk, tmp_path) == ["cannot be made: the disk is full", "filler"]


def test_killing_does_not_wait(tmp_path: Path) -> None:
    """The lock of a killed process is gone at once, so that the next run need not be told twice."""
    for _ in range(3):
        with Child(be_killed_while_making, tmp_path / "b.db") as child:
            child.receive()
            os.kill(child._process.pid or 0, signal.SIGKILL)
            child._process.join()
        made(tmp_path / "b.db", "made", force=True)
        assert names_in(tmp_path) == ["b.db"]
