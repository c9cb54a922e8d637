"""An event store in memory, for tests and for what need not last."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from journal.errors import ConcurrencyError, KeyConflictError
from journal.events.ids import SessionId, StreamId, check_id
from journal.events.records import check_iterable, content_digest, encode
from journal.events.timestamps import Timestamp
from journal.events.unknown import AnyEvent
from journal.store import Appended, check_arguments


class InMemoryEventStore:
    """An `EventStore` that forgets everything with the process. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[AnyEvent] = []
        self._versions: Counter[SessionId] = Counter()
        self._keys: dict[str, tuple[Appended, str]] = {}

    def append_events(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append events; see `EventStore.append_events`."""
        check_iterable(events)
        new = list(events)
        records = encode(new)
        check_arguments(expected_versions, key)
        digest = "" if key is None else content_digest(records)
        with self._lock:
            if key is not None and key in self._keys:
                appended, seen_digest = self._keys[key]
                if digest != seen_digest:
                    raise KeyConflictError(key, *appended)
                return appended
            for session_id, expected in (expected_versions or {}).items():
                if self._versions[session_id] != expected:
                    actual = self._versions[session_id]
                    raise ConcurrencyError(session_id, expected=expected, actual=actual)
            before = len(self._events)
            self._events += new
            self._versions.update(event.session_id for event in new)
            appended = Appended(before + 1, before + len(new)) if new else Appended(None, None)
            if key is not None:
                self._keys[key] = (appended, digest)
            return appended

    def get_events_for_session(self, session_id: SessionId) -> list[AnyEvent]:
        """Return the events of a session; see `EventStore`."""
        check_id(session_id, SessionId)
        return [event for event in self.all_events() if event.session_id == session_id]

    def get_events_for_stream(self, stream_id: StreamId) -> list[AnyEvent]:
        """Return the events of a stream; see `EventStore`."""
        check_id(stream_id, StreamId)
        return [event for event in self.all_events() if event.stream_id == stream_id]

    def get_events_since(self, since: datetime) -> list[AnyEvent]:
        """Return the events later than `since`; see `EventStore`."""
        instant = Timestamp.from_datetime(since)
        return [event for event in self.all_events() if event.timestamp > instant]

    def all_events(self) -> list[AnyEvent]:
        """Return every event in append order."""
        with self._lock:
            return list(self._events)

    def event_count(self) -> int:
        """Return how many events there are."""
        return len(self._events)
