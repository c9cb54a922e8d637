"""Deltas and merged journals: deltas that are merged, and deltas of what was merged."""

from pathlib import Path

import pytest
from support import lines_of

import journal
from journal import Journal, merge
from journal.maintenance import Shipment

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

LINES = lines_of("mixed/events.ndjson")


def add(path: Path, begin: int, end: int) -> Path:
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[begin:end])
        last = opened.last_position
        opened.append_events([], key=f"{path.name} {last}")
    return path


def ship(path: Path, dest: Path, **options: object) -> Shipment:
    with Journal.open(path, read_only=True) as opened:
        shipment = opened.ship(dest, **options)  # type: ignore[arg-type]
    found = journal.verify(dest, full=True)
    assert found.sound, found.findings
    return shipment


def lines(path: Path) -> list[str]:
    with Journal.open(path, read_only=True) as opened:
        return [line for _, line in opened.lines()]


@pytest.mark.parametrize(("pruned", "standalone"), [(False, False), (True, True)])
def test_deltas_in_any_order_make_the_whole(
    tmp_path: Path, *, pruned: bool, standalone: bool
) -> None:
    """Each continues the one before, by the digests; what was pruned on the device is there."""
    live = add(tmp_path / "a.db", 0, 130)
    shipped = [ship(live, tmp_path / "0.db")]
    for night in range(1, 4):
        add(live, night * 130, night * 130 + 130)
        dest = tmp_path / f"{night}.db"
        shipped.append(ship(live, dest, after=shipped[-1].path, standalone=standalone))
        if pruned:
            with Journal.open(live) as opened:
                opened.prune(file=shipped[-2].path)

    for order in ([0, 1, 2, 3], [0, 1, 1, 2, 0, 3]):
        fleet = tmp_path / f"fleet{len(order)}.db"
        for night in order:
            assert merge(fleet, shipped[night].path).complete
        assert lines(fleet) == LINES[:520]
        assert journal.verify(fleet, full=True).sound
    fleet = tmp_path / "late.db"
    merge(fleet, shipped[2].path)
    found = merge(fleet, shipped[3].path)
    (origin,) = found.origins  # which waits for nothing that was pruned
    assert origin.waiting == (() if pruned else ((1, 250),))
    assert origin.absent == (((1, 250),) if pruned else ())


def absent_by_label(path: Path) -> dict[str | None, tuple[tuple[int, int], ...]]:
    with Journal.open(path, read_only=True) as opened:
        found = opened.origins()
    assert found.complete
    return {it.label: it.absent for it in found.origins}


def test_what_lies_before_a_delta_is_absent_in_it(tmp_path: Path) -> None:
    """Of the journal itself, and of each that was merged into it."""
    with Journal.open(tmp_path / "a.db", label="a") as opened:
        opened.append_ndjson(LINES[:130])
    delta = ship(tmp_path / "a.db", tmp_path / "delta.db", after=120).path
    assert absent_by_label(delta) == {"a": ((1, 100),)}
    with Journal.open(tmp_path / "fleet.db", label="fleet") as opened:
        opened.append_ndjson(LINES[:60])
    merge(tmp_path / "fleet.db", tmp_path / "a.db")
    delta = ship(tmp_path / "fleet.db", tmp_path / "late.db", after=120).path
    with Journal.open(delta, read_only=True) as opened:
        first = opened.info().first_position
    assert absent_by_label(delta) == {"a": ((1, first - 61),), "fleet": ((1, 60),)}
    assert absent_by_label(tmp_path / "fleet.db") == {"a": (), "fleet": ()}


def test_a_delta_of_another_branch_is_found(tmp_path: Path) -> None:
    live = add(tmp_path / "a.db", 0, 130)
    (tmp_path / "b.db").write_bytes(live.read_bytes())
    one = ship(add(live, 200, 300), tmp_path / "one.db", after=130)
    other = ship(add(tmp_path / "b.db", 300, 400), tmp_path / "other.db", after=130)

    merge(tmp_path / "fleet.db", one.path)
    found = merge(tmp_path / "fleet.db", other.path)

    assert not found.complete
    assert len({it.branch for it in found.origins}) == 2


@pytest.mark.parametrize("standalone", [False, True])
def test_of_a_merged_journal(tmp_path: Path, *, standalone: bool) -> None:
    """Its delta has what its sources had of the new events, blocks among it."""
    sources = [add(tmp_path / f"{name}.db", at, at + 170) for at, name in enumerate("abc")]
    fleet = tmp_path / "fleet.db"
    merge(fleet, sources)
    whole = ship(fleet, tmp_path / "whole.db")
    for at, source in enumerate(sources[:2]):
        add(source, 300 + at, 410 + at)
    merge(fleet, sources)
    delta = ship(fleet, tmp_path / "delta.db", after=whole.path, standalone=standalone)

    assert delta.event_count in range(220, 271)
    with Journal.open(fleet, read_only=True) as opened:
        first = delta.first_position or 0
        assert lines(delta.path) == [line for _, line in opened.lines(after=first - 1)]
    assert journal.verify(fleet, head=delta.head).sound
    home = tmp_path / "home.db"
    merge(home, whole.path)
    found = merge(home, delta.path)
    assert found.complete
    assert found.added_count == 220
    assert sorted(lines(home)) == sorted(lines(fleet))
    assert journal.verify(home, full=True).sound
