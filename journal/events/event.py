"""What all events have in common, and how the class of an event becomes a kind."""

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from journal.events.event_id import EventId, event_id
from journal.events.fields import Field, fields_of
from journal.events.ids import SessionId, StreamId
from journal.events.timestamps import (
    MAX_EPOCH_NS,
    MIN_EPOCH_NS,
    Instant,
    Timestamp,
    ns_of_utc,
)
from journal.events.values import Value


def _storable(value: object) -> Timestamp:
    """Return a value as an instant that a file can hold.

    All that is asked of it is asked here, in one call: two validators in Python would take a fifth
    of the time of making an event.
    """
    try:
        timestamp_ns = ns_of_utc(value)
        timestamp: Any = value
    except (AttributeError, TypeError):  # it is something else, or in another zone
        timestamp = Timestamp._from_python_value(value)
        timestamp_ns = timestamp.epoch_ns
    if not MIN_EPOCH_NS <= timestamp_ns <= MAX_EPOCH_NS:
        message = (
            f"{timestamp.rfc3339()} is out of range (expected 1677-09-21T00:12:43.145224192Z to "
            "2262-04-11T23:47:16.854775807Z, the nanoseconds that fit in 64 bits)"
        )
        raise ValueError(message)
    return timestamp  # type: ignore[no-any-return]


class _Storable:
    """Makes a field of instants one of those that a file can hold."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        instant: Any = handler(source)
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(_storable, instant),
            python_schema=core_schema.no_info_plain_validator_function(_storable),
            serialization=instant["serialization"],
        )


EventTimestamp = Annotated[Instant, _Storable]
"""When an event happened: an instant whose nanoseconds since 1970 fit in an int64."""


@dataclass(frozen=True, eq=False)  # there is one of each
class Kind:
    """A kind of event, as its class declares it."""

    name: str
    model: type["Event"]
    has_stream: bool
    fields: tuple[Field, ...]
    """What it carries between the ids and the timestamp, in wire order."""

    @cached_property
    def field_names(self) -> tuple[str, ...]:
        """The names of the fields, dotted, as the table `kind` of a file has them."""
        return tuple(field.name for field in self.fields)


class Event(Value):
    """What every event has, whatever its kind."""

    if TYPE_CHECKING:  # what is a field of each event class, in the order of the wire

        @property
        def event_type(self) -> str: ...
        @property
        def session_id(self) -> SessionId: ...
        @property
        def stream_id(self) -> StreamId | None: ...
        @property
        def timestamp(self) -> Timestamp: ...

    _kind: ClassVar[Kind]

    is_critical: ClassVar[bool] = False
    is_error: ClassVar[bool] = False
    is_completion: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Put the fields that all events have around those that the class declares.

        So the class of a kind says no more than its name and what it alone carries. pydantic
        collects the fields afterwards.

        Raises:
            TypeError: a field has a type that no field of an event can have.
        """
        super().__init_subclass__(**options)
        declared = inspect.get_annotations(cls)
        if "event_type" not in declared:
            return
        own = {name: annotation for name, annotation in declared.items() if name != "event_type"}
        has_stream = issubclass(cls, StreamEvent)
        cls.__annotations__ = {
            "event_type": declared["event_type"],
            "session_id": SessionId,
            **({"stream_id": StreamId} if has_stream else {}),
            **own,
            "timestamp": EventTimestamp,
        }
        (name,) = get_args(declared["event_type"])
        cls._kind = Kind(name, cls, has_stream, tuple(fields_of(cls.__name__, own)))

    @property
    def occurred_at(self) -> Timestamp:
        """The timestamp, under its other name."""
        return self.timestamp

    @property
    def event_id(self) -> EventId:
        """The reference's id of this content, computed when asked; equal events share it."""
        return event_id(self)

    def metadata(self) -> dict[str, str]:
        """Return event_type, session_id, timestamp (RFC 3339, "+00:00") and any stream_id."""
        facts = {
            "event_type": self.event_type,
            "session_id": str(self.session_id),
            "timestamp": self.timestamp.rfc3339(offset="+00:00"),
        }
        if self.stream_id is not None:
            facts["stream_id"] = str(self.stream_id)
        return facts


class SessionEvent(Event):
    """An event that concerns a session and none of its streams."""

    if TYPE_CHECKING:
        session_id: SessionId
        timestamp: EventTimestamp

    @property
    def stream_id(self) -> None:
        """None: no stream is concerned."""
        return


class StreamEvent(Event):
    """An event that concerns one stream of a session."""

    if TYPE_CHECKING:
        session_id: SessionId
        stream_id: StreamId
        timestamp: EventTimestamp
