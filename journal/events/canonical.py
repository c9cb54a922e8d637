"""The canonical JSON text of events, byte for byte as the reference implementation prints it.

An event's text is put together from strings: its kind, its ids, its timestamp, and its *data*, the
JSON array of whatever else it carries, which is also what a journal file stores. So an event can
be printed from a row of the file without building the event.
"""

import re
from collections.abc import Sequence
from json import encoder as _json_encoder

from journal.events.kinds import KINDS

# Escapes ", \ and what is below U+0020, as serde_json does, and leaves everything else as it is.
# json has it in C; its Python twin gives the same text where there is no C accelerator.
quoted = _json_encoder.c_encode_basestring or _json_encoder.py_encode_basestring  # type: ignore[attr-defined]
"""Return a str as JSON text, in quotes."""

_STRING_OR_EXPONENT = re.compile(r'("(?:[^"\\]|\\.)*")|e\+')


def rust_floats(json: str) -> str:
    """Return pydantic's JSON text with its exponents as Rust writes them (1e+21 becomes 1e21)."""
    if "e+" not in json:
        return json
    return _STRING_OR_EXPONENT.sub(lambda match: match[1] or "e", json)


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


_HEADS = {name: f'{{"event_type":"{name}","session_id":"' for name in KINDS}
_PIECES = {name: object_pieces(kind.fields) for name, kind in KINDS.items() if kind.fields}


def line(kind: str, session: str, stream: str | None, timestamp: str, data: str | None) -> str:
    """Return the canonical text of an event of a known kind, without a line end.

    Args:
        kind: the event_type.
        session: the session id as text.
        stream: the stream id as text, None for a session event.
        timestamp: the timestamp as text.
        data: the JSON array of the other values in field order, None where there are none.
    """
    head = _HEADS[kind] + session
    if stream is not None:
        head = f'{head}","stream_id":"{stream}'
    if data is None:
        return f'{head}","timestamp":"{timestamp}"}}'
    pieces = _PIECES[kind]
    # No value but the last can hold a comma: numbers, and the names of states.
    values = data[1:-1].split(",", len(pieces) - 2)
    body = "".join([part for pair in zip(pieces, values, strict=False) for part in pair])
    return f'{head}",{body}{pieces[-1]},"timestamp":"{timestamp}"}}'
