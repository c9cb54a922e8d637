"""What an analyst does who has a journal file, DuckDB, and nothing of ours.

DuckDB and its extension for SQLite files are an extra, `analysis`; without them this is skipped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import lines_of

from journal import Journal, parse_event

duckdb = pytest.importorskip("duckdb")
extension = pytest.importorskip("duckdb_extension_sqlite_scanner")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shipped") / "mixed.journal"
    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(lines_of("mixed/events.ndjson"))
        journal.sessions()
    return path


@pytest.fixture(scope="module")
def query(shipped: Path) -> Iterator[Any]:
    binary = next(Path(extension.__path__[0]).rglob("*.duckdb_extension"))
    connection = duckdb.connect()
    connection.execute(f"LOAD '{binary}'")
    connection.execute(f"ATTACH '{shipped}' AS journal (TYPE sqlite, READ_ONLY)")
    connection.execute("USE journal")
    yield lambda sql: connection.execute(sql).fetchall()
    connection.close()


def test_every_event_is_read_with_the_casts_of_the_readme(query: Any) -> None:
    expected = [parse_event(line) for line in lines_of("mixed/events.ndjson")]

    rows = query(
        "SELECT position::bigint, event_type, session_id::uuid, stream_id::uuid,"
        " epoch_ns(timestamp::timestamp_ns), timestamp_ns::bigint FROM events ORDER BY 1"
    )

    assert rows == [
        (
            position,
            event.event_type,
            event.session_id,
            event.stream_id,
            event.timestamp.epoch_ns,
            event.timestamp.epoch_ns,
        )
        for position, event in enumerate(expected, start=1)
    ]


def test_data_has_named_fields(query: Any) -> None:
    expected = [
        parse_event(line)
        for line in lines_of("mixed/events.ndjson")
        if '"patch_frames_generated"' in line
    ]

    rows = query(
        "SELECT (data->>'frame_count')::ubigint, (data->>'total_bytes')::ubigint FROM events"
        " WHERE event_type = 'patch_frames_generated' ORDER BY position::bigint"
    )

    assert rows == [(event.frame_count, event.total_bytes) for event in expected]


def test_the_projections_are_what_the_library_says(query: Any, shipped: Path) -> None:
    with Journal.open(shipped, read_only=True) as journal:
        sessions, streams, last = journal.sessions(), journal.streams(), journal.last_position

    assert query(
        "SELECT session_id::uuid, state, active_streams::bigint, epoch_ns(ended_at::timestamp_ns),"
        " as_of_position::bigint FROM sessions ORDER BY session_id"
    ) == sorted(
        (
            status.session_id,
            status.state,
            status.active_streams,
            status.ended_at and status.ended_at.epoch_ns,
            last,
        )
        for status in sessions
    )
    assert query(
        "SELECT stream_id::uuid, session_id::uuid, state, frames::ubigint, bytes::ubigint"
        " FROM streams ORDER BY stream_id"
    ) == sorted(
        (status.stream_id, status.session_id, status.state, status.frames, status.bytes)
        for status in streams
    )
