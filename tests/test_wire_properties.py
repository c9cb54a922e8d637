"""The wire, strictly: every spelling of an event, and every near miss, read by both readers.

The spellings are made from the table of kinds, so a new kind is tested as soon as it is a row. The
fast reader may leave any text to the exact one; what it answers itself must be the same answer.
JOURNAL_TEST_ROUNDS=50 draws more.
"""

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROUNDS, lines_of

from journal import InvalidEventError, SessionId, StreamId, Timestamp
from journal.events import wire, wire_exact
from journal.events.codecs import Record, encoder
from journal.events.event import Kind, SessionEvent
from journal.events.fields import Field
from journal.events.kinds import KINDS
from journal.events.timestamps import MAX_EPOCH_NS, MIN_EPOCH_NS, text_from_epoch_ns
from journal.events.values import U8_MAX, U64, U64_MAX, SessionState, StreamState
from journal.events.wire_shapes import any_kind

many = settings(max_examples=80 * ROUNDS)

Draw = Callable[[st.SearchStrategy[Any]], Any]
Pairs = list[tuple[str, Any]]
"""An object that is to be written: keys with JSON texts, or with further pairs."""

NS_PER_MINUTE = 60_000_000_000
FIRST_NS, LAST_NS = -62_135_596_800_000_000_000, 253_402_300_799_999_999_999  # years 0001 to 9999


# What is written


