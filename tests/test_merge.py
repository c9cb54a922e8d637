"""Merging: one journal with the events of many, each once."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import apsw
import pytest
from commands_support import run_here
from support import activated, lines_of, names_in, numbered

import journal
from journal import Journal, SessionId, limits, merge, verify
from journal.errors import PrunedFleetError
from journal.maintenance import Merged, placement

LINES = lines_of("mixed/events.ndjson")


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several blocks and several transactions where there are few events."""
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
    monkeypatch.setattr(placement, "_EVENTS_AT_ONCE", 25)


def session_of(number: int) -> SessionId:
    return SessionId.from_bytes(number.to_bytes(16))


def append(path: Path, first: int, last: int, label: str | None = None) -> None:
    with Journal.open(path, label=label) as opened:
        opened.append_ndjson(LINES[first - 1 : last])


def ship(path: Path, to: Path) -> Path:
    with Journal.open(path, read_only=True) as opened:
        return opened.ship(to).path


def copy(path: Path, to: Path) -> Path:
    shutil.copy(path, to)
    return to


def lines(path: Path) -> list[str]:
    with Journal.open(path, read_only=True) as opened:
        return [text for _, text in opened.lines()]


def events_of(path: Path) -> dict[tuple[str | None, str], list[tuple[int, str]]]:
    """Return position there and text of the events of each journal and branch, in file order."""
    found: dict[tuple[str | None, str], list[tuple[int, str]]] = {}
    with Journal.open(path, read_only=True) as opened:
        here = dict(opened.lines())
        sql = "SELECT label, branch, first_seq, last_seq, source_first_seq FROM origin ORDER BY 3"
        for label, branch, first, last, source in opened.connection().execute(sql):
            some = found.setdefault((label, branch), [])
            some += [(at - first + source, here.pop(at)) for at in range(first, last + 1)]
        if here:
            found[opened.label, ""] = list(here.items())
    return found


def numbered_lines(first: int, last: int, of: int = 1) -> list[tuple[int, str]]:
    """Return what a journal has at positions whose events are lines from `of` on."""
    return [(at, LINES[at - first + of - 1]) for at in range(first, last + 1)]


def shown(merged: Merged) -> list[tuple[Any, ...]]:
    return [
        (it.label, bool(it.branch), it.event_count, it.absent, it.waiting) for it in merged.origins
    ]


def check(path: Path) -> None:
    found = verify(path, full=True)
    assert found.sound, found.findings
    with Journal.open(path) as opened:
        assert not any(report.changes for report in opened.rebuild(check=True))


def delta(path: Path, to: Path, after: int) -> Path:
    with Journal.open(path, read_only=True) as opened:
        return opened.ship(to, after=after).path


def pruned(path: Path, to: Path, before: int) -> Path:
    """Return a copy whose first events are not there, as of a delta or after pruning."""
    shutil.copy(path, to)
    with Journal.open(to) as opened:
        opened.prune(before=before)
    return to


@pytest.fixture
def pump(tmp_path: Path) -> Path:
    path = tmp_path / "pump.db"
    append(path, 1, 84, "pump")
    return path


@pytest.fixture
def fan(tmp_path: Path) -> Path:
    path = tmp_path / "fan.db"
    append(path, 101, 133, "fan")
    return path


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    folder = tmp_path / "fleet"
    folder.mkdir()
    return folder / "fleet.db"


# Several journals


