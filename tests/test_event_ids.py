"""The id of an event: Rust's debug text, SipHash-1-3, and the UUID made from them."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from journal.events.event_id import debug_text, event_id, siphash13
from journal.events.parsing import parse_event

DATA = Path(__file__).parent / "data"


def _json_lines(name: str) -> list[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


FACTS = _json_lines("kinds.facts.ndjson")
"""What the reference says of each line of kinds.ndjson, `debug` and `event_id` among it."""


# Stand-ins with the names and the fields that the debug text is made of


class SessionId(UUID):
    """The id of a session."""


class StreamId(UUID):
    """The id of a stream."""


class Timestamp(datetime):
    """An instant that knows its text."""

    def rfc3339(self) -> str:
        """Return the text in UTC, with milliseconds."""
        return f"{self:%Y-%m-%dT%H:%M:%S}.{self.microsecond // 1000:03}Z"


class SessionState(StrEnum):
    """A state; the value is the name of the Rust variant, the name is not."""

    TIMED_OUT = "Initializing"


class PlainState(Enum):
    """A state that is not a str."""

    ACTIVE = "Active"


class Model(BaseModel):
    """A model whose fields may be of any class."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


class SessionTimedOut(Model):
    """An event with ids, an enum, an integer and an instant."""

    event_type: str = "session_timed_out"
    session_id: SessionId
    stream_id: StreamId
    original_state: SessionState
    timeout_duration: int
    timestamp: Timestamp


class PriorityDistribution(Model):
    """The innermost struct."""

    critical_frames: int
    high_frames: int


class PerformanceMetrics(Model):
    """A struct with a struct and an option."""

    frames_per_second: float
    priority_distribution: PriorityDistribution
    latency_ms: int | None


class PerformanceMetricsRecorded(Model):
    """An event with a struct."""

    event_type: str = "performance_metrics_recorded"
    metrics: PerformanceMetrics


class Holder(Model):
    """An event with one field."""

    value: object


def _shown(value: object) -> str:
    text = debug_text(Holder(value=value))
    assert text.startswith("Holder { value: ")
    assert text.endswith(" }")
    return text.removeprefix("Holder { value: ").removesuffix(" }")


SESSION = "67e55044-10b1-426f-9247-bb680e5fe0c8"
STREAM = "2fef107a-2752-9ad0-e409-3df8432a8be5"


# The events of the reference


def test_text_and_id_of_each_event_are_those_of_the_reference() -> None:
    lines = (DATA / "kinds.ndjson").read_text(encoding="utf-8").split("\n")[:-1]
    events = [parse_event(line) for line in lines]
    assert [debug_text(event) for event in events] == [fact["debug"] for fact in FACTS]
    ids = [str(event_id(event)) for event in events]
    assert ids == [fact["event_id"] for fact in FACTS]


# The shape of the text


def test_fields_are_printed_in_order_without_the_event_type() -> None:
    event = SessionTimedOut(
        session_id=SessionId(SESSION),
        stream_id=StreamId(STREAM),
        original_state=SessionState.TIMED_OUT,
        timeout_duration=2**64 - 1,
        timestamp=Timestamp(2026, 1, 1, microsecond=100_000, tzinfo=UTC),
    )
    assert debug_text(event) == (
        f"SessionTimedOut {{ session_id: SessionId({SESSION}), stream_id: StreamId({STREAM}), "
        "original_state: Initializing, timeout_duration: 18446744073709551615, "
        "timestamp: 2026-01-01T00:00:00.100Z }"
    )


@pytest.mark.parametrize(("latency", "shown"), [(None, "None"), (0, "Some(0)"), (5, "Some(5)")])
def test_nested_structs_and_options_are_printed(latency: int | None, shown: str) -> None:
    metrics = PerformanceMetrics(
        frames_per_second=60.0,
        priority_distribution=PriorityDistribution(critical_frames=0, high_frames=1),
        latency_ms=latency,
    )
    assert debug_text(PerformanceMetricsRecorded(metrics=metrics)) == (
        "PerformanceMetricsRecorded { metrics: PerformanceMetrics { frames_per_second: 60.0, "
        "priority_distribution: PriorityDistribution { critical_frames: 0, high_frames: 1 }, "
        f"latency_ms: {shown} }} }}"
    )


def test_an_enum_is_printed_as_its_value_whether_it_is_a_str_or_not() -> None:
    assert _shown(SessionState.TIMED_OUT) == "Initializing"
    assert _shown(PlainState.ACTIVE) == "Active"