class Drawn(NamedTuple):
    """An event, as what its text says."""

    name: str
    session: UUID
    stream: UUID | None
    timestamp_ns: int
    values: tuple[Any, ...]
    """Of its own fields, in their order; instants in nanoseconds."""

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    def json_value(self, place: int) -> Any:
        """Return a value as data has it."""
        value = self.values[place]
        is_instant = self.kind.fields[place].type.name == "instant" and value is not None
        return text_from_epoch_ns(value) if is_instant else value

    def canonical(self) -> str:
        fields: dict[str, Any] = {"event_type": self.name, "session_id": str(self.session)}
        if self.stream is not None:
            fields["stream_id"] = str(self.stream)
        for place, field in enumerate(self.kind.fields):
            inside = fields
            for name in field.path[:-1]:
                inside = inside.setdefault(name, {})
            inside[field.path[-1]] = self.json_value(place)
        fields["timestamp"] = text_from_epoch_ns(self.timestamp_ns)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u64": st.one_of(st.integers(0, 99), st.sampled_from([2**63 - 1, 2**63, U64_MAX])),
    "u8": st.one_of(st.integers(0, 9), st.integers(0, U8_MAX)),
    "float": st.one_of(
        st.sampled_from([0.0, 1.0, -0.0, -1.5, 0.1, 5e-324, 2.0**53, 2.0**64, 1e22, 1.7e308]),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    "text": st.one_of(
        st.sampled_from(["", "a:b-c", '{"event_type":"x"}', "\\u003a", "\U0001f600\x7f\u2028"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    "instant": st.one_of(
        st.integers(0, 10**6).map(lambda ms: 1_767_225_600_000_000_000 + ms * 10**6),
        st.integers(FIRST_NS, LAST_NS),
    ),
    "SessionState": st.sampled_from([state.value for state in SessionState]),
    "StreamState": st.sampled_from([state.value for state in StreamState]),
}


THE_MORE_THE_OFTENER = [kind for kind in KINDS.values() for _ in range(1 + len(kind.fields))]


@st.composite
def drawn_events(draw: Draw) -> Drawn:
    kind = draw(st.sampled_from(THE_MORE_THE_OFTENER))
    uuids = st.one_of(st.sampled_from([UUID(int=0), UUID(int=2**128 - 1)]), st.uuids())
    times = st.one_of(
        VALUES["instant"].filter(lambda ns: MIN_EPOCH_NS <= ns <= MAX_EPOCH_NS),
        st.sampled_from([MIN_EPOCH_NS, MAX_EPOCH_NS]),
    )
    values = [
        draw(st.none() | VALUES[field.type.name] if field.nullable else VALUES[field.type.name])
        for field in kind.fields
    ]
    stream = draw(uuids) if kind.has_stream else None
    return Drawn(kind.name, draw(uuids), stream, draw(times), tuple(values))


# How it is written


def rarely(draw: Draw) -> bool:
    """Say yes one time in four."""
    return bool(draw(ONE_IN_FOUR) == 3)


ONE_IN_FOUR = st.integers(0, 3)


def perhaps_calm(draw: Draw) -> Draw:
    """Say no for every `rarely` of half of the texts: one escape is enough for the exact reader."""
    if draw(st.booleans()):
        return draw
    return lambda strategy: 0 if strategy is ONE_IN_FOUR else draw(strategy)


def string(draw: Draw, text: str) -> str:
    """Write a string, with escapes that it need not have."""
    if not text or not rarely(draw):
        return json.dumps(text, ensure_ascii=False)
    written = [json.dumps(character, ensure_ascii=False)[1:-1] for character in text]
    for place in draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3)):
        units = text[place].encode("utf-16-be")
        form = draw(st.sampled_from(["04x", "04X"]))
        codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
        written[place] = "".join(f"\\u{code:{form}}" for code in codes)
    return f'"{"".join(written)}"'


def real(draw: Draw, value: float) -> str:
    """Write a float, with its point and its exponent anywhere."""
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    whole = "-" * sign + ("".join(map(str, digits)).lstrip("0") or "0")
    assert isinstance(exponent, int)
    spellings = [
        repr(value),
        f"{whole}e{exponent}",
        f"{whole}.000E{exponent:+}",
        f"{whole}{'0' * 30 if value else ''}e{exponent - 30:+04}",
        f"{'-' * sign}0.{'0' * 25}{whole.lstrip('-')}e{exponent + 25 + len(whole) - sign}",
    ]
    if value.is_integer() and abs(value) <= 2**64 and math.copysign(1, value) == 1:
        spellings.append(str(int(value)))
    written = draw(st.sampled_from(spellings)) if rarely(draw) else repr(value)
    assert repr(float(written)) == repr(value)
    return str(written)


def instant(draw: Draw, ns: int) -> str:
    """Write a time in any of chrono's spellings, and zone."""
    if not rarely(draw):
        return string(draw, text_from_epoch_ns(ns))
    minutes = draw(st.sampled_from([0, 0, 60, -60, 330, 23 * 60 + 59, -(23 * 60 + 59)]))
    local_ns = ns + minutes * NS_PER_MINUTE
    if not FIRST_NS <= local_ns <= LAST_NS:
        minutes, local_ns = 0, ns
    text = text_from_epoch_ns(local_ns)[:-1]
    if "." in text and rarely(draw):
        text = text.ljust(len("2026-01-01T00:00:00.123456789"), "0") + "99"
    if rarely(draw):
        text = text.replace("T", " ")
    if rarely(draw):
        text = re.sub(r"(?<=[-:T ])0(?=[0-9])", "", text)
    if rarely(draw):
        text = re.sub(r"[-:]", lambda mark: f" {mark[0]}\u3000", text)
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{{}}{abs(minutes) % 60:02}"
    zones = [zone.format(between) for between in (":", "", "::", " ")]
    if minutes == 0:
        zones += ["Z", "z", "UTC", "utC", " Z ", "-00:00"]
    return string(draw, text + draw(st.sampled_from(zones)))


def uuid(draw: Draw, value: UUID) -> str:
    text = str(value)
    if rarely(draw):
        spellings = [text.upper(), value.hex, f"{{{text}}}", value.urn]
        text = draw(st.sampled_from(spellings))
    return string(draw, text)


def state(draw: Draw, name: str) -> str:
    """Write a state as its name or, as serde's enums may be, as an object."""
    if not rarely(draw):
        return string(draw, name)
    return f"{{{string(draw, name)}:{draw(st.sampled_from(['null', '{}', ' { } ']))}}}"


WRITERS: dict[str, Callable[[Draw, Any], str]] = {
    "u64": lambda _draw, value: str(value),
    "u8": lambda _draw, value: str(value),
    "float": real,
    "text": string,
    "instant": instant,
    "SessionState": state,
    "StreamState": state,
}


def nested(levels: int) -> str:
    return f"{'[' * levels}{']' * levels}"


def ignored(draw: Draw, depth: int) -> str:
    """Write a value that nobody looks at, in an object at this depth."""
    odd = [
        "-0",
        "-0.0e-0",
        "1e-400",
        "0e99999999999999999999",
        "1" * 300,
        "18446744073709551616",
        '{"event_type":1,"event_type":[2]}',
        r'{"a:-":"\u003a\u002d","a:-":":-"}',
        r'"\ud83d\ude00\/"',
        '"a:b"',
        nested(127 - depth),
        '{"x":' * (127 - depth) + "-1" + "}" * (127 - depth),
    ]
    return str(draw(st.sampled_from(odd) | JSON_TEXTS))


JSON_TEXTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(-9, 9), st.text("a:-\\é")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("a:-"), inner, max_size=2),
    max_leaves=4,
).map(json.dumps)

