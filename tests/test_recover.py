"""Recovering: what is left of a damaged file comes back, in its places, and nothing else does."""

import errno
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import test_absent
from recover_support import (
    LINES,
    PAGE,
    copy,
    damaged_at_random,
    fill_pages,
    make,
    pages_of,
    recovered,
    rows,
    share,
    zero,
)
from support import LONG_ROUNDS, ROUNDS, SEEDS, become_nobody, bytes_in, names_in, run, within

import journal
from journal import (
    AccessDeniedError,
    ClosedCopyError,
    DamagedError,
    DomainEvent,
    Journal,
    JournalNotFoundError,
    NewerFormatError,
    PathIsDirectoryError,
    SessionActivated,
    SessionId,
    StreamFailed,
    StreamId,
    TargetExistsError,
    Timestamp,
    WrongTargetError,
    limits,
)
from journal.maintenance import recovering
from journal.maintenance.pages import page_file
from journal.maintenance.redaction import read_redaction

EVENTS = LINES[:600]


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", 100)
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sound") / "a.db", EVENTS)


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return copy(sound, tmp_path / "a.db")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.db"


# What comes back


def test_an_intact_file_comes_back_whole(path: Path, out: Path, sound: Path) -> None:
    with Journal.open(sound, read_only=True) as opened:
        info = opened.info()

    found = recovered(path, out, EVENTS)

    assert found.is_complete
    assert (found.proven_count, found.unproven_count, found.rebuilt) == (600, 0, {})
    assert (found.head, found.journal_id) == (info.head, info.journal_id)
    assert rows(out, "SELECT key FROM append_key") == [("k",)]
    assert out.read_bytes()[18:20] == b"\1\1"  # no -wal, so it opens from read-only media
    assert sorted(names_in(out.parent)) == ["a.db", "out.db"]
    with Journal.open(out, read_only=True) as opened:
        assert opened.info().label == "pump 7"
        assert {it.lag for it in opened.projections()} == {0}
    with pytest.raises(ClosedCopyError):
        Journal.open(out)
    assert recovered(out, out.with_name("again.db"), EVENTS).is_complete


def test_the_events_of_a_destroyed_page_are_missing_and_nothing_else(path: Path, out: Path) -> None:
    fill_pages(path, pages_of(path, "event")[2:3], lambda: bytes(PAGE))

    found = recovered(path, out, EVENTS)

    assert not found.is_complete
    assert found.apart_count == 0
    ((first, last),) = found.lost
    assert found.unproven_count + found.lost_count in (100, 200)  # those of its one or two blocks
    assert rows(out, "SELECT first_seq, last_seq, reason FROM absent") == [(first, last, "lost")]
    assert rows(out, "SELECT count(*) FROM block") == [(6,)]  # the chain needs no events
    assert found.head is not None
    ranges = rows(out, "SELECT first_seq, last_seq, count FROM recovered WHERE what = 'unproven'")
    assert [it[:2] for it in ranges] == list(found.unproven)
    assert sum(it[2] for it in ranges) == found.unproven_count


@pytest.mark.parametrize(
    ("names", "rebuilt"),
    [
        (["session"], {"ids", "heads"}),
        (["stream"], {"ids", "heads"}),
        (["sqlite_autoindex_session_1", "sqlite_autoindex_stream_1"], set()),
        (["kind"], set()),
        (["kind_name_fields"], set()),
        (["kind", "kind_name_fields"], {"kinds"}),
        (["meta"], {"facts"}),
        (["sqlite_schema"], set()),
        (["projection_session", "projection_stream", "checkpoint"], set()),
        (["session", "sqlite_autoindex_stream_1", "kind", "sqlite_schema"], {"ids", "heads"}),
    ],
    ids=lambda it: " ".join(sorted(it)),
)
def test_what_is_there_twice_or_can_be_made_again_costs_no_event(
    path: Path, out: Path, names: list[str], rebuilt: set[str]
) -> None:
    zero(path, *names)

    found = recovered(path, out, EVENTS)

    assert found.is_complete
    assert (found.proven_count, found.event_count) == (600, 600)
    assert set(found.rebuilt) == rebuilt


