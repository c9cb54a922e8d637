"""The canonical JSON text of events, byte for byte as the reference implementation prints it.

An event's text is put together from strings: its kind, its ids, its timestamp, and its *data*, the
JSON array of whatever else it carries, which is also what a journal file stores. So an event can
be printed from a row of the file without building the event.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache

from journal.events.codecs import Record
from journal.events.json_text import quoted
from journal.events.kinds import KINDS
from journal.events.timestamps import text_from_epoch_ns


def object_pieces(names: Sequence[str]) -> tuple[str, ...]:
    """Return the JSON text around the values of an object with these (dotted) names.

    With n names there are n + 1 pieces: value i stands between piece i and piece i + 1. The braces
    of the outermost object are left to the caller.
    """
    pieces: list[str] = []
    inside: list[str] = []
    for name in names:
        *path, key = name.split(".")
        shared = 0
        while shared < min(len(inside), len(path)) and inside[shared] == path[shared]:
            shared += 1
        text = "}" * (len(inside) - shared)
        text += "," if pieces else ""
        text += "".join(f"{quoted(outer)}:{{" for outer in path[shared:])
        pieces.append(f"{text}{quoted(key)}:")
        inside = path
    pieces.append("}" * len(inside))
    return tuple(pieces)


# The values in data, each as the text that stands there.
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^,\[\]]+')


@cache
def _parts(kind: str) -> tuple[str, tuple[str, ...], bool]:
    """Return how the text of a kind begins, and what stands around its values.

    And whether a comma can be in a value that is not the last.
    """
    fields = KINDS[kind].fields
    pieces = object_pieces(KINDS[kind].field_names) if fields else ()
    has_commas = any(field.type.name == "text" for field in fields[:-1])
    return f'{{"event_type":"{kind}","session_id":"', pieces, has_commas


def canonical_json(record: Record) -> str:
    """Return the canonical text of a record: what the event's `model_dump_json()` gives."""
    kind, session, stream, timestamp_ns, data = record
    if kind not in KINDS:
        return data or ""
    head, pieces, has_commas = _parts(kind)
    head += str(session)
    if stream is not None:
        head = f'{head}","stream_id":"{stream}'
    timestamp = text_from_epoch_ns(timestamp_ns)
    if data is None:
        return f'{head}","timestamp":"{timestamp}"}}'
    values: Iterable[str]
    values = _VALUE.findall(data) if has_commas else data[1:-1].split(",", len(pieces) - 2)
    body = "".join([part for pair in zip(pieces, values, strict=False) for part in pair])
    return f'{head}",{body}{pieces[-1]},"timestamp":"{timestamp}"}}'
