"""What analysts open a shipped file with: DuckDB where the extra `analysis` is installed, and a
Datasette from the package index (`pytest -m bundle`).
"""

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import lines_of

from journal import Journal
from journal.maintenance import Shipment

DATASETTE = "datasette==0.65.5"
LINES = lines_of("mixed/events.ndjson")
VIEWS = ["events", "sessions", "streams", "folded"]


@pytest.fixture(scope="module")
def shipment(tmp_path_factory: pytest.TempPathFactory) -> Shipment:
    folder = tmp_path_factory.mktemp("shipped")
    with Journal.open(folder / "app.db", label="pump 7") as opened:
        opened.append_ndjson(LINES)
        opened.append_ndjson(lines_of("next_version.ndjson"), unknown="keep", on_error="skip")
        return opened.ship(folder / "copy.db")


def queries(shipment: Shipment) -> dict[str, str]:
    with Journal.open(shipment.path, read_only=True) as opened:
        sql = "SELECT topic, text FROM README WHERE topic LIKE 'Query: %' ORDER BY number"
        return dict(opened.connection().execute(sql))


# DuckDB


@pytest.fixture(scope="module")
def duck(shipment: Shipment) -> Any:
    duckdb = pytest.importorskip("duckdb")
    extension = pytest.importorskip("duckdb_extension_sqlite_scanner")
    binary = next(Path(extension.__path__[0]).rglob("*.duckdb_extension"))
    connection = duckdb.connect()
    connection.execute(f"LOAD '{binary}'")
    connection.execute(f"ATTACH '{shipment.path}' AS journal (TYPE sqlite, READ_ONLY)")
    connection.execute("USE journal")
    yield connection
    connection.close()


@pytest.mark.parametrize("view", VIEWS)
def test_duckdb_finds_in_each_view_what_sqlite_finds(
    shipment: Shipment, duck: Any, view: str
) -> None:
    with Journal.open(shipment.path, read_only=True) as opened:
        found = opened.connection().execute(f"SELECT * FROM {view}")
        columns = [it[0] for it in found.description]
        expected = sorted(map(_text, found.fetchall()))

    rows = duck.execute(f"SELECT {', '.join(columns)} FROM {view}").fetchall()

    assert sorted(map(_text, rows)) == expected


def _text(row: Any) -> str:
    return json.dumps([None if value is None else str(value) for value in row])


def test_duckdb_reads_the_readme_the_manifest_and_one_session(
    shipment: Shipment, duck: Any
) -> None:
    topics = dict(duck.execute("SELECT topic, text FROM README").fetchall())
    manifest = dict(duck.execute("SELECT key, value FROM manifest").fetchall())
    session = duck.execute("SELECT session_id FROM sessions LIMIT 1").fetchone()[0]
    count = duck.execute("SELECT count(*) FROM events WHERE session_id = ?", [session]).fetchone()[
        0
    ]

    assert "What this is" in topics
    assert manifest["head"] == shipment.head
    assert json.loads(manifest["counts_by_kind"]) == shipment.counts_by_kind
    with Journal.open(shipment.path, read_only=True) as opened:
        assert count == {str(it.session_id): it.event_count for it in opened.sessions()}[session]


# Datasette


@pytest.fixture(scope="module")
def ask(shipment: Shipment, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return what gives the JSON at a path of a Datasette that has the file as immutable."""
    folder = tmp_path_factory.mktemp("datasette")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", DATASETTE], check=True)

    def get(path: str) -> Any:
        command = [python, "-m", "datasette", "-i", str(shipment.path), "--get", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    return get


@pytest.mark.bundle
def test_datasette_shows_tables_and_views_and_finds_one_session(
    shipment: Shipment, ask: Callable[[str], Any]
) -> None:
    database = ask("/copy.json")
    (first,) = ask("/copy/events.json?_shape=array&_size=1&_sort=position")
    session = ask(f"/copy/events.json?_shape=array&session_id={first['session_id']}&_size=max")

    assert {view["name"] for view in database["views"]} >= set(VIEWS)
    assert {table["name"] for table in database["tables"]} >= {"README", "manifest", "event"}
    with Journal.open(shipment.path, read_only=True) as opened:
        expected = opened.connection().execute(
            "SELECT position FROM events WHERE session_id = ?", (first["session_id"],)
        )
        assert [row["position"] for row in session] == [position for (position,) in expected]


@pytest.mark.bundle
def test_datasette_runs_the_queries_of_the_readme(
    shipment: Shipment, ask: Callable[[str], Any]
) -> None:
    from urllib.parse import quote  # noqa: PLC0415

    for topic, sql in queries(shipment).items():
        found = ask(f"/copy.json?_shape=array&sql={quote(sql)}")
        with Journal.open(shipment.path, read_only=True) as opened:
            expected = opened.connection().execute(sql).fetchall()
        assert [tuple(row.values()) for row in found] == expected, topic
