"""The views: the public face of the file, for plain SQL."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import lines_of

from journal import Journal, SessionId
from journal.file.schema import schema_sql
from journal.projections.tables import _statements

VIEWS = ["events", "sessions", "streams", "folded", "projection_states"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind, times before 1970 and at the ends of int64, whole texts, and a closed file."""
    path = tmp_path_factory.mktemp("views") / "a.db"
    ends = [
        f'{{"event_type":"session_activated","session_id":"{SessionId.new()}","timestamp":"{at}"}}'
        for at in (
            "1677-09-21T00:12:43.145224192Z",
            "2262-04-11T23:47:16.854775807Z",
            "1969-12-31T23:59:59.999999999Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00.000000001Z",
        )
    ]
    with Journal.open(path) as journal:
        journal.append_ndjson(
            [*lines_of("kinds.ndjson"), *ends, *lines_of("mixed/events.ndjson")[:500]]
        )
        journal.append_ndjson(lines_of("next_version.ndjson"), unknown="keep", on_error="skip")
        journal.sessions()
    return path


@pytest.fixture
def file(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as Python's own SQLite reads it, which is older than ours."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
        yield file


def test_sessions_and_streams_join_with_events_by_id_and_by_key(file: sqlite3.Connection) -> None:
    sql = "SELECT state, event_type, count(*) FROM events JOIN {} USING ({}) GROUP BY 1, 2"
    for view in ("session", "stream"):
        by_id = file.execute(sql.format(f"{view}s", f"{view}_id")).fetchall()
        by_key = file.execute(
            f"SELECT s.state, event_type, count(*) FROM events JOIN {view}s AS s"
            f" ON s.{view}_key = events.{view}_key GROUP BY 1, 2"
        ).fetchall()
        assert by_id == by_key
        assert sum(row[2] for row in by_id) > 500


def test_a_join_by_session_id_goes_by_an_index_that_sqlite_makes(file: sqlite3.Connection) -> None:
    """Flat, the view was looked through for every event: a million events did not end."""
    plan = file.execute(
        "EXPLAIN QUERY PLAN"
        " SELECT state, event_type, count(*) FROM events JOIN sessions USING (session_id)"
        " GROUP BY 1, 2"
    ).fetchall()
    text = "\n".join(row[3] for row in plan)

    assert "MATERIALIZE session_rows" in text
    assert re.search(r"SEARCH session_rows USING AUTOMATIC .*INDEX \(session_id=\?\)", text)


def test_folded_says_how_far_the_views_are(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    lines = lines_of("mixed/events.ndjson")[:100]
    with Journal.open(path) as journal:
        journal.append_ndjson(lines[:60])
        journal.sessions()
        journal.append_ndjson(lines[60:])
        with closing(sqlite3.connect(path)) as file:
            rows = file.execute("SELECT name, position, since, last_position FROM folded")
            assert rows.fetchall() == [("sessions", 60, 1, 100), ("streams", 60, 1, 100)]


def test_closing_folds_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_ndjson(lines_of("mixed/events.ndjson")[:100])

    with closing(sqlite3.connect(path)) as file:
        rows = file.execute("SELECT position, last_position FROM folded").fetchall()
        assert rows == [(100, 100)] * 2
        assert file.execute("SELECT sum(event_count) FROM sessions").fetchone() == (100,)


def test_the_views_avoid_what_duckdb_understands_otherwise() -> None:
    """It runs a view in its own dialect if it can: 7/2 is 3.5 there."""
    text = schema_sql().split("CREATE VIEW", 1)[1]
    text += "\n".join(_statements()[name] for name in ("sessions", "streams", "projection_states"))
    code = re.sub(r"--.*", "", text)
    for name in ("/", "printf", "typeof", "max(", "min("):
        found = [line.strip() for line in code.splitlines() if name in line]
        assert all(re.search(r"max\([a-z_.]+\)", line) for line in found), found


@pytest.mark.parametrize("view", VIEWS)
def test_every_row_is_the_same_in_duckdb(path: Path, file: sqlite3.Connection, view: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    extension = pytest.importorskip("duckdb_extension_sqlite_scanner")
    binaries = list(Path(next(iter(extension.__path__))).rglob("*.duckdb_extension*"))
    other = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    other.execute(f"INSTALL '{binaries[0]}'")
    other.execute("LOAD sqlite_scanner")
    other.execute(f"ATTACH '{path}' AS journal (TYPE sqlite, READ_ONLY)")

    columns = [row[1] for row in file.execute(f"PRAGMA table_info({view})")]
    names = ", ".join(columns)
    order = ", ".join(columns[:2])
    theirs = other.execute(f"SELECT {names} FROM journal.{view} ORDER BY {order}").fetchall()
    other.close()
    ours = file.execute(f"SELECT {names} FROM {view}").fetchall()

    def texts(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """It takes the columns of views for text."""
        return sorted(tuple(None if v is None else str(v) for v in row) for row in rows)

    assert texts(theirs) == texts(ours)
    assert ours or view == "projection_states"


def test_the_view_of_events_has_what_the_package_has(path: Path) -> None:
    with (
        Journal.open(path, read_only=True) as journal,
        closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as file,
    ):
        rows = file.execute("SELECT timestamp, timestamp_ns, session_id, stream_id FROM events")
        for (timestamp, ns, session, stream), (_, event) in zip(rows, journal.read(), strict=True):
            assert ns == event.timestamp.epoch_ns
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", timestamp)
            assert type(event.timestamp).parse(timestamp) == event.timestamp
            assert session == str(event.session_id)
            assert stream == (event.stream_id and str(event.stream_id))


@pytest.mark.parametrize(
    "statements",
    [
        "DROP VIEW sessions; ALTER TABLE projection_session ADD COLUMN latency INTEGER",
        "DROP VIEW streams; ALTER TABLE projection_stream DROP COLUMN frames",
        "DROP TABLE projection_anomaly",
        "DROP VIEW sessions; DROP TABLE projection_session; CREATE TABLE sessions (x)",
        "DROP VIEW projection_states",
    ],
)
def test_projection_tables_of_another_shape_are_made_anew(tmp_path: Path, statements: str) -> None:
    """As those of another version are; a new column once made every older file "damaged"."""
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_ndjson(lines_of("mixed/events.ndjson")[:100])
        expected = journal.sessions(), journal.streams(), journal.anomalies()
    with closing(sqlite3.connect(path)) as file:
        file.executescript(statements)

    with Journal.open(path, read_only=True) as journal:
        assert (journal.sessions(), journal.streams(), journal.anomalies()) == expected
    with Journal.open(path) as journal:
        assert (journal.sessions(), journal.streams(), journal.anomalies()) == expected
        assert journal.rebuild(check=True)[0].change_count == 0
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT sum(event_count) FROM sessions").fetchone() == (100,)