# Keys of other kinds, and some that look like the real ones.
STRANGE_KEYS = sorted(
    {"", "x", ":", "-", "é", "Event_type", "event_type ", "timestamp\0", "stream_id", "metrics"}
    | {name for kind in KINDS.values() for field in kind.fields for name in field.path}
)


def pairs_of(draw: Draw, event: Drawn) -> Pairs:
    """Return an event as it is to be written, in the order of the canonical text."""
    pairs: Pairs = [
        ("event_type", string(draw, event.name)),
        ("session_id", uuid(draw, event.session)),
    ]
    if event.stream is not None:
        pairs.append(("stream_id", uuid(draw, event.stream)))
    for field, value in zip(event.kind.fields, event.values, strict=True):
        if value is None and draw(st.booleans()):
            continue
        inside = pairs
        for name in field.path[:-1]:
            if name not in dict(inside):
                inside.append((name, []))
            inside = dict(inside)[name]
        text = "null" if value is None else WRITERS[field.type.name](draw, value)
        inside.append((field.path[-1], text))
    pairs.append(("timestamp", instant(draw, event.timestamp_ns)))
    return pairs


def objects_in(pairs: Pairs, depth: int = 1) -> list[tuple[Pairs, int]]:
    """Return an object and those in it that have known keys, each with its depth."""
    inner = [objects_in(value, depth + 1) for _, value in pairs if isinstance(value, list)]
    return [(pairs, depth), *(each for those in inner for each in those)]


def add_ignored(draw: Draw, event: Drawn, pairs: Pairs) -> None:
    """Put keys that nobody knows into some of the objects, some of them twice."""
    keys_of_kind = {"event_type", "session_id", "timestamp"}
    keys_of_kind |= {"stream_id"} if event.kind.has_stream else set()
    keys_of_kind |= {name for field in event.kind.fields for name in field.path}
    strange = [key for key in STRANGE_KEYS if key not in keys_of_kind]
    for inside, depth in objects_in(pairs):
        if rarely(draw):
            for key in draw(st.lists(st.sampled_from(strange), min_size=1, max_size=2)):
                for _ in range(draw(st.integers(1, 2))):
                    inside.append((key, ignored(draw, depth)))


def written(draw: Draw, pairs: Pairs) -> str:
    """Write an object: its keys in any order and spelling, with any space between."""
    spaced = rarely(draw)

    def space() -> str:
        return draw(SPACES) if spaced else ""

    ordered = draw(st.permutations(pairs)) if rarely(draw) else pairs
    parts = []
    for key, value in ordered:
        text = written(draw, value) if isinstance(value, list) else value
        parts.append(f"{space()}{string(draw, key)}{space()}:{space()}{text}{space()}")
    return f"{space()}{{{','.join(parts)}}}{space()}"


