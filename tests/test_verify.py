"""Verifying: what is damaged is found and named, what is sound is not, whatever others do."""

import shutil
from pathlib import Path

import pytest
from support import lines_of
from verify_support import COUNTING, codes, execute, verified

from journal import Journal, limits, parse_event

LINES = lines_of("mixed/events.ndjson")[:330]
EVENTS = [parse_event(line) for line in LINES]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 40)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "a.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
        with Journal.open(path) as opened:
            opened.append_ndjson(LINES[:100])
            opened.append_events(EVENTS[100:160], key="k")
            opened.append_events([], key="empty")
            opened.append_ndjson(LINES[160:])
            opened.sessions()
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "a.db"))


# What is sound


def test_a_whole_file_is_proven(path: Path) -> None:
    found = verified(path)

    assert found.sound
    assert (found.event_count, found.proven_count) == (330, 330)
    assert (found.redacted_count, found.uncovered_count, found.absent_count) == (0, 0, 0)
    assert (found.first_position, found.last_position, found.covered_up_to) == (1, 330, 330)
    assert (found.full, found.checked_after, found.unchecked) == (True, 0, ())
    with Journal.open(path, read_only=True) as opened:
        assert opened.info().head == found.head


def test_a_quick_look_takes_the_last_blocks(path: Path) -> None:
    found = verified(path, full=False)

    assert found.sound
    assert (found.checked_after, found.event_count, found.proven_count) == (200, 130, 130)
    execute(path, "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 130")
    assert codes(path, full=False) == set()
    execute(path, "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 230")
    assert codes(path, full=False) == {"block-content"}


def test_an_empty_journal_is_sound(tmp_path: Path) -> None:
    Journal.open(tmp_path / "a.db").close()
    for full in (False, True):
        found = verified(tmp_path / "a.db", full=full)
        assert found.sound
        assert (found.head, found.last_position, found.covered_up_to) == (None, None, 0)


def test_what_no_block_covers_yet_is_counted_and_read(path: Path) -> None:
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:5])
        for full in (False, True):
            found = verified(path, full=full)
            assert found.sound
            assert (found.covered_up_to, found.uncovered_count) == (330, 5)
            assert found.head == opened.info().head
        head = found.head
        opened.append_ndjson(LINES[:30])  # which seals the block
        assert verified(path, head=head).sound
    assert verified(path, head=head).uncovered_count == 0


def test_a_file_that_a_crash_left_is_sound(path: Path, tmp_path: Path) -> None:
    """The -wal has what was appended last."""
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:60])
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"b.db{suffix}")

    assert verified(tmp_path / "b.db").last_position == 390


def test_an_application_s_own_projection_is_left_to_it(path: Path) -> None:
    with Journal.open(path) as opened:
        opened.register(COUNTING)
        opened.states("count")

    found = verified(path)
    assert found.sound
    assert found.unchecked == ("count: only its application can fold it",)


def test_projections_that_are_behind_are_compared_as_far_as_they_are(path: Path) -> None:
    with Journal.open(path) as opened:
        opened.append_ndjson(LINES[:10])
        assert verified(path).sound
    execute(path, "UPDATE projection_session SET event_count = 99 WHERE session = 3")
    assert codes(path) == {"projection"}
    execute(path, "UPDATE checkpoint SET version = 0")
    assert verified(path).unchecked == ("sessions and streams: another version has folded them",)
    execute(path, "DELETE FROM checkpoint")
    assert verified(path).unchecked == ("sessions and streams: they are not folded yet",)


# Whatever is done to events and blocks


