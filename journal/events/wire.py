"""Reading the wire: one JSON text to one record, as strictly as the reference does.

There are two readers of the same rules. The fast one, here, hands the text to pydantic and then
asks whether it could hold something that pydantic lets pass and the reference does not: a duplicate
field, `-0` for an integer. Counting two characters answers that for nearly every line. Whatever
looks doubtful, or fails, goes to the exact one, `wire_exact`, which is ten times slower, sees
everything, and says what is wrong.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from journal.events.codecs import Record, WireData, wire_data
from journal.events.event import Kind
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS, epoch_ns_from_text
from journal.events.wire_exact import Unknown, decoded_text, read_exactly
from journal.events.wire_shapes import any_kind
from journal.limits import DATA_SIZE_MAX


def read_record(text: str | bytes, unknown: Unknown = "reject") -> Record:
    """Return the record (see `codecs`) of the event that a JSON text describes.

    Args:
        text: one JSON object; bytes are UTF-8.
        unknown: what to do with an event of a kind that this version does not know. "reject"
            refuses it; "keep" returns a record of its text, which needs a valid session_id and
            timestamp, and a valid stream_id where it has one.

    Raises:
        UnknownKindError: the kind is not known, and `unknown` is "reject".
        InvalidEventError: anything else that the reference implementation rejects.
    """
    if not isinstance(text, str):
        text = decoded_text(text)
    try:
        fields = _validate(text)
        kind: str = fields["event_type"]
        has_stream, colons, minuses, data_of = _EXPECTED[kind]
        # Such an escape may hide any of the characters that are counted, or a key.
        if (
            text.count(":") == colons
            and (minuses is None or text.count("-") == minuses)
            and "\\u" not in text
            and len(text) <= DATA_SIZE_MAX
        ):
            timestamp_ns = epoch_ns_from_text(fields["timestamp"])
            if MIN_EPOCH_NS <= timestamp_ns <= MAX_EPOCH_NS:
                session = _session(fields["session_id"]) or _hyphenated(fields, "session_id")
                stream = None
                if has_stream:
                    stream = _stream(fields["stream_id"]) or _hyphenated(fields, "stream_id")
                return kind, session, stream, timestamp_ns, data_of and data_of(fields)
    except (ValueError, KeyError):  # a ValidationError is a ValueError
        pass
    return read_exactly(text, unknown)


_session = SessionId.interned.get
_stream = StreamId.interned.get


def _hyphenated(fields: dict[str, Any], name: str) -> Any:
    """Return an id, if it is spelled with the four hyphens that the count expects."""
    text = fields[name]
    if len(text) != 36:
        raise ValueError("doubtful")
    return (SessionId if name == "session_id" else StreamId).parse(text)


def _built_validate(text: str) -> Any:
    """Build what checks a text when the first one comes: it takes some milliseconds."""
    global _validate  # noqa: PLW0603
    _validate = any_kind().validate_json
    return _validate(text)


_validate: Callable[[str], Any] = _built_validate


class _Expected(NamedTuple):
    """What the text of a kind holds when there is nothing odd about it."""

    has_stream: bool
    colons: int
    minuses: int | None
    data_of: WireData | None


def _expected(kind: Kind) -> _Expected:
    """Return how many ':' and '-' the text of a kind holds when there is nothing odd about it.

    Outside strings there is one colon for each key, and the reference's times have at least two
    inside. Every key of the kind is there, or the shape would not fit: so a text with no more
    colons holds no key twice and none that the kind has not. A minus sign is in a hyphenated UUID
    (four) and in a date (two); one more could be that of `-0`, where the kind has numbers: None for
    those that have not. A time that may be null is not counted: the text of an event that has it
    holds more, and is doubtful.
    """
    keys = {"event_type", "session_id", "timestamp"} | ({"stream_id"} if kind.has_stream else set())
    for field in kind.fields:
        keys.update(".".join(field.path[: depth + 1]) for depth in range(len(field.path)))
    times = 1 + sum(field.type.name == "instant" and not field.nullable for field in kind.fields)
    uuids = 2 if kind.has_stream else 1
    has_numbers = any(field.type.name in ("u64", "u8", "float") for field in kind.fields)
    minuses = 4 * uuids + 2 * times if has_numbers else None
    return _Expected(kind.has_stream, len(keys) + 2 * times, minuses, wire_data(kind))


class _ExpectedByKind(dict[str, _Expected]):
    def __missing__(self, name: str) -> _Expected:
        self[name] = _expected(KINDS[name])
        return self[name]


_EXPECTED = _ExpectedByKind()