SPACES = st.sampled_from(["", "", " ", "\t", "\r\n "])


# Near misses: each changes a text, or what it is written from, so that it must be refused.

WRONG_NUMBERS = ["-0", "-0.0", "-1", "1.0", "1e0", "10e-1", "18446744073709551616", "1" * 400]
NO_NUMBERS = ['"5"', "true", "[]", "[5]", "{}", "NaN", "-Infinity", "Infinity", "1e400", "-1e400"]
BAD_JSON = [
    "01",
    "1.",
    ".5",
    "+1",
    "0x1",
    "-",
    "1e",
    "'x'",
    ",",
    "nul",
    "\x0c1",
    "[1,]",
    '{"a":1,}',
]
NO_STRINGS = [
    "null",
    "5",
    "[]",
    r'"\ud800"',
    r'"\udc00\ud800"',
    r'"\x41"',
    '"\n"',
    '"\t"',
    r'"\u12"',
]
WRONG: dict[str, list[str]] = {
    "u64": [*WRONG_NUMBERS, *NO_NUMBERS, "null"],
    "u8": [*WRONG_NUMBERS, *NO_NUMBERS, "null", "256"],
    "float": [*NO_NUMBERS, "null", "1" * 400],
    "text": NO_STRINGS,
    "instant": [*NO_STRINGS, '""', '"now"', '"2026-01-01T00:00:00"', '"2026-01-01t00:00:00Z"'],
    "SessionState": [*NO_STRINGS, '"active"', '"Streaming"', '{"Active":[]}', '{"Active":{"a":1}}'],
    "StreamState": [*NO_STRINGS, '"streaming"', '{"Failed":0}', '{"Failed":{},"Failed":{}}'],
    "id": [*NO_STRINGS, '""', f'"{"0" * 31}"', f'"{"-" * 36}"', f'"{"0" * 8}-{"0" * 27}"'],
    "tag": [
        *NO_STRINGS,
        '""',
        '"FramesBatched"',
        '"frames_batched "',
        "0",
        '{"frames_batched":{}}',
    ],
}
BAD_TO_IGNORE = [*BAD_JSON, "NaN", "-Infinity", "1e400", "-1e400", "1" * 400, *NO_STRINGS[3:]]


def known_pairs(kind: Kind, pairs: Pairs) -> list[tuple[Pairs, int, Field | str | None]]:
    """Return where each pair of a kind stands, with its field, or the name of its type."""
    shared = {"event_type": "tag", "session_id": "id", "stream_id": "id"}
    found: list[tuple[Pairs, int, Field | str | None]] = []

    def look(inside: Pairs, path: tuple[str, ...]) -> None:
        for place, (key, value) in enumerate(inside):
            here = (*path, key)
            field = next((field for field in kind.fields if field.path == here), None)
            found.append(
                (inside, place, field or (shared.get(key, "instant") if not path else None))
            )
            if isinstance(value, list):
                look(value, here)

    look(pairs, ())
    return found


def twice(draw: Draw, event: Drawn, pairs: Pairs) -> None:
    """A known key comes again, before or after, with the same value or another."""
    inside, place, _ = draw(st.sampled_from(known_pairs(event.kind, pairs)))
    key, value = inside[place]
    other = draw(st.sampled_from([value, "null", "0", '"x"', "{}"]))
    inside.insert(draw(st.integers(0, len(inside))), (key, other))


def another_tag(draw: Draw, event: Drawn, pairs: Pairs) -> None:
    """A second tag, of another kind, known or not, stands first or late."""
    other = draw(st.sampled_from([*KINDS, "nonesuch"]))
    pairs.insert(draw(st.sampled_from([0, len(pairs)])), ("event_type", json.dumps(other)))


