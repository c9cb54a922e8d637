"""Opening: what is refused, what a new file is, and reading where nothing may be written."""

import contextlib
import errno
import os
import random
import shutil
import signal
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from support import Channel, Child, check_file, names_in, numbered, texts

from journal import (
    AccessDeniedError,
    ClosedError,
    DamagedError,
    Journal,
    JournalError,
    JournalNotFoundError,
    NewerFormatError,
    NotADatabaseError,
    NotAJournalError,
    PathIsDirectoryError,
    ReadOnlyError,
    Retention,
    SessionId,
    StorageError,
    UnsafeSQLiteError,
)
from journal.file import header, identity, opening, wal

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a journal may be made, in a folder with nothing else in it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "a.db"


@pytest.fixture
def journal_path(path: Path) -> Path:
    """Return a closed journal of three events."""
    with Journal.open(path) as journal:
        journal.append_events(numbered(SessionId.new(), range(3)))
    return path


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Return a folder that other users can reach, as pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def refusal(path: Path, error: type[JournalError], **options: Any) -> str:
    """Assert that opening fails and changes nothing; return the message without the path."""
    before = support.bytes_in(path.parent) if path.is_file() else None
    with pytest.raises(JournalError) as caught:
        Journal.open(path, **options)
    if before is not None:
        assert support.bytes_in(path.parent) == before
    assert type(caught.value) is error
    file, _, reason = str(caught.value).partition(": ")
    assert file == str(path)
    assert "\n" not in reason
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)
        assert caught.value.errno
        if isinstance(caught.value.__cause__, OSError):
            assert caught.value.errno == caught.value.__cause__.errno
    return reason


both_ways = pytest.mark.parametrize("read_only", [False, True])


