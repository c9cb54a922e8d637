"""A program that `test_kinds` runs with a copy of the package whose table has one more kind.

The kind is `stream_paused`, with one integer field, `waiting_frames`.
"""

import json
import sys
from contextlib import closing
from pathlib import Path

import apsw
import independent_reader
from pydantic import TypeAdapter

import journal
import journal.events
from journal.events.kinds import KINDS, StreamPaused  # type: ignore[attr-defined]
from journal.projections.lifecycle_states import LifecycleFold
from journal.testing import EventStoreConformance

folder = Path(sys.argv[1])
assert Path(journal.__file__).is_relative_to(folder), journal.__file__

SESSION, STREAM = journal.SessionId.new(), journal.StreamId.new()
NOW = journal.Timestamp.parse("2026-01-01T00:00:00.123456789Z")
IDS = {"session_id": SESSION, "stream_id": STREAM, "timestamp": NOW}
EVENTS = [
    journal.SessionActivated(session_id=SESSION, timestamp=NOW),
    journal.StreamCreated(**IDS),
    StreamPaused(waiting_frames=2**64 - 1, **IDS),
]
TEXT = (
    f'{{"event_type":"stream_paused","session_id":"{SESSION}","stream_id":"{STREAM}",'
    f'"waiting_frames":18446744073709551615,"timestamp":"2026-01-01T00:00:00.123456789Z"}}'
)

# The wire.
assert len(KINDS) == 17
assert EVENTS[2].model_dump_json() == TEXT
assert journal.parse_event(TEXT) == EVENTS[2]
assert TypeAdapter(journal.DomainEvent).validate_json(TEXT) == EVENTS[2]
assert str(EVENTS[2].event_id).endswith("-0000-000000000000")
for wrong in ("-1", "1.0", '"1"', "18446744073709551616", "null", '1,"waiting_frames":1', "-0"):
    try:
        journal.parse_event(TEXT.replace("18446744073709551615", wrong))
    except journal.InvalidEventError:
        continue
    raise AssertionError(wrong)

# The help.
ROW = "stream_paused\n  A stream waits, with so many frames to send.\n    stream_id       id\n"
assert f"{ROW}    waiting_frames  u64\n" in (journal.events.__doc__ or "")

# The stores.
tests = EventStoreConformance()
path = folder / "new.db"
with journal.Journal.open(path) as opened:
    for store in (opened, journal.InMemoryEventStore()):
        store.append_events(EVENTS)
        assert store.get_events_for_stream(STREAM) == EVENTS[1:]
        assert store.get_events_for_session(SESSION) == EVENTS
    assert [text for _, text in opened.lines()][2] == TEXT
    assert opened.info().counts_by_kind["stream_paused"] == 1

    # The fold: it is counted, and does nothing that nobody wrote.
    (stream,) = opened.streams()
    assert (stream.event_count, stream.state, stream.anomalies) == (2, "Preparing", 0)

# The view and the format.
with closing(apsw.Connection(str(path))) as file:
    (data,) = file.execute("SELECT data FROM events WHERE event_type = 'stream_paused'").fetchone()
    assert json.loads(data) == {"waiting_frames": 2**64 - 1}
    fields = "SELECT fields FROM kind WHERE name = 'stream_paused'"
    assert file.execute(fields).fetchone() == ('["waiting_frames"]',)
found = independent_reader.read(path)
assert found[2]["values"] == {"waiting_frames": 2**64 - 1}

# A file of an older version, which kept such events whole, and had given the code 17 to another.
old = folder / "old.db"
codes = {"stream_resumed": 17, "stream_paused": 18}
with closing(apsw.Connection(str(old))) as file:
    assert dict(file.execute("SELECT name, code FROM kind WHERE code > 16")) == codes
with journal.Journal.open(old, read_only=True) as opened:
    before = [one.event for one in opened.read()]
    states = opened.streams()
    assert isinstance(before[-1], StreamPaused)
    assert [one.stale for one in opened.projections()] == [True, True]
    assert [one.version for one in opened.projections()] == [LifecycleFold.version] * 2
    assert states[0].event_count == 2  # folded anew, though a checkpoint says all is folded
with journal.Journal.open(old) as opened:
    assert [one.event for one in opened.read()] == before
    assert opened.streams() == states
    opened.append_events([StreamPaused(waiting_frames=7, **IDS)])
    assert opened.streams()[-1].event_count == 1
    assert [one.stale for one in opened.projections()] == [False, False]
    assert opened.rebuild(check=True)[0].change_count == 0
    assert [one.position for one in opened.projections()] == [opened.last_position] * 2
with closing(apsw.Connection(str(old))) as file:
    rows = file.execute("SELECT code, fields FROM kind WHERE name = 'stream_paused'").fetchall()
    assert rows == [(18, None), (19, '["waiting_frames"]')]
    assert file.execute("SELECT kind FROM event ORDER BY seq DESC LIMIT 1").fetchone() == (19,)
    shown = file.execute("SELECT data FROM events WHERE event_type = 'stream_paused'").fetchall()
    whole, by_field = (json.loads(data) for (data,) in shown)
    assert whole["event_type"] == "stream_paused"
    assert by_field == {"waiting_frames": 7}
assert LifecycleFold.names == ("sessions", "streams")
print("all is well")