def missing(draw: Draw, event: Drawn, pairs: Pairs) -> None:
    places = known_pairs(event.kind, pairs)
    needed = [each for each in places if not (isinstance(each[2], Field) and each[2].nullable)]
    inside, place, _ = draw(st.sampled_from(needed))
    if draw(st.booleans()):
        del inside[place]
    else:  # it is there under another name
        inside[place] = (draw(st.sampled_from([str.upper, str.title]))(inside[place][0]), "1")


def wrong_value(draw: Draw, event: Drawn, pairs: Pairs) -> None:
    inside, place, what = draw(st.sampled_from(known_pairs(event.kind, pairs)))
    name = what.type.name if isinstance(what, Field) else what
    wrong = NO_STRINGS if name is None else WRONG[name]
    if isinstance(what, Field) and what.nullable:
        wrong = [text for text in wrong if text != "null"]
    if rarely(draw):
        wrong = BAD_JSON
    inside[place] = (inside[place][0], draw(st.sampled_from(wrong)))


def bad_to_ignore(draw: Draw, event: Drawn, pairs: Pairs) -> None:
    """A key that nobody knows has what is no JSON for the reference, perhaps only at first."""
    inside, depth = draw(st.sampled_from(objects_in(pairs)))
    deep = [nested(128 - depth), '{"x":' * (128 - depth) + "1" + "}" * (128 - depth)]
    bad = draw(st.sampled_from(deep if rarely(draw) else BAD_TO_IGNORE))
    forms = ["{}", "[{}]", '{{"y":{},"y":0}}', '[0,{{"":{}}}]']
    inside.append(("x", draw(st.sampled_from(forms)).format(bad)))
    if draw(st.booleans()):
        inside.append(("x", "0"))


def bad_key(draw: Draw, event: Drawn, pairs: Pairs) -> None:
    inside, _ = draw(st.sampled_from(objects_in(pairs)))
    place = draw(st.integers(0, len(inside)))
    inside.insert(place, ("x", r'{"\udc00":1,"\udc00":2}'))


def around(draw: Draw, text: str) -> str:
    """Something stands before the object, or after it, that is no space of JSON's."""
    marks = ["\ufeff", "\x00", "\x0b", "\xa0", ",", "]", "}", "0", "{}", "null", "//", "\u2028"]
    mark = draw(st.sampled_from(marks))
    return str(draw(st.sampled_from([f"{mark}{text}", f"{text}{mark}"])))


def even_out(event: Drawn, pairs: Pairs) -> None:
    """Bring the colons and hyphens down to those of the canonical text: a count sees no change.

    What may be missing goes, and what stands in the time and the session's id becomes an escape.
    """
    canonical = event.canonical()
    for field, value in zip(event.kind.fields, event.values, strict=True):
        inside: Any = pairs
        for name in field.path[:-1]:
            inside = dict(inside).get(name)
            if not isinstance(inside, list):
                break
        else:
            pair = (field.path[-1], json.dumps(value))
            surplus = plain(pairs).count(":") - canonical.count(":")
            if field.nullable and surplus > 0 and [key for key, _ in inside].count(pair[0]) == 1:
                inside[:] = [each for each in inside if each != pair]
    for mark in ":-":
        for place, (key, value) in enumerate(pairs):
            surplus = plain(pairs).count(mark) - canonical.count(mark)
            if surplus > 0 and isinstance(value, str) and key in ("session_id", "timestamp"):
                pairs[place] = (key, value.replace(mark, f"\\u{ord(mark):04x}", surplus))


def plain(value: Pairs | str) -> str:
    if isinstance(value, str):
        return value
    return f"{{{','.join(f'{json.dumps(key)}:{plain(inner)}' for key, inner in value)}}}"


Miss = Callable[[Draw, Drawn, Pairs], None]
MISSES: list[Miss] = [twice, another_tag, missing, wrong_value, bad_to_ignore, bad_key]