def forbid_writing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder look as if nothing may be written to it, in this process."""
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: (
            not (mode & os.W_OK and Path(path).resolve() == folder) and access(path, mode)
        ),
    )


# What is refused

NOT_DATABASES = {
    "text": b"position,event_type\n1,session_activated\n",
    "two bytes": b"SQ",  # SQLite takes one byte for an empty file
    "zeros": bytes(8192),
    "random": random.Random(1).randbytes(8192),
    "encrypted, as SQLCipher does": random.Random(2).randbytes(16) + bytes(4080),
    "zip": b"PK\x03\x04" + bytes(4092),
}


@both_ways
@pytest.mark.parametrize("content", NOT_DATABASES.values(), ids=NOT_DATABASES)
def test_a_file_that_is_no_database_is_refused(
    path: Path, content: bytes, *, read_only: bool
) -> None:
    path.write_bytes(content)

    reason = refusal(path, NotADatabaseError, read_only=read_only)

    assert reason == "is not an SQLite database"


@both_ways
def test_a_database_of_something_else_is_refused(path: Path, *, read_only: bool) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript("CREATE TABLE event (seq); INSERT INTO event VALUES (1);")

    reason = refusal(path, NotAJournalError, read_only=read_only)

    assert reason == "is an SQLite database, but not a journal"


@both_ways
@pytest.mark.parametrize("pragma", ["application_id = 7", "user_version = 1"])
def test_an_empty_database_that_somebody_marked_is_refused(
    path: Path, *, read_only: bool, pragma: str
) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA {pragma}")

    refusal(path, NotAJournalError, read_only=read_only)


@both_ways
def test_a_foreign_database_in_wal_mode_is_refused_and_not_changed(
    path: Path, tmp_path: Path, *, read_only: bool
) -> None:
    """Its -wal, which a crash may have left, is not folded into it by our closing it."""
    original = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(original, isolation_level=None)) as other:
        other.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x);")
        for end in ("", "-wal"):
            shutil.copyfile(f"{original}{end}", f"{path}{end}")
    before = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal")}

    with pytest.raises(NotAJournalError):
        Journal.open(path, read_only=read_only)

    assert {end: Path(f"{path}{end}").read_bytes() for end in before} == before


def test_an_empty_file_is_a_new_journal_for_a_writer_only(path: Path) -> None:
    path.touch()

    reason = refusal(path, NotAJournalError, read_only=True)
    with Journal.open(path) as journal:
        assert journal.last_position == 0

    assert reason == "is empty, not a journal"
    assert check_file(path) == []


@both_ways
def test_a_truncated_journal_is_refused_or_found_damaged_but_never_taken_for_another(
    journal_path: Path, tmp_path: Path, *, read_only: bool
) -> None:
    content = journal_path.read_bytes()
    pages = len(content) // 4096
    lengths = [2, 15, 16, 17, 50, 99, 100, 101, 500, 4095]
    lengths += [4096 * count + odd for count in range(1, pages) for odd in (0, 1)]

    for length in lengths:
        folder = tmp_path / str(length)
        folder.mkdir()
        path = folder / "a.db"
        path.write_bytes(content[:length])
        with pytest.raises((NotADatabaseError, DamagedError)) as caught:
            with Journal.open(path, read_only=read_only) as journal:
                list(journal.read())
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("version", ["3.7.0", "3.44.5", "3.46.1", "3.50.6", "3.51.2"])
def test_an_sqlite_that_corrupts_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)

    for read_only in (False, True):
        with pytest.raises(UnsafeSQLiteError, match=f"^SQLite {version} .* upgrade apsw$"):
            Journal.open(path, read_only=read_only)

    assert names_in(path.parent) == []


@pytest.mark.parametrize("version", ["3.44.6", "3.50.7", "3.51.3", "3.51.10", "3.53.0", "4.0.0"])
def test_a_corrected_sqlite_is_accepted(version: str) -> None:
    identity.check_sqlite(version)


def test_the_sqlite_in_use_is_a_corrected_one() -> None:
    identity.check_sqlite(apsw.sqlite_lib_version())


def make_newer(path: Path, *, min_reader_version: object = None) -> None:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA user_version = 99; CREATE TABLE novelty (x)")
        if min_reader_version is not None:
            connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'min_reader_version'",
                (str(min_reader_version),),
            )


@both_ways
@pytest.mark.parametrize("min_reader_version", [2, 99])
def test_a_newer_format_is_refused(
    journal_path: Path, *, read_only: bool, min_reader_version: int
) -> None:
    make_newer(journal_path, min_reader_version=min_reader_version)

    with pytest.raises(NewerFormatError) as caught:
        Journal.open(journal_path, read_only=read_only)

    assert (caught.value.expected, caught.value.found) == (identity.FORMAT_VERSION, 99)


def test_a_newer_format_that_allows_it_is_read_and_not_written(journal_path: Path) -> None:
    make_newer(journal_path, min_reader_version=1)

    with Journal.open(journal_path, read_only=True) as journal:
        assert len(list(journal.read())) == 3
        assert journal.info().format_version == 99
    with pytest.raises(NewerFormatError):
        Journal.open(journal_path)


@pytest.mark.parametrize("value", ["", "x", "1.5", None])
def test_a_newer_format_that_says_nonsense_about_its_readers_is_refused(
    journal_path: Path, value: str | None
) -> None:
    make_newer(journal_path, min_reader_version=value)
    if value is None:
        with contextlib.closing(apsw.Connection(str(journal_path))) as connection:
            connection.execute("DELETE FROM meta WHERE key = 'min_reader_version'")

    with pytest.raises((NewerFormatError, DamagedError)):
        Journal.open(journal_path, read_only=True)


def test_an_open_journal_that_is_migrated_by_another_takes_no_more_events(
    journal_path: Path,
) -> None:
    events = numbered(SessionId.new(), [1])
    with Journal.open(journal_path) as journal:
        journal.append_events(events)
        make_newer(journal_path)

        for _ in range(3):
            with pytest.raises(NewerFormatError):
                journal.append_events(events)

    with contextlib.closing(apsw.Connection(str(journal_path))) as connection:
        assert connection.execute("SELECT count(*) FROM event").get == 4


@both_ways
def test_a_directory_is_refused(tmp_path: Path, *, read_only: bool) -> None:
    assert refusal(tmp_path, PathIsDirectoryError, read_only=read_only) == (
        "is a directory, not a journal"
    )


@both_ways
def test_a_missing_folder_is_named(tmp_path: Path, *, read_only: bool) -> None:
    refusal(tmp_path / "missing" / "a.db", JournalNotFoundError, read_only=read_only)

    assert names_in(tmp_path) == []


def test_a_missing_file_is_not_made_by_reading(path: Path) -> None:
    assert refusal(path, JournalNotFoundError, read_only=True) == "does not exist"

    assert names_in(path.parent) == []


@both_ways
def test_a_path_through_a_file_or_with_too_long_a_name_is_refused(
    tmp_path: Path, *, read_only: bool
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(JournalNotFoundError) as caught:
        Journal.open(tmp_path / "file" / "a.db", read_only=read_only)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.errno == caught.value.__cause__.errno
    with pytest.raises(StorageError, match="too long") as too_long:
        Journal.open(tmp_path / ("a" * 300), read_only=read_only)
    assert too_long.value.errno == errno.ENAMETOOLONG


@posix_only
@both_ways
def test_something_that_is_no_regular_file_is_refused(path: Path, *, read_only: bool) -> None:
    os.mkfifo(path)

    holder = os.open(path, os.O_RDWR)  # so that a bug fails here and does not wait for ever
    try:
        with pytest.raises(JournalError):
            Journal.open(path, read_only=read_only)
    finally:
        os.close(holder)


@pytest.mark.parametrize("durability", ["", "FULL", "off", None])
def test_a_durability_that_does_not_exist_is_refused(path: Path, durability: Any) -> None:
    with pytest.raises(ValueError, match="durability: expected 'full', 'normal' or 'b"):
        Journal.open(path, durability=durability)

    assert names_in(path.parent) == []


def errors_of_nobody(
    _channel: Channel, paths_and_options: list[tuple[Path, bool]]
) -> list[tuple[str, str]]:
    support.become_nobody()
    errors = []
    for path, read_only in paths_and_options:
        try:
            Journal.open(path, read_only=read_only).close()
        except BaseException as error:
            errors.append((type(error).__name__, str(error)))
        else:
            errors.append(("none", ""))
    return errors


@posix_only
def test_a_lack_of_permission_is_an_error_of_its_own(public_folder: Path) -> None:
    private = public_folder / "private.db"
    public = public_folder / "public.db"
    for path in (private, public):
        Journal.open(path).close()
    private.chmod(0o000)
    public.chmod(0o444)
    hidden = public_folder / "hidden"
    hidden.mkdir()
    Journal.open(hidden / "a.db").close()
    hidden.chmod(0o000)
    before = names_in(public_folder)
    public_folder.chmod(0o555)
    cases = [
        (private, False),
        (private, True),
        (public, False),
        (public_folder / "new.db", False),
        (hidden / "a.db", False),
        (hidden / "a.db", True),
        (public, True),
    ]

    errors = support.run(errors_of_nobody, cases)

    hidden.chmod(0o755)
    assert [name for name, _ in errors] == ["AccessDeniedError"] * 6 + ["none"]
    for (path, _), (_, message) in zip(cases[:-1], errors[:-1], strict=True):
        assert message.startswith(f"{path}: cannot be ")
        assert "\n" not in message
    assert names_in(public_folder) == before


def open_on_read_only_media(_channel: Channel, folder: Path) -> list[str]:
    support.own_mounts()
    support.mount_read_only(folder)
    names = []
    for name in ("a.db", "new.db"):
        try:
            Journal.open(folder / name)
        except JournalError as error:
            names.append(type(error).__name__)
    return names


@posix_only
def test_read_only_media_are_not_written(journal_path: Path) -> None:
    names = support.run(open_on_read_only_media, journal_path.parent)

    assert names == [AccessDeniedError.__name__, StorageError.__name__]


# A new file


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_journal_and_its_companions_are_for_its_owner_only(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with Journal.open(path) as journal:
            journal.append_events(numbered(SessionId.new(), [1]))
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert modes == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_closing_leaves_one_file_that_holds_everything(path: Path) -> None:
    events = numbered(SessionId.new(), range(2500))
    journal = Journal.open(path)
    journal.append_events(events)
    iterator = journal.read()
    next(iterator)

    journal.close()

    assert names_in(path.parent) == ["a.db"]
    assert check_file(path, closed=True) == texts(events)


def test_opening_and_closing_for_each_event_adds_no_blocks(path: Path) -> None:
    session = SessionId.new()
    for number in range(12):
        with Journal.open(path) as journal:
            journal.append_events(numbered(session, [number]))

    with contextlib.closing(apsw.Connection(str(path))) as connection:
        assert connection.execute("SELECT first_seq, last_seq, sealed FROM block").fetchall() == [
            (1, 12, 0)
        ]
    check_file(path, closed=True)


def test_opening_and_reading_write_nothing(journal_path: Path) -> None:
    before = support.bytes_in(journal_path.parent)

    for _ in range(2):
        with Journal.open(journal_path) as journal:
            assert len(list(journal.read())) == 3
            assert journal.append_events([]) == (None, None)

    assert support.bytes_in(journal_path.parent) == before


def test_closing_twice_is_closing_once(path: Path) -> None:
    journal = Journal.open(path)
    journal.close()
    journal.close()
    with journal:
        pass


USES: dict[str, Callable[[Journal], object]] = {
    "append_events": lambda journal: journal.append_events(numbered(SessionId.new(), [1])),
    "append nothing": lambda journal: journal.append_events([]),
    "append_ndjson": lambda journal: journal.append_ndjson(
        texts(numbered(SessionId.new(), range(2)))
    ),
    "session": lambda journal: journal.get_events_for_session(SessionId.new()),
    "since": lambda journal: journal.get_events_since(support.NOON),
    "read": lambda journal: list(journal.read()),
    "lines": lambda journal: list(journal.lines()),
    "last_position": lambda journal: journal.last_position,
    "event_count": lambda journal: journal.event_count(),
    "info": lambda journal: journal.info(),
}


@both_ways
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_closed_journal_says_so(
    journal_path: Path, use: Callable[[Journal], object], *, read_only: bool
) -> None:
    journal = Journal.open(journal_path, read_only=read_only)
    journal.close()

    with pytest.raises(ClosedError, match=r"^.*a\.db: the journal is closed$"):
        use(journal)


def test_an_iterator_of_a_closed_journal_says_so(journal_path: Path) -> None:
    with Journal.open(journal_path) as journal:
        journal.append_events(numbered(SessionId.new(), range(1500)))
        iterator = journal.read()
        next(iterator)

    with pytest.raises(ClosedError):
        list(iterator)


def test_a_read_only_journal_takes_no_events(journal_path: Path) -> None:
    lines = texts(numbered(SessionId.new(), range(3)))
    with Journal.open(journal_path, read_only=True) as journal:
        for append in (USES["append_events"], lambda journal: journal.append_ndjson(lines)):
            with pytest.raises(ReadOnlyError, match="is open for reading only"):
                append(journal)

    assert len(check_file(journal_path)) == 3


# A fork


def in_a_fork(act: Callable[[], object]) -> str:
    """Return what kind of exception comes of something in a forked child ("none" for none)."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(2)  # ends a child that waits for a lock that nobody will release
        result = "none"
        try:
            act()
        except BaseException as error:
            result = type(error).__name__
        finally:
            os.write(writing, result.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read().decode()
    os.waitpid(pid, 0)
    return result or "it hung"


def use_after_fork(_channel: Channel, path: Path) -> dict[str, str]:
    results = {}
    keeping = Retention(keep_events=10_000)  # it has something to do when it is closed
    with (
        Journal.open(path, retention=keeping) as journal,
        Journal.open(path, read_only=True) as reader,
    ):
        journal.append_events(numbered(SessionId.new(), [1]))
        for name, use in USES.items():
            results[name] = in_a_fork(lambda use=use: use(journal))
            results[f"{name}, reader"] = in_a_fork(lambda use=use: use(reader))
        with journal._database.write():  # as if by another thread
            results["while it appends"] = in_a_fork(lambda: USES["append_events"](journal))
            closings = [in_a_fork(journal.close)]
        closings += [in_a_fork(journal.close), in_a_fork(reader.close)]
        journal.append_events(numbered(SessionId.new(), [1]))
        assert len(list(reader.read())) == len(list(journal.read())) == 5
    return results | {f"closing {number}": result for number, result in enumerate(closings)}


@posix_only
def test_a_fork_cannot_use_the_journal_and_does_not_harm_it(journal_path: Path) -> None:
    results = support.run(use_after_fork, journal_path)

    closings = {key: results.pop(key) for key in list(results) if key.startswith("closing")}
    assert set(results.values()) == {"ClosedError"}, results
    assert set(closings.values()) == {"none"}, closings
    assert names_in(journal_path.parent) == ["a.db"]
    assert len(check_file(journal_path, closed=True)) == 5


def read_a_copy_and_fork(_channel: Channel, path: Path) -> list[int]:
    forbid_writing(pytest.MonkeyPatch(), path.parent)
    with Journal.open(path, read_only=True) as reader:
        counts = [len(list(reader.read()))]
        assert in_a_fork(reader.close) == "none"
        with reader._database.read():  # so that the next one has to open the copy anew
            counts.append(len(list(reader.read())))
    return counts


@posix_only
def test_a_fork_that_closes_a_reader_leaves_the_copy_that_it_reads(path: Path) -> None:
    expected = leave_sidecars(path, keep=("-wal",))

    counts = support.run(read_a_copy_and_fork, path)

    assert counts == [len(expected)] * 2


# Creating, interrupted and contended


class DyingConnection(apsw.Connection):
    """Ends the process where told, as a crash does."""

    dies_before: str
    dies_after: str

    def execute(self, statements: str, *args: Any, **kwargs: Any) -> apsw.Cursor:
        if statements.startswith(self.dies_before):
            support.die()
        cursor = super().execute(statements, *args, **kwargs)
        if statements.startswith(self.dies_after):
            support.die()
        return cursor


def create_and_die(_channel: Channel, path: Path, before: str, after: str) -> None:
    DyingConnection.dies_before, DyingConnection.dies_after = before, after
    apsw.Connection = DyingConnection  # type: ignore[misc]
    Journal.open(path)


NEVER = "never"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELECT", NEVER),
        ("PRAGMA auto_vacuum", NEVER),
        ("BEGIN IMMEDIATE", NEVER),
        (NEVER, "BEGIN IMMEDIATE"),
        (NEVER, "-- The journal file"),
        ("COMMIT", NEVER),
        (NEVER, "COMMIT"),
        ("PRAGMA synchronous", NEVER),
    ],
)
def test_a_crash_while_creating_leaves_what_becomes_a_journal(
    path: Path, before: str, after: str
) -> None:
    with Child(create_and_die, path, before, after) as child:
        child.wait_until_killed()

    assert path.exists()
    with contextlib.suppress(JournalError), Journal.open(path, read_only=True) as reader:
        assert reader.last_position == 0
    events = numbered(SessionId.new(), range(3))
    with Journal.open(path) as journal:
        journal.append_events(events)
    assert names_in(path.parent) == ["a.db"]
    assert check_file(path, closed=True) == texts(events)