def test_a_merged_journal_has_the_events_of_all_each_once(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    shipped = ship(fan, tmp_path / "fan.shipped.db")

    done = merge(fleet, [pump, shipped])

    assert (done.source_count, done.added_count, done.known_count) == (2, 117, 0)
    assert done.complete
    assert not done.waiting
    assert events_of(fleet) == {
        ("pump", ""): numbered_lines(1, 84),
        ("fan", ""): numbered_lines(1, 33, 101),
    }
    check(fleet)
    again = merge(fleet, pump, shipped, fan)
    assert (again.added_count, again.known_count) == (0, 84 + 33 + 33)
    assert again.origins == done.origins


@pytest.mark.parametrize("rewrite", [False, True])
def test_plain_sql_finds_the_views_of_a_merged_journal(
    tmp_path: Path, fleet: Path, pump: Path, rewrite: bool
) -> None:
    late = pruned(pump, tmp_path / "late.db", 50)
    if rewrite:
        merge(fleet, late)
    assert merge(fleet, pump, rewrite=rewrite).rewritten == rewrite

    with closing(sqlite3.connect(fleet)) as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() > (0,)
        assert len(connection.execute("SELECT name FROM folded").fetchall()) == 2
    assert verify(fleet, full=True).unchecked == ()


def test_merging_again_writes_nothing(tmp_path: Path, fleet: Path, pump: Path, fan: Path) -> None:
    merge(fleet, tmp_path)
    before = fleet.read_bytes()

    merge(fleet, tmp_path)

    assert fleet.read_bytes() == before


def test_a_journal_goes_on_where_it_ended(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    early = ship(pump, tmp_path / "early.db")
    merge(fleet, early, fan)
    append(pump, 85, 130)

    done = merge(fleet, pump)

    assert (done.added_count, done.known_count, done.complete) == (46, 84, True)
    assert events_of(fleet)["pump", ""] == numbered_lines(1, 130)
    assert merge(fleet, early).added_count == 0
    check(fleet)


def test_nightly_deltas_are_joined(tmp_path: Path, fleet: Path, pump: Path) -> None:
    made = [ship(pump, tmp_path / "night0.db")]
    for night in range(1, 6):
        append(pump, 84 + 7 * night - 6, 84 + 7 * night)
        made.append(delta(pump, tmp_path / f"night{night}.db", 84 + 7 * night - 7))

    assert [merge(fleet, path).added_count for path in made] == [84, 7, 7, 7, 7, 7]
    assert events_of(fleet)["pump", ""] == numbered_lines(1, 119)
    check(fleet)
    other = tmp_path / "other.db"
    done = merge(other, reversed(made))
    assert (done.added_count, done.complete) == (119, True)
    assert events_of(other)["pump", ""] == numbered_lines(1, 119)
    check(other)


def test_sources_of_one_call_may_come_in_any_order(tmp_path: Path, pump: Path, fan: Path) -> None:
    early = ship(pump, tmp_path / "early.db")
    append(pump, 85, 130)
    late = pruned(pump, tmp_path / "late.db", 61)
    results = []
    for number, sources in enumerate(([early, late, fan], [fan, late, early], [late, fan, early])):
        fleet = tmp_path / f"fleet{number}.db"
        done = merge(fleet, sources)
        results.append((events_of(fleet), lines(fleet), shown(done), done.complete))
    assert results[0] == results[1] == results[2]
    assert results[0][0]["pump", ""] == numbered_lines(1, 130)
    assert results[0][3]


def test_the_merged_journal_can_append_itself(fleet: Path, pump: Path, fan: Path) -> None:
    append(fleet, 201, 205, "fleet")
    merge(fleet, pump)
    append(fleet, 206, 209)
    merge(fleet, fan)

    found = events_of(fleet)

    assert [text for _, text in found["fleet", ""]] == LINES[200:209]
    assert [text for _, text in found["pump", ""]] == LINES[:84]
    assert lines(fleet)[:5] == LINES[200:205]
    check(fleet)


def test_a_merged_journal_is_a_source_of_what_its_sources_had(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    append(fleet, 201, 205, "fleet")
    merge(fleet, pump)
    append(fleet, 206, 207)
    region = tmp_path / "region.db"

    done = merge(region, ship(fleet, tmp_path / "shipped.db"), fan)

    assert {it.label: it.event_count for it in done.origins} == {"pump": 84, "fan": 33, "fleet": 7}
    assert events_of(region)["fleet", ""] == [
        *numbered_lines(1, 5, 201),
        *numbered_lines(90, 91, 206),
    ]
    assert done.complete
    check(region)
    assert merge(region, pump).added_count == 0
    append(pump, 85, 90)
    assert merge(region, pump).added_count == 6
    assert merge(fleet, region).added_count == 33 + 6
    check(fleet)


def test_a_journal_that_goes_on_from_a_copy_is_two(tmp_path: Path, fleet: Path, pump: Path) -> None:
    new = tmp_path / "new.db"
    journal.continue_copy(ship(pump, tmp_path / "copy.db"), new, label="second disk")
    with Journal.open(new) as opened:
        opened.append_ndjson(LINES[84:100])

    done = merge(fleet, new)

    assert [(it.label, it.event_count) for it in done.origins] == [
        ("pump", 84),
        ("second disk", 16),
    ]
    assert done.complete
    assert merge(fleet, pump).added_count == 0
    check(fleet)
    other = tmp_path / "other.db"
    assert merge(other, pump).added_count == 84
    assert merge(other, new).added_count == 16
    append(pump, 85, 95)
    assert merge(new, pump).added_count == 11  # it is a merged journal from now on
    assert merge(other, new).added_count == 11
    check(new)
    check(other)


def test_a_session_of_two_journals_is_one(tmp_path: Path, fleet: Path) -> None:
    session = session_of(7)
    for name in ("a", "b"):
        with Journal.open(tmp_path / f"{name}.db", label=name) as opened:
            opened.append_events(numbered(session, range(3)))
            opened.append_events([activated(session_of(len(name) + ord(name)))])
    merge(fleet, tmp_path)
    with Journal.open(fleet) as opened:
        assert opened.version(session) == 6
        assert len(opened.get_events_for_session(session)) == 6
        (shared,) = opened.origins().shared_sessions
        assert shared.session_id == session
        assert len(shared.journal_ids) == 2
    check(fleet)


def test_keys_are_kept_by_origin_and_answer_nothing(tmp_path: Path, fleet: Path) -> None:
    for name in ("a", "b"):
        with Journal.open(tmp_path / f"{name}.db", label=name) as opened:
            for number in range(40):
                event = activated(session_of(number), number)
                opened.append_events([event], key=f"order {number}")
    merge(fleet, tmp_path)
    with Journal.open(fleet) as opened:
        kept = opened.connection().execute(
            "SELECT key, count(*), min(first_seq), max(last_seq) FROM origin_key GROUP BY 1"
        )
        assert set(kept) == {(f"order {it}", 2, it + 1, it + 1) for it in range(40)}
        appended = opened.append_events([activated(session_of(1))], key="order 1")
        assert appended.first == 81
    merge(tmp_path / "second.db", fleet)
    with Journal.open(tmp_path / "second.db") as opened:
        rows = opened.connection().execute("SELECT count(*) FROM origin_key")
        assert rows.fetchall() == [(81,)]


def test_events_of_unknown_kinds_come_as_they_are(tmp_path: Path, fleet: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(lines_of("next_version.ndjson"), unknown="keep", on_error="skip")
    merge(fleet, path)
    assert lines(fleet) == lines(path)
    check(fleet)


# What is missing


def test_what_was_pruned_is_not_waited_for(tmp_path: Path, fleet: Path, pump: Path) -> None:
    done = merge(fleet, pruned(pump, tmp_path / "late.db", 45))

    assert shown(done) == [("pump", False, 44, ((1, 40),), ())]
    assert done.complete
    check(fleet)


def test_what_a_delta_follows_is_waited_for(tmp_path: Path, fleet: Path, pump: Path) -> None:
    done = merge(fleet, delta(pump, tmp_path / "delta.db", 44))

    assert shown(done) == [("pump", False, 44, (), ((1, 40),))]
    assert not done.complete
    assert shown(merge(fleet, pruned(pump, tmp_path / "late.db", 45))) == [
        ("pump", False, 44, (), ((1, 40),))
    ]


def test_what_comes_too_late_waits_until_the_file_is_made_anew(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    with Journal.open(fleet, label="fleet") as opened:
        opened.append_events([activated(session_of(1))], key="own")
        old_id = opened.journal_id
    merge(fleet, fan, pruned(pump, tmp_path / "late.db", 45))
    append(fan, 134, 140)

    done = merge(fleet, pump, fan)

    assert (done.added_count, done.known_count, done.complete) == (7, 33 + 44, False)
    (waiting,) = done.waiting
    assert (waiting.path, waiting.label, waiting.positions) == (pump, "pump", ((1, 40),))
    before = lines(fleet)

    done = merge(fleet, pump, rewrite=True)

    assert (done.rewritten, done.added_count, done.known_count) == (True, 40, 44)
    assert done.complete
    found = events_of(fleet)
    assert found["pump", ""] == numbered_lines(1, 84)
    assert found["fan", ""] == numbered_lines(1, 40, 101)
    assert sorted(lines(fleet)) == sorted(before + LINES[:40])
    check(fleet)
    with Journal.open(fleet) as opened:
        assert opened.label == "fleet"
        assert opened.journal_id != old_id
        again = opened.append_events([activated(session_of(1))], key="own")
        (event,) = opened.read(after=(again.first or 0) - 1, limit=1)
        assert event.event == activated(session_of(1))
        assert opened.last_position == 1 + 84 + 40
    again_merged = merge(fleet, pump, fan, rewrite=True)
    assert (again_merged.rewritten, again_merged.added_count) == (False, 0)


def test_a_gap_is_filled_by_making_the_file_anew(tmp_path: Path, fleet: Path, pump: Path) -> None:
    early = ship(pump, tmp_path / "early.db")
    append(pump, 85, 200)
    middle = ship(pump, tmp_path / "middle.db")
    append(pump, 201, 260)
    late = delta(pump, tmp_path / "late.db", 155)

    done = merge(fleet, early, late)
    assert shown(done) == [("pump", False, 84 + 110, (), ((85, 150),))]
    assert not done.complete
    check(fleet)
    assert merge(fleet, middle).added_count == 0
    done = merge(fleet, middle, rewrite=True)
    assert shown(done) == [("pump", False, 260, (), ())]
    assert events_of(fleet)["pump", ""] == numbered_lines(1, 260)
    check(fleet)


def test_what_a_source_still_has_waits_though_it_is_called_absent(
    tmp_path: Path, fleet: Path, pump: Path
) -> None:
    merge(fleet, pruned(pump, tmp_path / "late.db", 45))

    done = merge(fleet, pump)

    assert [(it.path, it.positions) for it in done.waiting] == [(pump, ((1, 40),))]
    assert not done.complete
    assert shown(done) == [("pump", False, 44, ((1, 40),), ())]
    with Journal.open(fleet, read_only=True) as opened:
        assert opened.origins().complete
    asked = [run_here("origins", fleet).code, run_here("merge", fleet, pump).code]
    assert asked == [0, 3]


# A merged journal that is pruned


def test_what_is_pruned_from_a_merged_journal_stays_away(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    merge(fleet, pump)
    merge(fleet, fan)
    with Journal.open(fleet) as opened:
        opened.append_ndjson(LINES[200:220])
        assert opened.prune(before=41).event_count == 40
    check(fleet)

    again = merge(fleet, pump, fan)

    assert (again.added_count, again.known_count, again.complete) == (0, 117, True)
    assert shown(again)[:2] == [("pump", False, 44, ((1, 40),), ()), ("fan", False, 33, (), ())]
    assert [it.first_position for it in again.origins] == [41, 1, 118]
    assert run_here("origins", fleet).code == 0
    append(pump, 85, 99)
    assert merge(fleet, pump).added_count == 15
    check(fleet)
    with Journal.open(fleet) as opened:
        opened.prune(before=121)
    origins = merge(fleet, pump, fan).origins
    assert [(it.event_count, it.first_position, it.absent) for it in origins] == [
        (15, 85, ((1, 84),)),
        (0, None, ((1, 33),)),
        (17, 121, ((118, 120),)),
    ]
    check(fleet)
    further = tmp_path / "further.db"
    assert merge(further, fleet).complete  # a source that says so is believed
    assert shown(merge(further, pump))[0][3] == ((1, 84),)
    check(further)


def test_making_a_pruned_file_anew_brings_back_what_sources_have(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    """And subscriptions begin anew: their positions mean other events."""
    merge(fleet, pump)
    merge(fleet, pruned(fan, tmp_path / "late.db", 21))
    with Journal.open(fleet) as opened:
        opened.prune(before=41)
        with opened._database.write() as connection:
            connection.execute("INSERT INTO checkpoint VALUES ('reader', 'subscription', 1, 60, 1)")

    done = merge(fleet, pump, fan, rewrite=True)

    assert (done.rewritten, done.added_count, done.complete) == (True, 40 + 20, True)
    assert events_of(fleet) == {
        ("pump", ""): numbered_lines(1, 84),
        ("fan", ""): numbered_lines(1, 33, 101),
    }
    with Journal.open(fleet, read_only=True) as opened:
        sql = "SELECT * FROM checkpoint WHERE type = 'subscription'"
        assert opened.connection().execute(sql).fetchall() == []
    check(fleet)
    with Journal.open(fleet) as opened:
        opened.prune(before=41)
    assert merge(fleet, pump, fan, rewrite=True).rewritten is False
    assert len(lines(fleet)) == 117 - 40


def test_a_pruned_file_is_not_made_anew_without_what_was_pruned(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    """States and versions would be of what is left, and a journal without events not known."""
    session = session_of(7)
    own = tmp_path / "own.db"
    with Journal.open(own, label="own") as opened:
        opened.append_events(numbered(session, range(20)))
    merge(fleet, pump)
    merge(fleet, own)
    merge(fleet, pruned(fan, tmp_path / "late.db", 21))
    with Journal.open(fleet) as opened:
        assert opened.prune(before=91).event_count == 90
    before = fleet.read_bytes()

    with pytest.raises(PrunedFleetError, match="No source has, unredacted, positions ") as caught:
        merge(fleet, fan, rewrite=True)

    assert str(caught.value).endswith("1 to 84 of pump; 1 to 6 of own")
    with pytest.raises(PrunedFleetError, match=r"positions 1 to 6 of own$"):
        merge(fleet, fan, pump, rewrite=True)
    result = run_here("merge", fleet, fan, "--rewrite")
    assert (result.code, result.out) == (1, b"")
    assert "was pruned, and was not made anew" in result.err
    assert fleet.read_bytes() == before
    assert names_in(tmp_path) == ["fan.db", "fleet", "late.db", "own.db", "pump.db"]
    with Journal.open(fleet, read_only=True) as opened:
        assert opened.version(session) == 20
    done = merge(fleet, fan, own, pump, rewrite=True)
    assert (done.rewritten, done.complete, done.added_count) == (True, True, 90 + 20)
    check(fleet)


@pytest.mark.parametrize("_attempt", range(5))
def test_a_pruned_branch_is_not_taken_for_another_one(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path, _attempt: int
) -> None:
    """Both have events at the same positions, of different sessions.

    Which of them comes first, and so has the common part, is different each time.
    """
    other, session = tmp_path / "other.db", session_of(8)
    shutil.copy(pump, other)
    append(pump, 85, 94)
    with Journal.open(other) as opened:
        opened.append_events(numbered(session, range(10)))
    for source in (pump, other, pruned(fan, tmp_path / "late.db", 21)):
        merge(fleet, source)
    with Journal.open(fleet) as opened:
        opened.prune(before=105)
        assert opened.version(session) == 10

    with pytest.raises(PrunedFleetError, match=r"positions 85 to 94 of pump$"):
        merge(fleet, fan, pump, rewrite=True)

    with Journal.open(fleet, read_only=True) as opened:
        assert opened.version(session) == 10
    assert merge(fleet, fan, pump, other, rewrite=True).rewritten
    with Journal.open(fleet, read_only=True) as opened:
        assert opened.version(session) == 10
    check(fleet)


def test_redacted_events_are_not_those_that_were_pruned(tmp_path: Path, fleet: Path) -> None:
    """The text of an error is in the state that pruning keeps."""
    path = tmp_path / "a.db"
    failing(path, 33, "a")
    append(tmp_path / "fan.db", 1, 33, "fan")
    merge(fleet, path)
    merge(fleet, pruned(tmp_path / "fan.db", tmp_path / "late.db", 21))
    with Journal.open(fleet) as opened:
        opened.prune(before=21)
    shipped = redacted(path, tmp_path / "redacted.db")

    with pytest.raises(PrunedFleetError, match="unredacted, positions 1 to 20 of"):
        merge(fleet, tmp_path / "fan.db", shipped, rewrite=True)
    assert merge(fleet, tmp_path / "fan.db", path, rewrite=True).rewritten
    check(fleet)


# Two histories


@pytest.fixture
def parted(tmp_path: Path, pump: Path) -> Iterator[tuple[Path, Path]]:
    """Two copies of a journal that both went on."""
    other = copy(pump, tmp_path / "other.db")
    append(pump, 201, 230)
    append(other, 301, 345)
    return iter([pump, other])  # type: ignore[return-value]


@pytest.mark.parametrize("is_turned", [False, True])
def test_two_histories_are_both_kept(
    fleet: Path, parted: tuple[Path, Path], *, is_turned: bool
) -> None:
    one, other = reversed([*parted]) if is_turned else parted

    assert merge(fleet, one).complete
    done = merge(fleet, other)

    assert not done.complete
    first, second = done.origins
    assert (first.branch, first.parted_after) == ("", None)
    assert len(second.branch) == 64
    assert second.parted_after == 84
    assert len(lines(fleet)) == 84 + 30 + 45
    check(fleet)
    for _ in range(2):
        again = merge(fleet, one, other)
        assert (again.added_count, again.origins) == (0, done.origins)


def test_a_block_of_which_both_parts_were_pruned_is_no_damage(
    tmp_path: Path, fleet: Path, parted: tuple[Path, Path]
) -> None:
    """Of the second history, it begins in what it shares with the first."""
    merge(fleet, *parted)
    with Journal.open(fleet) as journal:
        journal.prune(before=84 + 30 + 20)
        first = next(iter(journal.read())).position
    assert first > 84 + 30
    check(fleet)
    assert merge(tmp_path / "again.db", fleet).added_count == 84 + 30 + 45 - first + 1


@pytest.mark.parametrize("before", [41, 85, 101, 121, 160])
def test_what_is_pruned_of_two_histories_stays_away(
    tmp_path: Path, fleet: Path, parted: tuple[Path, Path], before: int
) -> None:
    one, other = parted
    common = delta(one, tmp_path / "common.db", 0)
    early = tmp_path / "early.db"
    copy(other, early)
    merge(fleet, one)
    merge(fleet, other)
    with Journal.open(fleet) as opened:
        opened.prune(before=before)
        left = opened.event_count()

    for source in (one, other, common, early):
        done = merge(fleet, source)
        assert (done.added_count, done.waiting) == (0, ())
        assert [it.parted_after for it in done.origins] == [None, 84]

    assert len(lines(fleet)) == left
    append(other, 346, 360)
    append(one, 231, 240)
    assert merge(fleet, one, other).added_count == 15 + 10
    check(fleet)
    region = tmp_path / "region.db"
    assert len(merge(region, fleet).origins) == 2
    assert sorted(lines(region)) == sorted(lines(fleet))
    check(region)


def test_both_histories_go_on(tmp_path: Path, fleet: Path, parted: tuple[Path, Path]) -> None:
    one, other = parted
    merge(fleet, one)
    merge(fleet, other)
    append(one, 231, 250)
    append(other, 346, 360)

    done = merge(fleet, one, other)

    assert [it.event_count for it in done.origins] == [84 + 50, 60]
    found = events_of(fleet)
    name = done.origins[1].branch
    assert found["pump", ""] == [*numbered_lines(1, 84), *numbered_lines(85, 134, 201)]
    assert found["pump", name] == numbered_lines(85, 144, 301)
    check(fleet)
    second = tmp_path / "second.db"
    assert merge(second, fleet).origins == done.origins
    assert merge(second, one, other).added_count == 0
    assert merge(tmp_path / "third.db", other, fleet).origins[1].parted_after == 84
    check(second)
    check(tmp_path / "third.db")


def test_three_histories_are_kept_apart(
    tmp_path: Path, fleet: Path, parted: tuple[Path, Path]
) -> None:
    one, other = parted
    third = copy(other, tmp_path / "third.db")
    append(other, 346, 350)
    append(third, 401, 407)
    merge(fleet, one)
    merge(fleet, other)

    done = merge(fleet, third)

    assert [(it.event_count, it.parted_after) for it in done.origins] == [
        (114, None),
        (50, 84),
        (7, 129),
    ]
    check(fleet)
    assert merge(fleet, one, other, third).added_count == 0


def test_a_shorter_history_that_differs_is_another(
    tmp_path: Path, fleet: Path, parted: tuple[Path, Path]
) -> None:
    one, other = parted
    append(one, 231, 299)
    merge(fleet, one)
    assert not merge(fleet, other).complete
    check(fleet)


def test_what_follows_a_cut_goes_on_only_with_what_was_before_it(
    tmp_path: Path, fleet: Path, parted: tuple[Path, Path]
) -> None:
    one, other = parted
    merge(fleet, one)
    cut = pruned(other, tmp_path / "cut.db", 112)

    done = merge(fleet, cut)

    assert [(it.event_count, bool(it.branch)) for it in done.origins] == [(114, False), (19, True)]
    assert merge(fleet, cut).added_count == 0
    check(fleet)


def test_what_is_missing_of_one_history_waits_where_the_other_has_those_positions(
    tmp_path: Path, fleet: Path, parted: tuple[Path, Path]
) -> None:
    one, other = parted
    merge(fleet, one)
    merge(fleet, other)
    append(other, 346, 375)
    late = delta(other, tmp_path / "late.db", 155)
    append(one, 231, 299)
    merge(fleet, one, late)

    done = merge(fleet, other)

    assert [it.positions for it in done.waiting] == [((130, 150),)]
    done = merge(fleet, one, other, rewrite=True)
    assert not done.waiting
    assert len(lines(fleet)) == 84 + 30 + 69 + 45 + 30
    check(fleet)


# What the sources can be checked by


@pytest.fixture
def merged(fleet: Path, parted: tuple[Path, Path], fan: Path) -> Path:
    one, other = parted
    merge(fleet, one)
    merge(fleet, fan)
    append(one, 231, 240)
    merge(fleet, one)
    merge(fleet, other)
    append(fleet, 401, 405)
    return fleet


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE origin_block SET salt = upper(hex(zeroblob(16)))", "origin_block"),
        ("UPDATE origin_block SET content_digest = digest WHERE first_seq = 11", "origin_block"),
        ("UPDATE origin_block SET digest = content_digest WHERE first_seq = 21", "origin_block"),
        ("UPDATE origin_block SET last_seq = 12 WHERE first_seq = 11", "origin_block"),
        ("UPDATE origin_absent SET digest_after = upper(digest_after)", "origin_block"),
        ("UPDATE origin SET source_first_seq = source_first_seq + 1 WHERE first_seq > 1", "origin"),
    ],
)  # fmt: skip
def test_changes_to_what_sources_said_are_found(merged: Path, change: str, where: str) -> None:
    check(merged)
    connection = apsw.Connection(str(merged))
    connection.execute(change)
    connection.close()

    found = verify(merged, full=True)

    assert where in {it.where for it in found.findings}


def test_events_that_sources_never_had_are_found(merged: Path) -> None:
    """Whoever writes all of the file's own blocks anew cannot write the sources'."""
    connection = apsw.Connection(str(merged))
    connection.execute("DROP TRIGGER event_is_never_updated")
    connection.execute("UPDATE event SET timestamp = timestamp + 1 WHERE seq = 5")
    connection.close()
    found = verify(merged, full=True)
    assert ("origin-block", 1) in {(it.code, it.position) for it in found.findings}


# Redacted texts


BLANK = {"stream_failed.error": "blank"}


def failing(path: Path, count: int, label: str) -> None:
    with Journal.open(path, label=label) as opened:
        for number in range(opened.last_position, opened.last_position + count):
            event = journal.StreamFailed(
                session_id=session_of(1),
                stream_id=journal.StreamId.from_bytes(number.to_bytes(16)),
                error=f"secret {number}",
                timestamp=activated(session_of(1), number).timestamp,
            )
            opened.append_events([event], key=f"key {number}")


def redacted(path: Path, to: Path) -> Path:
    with Journal.open(path, read_only=True) as opened:
        return opened.ship(to, redact=BLANK).path


def test_what_is_the_same_but_for_redacted_texts_is_there_once(tmp_path: Path, fleet: Path) -> None:
    """In a block that is redacted, no digest tells up to where a history is another one."""
    one, other = tmp_path / "a.db", tmp_path / "b.db"
    failing(one, 4, "a")
    copy(one, other)
    failing(other, 5, "b")
    append(one, 201, 202)
    done = merge(fleet, one, redacted(other, tmp_path / "redacted.db"))
    assert [(it.event_count, it.parted_after) for it in done.origins] == [(6, None), (5, 4)]
    assert lines(fleet)[:6] == lines(one)
    check(fleet)
    done = merge(fleet, other, rewrite=True)
    assert (done.rewritten, done.added_count) == (True, 0)
    assert lines(fleet) == [*lines(one), *lines(other)[4:]]
    check(fleet)


@pytest.mark.parametrize("order", [*permutations(["a", "b", "a.redacted", "b.redacted"])])
def test_two_histories_and_redacted_shipments_of_them_are_two(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    append(one, 1, 4)
    failing(one, 1, "a")
    copy(one, other)
    append(one, 201, 230)
    append(other, 301, 304)
    for path in (one, other):
        redacted(path, tmp_path / f"{path.name}.redacted")
    sources = [tmp_path / name for name in order]
    for number, counts in enumerate(((4,), (1, 3), (2, 2), (1, 1, 2), (1, 1, 1, 1))):
        fleet, left = tmp_path / f"fleet{number}", sources
        for count in counts:
            done = merge(fleet, left[:count])
            left = left[count:]
        assert len(lines(fleet)) == 5 + 30 + 4
        assert len(done.origins) == 2
        done = merge(fleet, sources, rewrite=True)
        assert sorted(lines(fleet)) == sorted(lines(one) + lines(other)[5:])
        assert not done.waiting
        again = merge(fleet, sources, rewrite=True)
        assert (again.rewritten, again.origins) == (False, done.origins)
    check(fleet)


@pytest.mark.parametrize("is_turned", [False, True])
def test_an_original_wins_over_what_was_redacted(
    tmp_path: Path, fleet: Path, *, is_turned: bool
) -> None:
    failing(tmp_path / "a.db", 33, "a")
    sources = [tmp_path / "a.db", redacted(tmp_path / "a.db", tmp_path / "redacted.db")]
    done = merge(fleet, reversed(sources) if is_turned else sources)
    assert (done.added_count, done.complete, len(done.origins)) == (33, True, 1)
    assert lines(fleet) == lines(tmp_path / "a.db")
    check(fleet)


def test_what_was_redacted_first_is_made_anew_with_the_original(
    tmp_path: Path, fleet: Path
) -> None:
    failing(tmp_path / "a.db", 33, "a")
    merge(fleet, redacted(tmp_path / "a.db", tmp_path / "redacted.db"))
    check(fleet)
    assert "secret" not in "".join(lines(fleet))
    done = merge(fleet, tmp_path / "a.db")
    (waiting,) = done.waiting
    assert (waiting.reason, done.added_count) == ("they are redacted there", 0)
    assert waiting.positions == ((1, 10), (11, 20), (21, 30), (31, 33))

    done = merge(fleet, tmp_path / "a.db", rewrite=True)

    assert (done.rewritten, done.complete) == (True, True)
    assert lines(fleet) == lines(tmp_path / "a.db")
    check(fleet)


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_block_that_is_half_redacted_says_so(
    tmp_path: Path, fleet: Path, *, is_turned: bool
) -> None:
    path = tmp_path / "a.db"
    failing(path, 33, "a")
    first = (redacted if is_turned else ship)(path, tmp_path / "first.db")
    failing(path, 10, "a")
    second = (ship if is_turned else redacted)(path, tmp_path / "second.db")
    assert merge(fleet, first).complete
    done = merge(fleet, second)
    assert (done.added_count, len(done.origins)) == (10, 1)
    check(fleet)
    merge(fleet, path, rewrite=True)
    assert lines(fleet) == lines(path)
    check(fleet)


def test_a_merged_journal_can_be_shipped_with_texts_redacted(tmp_path: Path, fleet: Path) -> None:
    failing(tmp_path / "a.db", 33, "a")
    append(tmp_path / "b.db", 1, 30, "b")
    merge(fleet, tmp_path)
    shipped = redacted(fleet, tmp_path / "shipped")
    found = verify(shipped, full=True)
    assert found.sound, found.findings
    assert b"secret 2" not in shipped.read_bytes()
    connection = apsw.Connection(str(shipped))
    assert connection.execute("SELECT count(*) FROM origin_key").fetchall() == [(0,)]
    salted = connection.execute("SELECT count(*) FROM origin_block WHERE salt IS NOT NULL")
    assert 1 <= salted.fetchall()[0][0] <= 3  # of what b appended
    connection.close()
    done = merge(tmp_path / "region.db", shipped, tmp_path / "a.db")
    assert done.complete
    assert events_of(tmp_path / "region.db")["a", ""] == events_of(fleet)["a", ""]
    check(tmp_path / "region.db")


def test_what_is_recovered_of_a_merged_journal_is_a_source(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    merge(fleet, pump, fan)
    journal.recover(fleet, tmp_path / "recovered.db")
    assert verify(tmp_path / "recovered.db", full=True).sound
    region = tmp_path / "region.db"

    merge(region, tmp_path / "recovered.db")

    assert events_of(region) == events_of(fleet)
    check(region)
    assert merge(region, pump, fan).added_count == 0


def test_what_goes_on_from_a_merged_journal_is_a_source(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    append(fleet, 201, 205, "fleet")
    merge(fleet, pump)
    append(fleet, 206, 207)
    merge(fleet, fan)
    new = tmp_path / "new.db"
    journal.continue_copy(ship(fleet, tmp_path / "copy.db"), new, label="new")
    append(new, 301, 304)
    check(new)
    region = tmp_path / "region.db"

    done = merge(region, new)

    counts = {it.label: it.event_count for it in done.origins}
    assert counts == {"fleet": 7, "pump": 84, "fan": 33, "new": 4}
    assert done.complete
    check(region)
    assert merge(region, pump, fan, fleet).added_count == 0


def test_deltas_of_merged_journals_are_sources_too(
    tmp_path: Path, fleet: Path, pump: Path, fan: Path
) -> None:
    merge(fleet, pump)
    region = tmp_path / "region.db"
    merge(region, ship(fleet, tmp_path / "all.db"))
    merge(fleet, fan)
    append(pump, 85, 95)
    merge(fleet, pump)

    done = merge(region, delta(fleet, tmp_path / "delta.db", 84))

    assert (done.added_count, done.complete) == (33 + 11, True)
    assert events_of(region) == events_of(fleet)
    check(region)
