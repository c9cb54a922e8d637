"""Going on with a closed copy: a journal of its own that says where it came from."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import apsw
import pytest
import support
from commands_support import run_here
from support import Channel, lines_of, names_in
from test_absent import declare_absent
from verify_support import COUNTING, codes, execute

import journal
from journal import Journal, continue_copy, errors, limits, parse_event
from journal.file.objects import check_objects
from journal.file.opening import open_reader
from journal.maintenance import Continued, continuing

LINES = lines_of("mixed/events.ndjson")
COUNT = 1_350


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "app.db"
    with Journal.open(path, label="pump 7") as opened:
        opened.register(COUNTING)
        opened.append_ndjson(lines_of("next_version.ndjson"), unknown="keep", on_error="skip")
        opened.append_events([parse_event(line) for line in LINES[:10]], key="first ten")
        opened.append_ndjson(LINES[10:COUNT])
        opened.states("count")
    return path


@pytest.fixture(scope="module")
def copy(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with Journal.open(source, read_only=True) as opened:
        return opened.ship(tmp_path_factory.mktemp("shipped") / "copy.db").path


# What recovering does where events are lost.
LINKED_ANEW = "".join(
    f"""
UPDATE event SET {owner}_prev = (SELECT max(p.seq) FROM event AS p
    WHERE p.{owner} = event.{owner} AND p.seq < event.seq);
UPDATE {owner} SET
    last_seq = (SELECT ifnull(max(seq), 0) FROM event WHERE event.{owner} = {owner}.id),
    event_count = (SELECT count(*) FROM event WHERE event.{owner} = {owner}.id);