def create(channel: Channel, path: Path, number: int) -> str:
    channel.meet()
    with Journal.open(path) as journal:
        journal.append_events(numbered(SessionId.new(), [number]))
        return str(journal.info().journal_id)


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_create_one_journal_at_once_get_the_same(tmp_path: Path, count: int) -> None:
    for attempt in range(support.ROUNDS):
        path = tmp_path / str(attempt) / "a.db"
        path.parent.mkdir()
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(Child(create, path, number)) for number in range(count)]
            support.let_go(children)
            ids = {child.receive() for child in children}

        assert len(ids) == 1
        assert names_in(path.parent) == ["a.db"]
        assert len(check_file(path, closed=True)) == count


@pytest.mark.parametrize(
    "sectors", [{0}, {7}, {0, 3}, {1, 2}, {0, 1, 2, 3, 4, 5, 6}, set(range(8))]
)
def test_a_first_page_that_a_power_cut_tore_is_begun_anew(path: Path, sectors: set[int]) -> None:
    """Nothing is there yet to be lost: what comes next waits until it is on the disk."""
    page = header._blank_page()
    torn = bytearray(512 * (max(sectors) + 1))
    for sector in sectors:
        torn[512 * sector : 512 * (sector + 1)] = page[512 * sector : 512 * (sector + 1)]
    path.write_bytes(torn)

    events = numbered(SessionId.new(), [1])
    with Journal.open(path) as journal:
        journal.append_events(events)
    assert check_file(path, closed=True) == texts(events)


