"""Whatever is done to a journal, in any order, an `InMemoryEventStore` answers the same.

The limits (events per block, rows per page, heads and names kept) are made so small that every
few steps reach them. At the end of each run the file itself is checked, row by row.
"""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support import check_file, names_in, texts

from journal import (
    FramesBatched,
    InMemoryEventStore,
    InvalidEventError,
    Journal,
    JournalError,
    LineRejectedError,
    PatchFramesGenerated,
    PerformanceMetrics,
    PerformanceMetricsRecorded,
    PriorityDistribution,
    PriorityThresholdAdjusted,
    SessionActivated,
    SessionClosed,
    SessionExpired,
    SessionId,
    SessionState,
    SessionTimedOut,
    SessionTimeoutExtended,
    SkeletonGenerated,
    StreamCancelled,
    StreamCompleted,
    StreamConfigUpdated,
    StreamCreated,
    StreamFailed,
    StreamId,
    StreamStarted,
    Timestamp,
    limits,
    parse_event,
)
from journal.events import AnyEvent
from journal.events.kinds import KINDS
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS
from journal.file import appending, chain_heads, names, ndjson, wal
from journal.store import LinesAppended

SMALL_LIMITS: list[tuple[Any, str, int]] = [
    (chain_heads, "_HEADS_MAX", 3),
    (appending, "_RECORDS_AT_ONCE", 5),
    (appending, "ROWS_AT_ONCE", 2),
    (chain_heads, "ROWS_AT_ONCE", 2),
    (limits, "BLOCK_EVENTS_MAX", 7),
    (limits, "BLOCK_DATA_MAX", 300),
    (ndjson, "BATCH_EVENTS", 3),
    (wal, "_CHECKPOINT_PAGES", 8),
    (names, "_IDS_MAX", 2),
    (limits, "PAGE_EVENTS_MAX", 4),
]

# Few of each, so that they meet. The last stream has the UUID of a session.
SESSIONS = [SessionId(f"{number:032x}") for number in (1, 2, 3, 2**128 - 1, 2**63)]
STREAMS = [StreamId(f"{number:032x}") for number in (11, 12, 13, 3)]
KEYS = ["key 1", "key 2", "schlüssel\0", "'"]
NOON_NS = support.NOON.epoch_ns

sessions = st.sampled_from(SESSIONS)
streams = st.sampled_from(STREAMS)
instants = st.one_of(
    st.integers(NOON_NS - 5, NOON_NS + 5),
    st.sampled_from([MIN_EPOCH_NS, -1, 0, 1, MAX_EPOCH_NS]),
    st.integers(MIN_EPOCH_NS, MAX_EPOCH_NS),
).map(Timestamp.from_epoch_ns)
any_instants = st.one_of(
    instants, st.datetimes(timezones=st.just(UTC)).map(Timestamp.from_datetime)
)
u64 = st.one_of(
    st.sampled_from([0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1)
)
u8 = st.integers(0, 255)
floats = st.floats(allow_nan=False, allow_infinity=False)
short_texts = st.text(max_size=12)
distributions = st.builds(PriorityDistribution.from_counts, u64, u64, u64, u64, u64)
metrics = st.builds(
    PerformanceMetrics,
    frames_per_second=floats,
    bytes_per_second=floats,
    average_frame_size=floats,
    priority_distribution=distributions,
    latency_ms=st.none() | u64,
)

SESSION_EVENTS: dict[type[Any], dict[str, st.SearchStrategy[Any]]] = {
    SessionActivated: {},
    SessionClosed: {},
    SessionExpired: {},
    SessionTimedOut: {
        "original_state": st.sampled_from(SessionState),
        "timeout_duration": u64,
    },
    SessionTimeoutExtended: {"additional_seconds": u64, "new_expires_at": any_instants},
    FramesBatched: {"frame_count": u64},
    PriorityThresholdAdjusted: {"old_threshold": u8, "new_threshold": u8, "reason": short_texts},
    PerformanceMetricsRecorded: {"metrics": metrics},
}
STREAM_EVENTS: dict[type[Any], dict[str, st.SearchStrategy[Any]]] = {
    StreamCreated: {},
    StreamStarted: {},
    StreamCompleted: {},
    StreamFailed: {"error": short_texts},
    StreamCancelled: {},
    StreamConfigUpdated: {},
    SkeletonGenerated: {"frame_size_bytes": u64},
    PatchFramesGenerated: {"frame_count": u64, "total_bytes": u64, "highest_priority": u8},
}
assert len(SESSION_EVENTS) + len(STREAM_EVENTS) == len(KINDS)


@st.composite
def unknown_events(draw: st.DrawFn) -> AnyEvent:
    kind = draw(st.sampled_from(["stream_paused", "neu: ä", "nul\0", "'"]) | st.text(min_size=1))
    fields: dict[str, Any] = {"event_type": kind if kind not in KINDS else "other"}
    fields["session_id"] = str(draw(sessions))
    if draw(st.booleans()):
        fields["stream_id"] = str(draw(streams))
    fields["timestamp"] = draw(instants).rfc3339()
    fields["extra"] = draw(
        st.recursive(st.none() | st.integers() | short_texts, st.lists, max_leaves=4)
    )
    text = json.dumps(
        fields,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), None])),
    )
    return parse_event(text, unknown="keep")


