"""What the tests of verifying share: files with something of everything, and what they mean."""

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import lines_of

import journal
from journal import (
    Finding,
    Journal,
    NewerFormatError,
    Projection,
    SessionId,
    StreamId,
    Verification,
    limits,
    parse_event,
)

LINES = lines_of("mixed/events.ndjson")[:60]
COUNTING = Projection("count", 1, {"n": 0}, lambda state, _: {"n": state["n"] + 1})


def make_whole(path: Path, *, page_bytes: int = 512, block_events: int = 20) -> Path:
    """Make a file of sixty events and one of an unknown kind, with keys, states and four blocks.

    Its pages are small, so that there are many and little of them is empty; it has no -wal.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", block_events)
        with Journal.open(path, label="whole") as opened:
            opened.register(COUNTING)
            opened.append_ndjson(LINES[:25])
            opened.append_ndjson(lines_of("next_version.ndjson"), unknown="keep")
            opened.append_events([parse_event(line) for line in LINES[25:40]], key="k")
            opened.append_events([], key="empty")
            opened.append_ndjson(LINES[40:])
            opened.sessions()
            opened.states("count")
    with closing(apsw.Connection(str(path))) as file:
        sql = f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {page_bytes}; VACUUM"
        file.execute(sql).fetchall()
    return path


def execute(path: Path, statements: str, *parameters: Any) -> None:
    """Change a file behind the journal's back."""
    with closing(apsw.Connection(str(path))) as file:
        for trigger in ("event_is_never_updated", "event_is_deleted_only_where_absent"):
            file.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        file.execute(statements, parameters or None).fetchall()


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


def verified(path: Path, *, full: bool = True, head: str | None = None) -> Verification:
    """Verify a file, and hold what is told on the way against what comes in the end."""
    told: list[Finding] = []
    done: list[tuple[int, int]] = []
    found = journal.verify(
        path,
        full=full,
        head=head,
        on_finding=told.append,
        progress=lambda *figures: done.append(figures),
    )
    assert found.findings == tuple(told)[:1000]
    assert found.finding_count == len(told)
    assert found.sound is (not told)
    assert (found.head is None) is (not found.sound or found.last_position is None)
    assert done == sorted(done)
    for finding in told:
        assert finding.text.isprintable()
        assert len(finding.text) < 600
    return found


def codes(path: Path, *, full: bool = True, head: str | None = None) -> set[str]:
    """Return the codes of what is found."""
    return {finding.code for finding in verified(path, full=full, head=head).findings}


def is_said_to_be_sound(path: Path) -> bool:
    """Tell whether a damaged file passes for sound; anything but an answer fails the test."""
    try:
        quick = verified(path, full=False)
        full = verified(path)
    except NewerFormatError:  # a number of the format that was changed looks like that
        return False
    assert quick.sound or not full.sound
    return full.sound


def remove(path: Path) -> None:
    """Remove a file with what is beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def overwrite(path: Path, place: int, data: bytes) -> None:
    """Write somewhere into a file."""
    with path.open("rb+") as file:
        file.seek(place)
        file.write(data)
