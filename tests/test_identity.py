"""What a file says that it is: a label, a closed copy; and open blocks, and deleted texts."""

import json
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from commands_support import run, run_here
from support import activated, lines_of, names_in

from journal import ClosedCopyError, DamagedError, Journal, ReadOnlyError, SessionId, parse_event


def execute(path: Path, statements: str) -> None:
    with closing(apsw.Connection(str(path))) as file:
        file.execute(statements)


# The label


def test_a_label_is_kept_until_another_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        assert journal.info().label is None
    with Journal.open(path, label="pump 7, Süd") as journal:
        assert journal.info().label == "pump 7, Süd"
    with Journal.open(path) as journal:
        assert journal.info().label == "pump 7, Süd"
        journal.set_label("pump 8")
        assert journal.info().label == "pump 8"


@pytest.mark.parametrize("label", ["", "x" * 201, "two\nlines", "\x1b[31mred", "\u202e", 7])
def test_what_cannot_be_a_label_is_refused_and_makes_no_file(tmp_path: Path, label: str) -> None:
    with pytest.raises(ValueError, match="label: expected"):
        Journal.open(tmp_path / "a.db", label=label)

    assert names_in(tmp_path) == []


def test_who_only_reads_cannot_label(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Journal.open(path).close()

    with pytest.raises(ValueError, match="label: cannot be written with read_only"):
        Journal.open(path, read_only=True, label="x")
    with Journal.open(path, read_only=True) as journal, pytest.raises(ReadOnlyError):
        journal.set_label("x")


def test_the_command_names_a_journal_and_prints_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert run_here("label", path, "pump 7").code == 1  # there is no file, and none is made
    assert names_in(tmp_path) == []
    Journal.open(path).close()

    unnamed = run_here("label", path)
    assert (unnamed.code, unnamed.out) == (1, b"")
    assert unnamed.err == f"Error: {path}: has no label\n"
    named = run_here("label", path, "pump 7")
    assert (named.code, named.out, named.err) == (0, b"", "")
    assert run_here("label", path).out == b"pump 7\n"
    assert b"Label       pump 7\n" in run_here("info", path).out
    assert json.loads(run_here("info", path, "--json").out)["label"] == "pump 7"
    wrong = run_here("label", path, "a\tb")
    assert wrong.code == 2
    assert "label: expected printable characters on one line, found 'a\\tb'" in wrong.err


def test_a_journal_that_cannot_be_labelled_is_a_failure_and_not_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Journal.open(path).close()
    execute(path, "PRAGMA user_version = 2")  # what a newer version wrote, and we may still read

    refused = run_here("label", path, "pump 7")

    assert refused.code == 1
    assert "has format 2" in refused.err
    assert "Usage" not in refused.err


# Closed copies


@pytest.mark.parametrize("made_by", ["ship", "delta", "recover"])
def test_a_closed_copy_is_read_and_never_appended_to(tmp_path: Path, made_by: str) -> None:
    path = tmp_path / "a.db"
    events = [activated(SessionId.new(), second) for second in range(5)]
    with Journal.open(path) as journal:
        journal.append_events(events)
    execute(path, f"INSERT INTO meta VALUES ('closed', '{made_by}')")
    before = path.read_bytes()

    with pytest.raises(ClosedCopyError, match=f"closed copy, made by {made_by}") as error:
        Journal.open(path)
    assert error.value.made_by == made_by
    with Journal.open(path, read_only=True) as journal:
        assert [one.event for one in journal.read()] == events
        assert journal.info().closed_by == made_by
    assert path.read_bytes() == before
    assert run("append", path, given=events[0].model_dump_json().encode()).code == 1


# Deleted texts


def test_a_deleted_text_is_not_left_in_the_file(tmp_path: Path) -> None:
    """As pruning will delete it: by the connection that writes, giving the pages back."""
    path = tmp_path / "a.db"
    text = "swordfish-is-in-here"
    lines = [
        line.replace('"error":"', f'"error":"{text}') for line in lines_of("mixed/events.ndjson")
    ]
    with Journal.open(path) as journal:
        journal.append_ndjson(lines)
        assert text.encode() in path.read_bytes() + path.with_name("a.db-wal").read_bytes()
        with journal._database.write() as connection:
            assert connection.pragma("secure_delete") == 1
            connection.execute("DROP TRIGGER event_is_deleted_only_where_absent")
            connection.execute("DELETE FROM event WHERE seq > 0")
        journal._database._writer.execute("PRAGMA incremental_vacuum").fetchall()

    assert text.encode() not in path.read_bytes()
    assert names_in(tmp_path) == ["a.db"]


# An open block that is not what it was


def test_an_open_block_is_held_against_its_events_by_whoever_takes_it_up(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_ndjson(lines_of("mixed/events.ndjson")[:30])
    execute(
        path,
        "DROP TRIGGER event_is_never_updated;"
        "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 17",
    )

    with pytest.raises(DamagedError, match="from position 1 to 30 are not what they were") as error:
        Journal.open(path)
    assert error.value.position == 1
    with Journal.open(path, read_only=True) as journal:
        assert journal.event_count() == 30


def test_a_block_that_another_began_is_checked_when_it_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    lines = lines_of("mixed/events.ndjson")
    with Journal.open(path) as journal:
        journal.append_ndjson(lines[:30])
    with Journal.open(path) as journal:  # it is right at opening
        execute(
            path,
            "DROP TRIGGER event_is_never_updated;"
            "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 17",
        )
        journal.append_events([parse_event(line) for line in lines[30:900]])
        with pytest.raises(DamagedError, match="from position 1 to 30 are not what they were"):
            journal.append_events([parse_event(line) for line in lines[900:1100]])
        assert journal.last_position == 900


def test_a_block_has_its_row_from_its_first_event_on(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    lines = lines_of("mixed/events.ndjson")
    sql = "SELECT first_seq, last_seq, length(salt), sealed FROM block"
    with Journal.open(path) as journal:
        journal.append_ndjson(lines[:1])
        with closing(apsw.Connection(str(path))) as file:
            assert file.execute(sql).fetchall() == [(1, 1, 32, 0)]
            journal.append_ndjson(lines[1:7])
            assert file.execute(sql).fetchall() == [(1, 1, 32, 0)]
    with closing(apsw.Connection(str(path))) as file:
        assert file.execute(sql).fetchall() == [(1, 7, 32, 0)]
