"""No bit of a file can change an event without being found."""

import os
import random
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import FIRST_SEED, LONG_ROUNDS, lines_of

import journal
from journal import Journal, JournalError, SessionId, StreamId, parse_event, limits

LINES = lines_of("mixed/events.ndjson")[:60]
EVENTS = [parse_event(line) for line in LINES]
NEXT_VERSION = lines_of("next_version.ndjson")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "a.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", 20)
        with Journal.open(path) as opened:
            opened.append_ndjson(LINES[:25])
            opened.append_ndjson(NEXT_VERSION, unknown="keep")
            opened.append_events(EVENTS[25:40], key="k")
            opened.append_ndjson(LINES[40:])
            opened.sessions()
    with closing(apsw.Connection(str(path))) as file:
        file.execute("PRAGMA journal_mode = DELETE")  # what is left of the -wal is not in question
    return path


def meaning(path: Path) -> list[Any]:
    """Return all that the events of a file mean, read in every way there is."""
    with Journal.open(path, read_only=True) as opened:
        lines = list(opened.lines())
        events = [(one.position, one.event) for one in opened.read()]
        sessions = sorted({str(event.session_id) for _, event in events})
        streams = sorted({str(e.stream_id) for _, e in events if e.stream_id is not None})
        by_session = [opened.get_events_for_session(SessionId.parse(one)) for one in sessions]
        by_stream = [opened.get_events_for_stream(StreamId.parse(one)) for one in streams]
        versions = [opened.version(SessionId.parse(one)) for one in sessions]
        since = [opened.get_events_since(event.timestamp) for _, event in events[::7]]
        return [lines, events, by_session, by_stream, versions, since]


def check_flips(whole: Path, path: Path, bits: Any) -> tuple[int, int]:
    """Flip each bit alone; either it is found, or the events mean the same."""
    original = whole.read_bytes()
    before = meaning(whole)
    assert journal.verify(whole, full=True).sound
    found = same = 0
    path.write_bytes(original)
    with path.open("rb+") as file:
        for bit in bits:
            place, mask = bit // 8, 1 << bit % 8
            os.pwrite(file.fileno(), bytes([original[place] ^ mask]), place)
            try:
                is_sound = journal.verify(path, full=True).sound
            except journal.NewerFormatError:
                is_sound = False
            if is_sound:
                same += 1
                assert meaning(path) == before, f"bit {bit}: page {place // 4096 + 1}, byte {place % 4096}"
            else:
                found += 1
            os.pwrite(file.fileno(), original[place : place + 1], place)
    return found, same


def test_a_sample_of_single_bits(whole: Path, tmp_path: Path) -> None:
    seed = FIRST_SEED or random.randrange(2**32)
    print(f"again: JOURNAL_TEST_SEED={seed}")
    draw = random.Random(seed)
    bits = [draw.randrange(whole.stat().st_size * 8) for _ in range(int(os.environ.get("N", 100)))]
    found, same = check_flips(whole, tmp_path / "b.db", bits)
    print(found, same)
