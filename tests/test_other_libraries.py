"""A second SQLite in the process, and whatever else opens and closes the file.

Any close() of the file drops SQLite's locks in this process. With locks of the journal's own, what
was acknowledged stays, with one and with several writing processes.
"""

import hashlib
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest
from support import (
    ROUNDS,
    SEEDS,
    Channel,
    Child,
    InterruptAfterCall,
    activated,
    append_and_die,
    become_nobody,
    check_file,
    folder_for_everybody,
    let_go,
    numbered,
)

from journal import (
    BusyError,
    Journal,
    SessionId,
    StaleWalError,
    StorageError,
    StorageFullError,
)
from journal.file import connections, holding, ofd_locks, opening

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there a close drops no locks")


def append(journal: Journal, count: int) -> int:
    for _ in range(count):
        journal.append_events([activated(SessionId.new())])
    return count


def look_with_sqlite3(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM events").fetchone()


def look_read_only(path: Path) -> None:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as other:
        other.execute("SELECT * FROM sessions").fetchall()


def look_with_apsw(path: Path) -> None:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as other:
        other.execute("SELECT count(*) FROM event").fetchall()


def look_with_duckdb(path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    extension = pytest.importorskip("duckdb_extension_sqlite_scanner")
    binary = next(Path(extension.__path__[0]).rglob("*.duckdb_extension"))
    with closing(duckdb.connect()) as other:
        other.execute(f"LOAD '{binary}'")
        other.execute(f"ATTACH '{path}' AS journal (TYPE sqlite, READ_ONLY)")
        other.execute("SELECT count(*) FROM journal.event").fetchall()


def hash_it(path: Path) -> None:
    for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        with suppress(FileNotFoundError):
            hashlib.sha256(name.read_bytes()).hexdigest()


def back_it_up(path: Path) -> None:
    shutil.copyfile(path, path.with_name("backup"))


LOOKS: list[Callable[[Path], None]] = [
    look_with_sqlite3,
    look_read_only,
    look_with_apsw,
    look_with_duckdb,
    hash_it,
    back_it_up,
]
looks = pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__)


@looks
def test_nothing_is_lost_to_somebody_who_looks_on(
    tmp_path: Path, look: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.db"
    journal = Journal.open(path)
    count = 0
    for _ in range(20):
        count += append(journal, 3)
        look(path)
    # Another process comes and goes: it must not take itself for the last one.
    with Child(open_and_close, path) as child:
        count += child.receive()
    count += append(journal, 3)
    journal.close()

    assert len(check_file(path)) == count


def open_and_close(_channel: Channel, path: Path) -> int:
    with Journal.open(path) as journal:
        return append(journal, 2)


def test_a_kept_connection_of_another_library_does_not_stop_closing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as other:
        with Journal.open(path) as journal:
            append(journal, 5)
            other.execute("SELECT count(*) FROM event").fetchone()
        with Journal.open(path) as journal:
            append(journal, 5)
        assert other.execute("SELECT count(*) FROM event").fetchone() == (10,)

    with Journal.open(path) as journal:
        assert append(journal, 1) == 1
    assert len(check_file(path, closed=True)) == 11


def write_and_be_looked_at(channel: Channel, path: Path, seconds: float) -> int:
    """Open, append and close, again and again, while another library does so without a pause."""
    count = 0
    stop = threading.Event()

    def look_on() -> None:
        while not stop.is_set():
            with suppress(sqlite3.Error):  # what it sees is its own affair
                look_with_sqlite3(path)
            hash_it(path)

    looking = threading.Thread(target=look_on)
    channel.meet()
    looking.start()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            # What was overwritten while it was read is to be read again: nothing is lost.
            with suppress(BusyError), Journal.open(path, durability="normal") as it:
                for _ in range(3):
                    count += append(it, 1)
    finally:
        stop.set()
        looking.join()
    return count


@pytest.mark.parametrize("is_new", [False, True], ids=["there", "new"])
@pytest.mark.parametrize(
    "seconds", [1.0 * ROUNDS, pytest.param(10.0, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_writing_processes_in_which_another_library_looks_destroy_nothing(
    tmp_path: Path, seconds: float, is_new: bool
) -> None:
    """With SQLite's locks only, the file was malformed in every trial.

    So it was while the journal's own stood from the end of opening on: another process deleted the
    -wal that was being opened, or cut the -shm, of which the process died (SIGBUS).
    """
    path = tmp_path / "a.db"
    if not is_new:
        Journal.open(path).close()
    children = [Child(write_and_be_looked_at, path, seconds) for _ in range(3)]
    let_go(children)
    count = sum(child.receive() for child in children)

    with closing(apsw.Connection(str(path))) as file:
        assert file.pragma("integrity_check") == "ok"
    assert len(check_file(path)) == count > 0


def open_slowly(channel: Channel, path: Path, read_only: bool) -> int:
    """Open, and wait as soon as SQLite has done so; another library closes the file meanwhile."""
    function = "open_reader" if read_only else "settle"
    original = getattr(connections, function)
    has_waited = False

    def then_wait(*arguments: object, **named: object) -> object:
        nonlocal has_waited
        result = original(*arguments, **named)
        if not has_waited:
            has_waited = True
            hash_it(path)  # drops SQLite's locks
            channel.meet()
            channel.meet()
        return result

    setattr(connections, function, then_wait)
    with Journal.open(path, read_only=read_only) as journal:
        channel.meet()
        if not read_only:
            append(journal, 2)
        channel.meet()
        return journal.event_count()


@pytest.mark.parametrize("is_new", [False, True], ids=["there", "new"])
def test_nobody_deletes_the_wal_that_is_being_opened(tmp_path: Path, is_new: bool) -> None:
    path = tmp_path / "a.db"
    if not is_new:
        Journal.open(path).close()
    with Child(open_slowly, path, False) as child:
        let_go([child])  # SQLite has it open
        for suffix, where in (("", ofd_locks.MAIN), ("-shm", ofd_locks.SHM)):
            with path.with_name(path.name + suffix).open("r+b") as file:
                assert ofd_locks.is_locked(file.fileno(), where)
        look_with_sqlite3(path)
        assert path.with_name("a.db-wal").exists()
        let_go([child])
        let_go([child])
        with Child(open_and_close, path) as other:
            assert other.receive() == 2
        let_go([child])
        assert child.receive() == 4

    assert len(check_file(path, closed=True)) == 4


def test_a_reader_sees_what_comes_though_another_closed_the_file_as_it_opened(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    Journal.open(path).close()
    with Child(open_slowly, path, True) as child:
        let_go([child])
        look_with_sqlite3(path)
        let_go([child])
        let_go([child])
        with Journal.open(path) as journal:
            append(journal, 3)
            let_go([child])
            assert child.receive() == 3


def append_much(_channel: Channel, path: Path) -> int:
    with Journal.open(path, durability="normal") as journal:
        for _ in range(20):
            journal.append_events([activated(SessionId.new()) for _ in range(1000)])
        return 20_000


def read_while_another_appends(journal: Journal, path: Path) -> None:
    with journal._database.read() as connection:
        rows = connection.execute("SELECT * FROM event")
        next(rows)
        hash_it(path)
        with Child(append_much, path) as child:
            assert child.receive() == 20_000
        rows.fetchall()


def test_a_reader_whose_mark_is_gone_is_told_to_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path, durability="normal") as journal:
        for _ in range(5):
            journal.append_events([activated(SessionId.new()) for _ in range(1000)])
        with pytest.raises(BusyError, match="read it again"):
            read_while_another_appends(journal, path)
        assert sum(1 for _ in journal.read()) == 25_000


def fail_at_first(monkeypatch: pytest.MonkeyPatch, code: int) -> list[apsw.Connection]:
    """Have the first look into a file fail; return a list that gets the connections that look."""
    check_identity = opening.check_identity
    seen: list[apsw.Connection] = []

    def look(connection: apsw.Connection, path: Path) -> None:
        seen.append(connection)
        if len(seen) == 1:
            error = apsw.IOError("disk I/O error")
            error.extendedresult = code
            raise error
        check_identity(connection, path)

    monkeypatch.setattr(opening, "check_identity", look)
    return seen


to_write_and_to_read = pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])


@to_write_and_to_read
def test_what_was_cut_off_while_sqlite_opened_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    """It looks for a page in a -wal that was emptied just then, once in some thousand openings."""
    path = tmp_path / "a.db"
    Journal.open(path).close()
    seen = fail_at_first(monkeypatch, apsw.SQLITE_IOERR_SHORT_READ)

    with Journal.open(path, read_only=read_only) as journal:
        assert journal.event_count() == 0
        with pytest.raises(apsw.ConnectionClosedError):
            seen[0].execute("SELECT 1")


@to_write_and_to_read
def test_a_disk_that_cannot_be_read_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    path = tmp_path / "a.db"
    Journal.open(path).close()
    seen = fail_at_first(monkeypatch, apsw.SQLITE_IOERR_READ)

    with pytest.raises(StorageError, match="disk I/O error"):
        Journal.open(path, read_only=read_only)
    assert len(seen) == 1


def hold_the_lock(channel: Channel, path: Path) -> None:
    with Journal.open(path) as journal:
        channel.meet()
        with journal._database.write() as connection:
            connection.execute("UPDATE meta SET value = value")
            channel.meet()
            channel.meet()


def test_who_closes_while_another_writes_leaves_the_wal_to_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint beside a writer is safe by SQLite's locks only, which others drop."""
    monkeypatch.setattr(connections, "_CLOSING_WAIT_MS", 0)
    path = tmp_path / "a.db"
    journal = Journal.open(path)
    with Child(hold_the_lock, path) as child:
        assert child.receive() == "ready"
        append(journal, 3)
        child.send("write")
        let_go([child])
        before = path.read_bytes()
        journal._database.close()  # not Journal.close, which has more to write
        while_it_writes = path.read_bytes()
        let_go([child])
        child.receive()

    assert while_it_writes == before
    assert not path.with_name("a.db-wal").exists()
    assert len(check_file(path)) == 3


def test_a_write_transaction_excludes_another_process_though_its_sqlite_lock_is_gone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        append(journal, 1)
        with Child(open_and_close, path) as child:
            with journal._database.write() as connection:
                connection.execute("UPDATE meta SET value = value")
                look_with_sqlite3(path)
                hash_it(path)  # drops the lock on the -shm
                time.sleep(0.3)
                assert not child._channel.poll()
            assert child.receive() == 2
        append(journal, 1)

    assert len(check_file(path)) == 4


def test_journals_of_one_process_share_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("open descriptors cannot be counted here")
    before = len(list(descriptors.iterdir()))
    journals = [Journal.open(path) for _ in range(3)]
    journals.append(Journal.open(path, read_only=True))
    link = tmp_path / "link.db"
    link.symlink_to(path)
    journals.append(Journal.open(link))
    for journal in (*journals[:3], journals[4]):
        append(journal, 2)
    for journal in journals[:4]:
        journal.close()
    append(journals[4], 1)
    journals[4].close()

    assert len(list(descriptors.iterdir())) == before
    assert len(check_file(path, closed=True)) == 9


def test_a_connection_of_ours_reads_in_sql_and_is_closed_with_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        append(journal, 3)
        connection = journal.connection()
        assert connection.execute("SELECT count(*) FROM events").get == 3
        append(journal, 1)
        assert connection.execute("SELECT count(*) FROM events").get == 4
        with pytest.raises(apsw.ReadOnlyError):
            connection.execute("DELETE FROM meta")
    with pytest.raises(apsw.ConnectionClosedError):
        connection.execute("SELECT 1")
    assert [name.name for name in tmp_path.iterdir()] == ["a.db"]


def read_and_leave(_channel: Channel, path: Path) -> tuple[int, float]:
    began = time.monotonic()
    with Journal.open(path, read_only=True) as journal:
        count = journal.event_count()
    return count, time.monotonic() - began


def test_a_long_write_holds_up_no_reader(tmp_path: Path) -> None:
    """Opening takes the lock for writing, if that can be had soon."""
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        append(journal, 3)
        with journal._database.write() as connection:
            connection.execute("UPDATE meta SET value = value")
            with Child(read_and_leave, path) as child:
                count, seconds = child.receive()
        assert count == 3
        assert seconds < 20  # a second, on a machine that is not busy
        append(journal, 1)
    assert len(check_file(path, closed=True)) == 4


def test_what_another_library_has_open_stays_locked_until_it_is_closed(tmp_path: Path) -> None:
    """Closing a journal drops the locks of the other one, so those of the journal stay."""
    path, descriptors = tmp_path / "a.db", Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("open descriptors cannot be counted here")
    with Child(open_and_close, path) as child:  # which opens pipes that stay, too
        assert child.receive() == 2
    before = len(list(descriptors.iterdir()))
    with closing(sqlite3.connect(path)) as other:
        with Journal.open(path) as journal:
            append(journal, 3)
            other.execute("SELECT count(*) FROM event").fetchone()
        with Child(open_and_close, path) as child:
            assert child.receive() == 2
        assert path.with_name("a.db-wal").stat().st_size == 0
        assert other.execute("SELECT count(*) FROM event").fetchone() == (7,)

    Journal.open(tmp_path / "b.db").close()
    assert [name.name for name in sorted(tmp_path.iterdir())] == ["a.db", "b.db"]
    assert len(list(descriptors.iterdir())) == before
    assert len(check_file(path)) == 7


# In any order


def write_and_look(channel: Channel, path: Path, seed: int) -> int:
    """Open, append, close and look in every way, at random; return how many were appended."""
    draw = random.Random(seed)
    ways = [look for look in LOOKS if look not in (look_with_duckdb, back_it_up)]
    journals: list[Journal] = []
    kept: list[sqlite3.Connection] = []
    count = 0
    channel.meet()
    for _ in range(60):
        match draw.choice(["open", "close", "append", "append", "look", "look", "keep", "let go"]):
            case "open" if len(journals) < 3:
                durability = draw.choice(["full", "normal"])
                journals.append(Journal.open(path, durability=durability))  # type: ignore[arg-type]
            case "close" if journals:
                journals.pop(draw.randrange(len(journals))).close()
            case "append" if journals:
                count += append(draw.choice(journals), draw.randrange(1, 8))
            case "look":
                draw.choice(ways)(path)
            case "keep" if len(kept) < 2:
                kept.append(sqlite3.connect(path))
                kept[-1].execute("SELECT count(*) FROM event").fetchone()
            case "let go" if kept:
                kept.pop().close()
    for closing_one in draw.sample([*journals, *kept], len(journals) + len(kept)):
        closing_one.close()
    return count


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_looks_on_in_whatever_order_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    for number in range(2):
        path = tmp_path / f"{number}.db"
        Journal.open(path).close()
        children = [Child(write_and_look, path, seed * 100 + number * 10 + i) for i in range(3)]
        let_go(children)
        count = sum(child.receive() for child in children)

        with closing(apsw.Connection(str(path))) as file:
            assert file.pragma("integrity_check") == "ok"
        assert len(check_file(path)) == count


# What was found by a review


def test_a_wal_without_its_file_is_kept_and_refused(tmp_path: Path) -> None:
    """It was laid over a new file, or dropped: it may be all that is left of a journal."""
    path = tmp_path / "a.db"
    with Child(append_and_die, path, numbered(SessionId.new(), [1, 2])) as child:
        child.wait_until_killed()
    wal = path.with_name("a.db-wal").read_bytes()
    path.unlink()
    for _ in ("not there", "empty"):
        with pytest.raises(StaleWalError, match="a file that is not there any more"):
            Journal.open(path)
        assert path.with_name("a.db-wal").read_bytes() == wal
        assert not path.exists() or path.stat().st_size == 0
        path.touch()


def test_an_empty_file_that_cannot_become_a_journal_stays_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    path.touch()

    def fail(*_: object) -> None:
        raise apsw.FullError("full")

    monkeypatch.setattr(connections, "settle", fail)
    with pytest.raises(StorageFullError):
        Journal.open(path)
    assert [(name.name, name.stat().st_size) for name in tmp_path.iterdir()] == [("a.db", 0)]
    monkeypatch.undo()
    Journal.open(path).close()
    assert check_file(path) == []


def test_a_backup_is_not_taken_for_the_file_that_another_library_had_open(tmp_path: Path) -> None:
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    with Journal.open(backup) as journal:
        for _ in range(300):
            journal.append_events([activated(SessionId.new()) for _ in range(10)])
    with closing(sqlite3.connect(path)) as other:
        with Journal.open(path) as journal:
            append(journal, 3)
            other.execute("SELECT count(*) FROM event").fetchone()
    backup.replace(path)
    with Journal.open(path) as journal:
        append(journal, 1)
    assert len(check_file(path)) == 3001


def look_as_nobody(channel: Channel, path: Path) -> int:
    become_nobody()
    with Journal.open(path, read_only=True) as journal:
        count = journal.event_count()
        channel.meet()
        return count


def test_who_may_only_read_hides_no_old_shm_from_who_writes(tmp_path: Path) -> None:
    """After a power cut there may be an older -shm than the -wal: events were overwritten."""
    work = tmp_path / "a.db"
    Journal.open(work).close()
    with folder_for_everybody() as folder:
        path = folder / "a.db"
        with Child(append_and_wait, work) as child:
            let_go([child])  # half of them are there
            assert child.receive() == "ready"
            shm = work.with_name("a.db-shm").read_bytes()
            child.send("go")
            assert child.receive() == "ready"
            for suffix in ("", "-wal"):
                shutil.copyfile(work.with_name("a.db" + suffix), folder / f"a.db{suffix}")
            child.send("go")
            child.receive()
        (folder / "a.db-shm").write_bytes(shm)
        for name in folder.iterdir():
            name.chmod(0o644)
        with Child(look_as_nobody, path) as reader:
            assert reader.receive() == "ready"
            with Journal.open(path) as journal:
                assert journal.event_count() == 10
                append(journal, 1)
            reader.send("go")
            assert reader.receive() == 10
        assert len(check_file(path)) == 11


def append_and_wait(channel: Channel, path: Path) -> None:
    with Journal.open(path) as journal:
        channel.meet()
        append(journal, 5)
        channel.meet()
        append(journal, 5)
        channel.meet()


def test_a_torn_read_is_told_also_where_nothing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path, durability="normal") as journal:
        append(journal, 5)
        database = journal._database
        seen = []
        with pytest.raises(BusyError, match="read it again"):  # noqa: PT012
            with database.read() as connection:
                seen.append(connection.execute("SELECT count(*) FROM meta").get)
                hash_it(path)
                with Child(append_much, path) as child:
                    child.receive()
        assert len(seen) == 1
        assert journal.event_count() == 20_005


def test_two_threads_that_open_at_once_leak_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("open descriptors cannot be counted here")
    path = tmp_path / "a.db"
    Journal.open(path).close()
    monkeypatch.setattr(connections, "_READING_WAIT_MS", 0)
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        barrier = threading.Barrier(4)

        def open_it(number: int, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            Journal.open(path, read_only=number > 0).close()

        threads = [threading.Thread(target=open_it, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(list(descriptors.iterdir())) == before
    assert [name.name for name in tmp_path.iterdir()] == ["a.db"]


def test_a_full_disk_leaves_no_lock_on_the_shm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    Journal.open(path).close()

    def fail(_shm: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(holding, "forget_wal_index", fail)
    with Journal.open(path) as journal:
        append(journal, 1)
        with Child(open_and_close, path) as child:
            assert child.receive() == 2
    assert len(check_file(path)) == 3


def test_an_interrupt_as_it_closes_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as other:
        journal = Journal.open(path)
        append(journal, 1)
        other.execute("SELECT count(*) FROM event").fetchone()
        for call in range(1, 400):
            with suppress(KeyboardInterrupt), InterruptAfterCall(call) as interrupt:
                journal.close()
            with closing(sqlite3.connect(path, timeout=0)) as looking:
                looking.execute("SELECT count(*) FROM event").fetchone()
            journal.close()
            if interrupt.left > 0:
                break
            journal = Journal.open(path)
        journal.close()
    assert call > 20
