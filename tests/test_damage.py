"""Damage is never an answer: every value of the file made impossible, every method asked.

What comes is a `DamagedError` or an answer, and never another exception, a hang or an event that
was acknowledged and is not there.
"""

import random
import shutil
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import SEEDS, activated, lines_of, tried, within

from journal import (
    AccessDeniedError,
    ClosedCopyError,
    ConcurrencyError,
    DamagedError,
    Journal,
    NewerFormatError,
    NotADatabaseError,
    NotAJournalError,
    Projection,
    SessionId,
    parse_event,
)

LINES = lines_of("mixed/events.ndjson")[:60]
EVENTS = [parse_event(line) for line in LINES]
EARLIEST = min(event.timestamp for event in EVENTS)
STREAM = next(event.stream_id for event in EVENTS if event.stream_id is not None)

VALUES = [
    "NULL",
    "-1",
    "0",
    "1",
    "59",
    "5000000000",
    str(2**63 - 1),
    str(-(2**63)),
    "1.5",
    "9e999",
    "''",
    "'x'",
    "'[]'",
    "'{}'",
    "'[1,\"'",
    "x''",
    "x'ff'",
    "CAST(x'ff' AS TEXT)",
    "CAST(x'5bff5d' AS TEXT)",
    "x'00112233445566778899aabbccddeeff'",
]

COUNTING = Projection("count", 1, {"n": 0}, lambda state, _: {"n": state["n"] + 1})

