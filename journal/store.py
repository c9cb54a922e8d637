"""What an event store is: the interface that `InMemoryEventStore` and `Journal` implement.

The small results of appending and reading are here, too.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from journal.events.ids import SessionId, StreamId
from journal.events.unknown import AnyEvent


class Appended(NamedTuple):
    """The positions that an append gave its events, both inclusive; both None for no events."""

    first: int | None
    last: int | None


class Outcome(NamedTuple):
    """What has become of an append.

    "committed": its events are in the journal, at `positions`. "rejected": they are not, and will
    not be. "unknown": a commit failed half-way; if it took, they are at `positions`, and
    `Journal.resolve` tells, by `token` and `number`, which name the commit.
    """

    state: Literal["committed", "rejected", "unknown"]
    positions: Appended | None = None
    token: str | None = None
    number: int | None = None


REJECTED = Outcome("rejected")


class RecordedEvent(NamedTuple):
    """An event and its position in the journal, counted from 1."""

    position: int
    event: AnyEvent


class LinesAppended(NamedTuple):
    """What has become of the lines: how many events are committed, how many lines rejected.

    `first` and `last` are positions, None while there are none. Where other writers append at the
    same time, some of the positions between them are of their events.
    """

    appended: int
    rejected: int
    first: int | None
    last: int | None


class RejectedLine(NamedTuple):
    """A line that was not appended; `line_number` counts from 1."""

    line_number: int
    line: str | bytes
    reason: str


@runtime_checkable
class EventStore(Protocol):
    """Keeps events in the order in which they were appended."""

    def append_events(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append events, all or nothing; none at all is allowed.

        Args:
            events: in the order in which they are to be kept.
            expected_versions: the version of each session (how many events it has; 0: no such
                session yet) that the caller decided on. Sessions not named are not checked.
            key: makes the append idempotent. A key that was used before, with the same events,
                gives the first result again and appends nothing. The key is looked at before the
                versions, so that repeating what succeeded succeeds.

        Raises:
            ConcurrencyError: a session is not at its expected version.
            KeyConflictError: the key was used before, with other events.
            InvalidEventError: something in `events` is not an event.
        """

    def get_events_for_session(self, session_id: SessionId) -> list[AnyEvent]:
        """Return the events of a session in append order; [] for an unknown one.

        Raises:
            TypeError: `session_id` is not a `SessionId`.
        """

    def get_events_for_stream(self, stream_id: StreamId) -> list[AnyEvent]:
        """Return the events of a stream in append order; [] for an unknown one.

        Raises:
            TypeError: `stream_id` is not a `StreamId`.
        """

    def get_events_since(self, since: datetime) -> list[AnyEvent]:
        """Return the events whose timestamp is later than `since`, in append order.

        Later is strict, to the nanosecond.

        Raises:
            ValueError: `since` has no UTC offset.
        """


@runtime_checkable
class EventSubscriber(Protocol):
    """Is told of events."""

    async def handle(self, event: AnyEvent) -> None:
        """Handle one event."""


def check_arguments(expected_versions: Mapping[SessionId, int] | None, key: str | None) -> None:
    """Check the optional arguments of `EventStore.append_events`, before anything is done.

    Raises:
        TypeError: a version is not an int under a `SessionId`, or the key is not a str.
        ValueError: a version is negative, or the key is empty or has a lone surrogate.
    """
    for session_id, version in (expected_versions or {}).items():
        if not isinstance(session_id, SessionId) or type(version) is not int:
            message = "expected_versions: expected a version (int) for each SessionId, found "
            message += f"{version!r} for {session_id!r}"
            raise TypeError(message)
        if version < 0:
            message = f"expected_versions: expected 0 or more, found {version} for {session_id}"
            raise ValueError(message)
    if key is None:
        return
    if not isinstance(key, str):
        message = f"key: expected a str, found {type(key).__name__}"
        raise TypeError(message)
    if not key:
        message = "key: expected some text, found ''"
        raise ValueError(message)
    key.encode()
