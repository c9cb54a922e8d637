"""Shipping only what is new: what a delta holds, what it says lies before, and what it refuses."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from commands_support import run_here
from support import check_file, lines_of, names_in
from verify_support import COUNTING

import journal
from journal import Journal, OtherHistoryError
from journal.maintenance import Shipment

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

LINES = lines_of("mixed/events.ndjson")
COUNT = 380  # in blocks of fifty

Ship = Callable[..., Shipment]


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A journal with keys, an own projection and an open block at the end."""
    path = tmp_path / "live" / "app.db"
    path.parent.mkdir()
    with Journal.open(path, label="pump 7") as opened:
        opened.register(COUNTING)
        opened.append_ndjson(LINES[:COUNT])
        opened.states("count")
    return path


@pytest.fixture
def ship(live: Path, tmp_path: Path) -> Ship:
    (tmp_path / "out").mkdir()

    def shipped(name: str, source: Path = live, **options: Any) -> Shipment:
        with Journal.open(source, read_only=True) as opened:
            return opened.ship(tmp_path / "out" / name, **options)

    return shipped


def check_sound(path: Path) -> None:
    found = journal.verify(path, full=True)
    assert found.sound, found.findings
    assert found.proven_count + found.redacted_count == found.event_count


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as file:
        return file.execute(sql).fetchall()


def add(path: Path, count: int, begin: int = COUNT) -> None:
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[begin : begin + count])


# What it holds


@pytest.mark.parametrize(
    ("after", "first"), [(0, 1), (1, 1), (50, 1), (51, 51), (149, 101), (150, 101), (380, 351)]
)
def test_it_begins_with_the_block_that_has_the_position(
    live: Path, ship: Ship, after: int, first: int
) -> None:
    shipment = ship("d.db", after=after)

    check_sound(shipment.path)
    check_file(live, closed=True)
    assert (shipment.first_position, shipment.last_position) == (first, COUNT)
    assert shipment.event_count == COUNT - first + 1
    absent = [(it.first_position, it.last_position, it.reason) for it in shipment.absent]
    assert absent == ([(1, first - 1, "before delta")] if first > 1 else [])
    with Journal.open(live) as whole, Journal.open(shipment.path, read_only=True) as delta:
        assert list(delta.read()) == list(whole.read(after=first - 1))
        assert delta.info().closed_by == "delta"
        assert shipment.head == whole.info().head == delta.info().head
        for session in delta.sessions():
            version = whole.version(session.session_id)
            assert delta.version(session.session_id) == version
            events = whole.get_events_for_session(session.session_id)
            here = delta.get_events_for_session(session.session_id)
            assert events[len(events) - len(here) :] == here
            assert session.event_count == len(here)


def test_what_lies_before_is_what_the_journal_has_there(live: Path, ship: Ship) -> None:
    shipment = ship("d.db", after=210, manifest=True)
    (said,) = shipment.absent
    with Journal.open(live) as whole:
        times = [event.timestamp for _, event in whole.read(limit=200)]
    sql = "SELECT last_seq, digest, content_digest FROM block"

    assert said.last_timestamp == max(times)
    assert dict(rows(shipment.path, "SELECT key, value FROM manifest"))["digest_before"] == (
        shipment.digest_before
    )
    assert json.loads(shipment.manifest_path.read_text())["digest_before"] == shipment.digest_before
    digests = {last: digest for last, digest, _ in rows(live, sql)}
    assert shipment.digest_before == digests[200]
    assert rows(shipment.path, sql) == [row for row in rows(live, sql) if row[0] > 200]
    assert rows(shipment.path, "SELECT name, since FROM folded") == [
        ("sessions", 201),
        ("streams", 201),
    ]


def test_it_answers_in_plain_sql_and_in_the_commands(live: Path, ship: Ship) -> None:
    shipment = ship("d.db", after=300)

    positions = rows(shipment.path, "SELECT position FROM events ORDER BY position")
    assert positions == [(it,) for it in range(251, COUNT + 1)]
    sql = "SELECT sum(event_count) FROM sessions"
    assert rows(shipment.path, sql) == [(COUNT - 250,)]
    assert run_here("verify", shipment.path, "--full", "--head", shipment.head).code == 0
    expected = run_here("events", live, "--after", 250).out
    assert run_here("events", shipment.path).out == expected
    assert names_in(shipment.path.parent) == ["d.db"]


def test_an_open_block_is_as_a_whole_in_what_follows(live: Path, ship: Ship) -> None:
    before = ship("a.db")
    add(live, 40)
    shipment = ship("b.db", after=before.path)

    check_sound(shipment.path)
    assert (shipment.first_position, shipment.last_position) == (351, COUNT + 40)
    with Journal.open(shipment.path, read_only=True) as delta:
        assert journal.verify(shipment.path, head=before.head).sound
        assert delta.last_position == COUNT + 40


