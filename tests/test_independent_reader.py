"""FORMAT.md is enough to read a file: `independent_reader` was written from it alone."""

import sqlite3
from pathlib import Path

import independent_reader
import pytest
from support import lines_of

from journal import Journal, parse_event


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_ndjson(lines_of("mixed/events.ndjson")[:2500])
        journal.append_ndjson(lines_of("next_version.ndjson"), unknown="keep", on_error="skip")
    return tmp_path / "a.db"


def test_the_independent_reader_finds_every_event(path: Path) -> None:
    found = independent_reader.read(path)

    expected = [parse_event(line) for line in lines_of("mixed/events.ndjson")[:2500]]
    assert len(found) > len(expected)
    for number, (one, event) in enumerate(zip(found, expected, strict=False), 1):
        assert one["position"] == number
        assert one["kind"] == event.event_type
        assert one["ns"] == event.timestamp.epoch_ns
        for name, value in one["values"].items():
            if "." not in name and not name.endswith("_at"):
                assert getattr(event, name) == value


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 700",
        "UPDATE event SET session_prev = NULL WHERE seq = 2000",
        "DELETE FROM event WHERE seq = 1200",
        "UPDATE session SET event_count = event_count + 1 WHERE id = 3",
        "UPDATE block SET salt = 'x' || salt WHERE first_seq = 1001",
        "UPDATE block SET digest = content_digest WHERE first_seq = 1",
        "DELETE FROM block WHERE first_seq = 1001",
    ],
)
def test_the_independent_reader_notices_what_is_wrong(path: Path, statement: str) -> None:
    file = sqlite3.connect(path)
    for trigger in ("event_is_never_updated", "event_is_deleted_only_where_absent"):
        file.execute(f"DROP TRIGGER {trigger}")
    file.execute(statement)
    file.commit()
    file.execute("PRAGMA journal_mode = DELETE")
    file.close()

    with pytest.raises((AssertionError, KeyError)):
        independent_reader.read(path)
