"""What a shipped file holds, and who can read it with what."""

import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from commands_support import run_here
from support import Channel, check_file, lines_of, names_in
from verify_support import COUNTING

import journal
from journal import ClosedCopyError, Journal, SessionId, StreamId, errors
from journal.file.schema import id_text_sql
from journal.maintenance import Shipment, shipping

LINES = lines_of("mixed/events.ndjson")
COUNT = 1_700
VIEWS = ["events", "sessions", "streams", "folded", "projection_states"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with something of everything: kinds, whole texts, keys, an own projection."""
    path = tmp_path_factory.mktemp("live") / "app.db"
    with Journal.open(path, label="pump 7") as opened:
        opened.register(COUNTING)
        opened.append_ndjson(lines_of("kinds.ndjson"))
        opened.append_ndjson(lines_of("next_version.ndjson"), unknown="keep", on_error="skip")
        opened.append_ndjson(LINES[:COUNT])
        opened.append_events([], key="empty")
        opened.states("count")
    return path


@pytest.fixture(scope="module")
def shipment(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipment:
    with Journal.open(source, read_only=True) as opened:
        return opened.ship(tmp_path_factory.mktemp("shipped") / "copy.db", manifest=True)


@pytest.fixture
def file(shipment: Shipment) -> Iterator[sqlite3.Connection]:
    """The file as Python's own SQLite reads it, which is older than ours."""
    with closing(opened_plainly(shipment.path, "mode=ro&immutable=1")) as file:
        yield file


def opened_plainly(path: Path, parameters: str = "mode=ro") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?{parameters}", uri=True)


def ship(path: Path, dest: Path, **options: Any) -> Shipment:
    with Journal.open(path, read_only=True) as opened:
        return opened.ship(dest, **options)


# All of it is there


def test_it_has_all_that_the_journal_has_and_is_sound(source: Path, shipment: Shipment) -> None:
    found = journal.verify(shipment.path, full=True)

    assert found.sound, found.findings
    assert found.proven_count == found.event_count == shipment.event_count > COUNT
    with Journal.open(source) as live, Journal.open(shipment.path, read_only=True) as shipped:
        for read in (
            lambda opened: list(opened.lines()),
            lambda opened: opened.sessions(),
            lambda opened: opened.streams(order="bytes"),
            lambda opened: opened.anomalies(),
            lambda opened: opened.sessions(as_of=700),
            lambda opened: opened.projections(),
            lambda opened: opened.info().counts_by_kind,
        ):
            assert read(shipped) == read(live)
        for status in shipped.sessions()[:20]:
            expected = live.get_events_for_session(status.session_id)
            assert shipped.get_events_for_session(status.session_id) == expected
        for opened in (live, shipped):
            opened.register(COUNTING)
        assert shipped.states("count") == live.states("count")
    assert check_file(shipment.path, closed=True) == check_file(source, closed=True)
    with closing(opened_plainly(shipment.path)) as file:
        assert file.execute("SELECT key FROM append_key").fetchall() == [("empty",)]


def test_the_commands_read_it(source: Path, shipment: Shipment) -> None:
    for command in (["sessions"], ["streams"], ["events", "--type", "stream_failed"]):
        name, *options = command
        expected = run_here(name, source, *options)
        assert run_here(name, shipment.path, *options) == expected
        assert expected.code == 0
    assert b"Closed by   ship\n" in run_here("info", shipment.path).out
    assert run_here("verify", shipment.path, "--full", "--head", shipment.head).code == 0


def test_nobody_writes_to_it(shipment: Shipment) -> None:
    before = support.bytes_in(shipment.path.parent)
    with pytest.raises(ClosedCopyError, match="is a closed copy, made by ship: open it read-only"):
        Journal.open(shipment.path)
    for command in (["label", shipment.path, "new"], ["rebuild", shipment.path]):
        result = run_here(*command)
        assert (result.code, "is a closed copy" in result.err) == (1, True)

    assert support.bytes_in(shipment.path.parent) == before


def test_what_was_not_folded_is_folded_in_the_copy(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy(source, path)
    support.unfold(path)
    with closing(apsw.Connection(str(path))) as file:
        file.execute("INSERT INTO checkpoint VALUES ('mine', 'projection', 7, 5, 1)")

    shipped = ship(path, tmp_path / "b.db")

    with Journal.open(source, read_only=True) as live:
        with Journal.open(shipped.path, read_only=True) as opened:
            assert {it.name: (it.version, it.position) for it in opened.projections()} == {
                "mine": (7, 5),  # only its application can fold that
                "sessions": (1, shipped.last_position),
                "streams": (1, shipped.last_position),
            }
        with closing(opened_plainly(shipped.path)) as file:
            rows = file.execute("SELECT session_id, state, event_count FROM sessions").fetchall()
            assert {row[0]: row[1:] for row in rows} == {
                str(it.session_id): (it.state, it.event_count) for it in live.sessions()
            }


@pytest.mark.parametrize("stale", ["version", "kept whole"])
def test_what_another_version_folded_is_folded_anew(tmp_path: Path, stale: str) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:300])
    with closing(apsw.Connection(str(path))) as file:
        if stale == "version":
            file.execute("UPDATE checkpoint SET version = 99; DELETE FROM projection_session")
        else:  # as an older version left it, that did not know the kind
            file.execute(
                "INSERT INTO kind (name) VALUES ('frames_batched');"
                "DELETE FROM kind WHERE name = 'frames_batched' AND fields IS NOT NULL"
            )

    shipped = ship(path, tmp_path / "b.db")

    assert journal.verify(shipped.path, full=True).sound
    with closing(opened_plainly(shipped.path)) as file:
        assert file.execute("SELECT sum(event_count) FROM sessions").fetchone() == (300,)