DELETED = "DELETE FROM event WHERE seq "
EXCHANGED = (
    "UPDATE event SET seq = -1 WHERE seq = {0}; UPDATE event SET seq = {0} WHERE seq = {1};"
    "UPDATE event SET seq = {1} WHERE seq = -1"
)
CHANGES = {
    "removed": (f"{DELETED} = 130", {"event-missing"}),
    "the first removed": (f"{DELETED} = 1", {"extent", "event-missing"}),
    "the last removed": (f"{DELETED} = 330", {"extent", "event-missing", "head"}),
    "a block of them removed": (f"{DELETED} BETWEEN 101 AND 150", {"event-missing"}),
    "all removed": (f"{DELETED} > 0", {"extent", "event-missing", "head"}),
    "added": (
        (
            "INSERT INTO event SELECT 331, kind, session, stream, timestamp, data, NULL, NULL"
            " FROM event WHERE seq = 7"
        ),
        {"head", "link"},
    ),
    "added before": (
        (
            "INSERT INTO event SELECT 0, kind, session, stream, timestamp, data, NULL, NULL"
            " FROM event WHERE seq = 7"
        ),
        {"extent", "event-position"},
    ),
    "exchanged": (EXCHANGED.format(120, 121), {"block-content"}),
    "exchanged far apart": (EXCHANGED.format(20, 310), {"block-content"}),
    "shifted": (
        (
            "UPDATE event SET seq = -seq - 1 WHERE seq > 120; UPDATE event SET seq = -seq"
            " WHERE seq < 0"
        ),
        {"event-missing", "block-content"},
    ),
    "another time": ("UPDATE event SET timestamp = timestamp - 1 WHERE seq = 5", {"block-content"}),
    "another kind": ("UPDATE event SET kind = 1 WHERE seq = 5", {"block-content"}),
    "another session": ("UPDATE event SET session = session % 3 + 1 WHERE seq = 5", {"link"}),
    "no such kind": ("UPDATE event SET kind = 999 WHERE seq = 5", {"event-names"}),
    "no such session": ("UPDATE event SET session = 999 WHERE seq = 5", {"event-names"}),
    "no such stream": ("UPDATE event SET stream = 9999 WHERE seq = 5", {"event-names"}),
    "another text": (
        "UPDATE event SET data = replace(data, '1', '2') WHERE seq BETWEEN 1 AND 50",
        {"block-content"},
    ),
    "the text as a blob": (
        "UPDATE event SET data = CAST(data AS BLOB) WHERE data IS NOT NULL",
        {"block-content"},
    ),
    "text that is not UTF-8": (
        "UPDATE event SET data = CAST(x'5bff5d' AS TEXT) WHERE seq = 60",
        {"unreadable"},
    ),
    "two sessions for each other": (
        (
            "UPDATE session SET uuid = x'01' WHERE id = 1;"
            "UPDATE session SET uuid = (SELECT uuid FROM session WHERE id = 1) WHERE id = 99"
        ),
        {"id", "event-names"},
    ),
    "a block removed": ("DELETE FROM block WHERE first_seq = 101", {"block-missing"}),
    "the last blocks removed": ("DELETE FROM block WHERE first_seq > 200", {"block-missing"}),
    "all blocks removed": ("DELETE FROM block", {"block-missing"}),
    "blocks and events removed": (
        f"DELETE FROM block WHERE first_seq > 200; {DELETED} > 200",
        {"head"},
    ),
    "a block twice": (
        (
            "INSERT INTO block SELECT 120, last_seq, min_timestamp, max_timestamp, salt,"
            " content_digest, digest, redacted_digest, sealed FROM block WHERE first_seq = 101"
        ),
        {"block-range"},
    ),
    "another digest": (
        "UPDATE block SET digest = content_digest WHERE first_seq = 101",
        {"block-chain"},
    ),
    "another content": (
        "UPDATE block SET content_digest = digest WHERE first_seq = 101",
        {"block-content", "block-chain"},
    ),
    "no digest": ("UPDATE block SET digest = '' WHERE first_seq = 101", {"block", "block-missing"}),
    "another salt": ("UPDATE block SET salt = '00' WHERE first_seq = 101", {"block-content"}),
    "another time of a block": (
        "UPDATE block SET max_timestamp = max_timestamp + 1 WHERE first_seq = 101",
        {"block-times"},
    ),
    "a block of another length": (
        "UPDATE block SET last_seq = last_seq - 1 WHERE first_seq = 101",
        {"block-missing", "block-content"},
    ),
    "a block that ends nowhere": (
        "UPDATE block SET last_seq = 5000000000 WHERE first_seq = 301",
        {"extent", "event-missing"},
    ),
    "open in the middle": ("UPDATE block SET sealed = 0 WHERE first_seq = 101", {"block-open"}),
    "redacted by nobody": (
        "UPDATE block SET salt = NULL, redacted_digest = digest WHERE first_seq = 101",
        {"block-redacted"},
    ),
    "another link": ("UPDATE event SET session_prev = 1 WHERE seq = 200", {"link"}),
    "a link forward": ("UPDATE event SET stream_prev = 300 WHERE seq = 200", {"link"}),
    "no link": ("UPDATE event SET session_prev = NULL WHERE seq = 200", {"link"}),
    "a link of text": ("UPDATE event SET session_prev = 'x' WHERE seq = 200", {"link"}),
    "another head": ("UPDATE session SET last_seq = last_seq - 1 WHERE id = 1", {"head"}),
    "another count": ("UPDATE stream SET event_count = event_count + 1 WHERE id = 1", {"head"}),
    "a session without events": (
        "INSERT INTO session VALUES (999, x'00112233445566778899aabbccddeeff', 1, 1)",
        {"head"},
    ),
    "no head": ("DELETE FROM session WHERE id = 2", {"event-names"}),
    "an id that is none": ("UPDATE stream SET uuid = x'00' WHERE id = 1", {"id", "event-names"}),
    "an id of text": (
        "UPDATE session SET uuid = CAST(zeroblob(16) AS TEXT) WHERE id = 1",
        {"id", "event-names"},
    ),
    "another name of a kind": ("UPDATE kind SET name = 'x' WHERE code = 1", {"block-content"}),
    "other fields of a kind": (
        "UPDATE kind SET fields = '[\"x\"]' WHERE name = 'stream_failed'",
        {"kind"},
    ),
    "a kind that is said to be kept whole": (
        "UPDATE kind SET fields = NULL WHERE name = 'stream_created'",
        {"kind"},
    ),
    "a kind too few": ("DELETE FROM kind WHERE name = 'stream_created'", {"event-names"}),
    "a checkpoint beyond the end": ("UPDATE checkpoint SET position = 900", {"checkpoint"}),
    "another state": (
        "UPDATE projection_stream SET state = 'Failed' WHERE stream = 1",
        {"projection"},
    ),
    "a state too many": (
        (
            "INSERT INTO projection_session SELECT 9999, state, 1, 1, NULL, 1, 1, 1, 0, 0, 1, 0,"
            " NULL, 0, NULL FROM projection_session LIMIT 1"
        ),
        {"projection"},
    ),
    "an anomaly": (
        "INSERT INTO projection_anomaly VALUES (7, 1, NULL, 'x', NULL, 'x')",
        {"projection"},
    ),
    "another key": ("UPDATE append_key SET digest = digest || '0' WHERE key = 'k'", {"key"}),
    "a key for other events": (
        "UPDATE append_key SET first_seq = first_seq + 1 WHERE key = 'k'",
        {"key"},
    ),
    "a key beyond the end": ("UPDATE append_key SET last_seq = 900 WHERE key = 'k'", {"key"}),
    "two keys for the same": (
        (
            "INSERT INTO append_key SELECT 'l', first_seq, last_seq, digest, used_at"
            " FROM append_key WHERE key = 'k'"
        ),
        {"key"},
    ),
    "absent that is there": (
        "INSERT INTO absent VALUES (1, 50, 'pruned', NULL, 1, 2, NULL, NULL, NULL, '', '')",
        {"absent"},
    ),
    "not the id of a journal": (
        "UPDATE meta SET value = 'x' WHERE key = 'journal_id'",
        {"meta"},
    ),
    "a mark that is no number": ("INSERT INTO meta VALUES ('session_mark', '-1')", {"meta"}),
    "closed by nobody": ("INSERT INTO meta VALUES ('closed', 'x')", {"meta"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found(path: Path, change: str) -> None:
    statements, expected = CHANGES[change]
    execute(path, statements)

    assert codes(path) >= expected