def test_broken_interior_pages_cost_no_event(path: Path, out: Path) -> None:
    numbers = [n for (n,) in rows(path, "SELECT pageno FROM dbstat WHERE pagetype = 'internal'")]
    fill_pages(path, numbers, lambda: b"\xff" * PAGE)

    assert recovered(path, out, EVENTS).proven_count == 600


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("first", ["zeros", "foreign"])
def test_the_size_of_pages_is_found_without_the_first_page(
    path: Path, out: Path, tmp_path: Path, page_size: int, first: str
) -> None:
    with closing(apsw.Connection(str(path))) as file:
        file.execute(f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {page_size}").fetchall()
        file.execute("VACUUM")
    other = apsw.Connection(str(tmp_path / "other.db"))
    other.execute("PRAGMA page_size = 1024; CREATE TABLE a (b)")
    other.close()
    foreign = (tmp_path / "other.db").read_bytes()[:1024].ljust(page_size, b"\0")[:page_size]
    with path.open("r+b") as file:
        file.write(bytes(page_size) if first == "zeros" else foreign)

    assert recovered(path, out, EVENTS).proven_count == 600


def test_without_the_rows_of_blocks_all_events_stay_and_nothing_is_proven(
    path: Path, out: Path
) -> None:
    zero(path, "block")

    found = recovered(path, out, EVENTS)

    assert found.is_complete
    assert (found.proven_count, found.unproven_count, found.head) == (0, 600, None)
    assert found.unproven == ((1, 600),)


def test_events_between_and_after_blocks_are_found_by_time(path: Path, out: Path) -> None:
    with closing(apsw.Connection(str(path))) as file:
        file.execute("DELETE FROM block WHERE first_seq IN (201, 301, 501)")

    found = recovered(path, out, EVENTS)  # which asks by time, too

    assert found.unproven == ((201, 400), (501, 600))
    with Journal.open(out, read_only=True) as opened:
        for position, event in list(opened.read())[::37]:
            expected = [it for it in opened.read() if it.event.timestamp > event.timestamp]
            assert list(opened.read(since=event.timestamp)) == expected, position


def test_a_changed_event_takes_its_block_with_it(path: Path, out: Path) -> None:
    content = path.read_bytes()
    at = content.index(b'["', content.index(b'["timeout"]') + 1) + 2  # a text of some event
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])

    found = recovered(path, out, EVENTS)

    assert (found.proven_count, found.unproven_count) == (500, 0)
    assert (found.lost_count, found.apart_count) == (100, 100)
    reasons = rows(out, "SELECT DISTINCT reason FROM recovered_apart")
    assert reasons == [
        ("its block is not what it was, and which of its events was changed is not known",)
    ]
    apart = rows(out, "SELECT seq, session_id, event_type FROM recovered_apart ORDER BY seq")
    assert [position for position, _, _ in apart] == list(range(*apart[0][:1], apart[0][0] + 100))
    assert all(session and kind for _, session, kind in apart)


def test_where_something_was_changed_nothing_unproven_is_believed(path: Path, out: Path) -> None:
    first, *_, last = pages_of(path, "event")
    fill_pages(path, [last], lambda: bytes(PAGE))
    whole = recovered(path, out, EVENTS)
    assert whole.unproven_count > 0
    with closing(apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)) as file:
        file.execute("DROP TRIGGER event_is_never_updated")
        file.execute("UPDATE event SET timestamp = timestamp + 1 WHERE seq = 3")

    found = recovered(path, out, EVENTS)

    assert found.unproven_count == 0
    assert found.apart_count == 100 + whole.unproven_count
    assert first < last


def test_zeros_in_the_middle_of_a_file(tmp_path: Path, out: Path) -> None:
    path = make(tmp_path / "a.db", LINES[:2500])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 - 32768
    content[middle : middle + 65536] = bytes(65536)
    path.write_bytes(content)

    found = recovered(path, out, LINES[:2500])

    assert found.proven_count > 500
    assert found.lost_count < 1700  # sixteen pages of a hundred events each


