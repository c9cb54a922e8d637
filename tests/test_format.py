"""The file: its schema and specification, its digests, its view, its query plans, its size."""

import hashlib
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import lines_of

from journal import (
    Journal,
    SessionId,
    Timestamp,
    UnknownEvent,
    limits,
    parse_event,
)
from journal.events.kinds import KINDS
from journal.file import blocks, extent, reading, selecting
from journal.file.identity import APPLICATION_ID, FORMAT_VERSION

SCHEMA = resources.files("journal.file").joinpath("schema.sql").read_text("utf-8")
PROJECTION_VIEWS = [("view", "sessions"), ("view", "streams")]
FORMAT = resources.files("journal.file").joinpath("FORMAT.md").read_text("utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a closed journal of every kind, some of them twice, and an unknown one."""
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_ndjson(lines_of("kinds.ndjson"))
        journal.append_ndjson(lines_of("next_version.ndjson"), unknown="keep")
        journal.append_ndjson(lines_of("mixed/events.ndjson"))
    return path


@pytest.fixture
def file(path: Path) -> apsw.Connection:
    return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)


# The specification


def test_a_new_file_has_the_schema_of_schema_sql(file: apsw.Connection) -> None:
    """All but the view `events`, which shows the fields of every kind by name."""

    def objects(connection: apsw.Connection) -> dict[tuple[str, str], str]:
        sql = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'projection%'"
        found = {row[:2]: row[2] for row in connection.execute(sql)}
        return {key: text for key, text in found.items() if key not in PROJECTION_VIEWS}

    fresh = apsw.Connection(":memory:")
    fresh.execute(SCHEMA)
    expected = objects(fresh)
    here = objects(file)
    as_written, as_made = expected.pop(("view", "events")), here.pop(("view", "events"))

    assert here == expected
    cases = re.findall(
        r"\n        WHEN k\.name = '(\w+)' THEN\n            json_object\(.*", as_made
    )
    assert cases == [kind.name for kind in KINDS.values() if kind.fields]
    bare = re.sub(r"\n        WHEN k\.name = '\w+' THEN\n            json_object\(.*", "", as_made)
    assert bare == re.sub(r"\n        -- .*", "", as_written)


def test_format_md_and_schema_sql_name_the_same_things(file: apsw.Connection) -> None:
    tables = re.findall(r"CREATE TABLE (\w+)", SCHEMA)
    listed = re.search(r"## Tables\n(.*?)\n###", FORMAT, re.DOTALL)

    assert listed is not None
    assert re.findall(r"^\| `(\w+)` \|", listed[1], re.MULTILINE) == tables
    assert f"0x{APPLICATION_ID:X}" in FORMAT
    assert f", {APPLICATION_ID})" in FORMAT
    assert f"0x{APPLICATION_ID:X}" in SCHEMA
    assert f"| {FORMAT_VERSION} |" in FORMAT
    for index in re.findall(r"CREATE INDEX (\w+)", SCHEMA):
        assert f"`{index}`" in FORMAT
    for view in re.findall(r"CREATE VIEW (\w+)", SCHEMA):
        assert f"\n`{view}`: " in FORMAT
    for key in dict(file.execute("SELECT key, value FROM meta")):
        assert f"| `{key}` |" in FORMAT
        assert f"--   {key} " in SCHEMA
    assert f"{limits.BLOCK_DATA_MAX:,}" in FORMAT
    assert f"that {limits.BLOCK_EVENTS_MAX} divides" in FORMAT


def test_every_table_and_column_has_a_comment() -> None:
    for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", SCHEMA, re.DOTALL):
        assert re.search(rf"-- [^\n]+\nCREATE TABLE {table} ", SCHEMA), table
        for column in re.findall(r"^    (\w+)  .*", body, re.MULTILINE):
            line = next(line for line in body.splitlines() if line.split()[:1] == [column])
            likewise = table in {"meta", "stream"}  # explained above the table
            assert likewise or "--" in line, f"{table}.{column}"


