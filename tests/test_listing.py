"""Lists of sessions and streams: filtered, sorted and cut by SQL, a page at a time."""

import itertools
import json
import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from commands_support import run_here
from support import NOON, activated, lines_of, made_once, started, tried, unfold
from test_selecting import transactions

from journal import (
    ClosedError,
    DamagedError,
    Journal,
    SessionClosed,
    SessionId,
    SessionState,
    StreamCreated,
    StreamId,
    StreamState,
    limits,
)
from journal.commands.console import listing as options
from journal.projections import SessionStatus, StreamStatus, listing, queries

LINES = lines_of("mixed/events.ndjson")
SESSION_ORDERS = tuple(listing.SESSIONS.orders)
STREAM_ORDERS = tuple(listing.STREAMS.orders)

VALUES: dict[str, Callable[[Any], Any]] = {
    "ended": lambda it: it.ended_at,
    "events": lambda it: it.event_count,
    "streams": lambda it: it.total_streams,
    "failed": lambda it: it.failed_streams,
    "frames": lambda it: it.frames,
    "bytes": lambda it: it.bytes,
    "anomalies": lambda it: it.anomalies,
}


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PAGE_ROWS_MAX", 10)


def make_folded(path: Path, lines: list[str]) -> None:
    with Journal.open(path, durability="normal") as writer:
        writer.append_ndjson(lines)
        writer.sessions()


def make_unfolded(path: Path) -> None:
    make_folded(path, LINES)
    unfold(path)


@contextmanager
def folded(path: Path) -> Iterator[Journal]:
    """All of it is in the tables."""
    made_once(path, "listing, folded", lambda path: make_folded(path, LINES))
    with Journal.open(path, read_only=True) as reader:
        yield reader


@contextmanager
def lagging(path: Path) -> Iterator[Journal]:
    """The tables have a part, and the reader folds the rest in memory."""
    made_once(path, "listing, lagging", lambda path: make_folded(path, LINES[:3_000]))
    with Journal.open(path) as writer:
        writer.append_ndjson(LINES[3_000:])
        with Journal.open(path, read_only=True) as reader:
            assert reader.projections()[0].lag > 2_000
            yield reader


@contextmanager
def not_folded(path: Path) -> Iterator[Journal]:
    """The tables have nothing."""
    made_once(path, "listing, not folded", make_unfolded)
    with Journal.open(path, read_only=True) as reader:
        yield reader


WAYS = {"folded": folded, "lagging": lagging, "not folded": not_folded}


def in_order(statuses: list[Any], order: str) -> list[Any]:
    """Return them as an order wants it; they come oldest first."""
    if order == "oldest":
        return statuses
    newest = statuses[::-1]
    if order == "newest":
        return newest
    value = VALUES[order]
    having = [it for it in newest if value(it) is not None]
    return sorted(having, key=value, reverse=True) + [it for it in newest if value(it) is None]


@pytest.mark.parametrize("way", WAYS)
@tried(6, many=1_000)
def test_every_state_order_and_limit(way: str, tmp_path: Path, count: int) -> None:
    def some(*choices: Iterable[Any]) -> list[Any]:
        every = list(itertools.product(*choices))
        return random.Random(way).sample(every, min(count, len(every)))

    with WAYS[way](tmp_path / "a.db") as opened:
        sessions, streams = opened.sessions(), opened.streams()
        assert (len(sessions), len(streams)) == (300, 966)
        for state, order, limit in some([None, *SessionState], SESSION_ORDERS, [None, 0, 7]):
            fitting = [it for it in sessions if state in (None, it.state)]
            expected = in_order(fitting, order)[:limit]
            assert opened.sessions(state, order=order, limit=limit) == expected
            assert list(opened.iter_sessions(state, order=order, limit=limit)) == expected
        for stream_state, order, limit in some(
            [None, StreamState.FAILED, StreamState.STREAMING], STREAM_ORDERS, [None, 25]
        ):
            fitting = [it for it in streams if stream_state in (None, it.state)]
            expected = in_order(fitting, order)[:limit]
            assert opened.streams(None, stream_state, order=order, limit=limit) == expected
            found = opened.iter_streams(None, stream_state, order=order, limit=limit)
            assert list(found) == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("events_max", [limits.FOLD_EVENTS_MAX, 5])
