"""Records to events: building the models.

What was validated when it came in is not validated again, but for what a damaged file could show:
the data is checked while it is parsed, which costs next to nothing. A model is made by filling the
dictionary of a new instance, in a fraction of the time of `model_construct`; `values.Value` answers
for what else pydantic's BaseModel would have set. `test_events` compares the result with a model
that was built the public way, so that a pydantic that changes it is noticed.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic_core import from_json, to_json

from journal.errors import InvalidEventError
from journal.events.canonical import object_pieces
from journal.events.codecs import Fields, Fill, Record, fill
from journal.events.kinds import KINDS
from journal.events.timestamps import Timestamp
from journal.events.unknown import AnyEvent, UnknownEvent
from journal.events.values import Value
from journal.events.wire import read_record

Blueprint = tuple[type[Value], str, bool | None, Fill | None]
"""What events of a kind are built from: model, event_type, whether there is a stream (None: there
may be, and `of_its_kind` is to have a look), and what adds the fields of the kind and the timestamp
(None: there is only the timestamp)."""


@cache
def blueprint(name: str, fields: tuple[str, ...] | None) -> Blueprint:
    """Return what events are built from whose kind has this name, and these fields in its data.

    None: their data is their whole text.

    Raises:
        ValueError: a kind that is known has other fields, which none of its versions ever had.
    """
    kind = KINDS.get(name)
    if fields is None or kind is None:
        return UnknownEvent, name, None, _fill_unknown(fields)
    if fields != kind.field_names:
        expected, found = to_json(kind.field_names).decode(), to_json(fields).decode()
        raise ValueError(f"the fields of kind {name}: expected {expected}, found {found:.300}")
    return kind.model, name, kind.has_stream, fill(kind)


def decode(record: Record) -> AnyEvent:
    """Put one event together again.

    Raises:
        ValueError: its data is not what its kind has.
    """
    name, session_id, stream_id, timestamp_ns, data = record
    kind = KINDS.get(name)
    fields = kind.field_names if kind is not None and not is_whole(data) else None
    cls, event_type, has_stream, filling = blueprint(name, fields)
    event: Any = object.__new__(cls)
    values = event.__dict__
    values["event_type"] = event_type
    values["session_id"] = session_id
    if has_stream is not False:
        values["stream_id"] = stream_id
    timestamp = Timestamp.from_epoch_ns(timestamp_ns)
    if filling is None:
        values["timestamp"] = timestamp
    else:
        filling(values, data, timestamp)
    return event if has_stream is not None else of_its_kind(event)


def is_whole(data: str | None) -> bool:
    """Tell whether data is the text of the whole event: an object, not an array."""
    return data is not None and data.startswith("{")


def of_its_kind(event: Any) -> AnyEvent:
    """Return an event that was kept whole as what it is, if its kind is known by now.

    A text that does not fit the kind stays an `UnknownEvent`: when it was kept, nobody could know.

    Raises:
        ValueError: its text says something else than what is stored of it beside.
    """
    if event.event_type not in KINDS:
        return event  # type: ignore[no-any-return]
    try:
        record = read_record(event.original_json)
    except InvalidEventError:
        return event  # type: ignore[no-any-return]
    stream_id = event.stream_id if KINDS[event.event_type].has_stream else None
    if record[:4] != (event.event_type, event.session_id, stream_id, event.timestamp.epoch_ns):
        raise ValueError("its text says something else than its row")
    return decode(record)


def _fill_unknown(names: Sequence[str] | None) -> Fill:
    """Return what adds the last fields of an `UnknownEvent`.

    `names` are those of the values in its data, where a newer version of the journal, which knew
    the kind, has stored it by fields; None where its data is its text.
    """

    def fill(fields: Fields, data: Any, timestamp: Timestamp | None) -> None:
        if timestamp is None:
            raise ValueError("it has no timestamp")
        if names is not None:
            found = {name: value for name, value in fields.items() if value is not None}
            found.update(zip(names, from_json(data or "[]"), strict=True))
            found["timestamp"] = timestamp.rfc3339()
            *pieces, end = object_pieces([*found])
            pairs = zip(pieces, found.values(), strict=True)
            data = f"{{{''.join(piece + to_json(value).decode() for piece, value in pairs)}{end}}}"
        if not (isinstance(data, str) and data.startswith("{")):
            raise ValueError("it has lost its text")
        fields["timestamp"] = timestamp
        fields["original_json"] = data

    return fill
