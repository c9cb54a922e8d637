"""Values with all their fields, one to a line, under the names that they have in JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from journal.commands.console.tables import NOTHING, told
from journal.commands.console.widths import padded, width_of

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAME_MAX = 100
_TEXT_MAX = 1_000
_WIDTH_MIN = 14


def records(models: "Iterable[BaseModel]") -> Iterator[str]:
    """Yield the lines of some records, an empty one between two."""
    for place, model in enumerate(models):
        if place:
            yield ""
        yield from record(model.model_dump(mode="json"))


def record(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a value as JSON has it; names of nested fields have dots between them."""
    flat = [(told(name, _NAME_MAX), _text(value)) for name, value in _flat(fields, ())]
    width = max(_WIDTH_MIN, *(width_of(name) for name, _ in flat))
    for name, text in flat:
        yield f"{padded(name, width)}  {text}"


def _flat(fields: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*path, name))
        else:
            yield ".".join((*path, name)), value


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return told(value, _TEXT_MAX)
    if type(value) is int:
        return f"{value:,}"
    return told(json.dumps(value, ensure_ascii=False), _TEXT_MAX)
