"""What a type checker must accept, and must refuse. Checked by mypy, never run.

A line with `type: ignore` is one that mypy must refuse: strict mode warns of an ignore too many.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import journal
import journal.events
from journal import (
    ConcurrencyError,
    DomainEvent,
    EventStore,
    EventSubscriber,
    InMemoryEventStore,
    Journal,
    PatchFramesGenerated,
    SessionActivated,
    SessionId,
    SessionTimeoutExtended,
    StreamCreated,
    StreamId,
    Timestamp,
    UnknownEvent,
    parse_event,
)
from journal.events import AnyEvent
from journal.file import JournalInfo
from journal.projections import SessionStatus
from journal.store import Appended, RecordedEvent


def stores() -> Iterator[EventStore]:
    yield InMemoryEventStore()
    with Journal.open("a.db", read_only=True, durability="normal") as opened:
        yield opened
    Journal.open("a.db", durability="none")  # type: ignore[call-overload]


def a_buffered_append_returns_a_ticket() -> Appended:
    with Journal.open("a.db", durability="buffered", max_delay=timedelta(seconds=1)) as journal:
        ticket = journal.append_events([])
        journal.flush()
    Journal.open("a.db", max_delay=0.5)  # type: ignore[call-overload]
    return ticket.wait()


def names_are_known() -> None:
    journal.nothing()  # type: ignore[attr-defined]
    journal.events.nothing()  # type: ignore[attr-defined]


def ids_are_told_apart(session_id: SessionId, stream_id: StreamId) -> None:
    now = datetime.now(UTC)
    StreamCreated(
        session_id=stream_id,  # type: ignore[arg-type]
        stream_id=session_id,  # type: ignore[arg-type]
        timestamp=now,
    )
    store = InMemoryEventStore()
    store.get_events_for_session(stream_id)  # type: ignore[arg-type]
    store.get_events_for_stream(stream_id)


def times_are_given_as_datetimes_and_read_as_timestamps(session_id: SessionId) -> list[Timestamp]:
    now = datetime.now(UTC)
    SessionActivated(session_id=session_id, timestamp=Timestamp.now(UTC))
    SessionActivated(session_id=session_id)  # type: ignore[call-arg]
    SessionActivated(session_id=session_id, timestamp=0)  # type: ignore[arg-type]
    extended = SessionTimeoutExtended(
        session_id=session_id, additional_seconds=1, new_expires_at=now, timestamp=now
    )
    unknown = UnknownEvent(event_type="x", session_id=session_id, timestamp=now, original_json="{}")
    either: AnyEvent = extended
    return [extended.timestamp, extended.new_expires_at, unknown.timestamp, either.timestamp]


def appending(store: EventStore, session_id: SessionId) -> Appended:
    event = parse_event("{}")
    try:
        return store.append_events([event], expected_versions={session_id: 3}, key="k")
    except ConcurrencyError as error:
        version: int = error.actual
        raise SystemExit(version) from error


def narrowing(event: DomainEvent | UnknownEvent) -> str:
    if isinstance(event, UnknownEvent):
        return event.original_json
    if event.event_type == "patch_frames_generated":
        patches: PatchFramesGenerated = event
        return str(patches.total_bytes)
    stream: StreamId | None = event.stream_id
    return str(stream) if event.is_error else str(event.event_id)


def reading(journal: Journal) -> list[int]:
    first: RecordedEvent = next(journal.read())
    return [first.position] + [recorded.position for recorded in journal.read(after=5, limit=10)]


class Printer:
    async def handle(self, event: DomainEvent | UnknownEvent) -> None:
        print(event.timestamp)


subscriber: EventSubscriber = Printer()


def what_is_returned_has_types(journal: Journal, session_id: SessionId) -> int:
    info: JournalInfo = journal.info()
    status: SessionStatus | None = journal.session(session_id)
    events: list[AnyEvent] = journal.get_events_for_session(session_id)
    return info.event_count + len(events) + (0 if status is None else status.event_count)
