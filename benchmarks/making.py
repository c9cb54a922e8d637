"""Making an event object of values of the right classes, against a plain frozen model."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict

from benchmarks.measure import Figure, Settings, in_turns
from journal import (
    PatchFramesGenerated,
    SessionActivated,
    SessionId,
    StreamCreated,
    StreamId,
    Timestamp,
)

Make = Callable[..., Any]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True)

    event_type: str = "plain"


class _TwoFields(_Plain):
    session_id: UUID
    timestamp: datetime


class _ThreeFields(_Plain):
    session_id: UUID
    stream_id: UUID
    timestamp: datetime


class _SixFields(_Plain):
    session_id: UUID
    stream_id: UUID
    frame_count: int
    total_bytes: int
    highest_priority: int
    timestamp: datetime


def making(settings: Settings) -> list[Figure]:
    """Make events of three kinds, against plain frozen models with as many fields."""
    session, stream, now = SessionId.new(), StreamId.new(), Timestamp.now(UTC)
    plain_session, plain_stream, plain_now = uuid4(), uuid4(), datetime.now(UTC)
    numbers = {"frame_count": 5, "total_bytes": 14_200, "highest_priority": 90}
    count = settings.size(200_000, 1_000)

    def turn(makes: list[tuple[Make, dict[str, Any]]]) -> float:
        return sum(_us(make, values, count) for make, values in makes) / len(makes)

    ours: list[tuple[Make, dict[str, Any]]] = [
        (SessionActivated, {"session_id": session, "timestamp": now}),
        (StreamCreated, {"session_id": session, "stream_id": stream, "timestamp": now}),
        (
            PatchFramesGenerated,
            {"session_id": session, "stream_id": stream, **numbers, "timestamp": now},
        ),
    ]
    plain_ids = {"session_id": plain_session, "stream_id": plain_stream}
    plain: list[tuple[Make, dict[str, Any]]] = [
        (_TwoFields, {"session_id": plain_session, "timestamp": plain_now}),
        (_ThreeFields, {**plain_ids, "timestamp": plain_now}),
        (_SixFields, {**plain_ids, **numbers, "timestamp": plain_now}),
    ]
    us, plain_us = in_turns(settings.repeat, partial(turn, ours), partial(turn, plain))
    figure = Figure(
        name="making",
        peer_name="plain frozen models",
        unit="us/event",
        ours=us,
        peer=plain_us,
        required=1.3,
        sense="at most",
    )
    return [figure]


def _us(make: Make, values: dict[str, Any], count: int) -> float:
    """Return the time of making one, each dropped before the next."""
    began = perf_counter()
    for _ in range(count):
        make(**values)
    return 1e6 * (perf_counter() - began) / count
