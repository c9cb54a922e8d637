"""Reading with filters: what fits, found without reading everything, in constant memory."""

import itertools
import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import NOON, activated, lines_of, made_once, tried
from test_absent import declare_absent, execute

from journal import (
    DamagedError,
    Journal,
    PrunedError,
    SessionId,
    StreamCreated,
    StreamId,
    Timestamp,
    limits,
    parse_event,
)
from journal.events.unknown import AnyEvent
from journal.file.connections import Database

LINES = lines_of("mixed/events.ndjson")[:600]
EVENTS = [parse_event(line) for line in LINES]
LONG = SessionId.new()
STREAMS = [StreamId.new() for _ in range(3)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    def make(path: Path) -> None:
        with Journal.open(path, durability="normal") as journal:
            journal.append_ndjson(LINES)

    return made_once(tmp_path / "a.db", "selecting", make)


def long_lines(count: int) -> Iterator[str]:
    """Yield events of one session, of three streams."""
    now_ns = Timestamp.from_datetime(NOON).epoch_ns
    for number in range(count):
        event = StreamCreated(
            session_id=LONG,
            stream_id=STREAMS[number % 3],
            timestamp=Timestamp.from_epoch_ns(now_ns + number),
        )
        yield event.model_dump_json()


def along_a_chain(path: Path, count: int) -> Path:
    """Make a file in which one session has a thirtieth of the events, all over it."""

    def make(path: Path) -> None:
        others = (activated(SessionId.new()).model_dump_json() for _ in itertools.count())
        with Journal.open(path, durability="normal") as journal:
            journal.append_ndjson(
                line for own in long_lines(count) for line in (own, *itertools.islice(others, 29))
            )

    return made_once(path, ("along a chain", count), make)


def by_range(path: Path, count: int) -> Path:
    """Make a file in which one session has all events."""

    def make(path: Path) -> None:
        with Journal.open(path, durability="normal") as journal:
            journal.append_ndjson(long_lines(count))

    return made_once(path, ("by range", count), make)


WAYS = {"along a chain": along_a_chain, "by range": by_range}


# What fits


@tried(200, many=1_080)
def test_every_combination_of_filters_gives_what_fits_it(path: Path, count: int) -> None:
    some = EVENTS[300]
    times = sorted(event.timestamp for event in EVENTS)
    choices = {
        "session_id": [None, some.session_id, SessionId.new()],
        "stream_id": [None, next(e.stream_id for e in EVENTS[300:] if e.stream_id), StreamId.new()],
        "since": [
            None,
            NOON.replace(year=1600),
            times[0],
            times[300],
            times[-1],
            NOON.replace(year=2300),
        ],
        "until": [None, NOON.replace(year=1600), times[400], NOON.replace(year=2300)],
        "kinds": [
            None,
            [],
            ["no_such_kind"],
            ["stream_created"],
            {"stream_failed", "session_closed"},
        ],
    }
    every = list(itertools.product(*choices.values()))
    found_any = 0
    with Journal.open(path, read_only=True) as journal:
        for values in random.Random(1).sample(every, min(count, len(every))):
            wanted: dict[str, Any] = dict(zip(choices, values, strict=True))
            expected = [
                (position, line)
                for position, (event, line) in enumerate(zip(EVENTS, LINES, strict=True), 1)
                if fits(event, **wanted)
            ]
            found_any += bool(expected)
            for after in (0, 249):
                rest = [pair for pair in expected if pair[0] > after]
                assert list(journal.lines(after, **wanted)) == rest
                events = [(position, parse_event(line)) for position, line in rest]
                assert list(journal.read(after, **wanted)) == events
                assert list(journal.read(after, 3, **wanted)) == events[:3]
    assert found_any > 10


def fits(
    event: AnyEvent, session_id: Any, stream_id: Any, since: Any, until: Any, kinds: Any
) -> bool:
    return (
        (session_id is None or event.session_id == session_id)
        and (stream_id is None or event.stream_id == stream_id)
        and (since is None or event.timestamp > since)
        and (until is None or event.timestamp <= until)
        and (kinds is None or event.event_type in kinds)
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_session_of_several_pages_comes_whole_and_in_order(way: str, tmp_path: Path) -> None:
    path = WAYS[way](tmp_path / "a.db", 150)
    middle = Timestamp.from_epoch_ns(Timestamp.from_datetime(NOON).epoch_ns + 100)
    with Journal.open(path, read_only=True) as journal:
        expected = journal.get_events_for_session(LONG)
        found = list(journal.read(session_id=LONG))
        assert [event for _, event in found] == expected
        assert [position for position, _ in found] == sorted({position for position, _ in found})
        assert [it.event for it in journal.read(session_id=LONG, since=middle)] == expected[101:]
        assert [it.event for it in journal.read(session_id=LONG, stream_id=STREAMS[2])] == expected[
            2::3
        ]
        assert list(journal.read(session_id=LONG, kinds=["stream_failed"])) == []
        position = found[120].position
        assert list(journal.read(position, session_id=LONG)) == found[121:]


def test_a_name_that_two_codes_have_is_looked_for_under_both(path: Path) -> None:
    own = next(
        position for position, event in enumerate(EVENTS, 1) if event.event_type == "stream_created"
    )
    with closing(apsw.Connection(str(path))) as file:
        file.execute("DROP TRIGGER event_is_never_updated")
        file.execute("INSERT INTO kind (code, name, fields) VALUES (90, 'stream_created', NULL)")
        file.execute("UPDATE event SET kind = 90, data = ? WHERE seq = ?", (LINES[own - 1], own))
    with Journal.open(path, read_only=True) as journal:
        positions = [position for position, _ in journal.lines(kinds=["stream_created"])]
    assert own in positions
    assert len(positions) == sum(event.event_type == "stream_created" for event in EVENTS)


def test_what_is_no_filter_is_refused_at_the_call(path: Path) -> None:
    with Journal.open(path, read_only=True) as journal:
        for ask in (journal.read, journal.lines):
            with pytest.raises(
                TypeError, match=r"kinds: expected several names, .* found one text"
            ):
                ask(kinds="stream_created")
            with pytest.raises(TypeError):
                ask(session_id=StreamId.new())  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                ask(stream_id=SessionId.new())  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="UTC offset"):
                ask(since=NOON.replace(tzinfo=None))
            with pytest.raises(ValueError, match="UTC offset"):
                ask(until=NOON.replace(tzinfo=None))
            with pytest.raises(ValueError, match="after"):
                ask(-1, kinds=["stream_created"])
        with pytest.raises(ValueError, match="limit"):
            journal.read(limit=-1, kinds=["stream_created"])


# How much is read


@contextmanager
def transactions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Note the statements of every transaction for reading."""
    noted: list[list[str]] = []
    read = Database.read

    @contextmanager
    def noting(self: Database) -> Iterator[apsw.Connection]:
        with read(self) as connection:
            statements: list[str] = []
            noted.append(statements)
            connection.exec_trace = lambda _, sql, __: not statements.append(sql)
            try:
                yield connection
            finally:
                connection.exec_trace = None

    with monkeypatch.context() as patch:
        patch.setattr(Database, "read", noting)
        yield noted


SELECTIONS: dict[str, dict[str, Any]] = {
    "since": {"since": NOON.replace(year=2000)},
    "until": {"until": NOON.replace(year=2100)},
    "kinds": {"kinds": ["stream_created"]},
    "since and kinds": {"since": NOON.replace(year=2000), "kinds": ["stream_created"]},
    "session": {"session_id": LONG},
    "session and kinds": {"session_id": LONG, "kinds": ["stream_created"]},
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_first_line_comes_before_everything_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = by_range(tmp_path / "a.db", 400)
    with Journal.open(path, read_only=True) as journal:
        with transactions(monkeypatch) as noted:
            lines = journal.lines(**SELECTIONS[name])
            next(lines)
            until_first = len(noted)
            assert len(list(lines)) == 399
    assert until_first <= 4  # the extent, the selection, a page, the ids in it
    assert len(noted) >= 400 / limits.PAGE_EVENTS_MAX


def test_blocks_without_anything_later_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = by_range(tmp_path / "a.db", 400)
    now_ns = Timestamp.from_datetime(NOON).epoch_ns
    with Journal.open(path, read_only=True) as journal:
        with transactions(monkeypatch) as noted:
            found = list(journal.lines(since=Timestamp.from_epoch_ns(now_ns + 389)))
    assert [position for position, _ in found] == list(range(391, 401))
    assert sum("FROM event WHERE seq >" in sql for page in noted for sql in page) <= 4  # one block


def test_blocks_without_anything_as_early_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = by_range(tmp_path / "a.db", 400)
    now_ns = Timestamp.from_datetime(NOON).epoch_ns
    between = Timestamp.from_epoch_ns(now_ns + 199), Timestamp.from_epoch_ns(now_ns + 209)
    with Journal.open(path, read_only=True) as journal:
        for since, expected in ((None, range(1, 211)), (between[0], range(201, 211))):
            with transactions(monkeypatch) as noted:
                found = list(journal.lines(since=since, until=between[1]))
            assert [position for position, _ in found] == list(expected)
            blocks = len(expected) // limits.BLOCK_EVENTS_MAX + 1
            looks = sum("FROM event WHERE seq >" in sql for page in noted for sql in page)
            assert looks <= 4 * blocks


def test_a_kind_that_the_file_has_no_code_for_reads_no_event(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(path, read_only=True) as journal:
        with transactions(monkeypatch) as noted:
            assert list(journal.lines(kinds=["no_such_kind"])) == []
    assert not any("FROM event WHERE seq >" in sql for page in noted for sql in page)


def test_a_known_kind_without_events_is_counted_once_a_page_and_fetches_no_event(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("session_expired" in line for line in LINES)
    with Journal.open(path, read_only=True) as journal:
        pages = sum(1 for _ in journal._reader._pages(0, len(LINES)))
        with transactions(monkeypatch) as noted:
            assert list(journal.lines(kinds=["session_expired"])) == []
    about_events = [sql for page in noted for sql in page if "FROM event WHERE seq >" in sql]
    assert len(about_events) == pages < len(LINES) / 20
    assert all(sql.startswith("SELECT count(*), count(*) FILTER") for sql in about_events)


def test_every_statement_finds_its_events_by_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = along_a_chain(tmp_path / "a.db", 100)
    statements: set[str] = set()
    with Journal.open(path, read_only=True) as journal:
        with transactions(monkeypatch) as noted:
            for wanted in SELECTIONS.values():
                list(journal.lines(**wanted))
        statements.update(sql for page in noted for sql in page if "event" in sql)
    assert any("RECURSIVE" in sql for sql in statements)
    assert any("FILTER" in sql and "RECURSIVE" not in sql for sql in statements)
    with closing(apsw.Connection(str(path))) as file:
        for sql in statements:
            bound: Any = dict.fromkeys(re.findall(r":(\w+)", sql), 1) or [1] * sql.count("?")
            plan = file.execute(f"EXPLAIN QUERY PLAN {sql}", bound or None).fetchall()
            text = "\n".join(row[3] for row in plan)
            assert "SCAN event" not in text.replace("SCAN event USING COVERING", ""), sql


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ask", ["lines", "read"])
def test_memory_does_not_grow_with_the_session(way: str, ask: str, tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = WAYS[way](tmp_path / f"{count}.db", count)
        with Journal.open(path, read_only=True) as journal:
            tracemalloc.start()
            try:
                assert sum(1 for _ in getattr(journal, ask)(session_id=LONG)) == count
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(60)  # what is loaded once
    assert peak(600) < peak(100) + 30_000


def test_large_events_of_a_chain_come_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, stream = SessionId.new(), StreamId.new()
    text = "x" * (limits.BLOCK_DATA_MAX // 2)
    line = (
        f'{{"event_type":"stream_failed","session_id":"{session}","stream_id":"{stream}",'
        f'"error":"{text}","timestamp":"2026-01-01T00:00:00Z"}}'
    )
    with Journal.open(tmp_path / "a.db", durability="normal") as journal:
        for _ in range(10):
            journal.append_ndjson(
                [line, *(activated(SessionId.new()).model_dump_json() for _ in range(30))]
            )
    with Journal.open(tmp_path / "a.db", read_only=True) as journal:
        lines = journal.lines(session_id=session)
        tracemalloc.start()
        try:
            assert sum(found == line for _, found in lines) == 10
            assert tracemalloc.get_traced_memory()[1] < 7 * len(line)
        finally:
            tracemalloc.stop()


# Damage


def without(path: Path, position: int) -> None:
    execute(
        path,
        "DROP TRIGGER event_is_deleted_only_where_absent; DELETE FROM event WHERE seq = ?",
        position,
    )


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("way", WAYS)
def test_an_event_that_is_missing_in_what_is_read_is_damage(
    way: str, name: str, tmp_path: Path
) -> None:
    path = WAYS[way](tmp_path / "a.db", 150)
    without(path, 121)  # one of the session, either way
    with Journal.open(path, read_only=True) as journal, pytest.raises(DamagedError):
        list(journal.lines(**SELECTIONS[name]))


DAMAGES = {
    "a link that leaves some out": "UPDATE event SET session_prev = 1 WHERE seq = 1201",
    "a link that goes on": "UPDATE event SET session_prev = 1201 WHERE seq = 1201",
    "a link that is a text": "UPDATE event SET session_prev = 'x' WHERE seq = 1201",
    "an event of another session": "UPDATE event SET session = 2 WHERE seq = 1201",
    "a head that counts more": "UPDATE session SET event_count = 151 WHERE id = 1",
    "a head that counts fewer": "UPDATE session SET event_count = 149 WHERE id = 1",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_chain_that_is_not_what_its_head_says_is_damage(what: str, tmp_path: Path) -> None:
    path = along_a_chain(tmp_path / "a.db", 150)
    execute(path, f"DROP TRIGGER event_is_never_updated; {DAMAGES[what]}")
    with Journal.open(path, read_only=True) as journal:
        lines = journal.lines(session_id=LONG)
        with pytest.raises(DamagedError, match=f"the chain of session {LONG} is damaged"):
            next(lines)


@pytest.mark.parametrize("count", [149, 151])
def test_a_long_session_is_held_against_its_head_as_well(count: int, tmp_path: Path) -> None:
    path = by_range(tmp_path / "a.db", 150)
    execute(path, f"UPDATE session SET event_count = {count}, last_seq = max(last_seq, {count})")
    if count > 150:
        with Journal.open(path) as journal:  # one more event, of another session
            journal.append_ndjson([activated(SessionId.new()).model_dump_json()])
    with Journal.open(path, read_only=True) as journal:
        with pytest.raises(DamagedError, match=f"expected {count} events, found 150"):
            list(journal.lines(session_id=LONG))


# Cuts


def test_what_is_absent_is_skipped(tmp_path: Path) -> None:
    path = by_range(tmp_path / "a.db", 500)
    with closing(apsw.Connection(str(path))) as file:
        declare_absent(file, 110, 240, "lost")
        file.execute("DELETE FROM checkpoint")
    kept = [*range(1, 110), *range(241, 501)]
    with Journal.open(path, read_only=True) as journal:
        for wanted in ({"kinds": ["stream_created"]}, {"since": NOON.replace(year=2000)}):
            assert [position for position, _ in journal.lines(**wanted)] == kept


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "wanted", [{"session_id": LONG}, {"session_id": LONG, "kinds": ["stream_created"]}]
)
def test_a_cut_that_overtakes_a_reader_is_told(
    way: str, wanted: dict[str, Any], tmp_path: Path
) -> None:
    path = WAYS[way](tmp_path / "a.db", 250)
    with Journal.open(path, read_only=True) as journal:
        lines = journal.lines(**wanted)
        next(lines)
        last = journal.last_position // 50 * 50 - 50
        with closing(apsw.Connection(str(path))) as file:
            declare_absent(file, 1, last, "pruned")
            file.execute("DELETE FROM block WHERE last_seq <= ?", (last,))
        with pytest.raises(PrunedError) as error:
            list(lines)
        assert error.value.first == last + 1
        with pytest.raises(PrunedError):
            journal.lines(10, **wanted)


def test_appending_meanwhile_changes_nothing(tmp_path: Path) -> None:
    path = along_a_chain(tmp_path / "a.db", 120)
    more: Callable[[], object]
    with Journal.open(path) as journal:
        more = lambda: journal.append_ndjson(long_lines(5))  # noqa: E731
        for wanted in SELECTIONS.values():
            before = [position for position, _ in journal.lines(**wanted)]
            lines = journal.lines(**wanted)
            first, _ = next(lines)
            more()
            assert [first, *(position for position, _ in lines)] == before