# Names


NAMES = [
    "a b.db",
    " .db",
    "100%.db",
    "a%20b.db",
    "a#b.db",
    "a?b=c&mode=memory.db",
    "a?mode=ro",
    ":memory:",
    "file:a.db",
    "-a.db",
    "a'b\"c;d.db",
    "Grüße, 世界 🎉.db",
    "a\nb.db",
    "a\\b.db",
]


@posix_only
@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / name.replace(".db", "")
    folder.mkdir()
    path = folder / name
    events = numbered(SessionId.new(), range(3))

    with Journal.open(path) as journal:
        assert journal.path == path
        journal.append_events(events)
        assert [event for _, event in journal.read()] == events
        assert names_in(folder) == sorted([name, f"{name}-shm", f"{name}-wal"])
        with Journal.open(str(path), read_only=True) as reader:
            assert [event for _, event in reader.read()] == events
        shutil.copyfile(f"{path}-wal", tmp_path / "wal")
    assert names_in(folder) == [name]

    forbid_writing(monkeypatch, folder)
    with Journal.open(path, read_only=True) as reader:
        assert [event for _, event in reader.read()] == events
        assert names_in(folder) == [name]
    shutil.copyfile(tmp_path / "wal", f"{path}-wal")
    with Journal.open(path, read_only=True) as reader:
        assert [event for _, event in reader.read()] == events
        assert names_in(folder) == [name, f"{name}-wal"]
    assert names_in(tmp_path) == sorted([folder.name, "wal"])


