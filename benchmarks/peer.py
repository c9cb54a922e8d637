"""The peer: the PyPI package `eventsourcing`, used as its documentation says.

It is an extra, `pip install -e '.[benchmark]'`; where it is not installed, nothing here can be
imported.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore
from pydantic_core import to_json

_COUNTED = ("frame_count", "total_bytes", "frame_size_bytes")
_STATES = {
    "session_activated": "Active",
    "session_closed": "Completed",
    "session_expired": "Failed",
    "session_timed_out": "Failed",
    "stream_created": "Preparing",
    "stream_started": "Streaming",
    "stream_completed": "Completed",
    "stream_failed": "Failed",
    "stream_cancelled": "Cancelled",
}


class Raw(NamedTuple):
    """What an event is made of, as an application has it."""

    session: UUID
    version: int
    kind: str
    values: dict[str, Any]
    """Whatever else there is of it, the stream's id as text."""


def raw_events(lines: Iterable[str]) -> Iterator[Raw]:
    """Yield what the events in lines are made of."""
    versions: Counter[str] = Counter()
    for line in lines:
        values = json.loads(line)
        session = values.pop("session_id")
        versions[session] += 1
        yield Raw(UUID(session), versions[session], values.pop("event_type"), values)


def stored(raw: Raw) -> StoredEvent:
    """Make the peer's event; its state is written with the fastest writer of JSON at hand."""
    session, version, kind, values = raw
    return StoredEvent(session, version, kind, to_json(values))


def open_recorder(path: Path) -> SQLiteApplicationRecorder:
    """Return what keeps stored events in a new file; SQLite's default durability is "full"."""
    recorder = SQLiteApplicationRecorder(SQLiteDatastore(str(path)))
    recorder.create_table()
    return recorder


def notifications(recorder: SQLiteApplicationRecorder, page: int) -> Iterator[Any]:
    """Yield all events as they are stored, in pages."""
    after = 0
    while found := recorder.select_notifications(after, page, inclusive_of_start=False):
        yield from found
        after = found[-1].id


class Session(Aggregate):  # type: ignore[misc]
    """A session with its streams, as the peer's aggregates are."""

    def __init__(self) -> None:
        self.state = "Initializing"
        self.expires_at: str | None = None
        self.streams: dict[str, str] = {}
        self.totals: Counter[str] = Counter()

    class Happened(Aggregate.Event):  # type: ignore[misc]
        """An event of any kind."""

        kind: str
        values: dict[str, Any]

        def apply(self, aggregate: "Session") -> None:
            """Fold the event."""
            stream = self.values.get("stream_id")
            state = _STATES.get(self.kind)
            if state is not None and stream is not None:
                aggregate.streams[stream] = state
            elif state is not None:
                aggregate.state = state
            elif self.kind == "session_timeout_extended":
                aggregate.expires_at = self.values["new_expires_at"]
            else:
                aggregate.totals[self.kind] += 1
                for name in _COUNTED:
                    aggregate.totals[name] += self.values.get(name, 0)


def build_aggregates(path: Path, lines: Iterable[str], batch_events: int) -> list[UUID]:
    """Keep the events of lines in a new file through aggregates, and return their ids."""
    application = _application(path)
    aggregates: dict[UUID, Session] = {}
    raws = raw_events(lines)
    while batch := list(islice(raws, batch_events)):
        for raw in batch:
            if raw.session not in aggregates:
                aggregates[raw.session] = Session()
            aggregates[raw.session].trigger_event(
                Session.Happened, kind=raw.kind, values=raw.values
            )
        application.save(*(aggregates[session] for session in {raw.session for raw in batch}))
    application.close()
    return [aggregate.id for aggregate in aggregates.values()]


def fold_aggregates(path: Path, ids: Iterable[UUID]) -> int:
    """Build all aggregates from their events, and return how many events that were."""
    application = _application(path)
    count: int = sum(application.repository.get(each).version for each in ids)
    application.close()
    return count


def _application(path: Path) -> Application:
    persistence = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    return Application(env=persistence)
