"""The contract of an event store as a test class, for this package's stores and for yours.

    from journal.testing import EventStoreConformance

    class TestMyStore(EventStoreConformance):
        @pytest.fixture
        def store(self):
            return MyStore()

It needs pytest. Every test gets a new, empty store.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from journal.errors import ConcurrencyError, InvalidEventError, KeyConflictError
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import (
    SessionActivated,
    SessionClosed,
    StreamCreated,
    StreamFailed,
)
from journal.events.parsing import parse_event
from journal.events.timestamps import Timestamp
from journal.events.unknown import AnyEvent
from journal.store import Appended, EventStore

_NOON = Timestamp(2026, 1, 1, 12, tzinfo=UTC)


def _activated(session_id: SessionId, seconds: float = 0) -> SessionActivated:
    return SessionActivated(session_id=session_id, timestamp=_NOON + timedelta(seconds=seconds))


def _created(session_id: SessionId, stream_id: StreamId, seconds: float = 0) -> StreamCreated:
    timestamp = _NOON + timedelta(seconds=seconds)
    return StreamCreated(session_id=session_id, stream_id=stream_id, timestamp=timestamp)


class EventStoreConformance:
    """What every `EventStore` must do. Subclass it, and provide a fixture named `store`."""

    @pytest.fixture
    def store(self) -> EventStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def test_it_is_an_event_store(self, store: EventStore) -> None:
        """The protocol is met."""
        assert isinstance(store, EventStore)

    def test_a_new_store_holds_nothing(self, store: EventStore) -> None:
        """Unknown ids give empty lists."""
        assert store.get_events_for_session(SessionId.new()) == []
        assert store.get_events_for_stream(StreamId.new()) == []
        assert store.get_events_since(datetime(1970, 1, 1, tzinfo=UTC)) == []

    def test_an_id_of_the_other_kind_is_refused(self, store: EventStore) -> None:
        """A mistake is an error, not an empty answer."""
        same = SessionId.new()
        wrong: object
        for wrong in (StreamId(str(same)), str(same), None):
            with pytest.raises(TypeError, match="expected a SessionId"):
                store.get_events_for_session(wrong)  # type: ignore[arg-type]
        for wrong in (same, str(same), None):
            with pytest.raises(TypeError, match="expected a StreamId"):
                store.get_events_for_stream(wrong)  # type: ignore[arg-type]

    def test_what_is_no_collection_of_events_is_refused(self, store: EventStore) -> None:
        """One event is not a list of one."""
        for wrong in (_activated(SessionId.new()), None, "events", 5):
            with pytest.raises(InvalidEventError, match="expected events, as in a list, found one"):
                store.append_events(wrong)  # type: ignore[arg-type]

    def test_positions_count_from_one_without_gaps(self, store: EventStore) -> None:
        """Each append says which positions its events got."""
        session_id = SessionId.new()

        assert store.append_events([_activated(session_id)]) == Appended(1, 1)
        assert store.append_events([]) == Appended(None, None)
        assert store.append_events([_activated(session_id)] * 3) == Appended(2, 4)

    def test_any_iterable_of_events_is_taken(self, store: EventStore) -> None:
        """A generator is as good as a list."""
        session_id = SessionId.new()

        store.append_events(_activated(session_id, second) for second in range(3))

        assert len(store.get_events_for_session(session_id)) == 3

    def test_sessions_and_streams_keep_append_order(self, store: EventStore) -> None:
        """The order is that of appending, not that of timestamps."""
        sessions = [SessionId.new(), SessionId.new()]
        stream_id = StreamId.new()
        late = _created(sessions[0], stream_id, seconds=9)
        early = StreamFailed(
            session_id=sessions[0], stream_id=stream_id, error="reset", timestamp=_NOON
        )
        other = _activated(sessions[1], seconds=5)
        stray = _created(sessions[1], stream_id, seconds=1)

        store.append_events([late, other])
        store.append_events([early, stray])

        assert store.get_events_for_session(sessions[0]) == [late, early]
        assert store.get_events_for_session(sessions[1]) == [other, stray]
        assert store.get_events_for_stream(stream_id) == [late, early, stray]

    def test_since_is_strict_to_the_nanosecond(self, store: EventStore) -> None:
        """An event at the very instant is not later than it."""
        session_id = SessionId.new()
        instants = [_NOON.epoch_ns + nanosecond for nanosecond in (0, 1, 2)]
        events = [
            SessionActivated(session_id=session_id, timestamp=Timestamp.from_epoch_ns(instant))
            for instant in instants
        ]

        store.append_events(events)

        for index, instant in enumerate(instants):
            found = store.get_events_since(Timestamp.from_epoch_ns(instant))
            assert found == events[index + 1 :]
        assert store.get_events_since(_NOON - timedelta(microseconds=1)) == events

    def test_since_takes_any_aware_datetime_and_no_naive_one(self, store: EventStore) -> None:
        """Offsets are converted; a datetime without one is refused."""
        event = _activated(SessionId.new(), seconds=1)
        store.append_events([event])
        noon_in_tokyo = datetime(2026, 1, 1, 21, tzinfo=timezone(timedelta(hours=9)))

        assert store.get_events_since(noon_in_tokyo) == [event]
        assert store.get_events_since(noon_in_tokyo + timedelta(seconds=1)) == []
        with pytest.raises(ValueError, match="offset"):
            store.get_events_since(datetime(2026, 1, 1, 12))  # noqa: DTZ001

    def test_since_returns_append_order(self, store: EventStore) -> None:
        """Timestamps may run backwards."""
        session_id = SessionId.new()
        events = [_activated(session_id, seconds) for seconds in (5, 1, 9, 3, 7)]

        store.append_events(events)

        assert store.get_events_since(_NOON + timedelta(seconds=3)) == [
            events[index] for index in (0, 2, 4)
        ]

    def test_an_append_is_all_or_nothing(self, store: EventStore) -> None:
        """With something that is not an event, nothing is appended."""
        session_id = SessionId.new()

        def events() -> Iterable[AnyEvent]:
            yield _activated(session_id)
            yield "not an event"  # type: ignore[misc]

        with pytest.raises(InvalidEventError, match="expected an event, found str"):
            store.append_events(events())

        assert store.get_events_for_session(session_id) == []
        assert store.append_events([_activated(session_id)]) == Appended(1, 1)

    def test_an_error_in_the_source_of_events_appends_nothing(self, store: EventStore) -> None:
        """The source's own exception comes through."""
        session_id = SessionId.new()

        def events() -> Iterable[AnyEvent]:
            yield _activated(session_id)
            raise LookupError

        with pytest.raises(LookupError):
            store.append_events(events())

        assert store.get_events_for_session(session_id) == []

    def test_expected_versions_guard_against_other_writers(self, store: EventStore) -> None:
        """A version is the number of events of the session; 0 means that there is none yet."""
        one, two = SessionId.new(), SessionId.new()

        store.append_events([_activated(one)], expected_versions={one: 0, two: 0})
        store.append_events([_activated(one), _activated(two)], expected_versions={one: 1, two: 0})
        with pytest.raises(ConcurrencyError) as caught:
            store.append_events([_activated(two)], expected_versions={two: 1, one: 1})

        assert caught.value.session_id == one
        assert (caught.value.expected, caught.value.actual) == (1, 2)
        assert len(store.get_events_for_session(two)) == 1

    def test_expected_versions_may_name_sessions_outside_the_batch(self, store: EventStore) -> None:
        """What an append was decided on may be more than what it changes."""
        one, two = SessionId.new(), SessionId.new()
        store.append_events([_activated(one)])

        store.append_events([_activated(two)], expected_versions={one: 1})
        with pytest.raises(ConcurrencyError):
            store.append_events([_activated(two)], expected_versions={one: 0})
        with pytest.raises(ConcurrencyError):
            store.append_events([], expected_versions={one: 5})

        assert len(store.get_events_for_session(two)) == 1

    @pytest.mark.parametrize("version", [-1, 1.0, "1", None, True])
    def test_a_version_is_a_count(self, store: EventStore, version: object) -> None:
        """Anything but an int of 0 or more is refused before anything is written."""
        session_id = SessionId.new()

        with pytest.raises((TypeError, ValueError), match="expected_versions"):
            store.append_events(
                [_activated(session_id)],
                expected_versions={session_id: version},  # type: ignore[dict-item]
            )

        assert store.get_events_for_session(session_id) == []

    def test_a_key_makes_an_append_idempotent(self, store: EventStore) -> None:
        """The same key with the same events gives the first result and writes nothing."""
        session_id = SessionId.new()
        events: list[AnyEvent] = [_activated(session_id)]
        events.append(SessionClosed(session_id=session_id, timestamp=_NOON))
        store.append_events([_activated(SessionId.new())])

        first = store.append_events(events, key="k1")
        store.append_events([_activated(SessionId.new())])
        again = store.append_events(list(events), key="k1")

        assert first == again == Appended(2, 3)
        assert store.get_events_for_session(session_id) == events

    def test_a_key_with_other_events_is_refused(self, store: EventStore) -> None:
        """Nothing is written, and the error says what the key stands for."""
        session_id = SessionId.new()
        store.append_events([_activated(session_id)], key="k1")

        for other in ([_activated(session_id, 1)], [], [_activated(session_id)] * 2):
            with pytest.raises(KeyConflictError) as caught:
                store.append_events(other, key="k1")
            assert (caught.value.key, caught.value.first, caught.value.last) == ("k1", 1, 1)

        assert len(store.get_events_for_session(session_id)) == 1

    def test_an_empty_append_may_have_a_key(self, store: EventStore) -> None:
        """It stands for nothing, and keeps doing so."""
        assert store.append_events([], key="nothing") == Appended(None, None)
        assert store.append_events([], key="nothing") == Appended(None, None)
        with pytest.raises(KeyConflictError):
            store.append_events([_activated(SessionId.new())], key="nothing")

    def test_the_key_is_looked_at_before_the_versions(self, store: EventStore) -> None:
        """So repeating an append whose success was not noticed succeeds."""
        session_id = SessionId.new()
        events = [_activated(session_id)]

        first = store.append_events(events, expected_versions={session_id: 0}, key="k1")
        again = store.append_events(events, expected_versions={session_id: 0}, key="k1")

        assert first == again

    def test_an_append_that_failed_does_not_use_up_its_key(self, store: EventStore) -> None:
        """The key can be used again once the versions are right."""
        session_id = SessionId.new()
        with pytest.raises(ConcurrencyError):
            store.append_events(
                [_activated(session_id)], expected_versions={session_id: 1}, key="k"
            )

        store.append_events([_activated(session_id, 1)], expected_versions={session_id: 0}, key="k")

        assert len(store.get_events_for_session(session_id)) == 1

    @pytest.mark.parametrize("key", ["", 5, b"k", "\ud800"])
    def test_a_key_is_some_text(self, store: EventStore, key: object) -> None:
        """Anything else is refused before anything is written."""
        session_id = SessionId.new()

        with pytest.raises((TypeError, ValueError)):
            store.append_events([_activated(session_id)], key=key)  # type: ignore[arg-type]

        assert store.get_events_for_session(session_id) == []

    def test_events_of_unknown_kinds_are_kept_whole(self, store: EventStore) -> None:
        """They count in versions and come back from every query."""
        session_id, stream_id = SessionId.new(), StreamId.new()
        text = (
            f'{{"event_type": "stream_paused", "session_id":"{session_id}", '
            f'"stream_id":"{stream_id}", "why": [1e2, "\\u00e9"], '
            '"timestamp":"2026-01-01T12:00:01Z"}'
        )
        event = parse_event(text, unknown="keep")

        store.append_events([event])
        store.append_events([_activated(session_id)], expected_versions={session_id: 1})

        assert store.get_events_for_session(session_id)[0].model_dump_json() == text
        assert store.get_events_for_stream(stream_id) == [event]
        assert store.get_events_since(_NOON) == [event]

    def test_nanoseconds_and_the_largest_integers_survive(self, store: EventStore) -> None:
        """What comes back is what was appended, to the last digit."""
        session_id = SessionId.new()
        texts = [
            f'{{"event_type":"frames_batched","session_id":"{session_id}",'
            f'"frame_count":{frame_count},"timestamp":"{timestamp}"}}'
            for frame_count, timestamp in [
                (2**64 - 1, "2262-04-11T23:47:16.854775807Z"),
                (2**63, "1677-09-21T00:12:43.145224192Z"),
                (2**53 + 1, "1969-12-31T23:59:59.999999999Z"),
                (0, "2026-01-01T00:00:00.000000001Z"),
            ]
        ]

        store.append_events([parse_event(text) for text in texts])

        found = store.get_events_for_session(session_id)
        assert [event.model_dump_json() for event in found] == texts