def test_the_last_block_covers_what_writers_have_appended_since(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "a.db") as writer:
        for start in range(0, 1_500, 100):
            writer.append_ndjson(LINES[start : start + 100])
        shipped = writer.ship(tmp_path / "b.db")
        head = writer.info().head
        writer.append_ndjson(LINES[1_500:1_600])

        assert shipped.head == head
        assert journal.verify(writer.path, full=True, head=head).sound
    with closing(opened_plainly(shipped.path)) as file:
        blocks = file.execute("SELECT first_seq, last_seq, sealed FROM block").fetchall()
        assert blocks == [(1, 1_000, 1), (1_001, 1_500, 0)]


def test_a_journal_without_events_can_be_shipped(tmp_path: Path) -> None:
    Journal.open(tmp_path / "a.db").close()

    shipped = ship(tmp_path / "a.db", tmp_path / "b.db", manifest=True)

    assert (shipped.event_count, shipped.first_position, shipped.head) == (0, None, None)
    assert journal.verify(shipped.path, full=True).sound
    named = ship(tmp_path / "a.db", tmp_path)
    assert named.path.name == f"journal-{str(shipped.journal_id)[:8]}-empty.db"


def test_a_shipped_file_can_be_shipped_again(shipment: Shipment, tmp_path: Path) -> None:
    again = ship(shipment.path, tmp_path / "b.db")
    small = ship(shipment.path, tmp_path / "c.db", indexes=False)

    kept = {"path", "shipped_at", "file_bytes", "sha256", "read_indexes"}
    assert again.model_dump(exclude=kept) == shipment.model_dump(exclude=kept)
    assert again.file_bytes <= shipment.file_bytes + 2 * 4096
    assert small.file_bytes < again.file_bytes
    for made in (again, small):
        assert journal.verify(made.path, full=True).sound
        assert indexes_of(made.path) == (READ_INDEXES if made is again else set())


