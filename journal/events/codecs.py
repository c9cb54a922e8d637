"""Taking events apart and putting them together: functions made for each kind, from its fields.

What stands between the ids and the timestamp of an event is kept as its *data*: the JSON array of
the values in field order, None where there are none. The functions here are written as text and
compiled when a kind is first met, as `dataclasses` does it: a loop over the fields takes twice the
time.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from inspect import get_annotations
from typing import Any

from pydantic_core import SchemaValidator, core_schema, from_json, to_json

from journal.events.event import Kind
from journal.events.fields import Field
from journal.events.ids import SessionId, StreamId
from journal.events.json_text import quoted, rust_floats
from journal.events.timestamps import (
    Timestamp,
    canonical_text,
    text_from_epoch_ns,
    timestamp_of,
)
from journal.events.values import SessionState, StreamState

Record = tuple[str, SessionId, StreamId | None, int, str | None]
"""An event taken apart: kind, session, stream, timestamp_ns, data. Of a kind that is not known,
data is the original JSON text."""

Fields = dict[str, Any]
Encode = Callable[[Mapping[str, Any]], Record]
WireData = Callable[[Mapping[str, Any]], str]
Fill = Callable[[Fields, Any, Timestamp | None], None]


@cache
def encoder(kind: Kind) -> Encode:
    """Return what takes apart an event of a kind, given as the `__dict__` of its model."""
    stream = 'f["stream_id"]' if kind.has_stream else "None"
    data = _data_source(kind, _in_model, "from_model") if kind.fields else "None"
    source = (
        f'lambda f: ("{kind.name}", f["session_id"], {stream}, f["timestamp"]._epoch_ns, {data})'
    )
    compiled: Encode = _compiled(source)
    return compiled


@cache
def wire_data(kind: Kind) -> WireData | None:
    """Return what makes the data of a kind from its checked JSON object; None: it has no data."""
    if not kind.fields:
        return None
    source = f"lambda f: {_data_source(kind, _on_the_wire, 'from_wire')}"
    compiled: WireData = _compiled(source)
    return compiled


@cache
def fill(kind: Kind) -> Fill | None:
    """Return what adds an event's own fields and its timestamp to those of a new instance.

    It takes the instance's `__dict__`, the data and the timestamp, and raises ValueError where the
    data is not what the kind has. None: the kind has no data.
    """
    if not kind.fields:
        return None
    stored = [
        core_schema.nullable_schema(field.type.stored) if field.nullable else field.type.stored
        for field in kind.fields
    ]
    values = SchemaValidator(core_schema.tuple_schema(stored, strict=True)).validate_json
    names = [f"v{place}" for place in range(len(kind.fields))]
    own = dict.fromkeys(field.path[0] for field in kind.fields)
    places = dict(zip((field.path for field in kind.fields), names, strict=True))
    classes: dict[str, Any] = {}
    lines = [
        "def fill(fields, data, timestamp):",
        f"    {', '.join(names)}, = values(data)",
        *_assignments("fields", kind.model, tuple(own), (), places, kind.fields, classes),
        '    fields["timestamp"] = timestamp',
    ]
    compiled: Fill = _compiled("\n".join(lines), "fill", values=values, **classes)
    return compiled


def own_values(kind: Kind, data: str | None) -> Fields:
    """Return the values between the ids and the timestamp, by name.

    Raises:
        ValueError: the data is not what the kind has.
    """
    fields: Fields = {}
    filling = fill(kind)
    if filling is not None:
        filling(fields, data, None)
        del fields["timestamp"]
    return fields


def value_in_data(kind: Kind, name: str) -> Callable[[Any], Any]:
    """Return what finds the value of one field in the data of a kind, as JSON has it."""
    place = kind.field_names.index(name)
    if len(kind.fields) == 1 and kind.fields[0].type.text == "{@}":  # an integer, and nothing else
        return lambda data: int(data[1:-1])
    return lambda data: from_json(data)[place]


# The sources


def _in_model(field: Field) -> str:
    return "f" + ".__dict__".join(f'["{name}"]' for name in field.path)


def _on_the_wire(field: Field) -> str:
    *outer, name = field.path
    last = f'.get("{name}")' if field.nullable else f'["{name}"]'
    return "f" + "".join(f'["{each}"]' for each in outer) + last


def _data_source(kind: Kind, access: Callable[[Field], str], conversion: str) -> str:
    """Return the expression of the data, of f, whose values `access` finds."""
    values = [
        _converted(field, getattr(field.type, conversion), access(field)) for field in kind.fields
    ]
    if any(field.nullable or field.type.text is None for field in kind.fields):
        return f"rust_floats(to_json([{', '.join(values)}]).decode())"
    pairs = zip(kind.fields, values, strict=True)
    texts = [(field.type.text or "").replace("@", value) for field, value in pairs]
    return f"f'[{','.join(texts)}]'"


def _converted(field: Field, conversion: str, value: str) -> str:
    """Return the expression of a converted value; what may be null stays None."""
    converted = conversion.replace("@", value)
    if field.nullable and converted != value:
        return f"(None if {value} is None else {converted})"
    return converted


def _assignments(
    target: str,
    owner: Any,
    names: tuple[str, ...],
    path: tuple[str, ...],
    places: Mapping[tuple[str, ...], str],
    fields: tuple[Field, ...],
    classes: dict[str, Any],
) -> Iterator[str]:
    """Yield the lines that put the values in their places, building what is nested."""
    annotations = get_annotations(owner)
    types = {field.path: field for field in fields}
    for name in names:
        here = (*path, name)
        if here in places:
            field = types[here]
            yield f'    {target}["{name}"] = {_converted(field, field.type.to_model, places[here])}'
            continue
        cls = annotations[name]
        classes[cls.__name__] = cls
        inner = "_".join(here)
        yield f"    {inner} = new({cls.__name__})"
        yield f'    {target}["{name}"] = {inner}'
        yield f"    {inner}_fields = {inner}.__dict__"
        inside = tuple(get_annotations(cls))
        yield from _assignments(f"{inner}_fields", cls, inside, here, places, fields, classes)


_NAMES: dict[str, Any] = {
    "SessionState": SessionState,
    "StreamState": StreamState,
    "canonical_text": canonical_text,
    "new": object.__new__,
    "quoted": quoted,
    "rust_floats": rust_floats,
    "text_from_epoch_ns": text_from_epoch_ns,
    "timestamp_of": timestamp_of,
    "to_json": to_json,
}


def _compiled(source: str, name: str | None = None, **names: Any) -> Any:
    """Return the value of an expression, or the function `name` that a text defines.

    The text is made of the names in the table of kinds and of nothing from outside.
    """
    namespace = {**_NAMES, **names}
    if name is None:
        return eval(source, namespace)  # noqa: S307
    exec(source, namespace)  # noqa: S102
    return namespace[name]
