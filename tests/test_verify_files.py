"""Verifying files of every sort: forged, set back, cut, redacted, in use, and none at all."""

import hashlib
import os
import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import test_absent
from support import (
    Channel,
    Child,
    activated,
    become_nobody,
    folder_for_everybody,
    lines_of,
    within,
)
from verify_support import codes, execute, verified

import journal
from journal import (
    AccessDeniedError,
    Finding,
    Journal,
    JournalNotFoundError,
    NewerFormatError,
    PathIsDirectoryError,
    SessionId,
    StorageError,
    limits,
)
from journal.file import blocks

LINES = lines_of("mixed/events.ndjson")[:330]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Journal.open(tmp_path / "a.db") as opened:
        opened.append_ndjson(LINES)
        opened.sessions()
    return tmp_path / "a.db"


# A history that was forged, or set back


def forge(path: Path, statements: str, *, first: int, last: int) -> None:
    """Change events, and compute the rows of some blocks anew, as who knows how would."""
    execute(path, statements)
    with closing(apsw.Connection(str(path))) as file:
        rows = file.execute(
            "SELECT first_seq, last_seq, salt FROM block WHERE first_seq BETWEEN ? AND ?",
            (first, last),
        ).fetchall()
        for begins, ends, salt in rows:
            text = file.execute(blocks.TEXT_SQL, {"first": begins, "last": ends}).get
            content = hashlib.sha256((salt + text).encode()).hexdigest()
            digest = blocks.chained(blocks.digest_before(file, begins), content)
            times = file.execute(
                "SELECT min(timestamp), max(timestamp) FROM event WHERE seq BETWEEN ? AND ?",
                (begins, ends),
            ).fetchone()
            file.execute(
                "UPDATE block SET content_digest = ?, digest = ?, min_timestamp = ?,"
                " max_timestamp = ? WHERE first_seq = ?",
                (content, digest, *times, begins),
            )
        file.execute("DELETE FROM checkpoint")


LATER = "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 120"


def test_a_block_that_was_changed_with_its_events_is_found_by_the_next(path: Path) -> None:
    forge(path, LATER, first=101, last=101)

    (finding,) = verified(path).findings
    assert (finding.code, finding.where, finding.position) == ("block-chain", "block", 151)
    assert finding.severity == "events"


def test_a_history_that_was_written_anew_is_found_by_its_head(path: Path) -> None:
    heads = [verified(path).head]
    for position in (110, 120, 125, 150, 300):
        with Journal.open(path, read_only=True) as opened, opened._database.read() as connection:
            extent = journal.file.extent.read_extent(connection)
            heads.append(f"{position}:{blocks.digest_at(connection, extent, position)}")
    for head in heads:
        assert verified(path, head=head).sound
    forge(path, LATER, first=1, last=400)

    assert codes(path) == set()
    for head in heads:
        before = head is not None and head.startswith("110:")
        assert codes(path, head=head) == (set() if before else {"history"}), head
        assert codes(path, head=head, full=False) == (set() if before else {"history"}), head


def test_an_older_state_is_found_by_the_head_of_a_newer_one(path: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.db"
    shutil.copy(path, older)
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:100])
        head = opened.info().head
    assert verified(path, head=head).sound

    assert codes(older) == set()
    assert codes(older, head=head) == {"history"}
    with Journal.open(older) as opened:  # and it goes on from there, further than before
        opened.append_ndjson(LINES[100:300])
    assert codes(older, head=head) == {"history"}


@pytest.mark.parametrize(
    "head",
    [
        "",
        "5",
        "5:",
        ":" + "0" * 64,
        "0:" + "0" * 64,
        "-1:" + "0" * 64,
        "5:" + "G" * 64,
        "5:" + "0" * 63,
        " 5:" + "0" * 64,
        "5:" + "0" * 64 + "\n",
        "9" * 30 + ":" + "0" * 64,
        5,
        ("5", "0"),
        b"5:" + b"0" * 64,
    ],
)
def test_a_head_of_another_form_is_refused(path: Path, head: Any) -> None:
    with pytest.raises(ValueError, match="head: expected POSITION:DIGEST"):
        journal.verify(path, head=head)


# What is absent, and what was redacted