def test_what_closed_a_file_before_it_was_shipped_is_kept(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy(source, path)
    with closing(apsw.Connection(str(path))) as file:
        file.execute("INSERT INTO meta VALUES ('closed', 'recover'); PRAGMA journal_mode = DELETE")

    shipped = ship(path, tmp_path / "b.db")

    with Journal.open(shipped.path, read_only=True) as opened:
        assert opened.info().closed_by == "recover"


# What its views and indexes are


READ_INDEXES = {
    "read_event_session",
    "read_event_stream",
    "read_event_timestamp",
    "read_session_id",
    "read_stream_id",
    "read_stream_session",
}


def indexes_of(path: Path) -> set[str]:
    with closing(opened_plainly(path)) as file:
        sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'read%'"
        return {name for (name,) in file.execute(sql)}


@pytest.mark.parametrize("view", VIEWS)
def test_the_flat_views_have_the_rows_and_columns_of_the_others(
    source: Path, file: sqlite3.Connection, view: str
) -> None:
    with closing(opened_plainly(source)) as live:
        found, expected = (it.execute(f"SELECT * FROM {view} ORDER BY 1") for it in (file, live))

        assert [it[0] for it in found.description] == [it[0] for it in expected.description]
        rows = found.fetchall()
        assert rows == expected.fetchall()
        assert rows


def test_without_indexes_the_views_are_those_of_a_journal(source: Path, tmp_path: Path) -> None:
    shipped = ship(source, tmp_path / "b.db", indexes=False)

    sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'view' ORDER BY name"
    with closing(opened_plainly(source)) as live, closing(opened_plainly(shipped.path)) as file:
        assert file.execute(sql).fetchall() == live.execute(sql).fetchall()
    assert indexes_of(shipped.path) == set()
    assert not shipped.read_indexes


def test_the_indexes_are_on_the_expression_of_the_views(file: sqlite3.Connection) -> None:
    for name in ("read_session_id", "read_stream_id"):
        (sql,) = file.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
        assert " ".join(sql.split()).endswith(f"( {id_text_sql()} )")


POINTS = {
    "SELECT * FROM events WHERE session_id = '{session}'": "read_event_session",
    "SELECT * FROM events WHERE session_id = '{session}' ORDER BY position": "read_event_session",
    "SELECT count(*) FROM events WHERE session_id = '{session}'": "read_event_session",
    "SELECT event_type, count(*) FROM events WHERE session_id = '{session}' GROUP BY 1": (
        "read_event_session"
    ),
    "SELECT * FROM events WHERE session_id = '{session}' AND event_type = 'stream_failed'": (
        "read_event_session"
    ),
    "SELECT * FROM events WHERE stream_id = '{stream}' ORDER BY position": "read_event_stream",
    "SELECT max(timestamp) FROM events WHERE stream_id = '{stream}'": "read_event_stream",
    "SELECT * FROM events WHERE session_key = 7": "read_event_session",
    "SELECT * FROM events WHERE stream_key = 7": "read_event_stream",
    "SELECT * FROM events WHERE timestamp_ns BETWEEN 1 AND 2": "read_event_timestamp",
    "SELECT * FROM events WHERE position = 7": "INTEGER PRIMARY KEY",
    "SELECT * FROM sessions WHERE session_id = '{session}'": "read_session_id",
    "SELECT * FROM streams WHERE stream_id = '{stream}'": "read_stream_id",
    "SELECT * FROM streams WHERE session_id = '{session}'": "read_stream_session",
    "SELECT * FROM sessions JOIN events USING (session_id) WHERE session_id = '{session}'": (
        "read_event_session"
    ),
}


LIBRARIES: dict[str, Callable[[Path], Any]] = {
    "older": opened_plainly,
    "ours": lambda path: apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY),
}


