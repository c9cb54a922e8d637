"""Pruning with an application's projection that has not seen the events in this process."""

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from prune_support import small_blocks
from support import lines_of
from verify_support import COUNTING

from journal import Journal, Projection, Retention

LINES = lines_of("mixed/events.ndjson")[:400]


def test_a_projection_is_folded_before_what_it_names_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    path = tmp_path / "app.db"
    with Journal.open(path) as opened:
        opened.register(COUNTING)
        opened.append_ndjson(LINES)
        expected = opened.states("count")

    with Journal.open(path) as opened:  # which knows no id yet
        opened.register(COUNTING)
        report = opened.prune(before=301)

        assert (report.event_count, sum(report.sessions_forgotten.values()) > 0) == (300, True)
        assert opened.states("count") == expected
        assert [it.change_count for it in opened.rebuild(check=True)] == [0, 0]
        opened.rebuild(["count"])
        assert opened.states("count") == expected


def number_of_events(version: int) -> Projection[int]:
    return Projection("number", version, 0, lambda state, _: state + 1)


def failing(version: int) -> Projection[int]:
    def apply(state: int, event: Any) -> int:
        raise LookupError("no")

    return Projection("number", version, 0, apply)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_blocks(monkeypatch)
    return tmp_path / "app.db"


@pytest.fixture
def taken(path: Path) -> Path:
    """Return a file of which the first version of a projection has taken everything."""
    with Journal.open(path) as opened:
        opened.register(number_of_events(1))
        opened.append_ndjson(LINES[:200])
        assert opened.state("number") == 200
    return path


@pytest.mark.parametrize("start", ["taken", "path"])
@pytest.mark.parametrize("by_itself", [True, False])
def test_what_a_version_that_fails_has_not_taken_stays(
    request: pytest.FixtureRequest, start: str, by_itself: bool
) -> None:
    """Be it that an older version had taken it, or that the projection is new."""
    path: Path = request.getfixturevalue(start)
    keeping = Retention(keep_events=50)
    with Journal.open(path, retention=keeping if by_itself else None) as opened:
        opened.register(failing(2))
        for line in LINES[200:]:
            opened.append_ndjson([line])
        if not by_itself:
            dry = opened.prune(keep_events=50, dry_run=True)  # which does not fold it
            assert (dry.event_count > 0, dry.held_by) == (True, None)
            report = opened.prune(keep_events=50)
            assert (report.event_count, report.held_by, report.held_at) == (0, "number", 0)
            assert opened.prune(keep_events=50, give_up=["number"], dry_run=True).event_count
        count = opened.event_count()
    with Journal.open(path) as opened:
        opened.register(number_of_events(3))
        assert opened.state("number") == count == opened.last_position


def test_retention_folds_anew_what_an_older_version_has_folded(taken: Path) -> None:
    with Journal.open(taken, retention=Retention(keep_events=50)) as opened:
        opened.register(number_of_events(2))
        for line in LINES[200:]:
            opened.append_ndjson([line])
        assert opened.event_count() < 200
        assert opened.state("number") == 400
        (status,) = (it for it in opened.projections() if it.name == "number")
        assert (status.version, status.since) == (2, 1)


@pytest.fixture
def taken_half(taken: Path) -> Path:
    """Return a file of which a projection has taken half, with tables of another version."""
    with Journal.open(taken) as opened:
        opened.append_ndjson(LINES[200:])
    with closing(apsw.Connection(str(taken))) as file:
        file.execute("DROP VIEW sessions; DROP VIEW streams; DROP VIEW projection_states")
        file.execute("ALTER TABLE projection_session ADD COLUMN later")
    return taken


def test_tables_that_are_made_anew_leave_an_applications_states(taken_half: Path) -> None:
    with Journal.open(taken_half) as opened:
        report = opened.prune(keep_events=50)
        assert (report.event_count, report.held_by, report.held_at) == (200, "number", 200)
        opened.register(number_of_events(1))
        assert opened.state("number") == 400


def test_states_that_cannot_be_read_hold_everything_back(taken_half: Path) -> None:
    with closing(apsw.Connection(str(taken_half))) as file:
        file.execute("ALTER TABLE projection_state ADD COLUMN later")
    with Journal.open(taken_half) as opened:
        report = opened.prune(keep_events=50)
        assert (report.event_count, report.held_by, report.held_at) == (0, "number", 0)
        opened.register(number_of_events(1))
        assert opened.state("number") == 400


def test_a_delta_of_tables_of_another_version_has_an_applications_states(
    taken_half: Path, tmp_path: Path
) -> None:
    with Journal.open(taken_half, read_only=True) as opened:
        opened.ship(tmp_path / "delta.db", after=100, standalone=True)
    with Journal.open(tmp_path / "delta.db", read_only=True) as opened:
        opened.register(number_of_events(1))
        assert opened.state("number") == 400
