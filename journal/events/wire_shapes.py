"""The shape of each kind on the wire: its values are checked, ids and times stay text."""

from functools import cache

from pydantic_core import CoreSchema, SchemaValidator, core_schema

from journal.events.event import Kind
from journal.events.fields import Field
from journal.events.kinds import KINDS


def any_kind() -> SchemaValidator:
    """Return what checks an event of any known kind that has all its fields.

    Those that may be missing, too: so a text is known to hold every key that its kind has.
    """
    shapes = {kind.name: _event(kind, all_required=True) for kind in KINDS.values()}
    return SchemaValidator(core_schema.tagged_union_schema(shapes, discriminator="event_type"))


@cache
def one_kind(kind: Kind) -> SchemaValidator:
    """Return what checks an event of this kind."""
    return SchemaValidator(_event(kind, all_required=False))


def _event(kind: Kind, *, all_required: bool) -> CoreSchema:
    text = core_schema.str_schema(strict=True)
    shapes: dict[str, tuple[CoreSchema, bool]] = {
        "event_type": (core_schema.literal_schema([kind.name]), True),
        "session_id": (text, True),
        **({"stream_id": (text, True)} if kind.has_stream else {}),
        **_nested(kind.fields, 0, all_required=all_required),
        "timestamp": (text, True),
    }
    return _object(shapes)


def _nested(
    fields: tuple[Field, ...], depth: int, *, all_required: bool
) -> dict[str, tuple[CoreSchema, bool]]:
    """Return the shapes of some fields by the names at this depth, and which are required."""
    inside: dict[str, list[Field]] = {}
    for field in fields:
        inside.setdefault(field.path[depth], []).append(field)
    shapes = {}
    for name, those in inside.items():
        field = those[0]
        if len(field.path) > depth + 1:
            inside_it = _nested(tuple(those), depth + 1, all_required=all_required)
            shapes[name] = _object(inside_it), True
        elif field.nullable:
            shapes[name] = core_schema.nullable_schema(field.type.wire), all_required
        else:
            shapes[name] = field.type.wire, True
    return shapes


def _object(shapes: dict[str, tuple[CoreSchema, bool]]) -> CoreSchema:
    fields = {
        name: core_schema.typed_dict_field(shape, required=required)
        for name, (shape, required) in shapes.items()
    }
    return core_schema.typed_dict_schema(fields, extra_behavior="ignore")