def test_the_command_says_what_it_follows(live: Path, ship: Ship, tmp_path: Path) -> None:
    before = ship("a.db")
    add(live, 40)
    dest = tmp_path / "out" / "b.db"
    shown = run_here("ship", live, dest, "--after", before.path, "--manifest").out.decode()
    with Journal.open(live, read_only=True) as opened:
        head = opened.info().head

    assert "Events      70 events, positions 351 to 420 (and 350 absent)\n" in shown
    manifest = json.loads((tmp_path / "out" / "b.db.manifest.json").read_text())
    assert f"Follows     350:{manifest['digest_before']}\nHead        {head}\n" in shown
    said = json.loads(run_here("ship", live, dest, "--after", "399", "--force", "--json").out)
    assert (said["first_position"], said["digest_before"]) == (351, manifest["digest_before"])
    names = names_in(tmp_path / "out")
    for after, code, words in (
        ("421", 1, "ends at position 420, and 421 is later"),
        ("-3", 2, "a position of 0 or more, or a file, found -3"),
        ("7" * 5_000, 2, "is not a position"),
        ("none", 1, "none: does not exist"),
        (live, 2, "is not a shipped file"),
        ("", 2, "expected the name of a file"),
    ):
        result = run_here("ship", live, tmp_path / "out" / "c.db", "--after", after)
        assert (result.code, result.out, result.err.count(words)) == (code, b"", 1), result.err
        assert len(result.err) < 700  # however long the text is
    assert names_in(tmp_path / "out") == names


def test_its_progress_counts_what_is_in_it(live: Path, ship: Ship) -> None:
    seen: list[tuple[int, int]] = []
    ship("d.db", after=210, progress=lambda done, total: seen.append((done, total)))

    assert {total for _, total in seen} == {180}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (180, 180)


# After a file


@pytest.mark.parametrize("what", ["file", "manifest", "delta", "redacted", "recovered"])
def test_it_follows_what_was_shipped_before(live: Path, ship: Ship, what: str) -> None:
    options: dict[str, Any] = {
        "delta": {"after": 120},
        "redacted": {"redact": {"stream_failed.error": "blank"}},
    }.get(what, {})
    before = ship("a.db", manifest=True, **options)
    if what == "recovered":
        journal.recover(live, out=before.path, force=True)
    add(live, 120)
    shipment = ship("b.db", after=before.manifest_path if what == "manifest" else before.path)

    check_sound(shipment.path)
    assert shipment.first_position == 351
    assert journal.verify(shipment.path, head=before.head).sound


def test_it_follows_what_was_shipped_of_a_journal_without_events(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "a.db") as opened:
        before = opened.ship(tmp_path / "b.db", manifest=True)
        opened.append_ndjson(LINES[:70])
        for file in (before.path, before.manifest_path):
            shipment = opened.ship(tmp_path / "c.db", after=file, force=True)
            assert (shipment.first_position, shipment.last_position) == (1, 70)


def test_what_it_cannot_follow_is_said_in_one_sentence(
    live: Path, ship: Ship, tmp_path: Path
) -> None:
    before = ship("a.db", manifest=True)
    add(live, 120)
    other = tmp_path / "other.db"
    with Journal.open(other) as opened:
        opened.append_ndjson(LINES[:600])
    of_another = ship("o.db", other)
    later = ship("l.db", manifest=True)
    branch = tmp_path / "branch.db"
    with closing(apsw.Connection(str(live))) as file:
        file.execute("VACUUM INTO ?", (str(branch),))
    add(branch, 10, begin=0)
    add(live, 10, begin=100)
    of_branch = ship("br.db", branch, manifest=True)
    text = tmp_path / "text.json"
    text.write_text('{"head": null, "last_position": 7}')
    before_names = names_in(tmp_path / "out")

    for source, after, kind, words in (
        (live, of_another.path, OtherHistoryError, "o.db is of another journal"),
        (live, of_branch.path, OtherHistoryError, "another branch: it has another digest at po"),
        (live, of_branch.manifest_path, OtherHistoryError, "another branch"),
        (live, COUNT + 131, OtherHistoryError, "ends at position 510, and 511 is later"),
        (live, -1, ValueError, "a position of 0 or more, or a file, found -1"),
        (live, True, ValueError, "found True"),
        (live, 1.5, ValueError, "found 1.5"),
        (live, text, ValueError, "is neither a shipped file nor the manifest of one"),
        (live, live, ValueError, "is not a shipped file"),
        (live, tmp_path / "none", journal.JournalNotFoundError, "does not exist"),
        (live, tmp_path, journal.PathIsDirectoryError, "is a directory"),
    ):
        with pytest.raises(kind, match=words) as caught:
            ship("x.db", source, after=after)
        assert "\n" not in str(caught.value)
    shorter = tmp_path / "shorter.db"
    with Journal.open(shorter) as opened:
        opened.append_ndjson(LINES[:7])
    said = json.loads(later.manifest_path.read_text())
    said["journal_id"] = dict(rows(shorter, "SELECT key, value FROM meta"))["journal_id"]
    text.write_text(json.dumps(said))
    with pytest.raises(OtherHistoryError, match=r"at 500: it is later than the end"):
        ship("x.db", shorter, after=text)
    assert names_in(tmp_path / "out") == before_names
    assert before.last_position == COUNT


def test_it_takes_no_place_of_what_it_follows(live: Path, ship: Ship) -> None:
    before = ship("a.db", manifest=True)
    add(live, 20)
    for name, after in (("a.db", before.path), ("a.db", before.manifest_path)):
        with pytest.raises(journal.WrongTargetError):
            ship(name, after=after, force=True, manifest=True)
    with pytest.raises(journal.WrongTargetError):
        ship("b", after=before.manifest_path.rename(before.path.parent / "b"), force=True)
    assert journal.verify(before.path, full=True).sound
