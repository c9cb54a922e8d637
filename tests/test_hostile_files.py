"""A file is input: what a hostile one says is refused, or does no harm."""

import os
import random
import signal
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from commands_support import run_here, start
from support import SEEDS, activated, lines_of, within

from journal import DamagedError, Journal, JournalError, SessionId

ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT i AS {0} FROM n WHERE i < 0"
)
TABLES = [
    *("meta", "kind", "session", "stream", "event", "block", "absent"),
    *("base", "base_session", "base_stream", "base_state", "checkpoint", "append_key"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_ndjson(lines_of("mixed/events.ndjson")[:50])
    return path


def execute(path: Path, statements: str) -> None:
    with closing(apsw.Connection(str(path))) as file:
        file.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        file.execute(statements)


def rewrite_schema(path: Path, statement: str) -> None:
    """Change what the schema says, as only somebody does who means it."""
    execute(path, f"PRAGMA writable_schema = ON; {statement}; PRAGMA writable_schema = OFF")


def refused(path: Path) -> None:
    """It is refused in seconds, by readers and writers and the command, and nothing is written."""
    before = path.read_bytes()
    with within(60, "over a hostile file"):
        for read_only in (True, False):
            with pytest.raises(DamagedError):
                Journal.open(path, read_only=read_only)
        for command in ("info", "sessions", "events", "rebuild"):
            result = run_here(command, path)
            assert result.code == 1, command
            assert "Traceback" not in result.err
            assert len(result.err.splitlines()) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("table", TABLES)
def test_an_endless_view_in_the_place_of_a_table_is_refused(path: Path, table: str) -> None:
    with closing(apsw.Connection(str(path))) as file:
        columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
    view = f"CREATE VIEW {table} ({', '.join(columns)}) AS SELECT * FROM (" + ENDLESS.format("a")
    for _ in columns[1:]:
        view += ") CROSS JOIN (" + ENDLESS.format("b")
    execute(path, f"ALTER TABLE {table} RENAME TO gone; {view})")

    refused(path)


@pytest.mark.parametrize(
    "trigger",
    [
        "CREATE TRIGGER evil AFTER INSERT ON event BEGIN DELETE FROM kind; END",
        "CREATE TRIGGER evil BEFORE INSERT ON event BEGIN SELECT RAISE(IGNORE); END",
        (
            "CREATE TRIGGER evil AFTER INSERT ON session BEGIN INSERT INTO append_key"
            f" SELECT a, 0, 0, '', 0 FROM ({ENDLESS.format('a')}); END"
        ),
        (
            "CREATE TRIGGER evil AFTER INSERT ON projection_session"
            " BEGIN UPDATE projection_session SET state = 'Failed'; END"
        ),
        "CREATE TRIGGER evil AFTER UPDATE ON checkpoint BEGIN DELETE FROM checkpoint; END",
        (
            "DROP TRIGGER event_is_never_updated; CREATE TRIGGER event_is_never_updated"
            " BEFORE UPDATE ON event BEGIN SELECT 1; END"
        ),
    ],
)
def test_a_trigger_that_is_not_ours_is_refused(path: Path, trigger: str) -> None:
    execute(path, trigger)

    refused(path)


def test_an_index_or_a_virtual_table_that_is_not_ours_is_refused(path: Path) -> None:
    execute(path, "CREATE INDEX evil ON event (timestamp, abs(seq))")

    refused(path)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_with_other_columns_is_refused(path: Path, table: str) -> None:
    with closing(apsw.Connection(str(path))) as file:
        column = list(file.execute(f"PRAGMA table_info({table})"))[-1][1]
    execute(path, f"ALTER TABLE {table} RENAME COLUMN {column} TO other")

    refused(path)


def test_a_table_with_a_column_that_is_computed_is_refused(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as file:
        file.execute("ALTER TABLE session ADD COLUMN more AS (last_seq + 1)")

    refused(path)


def test_the_right_statement_beside_another_table_is_of_no_use(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as file:
        right = file.execute("SELECT sql FROM sqlite_schema WHERE name = 'event'").get
    execute(path, "ALTER TABLE event RENAME COLUMN data TO other")
    quoted = right.replace("'", "''")
    values = f"'table', 'event', 'event', 0, '{quoted}'"
    rewrite_schema(path, f"INSERT INTO sqlite_schema VALUES ({values})")

    for read_only in (True, False):
        with pytest.raises(JournalError):
            Journal.open(path, read_only=read_only)


def test_a_table_that_is_written_in_other_words_is_taken(path: Path) -> None:
    rewrite_schema(
        path, "UPDATE sqlite_schema SET sql = replace(sql, '(', ' ( ') WHERE type = 'table'"
    )
    with Journal.open(path) as journal:
        assert journal.event_count() == 50


def test_a_definition_with_more_sql_behind_it_is_not_executed(path: Path, tmp_path: Path) -> None:
    """A rebuild once took the definition of a table from the file, and emptied another database."""
    victim = tmp_path / "victim.db"
    with closing(apsw.Connection(str(victim))) as file:
        file.execute("CREATE TABLE precious (x); INSERT INTO precious VALUES (1)")
    rewrite_schema(
        path,
        "UPDATE sqlite_schema"
        f" SET sql = sql || '; ATTACH ''{victim}'' AS v; DELETE FROM v.precious'"
        " WHERE name LIKE 'projection_%' AND type = 'table'",
    )
    with within(60, "over a hostile file"):
        for command in (["rebuild", "--check"], ["rebuild"], ["sessions"]):
            run_here(command[0], path, *command[1:])
        try:
            with Journal.open(path) as journal:
                journal.rebuild()
        except JournalError:
            pass

    with closing(apsw.Connection(str(victim))) as file:
        assert file.execute("SELECT count(*) FROM precious").get == 1


def test_nothing_can_be_attached(path: Path) -> None:
    with Journal.open(path) as journal:
        connection = journal.connection()
        with pytest.raises(apsw.SQLError, match="too many attached"):
            connection.execute("ATTACH ':memory:' AS more")


@pytest.mark.parametrize(
    "fields", ['json_group_array("f" || value)', "'[1, 2]'", "'{}'", "'5'", "'[[]]'"]
)
def test_a_kind_with_strange_fields_is_refused(path: Path, fields: str) -> None:
    execute(
        path,
        "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 300000)"
        f" INSERT INTO kind (name, fields) SELECT 'strange', {fields} FROM n LIMIT 1".replace(
            '"f"', "'f'"
        ),
    )
    with within(60, "over a hostile file"):
        with pytest.raises(DamagedError) as error:
            Journal.open(path)
        assert len(str(error.value)) < 1000


def test_control_characters_and_forged_lines_do_not_reach_the_terminal(path: Path) -> None:
    evil = "x' || char(27) || '[2J' || char(10) || 'Error: forged' || char(8238) || '"
    execute(
        path,
        f"UPDATE meta SET value = '{evil}' WHERE key = 'library_version';"
        f"INSERT INTO meta VALUES ('label', '{evil}');"
        f"INSERT INTO checkpoint VALUES ('{evil}', 'projection', 1, 1, 1);"
        f"INSERT INTO kind (name, fields) VALUES ('{evil}', NULL)",
    )
    execute(
        path,
        "INSERT INTO event SELECT 51, (SELECT max(code) FROM kind), session, NULL, 0, '{}', NULL,"
        " NULL FROM event WHERE seq = 1",
    )
    for command in (["info"], ["projections"], ["label"], ["sessions"], ["rebuild"]):
        result = run_here(*[command[0], path])
        shown = result.out.decode() + result.err
        assert "\x1b" not in shown, command
        assert "\u202e" not in shown, command
        assert not any(line.startswith("Error: forged") for line in shown.splitlines()), command


@pytest.mark.slow
def test_an_event_of_hundreds_of_megabytes_is_damage(path: Path) -> None:
    execute(
        path,
        "DROP TRIGGER event_is_never_updated;"
        "UPDATE event SET data = hex(zeroblob(200000000)) WHERE seq = 7",
    )
    execute(
        path,
        "CREATE TRIGGER event_is_never_updated BEFORE UPDATE ON event\n"
        "BEGIN SELECT RAISE(ABORT, 'events never change'); END",
    )
    with Journal.open(path, read_only=True) as journal:
        with pytest.raises(DamagedError):
            list(journal.read())


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_a_query_that_would_never_end(path: Path) -> None:
    code = (
        "import sys, journal\n"
        "with journal.Journal.open(sys.argv[1]) as opened:\n"
        "    connection = opened.connection()\n"
        "    print('now', flush=True)\n"
        f"    connection.execute({ENDLESS.format('i')!r}).fetchall()\n"
    )
    process = start(path, program=["-c", code])
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0


def test_tables_and_views_of_others_are_left_alone(path: Path) -> None:
    execute(
        path, "CREATE TABLE notes (text); CREATE INDEX i ON notes (text); CREATE VIEW v AS SELECT 1"
    )
    with Journal.open(path) as journal:
        assert journal.append_events([activated(SessionId.new())]) == (51, 51)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_definition_with_something_else_in_it_is_refused_or_does_no_harm(
    path: Path, seed: int
) -> None:
    """Words of SQL, in any place of any definition: an answer, or one sentence, in seconds."""
    draw = random.Random(seed)
    words = [
        "DROP",
        "1",
        "NULL",
        "'",
        "--",
        ";",
        "(",
        ")",
        "ATTACH",
        "abs",
        "x",
        ",",
        "/*",
        "event",
    ]
    before = path.read_bytes()
    with closing(apsw.Connection(str(path))) as file:
        objects = file.execute(
            "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
        ).fetchall()
    for _ in range(40):
        path.write_bytes(before)
        name, sql = draw.choice(objects)
        parts = sql.split(" ")
        where = draw.randrange(2, len(parts))
        parts[where : where + draw.randrange(2)] = [draw.choice(words)]
        changed = " ".join(parts)
        quoted = changed.replace("'", "''")
        rewrite_schema(path, f"UPDATE sqlite_schema SET sql = '{quoted}' WHERE name = '{name}'")
        with within(60, f"over {changed}"):
            for command in ("info", "sessions", "events", "anomalies", "rebuild"):
                result = run_here(command, path)
                assert result.code in (0, 1, 3), (command, changed, result)
                assert result.code != 1 or len(result.err.splitlines()) == 1, (changed, result)
            try:
                with Journal.open(path) as journal:
                    journal.append_events([activated(SessionId.new())])
            except JournalError:
                pass
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
