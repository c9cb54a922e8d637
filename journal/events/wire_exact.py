"""The exact reader of the wire, which sees everything and says what is wrong."""

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, Literal, TypeVar

from pydantic_core import ValidationError

from journal.errors import InvalidEventError, UnknownKindError
from journal.events.codecs import Record, wire_data
from journal.events.event import Kind
from journal.events.fields import Field
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS, epoch_ns_from_text
from journal.events.values import U64_MAX, SessionState, StreamState
from journal.events.wire_shapes import one_kind
from journal.limits import DATA_SIZE_MAX

Unknown = Literal["reject", "keep"]
"""What to do with an event of an unknown kind: refuse it, or store its text whole."""

_T = TypeVar("_T")

_DEPTH_MAX = 127  # serde_json refuses what is nested deeper
_I64_MIN = -(2**63)  # it reads integers beyond this, or U64_MAX, as floats


def decoded_text(text: bytes) -> str:
    """Return what UTF-8 bytes say.

    Raises:
        InvalidEventError: they are not UTF-8, or no bytes.
    """
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{text[error.start]:02x} at byte {error.start + 1}"
        raise InvalidEventError(message) from None
    except AttributeError:
        message = f"expected JSON text as str or bytes, found {type(text).__name__}"
        raise InvalidEventError(message) from None


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys came more than once, and with what."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs
        self.repeated: set[str] = set()
        if len(self) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            self.repeated = {name for name, count in counts.items() if count > 1}


def read_exactly(text: str, unknown: Unknown) -> Record:
    """Return the record of the event that a JSON text describes, or say what is wrong with it.

    Raises:
        UnknownKindError, InvalidEventError: as `wire.read_record`.
    """
    fields = _parse(text)
    if not isinstance(fields, _Object):
        message = f"expected a JSON object, found {_shown(fields)}"
        raise InvalidEventError(message)
    if len(text) > DATA_SIZE_MAX:
        message = f"too large: {len(text)} characters (expected at most {DATA_SIZE_MAX})"
        raise InvalidEventError(message)
    kind = _kind(fields)
    if kind in KINDS:
        return _known_record(KINDS[kind], fields)
    if unknown == "keep":
        return _unknown_record(kind, fields, text)
    raise UnknownKindError(kind)


def _kind(fields: _Object) -> str:
    _refuse_repeated(fields, ("event_type",))
    kind = fields.get("event_type")
    if isinstance(kind, str) and kind:
        return kind
    if "event_type" not in fields:
        raise InvalidEventError("missing field 'event_type'")
    message = f"field 'event_type': expected the name of a kind, found {_shown(kind)}"
    raise InvalidEventError(message)


_ENUMS = {SessionState.__name__, StreamState.__name__}


def _known_record(kind: Kind, fields: _Object) -> Record:
    for path in [("session_id",), ("timestamp",)]:
        _refuse_repeated(fields, path)
    for field in kind.fields:
        _refuse_repeated(fields, field.path)
    if kind.has_stream:
        _refuse_repeated(fields, ("stream_id",))
    for field in kind.fields:
        if field.type.name in _ENUMS:
            _replace(fields, field.path, _unit_variant)
    try:
        valid = one_kind(kind).validate_python(fields)
    except ValidationError as error:
        raise InvalidEventError(_first_reason(error)) from None
    stream = _stream_id(valid) if kind.has_stream else None
    for field in kind.fields:
        if field.type.name == "instant":
            _check_instant(valid, field)
    data_of = wire_data(kind)
    data = None if data_of is None else data_of(valid)
    return kind.name, _session_id(valid), stream, _timestamp_ns(valid), data


def _unknown_record(kind: str, fields: _Object, text: str) -> Record:
    for name in ("session_id", "stream_id", "timestamp"):
        _refuse_repeated(fields, (name,))
    stream = None if fields.get("stream_id") is None else _stream_id(fields)
    # A line feed can only stand between values; without it the text is a line of NDJSON.
    whole = text.strip().replace("\r", " ").replace("\n", " ")
    return kind, _session_id(fields), stream, _timestamp_ns(fields), whole


def _parse(text: str) -> Any:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_Object,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_no_constant,
        )
        _check(value, _DEPTH_MAX)
    except json.JSONDecodeError as error:
        problem = error.msg[0].lower() + error.msg[1:].removesuffix(" at").split(" (", 1)[0]
        message = f"not JSON: {problem} at character {error.pos + 1}"
        raise InvalidEventError(message) from None
    except UnicodeEncodeError:
        message = "not Unicode: a string holds a lone surrogate"
        raise InvalidEventError(message) from None
    except RecursionError:
        message = f"nested too deeply (expected at most {_DEPTH_MAX} levels)"
        raise InvalidEventError(message) from None
    return value


def _check(value: Any, levels: int) -> None:
    """Look at all of a value, also at what a later pair with the same key hides.

    Raises:
        RecursionError: it has more levels than these.
        UnicodeEncodeError: a string in it holds a lone surrogate.
    """
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, list | _Object):
        if levels == 0:
            raise RecursionError
        inside = value if isinstance(value, list) else chain.from_iterable(value.pairs)
        for inner in inside:
            _check(inner, levels - 1)


def _integer(digits: str) -> int | float:
    if digits == "-0":
        return -0.0
    if len(digits) <= 20:
        value = int(digits)
        if _I64_MIN <= value <= U64_MAX:
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


def _refuse_repeated(fields: _Object, path: tuple[str, ...]) -> None:
    """Refuse an object in which a name on the way to a field comes twice; other names may."""
    name, *rest = path
    if name in fields.repeated:
        message = f"duplicate field {name!r}"
        raise InvalidEventError(message)
    inner = fields.get(name)
    if rest and isinstance(inner, _Object):
        _refuse_repeated(inner, tuple(rest))


def _replace(fields: Any, path: tuple[str, ...], change: Callable[[Any], Any]) -> None:
    """Change the value of a field, if it is there."""
    *outer, name = path
    for each in outer:
        fields = fields.get(each) if isinstance(fields, dict) else None
    if isinstance(fields, dict) and name in fields:
        fields[name] = change(fields[name])


def _check_instant(valid: dict[str, Any], field: Field) -> None:
    *outer, name = field.path
    for each in outer:
        valid = valid[each]
    if valid.get(name) is not None or not field.nullable:
        _converted(valid, name, epoch_ns_from_text)


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