@pytest.mark.parametrize("value", [None, True, b"bytes", datetime(2026, 1, 1, tzinfo=UTC), [1]])
def test_a_value_that_no_event_holds_is_a_type_error_naming_its_class(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        _shown(value)


# Floats


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (1 / 3, "0.3333333333333333"),
        (100.0, "100.0"),
        (1e15, "1000000000000000.0"),
        (9999999999999998.0, "9999999999999998.0"),
        (1e16, "1e16"),
        (-1e16, "-1e16"),
        (1.5e16, "1.5e16"),
        (1.2345678901234567e19, "1.2345678901234567e19"),
        (1e21, "1e21"),
        (1e-4, "0.0001"),
        (0.00011, "0.00011"),
        (9.999999999999999e-5, "9.999999999999999e-5"),
        (1e-5, "1e-5"),
        (1e-7, "1e-7"),
        (-1.25e-7, "-1.25e-7"),
        (5e-324, "5e-324"),
        (2.225073858507201e-308, "2.225073858507201e-308"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "NaN"),
    ],
)
def test_floats_are_printed_as_rust_prints_them(number: float, shown: str) -> None:
    assert _shown(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (785827734548653.25, "785827734548653.3"),
        (-785827734548653.25, "-785827734548653.3"),
        (785827734548653.75, "785827734548653.8"),
        (0.71683502197265625, "0.7168350219726563"),
        (2.0**-25, "2.9802322387695313e-8"),
    ],
)
def test_of_two_equally_near_texts_a_float_gets_the_larger(number: float, shown: str) -> None:
    assert _shown(number) == shown


_DYADIC = st.builds(lambda top, power: top / 2**power, st.integers(0, 2**53), st.integers(0, 40))


@given(st.floats(allow_nan=False) | _DYADIC)
def test_a_printed_float_reads_back_as_the_same_number(number: float) -> None:
    assert float(_shown(number)).hex() == number.hex()


@given(st.floats(allow_nan=False, allow_infinity=False) | _DYADIC)
def test_a_printed_float_is_as_short_as_in_python(number: float) -> None:
    digits = re.sub(r"\D", "", _shown(number).partition("e")[0])
    assert len(digits) == len(re.sub(r"\D", "", repr(number).partition("e")[0]))


# Strings


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", '""'),
        ("plain text", '"plain text"'),
        ("\t\r\n\0", r'"\t\r\n\0"'),
        ('"\\', r'"\"\\"'),
        ("it's", '"it\'s"'),
        ("\x07\x1b\x7f\x80", r'"\u{7}\u{1b}\u{7f}\u{80}"'),
        ("\u200b\u202e\ufeff\u2028", r'"\u{200b}\u{202e}\u{feff}\u{2028}"'),
        ("a\u00a0b\u3000", r'"a\u{a0}b\u{3000}"'),
        ("e\u0301", r'"e\u{301}"'),
        ("\ue000\U0010ffff", r'"\u{e000}\u{10ffff}"'),
        ("\u200d\U0001f469\u200d\U0001f467", '"\\u{200d}\U0001f469\\u{200d}\U0001f467"'),
        ("\u00fc\u2192\u7801\ufffd", '"\u00fc\u2192\u7801\ufffd"'),
        ("\u1b44\uff9e\U0001171e", '"\\u{1b44}\\u{ff9e}\U0001171e"'),
    ],
)
def test_strings_are_escaped_as_rust_escapes_them(text: str, shown: str) -> None:
    assert _shown(text) == shown


def test_a_lone_surrogate_is_a_value_error_naming_it() -> None:
    with pytest.raises(ValueError, match=r"U\+D800"):
        _shown("a\ud800")


_SHORT = {"0": "\0", "t": "\t", "r": "\r", "n": "\n", '"': '"', "\\": "\\"}