@st.composite
def spellings(draw: Draw) -> tuple[Drawn, str]:
    event = draw(drawn_events())
    draw = perhaps_calm(draw)
    pairs = pairs_of(draw, event)
    add_ignored(draw, event, pairs)
    return event, written(draw, pairs)


@st.composite
def near_misses(draw: Draw, miss: Miss | None) -> str:
    event = draw(drawn_events())
    draw = perhaps_calm(draw)
    pairs = pairs_of(draw, event)
    if miss is not None:
        miss(draw, event, pairs)
    if rarely(draw):
        add_ignored(draw, event, pairs)
    if draw(st.booleans()):
        even_out(event, pairs)
    text = written(draw, pairs)
    return around(draw, text) if miss is None else text


# The readers


def answers(text: str) -> tuple[Record | str, Record | str]:
    """Return what the fast reader and the exact one make of a text: a record, or why not."""

    def answer(read: Callable[..., Record]) -> Record | str:
        try:
            return read(text, "reject")
        except InvalidEventError as error:
            return f"{type(error).__name__}: {error}"

    return answer(wire.read_record), answer(wire_exact.read_exactly)


@many
@given(drawn=spellings())
def test_every_spelling_of_an_event_is_the_same_event(drawn: tuple[Drawn, str]) -> None:
    event, text = drawn

    fast, slow = answers(text)

    assert fast == slow == wire.read_record(event.canonical())
    kind, session, stream, timestamp_ns, data = fast
    assert (kind, session, timestamp_ns) == (event.name, event.session, event.timestamp_ns)
    assert type(session) is SessionId
    assert stream == event.stream
    assert stream is None or type(stream) is StreamId
    expected = [event.json_value(place) for place in range(len(event.values))]
    assert repr(json.loads(data or "[]")) == repr(expected)  # 1 is not 1.0, nor 0.0 -0.0


@pytest.mark.parametrize(
    "miss", [*MISSES, None], ids=lambda miss: miss.__name__ if miss else "around"
)
@settings(many, max_examples=25 * ROUNDS)
@given(data=st.data())
def test_every_near_miss_is_refused(miss: Miss | None, data: st.DataObject) -> None:
    text = data.draw(near_misses(miss))

    fast, slow = answers(text)

    assert isinstance(slow, str)
    assert fast == slow


# Known sequences: each was read by one reader and refused by the other, or could have been.

SESSION = "67e55044-10b1-426f-9247-bb680e5fe0c8"
BATCHED = (
    f'{{"event_type":"frames_batched","session_id":"{SESSION}","frame_count":5,'
    '"timestamp":"2026-01-01T00:00:00Z"}'
)
ADJUSTED = (
    f'{{"event_type":"priority_threshold_adjusted","session_id":"{SESSION}","old_threshold":0,'
    '"new_threshold":1,"reason":"load","timestamp":"2026-01-01T00:00:00Z"}'
)
MEASURED = (  # latency_ms is missing, as it may be
    f'{{"event_type":"performance_metrics_recorded","session_id":"{SESSION}","metrics":'
    '{"frames_per_second":1.5,"bytes_per_second":2.5,"average_frame_size":3.5,'
    '"priority_distribution":{"critical_frames":1,"high_frames":2,"medium_frames":3,'
    '"low_frames":4,"background_frames":5}},"timestamp":"2026-01-01T00:00:00Z"}'
)
COMPLETE = MEASURED.replace("5}}", '5},"latency_ms":7}')


def with_more(line: str, more: str) -> str:
    """Put further pairs at the end of a line."""
    return f"{line[:-1]},{more}}}"


def hiding(line: str, more: str) -> str:
    """Escape as many colons of the time as the further pairs have."""
    escaped = line.replace("00:00:00Z", r"00:00\u003a00Z", more.count(":"))
    if more.count(":") > 1:
        escaped = escaped.replace("00:00\\", r"00\u003a00\\")
    return with_more(escaped, more)


