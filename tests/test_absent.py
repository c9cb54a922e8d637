"""A file with a cut at its beginning, or with a gap: everything goes by the table `absent`.

The cut is imitated by hand, as FORMAT.md specifies it.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import independent_reader
import pytest
from support import lines_of, texts

from journal import DamagedError, Journal, PrunedError, SessionId, StreamId, limits, parse_event
from journal.projections.checkpoints import base_digest

LINES = lines_of("mixed/events.ndjson")[:400]
CUT = 250  # the end of a block
EXPECTED = [parse_event(line) for line in LINES]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 40)
    monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 60)


def execute(path: Path, statements: str, *parameters: Any) -> list[Any]:
    file = apsw.Connection(str(path))
    try:
        return file.execute(statements, parameters or None).fetchall()
    finally:
        file.close()


def whole(path: Path) -> Path:
    with Journal.open(path) as journal:
        journal.append_ndjson(LINES)
        journal.sessions()
    return path


def declare_absent(file: apsw.Connection, first: int, last: int, reason: str) -> None:
    """Write the row of `absent`, and delete what it says is not there."""
    counts = dict(
        file.execute(
            "SELECT name, count(*) FROM event JOIN kind ON kind = code WHERE seq BETWEEN ? AND ?"
            " GROUP BY 1",
            (first, last),
        )
    )
    smallest, largest = file.execute(
        "SELECT min(timestamp), max(timestamp) FROM event WHERE seq BETWEEN ? AND ?", (first, last)
    ).fetchone()
    after = file.execute("SELECT digest FROM block WHERE last_seq = ?", (last,)).get
    row = [first, last, reason, json.dumps(counts), smallest, largest, "0" * 64, after, None]
    row.append("2026-01-01T00:00:00Z")
    text = json.dumps(row, separators=(",", ":"), ensure_ascii=False)
    row.append(hashlib.sha256(text.encode()).hexdigest())
    file.execute(f"INSERT INTO absent VALUES ({', '.join('?' * 11)})", row)
    file.execute("DELETE FROM event WHERE seq BETWEEN ? AND ?", (first, last))


def object_of(columns: list[str], row: tuple[Any, ...]) -> str:
    return json.dumps(dict(zip(columns, row, strict=True)))


def cut(path: Path, tmp_path: Path, *, base: bool = True) -> None:
    """Cut a whole journal as pruning will: the base is what another journal has at the cut."""
    with Journal.open(tmp_path / "before.db") as before:
        before.append_ndjson(LINES[:CUT])
        before.sessions()
    other = apsw.Connection(str(tmp_path / "before.db"))
    file = apsw.Connection(str(path))
    file.execute("BEGIN IMMEDIATE")
    if base:
        for table, keys in (("session", ["session"]), ("stream", ["stream", "session"])):
            columns = [row[1] for row in other.execute(f"PRAGMA table_info(projection_{table})")]
            for row in other.execute(f"SELECT * FROM projection_{table}").fetchall():
                values = dict(zip(columns, row, strict=True))
                head = [values.pop(key) for key in keys]
                count = other.execute(
                    f"SELECT event_count FROM {table} WHERE id = ?", (head[0],)
                ).get
                head.insert(1, count)
                marks = ", ".join("?" * (len(head) + 1))
                values_text = json.dumps(values)
                file.execute(f"INSERT INTO base_{table} VALUES ({marks})", [*head, values_text])
        for name in ("sessions", "streams"):
            digest = base_digest(file, name)
            file.execute("INSERT INTO base VALUES (?, 1, ?, ?)", (name, CUT, digest))
    else:
        for table in ("session", "stream"):
            for key, count in other.execute(f"SELECT id, event_count FROM {table}").fetchall():
                row = [key, count] + (["0"] if table == "stream" else []) + [None]
                marks = ", ".join("?" * len(row))
                file.execute(f"INSERT INTO base_{table} VALUES ({marks})", row)
    declare_absent(file, 1, CUT, "pruned")
    file.execute("DELETE FROM block WHERE last_seq <= ?", (CUT,))
    file.execute("DELETE FROM projection_anomaly WHERE position <= ?", (CUT,))
    file.execute("COMMIT")
    file.close()
    other.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    whole(tmp_path / "a.db")
    cut(tmp_path / "a.db", tmp_path)
    return tmp_path / "a.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path) as journal:
        yield journal


@pytest.fixture
def uncut(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(whole(tmp_path / "whole.db")) as journal:
        yield journal


def test_reading_and_counting_begin_at_the_first_event_left(journal: Journal) -> None:
    assert [one.position for one in journal.read()] == list(range(CUT + 1, 401))
    assert texts(one.event for one in journal.read()) == LINES[CUT:]
    assert dict(journal.lines()) == dict(enumerate(LINES[CUT:], CUT + 1))
    assert journal.event_count() == 400 - CUT
    assert journal.last_position == 400
    assert [one.position for one in journal.read(limit=3)] == [251, 252, 253]
    assert [one.position for one in journal.read(after=CUT, limit=1)] == [251]
    assert journal.info().absent_count == CUT


def test_reading_after_what_was_pruned_says_where_to_go_on(journal: Journal) -> None:
    for call in (journal.read, journal.lines):
        with pytest.raises(PrunedError, match="position 7 is before the first event left") as error:
            list(call(7))
        assert error.value.first == CUT + 1


def test_a_reader_that_a_cut_overtakes_is_told_so(tmp_path: Path) -> None:
    path = whole(tmp_path / "a.db")
    with Journal.open(path, read_only=True) as reader:
        events = reader.read()
        next(events)
        cut(path, tmp_path)
        with pytest.raises(PrunedError) as error:
            list(events)

    assert error.value.first == CUT + 1


def test_chains_end_at_the_cut_and_versions_go_on(journal: Journal, uncut: Journal) -> None:
    sessions = {event.session_id for event in EXPECTED}
    for session in sessions:
        left = [event for event in EXPECTED[CUT:] if event.session_id == session]
        assert journal.get_events_for_session(session) == left
        ever = sum(event.session_id == session for event in EXPECTED)
        assert journal.version(session) == ever == uncut.version(session)
    for stream in {event.stream_id for event in EXPECTED if event.stream_id is not None}:
        left = [event for event in EXPECTED[CUT:] if event.stream_id == stream]
        assert journal.get_events_for_stream(stream) == left
    assert journal.version(SessionId.new()) == 0


def test_since_gives_what_is_left(journal: Journal) -> None:
    for event in EXPECTED[::37]:
        later = [one for one in EXPECTED[CUT:] if one.timestamp > event.timestamp]
        assert journal.get_events_since(event.timestamp) == later


def test_folding_gives_the_states_of_base_and_rest_together(
    journal: Journal, uncut: Journal, path: Path
) -> None:
    assert journal.sessions() == uncut.sessions()
    assert journal.streams() == uncut.streams()
    for report in journal.rebuild(check=True):
        assert report.change_count == 0
        assert (report.event_count, report.since) == (400 - CUT, 1)
    execute(path, "DELETE FROM checkpoint")
    assert journal.sessions() == uncut.sessions()  # folded from the base
    assert journal.streams() == uncut.streams()
    with Journal.open(path, read_only=True) as reader:
        assert reader.sessions() == uncut.sessions()


def test_as_of_goes_back_to_the_cut_and_no_further(journal: Journal, uncut: Journal) -> None:
    session = EXPECTED[CUT + 3].session_id
    for position in (CUT, CUT + 20, 399):
        assert journal.sessions(as_of=position) == uncut.sessions(as_of=position)
        assert journal.streams(as_of=position) == uncut.streams(as_of=position)
        assert journal.session(session, as_of=position) == uncut.session(session, as_of=position)
        streams = uncut.streams(session, as_of=position)
        assert journal.streams(session, as_of=position) == streams
        for stream in streams:
            assert journal.stream(stream.stream_id, as_of=position) == stream
    largest = max(event.timestamp for event in EXPECTED[:CUT])
    assert journal.sessions(as_of=largest) == uncut.sessions(as_of=largest)
    earlier = min(event.timestamp for event in EXPECTED)
    for as_of in (0, CUT - 1, earlier):
        for ask in (
            lambda as_of: journal.sessions(as_of=as_of),
            lambda as_of: journal.session(session, as_of=as_of),
            lambda as_of: journal.stream(StreamId.new(), as_of=as_of),
            lambda as_of: journal.anomalies(as_of=as_of),
        ):
            with pytest.raises(PrunedError):
                ask(as_of)


def test_without_a_base_a_fold_says_since_when(tmp_path: Path) -> None:
    path = whole(tmp_path / "a.db")
    cut(path, tmp_path, base=False)
    execute(path, "DELETE FROM checkpoint")

    with Journal.open(path) as journal:
        counted = sum(session.event_count for session in journal.sessions())
        assert counted == 400 - CUT
        assert {one.since for one in journal.projections()} == {CUT + 1}
        assert journal.rebuild(check=True)[0].since == CUT + 1
    assert set(execute(path, "SELECT since, position FROM folded")) == {(CUT + 1, 400)}


def test_appending_goes_on_after_the_last_position(path: Path, uncut: Journal) -> None:
    with Journal.open(path) as journal:
        session = EXPECTED[-1].session_id
        version = journal.version(session)
        appended = journal.append_events([EXPECTED[-1]], expected_versions={session: version})
        assert appended == (401, 401)
        assert journal.version(session) == version + 1
        journal.append_ndjson(LINES[:200])
        uncut.append_events([EXPECTED[-1]])
        uncut.append_ndjson(LINES[:200])
        assert journal.sessions() == uncut.sessions()

    assert len(independent_reader.read(path)) == 601 - CUT


def test_numbers_of_what_was_forgotten_are_not_given_again(path: Path) -> None:
    for table in ("session", "stream"):
        execute(path, f"INSERT INTO meta VALUES ('{table}_mark', '7000')")
    new = parse_event(
        f'{{"event_type":"stream_created","session_id":"{SessionId.new()}",'
        f'"stream_id":"{StreamId.new()}","timestamp":"2026-01-01T00:00:00Z"}}'
    )
    with Journal.open(path) as journal:
        journal.append_events([new])

    assert execute(path, "SELECT session, stream FROM event WHERE seq = 401") == [(7001, 7001)]


def test_everything_may_be_absent(tmp_path: Path) -> None:
    path = whole(tmp_path / "a.db")
    file = apsw.Connection(str(path))
    declare_absent(file, 1, 400, "before delta")
    file.execute("DELETE FROM block; DELETE FROM session; DELETE FROM stream")
    file.execute("DELETE FROM checkpoint")
    file.close()

    with Journal.open(path) as journal:
        assert list(journal.read()) == []
        assert (journal.event_count(), journal.last_position) == (0, 400)
        assert journal.sessions() == []
        assert journal.append_events(EXPECTED[:1]) == (401, 401)
        assert [one.position for one in journal.read()] == [401]
    assert len(independent_reader.read(path)) == 1


def test_reading_goes_on_over_what_was_lost(tmp_path: Path) -> None:
    path = whole(tmp_path / "a.db")
    file = apsw.Connection(str(path))
    declare_absent(file, 110, 140, "lost")
    file.execute("DELETE FROM checkpoint")
    file.close()
    kept = [*LINES[:109], *LINES[140:]]

    with Journal.open(path) as journal:
        assert texts(one.event for one in journal.read()) == kept
        assert [one.position for one in journal.read(after=100, limit=20)][-1] == 151
        assert journal.event_count() == len(kept)
        earliest = min(event.timestamp for event in EXPECTED)
        later = [line for line in kept if parse_event(line).timestamp > earliest]
        assert texts(journal.get_events_since(earliest)) == later
        assert sum(session.event_count for session in journal.sessions()) == len(kept)
        assert journal.rebuild(check=True)[0].change_count == 0


# A gap that nobody declared

READS = {
    "read": lambda journal: list(journal.read()),
    "read from the middle": lambda journal: list(journal.read(after=290)),
    "lines": lambda journal: list(journal.lines()),
    "since": lambda journal: journal.get_events_since(min(e.timestamp for e in EXPECTED)),
    "lines since": lambda journal: list(
        journal.lines(since=min(event.timestamp for event in EXPECTED))
    ),
    "session": lambda journal: journal.get_events_for_session(EXPECTED[299].session_id),
    "sessions": lambda journal: journal.sessions(),
    "sessions as of": lambda journal: journal.sessions(as_of=350),
    "session as of": lambda journal: journal.session(EXPECTED[299].session_id, as_of=399),
    "rebuild": lambda journal: journal.rebuild(),
}


@pytest.mark.parametrize("name", READS)
def test_an_undeclared_gap_is_damage_by_whatever_method_it_is_met(path: Path, name: str) -> None:
    execute(
        path,
        "DROP TRIGGER event_is_deleted_only_where_absent; DELETE FROM event WHERE seq = 300;"
        "DELETE FROM checkpoint",
    )

    with Journal.open(path) as journal:
        with pytest.raises(DamagedError) as error:
            READS[name](journal)
        assert error.value.position is not None


@pytest.mark.parametrize(
    ("statements", "position"),
    [
        ("DELETE FROM event WHERE seq = 251", 251),  # at the beginning
        ("DELETE FROM absent", 1),
        ("UPDATE absent SET last_seq = 200", 1),  # its digest is another
        ("UPDATE absent SET counts = '{}'", 1),
        ("UPDATE absent SET last_seq = 'x'", 1),
        ("DELETE FROM event", 251),
        ("UPDATE block SET last_seq = 5000000000 WHERE last_seq = 400", 401),
        ("DELETE FROM event WHERE seq = 400", 400),  # at the end: a block has it
    ],
)
def test_what_contradicts_absent_is_damage_for_reading_and_for_appending(
    path: Path, statements: str, position: int
) -> None:
    execute(path, f"DROP TRIGGER event_is_deleted_only_where_absent; {statements}")

    with Journal.open(path, read_only=True) as journal:
        for ask in (
            lambda: list(journal.read()),
            lambda: journal.last_position,
            journal.event_count,
            journal.sessions,
            journal.info,
        ):
            with pytest.raises(DamagedError) as error:
                ask()
            assert error.value.position == position
    with pytest.raises(DamagedError), Journal.open(path) as journal:
        journal.append_events(EXPECTED[:1])
    assert execute(path, "SELECT count(*) FROM event WHERE seq > 400") == [(0,)]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM block WHERE last_seq = 300",
        "UPDATE block SET first_seq = 290 WHERE last_seq = 350",
        "UPDATE block SET last_seq = 'x' WHERE last_seq = 300",
    ],
)
def test_blocks_that_do_not_follow_each_other_are_damage_to_whoever_goes_by_them(
    path: Path, statement: str
) -> None:
    execute(path, statement)

    with Journal.open(path, read_only=True) as journal:
        for name in ("since", "lines since"):
            with pytest.raises(DamagedError):
                READS[name](journal)


def test_events_are_deleted_only_where_absent_says_so(path: Path) -> None:
    with pytest.raises(apsw.ConstraintError, match="deleted only where absent says so"):
        execute(path, "DELETE FROM event WHERE seq = 260")
    assert execute(path, "SELECT count(*) FROM event") == [(400 - CUT,)]


def test_a_base_that_is_not_what_it_was_is_not_believed(path: Path) -> None:
    execute(
        path,
        "UPDATE base_session SET state = json_set(state, '$.total_streams', 99) WHERE session = 1;"
        "DELETE FROM checkpoint",
    )
    with Journal.open(path) as journal:
        with pytest.raises(DamagedError, match="the base of the projection 'sessions'"):
            journal.sessions()
