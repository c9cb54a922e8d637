"""What a delta costs, counted in what SQLite does, never in time: it goes by what is new."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import lines_of

from journal import Journal, parse_event
from journal.file import connections
from journal.maintenance import delta

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

LINES = lines_of("mixed/events.ndjson")
NEW = 300


def made(path: Path, before: int) -> Path:
    """Make a journal with so many rounds of old events, each with a key, and some new ones."""
    old, new = ([parse_event(it) for it in some] for some in (LINES[:1_000], LINES[1_000:]))
    with Journal.open(path, durability="normal") as opened:
        for number in range(before):
            opened.append_events(old, key=f"old {number}")
            for one in range(100):
                opened.append_events(old[one * 3 : one * 3 + 3], key=f"old {number}, {one}")
        opened.append_events(new[:NEW], key="new")
    return path


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the steps and the pages of whatever reads the journal or makes the copy."""
    counts: Counter[str] = Counter()

    def count(profile: dict[str, Any]) -> None:
        counts["steps"] += profile["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    def noted(name: str, module: Any) -> None:
        original = getattr(module, name)

        def opened(*arguments: Any) -> apsw.Connection:
            connection: apsw.Connection = original(*arguments)
            connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, count)
            counts[name] += 1
            return connection

        monkeypatch.setattr(module, name, opened)

    with monkeypatch.context():
        noted("open_reader", connections)
        noted("_new_file", delta)
        yield counts


def steps_of(path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    with Journal.open(path, read_only=True) as opened:
        last = opened.last_position
    with counted(monkeypatch) as counts:
        with Journal.open(path, read_only=True) as opened:
            shipment = opened.ship(dest, after=last - NEW, **options)
    assert shipment.event_count in range(NEW, NEW + 51)
    assert counts["open_reader"] >= 1
    assert counts["_new_file"] == 1
    assert counts["steps"] > 5 * NEW
    return counts["steps"]


def test_it_goes_by_what_is_new_and_not_by_what_lies_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six times as many events, sessions and keys lie before the same new ones."""
    few = steps_of(made(tmp_path / "few.db", 1), tmp_path / "a.db", monkeypatch)
    many = steps_of(made(tmp_path / "many.db", 6), tmp_path / "b.db", monkeypatch)

    assert many < few + 500, (many, few)  # of some 43,000: numbers get longer


def test_the_measure_sees_what_lies_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delta that stands alone folds it all, and so the count above can grow."""
    few = steps_of(made(tmp_path / "few.db", 1), tmp_path / "a.db", monkeypatch, standalone=True)
    many = steps_of(made(tmp_path / "many.db", 4), tmp_path / "b.db", monkeypatch, standalone=True)

    assert many > 1.5 * few
