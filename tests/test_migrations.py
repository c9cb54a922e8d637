"""Files of older formats are migrated by opening them for writing, and by nothing else.

Format 0 is made up: a journal without `append_key.used_at`, frozen in `data/format-0.journal`.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from support import DATA, Channel, Child, check_file, let_go, lines_of, names_in

from journal import (
    Journal,
    NewerFormatError,
    NotAJournalError,
    StorageError,
    parse_event,
)
from journal.file import migrations
from journal.file.schema import schema_sql

LINES = lines_of("mixed/events.ndjson")[:40]

TABLE = schema_sql().split("CREATE TABLE append_key")[1].split(";\n")[0]
STEP = f"""
ALTER TABLE append_key RENAME TO append_key_0;
CREATE TABLE append_key{TABLE};
INSERT INTO append_key (key, first_seq, last_seq, digest, used_at)
    SELECT key, first_seq, last_seq, digest, 0 FROM append_key_0;
DROP TABLE append_key_0;
UPDATE meta SET value = '1' WHERE key = 'min_reader_version';
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copyfile(DATA / "format-0.journal", tmp_path / "a.db")
    return tmp_path / "a.db"


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(migrations.STEPS, 0, lambda: STEP)
    return


def version(path: Path) -> int:
    with closing(apsw.Connection(str(path))) as file:
        found: int = file.pragma("user_version")
        return found


def schema(path: Path) -> dict[str, tuple[str, list[str]]]:
    with closing(apsw.Connection(str(path))) as file:
        rows = file.execute(
            "SELECT name, type, ifnull(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"
        )
        # Comments and spaces may be put right without a new format.
        return {name: (kind, re.sub(r"--.*|\s+", " ", sql).split()) for name, kind, sql in rows}


@pytest.mark.usefixtures("step")
def test_an_older_file_is_migrated_read_and_appended_to(path: Path) -> None:
    with Journal.open(path) as journal:
        assert journal.info().format_version == 1
        assert [text for _, text in journal.lines()] == LINES
        again = [parse_event(line) for line in LINES[30:]]
        assert journal.append_events(again, key="order-17") == (31, 40)
        assert journal.append_events(again, key="order-18") == (41, 50)

    assert version(path) == 1
    assert check_file(path, closed=True) == [*LINES, *LINES[30:]]


@pytest.mark.usefixtures("step")
def test_a_file_says_whether_opening_it_for_writing_would_migrate_it(path: Path) -> None:
    with Journal.open(path, read_only=True) as journal:
        assert journal.is_older_format
    with Journal.open(path) as journal:
        assert not journal.is_older_format


@pytest.mark.usefixtures("step")
def test_a_migrated_file_has_the_schema_of_a_fresh_one(path: Path, tmp_path: Path) -> None:
    Journal.open(path).close()
    Journal.open(tmp_path / "fresh.db").close()

    assert schema(path) == schema(tmp_path / "fresh.db")


@pytest.mark.usefixtures("step")
def test_a_copy_of_the_file_as_it_was_is_left_beside_it(path: Path, tmp_path: Path) -> None:
    Journal.open(path).close()

    assert names_in(tmp_path) == ["a.db", "a.db.format-0"]
    assert version(tmp_path / "a.db.format-0") == 0
    with closing(apsw.Connection(str(tmp_path / "a.db.format-0"))) as copy:
        assert copy.execute("SELECT count(*) FROM event").get == 40


@pytest.mark.usefixtures("step")
def test_only_opening_for_writing_migrates(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()

    with Journal.open(path, read_only=True) as journal:
        assert [text for _, text in journal.lines()] == LINES
        assert journal.info().format_version == 0

    assert path.read_bytes() == before
    assert "a.db.format-0" not in names_in(tmp_path)


def test_a_format_that_was_never_released_is_refused(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()

    with pytest.raises(NotAJournalError, match="has format 0, which was never released"):
        Journal.open(path)

    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["a.db"]


def test_a_newer_format_is_refused(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as file:
        file.pragma("user_version", 2)
        file.execute("UPDATE meta SET value = '2' WHERE key = 'min_reader_version'")

    for read_only in (False, True):
        with pytest.raises(NewerFormatError):
            Journal.open(path, read_only=read_only)


def test_a_step_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(migrations.STEPS, 0, lambda: f"{STEP}; INSERT INTO nowhere VALUES (1)")
    before = schema(path)

    with pytest.raises(ValueError, match="no such table: nowhere"):
        Journal.open(path)

    assert schema(path) == before
    assert version(path) == 0
    monkeypatch.setitem(migrations.STEPS, 0, lambda: STEP)
    with Journal.open(path) as journal:
        assert journal.event_count() == 40


@pytest.mark.usefixtures("step")
def test_without_room_for_a_copy_nothing_is_migrated(path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.db.format-0").mkdir()  # in the way of the copy
    (tmp_path / "a.db.format-0" / "file").touch()

    with pytest.raises(StorageError, match="could not be copied before migrating"):
        Journal.open(path)

    assert version(path) == 0


def open_and_count(channel: Channel, path: Path) -> int:
    migrations.STEPS[0] = lambda: STEP
    channel.meet()
    with Journal.open(path) as journal:
        journal.append_events([parse_event(LINES[0])])
        return journal.info().format_version


def test_of_several_processes_one_migrates(path: Path) -> None:
    children = [Child(open_and_count, path) for _ in range(4)]
    let_go(children)

    assert [child.receive() for child in children] == [1] * 4
    assert check_file(path) == [*LINES, *[LINES[0]] * 4]
