"""Shipping a file that has a cut at its beginning, or a gap."""

from pathlib import Path

import apsw
import pytest
from test_absent import CUT, LINES, cut, declare_absent, small_blocks, whole

import journal
from journal import Journal
from journal.maintenance.manifest import AbsentRange

__all__ = ["small_blocks"]  # holds for the tests here, too


def test_a_cut_is_kept_and_told(tmp_path: Path) -> None:
    path = whole(tmp_path / "app.db")
    cut(path, tmp_path)

    with Journal.open(path, read_only=True) as opened:
        shipment = opened.ship(tmp_path / "copy.db")
        sessions, lines = opened.sessions(), list(opened.lines())

    assert journal.verify(shipment.path, full=True).sound
    (absent,) = shipment.absent
    assert isinstance(absent, AbsentRange)
    assert (absent.first_position, absent.last_position, absent.reason) == (1, CUT, "pruned")
    assert absent.counts_by_kind is not None
    assert sum(absent.counts_by_kind.values()) == CUT
    assert (shipment.first_position, shipment.last_position) == (CUT + 1, len(LINES))
    assert shipment.event_count == len(LINES) - CUT
    assert len(shipment.digest_before or "") == 64
    assert shipment.digest_before != "0" * 64
    with Journal.open(shipment.path, read_only=True) as copy:
        assert copy.sessions() == sessions
        assert list(copy.lines()) == lines


def test_a_stale_projection_after_a_cut_is_folded_from_the_base(tmp_path: Path) -> None:
    path = whole(tmp_path / "app.db")
    cut(path, tmp_path)
    file = apsw.Connection(str(path))
    file.execute("UPDATE checkpoint SET version = 0; DELETE FROM projection_stream")
    file.close()
    with Journal.open(whole(tmp_path / "other.db"), read_only=True) as opened:
        expected = {it.event_count for it in opened.sessions()}

    with Journal.open(path, read_only=True) as opened:
        shipment = opened.ship(tmp_path / "copy.db")

    assert journal.verify(shipment.path, full=True).sound
    with Journal.open(shipment.path, read_only=True) as copy:
        assert {it.event_count for it in copy.sessions()} == expected


@pytest.mark.parametrize(("first", "closed"), [(101, None), (101, "recover"), (402, "recover")])
def test_a_gap_is_kept_and_told(tmp_path: Path, first: int, closed: str | None) -> None:
    """In a copy that was recovered also where the last block, which is open, has lost events."""
    path = whole(tmp_path / "app.db")
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:7])
    file = apsw.Connection(str(path))
    file.execute("BEGIN")
    declare_absent(file, first, first + 4, "lost")
    if closed is not None:
        file.execute("INSERT INTO meta VALUES ('closed', ?)", (closed,))
    file.execute("COMMIT")
    file.close()

    with Journal.open(path, read_only=True) as opened:
        shipment = opened.ship(tmp_path / "copy.db")
        lines = list(opened.lines())

    assert [(it.first_position, it.reason) for it in shipment.absent] == [(first, "lost")]
    assert shipment.event_count == len(LINES) + 2
    with Journal.open(shipment.path, read_only=True) as copy:
        assert list(copy.lines()) == lines
        assert copy.info().closed_by == (closed or "ship")