def test_a_relative_path_stays_what_it_was_when_the_program_goes_elsewhere(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SessionId.new()
    monkeypatch.chdir(path.parent)
    with Journal.open("a.db") as journal:
        journal.append_events(numbered(session, [1]))
        reader = Journal.open("a.db", read_only=True)
        monkeypatch.chdir(tmp_path)
        journal.append_events(numbered(session, [2]))

        assert journal.path == path
        assert len(list(journal.read())) == len(list(reader.read())) == 2
        reader.close()

    assert names_in(path.parent) == ["a.db"]


# Reading only: everything committed is seen, and nothing is written


def leave_sidecars(path: Path, *, keep: tuple[str, ...]) -> list[str]:
    """Make a journal as a crash leaves it, with these companions; return its events."""
    events = numbered(SessionId.new(), range(5))
    with Journal.open(path) as journal:
        journal.append_events(events[:2])
    with Child(support.append_and_die, path, events[2:]) as child:
        child.wait_until_killed()
    for end in {"-wal", "-shm"}.difference(keep):
        if not keep:
            Journal.open(path).close()
        Path(f"{path}{end}").unlink(missing_ok=True)
    assert names_in(path.parent) == sorted(["a.db", *[f"a.db{end}" for end in keep]])
    return texts(events)


def read_everything(
    _channel: Channel, path: Path, scratch: Path, prepare: str
) -> tuple[list[str], dict[str, int]]:
    """Read a journal where nothing may be written; return its events and what else was noticed."""
    if prepare == "mount":
        support.own_mounts()
        support.mount_read_only(path.parent)
    else:
        support.become_nobody()
    tempfile.tempdir = str(scratch)
    with Journal.open(path, read_only=True) as journal:
        lines = [line for _, line in journal.lines()]
        journal.info()
        during = len(list(scratch.iterdir()))
    return lines, {"copies": during, "left over": len(list(scratch.iterdir()))}


@posix_only
@pytest.mark.parametrize("prepare", ["nobody", "mount"])
@pytest.mark.parametrize("keep", [(), ("-wal",), ("-wal", "-shm")], ids=str)
def test_a_folder_that_cannot_be_written_shows_everything_and_stays_as_it_is(
    public_folder: Path, prepare: str, keep: tuple[str, ...]
) -> None:
    folder, scratch = public_folder / "folder", public_folder / "scratch"
    folder.mkdir()
    scratch.mkdir()
    scratch.chmod(0o777)
    path = folder / "a.db"
    expected = leave_sidecars(path, keep=keep)
    for each in folder.iterdir():
        each.chmod(0o444)
    folder.chmod(0o555)
    before = support.bytes_in(folder)

    lines, noticed = support.run(read_everything, path, scratch, prepare)

    folder.chmod(0o755)
    assert lines == expected
    assert noticed == {"copies": int(keep == ("-wal",)), "left over": 0}
    assert support.bytes_in(folder) == before


@pytest.mark.parametrize("keep", [(), ("-wal",), ("-wal", "-shm")], ids=str)
def test_a_folder_that_can_be_written_shows_everything_and_the_file_stays_as_it_is(
    path: Path, keep: tuple[str, ...]
) -> None:
    expected = leave_sidecars(path, keep=keep)
    before = path.read_bytes()

    with Journal.open(path, read_only=True) as journal:
        lines = [line for _, line in journal.lines()]

    assert lines == expected
    assert path.read_bytes() == before
    assert check_file(path) == expected


def follow(channel: Channel, path: Path, prepare: str) -> None:
    """Say how many events there are, whenever asked."""
    if prepare == "nobody":
        support.become_nobody()
    if prepare == "mount":
        support.own_mounts()
        support.mount_read_only(path.parent)
    with Journal.open(path, read_only=True) as journal:
        while channel.receive():
            channel.send((journal.event_count(), len(list(journal.read()))))


@posix_only
@pytest.mark.parametrize("prepare", ["", "nobody", "mount"])
def test_a_reader_sees_what_a_live_writer_commits(public_folder: Path, prepare: str) -> None:
    path = public_folder / "a.db"
    session = SessionId.new()
    with Journal.open(path) as journal:
        journal.append_events(numbered(session, [0]))
        for each in public_folder.iterdir():
            each.chmod(0o644)
        with Child(follow, path, prepare) as child:
            for count in range(1, 5):
                child.send(True)
                assert child.receive() == (count, count)
                journal.append_events(numbered(session, [count]))
            child.send(False)
            child.receive()

    assert names_in(public_folder) == ["a.db"]


@posix_only
@pytest.mark.parametrize("unwritable", ["folder of the link", "folder of the file"])
def test_a_link_to_a_journal_is_the_journal(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unwritable: str
) -> None:
    """The -wal is beside the file that the link leads to, and is read from there."""
    link = tmp_path / "link.db"
    link.symlink_to(path)
    expected = leave_sidecars(path, keep=("-wal",))
    forbid_writing(monkeypatch, link.parent if unwritable.endswith("link") else path.parent)

    with Journal.open(link, read_only=True) as journal:
        lines = [line for _, line in journal.lines()]
        wal_bytes = journal.info().wal_bytes

    assert lines == expected
    assert wal_bytes > 0
    monkeypatch.undo()
    with Journal.open(link) as journal:
        journal.append_events(numbered(SessionId.new(), [1]))
    assert len(check_file(path, closed=True)) == len(expected) + 1


def test_a_copy_for_reading_is_removed_when_opening_fails(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_sidecars(path, keep=("-wal",))
    with path.open("r+b") as file:
        file.write(b"not any more a database")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    forbid_writing(monkeypatch, path.parent)

    with pytest.raises(JournalError):
        Journal.open(path, read_only=True)

    assert names_in(scratch) == []


@pytest.mark.parametrize("readers", [1, 2])
def test_a_reader_that_outlives_the_writers_finds_all_of_it_in_the_file(
    path: Path, tmp_path: Path, readers: int
) -> None:
    """So nothing is lost when somebody copies the file alone."""
    session = SessionId.new()
    writer = Journal.open(path)
    writer.append_events(numbered(session, [1]))
    reading = [Journal.open(path, read_only=True) for _ in range(readers)]
    for reader in reading:
        assert reader.event_count() == 1
    writer.append_events(numbered(session, range(2, 500)))
    writer.close()
    alone = tmp_path / "alone.db"
    alone.write_bytes(path.read_bytes())
    for reader in reading:
        assert reader.event_count() == 499
        reader.close()

    with Journal.open(alone, read_only=True) as journal:
        assert journal.event_count() == 499


def test_a_connection_that_writes_has_every_setting(journal_path: Path) -> None:
    """A statement that is never reached makes no error."""
    with Journal.open(journal_path) as journal:
        writer = journal._database._writer
        assert writer is not None
        names = ("journal_mode", "synchronous", "cache_size", "journal_size_limit")
        settings = {name: writer.pragma(name) for name in (*names, "trusted_schema")}

    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "cache_size": -opening._CACHE_KIB,
        "journal_size_limit": wal.WAL_BYTES_KEPT,
        "trusted_schema": 0,
    }


def append_as_nobody(_channel: Channel, path: Path) -> str:
    support.become_nobody()
    with pytest.raises(AccessDeniedError) as caught:
        Journal.open(path)
    return caught.value.reason


@posix_only
@pytest.mark.parametrize("obstacle", ["a.db-shm", "folder"])
def test_what_keeps_a_file_from_being_written_is_named(public_folder: Path, obstacle: str) -> None:
    """It need not be the file: SQLite has two others, and may have to make them."""
    folder = public_folder / "folder"
    folder.mkdir()
    path = folder / "a.db"
    Journal.open(path).close()
    path.chmod(0o666)
    if obstacle == "folder":
        expected = "SQLite has to make a.db-wal in its folder"
    else:
        folder.chmod(0o777)
        path.with_name(obstacle).touch(0o600)
        expected = "a.db-shm beside it belongs to somebody else"

    reason = support.run(append_as_nobody, path)

    assert reason == f"cannot be written, {expected}: permission denied"


def test_two_readers_in_turn_need_no_writer_before_them(journal_path: Path) -> None:
    with (
        Journal.open(journal_path, read_only=True) as one,
        Journal.open(journal_path, read_only=True) as two,
    ):
        assert len(list(one.read())) == len(list(two.read())) == 3
        with Journal.open(journal_path) as writer:
            writer.append_events(numbered(SessionId.new(), [1]))
            assert len(list(one.read())) == len(list(two.read())) == 4

    assert len(check_file(journal_path)) == 4


# What only looks leaves nothing behind


def look(journal: Journal) -> None:
    list(journal.read())
    journal.sessions()
    journal.connection().execute("SELECT count(*) FROM events").fetchall()


def look_beside(_channel: Channel, path: Path) -> None:
    with Journal.open(path, read_only=True) as journal:
        look(journal)


def test_what_only_looks_leaves_nothing_behind_and_writes_nothing(journal_path: Path) -> None:
    before = journal_path.read_bytes(), journal_path.stat().st_mtime_ns
    for _ in range(2):
        with (
            Journal.open(journal_path, read_only=True) as journal,
            Journal.open(journal_path, read_only=True) as another,
        ):
            look(journal)
            look(another)
        assert names_in(journal_path.parent) == ["a.db"]
    support.run(look_beside, journal_path)
    assert names_in(journal_path.parent) == ["a.db"]
    assert (journal_path.read_bytes(), journal_path.stat().st_mtime_ns) == before


def look_as_nobody(channel: Channel, path: Path) -> list[str]:
    support.become_nobody()
    with Journal.open(path, read_only=True) as journal:
        look(journal)
        seen = names_in(path.parent)
        channel.meet()
    return seen


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_who_may_only_read_the_file_leaves_nothing_in_its_folder_either(
    journal_path: Path, mode: int
) -> None:
    """What it left would be its own: the owner of the file could not write any more."""
    with support.folder_for_everybody() as folder:
        folder.chmod(0o777)
        path = Path(shutil.copy(journal_path, folder / "a.db"))
        path.chmod(mode)
        with Child(look_as_nobody, path) as one, Child(look_as_nobody, path) as other:
            assert other.receive() == "ready"  # it looks, too
            support.let_go([one])
            assert one.receive() == ["a.db", "a.db-shm", "a.db-wal"]
            assert path.with_name("a.db-wal").exists()
            other.send("go")
            other.receive()
        assert names_in(folder) == ["a.db"]


def test_what_looks_takes_away_nothing_from_others(journal_path: Path) -> None:
    with Journal.open(journal_path) as journal:
        support.run(look_beside, journal_path)
        journal.append_events(numbered(SessionId.new(), [1]))
        look_beside(Channel, journal_path)
        support.run(look_beside, journal_path)
        journal.append_events(numbered(SessionId.new(), [2]))
        assert names_in(journal_path.parent) == ["a.db", "a.db-shm", "a.db-wal"]
    with contextlib.closing(sqlite3.connect(journal_path)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM event").fetchone()
        support.run(look_beside, journal_path)
        assert names_in(journal_path.parent) == ["a.db", "a.db-shm", "a.db-wal"]
    assert len(check_file(journal_path)) >= 2


def test_what_a_crash_left_is_not_for_who_only_looks(path: Path) -> None:
    expected = leave_sidecars(path, keep=("-wal", "-shm"))
    wal = path.with_name("a.db-wal").read_bytes()
    main = path.read_bytes()

    support.run(look_beside, path)

    assert (path.read_bytes(), path.with_name("a.db-wal").read_bytes()) == (main, wal)
    assert len(check_file(path)) == len(expected)