def test_the_streams_of_a_session(
    way: str, events_max: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a session with many events come from the tables."""
    with WAYS[way](tmp_path / "a.db") as opened:
        everything = opened.streams()
        monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", events_max)
        for session in opened.sessions(order="streams", limit=2):
            own = [it for it in everything if it.session_id == session.session_id]
            assert len(own) == session.total_streams
            for order in STREAM_ORDERS:
                expected = in_order(own, order)
                assert opened.streams(session.session_id, order=order) == expected
                assert list(opened.iter_streams(session.session_id, order=order)) == expected
        assert opened.streams(SessionId.new()) == []
        assert list(opened.iter_streams(SessionId.new())) == []


def test_as_of_a_moment_it_is_the_same_list(tmp_path: Path) -> None:
    with folded(tmp_path / "a.db") as opened:
        expected = opened.sessions(as_of=2_500)
        assert 100 < len(expected) < 300
        for order in SESSION_ORDERS:
            found = opened.iter_sessions(order=order, limit=20, as_of=2_500)
            assert list(found) == in_order(expected, order)[:20]


def test_what_is_no_order_or_limit_is_refused_at_the_call(tmp_path: Path) -> None:
    with folded(tmp_path / "a.db") as opened:
        for ask in (opened.sessions, opened.iter_sessions):
            with pytest.raises(
                ValueError, match=r"order: expected one of oldest, .* found 'frames'"
            ):
                ask(order="frames")  # type: ignore[operator]
            with pytest.raises(ValueError, match="limit: expected 0 or more, found -1"):
                ask(limit=-1)  # type: ignore[operator]
            with pytest.raises(ValueError, match="Streaming"):
                ask("Streaming")  # type: ignore[operator]
        for ask_streams in (opened.streams, opened.iter_streams):
            with pytest.raises(ValueError, match="found 'failed'"):
                ask_streams(order="failed")  # type: ignore[operator]
            with pytest.raises(TypeError):
                ask_streams(StreamId.new())  # type: ignore[operator]


def test_anomalies_come_in_pages_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event of a stream that nobody created is one, and so is whatever a closed one gets."""
    sessions = [SessionId.new() for _ in range(3)]
    streams = [StreamId.new() for _ in range(3)]
    events = [started(session, stream) for session, stream in zip(sessions, streams, strict=True)]
    path = tmp_path / "a.db"
    with Journal.open(path) as writer:
        writer.append_events(events * 20)
        assert len(writer.anomalies()) == 60
        writer.append_events(events * 10)
        with Journal.open(path, read_only=True) as lagging:
            assert lagging.projections()[0].lag == 30
            found = lagging.iter_anomalies()
            first = next(found)
            writer.append_events(events)
            assert len(writer.anomalies()) == 93
            expected = writer.anomalies()[:90]
            assert [first, *found] == expected
            one = sessions[1]
            own = [it for it in writer.anomalies() if it.session_id == one]
            assert list(lagging.iter_anomalies(one)) == own
            monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 5)  # then they come from the table
            assert lagging.anomalies(one) == list(lagging.iter_anomalies(one)) == own
            assert list(lagging.iter_anomalies(SessionId.new())) == []
            assert list(lagging.iter_anomalies(as_of=7)) == expected[:7]
    with Journal.open(path, read_only=True) as opened:
        with transactions(monkeypatch) as noted:
            assert len(list(opened.iter_anomalies())) == 93
    assert len(noted) == 1 + 2 * 10  # how far it is folded, and each page with the ids in it
    ended = run_here("anomalies", path)
    assert len(ended.out.splitlines()) == 94
    assert ended.err == "93 anomalies in 3 sessions\n"


# How much is read


