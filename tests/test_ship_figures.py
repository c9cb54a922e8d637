"""What is said of the size of shipped files, and of the questions that take no time in them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from support import lines_of

from journal import Journal


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "a.db"
    with Journal.open(path, durability="normal") as opened:
        opened.append_ndjson(lines_of("mixed/events.ndjson"))
    return path


@pytest.fixture(scope="module")
def shipped(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with Journal.open(source, read_only=True) as opened:
        return opened.ship(tmp_path_factory.mktemp("shipped") / "b.db").path


@pytest.fixture
def file(shipped: Path) -> Iterator[apsw.Connection]:
    with closing(apsw.Connection(str(shipped), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        yield connection


def test_indexes_add_half_to_three_quarters(source: Path, shipped: Path, tmp_path: Path) -> None:
    with Journal.open(source, read_only=True) as opened:
        without = opened.ship(tmp_path / "c.db", indexes=False).file_bytes
    assert 1.45 < shipped.stat().st_size / without < 1.8


FAILED = "FROM streams WHERE state = 'Failed'"


@pytest.mark.parametrize(
    "where",
    [
        "session_id = (SELECT session_id FROM sessions LIMIT 1)",
        "stream_id = (SELECT stream_id FROM streams LIMIT 1)",
        "session_id IN (SELECT session_id FROM sessions WHERE state = 'Failed')",
        f"session_key IN (SELECT session_key {FAILED})",
        f"stream_key IN (SELECT stream_key {FAILED})",
        "position BETWEEN 100 AND 110",
        "timestamp_ns BETWEEN 0 AND 1",
    ],
)
def test_what_the_file_says_takes_no_time_reads_no_other_events(
    file: apsw.Connection, where: str
) -> None:
    plan = file.execute(f"EXPLAIN QUERY PLAN SELECT count(*) FROM events WHERE {where}").fetchall()
    steps = [step for *_, step in plan]
    assert not any(step.startswith("SCAN e") for step in steps), steps
    assert any(step.startswith("SEARCH e ") for step in steps), steps


def test_what_it_says_reads_every_event_does(file: apsw.Connection) -> None:
    """Should SQLite learn to do without, or the view: the table README says what is quick."""
    sql = f"SELECT count(*) FROM events WHERE stream_id IN (SELECT stream_id {FAILED})"
    plan = file.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
    assert any(step.startswith("SCAN e") for *_, step in plan), plan