def _unescaped(shown: str) -> str:
    def character(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else _SHORT[match[2]]

    return re.sub(r"\\(?:u\{([0-9a-f]+)\}|(.))", character, shown[1:-1])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_escaped_string_is_printable_and_gives_the_string_back(text: str) -> None:
    shown = _shown(text)
    assert shown.isprintable()
    assert _unescaped(shown) == text


RUST_ESCAPES = """
    1 8 2 2 1 i 2n y c 1 gi 34 8 2 6 4 7 1 1 1 k 1 68 7 4m 1 12 2 1e 2 3 1a 1 1 1 2 1 2 1 9 r 4 6 h
    a b 1 1 1a l g 1 2t 8 1 6 2 2 1 4 w 2 1 1 u t 2h b 1 e 17 9 7 3 o 4 1 9 1 3 1 7 f 1 p 5 1 1 b 5
    w g 16 1l 1j 1 1 1 4 8 4 1 3 7 a 2 t 1 2 1 8 2 2 2 m 1 7 1 1 3 4 3 1 1 2 6 2 2 2 1 1 d 2 1 3 4
    o 5 1 1 6 4 2 2 m 1 7 1 2 1 2 1 2 4 3 o 4 1 1 7 a 2 3 1 1 c 1 1 9 1 3 1 m 1 7 1 2 1 5 3 4 8 1 1
    2 3 1 f 2 4 c 7 1 8 2 1 8 2 2 2 m 1 7 1 2 1 5 3 1 2 1 6 2 2 2 f 2 1 3 4 i b 1 1 6 3 3 1 4 3 2 1
    1 1 2 3 2 3 3 3 c 5 1 1 2 3 3 1 3 3 1 l l 6 3 1 8 1 3 1 n 1 g 3 1 3 4 j 3 1 2 2 2 4 a 7 a 1 b 1
    3 1 n 1 a 1 5 3 2 2 1 1 2 n 3 1 2 4 a 1 3 e b 1 3 1 15 2 1 1 2 5 3 1 3 1 2 4 3 1 a 4 q 2 2 1 i
    3 o 1 9 1 1 2 7 9 2 6 7 7 a 2 3 c 1c 1 2 b 8 8 d 11 2 1 1 1 5 1 o 1 1 1 a 1 2 9 1 2 5 1 1 9 a 2
    4 w o 2 r 1 1 1 1 1 e 1 10 i 1 5 1 2 5 1d 8 1 6 1 d 11 19 4 1 6 1 2 2 2 p 2 4 3 g 4 d 1 2 2 6 1
    f 1 14 1 1 5 1 2 ah 1 4 2 7 1 1 1 4 2 15 1 4 2 x 1 4 2 7 1 1 1 4 2 f 1 1l 1 4 2 1v 5 t 3 q 6 2e
    2 6 2 hs 1 s 3 2h 7 i d j 3 2 9 i e d 1 3 f 1g 2 1 7 8 1 2 b 9 3 a 6 a 6 b 5 a 6 2h 7 5 2 y 1 1
    5 1y a v 4 4 2 3 4 2 1 6 7 1 3 16 2 5 b 18 4 q 6 b 3 1l 2 2 3 1k 1 1 9 1 1 2 8 6 d a 6 a 6 e 2e
    1c a 4 3 8 1 t 9 c 2 w 4 2 6 1k 1 1 2 3 1 1 d 1c 8 2 5 f 3 1q 5 17 2 b b 1 d 1 7 4 1 6 1 3 2 1
    5 5c 1s 7q 2 6 2 12 2 6 2 8 1 1 1 1 1 1 1 v 2 1h 1 f 1 e 2 6 1 j 2 3 1 9 h o 8 1b h 2 2 r 1 d 3
    y 1q 3w 4 ii m b l 1ec 2 ah 3 2 5 19 1 1 5 1 2 1k 7 2 f n 9 7 1 7 1 7 1 7 1 7 1 7 1 7 1 7 x 2m
    y q 1 2h c 5y q g 1 15 6 g 1 2e 4 2t 5 17 1 2m 1 2e 9 1c 1 mlp 3 1j 9 9o k 1b 4 1 a w 2 28 2 6
    8 65 k h 1 3 1 4 1 p 2 5 4 a 6 1k 8 1w a c o d 1 12 8 p b 1 c u 6 1c 1 2 4 2 2 2 1 d 1 b 4 7 1
    p 1 15 6 2 2 2 b 3 1 8 1 1 2 a 2 w 1 1f 1 1 3 2 2 5 2 1 1 1 o h 2 8 b 6 2 6 2 6 9 7 1 7 1 1o 4
    39 1 2 1 4 3 a 6 8mc c n 4 1d 6is a6 2 2y 12 7 c 5 5 1 1 o 1 5 1 1 1 2 1 2 1 i2 w g g a m z 1 j
    1 4 4 5 1 3r 4 4d 2 v 3 6 2 6 2 6 2 3 3 7 1 7 d 2 2 c 1 q 1 j 1 2 1 f 2 e y 3f 5 3 4 19 3 2g 1
    d 3 1 1b 19 3n t 3 1d g r 4 10 9 u 5 12 a u 1 11 4 e 16 4e 2 a 6 10 4 10 4 14 8 1g b c 1 f 1 7
    1 2 1 b 1 f 1 7 1 2 3 1g c 8n 9 m a 8 o 6 1 16 1 9 1x 6 2 1 1 18 1 2 3 1 2 n 1 20 8 9 1c j 1 2
    5 x 3 r 5 r 12 1k 4 k 2 1b f 4 1 3 1 t a 9 7 9 7 1s w 11 6 c 9 1i 3 t 2 r 5 q 7 4 c 7 28 21 1j
    1f d 1f 7 16 c a 6 12 8 o 8 2 5s v 1 16 3 1 2 2 g 6 8 9 13 14 8 m b 9 m i 4 4 12 s k n 9 1 1 1i
    f 7 4 u 1 2 2 1 c 1d 4 2 2 2 1 4 e p 7 a 9 10 5 1 9 i 8 z 1 3 b 1g 9 1 1 8 4 2 1 g 1 k b i 1 s
    3 2 4 6 1 2 1r 7 1 1 1 4 1 f 1 b 6 1b 1 3 d a 8 2 1 8 2 2 2 m 1 7 1 2 1 5 3 1 1 1 1 4 2 2 2 2 3
    1 c 7 s a 1 1 2 1 1 12 1 1 1 2 f 1 1 2 3 1 1 3 1 2 13 1k 8 2 3 1 1 l 1 1 1 3 u 1c 1 2 6 1 1 2 1
    1 2 1 2 4 8 a 4m 1b 1 2 6 4 2 1 2 r 10 1f 8 2 1 1 2 4 b a 6 d j 17 1 1 1 2 8 2 6 a 6 k s r 3 1
    1 2 4 1 9 n 55 1b 9 1 2 1 2s 2b c 8 2 1 2 8 1 2 1 o 1 5 1 2 6 4 1 3 9 a 1y 8 2 16 8 4 1 4 r 1 a
    14 6 2 4 8 9 1 6 2 3 1a d 1 2 9 d 21 7 a 2f 1 3 1 1 1 2g y e a 6 9 1 12 e 1 1 6 a t 3 w p 1 7 1
    2 1 23 7 1 2 1 12 l 1 9 a 6 6 1 2 1 11 4 2 1 1 1 1 7 a 6 18 4 a 6u j 2 4 9 f 1 10 8 2 3 n 2e 1
    f 1e d pn 2u 33 1 5 b 5g 218 2r d ts h 6 p 32z 5 g7 5a1 u c 3 3 a 1c6 ft 7 v 1 a 4 29 1 a 6 u 7
    1 a 1c 7 f a a 1 7 1 l 5 j c0 1m 5i 2j 5 p 2 p 18 23 5 1k b d 1s 4 e 5 9 5p2 15 w 2p 37 6pp 4 1
    7 1 2 1 83 f 1 t 3 2 1 e 4 8 b0 1s4 2z 5 d 3 9 7 a 2 1 2 1 31c 71 3 c4 6 n f h 2n 38 1o 6u a 13
    2 1o 5 3 m 2 7 u 4 1p l 1u 3 1 3e k c k c 2f 9 p 3r 2d 1 1z 1 2 2 1 2 2 2 4 1 c 1 1 1 7 1 1t 1
    4 2 8 1 7 1 s 1 4 1 5 1 1 3 7 1 9g 2 84 2 fm 1j 4 1e 8 1 e 1 7 vo v 6 6 79 1q 42 19 a 7 2 a 4 2
    8w u i 18 4 a 5 1 cw s 4 a 5y u 2 b 4 1 5c v 1 3 1 2 1 7 2 5 9 2 68 7 1 4 1 2 1 f 1 5h 2 9 1c
    1w 7 1 4 a 4 2 lt 1w 24 1p 5e 4 1 r 1 2 1 1 2 1 1 a 1 4 1 1 1 1 6 1 4 1 1 1 1 1 1 3 1 2 1 1 2 1
    1 1 1 1 1 1 1 1 1 2 1 1 2 4 1 7 1 4 1 4 1 1 1 a 1 h 5 3 1 5 1 h 1g 2 7i 18 4 2s c f 2 f 1 f 1
    11 a 4u 1k t d 18 4 9 7 2 e 6 4a rd 3 h 3 d 3 62 6 c 4 1 f c 4 1k 8 a 6 14 8 u 2 c 4 2 e 9 13
    9k 8 e 2 d 3 b 3 1l 1 1 4 g 2 c 4 a 7 43 1 2v sl wyo w 3dq 2 4ge 2 5rl f ha 1wi f2 15u 3t7 5
    6ju jdl2
"""
"""The code points that Rust 1.95 (Unicode 17) prints as \\u{..} in the `{:?}` of a str.

Printed by a Rust program that asks for each code point; the surrogates are added. Pairs of numbers
in base 36: how many code points in a row are not escaped, then how many are.
"""


def _escaped_by_rust() -> Iterator[int]:
    numbers = iter(RUST_ESCAPES.split())
    start = 0
    for gap, length in zip(numbers, numbers, strict=True):
        start += int(gap, 36)
        yield from range(start, start + int(length, 36))
        start += int(length, 36)


def _assigned() -> Iterator[int]:
    """Yield the code points that this Python knows, but for the surrogates and `|`."""
    for code in range(sys.maxunicode + 1):
        if code != ord("|") and unicodedata.category(chr(code)) not in {"Cn", "Cs"}:
            yield code


@pytest.mark.skipif(
    int(unicodedata.unidata_version.partition(".")[0]) > 17,
    reason="this Python knows characters that the table does not",
)
def test_every_assigned_character_is_escaped_exactly_where_rust_escapes_it() -> None:
    codes = list(_assigned())
    shown = _shown("|".join(map(chr, codes)))[1:-1].split("|")
    ours = {code for code, text in zip(codes, shown, strict=True) if text.startswith(r"\u")}
    differing = ours ^ set(_escaped_by_rust()).intersection(codes)
    assert [f"U+{code:04X}" for code in sorted(differing)] == []


def test_every_escape_holds_its_code_point_and_nothing_else_changes() -> None:
    codes = list(_assigned())
    shown = _shown("|".join(map(chr, codes)))
    assert _unescaped(shown) == "|".join(map(chr, codes))


# The hash


def _bytes(length: int) -> bytes:
    return bytes((index * 7 + 13) % 256 for index in range(length))


@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (0, 15130871412783076140),
        (7, 7624611472813316115),
        (8, 5546304786318616849),
        (9, 14193416064933080385),
        (15, 1327236397390925675),
        (16, 17292978334031547626),
        (63, 4055416810477473557),
        (64, 12392775523997071952),
        (65, 14848656153110461908),
    ],
)
def test_the_hash_is_that_of_rusts_default_hasher(length: int, digest: int) -> None:
    assert siphash13(_bytes(length)) == digest


