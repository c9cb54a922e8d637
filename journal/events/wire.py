"""Reading the wire: one JSON text to one event, as strictly as the reference does.

There are two readers of the same rules. The fast one hands the text to pydantic and then asks
whether it could hold something that pydantic lets pass and the reference does not: a duplicate
field, `-0` for an integer. Counting two characters answers that for nearly every line. Whatever
looks doubtful, or fails, goes to the exact reader, which is ten times slower, sees everything, and
says what is wrong.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

from journal.errors import InvalidEventError, UnknownKindError
from journal.events.decoding import decode
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS, Kind
from journal.events.models import AnyEvent
from journal.events.records import DATA_ENCODERS, DATA_SIZE_MAX, Record, metrics_data
from journal.events.timestamps import (
    MAX_EPOCH_NS,
    MIN_EPOCH_NS,
    epoch_ns_from_text,
    text_from_epoch_ns,
)
from journal.events.values import SessionState

Unknown = Literal["reject", "keep"]
"""What to do with an event of an unknown kind: refuse it, or store its text whole."""

_T = TypeVar("_T")

_DEPTH_MAX = 127  # serde_json refuses what is nested deeper
_U64_MAX, _I64_MIN = 2**64 - 1, -(2**63)  # it reads integers beyond these as floats


def parse_event(text: str | bytes, *, unknown: Unknown = "reject") -> AnyEvent:
    """Return the event that a JSON text describes.

    Args:
        text: one JSON object; bytes are UTF-8.
        unknown: what to do with an event of a kind that this version does not know. "reject"
            refuses it; "keep" returns an `UnknownEvent`, which needs a valid session_id and
            timestamp, and a valid stream_id where it has one.

    Raises:
        UnknownKindError: the kind is not known, and `unknown` is "reject".
        InvalidEventError: anything else that the reference implementation rejects.
    """
    return decode(*read_record(text, unknown))


def read_record(text: str | bytes, unknown: Unknown = "reject") -> Record:
    """Return the record (see `records`) of the event that a JSON text describes.

    Raises:
        UnknownKindError, InvalidEventError: as `parse_event`.
    """
    if not isinstance(text, str):
        text = _utf8(text)
    try:
        fields = _VALIDATE_JSON(text)
        kind: str = fields["event_type"]
        has_stream, has_text, colons, minuses, encoder = _EXPECTED[kind]
        if (
            text.count(":") == colons
            and (minuses is None or text.count("-") == minuses)
            and not (has_text and ("\\" in text or len(text) > DATA_SIZE_MAX))
        ):
            timestamp_ns = epoch_ns_from_text(fields["timestamp"])
            if MIN_EPOCH_NS <= timestamp_ns <= MAX_EPOCH_NS:
                session = _session(fields["session_id"]) or _hyphenated(fields, "session_id")
                stream = None
                if has_stream:
                    stream = _stream(fields["stream_id"]) or _hyphenated(fields, "stream_id")
                return kind, session, stream, timestamp_ns, encoder and encoder(fields)
    except (ValueError, KeyError):  # a ValidationError is a ValueError; latency_ms may be absent
        pass
    return _read_exactly(text, unknown)


_session = SessionId.interned.get
_stream = StreamId.interned.get


def _hyphenated(fields: dict[str, Any], name: str) -> Any:
    """Return an id, if it is spelled with the four hyphens that the count expects."""
    text = fields[name]
    if len(text) != 36:
        raise ValueError("doubtful")
    return (SessionId if name == "session_id" else StreamId).parse(text)


def _utf8(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{text[error.start]:02x} at byte {error.start + 1}"
        raise InvalidEventError(message) from None
    except AttributeError:
        message = f"expected JSON text as str or bytes, found {type(text).__name__}"
        raise InvalidEventError(message) from None


# The shape of each kind, for pydantic: the values are checked, the ids and times stay text.


def _schemas() -> dict[str, CoreSchema]:
    u64 = core_schema.int_schema(strict=True, ge=0, le=_U64_MAX)
    u8 = core_schema.int_schema(strict=True, ge=0, le=255)
    real = core_schema.float_schema(strict=True, allow_inf_nan=False)
    text = core_schema.str_schema(strict=True)
    types: dict[str, CoreSchema] = {
        "original_state": core_schema.literal_schema([state.value for state in SessionState]),
        "new_expires_at": text,
        "error": text,
        "reason": text,
        "highest_priority": u8,
        "old_threshold": u8,
        "new_threshold": u8,
        "frames_per_second": real,
        "bytes_per_second": real,
        "average_frame_size": real,
        "latency_ms": core_schema.nullable_schema(u64),
    }

    def typed_dict(fields: dict[str, CoreSchema]) -> CoreSchema:
        return core_schema.typed_dict_schema(
            {
                name: core_schema.typed_dict_field(schema, required=name != "latency_ms")
                for name, schema in fields.items()
            },
            extra_behavior="ignore",
        )

    def nested(names: list[list[str]]) -> dict[str, CoreSchema]:
        inner: dict[str, list[list[str]]] = {}
        for first, *rest in names:
            inner.setdefault(first, []).append(rest)
        return {
            name: typed_dict(nested(rests)) if rests[0] else types.get(name, u64)
            for name, rests in inner.items()
        }

    def event(kind: Kind) -> CoreSchema:
        stream = {"stream_id": text} if kind.has_stream else {}
        return typed_dict(
            {
                "event_type": core_schema.literal_schema([kind.name]),
                "session_id": text,
                **stream,
                **nested([name.split(".") for name in kind.fields]),
                "timestamp": text,
            }
        )

    return {kind.name: event(kind) for kind in KINDS.values()}


_SCHEMAS = _schemas()
_VALIDATE_JSON = SchemaValidator(
    core_schema.tagged_union_schema(dict(_SCHEMAS), discriminator="event_type")
).validate_json
_VALIDATORS = {name: SchemaValidator(schema) for name, schema in _SCHEMAS.items()}


# The data of the kinds whose wire fields are not the fields of the model.


def _extended(fields: dict[str, Any]) -> str:
    expires_at = text_from_epoch_ns(epoch_ns_from_text(fields["new_expires_at"]))
    return f'[{fields["additional_seconds"]},"{expires_at}"]'


def _metrics(fields: dict[str, Any]) -> str:
    metrics = fields["metrics"]
    return metrics_data(metrics, metrics["priority_distribution"])


_DATA_ENCODERS = {
    **DATA_ENCODERS,
    "session_timeout_extended": _extended,
    "performance_metrics_recorded": _metrics,
}


_TEXTS = {"error", "reason"}


def _expected(kind: Kind) -> tuple[bool, bool, int, int | None, Any]:
    """Return how many ':' and '-' the text of a kind holds when there is nothing odd about it.

    Outside strings there is one colon for each key. The reference's times have at least two inside,
    so with every key present a text that has no more holds no key twice. A minus sign is in a
    hyphenated UUID (four) and in a date (two); one more could be that of `-0`, where the kind has
    numbers: None for kinds without. An escape matters where there is text; it might be half
    of a surrogate pair.
    """
    keys = {"event_type", "session_id", "timestamp"} | ({"stream_id"} if kind.has_stream else set())
    for name in kind.fields:
        path = name.split(".")
        keys.update(".".join(path[: depth + 1]) for depth in range(len(path)))
    times = 1 + ("new_expires_at" in keys)
    uuids = 2 if kind.has_stream else 1
    encoder = _DATA_ENCODERS.get(kind.name)
    minuses = 4 * uuids + 2 * times if {*kind.fields} - _TEXTS else None
    has_text = not _TEXTS.isdisjoint(kind.fields)
    return kind.has_stream, has_text, len(keys) + 2 * times, minuses, encoder


_EXPECTED = {name: _expected(kind) for name, kind in KINDS.items()}


# The exact reader


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys came more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: set[str] = set()
        if len(self) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            self.repeated = {name for name, count in counts.items() if count > 1}


def _read_exactly(text: str, unknown: Unknown) -> Record:
    fields = _parse(text)
    if not isinstance(fields, _Object):
        message = f"expected a JSON object, found {_shown(fields)}"
        raise InvalidEventError(message)
    if len(text) > DATA_SIZE_MAX:
        message = f"too large: {len(text)} characters (expected at most {DATA_SIZE_MAX})"
        raise InvalidEventError(message)
    kind = _kind(fields)
    if kind in KINDS:
        return _known_record(kind, fields)
    if unknown == "keep":
        return _unknown_record(kind, fields, text)
    raise UnknownKindError(kind)


def _kind(fields: _Object) -> str:
    kind = fields.get("event_type")
    if isinstance(kind, str) and kind:
        return kind
    if "event_type" not in fields:
        raise InvalidEventError("missing field 'event_type'")
    message = f"field 'event_type': expected the name of a kind, found {_shown(kind)}"
    raise InvalidEventError(message)


def _known_record(kind: str, fields: _Object) -> Record:
    has_stream = KINDS[kind].has_stream
    _refuse_repeated(fields, ["event_type", "session_id", "timestamp", *KINDS[kind].fields])
    if has_stream:
        _refuse_repeated(fields, ["stream_id"])
    if kind == "session_timed_out":
        fields["original_state"] = _unit_variant(fields.get("original_state"))
    try:
        valid = _VALIDATORS[kind].validate_python(fields)
    except ValidationError as error:
        raise InvalidEventError(_first_reason(error)) from None
    if kind == "performance_metrics_recorded":
        valid["metrics"].setdefault("latency_ms", None)
    stream = _stream_id(valid) if has_stream else None
    if kind == "session_timeout_extended":
        _converted(valid, "new_expires_at", epoch_ns_from_text)
    encoder = _DATA_ENCODERS.get(kind)
    data = None if encoder is None else encoder(valid)
    return kind, _session_id(valid), stream, _timestamp_ns(valid), data


def _unknown_record(kind: str, fields: _Object, text: str) -> Record:
    _refuse_repeated(fields, ["event_type", "session_id", "stream_id", "timestamp"])
    stream = None if fields.get("stream_id") is None else _stream_id(fields)
    # A line feed can only stand between values; without it the text is a line of NDJSON.
    whole = text.strip().replace("\r", " ").replace("\n", " ")
    return kind, _session_id(fields), stream, _timestamp_ns(fields), whole


def _parse(text: str) -> Any:
    too_deep = InvalidEventError(f"nested too deeply (expected at most {_DEPTH_MAX} levels)")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_Object,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_no_constant,
        )
        if _is_deeper(value, _DEPTH_MAX):
            raise too_deep
        if not text.isascii() or "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        problem = error.msg[0].lower() + error.msg[1:].removesuffix(" at").split(" (", 1)[0]
        message = f"not JSON: {problem} at character {error.pos + 1}"
        raise InvalidEventError(message) from None
    except UnicodeEncodeError:
        message = "not Unicode: a string holds a lone surrogate"
        raise InvalidEventError(message) from None
    except RecursionError:
        raise too_deep from None
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, _Object):
        return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in value)
    return False


def _integer(digits: str) -> int | float:
    if digits == "-0":
        return -0.0
    if len(digits) <= 20:
        value = int(digits)
        if _I64_MIN <= value <= _U64_MAX:
            return value
    return _real(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        message = f"not JSON: the number {digits[:60]} is out of range"
        raise InvalidEventError(message)
    return value


def _no_constant(name: str) -> None:
    message = f"not JSON: {name} is not a value"
    raise InvalidEventError(message)


def _refuse_repeated(fields: _Object, names: list[str]) -> None:
    """Refuse an object in which one of the (dotted) names comes twice; others may."""
    for name in names:
        first, _, rest = name.partition(".")
        if first in fields.repeated:
            message = f"duplicate field {first!r}"
            raise InvalidEventError(message)
        inner = fields.get(first)
        if rest and isinstance(inner, _Object):
            _refuse_repeated(inner, [rest])


def _unit_variant(state: Any) -> Any:
    """Return the name in {"Active": {}} or {"Active": null}, which serde reads as "Active"."""
    if isinstance(state, _Object) and len(state) == 1 and not state.repeated:
        (name, content), *_ = state.items()
        if content is None or content == {}:
            return name
    return state


def _session_id(fields: dict[str, Any]) -> SessionId:
    return _converted(fields, "session_id", SessionId.parse)


def _stream_id(fields: dict[str, Any]) -> StreamId:
    return _converted(fields, "stream_id", StreamId.parse)


def _converted(fields: dict[str, Any], name: str, convert: Callable[[str], _T]) -> _T:
    value = fields.get(name)
    if not isinstance(value, str):
        message = f"field {name!r}: expected a string, found {_shown(value)}"
        raise InvalidEventError(f"missing field {name!r}" if name not in fields else message)
    try:
        return convert(value)
    except ValueError as error:
        message = f"field {name!r}: {error}"
        raise InvalidEventError(message) from None


def _timestamp_ns(fields: dict[str, Any]) -> int:
    timestamp_ns = _converted(fields, "timestamp", epoch_ns_from_text)
    if not MIN_EPOCH_NS <= timestamp_ns <= MAX_EPOCH_NS:
        message = (
            f"field 'timestamp': {fields['timestamp']} is out of range (expected 1677-09-21 "
            "to 2262-04-11, the nanoseconds that fit in 64 bits)"
        )
        raise InvalidEventError(message)
    return timestamp_ns


def _first_reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"missing field {name!r}"
    wanted = first["msg"].replace("Input should be ", "expected ")
    return f"field {name!r}: {wanted}, found {_shown(first['input'])}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "..."
