"""Texts of a million characters: however many there are, few of them are in memory at once."""

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands_support import SESSION, run_here

from journal import Journal, SessionId, StreamCreated, StreamFailed, StreamId, Timestamp, limits
from journal.projections import lifecycle_states, listing, rebuilding
from journal.projections.lifecycle_states import LifecycleStates
from journal.projections.registry import Projections

CHARACTERS = 1_000_000
STREAMS = 24
HELD_MAX = 12 * CHARACTERS
SHORT = 3
"""How many streams after the long ones have a short error."""


def stream(number: int) -> StreamId:
    return StreamId(f"{number:08x}-121a-4045-ba76-f4f2c868ab8e")


def failed(number: int, error: str) -> StreamFailed:
    return StreamFailed(
        session_id=SessionId(SESSION),
        stream_id=stream(number),
        error=error,
        timestamp=Timestamp.from_epoch_ns(number),
    )


def append_all(path: Path) -> None:
    with Journal.open(path, durability="normal") as journal:
        for number in range(STREAMS):
            journal.append_events([failed(number, f"{number:<{CHARACTERS}}")])
        journal.append_events([failed(STREAMS + one, "short") for one in range(SHORT)])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "long.db"
    append_all(path)
    return path


@contextmanager
def few_held() -> Iterator[None]:
    """Assert that little of what Python allocates in this block is there at the same time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < HELD_MAX


READS: dict[str, Callable[[Journal], Iterator[Any]]] = {
    "read": lambda journal: journal.read(),
    "lines": lambda journal: journal.lines(),
    "lines of a session": lambda journal: journal.lines(session_id=SessionId(SESSION)),
    "streams": lambda journal: journal.iter_streams(),
    "streams, newest first": lambda journal: journal.iter_streams(order="newest"),
    "streams, sorted": lambda journal: journal.iter_streams(order="events"),
    "streams of a session": lambda journal: journal.iter_streams(SessionId(SESSION)),
    "streams as of": lambda journal: journal.iter_streams(as_of=STREAMS + SHORT - 1),
    "streams of a session as of": lambda journal: journal.iter_streams(
        SessionId(SESSION), as_of=STREAMS + SHORT - 1
    ),
    "anomalies as of": lambda journal: journal.iter_anomalies(as_of=STREAMS + SHORT - 1),
}


@pytest.mark.parametrize("what", READS)
def test_what_is_read_in_pages_holds_few_long_texts(path: Path, what: str) -> None:
    with Journal.open(path, read_only=True) as journal, few_held():
        count = sum(1 for _ in READS[what](journal))
    assert count == STREAMS + SHORT - what.endswith("as of")


def test_long_texts_come_in_the_order_that_is_asked_for(path: Path) -> None:
    with Journal.open(path, read_only=True) as journal:
        expected = [it.stream_id for it in reversed(journal.streams())]
        assert [it.stream_id for it in journal.iter_streams(order="events")] == expected
        assert [it.stream_id for it in journal.iter_streams(order="newest")] == expected
        assert {len(it.error or "") for it in journal.iter_streams()} == {CHARACTERS, len("short")}


def test_a_page_of_rows_ends_where_its_texts_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PAGE_ROWS_MAX", 3)
    monkeypatch.setattr(listing, "_PAGE_TEXT_MAX", 10)
    rows = iter([("", 1), (None, 2), ("", 3), ("123456789", 4), ("1", 5), ("0123456789", 6)])

    assert listing.page_of(rows, 0) == ([("", 1), (None, 2), ("", 3)], False)
    assert listing.page_of(rows, 0) == ([("123456789", 4), ("1", 5)], False)
    assert listing.page_of(rows, 0) == ([("0123456789", 6)], False)
    assert listing.page_of(rows, 0) == ([], True)


@pytest.mark.parametrize("order", ["oldest", "newest", "events"])
@pytest.mark.parametrize(("rows_max", "text_max"), [(1, 1), (5, 3_000_000), (1_000, 2_000_000)])
def test_the_size_of_pages_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, order: Any, rows_max: int, text_max: int
) -> None:
    with Journal.open(path, read_only=True) as journal:
        expected = [it.stream_id for it in journal.streams(order=order)]
        monkeypatch.setattr(listing, "_PAGE_ROWS_MAX", rows_max)
        monkeypatch.setattr(listing, "_PAGE_TEXT_MAX", text_max)
        assert [it.stream_id for it in journal.iter_streams(order=order)] == expected


def test_folding_holds_few_long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setattr(Projections, "catch_up_where_quick", lambda _: None)  # when it closes
    append_all(path)
    with Journal.open(path, read_only=True) as journal, few_held():  # beside
        assert journal.sessions()[0].failed_streams == STREAMS + SHORT
    with Journal.open(path) as journal, few_held():  # into the file
        assert journal.sessions()[0].failed_streams == STREAMS + SHORT
        assert journal.rebuild()[0].changes == ()


def test_pruning_holds_few_long_texts(tmp_path: Path) -> None:
    append_all(tmp_path / "a.db")
    with Journal.open(tmp_path / "a.db") as journal, few_held():
        report = journal.prune(keep_events=SHORT)
    assert report.counts_by_kind == {"stream_failed": STREAMS}


def test_one_session_as_of_a_moment_holds_few_long_texts(path: Path) -> None:
    with Journal.open(path, read_only=True) as journal, few_held():
        session = journal.session(SessionId(SESSION), as_of=STREAMS)
        one = journal.stream(stream(1), as_of=STREAMS)
    assert session is not None
    assert session.failed_streams == STREAMS
    assert one is not None
    assert len(one.error or "") == CHARACTERS


@pytest.mark.parametrize("command", ["streams", "session"])
def test_a_table_holds_few_long_texts(path: Path, command: str) -> None:
    arguments = [SESSION] if command == "session" else []
    with few_held():
        result = run_here(command, path, *arguments)
    assert result.code == 0
    assert result.out.count(b"1,000,000 characters, --json has all") >= STREAMS


def test_the_owner_of_a_long_stream_is_found_without_holding_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [failed(1, "again") for _ in range(60)]
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_events(events)
        expected = journal.stream(stream(1), as_of=50)
        monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 10)
        monkeypatch.setattr(journal._reader, "chain_rows", None)  # which returns all of them
        assert journal.stream(stream(1), as_of=50) == expected
    assert expected is not None
    assert expected.event_count == 50


@pytest.mark.parametrize("read_only", [True, False])
def test_what_never_ends_does_not_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, read_only: bool
) -> None:
    monkeypatch.setattr(lifecycle_states, "_IN_MEMORY_MAX", 20)
    monkeypatch.setattr(rebuilding, "_EVENTS_AT_ONCE", 10)
    held = []
    make_room = LifecycleStates.make_room

    def counting(states: LifecycleStates) -> None:
        make_room(states)
        lifecycle = states.lifecycle
        held.append(len(lifecycle.sessions) + len(lifecycle.streams) + len(lifecycle.anomalies))

    monkeypatch.setattr(LifecycleStates, "make_room", counting)
    events = [
        StreamCreated(
            session_id=SessionId(SESSION),
            stream_id=stream(number // 2),  # every other event is an anomaly
            timestamp=Timestamp.from_epoch_ns(number),
        )
        for number in range(200)
    ]
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_events(events)
    with Journal.open(path, read_only=read_only) as journal:
        if read_only:
            monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 5)
            assert len(journal.streams(as_of=180)) == 90
        else:
            assert journal.rebuild()[0].changes == ()
    assert len(held) >= 10
    assert max(held) <= 20


def test_millions_of_sessions_with_anomalies_are_not_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        for _ in range(4):
            session_id = SessionId.new()
            journal.append_events([failed(1, "x").model_copy(update={"session_id": session_id})])
    assert run_here("anomalies", path).err == "4 anomalies in 4 sessions\n"
    monkeypatch.setattr(sys.modules["journal.commands.anomalies"], "_SESSIONS_MAX", 3)
    assert run_here("anomalies", path).err == "4 anomalies in more than 3 sessions\n"
