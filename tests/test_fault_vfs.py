"""The disk with faults that `journal.testing` gives to users: it counts, and fails when it says."""

import contextlib
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import apsw
import pytest
from support import activated, check_file

from journal import (
    AccessDeniedError,
    CommitFailedError,
    Journal,
    SessionId,
    StorageError,
    StorageFullError,
)
from journal.file.opening import Durability
from journal.testing import FaultVFS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")

SESSION = SessionId("00000000-0000-0000-0000-000000000001")
EVENT = activated(SESSION)


@pytest.mark.parametrize(("durability", "syncs"), [("full", 5), ("normal", 0)])
def test_commits_and_syncs_are_counted(tmp_path: Path, durability: Durability, syncs: int) -> None:
    with FaultVFS() as disk, Journal.open(tmp_path / "a.db", durability=durability) as journal:
        journal.append_events([EVENT])
        before = disk.commits, disk.syncs

        for _ in range(5):
            journal.append_events([EVENT] * 500)

        assert (disk.commits - before[0], disk.syncs - before[1]) == (5, syncs)


@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_commit_fails_when_it_was_said_to(
    tmp_path: Path, durability: Durability, after: int
) -> None:
    path = tmp_path / "a.db"
    with FaultVFS() as disk, Journal.open(path, durability=durability) as journal:
        journal.append_events([EVENT])
        disk.fail("commit", after=after)

        for _ in range(after):
            journal.append_events([EVENT])
        with pytest.raises(CommitFailedError):
            journal.append_events([EVENT])

    assert len(check_file(path)) == 1 + after


def test_a_sync_fails_so_often_and_no_more(tmp_path: Path) -> None:
    with FaultVFS() as disk, Journal.open(tmp_path / "a.db") as journal:
        journal.append_events([EVENT])
        disk.fail("sync", after=1, times=2, file="-wal")
        disk.fail("sync", times=math.inf, file="elsewhere")

        failed = []
        for number in range(6):
            try:
                disk.about_to("sync", "a.db-wal")
            except apsw.IOError:
                failed.append(number)

        assert failed == [1, 2]
        disk.heal()


def test_a_disk_that_is_full_has_room_again_once_it_is_healed(tmp_path: Path) -> None:
    with FaultVFS() as disk, Journal.open(tmp_path / "a.db") as journal:
        journal.append_events([EVENT])

        disk.is_full = True
        for _ in range(2):
            with pytest.raises(StorageFullError):
                journal.append_events([EVENT])
        disk.heal()
        journal.append_events([EVENT])

        assert journal.event_count() == 2


@pytest.mark.parametrize("what", ["open", "read"])
def test_files_can_fail_to_open_and_to_be_read(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_events([EVENT])
    with FaultVFS() as disk:
        disk.fail(what, times=math.inf)  # type: ignore[arg-type]

        with pytest.raises((AccessDeniedError, StorageError)):
            Journal.open(path)

        disk.heal()
        Journal.open(path).close()


def test_a_slow_sync_holds_up_who_waits_for_it_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[tuple[str, float]] = []
    sleep = time.sleep

    def noted(seconds: float) -> None:
        slept.append((threading.current_thread().name, seconds))
        sleep(seconds / 100)

    with FaultVFS() as disk, Journal.open(tmp_path / "a.db") as journal:
        journal.append_events([EVENT])
        disk.sync_seconds = 0.25
        monkeypatch.setattr(time, "sleep", noted)

        thread = threading.Thread(target=journal.append_events, args=([EVENT],), name="appending")
        thread.start()
        assert len(journal.get_events_for_session(SESSION)) in (1, 2)
        thread.join()

        monkeypatch.undo()
        disk.sync_seconds = 0
    assert slept == [("appending", 0.25)]


def test_what_happens_is_told_before_it_does_and_can_be_refused(tmp_path: Path) -> None:
    seen = []
    with FaultVFS() as disk, Journal.open(tmp_path / "a.db") as journal:
        journal.append_events([EVENT])

        def before(what: str, file: str, data: bytes, number: int) -> None:
            seen.append((what, Path(file).name, len(data)))
            if what == "sync":
                raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)

        disk.before = before
        with pytest.raises(CommitFailedError):
            journal.append_events([EVENT])
        disk.before = None

    assert seen[-1] == ("sync", "a.db-wal", 0)
    assert ("write", "a.db-wal", 4096) in seen


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_the_journal_does_to_the_wal_by_itself_is_seen(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("on Linux only")
    own = os.write, os.fsync
    reasons = []
    for after in range(4):
        path = tmp_path / f"{after}.db"
        with FaultVFS() as disk:
            with contextlib.suppress(StorageError), Journal.open(path) as journal:
                journal.append_events([EVENT])
                disk.fail("sync", times=math.inf)
            disk.heal()
            disk.fail("sync", after=after, times=math.inf)
            with contextlib.suppress(StorageError):
                try:
                    Journal.open(path).close()
                except StorageError as error:
                    reasons.append(error.reason)
                    raise

    assert any(reason.startswith("its -wal cannot be synced") for reason in reasons), reasons
    assert (os.write, os.fsync) == own


def test_the_real_disk_is_back_after_it(tmp_path: Path) -> None:
    before = apsw.vfs_names()
    with FaultVFS() as disk:
        assert apsw.vfs_names() != before
        disk.fail("open", times=math.inf)

    Journal.open(tmp_path / "a.db").close()
    assert apsw.vfs_names() == before


@pytest.mark.parametrize(
    "arguments", [{"what": "fsync"}, {"what": "sync", "after": -1}, {"what": "sync", "times": -1}]
)
def test_what_cannot_fail_is_refused(arguments: dict[str, object]) -> None:
    with FaultVFS() as disk, pytest.raises(ValueError, match="expected one of commit, sync, "):
        disk.fail(**arguments)  # type: ignore[arg-type]


def test_it_needs_no_pytest() -> None:
    code = "import sys; from journal.testing import FaultVFS; sys.exit('pytest' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)