REFUSED = {
    "an escaped colon hides a duplicate": hiding(BATCHED, '"frame_count":6'),
    "an escaped colon hides a second tag": hiding(BATCHED, '"event_type":"frames_batched"'),
    "an escaped colon hides a late tag": hiding(
        BATCHED.replace("frames_batched", "stream_created"), '"event_type":"frames_batched"'
    ),
    "an escaped colon hides NaN": hiding(BATCHED, '"x":NaN'),
    "an escaped colon hides -Infinity": hiding(
        BATCHED.replace("2026-", r"2026\u002d"), '"x":-Infinity'
    ),
    "an escaped colon hides 1e400": hiding(BATCHED, '"x":1e400'),
    "an escaped colon hides the 128th level": hiding(BATCHED, f'"x":{nested(127)}'),
    "two escaped colons hide two duplicates": hiding(
        BATCHED, f'"frame_count":6,"session_id":"{SESSION}"'
    ),
    "an escaped hyphen in an id hides -0": BATCHED.replace("44-10b1", r"44\u002d10b1").replace(
        ":5", ":-0"
    ),
    "an escaped hyphen in a time hides -0": BATCHED.replace("2026-", r"2026\u002d").replace(
        ":5", ":-0"
    ),
    "an escaped hyphen hides -0 for a byte": ADJUSTED.replace("2026-", r"2026\u002D").replace(
        ":0,", ":-0,"
    ),
    "a simple id hides -0": BATCHED.replace(SESSION, SESSION.replace("-", "")).replace(":5", ":-0"),
    "a simple id and hyphens in a text hide -0": ADJUSTED.replace(SESSION, SESSION.replace("-", ""))
    .replace(":0,", ":-0,")
    .replace("load", "l---d"),
    "NaN for a float": COMPLETE.replace(":1.5", ":NaN"),
    "1e400 for a float": COMPLETE.replace(":1.5", ":1e400"),
    "-0 for a count": COMPLETE.replace(":4,", ":-0,"),
    "a duplicate is spelled with an escape": with_more(BATCHED, r'"frame\u005fcount":6'),
    "a duplicate tag is spelled with an escape": with_more(
        BATCHED, r'"\u0065vent_type":"frames_batched"'
    ),
    "a missing key hides a duplicate": with_more(MEASURED, f'"session_id":"{SESSION}"'),
    "a missing key hides an inner duplicate": MEASURED.replace(
        '"low_frames":4', '"low_frames":4,"low_frames":5'
    ),
    "a missing key hides a second tag": with_more(
        MEASURED, '"event_type":"performance_metrics_recorded"'
    ),
    "a missing key hides a late tag": with_more(
        MEASURED.replace("performance_metrics_recorded", "frames_batched"),
        '"event_type":"performance_metrics_recorded"',
    ),
    "a missing key hides NaN": with_more(MEASURED, '"x":NaN'),
    "a missing key hides Infinity": with_more(MEASURED, '"x":Infinity'),
    "a missing key hides 1e400": with_more(MEASURED, '"x":1e400'),
    "a missing key hides the 128th level": with_more(MEASURED, f'"x":{nested(127)}'),
    "a missing key hides a 128th level in an object": MEASURED.replace(
        '"low_frames"', f'"x":{nested(125)},"low_frames"'
    ),
    "a repeated key hides the 128th level": with_more(BATCHED, f'"x":{nested(127)},"x":1'),
    "a repeated key hides a lone surrogate": with_more(BATCHED, r'"x":"\ud800","x":1'),
    "a repeated key hides a key that is a lone surrogate": with_more(
        BATCHED, r'"x":{"\udfff":1},"x":1'
    ),
    "a repeated tag ends with an unknown kind": with_more(BATCHED, '"event_type":"nonesuch"'),
    "a surrogate pair the wrong way round": with_more(BATCHED, r'"x":"\ude00\ud83d"'),
    "a byte order mark": f"\ufeff{BATCHED}",
    "a second event on the line": BATCHED + BATCHED,
}

