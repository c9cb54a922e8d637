"""How a file is shipped: beside whatever else goes on, and whatever stops it."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from commands_support import EAGER, ended, environment, run, run_all, run_here, start, started
from support import SEEDS, Channel, Child, bytes_in, lines_of, names_in

import journal
from journal import Journal, SessionId, StorageFullError, errors
from journal.maintenance import finishing, shipping, targets

LINES = lines_of("mixed/events.ndjson")

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed journal, complete."""
    path = tmp_path_factory.mktemp("whole") / "app.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES)
    return path


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    (tmp_path / "live").mkdir()
    return Path(shutil.copy(whole, tmp_path / "live" / "app.db"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def ship(path: Path, dest: Path, **options: Any) -> Path:
    with Journal.open(path, read_only=True) as opened:
        return opened.ship(dest, **options).path


# Beside others


def test_the_journal_is_not_written_to(source: Path, out: Path) -> None:
    before = bytes_in(source.parent), source.stat().st_mtime_ns

    ship(source, out / "b.db")

    assert (bytes_in(source.parent), source.stat().st_mtime_ns) == before


def main_and_wal(path: Path) -> dict[str, bytes]:
    """Return the files but the -shm, in which readers leave their marks."""
    return {name: data for name, data in bytes_in(path.parent).items() if name[-4:] != "-shm"}


def test_a_live_journal_is_not_written_to_and_its_wal_is_in_the_copy(
    source: Path, out: Path
) -> None:
    with Journal.open(source) as writer:
        writer.append_ndjson(LINES[:700])
        before = {
            name: data for name, data in bytes_in(source.parent).items() if name[-4:] != "-shm"
        }
        assert before["app.db-wal"]

        for opened in (writer, Journal.open(source, read_only=True)):
            shipment = opened.ship(out / "b.db", force=True)
            assert shipment.event_count == len(LINES) + 700

        after = {
            name: data for name, data in bytes_in(source.parent).items() if name[-4:] != "-shm"
        }
        assert after == before


def test_it_holds_one_moment_while_others_append_and_rebuild(source: Path, out: Path) -> None:
    """Whatever it holds is a beginning of what the journal holds, with nothing half in it."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def going_on(act: Callable[[Journal], object]) -> None:
        try:
            with Journal.open(source, durability="normal") as opened:
                while not stop.is_set():
                    act(opened)
        except BaseException as error:
            failures.append(error)

    acts: list[Callable[[Journal], object]] = [
        lambda opened: opened.append_ndjson(LINES[:30]),
        lambda opened: opened.append_ndjson(LINES[30:37]),
        lambda opened: opened.rebuild(),
    ]
    threads = [threading.Thread(target=going_on, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    try:
        shipments = []
        with Journal.open(source, read_only=True) as opened:
            for number in range(4):
                shipments.append(opened.ship(out / f"{number}.db"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert failures == []
    counts = [shipment.event_count for shipment in shipments]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0] >= len(LINES)
    with Journal.open(source, read_only=True) as opened:
        for shipment in shipments:
            found = journal.verify(shipment.path, full=True)
            assert found.sound, found.findings
            assert journal.verify(source, head=shipment.head).sound
            with Journal.open(shipment.path, read_only=True) as copy:
                theirs = list(opened.read(after=len(LINES), limit=copy.last_position - len(LINES)))
                assert list(copy.read(after=len(LINES))) == theirs
                assert sum(it.event_count for it in copy.sessions()) == copy.event_count()


def hold_a_journal(channel: Channel, path: Path, dest: Path) -> None:
    """Ship, and say so while the journal is still open: its locks are held then."""
    with Journal.open(path, read_only=True) as opened:
        really_copied = shipping.copy_moment

        def copy_slowly(*arguments: Any) -> None:
            really_copied(*arguments)
            channel.meet()

        shipping.copy_moment = copy_slowly
        opened.ship(dest)


@posix_only
def test_the_last_writer_leaves_the_wal_to_who_ships(source: Path, out: Path) -> None:
    """Its locks say that somebody is there, also when a library in the process drops SQLite's."""
    with Child(hold_a_journal, source, out / "b.db") as child:
        with Journal.open(source) as writer:
            writer.append_ndjson(LINES[:10])
            assert child.receive() == "ready"
            with closing(sqlite3.connect(source)) as other:
                other.execute("SELECT count(*) FROM event").fetchone()
        assert (source.parent / "app.db-wal").exists()
        child.send("go")
        child.receive()
    assert journal.verify(out / "b.db", full=True).sound
    assert journal.verify(source, full=True).sound


def ship_as_nobody(_channel: Channel, path: Path, dest: Path) -> list[Any]:
    support.become_nobody()
    with Journal.open(path, read_only=True) as opened:
        shipment = opened.ship(dest)
    return [shipment.event_count, names_in(dest)]


@posix_only
@pytest.mark.parametrize("left", ["nothing", "-wal"])
def test_somebody_who_may_only_read_ships_from_a_folder_that_cannot_be_written(
    whole: Path, left: str
) -> None:
    with support.tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "live", Path(name) / "out"
        folder.mkdir()
        out.mkdir()
        out.chmod(0o777)
        Path(name).chmod(0o755)
        path = Path(shutil.copy(whole, folder / "app.db"))
        if left == "-wal":
            with Child(support.append_and_die, path, support.numbered(SessionId.new(), [1])) as it:
                it.wait_until_killed()
            (folder / "app.db-shm").unlink()
        for each in folder.iterdir():
            each.chmod(0o444)
        folder.chmod(0o555)
        before = bytes_in(folder)

        count, names = support.run(ship_as_nobody, path, out)

        folder.chmod(0o755)
        assert bytes_in(folder) == before
    assert count == len(LINES) + (left == "-wal")
    assert len(names) == 1


@posix_only
def test_two_to_one_place_at_once_make_one_file(source: Path, out: Path) -> None:
    commands = [["ship", source, out / "b.db", "--manifest"]] * 4

    results = run_all(*commands)

    codes = sorted(result.code for result in results)
    assert codes.count(0) == 1
    for result in results:
        assert result.code == 0 or "exists already" in result.err, result
    assert names_in(out) == ["b.db", "b.db.manifest.json"]
    manifest = json.loads((out / "b.db.manifest.json").read_bytes())
    assert manifest["file_bytes"] == (out / "b.db").stat().st_size
    again = run_all(*[["ship", source, out / "b.db", "--force"]] * 3)
    assert [result.code for result in again] == [0, 0, 0]
    assert journal.verify(out / "b.db", full=True).sound


# What stops it


class _StopError(Exception):
    pass


STEPS = {
    "copying": (shipping, "copy_moment"),
    "checking": (finishing, "check_blocks"),
    "folding": (finishing, "catch_up_copy"),
    "pages": (finishing, "check_sqlite"),
    "indexing": (finishing, "read_shipment"),
    "hashing": (shipping, "_digest"),
    "naming": (targets, "_rename_to_new"),
}


@pytest.mark.parametrize("ending", [_StopError, KeyboardInterrupt])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_step_it_is_stopped_at_nothing_is_there(
    source: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    ending: type[BaseException],
) -> None:
    before = bytes_in(source.parent)
    really = getattr(*STEPS[step])

    def stop(*arguments: Any, **options: Any) -> None:
        if step != "naming":
            really(*arguments, **options)
        raise ending

    with monkeypatch.context() as patch, Journal.open(source, read_only=True) as opened:
        patch.setattr(*STEPS[step], stop)
        with pytest.raises(ending):
            opened.ship(out / "b.db", manifest=True)
        assert names_in(out) == []

    assert bytes_in(source.parent) == before
    ship(source, out / "b.db")


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_signal_leaves_nothing_under_the_name(source: Path, out: Path, name: str) -> None:
    number = getattr(signal, name)
    (out / "b.db").write_bytes(b"what was there before")
    delays = (0.0, 0.05, 0.1, 0.2) if name == "SIGKILL" else (0.02, 0.1)
    for delay in delays:
        process = started("ship", source, out / "b.db", "--force", is_loaded=True)
        time.sleep(delay)
        process.send_signal(number)
        result = ended(process)
        assert result.code in (0, -number if name == "SIGKILL" else 130)
        if (out / "b.db").read_bytes() != b"what was there before":  # it was quicker
            assert journal.verify(out / "b.db", full=True).sound
            (out / "b.db").write_bytes(b"what was there before")
        if name != "SIGKILL":
            assert names_in(out) == ["b.db"]

    assert run("ship", source, out / "b.db", "--force").code == 0
    assert names_in(out) == ["b.db"]
    assert journal.verify(out / "b.db", full=True).sound


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_any_moment_it_leaves_all_or_nothing(source: Path, out: Path, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(6):
        process = started("ship", source, out / "b.db", "--manifest", is_loaded=True)
        time.sleep(draw.random() / 2)
        process.kill()
        result = ended(process)
        kept = [name for name in names_in(out) if not name.startswith(".journal-part-")]
        if kept:
            assert journal.verify(out / "b.db", full=True).sound
            (out / "b.db").unlink()
            (out / "b.db.manifest.json").unlink(missing_ok=True)
        else:
            assert result.code == -signal.SIGKILL
    assert run("ship", source, out / "b.db").code == 0
    assert names_in(out) == ["b.db"]


def ship_on_a_full_disk(_channel: Channel, source: Path, folder: Path) -> dict[str, Any]:
    """Ship to a real file system that has more and more room; tell what was said each time."""
    support.own_mounts()
    support.mount_memory(folder, 4 * 1024 * 1024)
    found: dict[str, Any] = {}
    with Journal.open(source, read_only=True) as opened:
        for free in range(0, 1_500_000, 100_000):
            filler = folder / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, max(0, filler.stat().st_size - free))
            try:
                found[str(free)] = opened.ship(folder / "b.db", manifest=True).event_count
            except StorageFullError as error:
                found[str(free)] = (str(error), sorted(set(names_in(folder)) - {"filler"}))
            filler.unlink()
            if (folder / "b.db").exists():
                break
    return found


def test_on_a_full_disk_nothing_is_left_and_it_says_what_is_full(source: Path, out: Path) -> None:
    found = support.run(ship_on_a_full_disk, source, out)

    *full, last = found.values()
    assert last == len(LINES)
    assert len(full) > 4
    assert {tuple(names) for _, names in full} == {()}
    texts = {text.removeprefix(f"{out / 'b.db'}: ") for text, _ in full}
    assert any(re.search(r"^there is no room for it: it needs [\d,]+ bytes", it) for it in texts)
    assert {it for it in texts if "no room" not in it} <= {
        "the disk is full",
        "cannot be made: the disk is full",
    }
    assert "the disk is full" in texts


# Bad input


def refused(arguments: list[Any], folder: Path) -> str:
    """Assert that a command fails in one line, and changes nothing; return the line."""
    before = bytes_in(folder)
    result = run_here("ship", *arguments)
    assert (result.code, result.out) == (1, b""), result
    assert bytes_in(folder) == before
    assert result.err.count("\n") == 1
    return result.err.removeprefix("Error: ").rstrip("\n")


def test_bad_input_is_told_in_a_sentence_and_changes_nothing(source: Path, out: Path) -> None:
    folder = source.parent
    (folder / "text").write_text("no database " * 100)
    with closing(apsw.Connection(str(folder / "other.db"))) as file:
        file.execute("CREATE TABLE t (x)")
    newer = Path(shutil.copy(source, folder / "newer.db"))
    with closing(apsw.Connection(str(newer))) as file:
        file.execute("PRAGMA user_version = 2")
    (folder / "same.db").symlink_to(source)
    (folder / "linked.db").hardlink_to(source)
    (folder / "busy.db").touch()
    (folder / "busy.db-wal").touch()
    copy = out / "b.db"
    for arguments, expected in {
        (folder / "missing.db", copy): "missing.db: does not exist",
        (folder / "text", copy): "text: is not an SQLite database",
        (folder / "other.db", copy): "other.db: is an SQLite database, but not a journal",
        (folder, copy): "live: is a directory, not a journal",
        (newer, copy): "newer.db: has format 2, this version of journal reads up to 1: upgrade it",
        (source, source): "app.db: is the very file that is read",
        (source, folder / "same.db"): "app.db: is the very file that is read",
        (source, folder / "linked.db"): "linked.db: is the very file that is read",
        (source, folder / ".." / "live" / "app.db"): "app.db: is the very file that is read",
        (source, folder / "app.db-wal"): f"app.db-wal: is the -wal of {source}",
        (source, folder / "text"): "text: exists already (only with force it is replaced)",
        (source, folder / "busy.db"): "busy.db: has busy.db-wal beside it, which belongs to a file"
        " that is in use or was left by one: use another name, or see to that first",
        (source, folder / "nothing" / "b.db"): "nothing/b.db: its folder does not exist",
        (source, f"{folder / 'nothing'}/"): "nothing: the folder does not exist",
        (source, folder / ("b" * 300)): f"{'b' * 300}: its name or its path is too long",
    }.items():
        options = [] if "exists already" in expected else ["--force"]
        text = refused([*arguments, *options], folder)
        found = text.replace(f"{folder}{os.sep}", "").replace(f"{folder}:", "live:")
        if "-wal of" not in expected:
            assert found.startswith(expected), found
        else:
            assert text.endswith(expected), text
    assert names_in(out) == []
    for arguments, words in {
        (): "Missing argument 'JOURNAL'",
        (source,): "Missing argument 'DEST'",
        (source, ""): "expected the name of a file, found ''",
    }.items():
        result = run_here("ship", *arguments)
        assert (result.code, words in result.err) == (2, True), result


def test_an_older_format_that_never_was_is_not_shipped(source: Path, out: Path) -> None:
    with closing(apsw.Connection(str(source))) as file:
        file.execute("PRAGMA user_version = 0")

    with pytest.raises(errors.NotAJournalError, match="format 0, which was never released"):
        ship(source, out / "b.db")


def test_a_newer_format_that_can_be_read_is_not_shipped(source: Path, out: Path) -> None:
    """This version does not know what else belongs into a copy of it."""
    with closing(apsw.Connection(str(source))) as file:
        file.execute("PRAGMA user_version = 2")

    with Journal.open(source, read_only=True) as opened:
        assert opened.event_count() == len(LINES)
        with pytest.raises(errors.NewerFormatError, match=re.escape(str(source))):
            opened.ship(out / "b.db")
    assert names_in(out) == []


@pytest.mark.parametrize("what", ["event", "block", "index", "page"])
def test_a_damaged_journal_is_not_shipped(source: Path, out: Path, what: str) -> None:
    with closing(apsw.Connection(str(source))) as file:
        if what == "event":
            file.execute("DROP TRIGGER event_is_never_updated")
            file.execute("UPDATE event SET timestamp = timestamp + 1 WHERE seq = 77")
        elif what == "block":
            file.execute("UPDATE block SET digest = content_digest WHERE first_seq = 1001")
        elif what == "index":
            file.execute("PRAGMA writable_schema = ON")
            file.execute(
                "UPDATE sqlite_schema SET rootpage ="
                " (SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_stream_1')"
                " WHERE name = 'sqlite_autoindex_session_1'"
            )
        else:
            root = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'event'").get
    if what == "page":
        with source.open("rb+") as raw:
            raw.seek((root - 1) * 4096)
            raw.write(bytes(4096))

    with pytest.raises(errors.DamagedError) as caught:
        ship(source, out / "b.db")

    assert caught.value.path == source
    assert caught.value.position == {"event": 1, "block": 1001}.get(what)
    assert names_in(out) == []


def test_what_looks_damaged_is_copied_again_before_it_is_believed(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a library in the process drops the mark that keeps the -wal from beginning anew."""
    really_copied, copies = shipping.copy_moment, []

    def spoil_the_first(database: Any, copy: Path, *rest: Any) -> None:
        really_copied(database, copy, *rest)
        copies.append(copy)
        if len(copies) == 1:
            with copy.open("rb+") as file:
                file.seek(40_000)
                file.write(bytes(8_192))

    monkeypatch.setattr(shipping, "copy_moment", spoil_the_first)

    assert journal.verify(ship(source, out / "b.db"), full=True).sound
    assert len(copies) == 2


def test_force_takes_the_old_manifest_away_first(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it never stands beside a file that is not its own, whatever stops it."""
    ship(source, out / "b.db", manifest=True)
    really_replaced, seen = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        seen.append((target.name, names_in(out)))
        return really_replaced(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    ship(source, out / "b.db", manifest=True, force=True)

    beside = [[name for name in names if name[0] != "."] for _, names in seen]
    assert [name for name, _ in seen] == ["b.db", "b.db.manifest.json"]
    assert beside == [["b.db"], ["b.db"]]
    (out / "b.db").unlink()
    with pytest.raises(errors.TargetExistsError, match=r"b\.db\.manifest\.json: exists already"):
        ship(source, out / "b.db", manifest=True)


# How long, and how much


def test_progress_rises_to_the_number_of_events(source: Path, out: Path) -> None:
    support.unfold(source)
    seen: list[tuple[int, int]] = []

    with Journal.open(source, read_only=True) as opened:
        opened.ship(out / "b.db", progress=lambda done, total: seen.append((done, total)))

    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {len(LINES)}
    assert seen[-1] == (len(LINES), len(LINES))
    assert len({done for done, _ in seen}) > 10


@posix_only
def test_it_shows_its_progress_on_a_terminal_and_takes_it_away(source: Path, out: Path) -> None:
    ours, theirs = pytest.importorskip("pty").openpty()
    process = start(
        "ship", source, out / "b.db", stderr=theirs, env=environment(TERM="xterm"), program=EAGER
    )
    os.close(theirs)
    result = ended(process)
    seen = os.read(ours, 65_536).decode()
    os.close(ours)

    assert result.code == 0
    assert re.search(r"\r\[#+ *\] \d+ %, [\d,]+ events, [\d,]+ events/s, \d+ s left", seen)
    assert seen.rpartition("\r")[2] == ""


_PEAK = """
import sys
from pathlib import Path
from journal import Journal
with Journal.open(sys.argv[1], read_only=True) as opened:
    opened.ship(sys.argv[2], manifest=True)
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM"):
        print(line.split()[1])
"""


def make_larger(path: Path, count: int) -> Path:
    """Make a journal of so many events in short sessions, folded to half of it."""
    with Journal.open(path, durability="normal") as opened:
        for number in range(count // len(LINES) + 1):
            opened.append_ndjson(fresh(number))
            if number == count // len(LINES) // 2:
                opened.sessions()
    return path


def fresh(number: int) -> Iterator[str]:
    """Yield the mixed events under ids of their own."""
    key = f"{number:04x}"
    for line in LINES:
        head, name, rest = line.partition('"session_id":"')
        rest = key + rest[4:]
        before, stream, after = rest.partition('"stream_id":"')
        yield head + name + before + stream + (key + after[4:] if stream else after)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    peaks = []
    for count in (200_000, 100_000 * max(6, support.LONG_ROUNDS)):
        path = make_larger(tmp_path / f"{count}.db", count)
        command = [sys.executable, "-c", _PEAK, str(path), str(tmp_path / f"{count}.out.db")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout))
        assert journal.verify(tmp_path / f"{count}.out.db", full=True).sound

    assert peaks[1] < 1.25 * peaks[0], peaks  # its caches fill up with the larger one
