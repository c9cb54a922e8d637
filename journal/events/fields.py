"""What an event can carry: the types of fields, and how each one is checked, written and read.

A type says it once, as Python expressions that `codecs` builds its functions from. A field of
another type cannot be declared: its class is an error where it stands.
"""

import inspect
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args

from pydantic_core import CoreSchema, core_schema

from journal.events.timestamps import Timestamp
from journal.events.values import (
    U8,
    U8_MAX,
    U64,
    U64_MAX,
    Float,
    SessionState,
    StreamState,
    Text,
    Value,
)


class FieldType(NamedTuple):
    """A type that a field of an event can have.

    The expressions are Python's, with `@` for the value; what they call stands in `codecs`.
    """

    name: str
    """As FORMAT.md calls it."""
    values: str
    """What it can be, in words."""
    wire: CoreSchema
    """What its JSON value must be on the wire."""
    stored: CoreSchema
    """What it must be in a file. Ranges are not looked at again: what is checked is that nothing
    was mixed up."""
    from_model: str = "@"
    """From the value in a model to what JSON can hold."""
    from_wire: str = "@"
    """From the checked JSON value to the canonical one."""
    text: str | None = "{@}"
    """From either to JSON text, in an f-string; None: by pydantic's JSON writer."""
    to_model: str = "@"
    """From the JSON value in a file to the value in a model."""


def _integer(name: str, largest: int) -> FieldType:
    wire = core_schema.int_schema(strict=True, ge=0, le=largest)
    return FieldType(name, f"0 to {largest}", wire, core_schema.int_schema(strict=True))


def _one_of(states: type[SessionState] | type[StreamState]) -> FieldType:
    values = [state.value for state in states]
    names = core_schema.literal_schema(values)
    name = states.__name__
    words = ", ".join(values)
    return FieldType(name, words, names, names, "@.value", text='"{@}"', to_model=f"{name}(@)")


_TEXT = core_schema.str_schema(strict=True)

_TYPES: tuple[tuple[Any, FieldType], ...] = (
    (U64, _integer("u64", U64_MAX)),
    (U8, _integer("u8", U8_MAX)),
    (
        Float,
        FieldType(
            "float",
            "any but NaN and the infinite",
            core_schema.float_schema(strict=True, allow_inf_nan=False),
            core_schema.float_schema(strict=True),
            text=None,
        ),
    ),
    (Text, FieldType("text", "any Unicode text", _TEXT, _TEXT, text="{quoted(@)}")),
    (
        Timestamp,
        FieldType(
            "instant",
            "RFC 3339 with an offset, exact to the nanosecond",
            _TEXT,
            _TEXT,
            from_model="text_from_epoch_ns(@._epoch_ns)",
            from_wire="canonical_text(@)",
            text='"{@}"',
            to_model="timestamp_of(@)",
        ),
    ),
    (SessionState, _one_of(SessionState)),
    (StreamState, _one_of(StreamState)),
)


class Field(NamedTuple):
    """One value that an event carries."""

    path: tuple[str, ...]
    """The names that lead to it: ("metrics", "latency_ms") is {"metrics": {"latency_ms": ...}}."""
    type: FieldType
    nullable: bool
    """Whether it may be null, and may be missing on the wire."""
    unit: str | None
    """What it counts, as its annotation says."""

    @property
    def name(self) -> str:
        """The names with dots between them, as a file has them."""
        return ".".join(self.path)


def fields_of(
    owner: str, annotations: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[Field]:
    """Yield the fields that a class declares, and those of the values nested in it, in order.

    Args:
        owner: the name of the class, for errors.
        annotations: of its own fields.
        path: the names that lead to it.

    Raises:
        TypeError: one has a type that no field of an event can have.
    """
    for name, annotation in annotations.items():
        if isinstance(annotation, type) and issubclass(annotation, Value):
            inside = inspect.get_annotations(annotation)
            yield from fields_of(annotation.__name__, inside, (*path, name))
            continue
        nullable = NoneType in get_args(annotation)
        wanted = get_args(annotation)[0] if nullable else annotation
        unit = next((one for one in get_args(wanted)[1:] if isinstance(one, str)), None)
        found = next(
            (it for known, it in _TYPES if wanted == (Annotated[known, unit] if unit else known)),
            None,
        )
        if found is None:
            message = (
                f"{owner}.{name}: expected U64, U8, Float, Text, Timestamp, SessionState, "
                f"StreamState or a Value of such, which are what an event can carry, found {wanted}"
            )
            raise TypeError(message)
        yield Field((*path, name), found, nullable, unit)