def test_every_size_of_data_comes_back_from_pages(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "a.db"
    sizes = [0, 1, 50, 58, 120, 3990, *range(4005, 4035), 5000, 8100, 12_000, 200_000]
    lines = [
        line.replace('"timeout"', f'"{"ä" if size % 2 else "x" * size}"')
        for size in sizes
        for line in [next(it for it in LINES if '"timeout"' in it)]
    ]
    with Journal.open(path) as opened:
        opened.append_ndjson(lines)
    fill_pages(path, [1], lambda: bytes(PAGE))

    assert recovered(path, out, lines).proven_count == len(lines)


@pytest.fixture
def pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    path = test_absent.whole(tmp_path / "a.db")
    test_absent.cut(path, tmp_path)
    return path


def test_what_was_pruned_stays_absent_and_its_states_stay(pruned: Path, out: Path) -> None:
    with Journal.open(pruned, read_only=True) as opened:
        expected = opened.sessions(), opened.streams(), list(opened.read())
    fill_pages(pruned, [1], lambda: bytes(PAGE))

    found = journal.recover(pruned, out)

    assert found.is_complete
    assert (found.first_position, found.proven_count) == (test_absent.CUT + 1, 150)
    with Journal.open(out, read_only=True) as opened:
        assert (opened.sessions(), opened.streams(), list(opened.read())) == expected
        assert [it.since for it in opened.projections()] == [1, 1]


def test_what_was_recovered_with_losses_can_be_recovered_again(path: Path, out: Path) -> None:
    fill_pages(path, pages_of(path, "event")[2:3], lambda: bytes(PAGE))
    first = recovered(path, out, EVENTS)
    again = out.with_name("again.db")
    assert recovered(out, again, EVENTS).unproven == first.unproven
    fill_pages(out, [1], lambda: bytes(PAGE))

    second = recovered(out, again, EVENTS)

    assert second.is_complete
    assert (second.proven_count, second.unproven) == (first.proven_count, first.unproven)
    assert rows(again, "SELECT first_seq, last_seq FROM absent") == list(first.lost)


# Other tables in the file


def _change_one_event(path: Path) -> None:
    """Change one byte in a text of the last event that has a text, so that it stays an event."""
    sql = "SELECT data FROM event WHERE data LIKE '[\"%' ORDER BY seq DESC LIMIT 1"
    ((data,),) = rows(path, sql)
    content = bytearray(path.read_bytes())
    content[content.rindex(data.encode()) + 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("schema", ["there", "lost"])
@pytest.mark.parametrize(
    ("options", "left"),
    [({}, 500), ({"indexes": False}, 500), ({"after": 300}, 300)],
    ids=["shipped", "without indexes", "delta"],
)
def test_a_changed_shipped_file_loses_one_block(
    path: Path, out: Path, options: dict[str, Any], left: int, schema: str
) -> None:
    """Its tables README and manifest have rows that look like those of `kind` and `meta`."""
    shipped = path.with_name("shipped.db")
    with Journal.open(path, read_only=True) as opened:
        opened.ship(shipped, **options)
    _change_one_event(shipped)
    if schema == "lost":
        zero(shipped, "sqlite_schema")

    found = recovered(shipped, out, EVENTS)

    assert (found.proven_count, found.lost_count) == (left, 100)
    assert rows(out, "SELECT count(*) FROM kind") == [(16,)]
    with Journal.open(out, read_only=True) as opened:
        assert opened.info().label == "pump 7"


def test_what_was_redacted_stays_said_beside_a_manifest_that_says_it_otherwise(
    path: Path, out: Path
) -> None:
    shipped = path.with_name("shipped.db")
    with Journal.open(path, read_only=True) as opened:
        opened.ship(shipped, redact={"stream_failed.error": "blank"})
    said = rows(shipped, "SELECT value FROM meta WHERE key = 'redacted'")
    zero(shipped, "sqlite_schema")

    assert journal.recover(shipped, out).is_complete

    assert rows(out, "SELECT value FROM meta WHERE key = 'redacted'") == said != []


def test_tables_of_an_application_are_not_taken_for_those_of_the_journal(
    pruned: Path, out: Path
) -> None:
    with Journal.open(pruned) as opened:
        opened.set_label("pump 7")
        expected = opened.sessions(), opened.streams()
    with closing(apsw.Connection(str(pruned))) as file:
        file.execute(
            "CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, text TEXT);"
            "CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT);"
            "CREATE TABLE visit (id INTEGER PRIMARY KEY, number INTEGER, remark TEXT);"
            "CREATE TABLE person (id INTEGER PRIMARY KEY, uuid BLOB UNIQUE, one INT, two INT);"
            "INSERT INTO setting VALUES ('label', 'another'), ('created_at', 'long ago')"
        )
        for number in range(1, 60):
            file.execute("INSERT INTO note VALUES (?, 'a note', NULL)", (number,))
            file.execute("INSERT INTO visit VALUES (?, 7, NULL)", (number,))
            file.execute("INSERT INTO person VALUES (?, ?, ?, 1)", (number, os.urandom(16), number))
        file.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    zero(pruned, "kind_name_fields")  # SQLite cannot read all of it

    found = journal.recover(pruned, out)

    assert found.is_complete
    assert found.proven_count == 150
    assert rows(out, "SELECT count(*) FROM kind WHERE name = 'a note'") == [(0,)]
    with Journal.open(out, read_only=True) as opened:
        assert opened.info().label == "pump 7"
        assert (opened.sessions(), opened.streams()) == expected


# Sessions and streams that have the same numbers


def _in_lockstep(path: Path, *, activated: bool) -> list[str]:
    """Make a journal in which each session has one stream, and return its events."""
    at = Timestamp.parse("2026-01-01T00:00:00Z")
    events: list[DomainEvent] = []
    for number in range(1_500):
        session = SessionId.new()
        if activated:
            events.append(SessionActivated(session_id=session, timestamp=at))
        error = f"error {number}"
        events.append(
            StreamFailed(session_id=session, stream_id=StreamId.new(), error=error, timestamp=at)
        )
    with Journal.open(path) as opened:
        opened.append_events(events)
    return [event.model_dump_json() for event in events]


@pytest.mark.parametrize(
    "lost",
    [
        [],
        ["sqlite_schema"],
        ["sqlite_schema", "session"],
        ["sqlite_schema", "sqlite_autoindex_session_1", "sqlite_autoindex_stream_1"],
    ],
    ids=lambda it: " ".join(it) or "nothing",
)
@pytest.mark.parametrize("activated", [False, True])
def test_one_stream_for_each_session(
    tmp_path: Path, out: Path, lost: list[str], *, activated: bool
) -> None:
    """Nothing but the schema, or a digest, tells what their rows are of."""
    path = tmp_path / "a.db"
    lines = _in_lockstep(path, activated=activated)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"error 700"', b'"Error 700"'))
    zero(path, *lost)
    if lost:
        fill_pages(path, [1], lambda: bytes(PAGE))

    found = recovered(path, out, lines)

    assert (found.proven_count, found.lost_count) == (len(lines) - 100, 100)


@pytest.mark.parametrize("lost", [[], ["sqlite_schema"]], ids=["schema", "no schema"])
def test_one_stream_for_each_session_and_a_wrong_number_in_an_event(
    tmp_path: Path, out: Path, lost: list[str]
) -> None:
    """The event speaks for one of the two, which is wrong."""
    path = tmp_path / "a.db"
    lines = _in_lockstep(path, activated=False)
    with closing(apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)) as file:
        file.execute("DROP TRIGGER event_is_never_updated")
        file.execute("UPDATE event SET session = session + 1 WHERE seq = 700")
        file.execute("UPDATE event SET stream = stream + 1 WHERE seq = 1")
        file.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    zero(path, *lost)

    found = recovered(path, out, lines)

    assert (found.proven_count, found.lost_count) == (1_300, 200)


# The -wal


def test_where_positions_came_from_and_what_was_redacted_comes_back(path: Path, out: Path) -> None:
    shipped, gone_on = path.with_name("shipped.db"), path.with_name("on.db")
    with Journal.open(path, read_only=True) as opened:
        opened.ship(shipped, redact={"stream_failed.error": "blank"})
    journal.continue_copy(shipped, gone_on)
    with Journal.open(gone_on) as opened:
        opened.append_ndjson(LINES[600:650])
        origins = opened.info().origins
        before = [text for _, text in opened.lines()]
    assert origins
    zero(gone_on, "sqlite_schema")

    found = journal.recover(gone_on, out)

    assert found.is_complete
    with Journal.open(out, read_only=True) as opened:
        assert opened.info().origins == origins
        assert [text for _, text in opened.lines()] == before
        assert read_redaction(opened.connection()) is not None
    verification = journal.verify(out, full=True)
    assert verification.sound
    assert verification.redacted_count > 0


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A journal as a crash leaves it: half of its events are in the -wal, in thirty commits."""
    living = tmp_path / "living" / "a.db"
    living.parent.mkdir()
    with Journal.open(living) as opened:
        opened.append_ndjson(EVENTS[:300])
    with Journal.open(living) as opened:
        for first in range(300, 590, 10):
            opened.append_ndjson(EVENTS[first : first + 10])
        return copy(living, tmp_path / "a.db")


def test_a_wal_counts_and_what_no_block_covers_yet_is_unproven(crashed: Path, out: Path) -> None:
    found = recovered(crashed, out, EVENTS)

    assert found.is_complete
    assert found.with_wal
    assert (found.event_count, found.proven_count) == (590, 510)


def test_a_wal_that_was_lost_takes_with_it_what_it_had(crashed: Path, out: Path) -> None:
    crashed.with_name("a.db-wal").unlink()

    found = recovered(crashed, out, EVENTS)

    assert (found.event_count, found.proven_count, found.with_wal) == (300, 300, False)


def test_a_broken_frame_hides_no_other(crashed: Path, out: Path) -> None:
    wal = crashed.with_name("a.db-wal")
    content = bytearray(wal.read_bytes())
    frame = PAGE + 24
    count = (len(content) - 32) // frame
    assert count > 50
    for number in (7, count // 2):
        content[32 + frame * number + 500] ^= 1
    wal.write_bytes(content)

    found = recovered(crashed, out, EVENTS)

    assert found.with_wal
    assert found.event_count >= 580


@pytest.mark.parametrize("size", [0.0, 0.3, 0.7])
def test_a_truncated_wal_counts_up_to_its_last_commit(
    crashed: Path, out: Path, size: float
) -> None:
    wal = crashed.with_name("a.db-wal")
    content = wal.read_bytes()
    wal.write_bytes(content[: int(len(content) * size)])

    found = recovered(crashed, out, EVENTS)

    assert found.is_complete
    assert found.event_count % 10 == 0
    assert (300 < found.event_count < 590) if size else found.event_count == 300


def test_a_wal_without_its_header_counts(crashed: Path, out: Path) -> None:
    with crashed.with_name("a.db-wal").open("r+b") as wal:
        wal.write(bytes(32))

    assert recovered(crashed, out, EVENTS).event_count == 590


def test_a_wal_of_another_journal_does_not_count(crashed: Path, out: Path, sound: Path) -> None:
    for destroyed in (False, True):
        copy(sound, crashed.with_name("b.db"))
        wal = crashed.with_name("b.db-wal")
        wal.write_bytes(crashed.with_name("a.db-wal").read_bytes())
        if destroyed:
            fill_pages(crashed.with_name("b.db"), [1, 11], lambda: bytes(PAGE))

        found = recovered(crashed.with_name("b.db"), out, EVENTS)

        assert (found.with_wal, found.proven_count) == (False, 600)


def test_an_open_block_that_events_follow_far_behind_counts_as_sealed(
    crashed: Path, out: Path
) -> None:
    with closing(apsw.Connection(str(crashed))) as file:
        file.execute("DELETE FROM block WHERE first_seq > 401")
        file.execute("UPDATE block SET sealed = 0 WHERE first_seq = 401")
        file.execute("UPDATE session SET last_seq = 1 WHERE id = 1")  # so that pages are read

    found = recovered(crashed, out, EVENTS)

    assert (found.event_count, found.proven_count) == (590, 500)


def test_frames_that_were_never_committed_do_not_count(crashed: Path, out: Path) -> None:
    wal = crashed.with_name("a.db-wal")
    content = wal.read_bytes()
    frame = PAGE + 24
    last = max(at for at in range(32, len(content), frame) if content[at + 4 : at + 8] != bytes(4))
    wal.write_bytes(content[:last])  # the last transaction, but for its commit

    assert recovered(crashed, out, EVENTS).event_count == 580


# At random


def test_most_of_the_events_survive_any_destroyed_page(path: Path, sound: Path, out: Path) -> None:
    count = sound.stat().st_size // PAGE
    numbers = random.Random(1).sample(range(1, count + 1), min(count, 5 * ROUNDS))
    shares = []
    for number in numbers:
        copy(sound, path)
        fill_pages(path, [number], lambda: bytes(PAGE))
        shares.append(share(path, out, EVENTS))

    assert sum(shares) / len(shares) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("content", ["zeros", "noise", "another"])
def test_on_average_over_all_pages_of_a_file_95_percent_survive(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 1000)
    lines = LINES[:2500]
    sound, path = make(tmp_path / "sound.db", lines), tmp_path / "a.db"
    other = make(tmp_path / "other.db", LINES[2500:5000]).read_bytes()
    draw = random.Random(1)
    shares = []
    for number in range(1, sound.stat().st_size // PAGE + 1):
        copy(sound, path)
        at = PAGE * (number - 1)
        fills = {"zeros": bytes(PAGE), "noise": draw.randbytes(PAGE), "another": other[at:][:PAGE]}
        fill_pages(path, [number], lambda: fills[content].ljust(PAGE, b"\0"))
        shares.append(share(path, out, lines))
    assert sum(shares) / len(shares) >= (0.95 if content != "another" else 0.85)


def try_at_random(sound: Path, folder: Path, draw: random.Random, seed: str) -> None:
    path, out = folder / "a.db", folder / "out.db"
    what, content = damaged_at_random(draw, sound.read_bytes())
    path.write_bytes(content)
    with within(60, f"after {what} (seed {seed})"):
        try:
            share(path, out, EVENTS, several="," in what)
        except BaseException:
            print(f"after {what} (seed {seed})")
            raise


@pytest.mark.parametrize("seed", range(8 * ROUNDS))
def test_whatever_happens_to_a_file_nothing_is_invented(
    sound: Path, tmp_path: Path, seed: int
) -> None:
    try_at_random(sound, tmp_path, random.Random(seed), str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_nor_in_hundreds_of_cases(sound: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(f"many {seed}")
    for number in range(20 * LONG_ROUNDS):
        try_at_random(sound, tmp_path, draw, f"{seed}, number {number}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_nor_where_the_wal_is_damaged(crashed: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(f"wal {seed}")
    sound = {suffix: Path(f"{crashed}{suffix}").read_bytes() for suffix in ("", "-wal")}
    for number in range(50):
        for suffix, content in sound.items():
            what, damaged = damaged_at_random(draw, content)
            is_damaged = draw.random() < 0.7
            Path(f"{crashed}{suffix}").write_bytes(damaged if is_damaged else content)
        with within(60, f"after {what} (seed {seed}, number {number})"):
            share(crashed, tmp_path / "out.db", EVENTS, several=True)


# What is refused, and what is left


def refused(error: type[Exception], damaged: Any, out: Any, **options: Any) -> str:
    folder = Path(out).parent
    before = (
        bytes_in(folder) if folder.is_dir() and not any(map(Path.is_dir, folder.iterdir())) else {}
    )
    with pytest.raises(error) as caught:
        journal.recover(damaged, out, **options)
    if before:
        assert bytes_in(folder) == before
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_what_cannot_be_done_is_said_in_a_sentence_and_changes_nothing(
    path: Path, out: Path, tmp_path: Path
) -> None:
    refused(JournalNotFoundError, tmp_path / "none.db", out)
    refused(PathIsDirectoryError, tmp_path, tmp_path / "new" / "out.db")
    refused(JournalNotFoundError, path, tmp_path / "new" / "out.db")
    refused(WrongTargetError, path, path, force=True)
    refused(WrongTargetError, path, tmp_path / "a.db-wal")
    out.write_bytes(b"mine")
    refused(TargetExistsError, path, out)
    for content in (b"", b"no journal at all\n" * 1000, bytes(100_000)):
        path.write_bytes(content)
        assert "nothing of a journal" in refused(DamagedError, path, tmp_path / "new.db")
    other = apsw.Connection(str(tmp_path / "other.db"))
    other.execute("CREATE TABLE event (a, b); INSERT INTO event VALUES (1, 2)")
    other.close()
    assert "nothing of a journal" in refused(DamagedError, tmp_path / "other.db", tmp_path / "n.db")
    assert out.read_bytes() == b"mine"


def test_with_force_a_file_is_replaced(path: Path, out: Path) -> None:
    out.write_bytes(b"old")
    assert journal.recover(path, out, force=True).event_count == 600
    assert rows(out, "SELECT count(*) FROM event") == [(600,)]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_newer_format_is_refused_and_a_wrong_number_is_not(
    path: Path, out: Path, is_damaged: bool
) -> None:
    if is_damaged:
        zero(path, "projection_stream")
    with path.open("r+b") as file:  # user_version
        file.seek(60)
        file.write((7).to_bytes(4))
    assert recovered(path, out, EVENTS).event_count == 600
    with closing(apsw.Connection(str(path))) as file:
        file.execute("UPDATE meta SET value = '7' WHERE key = 'min_reader_version'")
    refused(NewerFormatError, path, out.with_name("new.db"))


def _recover_as_nobody(_channel: object, path: Path, out: Path) -> str:
    become_nobody()
    try:
        journal.recover(path, out)
    except AccessDeniedError as error:
        return str(error)
    return "done"


def test_no_permission(sound: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # where everybody may look
        folder = Path(name)
        (folder / "open").mkdir()
        folder.chmod(0o755)
        (folder / "open").chmod(0o777)
        path = copy(sound, folder / "a.db")
        path.chmod(0o600)
        text = run(_recover_as_nobody, path, folder / "open" / "out.db")
        assert text == f"{path}: cannot be read: permission denied"
        path.chmod(0o644)
        assert "cannot be made" in run(_recover_as_nobody, path, folder / "out.db")
        assert run(_recover_as_nobody, path, folder / "open" / "out.db") == "done"
        assert names_in(folder) == ["a.db", "open"]


@pytest.mark.parametrize("destroyed", [False, True])
def test_an_interrupt_leaves_everything_as_it_was(path: Path, out: Path, destroyed: bool) -> None:
    if destroyed:
        fill_pages(path, [1], lambda: bytes(PAGE))
    seen: list[tuple[int, int]] = []
    journal.recover(path, out, progress=lambda *at: seen.append(at))
    out.unlink()
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == path.stat().st_size // PAGE
    before = bytes_in(path.parent)
    for number in random.Random(1).sample(range(len(seen)), 3):
        left = number

        def interrupt(*_: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            journal.recover(path, out, progress=interrupt)
        assert bytes_in(path.parent) == before


def test_what_the_disk_does_not_give_is_as_if_it_were_zeros(
    path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad, *_) = pages_of(path, "event")
    real = recovering._read_at

    def failing(reading: Any, at: int, size: int) -> bytes:
        if at < bad * PAGE and at + size > (bad - 1) * PAGE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(reading, at, size)

    monkeypatch.setattr(recovering, "_read_at", failing)
    found = recovered(path, out, EVENTS)
    assert 0 < found.lost_count < 150


def test_the_pages_hold_what_sqlite_says(path: Path) -> None:
    found = {}
    with page_file(path, PAGE) as pages:
        for number in range(1, pages.count + 1):
            for row in pages.rows(number, pages.page(number))[0]:
                if len(row.values) == 8:
                    found[row.rowid] = tuple(row.values[1:])
    expected = rows(path, "SELECT * FROM event")
    assert found == {position: tuple(rest) for position, *rest in expected}
