"""What projections are and what they return: plain values, for callers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from journal.events.ids import SessionId, StreamId
from journal.events.kinds import DomainEvent
from journal.events.timestamps import Timestamp
from journal.events.values import PerformanceMetrics, SessionState, StreamState

S = TypeVar("S")


class SessionStatus(BaseModel):
    """One session, as its events make it.

    `active_streams` are those that are Preparing or Streaming; the four counts add up to
    `total_streams`. `expires_at` is what the last extension said. `event_count` does not count
    events of unknown kinds, which projections pass over.
    """

    model_config = ConfigDict(frozen=True)

    session_id: SessionId
    state: SessionState
    activated_at: Timestamp | None
    ended_at: Timestamp | None
    expires_at: Timestamp | None
    event_count: int
    total_streams: int
    active_streams: int
    completed_streams: int
    failed_streams: int
    cancelled_streams: int
    priority_threshold: int | None
    batched_frames: int
    metrics: PerformanceMetrics | None
    anomalies: int


class StreamStatus(BaseModel):
    """One stream, as its events make it.

    `session_id` is the session of its first event. `frames` and `bytes` are those of its skeleton
    and its patches. `highest_priority` is None until there was a patch.
    """

    model_config = ConfigDict(frozen=True)

    stream_id: StreamId
    session_id: SessionId
    state: StreamState
    error: str | None
    created_at: Timestamp | None
    started_at: Timestamp | None
    ended_at: Timestamp | None
    event_count: int
    frames: int
    bytes: int
    highest_priority: int | None
    config_updates: int
    anomalies: int


class Anomaly(BaseModel):
    """An event that the protocol could not have produced where it stands; it applied all the same.

    `state` is what the stream, or the session of a session event, was in; None: it did not exist.
    """

    model_config = ConfigDict(frozen=True)

    position: int
    session_id: SessionId
    stream_id: StreamId | None
    event_type: str
    state: str | None
    reason: str


class ProjectionStatus(BaseModel):
    """How far a projection has come.

    `since` is the position of the first event that it counts: 1, unless it began after a cut and
    had no base. `lag` is the number of events that it has not folded. It is `stale` when another
    version of the fold made it; None: this program does not know the fold.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    position: int
    since: int
    lag: int
    stale: bool | None


class Change(BaseModel):
    """A value that a rebuild found to differ from the stored one.

    `column` is None where the whole row is missing on one side.
    """

    model_config = ConfigDict(frozen=True)

    projection: str
    key: str
    column: str | None
    old: Any
    new: Any


class RebuildReport(BaseModel):
    """What a rebuild did.

    `since` is the position of the first event that the new rows count; see `ProjectionStatus`.
    `changes` holds the first thousand of `change_count`; it is None where there was nothing to
    compare with: no rows yet, or rows of another version of the fold.
    """

    model_config = ConfigDict(frozen=True)

    projections: tuple[str, ...]
    event_count: int
    since: int
    seconds: float
    change_count: int
    changes: tuple[Change, ...] | None


@dataclass(frozen=True)
class Projection(Generic[S]):
    """An application's own projection.

    Attributes:
        name: what it is called, also in SQL; not "sessions" or "streams".
        version: 1 or more. Change it when `apply` changes; the stored states are then made anew.
        initial: the state before the first event; anything that JSON can hold.
        apply: takes a state and an event and returns the next state. It should be pure: it is
            called again for the same events on a rebuild, and a result may be thrown away.
        key: which of many states an event belongs to, as text or a UUID; None: the event is
            passed over. Without a key function there is one state, under the key "".

    Events of unknown kinds (`UnknownEvent`) are passed over: neither function sees them.
    """

    name: str
    version: int
    initial: S
    apply: Callable[[S, DomainEvent], S]
    key: Callable[[DomainEvent], object] | None = None