ACCEPTED = {
    "escaped colons and hyphens": (
        BATCHED.replace("T00:", r"T00\u003a").replace("e5-", r"e5\u002d"),
        BATCHED,
    ),
    "an escape in the tag": (BATCHED.replace("frames_b", r"frames\u005fb"), BATCHED),
    "an escape in the tag's key": (BATCHED.replace("event_type", r"event\u005ftype"), BATCHED),
    "the 127th level": (with_more(BATCHED, f'"x":{nested(126)}'), BATCHED),
    "-0 that is ignored": (with_more(BATCHED, '"x":-0'), BATCHED),
    "a repeated key that is ignored": (with_more(BATCHED, r'"x":"\u003a","x":[{}]'), BATCHED),
    "a stream where there is none": (with_more(BATCHED, '"stream_id":1,"stream_id":1'), BATCHED),
    "a missing key beside one to ignore": (with_more(MEASURED, '"x":-0'), MEASURED),
    "a surrogate pair": (with_more(BATCHED, r'"x":"\uD83D\ude00"'), BATCHED),
    "the largest exponent of nothing": (with_more(BATCHED, '"x":0e999999999999999999999'), BATCHED),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_known_near_miss_is_refused(name: str) -> None:
    fast, slow = answers(REFUSED[name])

    assert isinstance(slow, str)
    assert fast == slow


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_known_spelling_is_the_same_event(name: str) -> None:
    text, canonical = ACCEPTED[name]

    fast, slow = answers(text)

    assert fast == slow == wire_exact.read_exactly(canonical, "reject")


def test_a_known_near_miss_is_no_unknown_event_either() -> None:
    """A repeated tag is refused as that, and not kept whole under the last name."""
    text = REFUSED["a repeated tag ends with an unknown kind"]

    for unknown in ("reject", "keep"):
        with pytest.raises(InvalidEventError, match="duplicate field 'event_type'"):
            wire.read_record(text, unknown)  # type: ignore[arg-type]


def test_what_the_reference_prints_needs_no_exact_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str, unknown: str) -> Record:
        raise AssertionError(text)

    monkeypatch.setattr(wire, "read_exactly", refuse)

    for line in lines_of("sample.ndjson"):
        if "\\" not in line:
            wire.read_record(line)


def test_a_time_that_may_be_null_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kind has one yet, but the table of kinds allows it."""

    class Leased(SessionEvent):
        event_type: Literal["leased"] = "leased"
        until: Timestamp | None
        before: SessionState | None
        frames: U64

    monkeypatch.setitem(KINDS, "leased", Leased._kind)
    monkeypatch.setattr(wire, "_validate", any_kind().validate_json)
    monkeypatch.setattr(wire, "_EXPECTED", wire._ExpectedByKind())
    time = '"2026-01-01T00:00:00Z"'
    head = f'{{"event_type":"leased","session_id":"{SESSION}"'

    for until, before in (("null", "null"), (time, '"Active"')):
        own = f'"until":{until},"before":{before},"frames":1'
        line = f'{head},{own},"timestamp":{time}}}'
        fast, slow = answers(line)
        assert fast == slow
        assert fast[4] == f"[{until},{before},1]"
        event = Leased.model_validate_json(line)
        assert encoder(Leased._kind)(event.__dict__) == fast
        for more in ('"x":NaN,"y":"--"', '"frames":2,"until":null', '"x":NaN'):
            fast, slow = answers(with_more(line, more))
            assert fast == slow
            assert isinstance(slow, str)
        fast, slow = answers(line.replace(":1,", ":-0,"))
        assert fast == slow
        assert isinstance(slow, str)
    fast, slow = answers(f'{head},"frames":1,"timestamp":{time}}}')
    assert fast == slow
    assert fast[4] == "[null,null,1]"