def test_only_plain_types_are_declared(file: apsw.Connection) -> None:
    for (table,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        for row in file.execute(f"PRAGMA table_xinfo('{table}')").fetchall():
            if not table.startswith("sqlite_"):
                assert row[2] in {"INTEGER", "TEXT", "BLOB", "REAL"}
                assert row[6] == 0, "no hidden or generated columns"


def test_identity_and_settings_are_those_of_the_specification(file: apsw.Connection) -> None:
    assert file.pragma("application_id") == APPLICATION_ID
    assert file.pragma("user_version") == FORMAT_VERSION
    assert file.pragma("journal_mode") == "wal"
    assert file.pragma("auto_vacuum") == 2
    assert file.pragma("encoding") == "UTF-8"
    assert file.pragma("integrity_check") == "ok"


def test_the_kinds_and_their_fields_are_in_the_file(file: apsw.Connection) -> None:
    rows = file.execute("SELECT code, name, fields FROM kind ORDER BY code").fetchall()

    assert rows[:16] == [
        (code, kind.name, json.dumps(kind.field_names, separators=(",", ":")))
        for code, kind in enumerate(KINDS.values(), 1)
    ]
    assert rows[16:] == [(17, "backpressure_received", None)]


@pytest.mark.parametrize(
    "statement", ["UPDATE event SET timestamp = 0", "DELETE FROM event WHERE seq = 1"]
)
def test_events_cannot_be_changed_by_accident(path: Path, statement: str) -> None:
    with pytest.raises(apsw.ConstraintError, match="event"):
        apsw.Connection(str(path)).execute(statement)


# Chains and blocks


@pytest.mark.parametrize("table", ["session", "stream"])
def test_every_chain_is_whole(file: apsw.Connection, table: str) -> None:
    """Walks the links in Python, and holds them against a scan of the events."""
    events = file.execute(f"SELECT seq, {table}, {table}_prev FROM event ORDER BY seq").fetchall()
    latest: dict[int, int] = {}
    lengths: dict[int, int] = {}
    for seq, key, prev in events:
        if key is not None:
            assert prev == latest.get(key)
            latest[key] = seq
            lengths[key] = lengths.get(key, 0) + 1

    heads = file.execute(f"SELECT id, last_seq, event_count FROM {table}").fetchall()
    assert heads == [(key, latest[key], lengths[key]) for key in sorted(latest)]


def check_blocks(file: apsw.Connection) -> list[tuple[int, int, int]]:
    """Recompute every block in Python from plain rows; return first, last and sealed of each."""
    rows = file.execute(
        "SELECT e.seq, k.name, s.uuid, t.uuid, e.timestamp, e.data FROM event AS e"
        " JOIN kind AS k ON k.code = e.kind JOIN session AS s ON s.id = e.session"
        " LEFT JOIN stream AS t ON t.id = e.stream ORDER BY e.seq"
    ).fetchall()
    before, expected_first, found = "0" * 64, 1, []
    for first, last, smallest, largest, salt, content_digest, digest, sealed in file.execute(
        "SELECT first_seq, last_seq, min_timestamp, max_timestamp, salt, content_digest, digest,"
        " sealed FROM block ORDER BY first_seq"
    ).fetchall():
        values = [
            [seq, kind, session.hex(), stream and stream.hex(), timestamp, data]
            for seq, kind, session, stream, timestamp, data in rows[first - 1 : last]
        ]
        text = salt + json.dumps(values, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == content_digest
        assert hashlib.sha256((before + content_digest).encode()).hexdigest() == digest
        assert first == expected_first
        assert smallest == min(row[4] for row in values)
        assert largest == max(row[4] for row in values)
        before, expected_first = digest, last + 1
        found.append((first, last, sealed))
    return found


def test_blocks_cover_everything_after_close(file: apsw.Connection) -> None:
    found = check_blocks(file)

    assert [last for _, last, sealed in found if sealed] == [1000, 2000, 3000, 4000, 5000]
    assert found[-1] == (5001, 5923, 0)


def test_the_digest_is_over_what_the_specified_statement_gives(path: Path) -> None:
    section = FORMAT.partition("\n### block\n")[2].partition("\n### ")[0]
    (statement,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    assert statement.split() == blocks.TEXT_SQL.split()

    shell = subprocess.run(
        ["sqlite3", str(path), statement.replace(":first", "1").replace(":last", "1000")],
        capture_output=True,
        check=True,
    )
    text = shell.stdout.rstrip(b"\n")

    file = sqlite3.connect(path)
    salt, content_digest, digest = file.execute(
        "SELECT salt, content_digest, digest FROM block WHERE first_seq = 1"
    ).fetchone()
    file.close()
    assert hashlib.sha256(salt.encode() + text).hexdigest() == content_digest
    assert hashlib.sha256(("0" * 64 + content_digest).encode()).hexdigest() == digest


def test_every_block_has_a_salt_of_its_own(file: apsw.Connection) -> None:
    salts = [salt for (salt,) in file.execute("SELECT salt FROM block")]

    assert len(set(salts)) == len(salts) == 6
    assert all(re.fullmatch("[0-9a-f]{32}", salt) for salt in salts)


def test_the_row_of_a_block_is_made_with_its_first_event(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    lines = lines_of("mixed/events.ndjson")
    with Journal.open(path) as journal:
        found = []
        for first, last in [(0, 3), (3, 7), (7, 1_000), (1_000, 1_002)]:
            journal.append_events(parse_event(line) for line in lines[first:last])
            found.append(check_blocks(apsw.Connection(str(path))))
    found.append(check_blocks(apsw.Connection(str(path))))

    assert found == [
        [(1, 3, 0)],
        [(1, 3, 0)],  # it covers what was there when it was written
        [(1, 1000, 1)],
        [(1, 1000, 1), (1001, 1002, 0)],
        [(1, 1000, 1), (1001, 1002, 0)],
    ]


def test_the_open_block_is_replaced_and_not_added_to(tmp_path: Path) -> None:
    lines = lines_of("mixed/events.ndjson")
    for line in lines[:50]:
        with Journal.open(tmp_path / "a.db") as journal:
            journal.append_ndjson([line])

    file = apsw.Connection(str(tmp_path / "a.db"))
    assert check_blocks(file) == [(1, 50, 0)]

    file.close()
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_ndjson(lines[50:1234])
    assert check_blocks(apsw.Connection(str(tmp_path / "a.db"))) == [(1, 1000, 1), (1001, 1234, 0)]


def test_large_events_make_short_blocks(tmp_path: Path) -> None:
    session, stream = SessionId.new(), "f47ac10b-58cc-4372-a567-0e02b2c3d479"

    def line(size: int) -> str:
        return (
            f'{{"event_type":"stream_failed","session_id":"{session}","stream_id":"{stream}",'
            f'"error":"{"x" * size}","timestamp":"2026-01-01T00:00:00Z"}}'
        )

    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_events(parse_event(line(size)) for size in (10, 2_000_000, 600_000))
        journal.append_events([parse_event(line(600_000))])
        journal.append_events([parse_event(line(5))])

    assert check_blocks(apsw.Connection(str(tmp_path / "a.db"))) == [
        (1, 2, 1),
        (3, 4, 1),
        (5, 5, 0),
    ]


# The view


def test_the_view_shows_every_event_with_named_fields(path: Path, file: apsw.Connection) -> None:
    with Journal.open(path, read_only=True) as journal:
        texts = dict(journal.lines())
    for position, kind, session, stream, timestamp, timestamp_ns, data in file.execute(
        "SELECT position, event_type, session_id, stream_id, timestamp, timestamp_ns, data"
        " FROM events"
    ):
        shown = {"event_type": kind, "session_id": session}
        if stream is not None:
            shown["stream_id"] = stream
        whole = json.loads(texts[position])
        text = whole.pop("timestamp")
        if kind in KINDS:
            shown |= json.loads(data) if data else {}
            assert shown == whole
            assert list(shown) == list(whole)
        else:
            assert json.loads(data) == json.loads(texts[position])
        assert Timestamp.parse(text).epoch_ns == timestamp_ns
        assert Timestamp.parse(timestamp).epoch_ns == timestamp_ns
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", timestamp)


def test_times_in_the_view_sort_as_text(file: apsw.Connection) -> None:
    by_time = file.execute("SELECT timestamp FROM events ORDER BY timestamp_ns").fetchall()

    assert by_time == sorted(by_time)


def test_the_view_keeps_every_digit(tmp_path: Path) -> None:
    line = next(line for line in lines_of("kinds.ndjson") if "18446744073709551615" in line)
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_ndjson([line])

    file = apsw.Connection(str(tmp_path / "a.db"))

    assert "18446744073709551615" in file.execute("SELECT data FROM events").get


# Query plans, and the work that reading is


def plan(file: apsw.Connection, sql: str, parameters: tuple[Any, ...]) -> str:
    rows = file.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize("sql", [reading.SESSION_CHAIN_SQL, reading.STREAM_CHAIN_SQL])
def test_a_chain_is_followed_by_key(file: apsw.Connection, sql: str) -> None:
    assert "SCAN event" not in plan(file, sql, (1,))
    assert "SCAN e" not in plan(file, sql, (1,))
    assert "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)" in plan(file, sql, (1,))


@pytest.mark.parametrize("sql", [reading.PAGE_SQL, reading.RANGE_SQL])
def test_a_page_is_read_by_range(file: apsw.Connection, sql: str) -> None:
    found = plan(file, sql, (0, 1))

    assert found == "SEARCH event USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"


def steps(file: apsw.Connection, ask: Callable[[apsw.Connection], object]) -> int:
    """Return how many instructions of SQLite's machine an answer takes."""
    ask(file)  # so that statements are prepared
    count = 0

    def note() -> bool:
        nonlocal count
        count += 1
        return False

    file.set_progress_handler(note, 1)
    ask(file)
    file.set_progress_handler(None)
    return count


@pytest.fixture
def few_and_many_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[apsw.Connection, apsw.Connection]:
    """Return connections to journals of a hundred blocks and of a thousand, of ten events each.

    Each second there is an event, but for the first, when the clock ran far ahead.
    """
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
    session = SessionId.new()

    def line(second: int) -> str:
        timestamp = Timestamp.from_epoch_ns(second * 1_000_000_000).rfc3339()
        return (
            f'{{"event_type":"session_activated","session_id":"{session}",'
            f'"timestamp":"{timestamp}"}}'
        )

    def build(name: str, count: int) -> apsw.Connection:
        with Journal.open(tmp_path / name, durability="normal") as journal:
            journal.append_ndjson(map(line, [9_000_000_000, *range(1, count)]))
        return apsw.Connection(str(tmp_path / name))

    return build("few.db", 1_000), build("many.db", 10_000)


def test_since_looks_at_blocks_and_only_at_events_of_those_with_something_later(
    few_and_many_blocks: tuple[apsw.Connection, apsw.Connection],
) -> None:
    few, many = few_and_many_blocks

    def since(second: int) -> Callable[[apsw.Connection], list[Any]]:
        filters = selecting.Filters(since_ns=second * 1_000_000_000)

        def ask(file: apsw.Connection) -> list[Any]:
            whole, rows, position = extent.read_extent(file), [], 0
            while position < whole.last:
                some, position = selecting.next_rows(file, whole, filters, position, whole.last)
                rows += some
            return rows

        return ask

    assert len(since(9_990)(many)) == 10
    more_blocks = 900
    assert steps(many, since(9_990)) - steps(few, since(990)) < 10 * more_blocks  # 9,000 events


@pytest.mark.parametrize(
    "ask", [extent.last_position, lambda file: blocks.Tail(file, extent.read_extent(file))]
)
def test_the_end_is_found_in_the_same_steps_however_many_blocks_there_are(
    few_and_many_blocks: tuple[apsw.Connection, apsw.Connection],
    ask: Callable[[apsw.Connection], object],
) -> None:
    few, many = few_and_many_blocks

    assert steps(many, ask) == steps(few, ask)


# Files of others


def test_a_kind_stored_by_a_newer_version_is_read_whole(path: Path) -> None:
    """Not only kinds that were kept whole: also those whose fields a newer writer knew."""
    writer = apsw.Connection(str(path))
    writer.execute(
        "INSERT INTO kind (code, name, fields) VALUES (40, 'stream_paused', ?)",
        ('["reason","detail.depth","detail.rate"]',),
    )
    session, stream = writer.execute(
        "SELECT s.id, t.id FROM session AS s, stream AS t LIMIT 1"
    ).fetchone()
    writer.execute(
        "INSERT INTO event (seq, kind, session, stream, timestamp, data)"
        " VALUES (5924, 40, ?, ?, 5, ?)",
        (session, stream, '["é",18446744073709551615,1.5]'),
    )
    writer.close()

    with Journal.open(path) as journal:
        (recorded,) = journal.read(after=5923)

    event = recorded.event
    assert isinstance(event, UnknownEvent)
    assert json.loads(event.original_json) == {
        "event_type": "stream_paused",
        "session_id": str(event.session_id),
        "stream_id": str(event.stream_id),
        "reason": "é",
        "detail": {"depth": 2**64 - 1, "rate": 1.5},
        "timestamp": "1970-01-01T00:00:00.000000005Z",
    }


def test_the_live_file_is_a_third_of_its_ndjson(tmp_path: Path) -> None:
    """The figure for a million events is in benchmarks/; this is the same at 54 thousand."""
    lines = lines_of("mixed/events.ndjson")
    ids = sorted({found for line in lines for found in re.findall(r'_id":"([^"]+)"', line)})
    size = 0

    def repeated() -> Any:
        nonlocal size
        for _ in range(10):
            fresh = {old: str(SessionId.new()) for old in ids}
            for line in lines:
                text = re.sub(r"(?<=_id\":\")[^\"]+", lambda m, fresh=fresh: fresh[m[0]], line)
                size += len(text.encode()) + 1
                yield text

    with Journal.open(tmp_path / "a.db", durability="normal") as journal:
        journal.append_ndjson(repeated())

    assert (tmp_path / "a.db").stat().st_size <= 0.35 * size


def test_views_join_in_words_that_duckdb_takes_too() -> None:
    """It reads the text of a view with a parser of its own, which wants ON after JOIN."""
    for room, name in (("file", "schema.sql"), ("projections", "tables.sql")):
        sql = resources.files(f"journal.{room}").joinpath(name).read_text("utf-8")
        joins = re.findall(r"(CROSS )?JOIN [a-z_]+ AS [a-z](?: (ON) |\n)", sql)
        assert len(joins) == len(re.findall(r"\bJOIN\b", sql)) > 2
        assert all(bool(cross) != bool(on) for cross, on in joins), name