def test_the_hash_of_the_debug_text_is_the_first_half_of_the_id() -> None:
    assert len(FACTS) == 480
    halves = [siphash13(fact["debug"].encode() + b"\xff").to_bytes(8, "big") for fact in FACTS]
    assert [half + bytes(8) for half in halves] == [UUID(fact["event_id"]).bytes for fact in FACTS]


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.hash_info.algorithm != "siphash13",
    reason="hash() of this Python is not SipHash-1-3",
)
def test_the_hash_is_that_of_cpython_with_a_zero_key() -> None:
    # CPython keys its hash with zeros when PYTHONHASHSEED is 0. hash(b"") is always 0, inputs
    # shorter than the cutoff are hashed otherwise, and -1, an error in C, becomes -2.
    lengths = [*range(max(1, sys.hash_info.cutoff), 40), 63, 64, 65, 255, 256, 257, 1000]
    data = [_bytes(length) for length in lengths]
    printed = subprocess.run(
        [sys.executable, "-c", f"print([hash(item) for item in {data!r}])"],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    signed = [int.from_bytes(siphash13(item).to_bytes(8), signed=True) for item in data]
    assert json.loads(printed) == [-2 if digest == -1 else digest for digest in signed]


# The id


class StreamFailed(Model):
    """The event of the last test."""

    event_type: str = "stream_failed"
    session_id: SessionId
    error: str


def test_an_id_is_a_hash_of_the_text_and_eight_zero_bytes() -> None:
    event = StreamFailed(session_id=SessionId(SESSION), error="caf\u00e9")
    expected = siphash13(debug_text(event).encode("utf-8") + b"\xff")
    assert event_id(event).bytes == expected.to_bytes(8, "big") + bytes(8)


def test_equal_events_share_their_id_and_different_ones_do_not() -> None:
    first, same, other = (
        StreamFailed(session_id=SessionId(SESSION), error=error) for error in ("a", "a", "b")
    )
    assert event_id(first) == event_id(same) != event_id(other)