def test_a_file_with_a_cut_is_proven_from_there(tmp_path: Path) -> None:
    path = test_absent.whole(tmp_path / "a.db")
    middle = verified(path, full=False).head
    test_absent.cut(path, tmp_path)
    found = verified(path)

    assert found.sound
    assert found.event_count == found.proven_count == 400 - test_absent.CUT
    assert found.absent_count == found.checked_after == test_absent.CUT
    assert found.first_position == test_absent.CUT + 1
    assert verified(path, full=False).sound
    assert verified(path, head=middle).sound
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES)
    assert verified(path, head=middle).sound


def test_the_digest_at_the_cut_is_known_and_before_it_is_not(tmp_path: Path) -> None:
    path = test_absent.whole(tmp_path / "a.db")
    with closing(apsw.Connection(str(path))) as file:
        digests = dict(file.execute("SELECT last_seq, digest FROM block").fetchall())
    test_absent.cut(path, tmp_path)
    cut = test_absent.CUT

    assert codes(path, head=f"{cut}:{digests[cut]}") == set()
    assert codes(path, head=f"{cut}:{digests[100]}") == {"history"}
    assert codes(path, head=f"100:{digests[100]}") == {"head-unknown"}


CUT_CHANGES = {
    "another base": (
        "UPDATE base_session SET state = json_set(state, '$.total_streams', 9) WHERE session = 1",
        {"base"},
    ),
    "no base of a stream": ("DELETE FROM base_stream WHERE stream = 1", {"base"}),
    "a base of another position": ("UPDATE base SET position = 7", {"base"}),
    "another count before": (
        "UPDATE base_session SET events_before = events_before + 1 WHERE session = 1",
        {"base", "head"},
    ),
    "another digest before": (
        "UPDATE absent SET digest_after = digest_before",
        {"absent"},
    ),
    "nothing absent": ("DELETE FROM absent", {"extent"}),
    "another reason": ("UPDATE absent SET reason = 'x'", {"absent"}),
    "an event before": (
        (
            "INSERT INTO event SELECT 200, kind, session, stream, timestamp, data, NULL, NULL"
            " FROM event WHERE seq = 300"
        ),
        {"event-absent"},
    ),
    "an event less": ("DELETE FROM event WHERE seq = 251", {"event-missing"}),
    "another event": (
        "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 251",
        {"block-content"},
    ),
    "a block less": ("DELETE FROM block WHERE first_seq = 251", {"block-missing"}),
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
        path = test_absent.whole(folder / "a.db")
        test_absent.cut(path, folder)
    return path


@pytest.mark.parametrize("change", CUT_CHANGES)
def test_a_change_of_what_is_absent_is_found(cut: Path, tmp_path: Path, change: str) -> None:
    statements, expected = CUT_CHANGES[change]
    path = Path(shutil.copy(cut, tmp_path / "a.db"))
    execute(path, statements)

    assert codes(path) >= expected


def test_what_was_lost_and_is_declared_is_no_damage(tmp_path: Path) -> None:
    """Its chains are linked anew, as recovering does it, and its blocks keep their rows."""
    path = test_absent.whole(tmp_path / "a.db")
    with closing(apsw.Connection(str(path))) as file:
        test_absent.declare_absent(file, 110, 220, "lost")
        file.execute("DROP TRIGGER event_is_never_updated; DELETE FROM checkpoint")
        for table in ("session", "stream"):
            file.execute(
                f"DELETE FROM {table} WHERE id NOT IN (SELECT ifnull({table}, 0) FROM event);"
                f"UPDATE event SET {table}_prev = (SELECT max(seq) FROM event AS before"
                f" WHERE before.{table} = event.{table} AND before.seq < event.seq);"
                f"UPDATE {table} SET event_count = (SELECT count(*) FROM event WHERE {table} ="
                f" {table}.id), last_seq = (SELECT max(seq) FROM event WHERE {table} = {table}.id)"
            )
    found = verified(path)

    assert found.sound
    assert (found.absent_count, found.event_count) == (111, 289)
    assert (found.proven_count, found.uncovered_count) == (250, 39)
    execute(path, "DELETE FROM event WHERE seq = 109")
    assert codes(path) >= {"event-missing"}


def redact(path: Path, *, closed: str | None = "ship") -> None:
    """Take the texts out of a block, as redacting will."""
    execute(
        path,
        "UPDATE event SET data = '[\"\"]' WHERE kind ="
        " (SELECT code FROM kind WHERE name = 'stream_failed')",
    )
    with closing(apsw.Connection(str(path))) as file:
        rows = file.execute("SELECT first_seq, last_seq, salt, content_digest FROM block")
        for first, last, salt, digest in rows.fetchall():
            text = file.execute(blocks.TEXT_SQL, {"first": first, "last": last}).get
            if hashlib.sha256((salt + text).encode()).hexdigest() != digest:
                file.execute(
                    "UPDATE block SET salt = NULL, redacted_digest = ? WHERE first_seq = ?",
                    (hashlib.sha256(text.encode()).hexdigest(), first),
                )
        file.execute("DELETE FROM checkpoint")
        if closed is not None:
            file.execute("INSERT INTO meta VALUES ('closed', ?)", (closed,))


def test_redacted_blocks_are_counted_and_keep_the_chain(path: Path) -> None:
    head = verified(path).head
    redact(path)
    found = verified(path, head=head)

    assert found.sound
    assert found.redacted_count > 0
    assert found.proven_count > 0
    assert found.redacted_count + found.proven_count == found.event_count == 330
    assert found.head == head
    with closing(apsw.Connection(str(path))) as file:
        first = file.execute("SELECT min(first_seq) FROM block WHERE salt IS NULL").get
    execute(path, "UPDATE event SET timestamp = timestamp + 1 WHERE seq = ?", first)
    assert codes(path) == {"block-content"}


def test_nothing_is_redacted_in_a_journal_that_is_in_use(path: Path) -> None:
    """Else who changes an event would only have to call it redacted."""
    redact(path, closed=None)

    assert codes(path) == {"block-redacted"}


# While others are at work


def test_there_is_no_false_alarm_while_others_append_and_rebuild(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES)
    with Child(_append, str(path)) as child, Journal.open(path) as opened:
        assert child.receive() == "began"
        before = 0
        for number in range(8):
            found = verified(path, full=number % 2 == 1)
            assert found.sound, found.findings
            last = found.last_position or 0
            assert last >= before
            before = last
            opened.rebuild()
            opened.sessions()
        child.send("stop")
        assert child.receive() > 330
    assert verified(path).sound


def _append(channel: Channel, path: str) -> int:
    limits.BLOCK_EVENTS_MAX = 50  # in this process, too
    stop = threading.Event()
    threading.Thread(target=lambda: (channel.receive(), stop.set()), daemon=True).start()
    with Journal.open(path) as opened:
        channel.send("began")
        while not stop.is_set():
            opened.append_events([activated(SessionId.new()) for _ in range(7)])
        return opened.last_position


def test_it_sees_one_moment_however_long_it_takes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Journal.open(path)
    appended: list[int] = []

    def append(done: int, total: int) -> None:
        appended.append(opened.append_events([activated(SessionId.new())]).last or 0)
        opened.rebuild()

    with opened:
        found = journal.verify(path, full=True, progress=append)
    assert found.sound
    assert found.last_position == 330
    assert appended[-1] > 330
    assert verified(path).last_position == appended[-1]


def test_another_file_put_in_its_place_is_not_called_damage(path: Path, tmp_path: Path) -> None:
    execute(path, "UPDATE event SET timestamp = 5 WHERE seq = 10")
    shutil.copy(path, tmp_path / "b.db")

    def replace(_: Finding) -> None:
        if (tmp_path / "b.db").exists():
            (tmp_path / "b.db").replace(path)

    with pytest.raises(journal.FileReplacedError):
        journal.verify(path, full=True, on_finding=replace)


# What is no journal


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


REFUSED: dict[str, tuple[Any, set[str]]] = {
    "empty": (b"", {"not-a-journal"}),
    "text": (b"hello, world\n" * 100, {"not-a-database"}),
    "zeros": (bytes(10_000), {"not-a-database"}),
    "a header only": (b"SQLite format 3\0", {"not-a-database"}),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("full", [False, True])
def test_what_is_no_database_is_a_finding(tmp_path: Path, name: str, full: bool) -> None:
    data, expected = REFUSED[name]
    (tmp_path / "a.db").write_bytes(data)
    before = bytes_of(tmp_path)
    found = verified(tmp_path / "a.db", full=full)

    assert {finding.code for finding in found.findings} == expected
    assert (found.event_count, found.last_position, found.head) == (0, None, None)
    assert bytes_of(tmp_path) == before


def test_another_database_is_a_finding(tmp_path: Path) -> None:
    execute(tmp_path / "a.db", "CREATE TABLE event (seq)")

    assert codes(tmp_path / "a.db") == {"not-a-journal"}


def test_a_truncated_file_and_a_foreign_wal_are_findings(path: Path, tmp_path: Path) -> None:
    with Journal.open(tmp_path / "other.db") as other:
        other.append_ndjson(LINES[:20])
        shutil.copy(tmp_path / "other.db-wal", tmp_path / "a.db-wal")
    assert codes(path) == {"stale-wal"}
    (tmp_path / "a.db-wal").unlink()
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    assert codes(path) == {"unreadable"}


def test_a_hostile_schema_is_a_finding(path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    execute(path, f"DROP TABLE append_key; CREATE VIEW append_key (key) AS {endless}")

    with within(60, "over a hostile file"):
        assert codes(path) == {"schema"}


def test_what_cannot_be_looked_at_at_all_is_an_error(path: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalNotFoundError):
        journal.verify(tmp_path / "none.db")
    with pytest.raises(PathIsDirectoryError):
        journal.verify(tmp_path)
    with pytest.raises(StorageError):
        journal.verify(tmp_path / ("a" * 300))
    execute(path, "PRAGMA user_version = 9")
    assert verified(path).sound  # it says that this version can read it
    execute(path, "UPDATE meta SET value = '9' WHERE key = 'min_reader_version'")
    with pytest.raises(NewerFormatError):
        journal.verify(path)
    execute(path, "PRAGMA user_version = 0")
    assert codes(path) == {"format"}
    for wrong in (None, 5, b"\0", "a\0b"):
        with pytest.raises((TypeError, ValueError)):
            journal.verify(wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("has_wal", [False, True])
def test_it_works_where_nothing_may_be_written(path: Path, has_wal: bool) -> None:
    with folder_for_everybody() as folder:
        if has_wal:  # what a crash has left
            with Journal.open(path) as opened:
                opened.append_ndjson(LINES[:60])
                for suffix in ("", "-wal"):
                    shutil.copy(f"{path}{suffix}", folder / f"{path.name}{suffix}")
        else:
            shutil.copy(path, folder)
        for one in folder.iterdir():
            one.chmod(0o444)
        folder.chmod(0o555)
        before = bytes_of(folder)
        with Child(_verify_as_nobody, str(folder / path.name)) as child:
            assert child.receive() == (True, 390 if has_wal else 330)
        assert bytes_of(folder) == before


def _verify_as_nobody(_: Channel, path: str) -> tuple[bool, int | None]:
    limits.BLOCK_EVENTS_MAX = 50
    verify = journal.verify  # its modules may lie where only root can go
    become_nobody()
    assert not os.access(Path(path).parent, os.W_OK)
    found = verify(path, full=True)
    return found.sound, found.last_position


def test_who_may_not_read_it_is_told_so(path: Path) -> None:
    path.chmod(0)
    with Child(_refused_as_nobody, str(path)) as child:
        assert child.receive() == "AccessDeniedError"


def _refused_as_nobody(_: Channel, path: str) -> str:
    verify = journal.verify
    become_nobody()
    try:
        verify(path)
    except AccessDeniedError as error:
        return type(error).__name__
    return "nothing"


# Findings


def test_findings_are_told_at_once_and_kept_up_to_a_thousand(path: Path) -> None:
    with Journal.open(path) as opened:
        opened.append_ndjson(lines_of("mixed/events.ndjson")[330:2000])
    execute(path, "UPDATE event SET session_prev = 1, stream_prev = 1")
    found = verified(path)

    assert found.finding_count > 1500
    assert len(found.findings) == 1000


def test_what_the_caller_raises_goes_through(path: Path) -> None:
    execute(path, "UPDATE event SET timestamp = 5 WHERE seq = 10")
    for error in (ValueError("mine"), KeyError("mine"), KeyboardInterrupt()):

        def fail(_: object, __: object = None, error: BaseException = error) -> None:
            raise error

        for options in ({"on_finding": fail}, {"progress": fail}):
            with pytest.raises(type(error)) as raised:
                journal.verify(path, full=True, **options)  # type: ignore[arg-type]
            assert raised.value is error


def test_a_process_that_forked_can_verify(path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:5])
        child = os.fork()
        if child == 0:
            os._exit(0 if journal.verify(path, full=True).sound else 1)
        assert os.waitpid(child, 0)[1] == 0
