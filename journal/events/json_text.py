"""JSON text as the reference implementation writes it: strings, and floats."""

import re
from json import encoder as _json_encoder

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
