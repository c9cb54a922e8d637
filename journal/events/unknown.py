"""Events of kinds that this version does not know, and what they share with all others."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, model_validator

from journal.events.event import Event, EventTimestamp
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS, DomainEvent
from journal.events.timestamps import Timestamp
from journal.events.values import Text, Value


class _Envelope(BaseModel):
    """What an event of any kind says of itself."""

    event_type: str
    session_id: SessionId
    stream_id: StreamId | None = None
    timestamp: EventTimestamp


class UnknownEvent(Value):
    """An event of a kind that this version does not know, kept whole.

    It has what every event has but an `event_id`, which the reference defines for its own kinds
    only. `original_json` is the text that was appended, one line, and says what the fields say;
    `parse_event(text, unknown="keep")` makes one of it.
    """

    event_type: str
    session_id: SessionId
    stream_id: StreamId | None = None
    timestamp: EventTimestamp
    original_json: Text

    @model_validator(mode="after")
    def _says_what_its_text_says(self) -> Self:
        if self.event_type in KINDS:
            raise ValueError(f"{self.event_type} is a known kind: use its model")
        if "\n" in self.original_json or "\r" in self.original_json:
            raise ValueError("original_json is more than one line")
        said = _Envelope.model_validate_json(self.original_json)
        for name, value in said:
            if value != getattr(self, name):
                raise ValueError(f"original_json has {value!r} for {name}")
        return self

    is_critical: ClassVar[bool] = False
    is_error: ClassVar[bool] = False
    is_completion: ClassVar[bool] = False

    @property
    def occurred_at(self) -> Timestamp:
        """The timestamp, under its other name."""
        return self.timestamp

    metadata = Event.metadata

    def model_dump_json(self, **options: Any) -> str:
        """Return `original_json`; with `options`, pydantic's dump of the fields of this model."""
        return super().model_dump_json(**options) if options else self.original_json


AnyEvent = DomainEvent | UnknownEvent
"""What a journal holds and every query returns."""
