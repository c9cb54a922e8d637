"""How much retention does after one append, counted in what it does, never in time."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from prune_support import BLOCK, check_against, check_closed, small_blocks
from support import NOON, activated, started
from test_retention import EVENTS, cut_of

from journal import (
    DamagedError,
    Journal,
    Retention,
    SessionClosed,
    SessionId,
    StreamId,
    limits,
)
from journal.events import AnyEvent
from journal.maintenance import pruning, retention
from journal.maintenance.cutting import Cutter
from journal.maintenance.pace import Pace
from journal.projections import bases, checkpoints
from journal.projections.lifecycle_states import LifecycleStates

FOLDED, READ, MADE, CHECKED = 20, 10, 6, 8
"""Small pieces, of events and of states."""

OPEN = [(SessionId.new(), StreamId.new()) for _ in range(BLOCK)]


def going_on(count: int) -> list[AnyEvent]:
    """Return events of which each one in a block is of another session and another stream."""
    return [started(*OPEN[number % BLOCK], number) for number in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)
    monkeypatch.setattr(pruning, "_FOLDED_AT_ONCE", FOLDED)
    monkeypatch.setattr(bases, "_READ_AT_ONCE", READ)
    monkeypatch.setattr(bases, "_MADE_AT_ONCE", MADE)
    monkeypatch.setattr(checkpoints, "_CHECKED_AT_ONCE", CHECKED)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return what was done so far: events folded, states read, digests computed, cuts made."""
    done: Counter[str] = Counter()

    def count(owner: Any, name: str, what: Callable[..., str], amount: Any = lambda *_: 1) -> None:
        really = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            done[what(*arguments)] += amount(*arguments)
            return really(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    def of_rows(states: LifecycleStates, _: Any) -> str:
        return "folded" if states.tables_in == "main" else "folded from the base"

    count(LifecycleStates, "fold", of_rows, lambda _, rows: len(rows))
    count(bases, "from_json", lambda *_: "read")
    count(checkpoints, "_sha256", lambda *_: "digests")
    count(Cutter, "cut", lambda *_: "cuts")
    return done


def append_one_by_one(
    journal: Journal, events: list[AnyEvent], done: Counter[str]
) -> list[Counter[str]]:
    """Append each event by itself, and return what was done after each."""
    amounts = []
    for event in events:
        done.clear()
        journal.append_events([event])
        assert journal.retention_failure is None
        amounts.append(done.copy())
    return amounts


def largest(amounts: list[Counter[str]]) -> dict[str, int]:
    return {name: max(each[name] for each in amounts) for each in amounts for name in each}


@pytest.mark.usefixtures("pieces")
def test_no_append_does_more_than_a_piece(path: Path, done: Counter[str]) -> None:
    """Nor does the cut do anything again of what was done before it."""
    with Journal.open(path, durability="normal", retention=Retention(keep_events=100)) as journal:
        amounts = append_one_by_one(journal, going_on(12 * BLOCK), done)
        assert cut_of(journal) >= 8 * BLOCK
    assert largest(amounts) == {
        "folded": FOLDED,
        "folded from the base": READ,
        "read": READ,
        "digests": 2 * MADE,  # of the row before and of the one after
        "cuts": 1,
    }
    assert all(len(each) <= 1 for each in amounts)
    check_closed(path)


@pytest.mark.usefixtures("pieces")
def test_nor_where_something_comes_late_for_what_was_over(path: Path, done: Counter[str]) -> None:
    """Then the cut is made ready anew, in pieces: before, it was known without folding."""
    sessions = [SessionId.new() for _ in range(8 * BLOCK // 2)]
    events: list[AnyEvent] = []
    for session in sessions:
        events += [activated(session), SessionClosed(session_id=session, timestamp=NOON)]
    with Journal.open(path, durability="normal") as journal:
        journal.append_events(events)
    amounts: list[Counter[str]] = []
    with Journal.open(path, durability="normal", retention=Retention(keep_events=10)) as journal:
        cut = since = 0
        while cut < 6 * BLOCK:
            since = since + 1 if cut_of(journal) == cut else 1
            cut = cut_of(journal)
            late = sessions[cut // 2 + 3]  # three appends have folded the block, one has looked
            one = activated(late if since == 5 else SessionId.new())
            amounts += append_one_by_one(journal, [one], done)
    assert [each for each in amounts if each["cuts"]] == [Counter(cuts=1)] * 6
    assert sum(each["folded from the base"] for each in amounts) == 6 * 2
    check_closed(path)


@pytest.mark.usefixtures("pieces")
def test_nor_after_opening_when_the_base_is_made_sure_of(path: Path, done: Counter[str]) -> None:
    keeping = Retention(keep_events=100)
    with Journal.open(path, durability="normal", retention=keeping) as journal:
        append_one_by_one(journal, going_on(8 * BLOCK), done)
        cut = cut_of(journal)
    with Journal.open(path, durability="normal", retention=keeping) as journal:
        amounts = append_one_by_one(journal, going_on(3 * BLOCK), done)
        assert cut_of(journal) > cut > 0
    assert max(each["digests"] for each in amounts) <= 2 * MADE
    first = next(number for number, each in enumerate(amounts) if each["cuts"])
    assert sum(each["digests"] for each in amounts[:first]) == 2 * BLOCK + 4 * BLOCK
    assert amounts[first] == Counter(cuts=1)  # it was made sure of once


@pytest.mark.usefixtures("pieces")
def test_a_base_that_is_damaged_is_found_and_nothing_goes(path: Path) -> None:
    keeping = Retention(keep_events=100)
    with Journal.open(path, durability="normal", retention=keeping) as journal:
        for event in going_on(8 * BLOCK):
            journal.append_events([event])
        cut = cut_of(journal)
        assert cut > 0
    with closing(apsw.Connection(str(path))) as file:
        file.execute("UPDATE base_stream SET events_before = 7 WHERE stream = 40")
    with Journal.open(path, durability="normal", retention=keeping) as journal:
        for event in going_on(3 * BLOCK):
            journal.append_events([event])
        assert isinstance(journal.retention_failure, DamagedError)
        assert "the base of the projection 'streams'" in str(journal.retention_failure)
        assert cut_of(journal) == cut


def test_a_cut_is_left_to_an_append_that_does_nothing_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, done: Counter[str]
) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 60)
    with Journal.open(path, durability="normal") as journal:
        journal.append_events(going_on(10 * BLOCK))
    with Journal.open(path, durability="normal", retention=Retention(keep_events=BLOCK)) as journal:
        amounts = append_one_by_one(journal, going_on(9), done)
        assert cut_of(journal) == 8 * BLOCK
    assert [each["cuts"] for each in amounts] == [0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert amounts[0]["digests"] > 0  # all else was done at once


@pytest.mark.parametrize("size", [50, 100, 130, 1_000])
def test_it_keeps_up_where_each_event_is_of_another_session(
    path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Even if there is time for no step but those that an append has to make."""
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)
    block = limits.BLOCK_EVENTS_MAX
    ids = [(SessionId.new(), StreamId.new()) for _ in range(block)]
    events = [started(*ids[number % block], number) for number in range(6 * block)]
    with Journal.open(path, durability="normal", retention=Retention(keep_events=block)) as journal:
        for first in range(0, len(events), size):
            journal.append_events(events[first : first + size])
            assert journal.retention_failure is None
            assert journal.event_count() < 3 * block + size
        assert cut_of(journal) >= 3 * block


@pytest.mark.parametrize("size", [1, 3, 17])
@pytest.mark.usefixtures("pieces")
def test_in_pieces_it_is_as_in_one(path: Path, tmp_path: Path, size: int) -> None:
    """Events come between the pieces, of sessions and streams that are just being looked at."""
    whole = Journal.open(tmp_path / "whole.db", durability="normal")
    keeping = Retention(keep_events=10)
    with whole, Journal.open(path, durability="normal", retention=keeping) as journal:
        for first in range(0, len(EVENTS), size):
            for each in (journal, whole):
                each.append_events(EVENTS[first : first + size])
            assert journal.retention_failure is None
        assert cut_of(journal) > len(EVENTS) // 2
        check_against(journal, whole, cut_of(journal))
    check_closed(path)


def test_a_pace_goes_on_as_long_as_it_says() -> None:
    pace = Pace(3, 0)
    assert pace.has_room_for(5)  # as the first thing
    for _ in range(3):
        assert pace.goes_on
        pace.steps_made += 1
    assert not pace.goes_on
    assert not Pace(0, 0).goes_on
    assert Pace(0, 60).goes_on


def test_a_pace_has_no_room_for_what_takes_longer_than_what_is_left() -> None:
    pace = Pace(6, 60)
    pace.steps_made += 1
    assert pace.has_room_for(5)
    assert pace.goes_on
    pace.steps_made += 1
    assert not pace.has_room_for(5)
    assert not pace.goes_on
