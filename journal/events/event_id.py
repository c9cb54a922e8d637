"""The `event_id` of a domain event, as the Rust implementation (pjs 0.4.4) computes it.

Rust hashes the `{:?}` text of the event with its default hasher, SipHash-1-3 with zero keys. So
an id needs three things that are done here: the text, the hash, and the UUID made from it. The id
does not identify an event: two equal events share it.

The escapes in the text are those of Unicode 17 (Rust 1.95), as far as Python knows it: a character
that was assigned after `unicodedata.unidata_version` is escaped here, where Rust prints most such
characters, and the event gets another id.
"""

import math
import re
import struct
import unicodedata
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import NewType, Protocol, runtime_checkable
from uuid import UUID

from pydantic import BaseModel

__all__ = ["EventId", "debug_text", "event_id", "siphash13"]

EventId = NewType("EventId", UUID)

_OPTIONAL_FIELDS = frozenset({"latency_ms"})
"""The fields that are an `Option` in Rust, whose `{:?}` is `None` or `Some(value)`."""


@runtime_checkable
class _Instant(Protocol):
    """What is needed of a timestamp: the text that chrono prints for a `DateTime<Utc>`."""

    def rfc3339(self) -> str: ...


def event_id(event: BaseModel) -> EventId:
    """Return the id of an event: eight bytes of hash, big-endian, and then eight zero bytes.

    Rust's `Hash for str` adds the byte 0xFF to the text (`Hasher::write_str` in core::hash), so
    that no text is a prefix of another.

    Raises:
        ValueError, TypeError: as `debug_text`.
    """
    digest = siphash13(debug_text(event).encode() + b"\xff")
    return EventId(UUID(int=digest << 64))


# The text


def debug_text(event: BaseModel) -> str:
    """Return the text that Rust's `{:?}` (`derive(Debug)`) prints for an event.

    It is the name of the class and its fields in the order of declaration, without `event_type`,
    which in Rust is the variant itself.

    Raises:
        ValueError: a string holds a lone surrogate, which no Rust string can.
        TypeError: a field holds what no field of an event can hold.
    """
    return _debug_struct(event)


def _debug_struct(model: BaseModel) -> str:
    """Print a model as a Rust struct with named fields (`Formatter::debug_struct`)."""
    fields = (
        f"{name}: {_debug_field(name, getattr(model, name))}"
        for name in type(model).model_fields
        if name != "event_type"
    )
    return f"{type(model).__name__} {{ {', '.join(fields)} }}"


def _debug_field(name: str, value: object) -> str:
    """Print the value of the field `name`, which decides whether it is an `Option`."""
    if name not in _OPTIONAL_FIELDS:
        return _debug_value(value)
    return "None" if value is None else f"Some({_debug_value(value)})"


def _debug_value(value: object) -> str:
    """Print a value by its type.

    Raises:
        ValueError: a lone surrogate.
        TypeError: a type that no event has.
    """
    match value:
        case Enum():  # before str and int, which an Enum may also be
            text = str(value.value)
        case str():
            text = _debug_str(value)
        case int() if not isinstance(value, bool):
            text = format(value, "d")
        case float():
            text = _debug_float(value)
        case UUID():
            text = f"{type(value).__name__}({value})"
        case BaseModel():
            text = _debug_struct(value)
        case _Instant():
            text = value.rfc3339()
        case _:
            message = f"a field of an event cannot be a {type(value).__name__}: {value!r}"
            raise TypeError(message)
    return text


def _debug_float(number: float) -> str:
    """Print an f64 as Rust does, from Python's repr.

    Both give the shortest digits that read back as the same number, and both change to the
    exponent form below 1e-4 and from 1e16 on (`impl_general_format` in core::fmt::float). There
    are two differences. Rust writes the exponent as 1e-7 and 1e16, not 1e-07 and 1e+16. And
    where two shortest texts are equally near, Python takes the even one and Rust the larger one:
    785827734548653.25 is ...653.2 in Python and ...653.3 in Rust (`format_shortest` in
    core::num::flt2dec::strategy::dragon).
    """
    text = float.__repr__(number)
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else text
    digits, has_exponent, exponent = text.partition("e")
    if _is_half_cut_off(number, digits):
        digits = f"{digits[:-1]}{int(digits[-1]) + 1}"  # the last digit is even: nothing to carry
    return f"{digits}e{int(exponent)}" if has_exponent else digits


def _is_half_cut_off(number: float, digits: str) -> bool:
    """Tell whether the exact value of a number is `digits` and one more digit, a 5."""
    numerator, power_of_two = number.as_integer_ratio()
    exact: int = abs(numerator) * 5 ** (power_of_two.bit_length() - 1)  # without the decimal point
    return exact == int(digits.lstrip("-").replace(".", "")) * 10 + 5


_SHORT_ESCAPES = {
    "\0": r"\0",
    "\t": r"\t",
    "\n": r"\n",
    "\r": r"\r",
    '"': r"\"",
    "\\": r"\\",
}
"""`char::escape_debug_ext` in core::char::methods. `Debug for str` leaves the single quote."""

_NOT_PRINTABLE = frozenset({"Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs"})
"""The general categories that Rust escapes (library/core/src/unicode/printable.py).

The space (Zs) is printed, but never asked for here; surrogates (Cs) do not occur in Rust.
"""

