"""Verifying: what is damaged is found, what is sound is not, and no damage is an exception."""

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import test_absent
from support import lines_of

import journal
from journal import Finding, Journal, Verification, limits, parse_event

LINES = lines_of("mixed/events.ndjson")[:330]
EVENTS = [parse_event(line) for line in LINES]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 40)


def execute(path: Path, statements: str, *parameters: Any) -> None:
    with closing(apsw.Connection(str(path))) as file:
        for table in ("event_is_never_updated", "event_is_deleted_only_where_absent"):
            file.execute(f"DROP TRIGGER IF EXISTS {table}")
        file.execute(statements, parameters or None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:100])
        opened.append_events(EVENTS[100:160], key="k")
        opened.append_events([], key="empty")
        opened.append_ndjson(LINES[160:])
        opened.sessions()
    return path


def codes(path: Path, *, full: bool = True, head: str | None = None) -> set[str]:
    told: list[Finding] = []
    found = journal.verify(path, full=full, head=head, on_finding=told.append)
    assert list(found.findings) == told
    assert found.finding_count == len(told)
    assert found.sound is (not told)
    return {finding.code for finding in told}


def sound(path: Path, *, full: bool = True) -> Verification:
    found = journal.verify(path, full=full)
    assert found.findings == ()
    assert found.sound
    return found


def test_a_whole_file_is_proven(path: Path) -> None:
    found = sound(path)

    assert (found.event_count, found.proven_count) == (330, 330)
    assert (found.redacted_count, found.uncovered_count, found.absent_count) == (0, 0, 0)
    assert (found.first_position, found.last_position, found.covered_up_to) == (1, 330, 330)
    assert found.checked_after == 0
    with Journal.open(path, read_only=True) as opened:
        assert opened.info().head == found.head


def test_a_quick_look_takes_the_last_blocks(path: Path) -> None:
    found = sound(path, full=False)

    assert (found.checked_after, found.event_count, found.proven_count) == (200, 130, 130)
    execute(path, "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 130")
    assert codes(path, full=False) == set()
    assert codes(path) == {"block-content", "key", "projection"}


def test_a_file_with_a_cut_is_proven_from_there(tmp_path: Path) -> None:
    path = test_absent.whole(tmp_path / "a.db")
    test_absent.cut(path, tmp_path)
    found = sound(path)

    assert found.event_count == found.proven_count == 400 - test_absent.CUT
    assert found.absent_count == found.checked_after == test_absent.CUT
    sound(path, full=False)