events = st.one_of(
    *[
        st.builds(cls, session_id=sessions, timestamp=instants, **fields)
        for cls, fields in SESSION_EVENTS.items()
    ],
    *[
        st.builds(cls, session_id=sessions, stream_id=streams, timestamp=instants, **fields)
        for cls, fields in STREAM_EVENTS.items()
    ],
    unknown_events(),
)
batches = st.lists(events, max_size=12)
handles = st.integers(0, 1)
expectations = st.dictionaries(sessions, st.sampled_from([0, 0, 0, 0, 0, 1, -1]), max_size=3)
no_events = st.sampled_from(["", "  ", "{}", "[", "null", '{"event_type":"stream_created"}', "é"])


def outcome(act: Callable[[], Any]) -> Any:
    """Return what a call returns, or what its error tells."""
    try:
        return act()
    except JournalError as error:
        return type(error), str(error)


class JournalMachine(RuleBasedStateMachine):
    """Two handles on one file, which anybody may close and open again, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.began_ns = time.time_ns()
        self.patch = pytest.MonkeyPatch()
        for owner, name, limit in SMALL_LIMITS:
            self.patch.setattr(owner, name, limit)
        self.folder = Path(tempfile.mkdtemp(prefix="journal-model-"))
        self.path = self.folder / "a.db"
        self.model = InMemoryEventStore()
        self.keyed: dict[str, list[AnyEvent]] = {}
        self.journals = [self.opened(), self.opened()]

    def opened(self) -> Journal:
        return Journal.open(self.path, durability="normal")

    def version(self, session: SessionId) -> int:
        return len(self.model.get_events_for_session(session))

    def both(self, handle: int, act: Callable[[Any], Any]) -> Any:
        """Do something to a journal and to the model, and assert that both answer the same."""
        expected = outcome(lambda: act(self.model))
        found = outcome(lambda: act(self.journals[handle]))
        assert found == expected
        return found

    @rule(
        handle=handles, batch=batches, offsets=expectations, key=st.none() | st.sampled_from(KEYS)
    )
    def append(
        self, handle: int, batch: list[AnyEvent], offsets: dict[SessionId, int], key: str | None
    ) -> None:
        versions = {each: max(0, self.version(each) + offset) for each, offset in offsets.items()}
        found = self.both(
            handle,
            lambda store: store.append_events(batch, expected_versions=versions, key=key),
        )
        if key is not None and isinstance(found, tuple) and not isinstance(found[0], type):
            self.keyed.setdefault(key, batch)

    @precondition(lambda self: self.keyed)
    @rule(handle=handles, data=st.data())
    def repeat_an_append_under_its_key(self, handle: int, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.keyed)))
        stale = data.draw(st.dictionaries(sessions, st.integers(0, 3), max_size=2))
        self.both(
            handle,
            lambda store: store.append_events(
                iter(self.keyed[key]), expected_versions=stale, key=key
            ),
        )

    @rule(handle=handles, batch=batches)
    def fail_while_giving_events(self, handle: int, batch: list[AnyEvent]) -> None:
        def failing() -> Any:
            yield from batch
            raise LookupError

        with pytest.raises(LookupError):
            self.journals[handle].append_events(failing())
        with pytest.raises(InvalidEventError):
            self.journals[handle].append_events([*batch, None])  # type: ignore[list-item]

    @rule(
        handle=handles,
        lines=st.lists(events.map(lambda event: event.model_dump_json()) | no_events, max_size=15),
        stop=st.booleans(),
        keep=st.booleans(),
        as_bytes=st.booleans(),
    )
    def append_lines(
        self, handle: int, lines: list[str], *, stop: bool, keep: bool, as_bytes: bool
    ) -> None:
        before = self.model.event_count()
        rejected: list[int] = []
        good = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                good.append(parse_event(line, unknown="keep" if keep else "reject"))
            except InvalidEventError:
                rejected.append(number)
                if stop:
                    break
        self.model.append_events(good)
        after = self.model.event_count()
        expected = LinesAppended(
            len(good), len(rejected), before + 1 if good else None, after if good else None
        )
        told: list[int] = []

        def found() -> LinesAppended | Exception:
            given: Any = [f"{line}\n".encode() for line in lines] if as_bytes else iter(lines)
            try:
                return self.journals[handle].append_ndjson(
                    given,
                    on_error="stop" if stop else "skip",
                    unknown="keep" if keep else "reject",
                    on_reject=lambda each: told.append(each.line_number),
                )
            except LineRejectedError as error:
                if not stop or [error.line_number] != rejected:
                    return error
                return LinesAppended(error.appended, 1, error.first, error.last)

        assert found() == expected
        assert told == rejected

    @rule(handle=handles, session=sessions)
    def query_a_session(self, handle: int, session: SessionId) -> None:
        found = self.both(handle, lambda store: store.get_events_for_session(session))
        lines = self.journals[handle].lines(session_id=session)
        assert [line for _, line in lines] == texts(found)

    @rule(handle=handles, stream=streams, session=sessions)
    def query_a_stream(self, handle: int, stream: StreamId, session: SessionId) -> None:
        found = self.both(handle, lambda store: store.get_events_for_stream(stream))
        lines = self.journals[handle].lines(stream_id=stream, session_id=session)
        assert [line for _, line in lines] == texts(
            event for event in found if event.session_id == session
        )

    @rule(handle=handles, since=any_instants | st.just(datetime(1, 1, 1, tzinfo=UTC)), after=u8)
    def query_since(self, handle: int, since: datetime, after: int) -> None:
        found = self.both(handle, lambda store: store.get_events_since(since))
        instant = Timestamp.from_datetime(since)
        everything = self.model.all_events()
        assert texts(found) == texts(event for event in everything if event.timestamp > instant)
        assert list(self.journals[handle].lines(after, since=since)) == [
            (position, event.model_dump_json())
            for position, event in enumerate(everything, 1)
            if position > after and event.timestamp > instant
        ]

    @rule(handle=handles, after=st.integers(0, 40), limit=st.none() | st.integers(0, 40))
    def read(self, handle: int, after: int, limit: int | None) -> None:
        recorded = list(enumerate(self.model.all_events(), 1))[after:][:limit]
        assert list(self.journals[handle].read(after, limit)) == recorded
        assert list(self.journals[handle].lines(after)) == [
            (position, event.model_dump_json())
            for position, event in enumerate(self.model.all_events(), 1)
            if position > after
        ]

    @rule(reader=handles, writer=handles, batch=batches)
    def append_while_reading(self, reader: int, writer: int, batch: list[AnyEvent]) -> None:
        before = self.model.all_events()
        recorded = self.journals[reader].read()
        first = next(recorded, None)
        self.both(writer, lambda store: store.append_events(batch))
        assert [event for _, event in [*([first] if first else []), *recorded]] == before

    @rule(handle=handles)
    def close_and_open_again(self, handle: int) -> None:
        self.journals[handle].close()
        self.journals[handle] = self.opened()

    @rule()
    def close_all_and_open_again(self) -> None:
        for journal in self.journals:
            journal.close()
        self.check()
        self.journals = [self.opened(), self.opened()]

    @rule()
    def read_only(self) -> None:
        with Journal.open(self.path, read_only=True) as journal:
            assert texts(event for _, event in journal.read()) == texts(self.model.all_events())

    @invariant()
    def positions_agree(self) -> None:
        for journal in self.journals:
            assert journal.last_position == journal.event_count() == self.model.event_count()

    def check(self) -> None:
        """Check the file that everybody has closed."""
        assert names_in(self.folder) == ["a.db"]
        assert check_file(self.path, closed=True) == texts(self.model.all_events())
        with contextlib.closing(apsw.Connection(str(self.path))) as connection:
            assert {
                key: (tuple(positions), digest)
                for key, *positions, digest in connection.execute(
                    "SELECT key, first_seq, last_seq, digest FROM append_key"
                )
            } == {key: (tuple(entry[0]), entry[1]) for key, entry in self.model._keys.items()}
            for (used_at,) in connection.execute("SELECT used_at FROM append_key"):
                assert self.began_ns <= used_at <= time.time_ns()

    def teardown(self) -> None:
        try:
            for journal in self.journals:
                journal.close()
            self.check()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)


TestAJournalAnswersAsTheModelDoes = JournalMachine.TestCase
TestAJournalAnswersAsTheModelDoes.settings = settings(
    max_examples=6 * support.ROUNDS,
    stateful_step_count=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes minutes
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    "seconds", [range(2500, 0, -1), [*range(1000, 2000), *range(1200)], [5] * 2500]
)
def test_since_keeps_append_order_across_blocks_whatever_their_times(
    tmp_path: Path, seconds: Sequence[int]
) -> None:
    """A clock that steps back must not move later events before earlier ones."""
    session = SessionId.new()
    events = support.numbered(session, seconds)
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_events(events)
        for after in (-1, 1, 400, 1200):
            since = support.NOON + timedelta(seconds=after)
            expected = [each for each in events if support.number_of(each) > after]

            assert journal.get_events_since(since) == expected
            assert [line for _, line in journal.lines(since=since)] == texts(expected)