ASKS: dict[str, Any] = {
    "read": lambda journal: list(journal.read()),
    "read after": lambda journal: list(journal.read(after=30, limit=5)),
    "lines": lambda journal: list(journal.lines()),
    "lines of a session": lambda journal: list(journal.lines(session_id=EVENTS[0].session_id)),
    "lines since": lambda journal: list(journal.lines(since=EARLIEST)),
    "session events": lambda journal: journal.get_events_for_session(EVENTS[0].session_id),
    "stream events": lambda journal: journal.get_events_for_stream(STREAM),
    "since": lambda journal: journal.get_events_since(EARLIEST),
    "count": lambda journal: journal.event_count(),
    "last": lambda journal: journal.last_position,
    "version": lambda journal: journal.version(EVENTS[0].session_id),
    "find": lambda journal: (journal.find_sessions("0"), journal.find_streams("a")),
    "info": lambda journal: journal.info(),
    "session": lambda journal: journal.session(EVENTS[0].session_id),
    "sessions": lambda journal: journal.sessions(),
    "streams": lambda journal: journal.streams(),
    "stream": lambda journal: journal.stream(STREAM),
    "anomalies": lambda journal: journal.anomalies(),
    "as of": lambda journal: journal.sessions(as_of=40),
    "session as of": lambda journal: journal.session(EVENTS[0].session_id, as_of=40),
    "stream as of": lambda journal: journal.stream(STREAM, as_of=40),
    "states": lambda journal: journal.states("count"),
    "projections": lambda journal: journal.projections(),
}
WRITES: dict[str, Any] = {
    "append": lambda journal: journal.append_events(EVENTS[:3]),
    "append with a key": lambda journal: journal.append_events(EVENTS[50:], key="k"),
    "append with versions": lambda journal: journal.append_events(
        [activated(SessionId.new())], expected_versions={EVENTS[0].session_id: 1}
    ),
    "append lines": lambda journal: journal.append_ndjson(LINES[:3]),
    "rebuild": lambda journal: journal.rebuild(),
    "check": lambda journal: journal.rebuild(check=True),
}
REFUSED = (
    NotAJournalError,
    NotADatabaseError,
    NewerFormatError,
    ClosedCopyError,
    AccessDeniedError,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "a.db"
    with Journal.open(path) as journal:
        journal.register(COUNTING)
        journal.append_events(EVENTS[:50])
        journal.append_events(EVENTS[50:], key="k")
        journal.states("count")
        journal.sessions()
    with closing(apsw.Connection(str(path))) as file:
        file.execute("DROP TRIGGER event_is_never_updated")
    return path


def places(path: Path) -> list[tuple[str, str, Any]]:
    """Return table, column and rowid (or key) of some rows of every table."""
    found = []
    with closing(apsw.Connection(str(path))) as file:
        tables = file.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        ).fetchall()
        for (table,) in tables:
            columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})")]
            key = "key" if table == "projection_state" else "rowid"
            keyed = file.execute(f"PRAGMA table_list({table})").fetchall()[0][4]
            if keyed and key == "rowid":  # a key of several columns, and no rowid
                continue
            rows = file.execute(f"SELECT {key} FROM {table} ORDER BY 1").fetchall()
            for row in {*rows[:1], *rows[-1:], *rows[len(rows) // 2 :][:1]}:
                found += [(table, column, row[0]) for column in columns]
    return found


GUARD = (
    "CREATE TRIGGER event_is_never_updated BEFORE UPDATE ON event\n"
    "BEGIN SELECT RAISE(ABORT, 'events never change'); END"
)


def ask_everything(path: Path, what: str) -> list[str]:
    """Return what came that should not."""
    problems = []
    for read_only in (True, False):
        try:
            journal = Journal.open(path, read_only=read_only)
        except (DamagedError, *REFUSED):
            continue
        except Exception as error:
            problems.append(f"{what}: opening: {type(error).__name__}: {error}")
            continue
        with journal:
            journal.register(COUNTING)
            for name, ask in {**ASKS, **({} if read_only else WRITES)}.items():
                try:
                    ask(journal)
                except DamagedError as error:
                    if "\n" in str(error) or len(str(error)) > 1000:
                        problems.append(f"{what}: {name}: not one sentence: {error}")
                except Exception as error:
                    if name not in WRITES or not isinstance(error, (*REFUSED, ConcurrencyError)):
                        problems.append(f"{what}: {name}: {type(error).__name__}: {error}")
    return problems


def ask_after(sound: Path, path: Path, cases: list[tuple[str, str, Any, str]]) -> list[str]:
    """Return what came that should not from a file with these values in these places."""
    what = ", ".join(f"{table}.{column} of {row} = {value}" for table, column, row, value in cases)
    shutil.copyfile(sound, path)
    with closing(apsw.Connection(str(path))) as file:
        for table, column, row, value in cases:
            key = "key" if table == "projection_state" else "rowid"
            with suppress(apsw.ConstraintError, apsw.MismatchError):
                file.execute(f"UPDATE {table} SET {column} = {value} WHERE {key} = ?", (row,))
        file.execute(GUARD)
    with within(60, f"after {what}"):
        problems = ask_everything(path, what)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return problems


@tried(20, many=60)
def test_no_value_of_the_file_makes_anything_but_an_answer_or_a_damaged_error(
    sound: Path, tmp_path: Path, count: int
) -> None:
    cases = [(*place, value) for place in places(sound) for value in VALUES]
    random.Random(1).shuffle(cases)
    problems = []
    for case in cases[:count]:
        problems += ask_after(sound, tmp_path / "a.db", [case])
    assert not problems, "\n".join(problems[:40])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_nor_do_several_values_at_once(sound: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    cases = [(*place, value) for place in places(sound) for value in VALUES]
    problems = []
    for _ in range(25):
        some = draw.sample(cases, draw.choice([1, 2, 2, 3, 5]))
        problems += ask_after(sound, tmp_path / "a.db", some)
    assert not problems, "\n".join(problems[:40])


@pytest.mark.parametrize("table", ["event", "block", "session", "stream", "kind", "meta"])
def test_no_missing_rows_make_anything_but_an_answer_or_a_damaged_error(
    sound: Path, tmp_path: Path, table: str
) -> None:
    path = tmp_path / "a.db"
    problems = []
    for which in ("rowid = 1", "rowid = (SELECT max(rowid) FROM {})", "rowid > 3", "1"):
        shutil.copyfile(sound, path)
        condition = which.format(table)
        with closing(apsw.Connection(str(path))) as file:
            (guard,) = file.execute(
                "SELECT sql FROM sqlite_schema WHERE name = 'event_is_deleted_only_where_absent'"
            ).fetchone()
            file.execute("DROP TRIGGER event_is_deleted_only_where_absent")
            file.execute(f"DELETE FROM {table} WHERE {condition}")
            file.execute(f"{guard}; {GUARD}")
        with within(60, f"without rows of {table} where {condition}"):
            problems += ask_everything(path, f"without {table} where {condition}")
    assert not problems, "\n".join(problems[:40])