_GRAPHEME_EXTEND = frozenset({"Me", "Mn"})
"""The general categories of Grapheme_Extend, which Rust escapes everywhere in a str.

Derived as in DerivedCoreProperties.txt: Me + Mn + Other_Grapheme_Extend.
"""

_OTHER_GRAPHEME_EXTEND = frozenset(
    "\u09be\u09d7\u0b3e\u0b57\u0bbe\u0bd7\u0cc0\u0cc2\u0cc7\u0cc8\u0cca\u0ccb\u0cd5\u0cd6\u0d3e"
    "\u0d57\u0dcf\u0ddf\u1715\u1734\u1b35\u1b3b\u1b3d\u1b43\u1b44\u1baa\u1bf2\u1bf3\u302e\u302f"
    "\ua953\ua9c0\uff9e\uff9f\U000111c0\U00011235\U0001133e\U0001134d\U00011357\U000113b8"
    "\U000113c2\U000113c5\U000113c7\U000113c8\U000113c9\U000113cf\U000114b0\U000114bd\U000115af"
    "\U000116b6\U00011930\U0001193d\U00011f41\U00016ff0\U00016ff1\U0001d165\U0001d166\U0001d16d"
    "\U0001d16e\U0001d16f\U0001d170\U0001d171\U0001d172",
)
"""Other_Grapheme_Extend of PropList-17.0.0.txt, which unicodedata does not have.

Without U+200C and the tags U+E0020..U+E007F, which are Cf and escaped anyway. 25 of these are
characters that Unicode 14 has without the property, so an older list would not do.
"""

_NO_LONGER_EXTEND = frozenset("\U0001171e")
"""Mn up to Unicode 15.1 and Mc since 16 (UnicodeData.txt): Rust prints it."""

_PERHAPS_ESCAPED = re.compile(r"[^ !#-\[\]-~]")
"""All but the characters of ASCII that stand for themselves."""


def _debug_str(text: str) -> str:
    """Print a str in double quotes, with the escapes of Rust's `Debug for str`."""
    return f'"{_PERHAPS_ESCAPED.sub(_escape_match, text)}"'


def _escape_match(match: re.Match[str]) -> str:
    return _escape_char(match[0])


@lru_cache(maxsize=4096)
def _escape_char(char: str) -> str:
    """Return what Rust prints for a character in a str.

    Raises:
        ValueError: the character is a lone surrogate.
    """
    category = unicodedata.category(char)
    if category == "Cs":
        message = f"a lone surrogate (U+{ord(char):04X}) is not text"
        raise ValueError(message)
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    if category in _NOT_PRINTABLE or _is_grapheme_extend(char, category):
        return f"\\u{{{ord(char):x}}}"
    return char


def _is_grapheme_extend(char: str, category: str) -> bool:
    """Tell whether a character has the property Grapheme_Extend in Unicode 17."""
    if category in _GRAPHEME_EXTEND:
        return char not in _NO_LONGER_EXTEND
    return char in _OTHER_GRAPHEME_EXTEND


# The hash

_MASK = 0xFFFF_FFFF_FFFF_FFFF

_State = tuple[int, int, int, int]

_INITIAL_STATE: _State = (
    0x736F_6D65_7073_6575,
    0x646F_7261_6E64_6F6D,
    0x6C79_6765_6E65_7261,
    0x7465_6462_7974_6573,
)
"""The constants of the SipHash paper, section 2.1 ("somepseudorandomlygeneratedbytes").

They are combined with the keys by exclusive or, which with zero keys changes nothing.
"""


def siphash13(data: bytes) -> int:
    """Return the 64-bit SipHash-1-3 of `data` with both keys zero.

    SipHash (Aumasson and Bernstein, 2012) with one round per word of eight bytes and three at
    the end, as in Rust's `DefaultHasher`.
    """
    v0, v1, v2, v3 = _compress(_INITIAL_STATE, _words(data))
    # A closing round is the same as the round of a word that is zero.
    v0, v1, v2, v3 = _compress((v0, v1, v2 ^ 0xFF, v3), (0, 0, 0))
    return v0 ^ v1 ^ v2 ^ v3


def _words(data: bytes) -> tuple[int, ...]:
    """Cut into little-endian words, filled up with zeros to the last byte: the length mod 256."""
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    return struct.unpack(f"<{len(padded) // 8}Q", padded)


def _compress(state: _State, words: Iterable[int]) -> _State:
    """Take each word into the state with one SipRound.

    The rotations are written out because a call for each would triple the time.
    """
    v0, v1, v2, v3 = state
    for word in words:
        v3 ^= word
        v0 = (v0 + v1) & _MASK
        v2 = (v2 + v3) & _MASK
        v1 = ((v1 << 13 | v1 >> 51) & _MASK) ^ v0
        v3 = ((v3 << 16 | v3 >> 48) & _MASK) ^ v2
        v0 = (v0 << 32 | v0 >> 32) & _MASK
        v2 = (v2 + v1) & _MASK
        v0 = (v0 + v3) & _MASK
        v1 = ((v1 << 17 | v1 >> 47) & _MASK) ^ v2
        v3 = ((v3 << 21 | v3 >> 43) & _MASK) ^ v0
        v2 = (v2 << 32 | v2 >> 32) & _MASK
        v0 ^= word
    return v0, v1, v2, v3