@pytest.mark.parametrize("sql", POINTS)
@pytest.mark.parametrize("library", ["older", "ours"])
def test_asking_for_one_id_reads_no_table_through(
    shipment: Shipment, library: str, sql: str
) -> None:
    with closing(LIBRARIES[library](shipment.path)) as file:
        filled = sql.format(**an_id_of_each(file))
        plan = [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {filled}")]

        assert not [step for step in plan if step.startswith("SCAN") and step != "SCAN c"], plan
        assert any(POINTS[sql] in step for step in plan), plan


def an_id_of_each(file: Any) -> dict[str, str]:
    sql = "SELECT session_id, stream_id FROM events WHERE stream_id IS NOT NULL LIMIT 1"
    session, stream = file.execute(sql).fetchone()
    return {"session": session, "stream": stream}


def test_a_query_for_all_reads_the_events_in_their_order(file: sqlite3.Connection) -> None:
    for sql in (
        "SELECT * FROM events",
        "SELECT * FROM events ORDER BY position LIMIT 9",
        "SELECT count(*) FROM events WHERE event_type = 'stream_failed'",
        "SELECT event_type, count(*) FROM events GROUP BY 1",
    ):
        plan = [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert plan[0] == "SCAN e"
        assert plan[4:] == ["USE TEMP B-TREE FOR GROUP BY"] or not plan[4:]


@pytest.mark.parametrize("library", ["older", "ours"])
@pytest.mark.parametrize("view", ["sessions", "streams"])
def test_a_join_by_id_goes_by_the_indexes_whichever_comes_first(
    shipment: Shipment, view: str, library: str
) -> None:
    using = f"USING ({view[:-1]}_id)"
    with closing(LIBRARIES[library](shipment.path)) as file:
        everything = list(file.execute(f"SELECT sum(event_count) FROM {view}"))
        for join in (f"events JOIN {view} {using}", f"{view} JOIN events {using}"):
            for where in ("", " WHERE state = 'Failed'", " WHERE event_type = 'stream_failed'"):
                sql = f"SELECT count(*) FROM {join}{where}"
                plan = [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {sql}")]
                scans = [step for step in plan if step.startswith("SCAN")]
                assert len(scans) == 1, plan
                if not where:
                    assert list(file.execute(sql)) == everything


def test_sqlite_has_counted_what_is_in_it(file: sqlite3.Connection, shipment: Shipment) -> None:
    counted = dict(file.execute("SELECT idx, stat FROM sqlite_stat1"))

    assert counted.keys() >= READ_INDEXES - {"read_session_id", "read_stream_id"}
    assert int(counted["read_event_session"].split()[0]) == shipment.event_count


# What it says of itself


def test_the_readme_has_queries_that_run(file: sqlite3.Connection) -> None:
    rows = file.execute("SELECT topic, text FROM README ORDER BY number").fetchall()
    queries = [text for topic, text in rows if topic.startswith("Query: ")]

    assert len(queries) >= 8
    answers = [file.execute(sql).fetchall() for sql in queries]
    assert [sql for sql, answer in zip(queries, answers, strict=True) if not answer] == [
        sql
        for sql in queries
        if "2026-01-31" in sql  # an hour in which nothing happened
    ]


def test_the_readme_explains_every_view_and_its_columns(file: sqlite3.Connection) -> None:
    topics = dict(file.execute("SELECT topic, text FROM README"))
    words = " ".join(topics.values())

    for view in ("events", "sessions", "streams", "folded"):
        assert f"View: {view}" in topics
    for _, column, *_ in file.execute("PRAGMA table_info(events)"):
        assert re.search(rf"\b{column}\b", topics["View: events"]), column
    for table in ("manifest", "absent", "block", "projection_anomaly"):
        assert f"Table: {table}" in topics or table in words
    assert all(text.isprintable() for text in topics.values())


def test_the_manifest_is_in_the_file_and_beside_it(
    source: Path, shipment: Shipment, file: sqlite3.Connection
) -> None:
    beside = json.loads(shipment.manifest_path.read_bytes())
    inside = dict(file.execute("SELECT key, value FROM manifest"))

    assert shipment.manifest_path == shipment.path.with_name("copy.db.manifest.json")
    assert beside == shipment.manifest()
    assert beside["file"] == "copy.db"
    assert beside["sha256"] == hashlib.sha256(shipment.path.read_bytes()).hexdigest()
    assert beside["file_bytes"] == shipment.path.stat().st_size
    assert {
        key: value if isinstance(value, str | None) else json.dumps(value, separators=(",", ":"))
        for key, value in beside.items()
        if key not in ("file", "file_bytes", "sha256")
    } == inside
    with Journal.open(source, read_only=True) as live:
        info = live.info()
    for name in (
        *("journal_id", "label", "event_count", "first_position", "last_position", "head"),
        *("first_timestamp", "last_timestamp", "session_count", "stream_count", "counts_by_kind"),
    ):
        assert getattr(shipment, name) == getattr(info, name), name
    assert (shipment.digest_before, shipment.absent) == ("0" * 64, ())
    assert shipment.sqlite_version == apsw.sqlite_lib_version()


def test_names_that_the_journal_has_for_something_else_are_taken_over(
    source: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    shutil.copy(source, path)
    with closing(apsw.Connection(str(path))) as file:
        file.execute(
            "CREATE VIEW readme AS SELECT 1; CREATE TABLE Manifest (x); CREATE TABLE mine (x);"
            "INSERT INTO mine VALUES (7)"
        )

    shipped = ship(path, tmp_path / "b.db")

    with closing(opened_plainly(shipped.path)) as file:
        assert file.execute("SELECT count(*) > 5 FROM README").fetchone() == (1,)
        assert file.execute("SELECT count(*) > 5 FROM manifest").fetchone() == (1,)
        assert file.execute("SELECT x FROM mine").fetchall() == [(7,)]


# Who can open it


def read_everywhere(_channel: Channel, path: Path) -> list[Any]:
    support.become_nobody()
    with Journal.open(path, read_only=True) as opened:
        found: list[Any] = [opened.event_count(), len(opened.sessions())]
    for parameters in ("mode=ro", "immutable=1", "mode=ro&immutable=1"):
        with closing(opened_plainly(path, parameters)) as file:
            found.append(file.execute("SELECT count(*) FROM events").fetchone()[0])
            found.append(file.execute("SELECT count(*) FROM sessions").fetchone()[0])
    with closing(sqlite3.connect(path)) as file:
        found.append(file.execute("SELECT count(*) FROM events").fetchone()[0])
    return [*found, names_in(path.parent)]


def test_somebody_else_reads_it_from_a_folder_that_cannot_be_written(source: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shipped = ship(source, folder / "b.db")
        folder.chmod(0o555)

        found = support.run(read_everywhere, shipped.path)

        folder.chmod(0o755)
    with Journal.open(source, read_only=True) as opened:
        pair = [shipped.event_count, len(opened.sessions())]
    assert found == [*pair * 4, shipped.event_count, ["b.db"]]


def test_its_header_says_that_there_is_no_wal(shipment: Shipment) -> None:
    header = shipment.path.read_bytes()[:100]

    assert header[18:20] == b"\x01\x01"
    assert names_in(shipment.path.parent) == ["copy.db", "copy.db.manifest.json"]
    with closing(opened_plainly(shipment.path)) as file:
        keys = {key for (key,) in file.execute("SELECT key FROM meta")}
        assert keys.isdisjoint({"wal_id", "wal_follows"})
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("PRAGMA freelist_count").fetchone() == (0,)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 shell here")
def test_the_shell_of_the_system_reads_it(shipment: Shipment) -> None:
    sql = "SELECT count(*) FROM events; SELECT text FROM README LIMIT 1; SELECT data FROM events"

    command = ["sqlite3", "-readonly", str(shipment.path), sql]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{shipment.event_count}\nA copy of a journal, made by")


# What it is called


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("pump 7", "pump_7"),
        ("Prüfstand-Süd", "Prüfstand-Süd"),
        ('a/b\\c:d*e?f"g<h>i|j', "a_b_c_d_e_f_g_h_i_j"),
        ("../../etc", "etc"),
        ("-rf", "rf"),
        ("...", "journal"),
        ("con", "con"),
        ("é", "é"),
        ("x" * 200, "x" * 100),
        ("界" * 200, "界" * 33),
        (None, "journal"),
    ],
)
def test_in_a_folder_it_is_named_by_label_journal_and_positions(
    tmp_path: Path, label: str | None, expected: str
) -> None:
    with Journal.open(tmp_path / "a.db", label=label) as opened:
        opened.append_ndjson(LINES[:20])
        (tmp_path / "out").mkdir()
        shipped = opened.ship(tmp_path / "out")

    assert shipped.path.parent == tmp_path / "out"
    assert shipped.path.name == f"{expected}-{str(shipped.journal_id)[:8]}-1-20.db"
    with pytest.raises(errors.TargetExistsError):
        ship(tmp_path / "a.db", tmp_path / "out")


def test_the_name_is_that_of_what_was_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer may append between asking how far the journal goes and copying it."""
    really_copied = shipping.copy_moment
    (tmp_path / "out").mkdir()
    with Journal.open(tmp_path / "a.db") as writer:
        writer.append_ndjson(LINES[:20])

        def append_and_copy(*arguments: Any) -> None:
            writer.append_ndjson(LINES[20:30])
            really_copied(*arguments)

        monkeypatch.setattr(shipping, "copy_moment", append_and_copy)
        shipped = writer.ship(tmp_path / "out")

    assert shipped.path.name.endswith("-1-30.db")
    assert shipped.event_count == 30


def test_the_command_says_what_it_made(source: Path, tmp_path: Path) -> None:
    result = run_here("ship", source, tmp_path, "--manifest")
    (path,) = tmp_path.glob("*.db")
    manifest = json.loads((tmp_path / f"{path.name}.manifest.json").read_bytes())

    assert result == (
        0,
        (
            f"Shipped     {path}\n"
            "Label       pump 7\n"
            f"Events      {manifest['event_count']:,} events, positions 1 to"
            f" {manifest['last_position']}\n"
            f"Head        {manifest['head']}\n"
            f"Size        {manifest['file_bytes'] / 1e3:.0f} kB\n"
            f"SHA-256     {manifest['sha256']}\n"
            f"Manifest    {path}.manifest.json\n"
        ).encode(),
        "",
    )
    again = run_here("ship", source, tmp_path, "--force", "--no-indexes", "--json")
    found = json.loads(again.out)
    assert (again.code, found["path"], found["read_indexes"]) == (0, str(path), False)
    assert names_in(tmp_path) == [path.name]  # the manifest was of another file


def test_ids_of_the_readme_are_those_of_the_library(source: Path) -> None:
    with closing(apsw.Connection(str(source))) as file:
        sql = f"SELECT uuid, {id_text_sql()} FROM "
        for table, of in (("session", SessionId), ("stream", StreamId)):
            for uuid, text in file.execute(f"{sql}{table}"):
                assert str(of.from_bytes(uuid)) == text