@pytest.mark.parametrize("order", SESSION_ORDERS)
def test_the_first_comes_before_everything_is_read(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folded(tmp_path / "a.db") as opened:
        with transactions(monkeypatch) as noted:
            found = opened.iter_sessions(order=order)  # type: ignore[arg-type]
            next(found)
            until_first = len(noted)
            assert len(list(found)) == 299
    assert until_first <= 4  # how far it is folded, the keys, a page, the ids in it
    assert len(noted) >= 60


def test_filter_order_and_limit_are_part_of_the_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folded(tmp_path / "a.db") as opened:
        with transactions(monkeypatch) as noted:
            list(opened.iter_sessions("Failed", order="events", limit=3))  # type: ignore[arg-type]
            list(opened.iter_streams(None, "Failed", order="newest"))  # type: ignore[arg-type]
    statements = [
        sql for page in noted for sql in page if "projection_s" in sql and "max(" not in sql
    ]
    assert statements
    assert all("state = :state" in sql for sql in statements)
    assert (
        sum("ORDER BY event_count DESC" in sql and "LIMIT :limit" in sql for sql in statements) == 1
    )
    assert not any(" sessions" in sql or " streams" in sql for sql in statements)  # the views


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.db"
        with Journal.open(path, durability="normal") as writer:
            writer.append_events(activated(SessionId.new()) for _ in range(count))
        with Journal.open(path, read_only=True) as opened:
            tracemalloc.start()
            try:
                assert sum(1 for _ in opened.iter_sessions()) == count
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(100)  # what is loaded once
    assert peak(2_000) < peak(200) + 50_000


# Folded beside, where much is missing and nothing may be written


@contextmanager
def beside(path: Path, way: str) -> Iterator[Journal]:
    with pytest.MonkeyPatch.context() as patch, WAYS[way](path) as opened:
        patch.setattr(limits, "FOLD_EVENTS_MAX", 100)
        yield opened


@pytest.mark.parametrize("way", ["lagging", "not folded"])
def test_what_is_folded_beside_is_listed_alike(way: str, tmp_path: Path) -> None:
    with folded(tmp_path / "b.db") as other:
        sessions, streams, anomalies = other.sessions(), other.streams(), other.anomalies()
        early = other.sessions(as_of=2_500)
    with beside(tmp_path / "a.db", way) as opened:
        assert opened.sessions() == list(opened.iter_sessions()) == sessions
        assert opened.streams() == list(opened.iter_streams()) == streams
        assert opened.anomalies() == list(opened.iter_anomalies()) == anomalies
        assert opened.sessions(as_of=2_500) == list(opened.iter_sessions(as_of=2_500)) == early
        for order in ("newest", "ended", "events"):
            found = opened.iter_sessions("Completed", order=order, limit=20)  # type: ignore[arg-type]
            completed = [it for it in sessions if it.state == "Completed"]
            assert list(found) == in_order(completed, order)[:20]
        one = streams[500].session_id
        own = [it for it in streams if it.session_id == one]
        assert opened.streams(one) == list(opened.iter_streams(one)) == own
        assert opened.session(one) in sessions


def test_what_is_folded_beside_is_kept_for_its_list_alone(tmp_path: Path) -> None:
    with beside(tmp_path / "a.db", "not folded") as opened:
        expected = opened.sessions()
        kept = [opened.iter_sessions(), opened.iter_streams(), opened.iter_sessions()]
        firsts = [next(one) for one in kept[:2]]
        with Journal.open(tmp_path / "a.db") as writer:
            writer.append_events([activated(SessionId.new())])
            with closing(apsw.Connection(str(tmp_path / "a.db"))) as file:
                busy, _, _ = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                assert busy == 0
        assert [firsts[0], *kept[0]] == expected
        kept[2].close()  # type: ignore[attr-defined]
        opened.close()
        with pytest.raises(ClosedError):
            list(kept[1])
    assert [name.name for name in tmp_path.iterdir()] == ["a.db"]


# While others append


def test_an_iterator_that_is_left_alone_holds_up_nobody(tmp_path: Path) -> None:
    with folded(tmp_path / "a.db") as opened:
        kept = [opened.iter_sessions(), opened.iter_sessions(order="events"), opened.iter_streams()]
        for one in kept:
            next(one)
        with Journal.open(tmp_path / "a.db") as writer:
            writer.append_events([activated(SessionId.new())])
            with closing(apsw.Connection(str(tmp_path / "a.db"))) as file:
                busy, _, _ = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                assert busy == 0
        assert [sum(1 for _ in one) for one in kept] == [299, 299, 965]


@pytest.mark.parametrize("order", SESSION_ORDERS)
def test_what_changes_while_it_is_read_comes_once_and_in_its_state(
    order: str, tmp_path: Path
) -> None:
    with Journal.open(tmp_path / "a.db") as writer:
        writer.append_events(activated(SessionId.new(), second) for second in range(100))
        found = writer.iter_sessions("Active", order=order)  # type: ignore[arg-type]
        seen: list[SessionStatus] = [next(found)]
        ended = [it.session_id for it in writer.sessions(order=order)[50:60]]  # type: ignore[arg-type]
        writer.append_events(
            [
                *(SessionClosed(session_id=it, timestamp=NOON) for it in ended),
                *(activated(SessionId.new()) for _ in range(30)),
            ]
        )
        assert len(writer.sessions()) == 130  # folded into the tables
        seen += found
    assert {it.state for it in seen} == {SessionState.ACTIVE}
    assert len({it.session_id for it in seen}) == len(seen) == 90
    assert not {it.session_id for it in seen} & set(ended)


def test_a_damaged_row_is_told_when_it_is_met(tmp_path: Path) -> None:
    with folded(tmp_path / "a.db"):
        pass
    with closing(apsw.Connection(str(tmp_path / "a.db"))) as file:
        file.execute("UPDATE projection_session SET state = 'Odd' WHERE session = 150")
        file.execute("UPDATE projection_stream SET session = 9999 WHERE stream = 500")
    with Journal.open(tmp_path / "a.db", read_only=True) as opened:
        for found, before in ((opened.iter_sessions(), 149), (opened.iter_streams(), 490)):
            assert len(list(itertools.islice(found, before))) == before
            with pytest.raises(DamagedError, match="rebuild them"):
                next(iter(found))


def test_events_that_come_later_in_memory_stand_in_for_their_rows_only(tmp_path: Path) -> None:
    """A state that changed in memory moves the row to where it belongs, and out of a filter."""
    first, second, third = (SessionId.new() for _ in range(3))
    stream = StreamId.new()
    with Journal.open(tmp_path / "a.db") as writer:
        writer.append_events([activated(it) for it in (first, second, third)])
        writer.sessions()
        writer.append_events(
            [
                SessionClosed(session_id=second, timestamp=NOON),
                StreamCreated(session_id=first, stream_id=stream, timestamp=NOON),
                started(first, stream),
            ]
        )
        with Journal.open(tmp_path / "a.db", read_only=True) as reader:
            assert reader.projections()[0].lag == 3
            ask = reader.iter_sessions
            assert [it.session_id for it in ask(SessionState.ACTIVE)] == [first, third]
            assert [it.session_id for it in ask(SessionState.COMPLETED)] == [second]
            assert [it.session_id for it in ask(order="events")] == [first, second, third]
            assert [it.session_id for it in ask(order="events", limit=1)] == [first]
            assert [it.session_id for it in ask(order="ended")] == [second, third, first]
            (found,) = reader.iter_streams()
            assert isinstance(found, StreamStatus)
            assert found.state == StreamState.STREAMING


# The commands


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with folded(tmp_path_factory.mktemp("mixed") / "a.db") as opened:
        return opened.path


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ([], {}),
        (["--state", "failed"], {"state": "Failed"}),
        (["--limit", 5], {"limit": 5}),
        (["--last", 5], {"order": "newest", "limit": 5}),
        (["--last", 5, "--state", "Failed"], {"order": "newest", "limit": 5, "state": "Failed"}),
        (["--sort", "NEWEST", "--limit", 0], {"order": "newest", "limit": 0}),
        (["--sort", "events", "--limit", 3], {"order": "events", "limit": 3}),
        (["--sort", "ended", "--as-of", 900], {"order": "ended", "as_of": 900}),
    ],
)
@pytest.mark.parametrize("command", ["sessions", "streams"])
def test_the_options_are_those_of_the_lists(
    command: str, chosen: list[Any], wanted: dict[str, Any], mixed: Path
) -> None:
    asked = run_here(command, mixed, *chosen, "--json")
    with Journal.open(mixed, read_only=True) as opened:
        expected = getattr(opened, command)(**wanted)
    assert asked.code == 0
    assert [json.loads(line) for line in asked.out.decode().splitlines()] == [
        it.model_dump(mode="json") for it in expected
    ]
    assert asked.err.startswith(f"{len(expected) or 'no'} {command}")
    table = run_here(command, mixed, *chosen)
    shown = [line.split()[0] for line in table.out.decode().splitlines()[1:]]
    assert shown == [str(getattr(it, f"{command[:-1]}_id"))[:8] for it in expected]


def test_each_order_has_its_name_on_the_command_line() -> None:
    assert options.SESSION_ORDERS == SESSION_ORDERS
    assert options.STREAM_ORDERS == STREAM_ORDERS


@pytest.mark.parametrize("command", ["sessions", "streams"])
def test_last_goes_alone(command: str, mixed: Path) -> None:
    for more in (["--sort", "events"], ["--limit", 3]):
        ended = run_here(command, mixed, "--last", 3, *more)
        assert (ended.code, ended.out) == (2, b"")
        assert "--last goes without --sort and --limit" in ended.err
    ended = run_here(command, mixed, "--sort", "colour")
    assert ended.code == 2
    assert "'colour' is not one of 'oldest', 'newest'" in ended.err


def test_a_reader_that_has_seen_enough_ends_a_list(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not wanted is not read."""
    taken = 0
    rows_of = listing.rows_of

    def counted(*arguments: Any) -> Iterator[Any]:
        nonlocal taken
        for row in rows_of(*arguments):
            taken += 1
            yield row

    monkeypatch.setattr(queries, "rows_of", counted)
    with Journal.open(mixed, read_only=True) as opened:
        assert len(list(itertools.islice(opened.iter_streams(), 3))) == 3
    assert taken == 10