DELETE FROM {owner} WHERE event_count = 0;
"""
    for owner in ("session", "stream")
)


def objects_of(path: Path) -> dict[str, str]:
    rows = execute_rows(path, "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return dict(rows)


def execute_rows(path: Path, sql: str) -> list[Any]:
    with Journal.open(path, read_only=True) as opened:
        return opened.connection().execute(sql).fetchall()


def ship_and_continue(path: Path, folder: Path, name: str) -> Continued:
    with Journal.open(path, read_only=True) as opened:
        shipped = opened.ship(folder / f"{name}.shipped")
    return continue_copy(shipped.path, folder / name)


# What it is


def test_it_has_all_of_the_copy_and_names_the_journal_that_was_copied(
    source: Path, copy: Path, tmp_path: Path
) -> None:
    before = support.bytes_in(copy.parent)
    made = continue_copy(copy, tmp_path / "new.db")

    assert support.bytes_in(copy.parent) == before
    assert names_in(tmp_path) == ["new.db"]
    with Journal.open(source, read_only=True) as old, Journal.open(made.path) as new:
        (origin,) = made.origins
        assert new.journal_id == made.journal_id != old.journal_id
        assert (origin.journal_id, origin.label, origin.branch) == (old.journal_id, "pump 7", "")
        last = old.last_position
        assert (origin.first_position, origin.last_position) == (1, last)
        assert origin.source_first_position == 1
        assert (made.label, made.event_count, made.last_position) == ("pump 7", last, last)
        assert made.head == old.info().head
        for read in (
            lambda opened: list(opened.lines()),
            lambda opened: opened.sessions(),
            lambda opened: opened.streams(),
            lambda opened: opened.projections(),
        ):
            assert read(new) == read(old)
        for status in old.sessions()[:9]:
            assert new.version(status.session_id) == old.version(status.session_id)
        assert new.info().origins == made.origins
        assert new.info().closed_by is None


def test_nothing_is_left_of_what_a_copy_has_for_its_readers(
    source: Path, copy: Path, tmp_path: Path
) -> None:
    made = continue_copy(copy, tmp_path / "new.db").path

    new, old = objects_of(made), objects_of(source)
    assert "origin_position" in new.pop("events")  # it shows where each event came from
    assert "origin_position" not in old.pop("events")
    assert new == old
    keys = {key for (key,) in execute_rows(made, "SELECT key FROM meta")}
    assert keys == {"journal_id", "created_at", "library_version", "min_reader_version", "label"}
    assert execute_rows(made, "PRAGMA freelist_count") == [(0,)]
    assert execute_rows(made, "PRAGMA journal_mode") == [("wal",)]
    page_bytes = 4096  # the schema may need one more, as views were made anew in it
    assert made.stat().st_size <= source.stat().st_size + page_bytes
    if os.name != "nt":
        assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_appending_goes_on_where_the_copy_ended(copy: Path, tmp_path: Path) -> None:
    made = continue_copy(copy, tmp_path / "new.db")
    last = made.last_position or 0
    with Journal.open(made.path) as new:
        first_ten = [parse_event(line) for line in LINES[:10]]
        again = new.append_events(first_ten, key="first ten")
        assert again.last is not None
        assert again.last < 20, "the keys go on"
        session = first_ten[0].session_id
        version = new.version(session)
        added = new.append_events(first_ten[:1], expected_versions={session: version})
        assert added == (last + 1, last + 1)
        new.append_ndjson(LINES[COUNT : COUNT + 900])

    found = journal.verify(made.path, full=True, head=made.head)
    assert found.sound, found.findings
    assert found.proven_count == last + 901
    blocks = execute_rows(made.path, "SELECT first_seq, last_seq, sealed FROM block")
    assert blocks == [(1, 1_000, 1), (1_001, last, 1), (last + 1, 2_000, 1), (2_001, last + 901, 0)]


def test_origins_are_flat(source: Path, tmp_path: Path) -> None:
    first = ship_and_continue(source, tmp_path, "b.db")
    end = first.last_position or 0
    with Journal.open(first.path, label="second") as opened:
        opened.append_ndjson(LINES[:50])
    second = ship_and_continue(first.path, tmp_path, "c.db")
    unchanged = ship_and_continue(second.path, tmp_path, "d.db")

    assert second.origins[:1] == first.origins
    (last,) = second.origins[1:]
    assert (last.journal_id, last.label) == (first.journal_id, "second")
    assert (last.first_position, last.last_position) == (end + 1, end + 50)
    assert last.source_first_position == end + 1
    assert unchanged.origins == second.origins, "the third has given no position"
    for made in (second, unchanged):
        assert journal.verify(made.path, full=True, head=first.head).sound
    page = run_here("info", second.path).out.decode()
    assert f"Goes on     from second, {first.journal_id}, after position {end + 50}" in page
    assert "(and 1 journal before)\n" in page


def test_the_rows_of_origin_are_as_the_specification_says(copy: Path, tmp_path: Path) -> None:
    made = continue_copy(copy, tmp_path / "new.db")
    specified = (Path(journal.__file__).parent / "file" / "FORMAT.md").read_text("utf-8")
    sql = specified.partition("### origin")[2].partition("```sql\n")[2].partition("```")[0]

    with Journal.open(made.path, read_only=True) as opened:
        connection = opened.connection()
        text: Any = connection.execute(sql, {"first": 1}).get
        digest: Any = connection.execute("SELECT check_digest FROM origin").get
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert UUID(json.loads(text)[2]) == made.origins[0].journal_id


@pytest.mark.parametrize("label", ["new one", "ü" * 200])
def test_it_can_have_another_label(copy: Path, tmp_path: Path, label: str) -> None:
    made = continue_copy(copy, tmp_path / "new.db", label=label)

    with Journal.open(made.path, read_only=True) as opened:
        assert opened.info().label == made.label == label
    assert made.origins[0].label == "pump 7"


def test_a_copy_without_events_is_a_journal_without_origins(tmp_path: Path) -> None:
    Journal.open(tmp_path / "a.db").close()
    made = ship_and_continue(tmp_path / "a.db", tmp_path, "b.db")

    assert (made.event_count, made.head, made.origins) == (0, None, ())
    with Journal.open(made.path) as opened:
        assert opened.append_events([parse_event(LINES[0])]) == (1, 1)


@pytest.mark.parametrize("gap", ["beginning", "middle", "end", "end without digest"])
def test_what_is_absent_stays_absent(
    tmp_path: Path, gap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:230])
    first, last = {"beginning": (1, 50), "middle": (101, 150)}.get(gap, (201, 230))
    execute(path, "INSERT INTO meta VALUES ('closed', 'recover'); DELETE FROM checkpoint")
    with closing(apsw.Connection(str(path))) as file:
        if gap == "end without digest":  # as where the row of the block is lost as well
            file.execute("DELETE FROM block WHERE first_seq = 201")
        declare_absent(file, first, last, "pruned" if first == 1 else "lost")
        file.execute(LINKED_ANEW)
        file.execute("PRAGMA journal_mode = DELETE").fetchall()

    made = continue_copy(path, tmp_path / "new.db")

    assert (made.event_count, made.last_position) == (230 - (last - first + 1), 230)
    with Journal.open(made.path) as opened:
        assert opened.append_ndjson(LINES[:100]).first == 231
    found = journal.verify(made.path, full=True)
    assert found.sound, found.findings
    assert found.absent_count == last - first + 1


# What it is not made of


def test_a_journal_is_no_copy(source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        errors.NotAClosedCopyError, match="is no closed copy, but a journal itself: append to it"
    ):
        continue_copy(source, tmp_path / "new.db")

    assert names_in(tmp_path) == []


def test_appending_to_a_copy_says_how_to_go_on(copy: Path) -> None:
    result = run_here("label", copy, "new")

    assert result.code == 1
    assert "make a journal that goes on from it (journal continue)" in result.err


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 700",
        "DELETE FROM event WHERE seq = 700",
        "UPDATE session SET event_count = event_count + 1 WHERE id = 3",
        "UPDATE meta SET value = 'none' WHERE key = 'journal_id'",
        "UPDATE block SET content_digest = printf('%064d', 0) WHERE first_seq > 1",
    ],
)
def test_a_damaged_copy_becomes_no_journal(copy: Path, tmp_path: Path, change: str) -> None:
    shutil.copy(copy, tmp_path / "copy.db")
    execute(tmp_path / "copy.db", change)
    before = support.bytes_in(tmp_path)

    with pytest.raises(errors.DamagedError, match=r"copy\.db: ") as caught:
        continue_copy(tmp_path / "copy.db", tmp_path / "new.db")

    assert caught.value.path == tmp_path / "copy.db"
    assert support.bytes_in(tmp_path) == before


BAD: dict[str, tuple[Callable[[Path], list[Any]], int, str]] = {
    "missing": (lambda f: [f / "none.db", f / "new.db"], 1, "does not exist"),
    "directory": (lambda f: [f, f / "new.db"], 1, "is a directory"),
    "no database": (lambda f: [f / "text", f / "new.db"], 1, "is not an SQLite database"),
    "itself": (lambda f: [f / "copy.db", f / "copy.db"], 1, "is the very file that is read"),
    "there": (lambda f: [f / "copy.db", f / "text"], 1, "exists already"),
    "no folder": (lambda f: [f / "copy.db", f / "no" / "new.db"], 1, "its folder does not exist"),
    "label": (lambda f: [f / "copy.db", f / "new.db", "--label", "a\nb"], 2, "label: expected"),
    "newer": (lambda f: [f / "newer.db", f / "new.db"], 1, "has format 2"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence_and_changes_nothing(
    copy: Path, tmp_path: Path, what: str
) -> None:
    arguments, code, text = BAD[what]
    (tmp_path / "text").write_text("no database, but a text that is long enough to be one" * 9)
    for name in ("copy.db", "newer.db"):
        shutil.copy(copy, tmp_path / name)
    execute(tmp_path / "newer.db", "PRAGMA user_version = 2")
    before = support.bytes_in(tmp_path)

    result = run_here("continue", *arguments(tmp_path))

    assert (result.code, result.out) == (code, b"")
    assert text in result.err.splitlines()[-1]
    assert support.bytes_in(tmp_path) == before


def test_with_force_it_replaces_a_file(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "new.db").write_text("old")

    made = run_here("continue", copy, tmp_path / "new.db", "--force", "--label", "new", "--json")

    told = json.loads(made.out)
    with Journal.open(tmp_path / "new.db", read_only=True) as opened:
        assert told["journal_id"] == str(opened.journal_id)
        assert told["label"] == "new"
        assert told["origins"][0]["label"] == "pump 7"
        assert told["origins"][0].keys() == {
            *("first_position", "last_position", "journal_id", "branch", "label"),
            "source_first_position",
        }


# Whole or not at all


def continue_until_killed(_channel: Channel, copy: Path, new: Path, step: str) -> None:
    original = getattr(continuing, step)

    def killed(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        support.die()

    setattr(continuing, step, killed)
    continue_copy(copy, new)


@pytest.mark.skipif(os.name == "nt", reason="kill -9 of POSIX")
@pytest.mark.parametrize("step", ["copy_moment", "_become_new", "verify"])
def test_killed_at_any_step_it_leaves_no_file_of_that_name(
    copy: Path, tmp_path: Path, step: str
) -> None:
    child = support.Child(continue_until_killed, copy, tmp_path / "new.db", step)
    child.wait_until_killed()

    assert not (tmp_path / "new.db").exists()
    assert names_in(tmp_path) != []
    continue_copy(copy, tmp_path / "new.db")
    assert names_in(tmp_path) == ["new.db"]


@pytest.mark.parametrize("step", ["copy_moment", "_forget_readers", "verify"])
def test_an_interrupt_leaves_everything_as_it_was(
    copy: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    (tmp_path / "new.db").write_text("old")
    monkeypatch.setattr(continuing, step, interrupted)

    with pytest.raises(KeyboardInterrupt):
        continue_copy(copy, tmp_path / "new.db", force=True)

    assert names_in(tmp_path) == ["new.db"]
    assert (tmp_path / "new.db").read_text() == "old"


def test_its_progress_rises_to_the_end(copy: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    made = continue_copy(copy, tmp_path / "new.db", progress=lambda *it: told.append(it))

    assert told == sorted(told)
    assert told[-1] == (made.last_position, made.last_position)
    assert len({done for done, _ in told}) >= 3


# Origins that are not what they were


ORIGIN_DAMAGE = {
    "label": "UPDATE origin SET label = 'pump 8'",
    "journal": f"UPDATE origin SET journal_id = '{UUID(int=7)}'",
    "end": "UPDATE origin SET last_seq = last_seq + 1",
    "source": "UPDATE origin SET source_first_seq = 2",
    "no id": "UPDATE origin SET journal_id = 'x'",
}


@pytest.mark.parametrize("what", ORIGIN_DAMAGE)
def test_a_changed_row_of_origin_is_found(copy: Path, tmp_path: Path, what: str) -> None:
    made = continue_copy(copy, tmp_path / "new.db").path
    execute(made, ORIGIN_DAMAGE[what])

    assert "origin" in codes(made)
    with (
        Journal.open(made, read_only=True) as opened,
        pytest.raises(errors.DamagedError, match="where position 1 came from"),
    ):
        opened.info()


def test_a_block_that_goes_on_over_the_end_of_an_origin_is_found(
    copy: Path, tmp_path: Path
) -> None:
    made = continue_copy(copy, tmp_path / "new.db").path
    execute(made, "UPDATE block SET last_seq = last_seq + 1 WHERE first_seq = 1001")

    assert "origin" in codes(made)


def test_the_tables_of_the_new_file_are_the_journals(copy: Path, tmp_path: Path) -> None:
    made = continue_copy(copy, tmp_path / "new.db").path

    connection = open_reader(str(made), made)
    check_objects(connection)
    connection.close()


def continue_on_a_full_disk(_channel: Channel, copy: Path, folder: Path) -> dict[int, Any]:
    """Have more and more room for the new journal; tell what was said each time."""
    support.own_mounts()
    support.mount_memory(folder, 2 * 1024 * 1024)
    found: dict[int, Any] = {}
    for free in range(0, 1_400_000, 140_000):
        (folder / "filler").write_bytes(bytes(2 * 1024 * 1024 - 16_384 - free))
        try:
            found[free] = continue_copy(copy, folder / "new.db").event_count
            (folder / "new.db").unlink()
        except errors.StorageFullError as error:
            found[free] = str(error)
        assert names_in(folder) == ["filler"]
        (folder / "filler").unlink()
    return found


def test_where_there_is_no_room_it_says_so_and_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()

    found = [*support.run(continue_on_a_full_disk, copy, tmp_path / "small").values()]

    assert isinstance(found[0], str)
    assert isinstance(found[-1], int)
    for said in found:
        assert isinstance(said, int) or said.startswith(str(tmp_path / "small" / "new.db")), said
