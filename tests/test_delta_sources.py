"""Deltas of journals that are not simple: pruned, recovered, continued, redacted, with keys."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from commands_support import run_here
from support import lines_of, names_in
from test_absent import declare_absent

import journal
from journal import Journal, OtherHistoryError, continue_copy, parse_event, recover
from journal.maintenance import Shipment, delta

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

LINES = lines_of("mixed/events.ndjson")
COUNT = 400  # in blocks of fifty
ERROR = {"stream_failed.error": "blank"}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[: COUNT - 20])
        opened.append_ndjson(LINES[COUNT - 20 : COUNT])
    return path


def ship(path: Path, dest: Path, **options: Any) -> Shipment:
    """Ship, and make sure that the copy is sound and has the events of the journal."""
    with Journal.open(path, read_only=True) as opened:
        shipment = opened.ship(dest, **options)
        found = journal.verify(dest, full=True)
        assert found.sound, found.findings
        if "redact" not in options:
            with Journal.open(dest, read_only=True) as copy:
                first = shipment.first_position or copy.last_position + 1
                assert list(copy.lines()) == list(opened.lines(after=first - 1))
    return shipment


def rows(path: Path, sql: str) -> list[Any]:
    with closing(apsw.Connection(str(path))) as file:
        return file.execute(sql).fetchall()


def absent_of(shipment: Shipment) -> list[tuple[int, int, str]]:
    return [(it.first_position, it.last_position, it.reason) for it in shipment.absent]


# Pruned


@pytest.mark.parametrize(
    ("after", "first", "absent", "standalone"),
    [
        (0, 101, [(1, 100, "pruned")], False),
        (60, 101, [(1, 100, "pruned")], True),
        (100, 101, [(1, 100, "pruned")], False),
        (220, 201, [(1, 100, "pruned"), (101, 200, "before delta")], False),
        (220, 201, [(1, 100, "pruned"), (101, 200, "before delta")], True),
    ],
)
def test_of_a_pruned_journal(
    live: Path, tmp_path: Path, after: int, first: int, absent: list[Any], *, standalone: bool
) -> None:
    with Journal.open(live) as opened:
        opened.prune(before=101)

    shipment = ship(live, tmp_path / "d.db", after=after, standalone=standalone)

    assert shipment.first_position == first
    assert absent_of(shipment) == absent
    digests = dict(rows(tmp_path / "d.db", "SELECT last_seq, digest_after FROM absent"))
    assert digests[first - 1] == shipment.digest_before
    assert dict(rows(tmp_path / "d.db", "SELECT name, since FROM checkpoint")) == dict.fromkeys(
        ("sessions", "streams"), 1 if standalone else first
    )


def test_of_a_journal_of_which_nothing_is_left(live: Path, tmp_path: Path) -> None:
    """It has no event, and says where it ends: the next one follows it."""
    with Journal.open(live) as opened:
        opened.prune(before=COUNT + 1)
    empty = ship(live, tmp_path / "d.db", after=COUNT, manifest=True)
    with Journal.open(live) as opened:
        opened.append_ndjson(LINES[:30])

    assert (empty.first_position, empty.last_position, empty.event_count) == (None, COUNT, 0)
    for file in (empty.path, empty.manifest_path):
        after = ship(live, tmp_path / "e.db", after=file, force=True)
        assert (after.first_position, after.digest_before) == (COUNT + 1, (empty.head or "")[4:])
    assert run_here("ship", live, tmp_path / "f", "--after", empty.path, "--json").code == 0


def test_what_was_shipped_before_is_pruned_by_now(live: Path, tmp_path: Path) -> None:
    shipped = [ship(live, tmp_path / "a.db")]
    with Journal.open(live) as opened:
        opened.append_ndjson(LINES[:140])
        opened.prune(before=451)

    with pytest.raises(OtherHistoryError, match=r"position 400 is made of is gone \(after=400"):
        ship(live, tmp_path / "b.db", after=shipped[0].path)
    assert ship(live, tmp_path / "b.db", after=400).first_position == 451


def test_night_after_night_what_was_shipped_is_pruned(live: Path, tmp_path: Path) -> None:
    """Each delta is pruned by its manifest or its file, and the next one follows it."""
    (tmp_path / "out").mkdir()
    before = ship(live, tmp_path / "out" / "0.db", manifest=True)
    for night in range(1, 4):
        with Journal.open(live) as opened:
            opened.append_ndjson(LINES[night * 60 : night * 60 + 75])
            options = {"shipped": before.manifest_path} if night % 2 else {"file": before.path}
            opened.prune(**options)
            first = opened.info().first_position
        dest = tmp_path / "out" / f"{night}.db"
        shipment = ship(live, dest, after=before.path, manifest=True)
        assert shipment.first_position == first == (before.last_position or 0) // 50 * 50 + 1
        before = shipment
    merged: dict[int, str] = {}
    for night in range(4):
        with Journal.open(tmp_path / "out" / f"{night}.db", read_only=True) as copy:
            merged |= {it.position: str(it.event) for it in copy.read()}
    assert sorted(merged) == list(range(1, COUNT + 226))


def test_a_delta_that_leaves_a_gap_prunes_nothing(live: Path, tmp_path: Path) -> None:
    shipment = ship(live, tmp_path / "d.db", after=220, manifest=True)
    for option, file in (("--shipped", shipment.manifest_path), ("--file", shipment.path)):
        result = run_here("prune", live, option, file)
        assert result.code == 1
        assert f"{file.name} begins at position 201, and the journal has events from 1" in (
            result.err
        )
    with Journal.open(live) as opened:
        assert opened.info().first_position == 1
        opened.prune(before=101)
        opened.prune(before=201)
        assert opened.prune(shipped=shipment.manifest_path).event_count == 200


@pytest.mark.parametrize("said", ["redacted", "garbled", "untouched"])
def test_a_manifest_of_a_redacted_delta_prunes_nothing(
    live: Path, tmp_path: Path, said: str
) -> None:
    """It goes by what the manifest says was redacted in fact."""
    redact = ERROR if said == "redacted" else {"unknown": "blank"} if said == "untouched" else None
    shipment = ship(live, tmp_path / "d.db", after=0, manifest=True, redact=redact)
    manifest = json.loads(shipment.manifest_path.read_text())
    if said == "redacted":
        assert manifest["redacted"].keys() == {"texts", "ranges"}
        assert manifest["redacted"]["ranges"]
    elif said == "garbled":
        manifest["redacted"] = {"texts": 7}
    shipment.manifest_path.write_text(json.dumps(manifest))

    result = run_here("prune", live, "--shipped", shipment.manifest_path)

    if said == "untouched":
        assert result.code == 0
    else:
        assert (result.code, result.err.count("something is redacted in what was")) == (1, 1)
        with Journal.open(live) as opened:
            assert opened.info().first_position == 1


# Redacted on the way


@pytest.mark.parametrize("standalone", [False, True])
def test_redacted_on_the_way(live: Path, tmp_path: Path, *, standalone: bool) -> None:
    texts = {event.error for it in LINES[:COUNT] if hasattr(event := parse_event(it), "error")}
    options: dict[str, Any] = {"after": 220, "standalone": standalone}
    plain = ship(live, tmp_path / "plain.db", **options)
    (tmp_path / "out").mkdir()
    shipment = ship(live, tmp_path / "out" / "d.db", redact=ERROR, **options)

    assert texts
    assert (shipment.head, shipment.digest_before) == (plain.head, plain.digest_before)
    assert shipment.redacted is not None
    assert {it.first_position for it in shipment.redacted.ranges} >= {201}
    assert names_in(tmp_path / "out") == ["d.db"]
    content = shipment.path.read_bytes()
    texts.discard("timeout")  # the names of fields have that
    assert [text for text in texts if text.encode() in content] == []
    with Journal.open(shipment.path, read_only=True) as copy:
        assert copy.info().closed_by == "delta"
    if standalone:  # what a base has of such texts cannot be told from the rest
        assert rows(shipment.path, "SELECT count(*) FROM base") == [(0,)]


def test_of_a_redacted_copy(live: Path, tmp_path: Path) -> None:
    copy = ship(live, tmp_path / "c.db", redact=ERROR)

    shipment = ship(copy.path, tmp_path / "d.db", after=220)

    assert shipment.head == copy.head
    assert shipment.redacted is not None
    assert all(it.first_position > 200 for it in shipment.redacted.ranges)
    with Journal.open(tmp_path / "d.db", read_only=True) as opened:
        assert opened.info().closed_by == "delta"


# Copies, and what goes on from them


def test_of_a_shipped_copy_and_of_a_delta(live: Path, tmp_path: Path) -> None:
    copy = ship(live, tmp_path / "c.db")
    first = ship(copy.path, tmp_path / "d.db", after=120)
    second = ship(first.path, tmp_path / "e.db", after=330)

    assert second.head == copy.head
    assert absent_of(second) == [(1, 300, "before delta")]
    whole = ship(live, tmp_path / "f.db", after=330)
    sql = "SELECT first_seq, last_seq, max_timestamp, digest_before, digest_after FROM absent"
    assert rows(second.path, sql) == rows(whole.path, sql)


def test_of_a_journal_that_goes_on_from_a_copy(live: Path, tmp_path: Path) -> None:
    copy = ship(live, tmp_path / "c.db")
    new = continue_copy(copy.path, tmp_path / "new.db")
    with Journal.open(new.path) as opened:
        opened.append_ndjson(LINES[:120])

    shipment = ship(new.path, tmp_path / "d.db", after=470)

    assert rows(shipment.path, "SELECT * FROM origin") == rows(new.path, "SELECT * FROM origin")
    assert shipment.journal_id == new.journal_id
    with pytest.raises(OtherHistoryError, match="of another journal"):
        ship(new.path, tmp_path / "e.db", after=copy.path)


@pytest.mark.parametrize("standalone", [False, True])
def test_a_journal_goes_on_from_a_delta_and_is_pruned(
    live: Path, tmp_path: Path, *, standalone: bool
) -> None:
    first = ship(live, tmp_path / "c.db", after=220, standalone=standalone)
    new = continue_copy(first.path, tmp_path / "new.db").path
    with Journal.open(live) as opened:
        versions = {it.session_id: opened.version(it.session_id) for it in opened.sessions()}
    with Journal.open(new) as opened:
        for session in opened.sessions():
            assert opened.version(session.session_id) == versions[session.session_id]
        opened.append_ndjson(LINES[:120])
        opened.sessions()
        opened.prune(before=301)

    found = journal.verify(new, full=True)

    assert found.sound, found.findings
    assert bool(found.unchecked) is not standalone
    last = ship(new, tmp_path / "d.db", after=450)
    expected = [(1, 200, "before delta"), (201, 300, "pruned"), (301, 400, "before delta")]
    assert absent_of(last) == expected
    with Journal.open(new) as opened:
        opened.rebuild()
    assert journal.verify(new, full=True).sound


# What was lost


@pytest.mark.parametrize(
    ("lost", "after", "absent"),
    [
        ((61, 70), 220, [(1, 60, "before delta"), (61, 70, "lost"), (71, 200, "before delta")]),
        ((191, 210), 220, [(1, 190, "before delta"), (191, 210, "lost")]),
        ((191, 210), 205, [(1, 190, "before delta"), (191, 210, "lost")]),
        ((241, 260), 220, [(1, 200, "before delta"), (241, 260, "lost")]),
    ],
)
def test_of_a_recovered_copy(
    live: Path,
    tmp_path: Path,
    lost: tuple[int, int],
    after: int,
    absent: list[Any],
) -> None:
    with closing(apsw.Connection(str(live))) as file:
        file.execute("BEGIN")
        declare_absent(file, *lost, "lost")
        file.execute("COMMIT")
    found = recover(live, out=tmp_path / "r.db")

    shipment = ship(found.path, tmp_path / "d.db", after=after, standalone=after == 220)

    assert absent_of(shipment) == absent
    assert shipment.digest_before is not None or lost == (191, 210)
    with Journal.open(tmp_path / "d.db", read_only=True) as opened:
        assert opened.info().closed_by == "recover"


def test_where_no_block_is_left(live: Path, tmp_path: Path) -> None:
    with closing(apsw.Connection(str(live))) as file:
        file.execute("DELETE FROM block WHERE first_seq = 201")
    found = recover(live, out=tmp_path / "r.db")

    shipment = ship(found.path, tmp_path / "d.db", after=220)

    assert (shipment.first_position, shipment.digest_before) == (220, None)


def test_a_delta_is_recovered_as_one(live: Path, tmp_path: Path) -> None:
    shipment = ship(live, tmp_path / "d.db", after=220)
    found = recover(shipment.path, out=tmp_path / "r.db")

    assert journal.verify(found.path, full=True).sound
    with Journal.open(found.path, read_only=True) as one:
        with Journal.open(shipment.path, read_only=True) as other:
            assert list(one.lines()) == list(other.lines())
            assert one.sessions() == other.sessions()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE event SET timestamp = 7 WHERE seq = 220", "the events from position 201 to 250"),
        ("DELETE FROM event WHERE seq = 220", "the event at position 220 is missing"),
        ("DELETE FROM block WHERE first_seq = 251", "no block covers the events from position 251"),
        ("UPDATE block SET digest = hex(zeroblob(32)) WHERE last_seq = 200", "does not follow"),
        ("UPDATE session SET event_count = 999 WHERE last_seq = 400", "of a session is not so"),
        ("UPDATE stream SET last_seq = 399 WHERE last_seq = 400", "of a stream is not so"),
        ("DELETE FROM session WHERE last_seq = 400", "names session"),
    ],
)
def test_a_damaged_journal_gives_no_delta(live: Path, tmp_path: Path, sql: str, words: str) -> None:
    """Where the damage is in what would be in it; what lies before is not looked at."""
    (tmp_path / "out").mkdir()
    with closing(apsw.Connection(str(live))) as file:
        triggers = file.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (trigger,) in triggers:
            file.execute(f"DROP TRIGGER {trigger}")
        file.execute("UPDATE event SET timestamp = 7 WHERE seq = 120")
        file.execute(sql)
    with Journal.open(live, read_only=True) as opened:
        with pytest.raises(journal.DamagedError, match=words):
            opened.ship(tmp_path / "out" / "d.db", after=220)
    assert names_in(tmp_path / "out") == []


# Keys


def test_it_has_the_keys_of_its_events_only(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    events = [parse_event(line) for line in LINES[:300]]
    with Journal.open(path) as opened:
        for number in range(30):
            opened.append_events(events[number * 10 : number * 10 + 10], key=f"k{number:02}")
            opened.append_events([], key=f"empty{number}")
        opened.append_events(events[:5])

    shipment = ship(path, tmp_path / "d.db", after=220)

    keys = rows(shipment.path, "SELECT key FROM append_key ORDER BY rowid")
    assert [key for (key,) in keys] == [f"k{number}" for number in range(20, 30)]


def test_a_key_across_its_beginning_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:95])
        opened.append_events([parse_event(line) for line in LINES[95:110]], key="across")
    shipment = ship(path, tmp_path / "d.db", after=105)

    assert shipment.first_position == 101
    assert rows(shipment.path, "SELECT key, first_seq FROM append_key") == [("across", 96)]


# Whatever stops it


@pytest.mark.parametrize("error", [KeyboardInterrupt(), apsw.FullError("full")])
def test_what_stops_it_leaves_nothing(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "out").mkdir()
    original = delta._Delta.copy_heads

    def stopped(self: Any, owner: str) -> None:
        original(self, owner)
        raise error

    monkeypatch.setattr(delta._Delta, "copy_heads", stopped)
    expected = journal.StorageFullError if isinstance(error, apsw.Error) else KeyboardInterrupt
    with Journal.open(live, read_only=True) as opened:
        with pytest.raises(expected) as caught:
            opened.ship(tmp_path / "out" / "d.db", after=220)
    assert isinstance(error, KeyboardInterrupt) or "d.db: the disk is full" in str(caught.value)
    assert names_in(tmp_path / "out") == []


def test_what_is_appended_meanwhile_is_not_in_it(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one moment of the journal, however long it takes."""
    original = delta._Delta.copy_events

    def slowly(self: Any, progress: Any) -> None:
        original(self, progress)
        with Journal.open(live) as writer:
            writer.append_ndjson(LINES[:60])

    monkeypatch.setattr(delta._Delta, "copy_events", slowly)
    with Journal.open(live, read_only=True) as opened:
        shipment = opened.ship(tmp_path / "d.db", after=220)

    assert (shipment.first_position, shipment.last_position) == (201, COUNT)
    found = journal.verify(shipment.path, full=True)
    assert found.sound, found.findings


def test_its_name_in_a_folder_says_where_it_begins(live: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with Journal.open(live, read_only=True) as opened:
        shipment = opened.ship(tmp_path / "out", after=220)
    assert shipment.path.name == f"journal-{str(shipment.journal_id)[:8]}-201-400.db"
