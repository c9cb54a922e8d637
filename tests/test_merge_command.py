"""`journal merge`, `journal origins` and `journal events --origin`."""

import json
import shutil
from pathlib import Path

import apsw
import pytest
from commands_support import run_here
from support import activated, lines_of, names_in

from journal import Journal, SessionId, errors

LINES = lines_of("mixed/events.ndjson")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    for label, first, last in (("pump", 0, 30), ("fan", 30, 50)):
        with Journal.open(folder / f"{label}.db", label=label) as opened:
            opened.append_ndjson(LINES[first:last])
    return folder


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


def json_lines(out: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_folder_is_merged_and_listed(inbox: Path, fleet: Path) -> None:
    (inbox / "notes.txt").write_text("not a journal")

    result = run_here("merge", str(fleet), str(inbox))

    assert result.code == 0
    assert result.out.decode().splitlines() == [
        "Merged      2 sources",
        "Added       50 events",
        "Known       no events",
        "Left out    notes.txt: no journals",
    ]
    listed = run_here("origins", str(fleet))
    assert listed.code == 0
    rows = [line.split() for line in listed.out.decode().splitlines()]
    assert rows[0] == ["LABEL", "JOURNAL", "EVENTS", "FIRST", "LAST", "ABSENT", "WAITING"]
    assert {(row[0], *row[2:]) for row in rows[1:]} == {
        ("pump", "30", "1", "30", "0", "0"),
        ("fan", "20", "1", "20", "0", "0"),
    }
    page = run_here("info", str(fleet)).out.decode()
    assert "Merged      events of 2 journals; journal origins lists them" in page
    again = run_here("merge", str(fleet), str(inbox), "--json")
    (told,) = json_lines(again.out)
    assert (told["added_count"], told["known_count"], told["complete"]) == (0, 50, True)


def test_events_show_where_they_came_from(inbox: Path, fleet: Path) -> None:
    with Journal.open(fleet, label="fleet") as opened:
        opened.append_ndjson(LINES[60:63])
    run_here("merge", str(fleet), str(inbox / "pump.db"))
    run_here("merge", str(fleet), str(inbox / "fan.db"))
    with Journal.open(fleet) as opened:
        opened.append_ndjson(LINES[63:65])
        ids = {it.label: str(it.journal_id) for it in opened.origins().origins}

    shown = json_lines(run_here("events", str(fleet), "--json").out)

    facts = [(it["position"], it["label"], it["branch"], it["source_position"]) for it in shown]
    assert facts == [
        *((at, "fleet", "", at) for at in range(1, 4)),
        *((at + 3, "pump", "", at) for at in range(1, 31)),
        *((at + 33, "fan", "", at) for at in range(1, 21)),
        *((at, "fleet", "", at) for at in range(54, 56)),
    ]
    assert all(it["journal_id"] == ids[str(it["label"])] for it in shown)
    for name in ("fan", ids["fan"]):
        some = run_here("events", str(fleet), "--origin", name).out.decode().splitlines()
        assert some == LINES[30:50]
    own = run_here("events", str(fleet), "--origin", "fleet", "--limit", "4").out.decode()
    assert own.splitlines() == LINES[60:64]
    session = json.loads(LINES[30])["session_id"]
    some = run_here("events", str(fleet), "--origin", "fan", "--session", session).out.decode()
    assert some.splitlines() == [
        it for it in LINES[30:50] if json.loads(it)["session_id"] == session
    ]
    with Journal.open(fleet, read_only=True) as opened:
        view = opened.connection().execute(
            "SELECT position, origin_label, origin_branch, origin_position, origin_journal_id"
            " FROM events ORDER BY position"
        )
        rows = list(view)
    assert [row[:4] for row in rows] == facts
    assert [row[4] for row in rows] == [it["journal_id"] for it in shown]


def test_two_histories_of_a_journal_are_told_apart(fleet: Path, tmp_path: Path) -> None:
    paths = tmp_path / "a.db", tmp_path / "b.db"
    with Journal.open(paths[0], label="pump") as opened:
        opened.append_ndjson(LINES[:10])
    shutil.copy(*paths)
    for path, lines in zip(paths, (LINES[10:30], LINES[30:50]), strict=True):
        with Journal.open(path) as opened:
            opened.append_ndjson(lines)
        run_here("merge", fleet, path)

    table = run_here("origins", fleet).out.decode().splitlines()

    assert table[0].split()[2] == "BRANCH"
    shown = table[2].split()[2]
    with Journal.open(fleet, read_only=True) as opened:
        branch = opened.origins().origins[1].branch
        for name in (shown, branch):
            assert [text for _, text in opened.lines(origin=name)] == LINES[30:50]
        assert [text for _, text in opened.lines(origin="pump")] == LINES[:50]
        for name in ("", branch[:7], branch[1:]):
            with pytest.raises(ValueError, match="no event came from a journal with the label, id"):
                opened.lines(origin=name)
    result = run_here("events", fleet, "--origin", shown, "--json", "--limit", 1)
    (told,) = json_lines(result.out)
    assert (told["branch"], told["source_position"]) == (branch, 11)
    assert run_here("events", fleet, "--origin", "0" * 8).code == 2


def test_a_shipped_file_shows_it_too(inbox: Path, fleet: Path, tmp_path: Path) -> None:
    run_here("merge", str(fleet), str(inbox))
    with Journal.open(fleet, read_only=True) as opened:
        shipped = opened.ship(tmp_path / "shipped.db").path
    connection = apsw.Connection(str(shipped), flags=apsw.SQLITE_OPEN_READONLY)
    counts = connection.execute("SELECT origin_label, count(*) FROM events GROUP BY 1 ORDER BY 1")
    assert counts.fetchall() == [("fan", 20), ("pump", 30)]
    connection.close()


def test_a_journal_of_its_own_shows_nothing_new(inbox: Path) -> None:
    out = run_here("events", str(inbox / "fan.db"), "--json", "--limit", "1").out.decode()
    assert out == f'{{"position":1,"event":{LINES[30]}}}\n'
    result = run_here("events", str(inbox / "fan.db"), "--origin", "fun")
    assert result.code == 2
    assert "no event in fan.db came from fun: `journal origins` lists" in result.err


def test_sessions_of_several_devices_are_listed(fleet: Path, tmp_path: Path) -> None:
    sessions = [SessionId.new() for _ in range(12)]
    for label in ("pump", "fan"):
        with Journal.open(tmp_path / f"{label}.db", label=label) as opened:
            opened.append_events([activated(it) for it in (*sessions, SessionId.new())])
    run_here("merge", fleet, tmp_path / "pump.db")
    result = run_here("origins", tmp_path / "pump.db")
    assert (result.code, result.err) == (0, "")
    run_here("merge", fleet, tmp_path / "fan.db")

    shown = run_here("origins", fleet)

    assert shown.code == 0
    said = shown.err.splitlines()
    assert said[0] == "12 sessions with events of several journals:"
    assert said[1:11] == [f"  {it} (2 journals)" for it in sessions[:10]]
    assert said[11:] == ["  and 2 more (--json prints all)"]
    listed = run_here("origins", fleet, "--json")
    assert (listed.code, listed.err) == (0, "")
    found = json_lines(listed.out)
    assert [it["label"] for it in found[:2]] == ["pump", "fan"]
    ids = sorted(str(it["journal_id"]) for it in found[:2])
    assert found[2:] == [{"session_id": str(it), "journal_ids": ids} for it in sessions]
    assert found[0] == {
        "journal_id": found[0]["journal_id"],
        "branch": "",
        "label": "pump",
        "event_count": 13,
        "first_position": 1,
        "last_position": 13,
        "absent": [],
        "waiting": [],
        "parted_after": None,
    }


def test_what_waits_and_what_parts_is_told(inbox: Path, fleet: Path, tmp_path: Path) -> None:
    with Journal.open(inbox / "pump.db") as opened:
        opened.append_ndjson(LINES[100:1200])
        late = opened.ship(tmp_path / "late.db", after=1_010).path
        other = opened.ship(tmp_path / "all.db").path
    result = run_here("merge", str(fleet), str(late))
    assert result.code == 3
    assert "pump is not complete: positions 1 to 1000 have not come yet" in result.err
    result = run_here("merge", str(fleet), str(other))
    assert result.code == 3
    text = "positions 1 to 1000 of pump wait, as later ones are there (--rewrite places them)"
    assert text in result.err
    assert run_here("origins", str(fleet)).code == 3
    result = run_here("merge", str(fleet), str(other), "--rewrite")
    assert (result.code, b"Made anew" in result.out) == (0, True)
    assert run_here("origins", str(fleet)).code == 0


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("missing.db", "missing.db: does not exist"),
        ("text.db", "text.db: is not an SQLite database"),
        ("other.db", "other.db: is an SQLite database, but not a journal"),
        ("newer.db", "newer.db: has format 2, this version of journal reads up to 1: upgrade it"),
        ("damaged.db", "the events from position 1 to 30 are not what they were"),
        ("open.db", "open.db: is in use or was not closed (open.db-wal is beside it): merge a"),
        ("fleet.db", "fleet.db: is the very file that is to be merged into it"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    inbox: Path, fleet: Path, source: str, text: str
) -> None:
    path = inbox.parent / source
    run_here("merge", str(fleet), str(inbox / "fan.db"))
    (inbox.parent / "text.db").write_text("this is no database, but a text of some length" * 99)
    connection = apsw.Connection(str(inbox.parent / "other.db"))
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    if source in ("newer.db", "damaged.db", "open.db"):
        path.write_bytes((inbox / "pump.db").read_bytes())
        connection = apsw.Connection(str(path))
        if source == "newer.db":
            connection.execute("PRAGMA user_version = 2")
        elif source == "damaged.db":
            connection.execute("DROP TRIGGER event_is_never_updated")
            connection.execute("UPDATE event SET timestamp = timestamp + 1 WHERE seq = 7")
        connection.close()
        if source == "open.db":
            (inbox.parent / "open.db-wal").write_bytes(b"something")
    before = fleet.read_bytes(), names_in(inbox.parent)

    result = run_here("merge", str(fleet), str(inbox / "pump.db"), str(path))

    assert result.code == 1
    assert result.err.startswith("Error: ")
    assert text in result.err
    assert result.err.count("\n") == 1
    assert (fleet.read_bytes(), names_in(inbox.parent)) == before


def test_nothing_is_made_of_bad_input_or_of_no_events(inbox: Path, fleet: Path) -> None:
    with Journal.open(inbox / "none.db"):
        pass
    assert run_here("merge", str(fleet), str(inbox / "none.db")).code == 1
    assert run_here("merge", str(fleet), str(inbox.parent / "missing.db")).code == 1
    (inbox.parent / "empty").mkdir()
    result = run_here("merge", str(fleet), str(inbox.parent / "empty"))
    assert (result.code, "empty: has no journals to merge" in result.err) == (1, True)
    assert not fleet.exists()
    assert run_here("merge", str(fleet)).code == 2
    fleet.touch()
    for source in ("none.db", "../missing.db"):
        assert run_here("merge", str(fleet), str(inbox / source)).code == 1
    (inbox / "text.db").write_text("no database, but a text" * 99)
    assert run_here("merge", str(fleet), str(inbox / "text.db"), str(inbox / "fan.db")).code == 1
    assert (fleet.stat().st_size, names_in(inbox.parent)) == (0, ["empty", "fleet.db", "inbox"])
    assert run_here("merge", str(fleet), str(inbox / "fan.db")).code == 0


def test_a_shipped_file_takes_nothing_in(inbox: Path, tmp_path: Path) -> None:
    with Journal.open(inbox / "pump.db", read_only=True) as opened:
        shipped = opened.ship(tmp_path / "shipped.db").path
    result = run_here("merge", str(shipped), str(inbox / "fan.db"))
    assert result.code == 1
    assert "is a closed copy, made by ship" in result.err
    assert issubclass(errors.OpenSourceError, OSError)
