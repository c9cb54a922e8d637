"""A delta that stands alone: it has what pruning up to there would have left."""

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from commands_support import run_here
from prune_support import check_against
from support import SEEDS, lines_of
from verify_support import COUNTING

import journal
from journal import Journal, Projection, parse_event
from journal.maintenance import Shipment

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

LINES = lines_of("mixed/events.ndjson")
COUNT = 700  # in blocks of fifty
FAILING = Projection("failing", 1, {"n": 0}, lambda *_: {"n": 1 // 0})
BY_SESSION = Projection(
    "by session", 1, {"n": 0}, lambda it, _: {"n": it["n"] + 1}, key=lambda it: it.session_id
)

TABLES = {
    "base": "1",
    "base_session": "1",
    "base_stream": "1",
    "base_state": "1, 2",
    "session": "1",
    "stream": "1",
    "event": "1",
    "block": "1",
    "append_key": "1",
    "kind": "1",
    "origin": "1",
    "projection_session": "1",
    "projection_stream": "1",
    "projection_anomaly": "1",
    "projection_state": "1, 2",
    "checkpoint": "1",
}


def registered(opened: Journal) -> None:
    for each in (COUNTING, BY_SESSION):
        opened.register(each)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with Journal.open(path) as opened:
        registered(opened)
        opened.append_ndjson(LINES[: COUNT // 2])
        opened.append_ndjson(lines_of("next_version.ndjson"), unknown="keep", on_error="skip")
        opened.append_ndjson(LINES[COUNT // 2 : COUNT])
        opened.states("count")
        opened.states("by session")
    return path


def rows(path: Path, table: str) -> list[Any]:
    with closing(apsw.Connection(str(path))) as file:
        return file.execute(f"SELECT * FROM {table} ORDER BY {TABLES[table]}").fetchall()


def standalone(source: Path, dest: Path, after: int, register: Callable[[Journal], None]) -> Path:
    with Journal.open(source, read_only=True) as opened:
        register(opened)
        shipment = opened.ship(dest, after=after, standalone=True)
    found = journal.verify(dest, full=True)
    assert found.sound, found.findings
    assert isinstance(shipment, Shipment)
    return dest


@pytest.mark.parametrize(("after", "pruned"), [(51, 0), (303, 0), (303, 101), (650, 0)])
def test_it_is_what_pruning_leaves(live: Path, tmp_path: Path, after: int, pruned: int) -> None:
    """Table by table; also of a journal that was pruned before."""
    if pruned:
        with Journal.open(live) as opened:
            registered(opened)
            opened.prune(before=pruned)
    delta = standalone(live, tmp_path / "d.db", after, registered)
    first = max(pruned, (after - 1) // 50 * 50 + 1)
    path = Path(shutil.copy(live, tmp_path / "pruned.db"))
    with Journal.open(path) as opened:
        registered(opened)
        opened.sessions()
        opened.prune(before=first)

    for table in TABLES:
        assert rows(delta, table) == rows(path, table), table
    with Journal.open(live) as whole, Journal.open(delta, read_only=True) as opened:
        registered(whole)
        registered(opened)
        if not pruned:
            check_against_read_only(opened, whole, first - 1)
        for name in ("count", "by session"):
            assert opened.states(name) == whole.states(name)
        assert {it.since for it in opened.projections()} == {1}


def check_against_read_only(opened: Journal, whole: Journal, cut: int) -> None:
    """Do what `check_against` does, but for the rebuild, which writes."""
    rebuild, Journal.rebuild = Journal.rebuild, lambda *_, **__: ()  # type: ignore[method-assign]
    try:
        check_against(opened, whole, cut)
    finally:
        Journal.rebuild = rebuild  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS)]
)
def test_any_history_is_what_pruning_leaves(seed: int, tmp_path: Path) -> None:
    """Also with streams named under other sessions, late events, and ends that come twice."""
    chance = random.Random(seed)
    events = [parse_event(line) for line in LINES[:900]]
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        for _ in range(chance.randrange(3, 8)):
            begin = chance.randrange(len(events) - 150)
            some = chance.sample(events[begin : begin + 150], 80)
            sessions = [event.session_id for event in some]
            for place in chance.sample(range(80), 8):
                other = {"session_id": chance.choice(sessions)}
                some[place] = some[place].model_copy(update=other)
            opened.append_events(some)
        last = opened.last_position
    delta = standalone(path, tmp_path / "d.db", chance.randrange(51, last + 1), lambda _: None)
    first = journal.verify(delta).first_position
    assert first is not None
    with Journal.open(path) as opened:
        opened.sessions()
        opened.prune(before=first)

    for table in TABLES:
        assert rows(delta, table) == rows(path, table), (table, seed)


def test_states_that_nobody_registered_stay_as_they_are(live: Path, tmp_path: Path) -> None:
    delta = standalone(live, tmp_path / "d.db", 303, lambda _: None)

    with Journal.open(live) as whole, Journal.open(delta, read_only=True) as opened:
        registered(whole)
        registered(opened)
        for name in ("count", "by session"):
            assert opened.states(name) == whole.states(name)
    assert [row[0] for row in rows(delta, "base")] == ["sessions", "streams"]


def test_a_projection_that_fails_has_no_base(live: Path, tmp_path: Path) -> None:
    def register(opened: Journal) -> None:
        opened.register(FAILING)
        opened.register(COUNTING)

    delta = standalone(live, tmp_path / "d.db", 303, register)

    assert [row[0] for row in rows(delta, "base")] == ["count", "sessions", "streams"]


def test_without_before_it_is_refused(live: Path, tmp_path: Path) -> None:
    with (
        Journal.open(live, read_only=True) as opened,
        pytest.raises(ValueError, match="standalone"),
    ):
        opened.ship(tmp_path / "d.db", standalone=True)
    result = run_here("ship", live, tmp_path / "d.db", "--standalone")
    assert (result.code, "--standalone: expected --after, too" in result.err) == (2, True)


def test_the_command_makes_one(live: Path, tmp_path: Path) -> None:
    result = run_here("ship", live, tmp_path / "d.db", "--after", 303, "--standalone", "--json")

    assert result.code == 0
    expected = run_here("sessions", live, "--state", "Active").out
    assert run_here("sessions", tmp_path / "d.db", "--state", "Active").out == expected
