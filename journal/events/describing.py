"""The table of kinds in words, for people who look: `journal kinds`, `help(journal.events)`."""

from collections.abc import Iterator
from typing import Any

from journal.events.event import Kind
from journal.events.kinds import KINDS

_ABOUT_ALL = (
    "Every event has event_type and session_id before the fields named here, and",
    "timestamp, an instant, after them. Ids are UUIDs.",
)


def kinds_text() -> str:
    """Return every kind with what it means, its own fields, their types and units."""
    lines = [*_ABOUT_ALL, ""]
    for kind in KINDS.values():
        lines += [kind.name, f"  {_about(kind)}", *_fields_table(kind)]
    types = {field.type.name: field.type.values for kind in KINDS.values() for field in kind.fields}
    lines += ["", *(f"{name:<12}  {values}" for name, values in types.items())]
    return "\n".join(lines)


def kinds_json() -> Iterator[dict[str, Any]]:
    """Yield the same of each kind as JSON can hold it, with all fields, in the order of the wire.

    The keys are event_type, about and fields; those of a field are name (with dots between the
    names that lead to it), type, unit and nullable.
    """
    for kind in KINDS.values():
        ids = ["session_id", "stream_id"] if kind.has_stream else ["session_id"]
        own = [(field.name, field.type.name, field.unit, field.nullable) for field in kind.fields]
        rows = [
            ("event_type", "text", None, False),
            *((name, "uuid", None, False) for name in ids),
            *own,
            ("timestamp", "instant", None, False),
        ]
        keys = ("name", "type", "unit", "nullable")
        fields = [dict(zip(keys, row, strict=True)) for row in rows]
        yield {"event_type": kind.name, "about": _about(kind), "fields": fields}


def _about(kind: Kind) -> str:
    """Return what the class of a kind says of it; python -OO leaves nothing of that."""
    return " ".join((kind.model.__doc__ or "").replace("`", "").split())


def _fields_table(kind: Kind) -> list[str]:
    rows = [("stream_id", "id", "")] if kind.has_stream else []
    for field in kind.fields:
        rows.append((field.name, field.type.name, field.unit or ""))
        if field.nullable:
            rows[-1] = (*rows[-1][:2], f"{rows[-1][2]}, or null".removeprefix(", "))
    names, types = (max((len(row[place]) for row in rows), default=0) for place in (0, 1))
    return [f"    {name:<{names}}  {kind:<{types}}  {unit}".rstrip() for name, kind, unit in rows]
