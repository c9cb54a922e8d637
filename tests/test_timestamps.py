"""What `journal.events.timestamps` promises of instants, their text and their integers."""

# Naive datetimes and pickles are among the things under test.
# ruff: noqa: DTZ001

from __future__ import annotations

import copy
import datetime as dt
import operator
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal.events import timestamps
from journal.events.timestamps import (
    MAX_EPOCH_NS,
    MIN_EPOCH_NS,
    Timestamp,
    canonical_text,
    epoch_ns_from_text,
    text_from_epoch_ns,
    timestamp_of,
)

UTC = dt.UTC
US = dt.timedelta(microseconds=1)
SECOND = 10**9
DAY = 86_400 * SECOND
FIRST_NS = -719_162 * DAY
LAST_NS = 2_932_897 * DAY - 1

EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
WEST = dt.timezone(-dt.timedelta(hours=3, seconds=1, microseconds=7))


class SetBack(dt.tzinfo):
    """Two hours ahead of UTC until 2026-10-25T01:00Z, one hour from then on."""

    CHANGE = dt.datetime(2026, 10, 25, 1)

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        assert moment is not None
        wall = moment.replace(tzinfo=None)
        is_late = wall >= self.CHANGE + dt.timedelta(hours=1 if moment.fold else 2)
        return dt.timedelta(hours=1 if is_late else 2)

    def dst(self, moment: dt.datetime | None) -> dt.timedelta:
        return self.utcoffset(moment) - dt.timedelta(hours=1)

    def tzname(self, _: dt.datetime | None) -> None:
        return None

    def fromutc(self, moment: dt.datetime) -> dt.datetime:
        plain = dt.datetime(*moment.timetuple()[:6], moment.microsecond)
        is_late = plain >= self.CHANGE
        wall = plain + dt.timedelta(hours=1 if is_late else 2)
        repeats = is_late and plain < self.CHANGE + dt.timedelta(hours=1)
        return wall.replace(tzinfo=self, fold=int(repeats))


class PandasLike(dt.datetime):
    """A datetime of someone else that carries the same three digits."""

    nanosecond = 0


epoch_ns = st.integers(FIRST_NS, LAST_NS)
int64_ns = st.integers(MIN_EPOCH_NS, MAX_EPOCH_NS)
inner_ns = st.integers(FIRST_NS + 2 * DAY, LAST_NS - 2 * DAY)
close_ns = st.integers(1_790_000_000 * SECOND, 1_790_000_000 * SECOND + 3_000)
zones = st.sampled_from([UTC, EAST, WEST, dt.timezone(dt.timedelta(0), "Zulu")])
timestamps_in_zones = st.builds(
    lambda ns, zone: Timestamp.from_epoch_ns(ns).astimezone(zone), inner_ns, zones
)


def rejection(text: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Timestamp.parse(text)
    return str(caught.value)


# --- Text, as the Rust reference reads it ---------------------------------------------------

# Every timestamp of the reference data that the reference accepts, and what it prints again.
REFERENCE_ACCEPTS = {
    "2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00+00:00": "2026-01-01T00:00:00Z",
    "2025-12-31T19:00:00-05:00": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.1Z": "2026-01-01T00:00:00.100Z",
    "2026-01-01T00:00:00.1234567891234Z": "2026-01-01T00:00:00.123456789Z",
    "26-01-01T00:00:00Z": "0026-01-01T00:00:00Z",
    "2026-01-01T00:00:00+0200": "2025-12-31T22:00:00Z",
    " 2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00UTC": "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z": "9999-12-31T23:59:59Z",
}

REFERENCE_REJECTS = [
    "2026-01-01t00:00:00Z",
    "2026-01-01T00:00:00",
    "2026-01-01",
    "2026-01-01T24:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-01-01T00:00:00+24:00",
    "",
    "2026-01-01T00:00:00,5Z",
    "2026-W01-1T00:00:00Z",
    "soon",
]

# The reference accepts these; we do not.
CHOSEN_DEVIATIONS = {
    "2016-12-31T23:59:60Z": "leap second",
    "-0001-01-01T00:00:00Z": "years 0001 to 9999",
    "+10000-01-01T00:00:00Z": "years 0001 to 9999",
}

# Corners of chrono's grammar, answered by chrono 0.4.23 itself.
CHRONO_ACCEPTS = {
    "2026-01-01 00:00:00Z": "2026-01-01T00:00:00Z",
    "2026-1-2T3:4:5Z": "2026-01-02T03:04:05Z",
    "9-1-1T0:0:0Z": "0009-01-01T00:00:00Z",
    "+2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z",
    "+9-01-01T00:00:00Z": "0009-01-01T00:00:00Z",
    "+00000000000000000000002026-01-01T00:00:00Z": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00z": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00utc": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00 uTc ": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.000000001Z": "2026-01-01T00:00:00.000000001Z",
    "2026-01-01T00:00:00.0000000009Z": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.12345678Z": "2026-01-01T00:00:00.123456780Z",
    "2026-01-01T00:00:00.999999999999999999999Z": "2026-01-01T00:00:00.999999999Z",
    "2026-01-01T00:00:00.5+01:00": "2025-12-31T23:00:00.500Z",
    "2026-01-01T00:00:00-00:00": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00+23:59": "2025-12-31T00:01:00Z",
    "2026-01-01T00:00:00-23:59": "2026-01-01T23:59:00Z",
    "2026-01-01T00:00:00+01: : 30": "2025-12-31T22:30:00Z",
    "2026-01-01T00:00:00+01 30": "2025-12-31T22:30:00Z",
    " 2026 - 01 - 01T 00 : 00 : 00 Z ": "2026-01-01T00:00:00Z",
    "2026-01-01 \t00:00:00Z": "2026-01-01T00:00:00Z",
    "\u3000\x85\xa0\u1680\u2028\u2029\u202f\u205f\t\n\v\f\r2026-01-01T00:00:00Z\u2003": (
        "2026-01-01T00:00:00Z"
    ),
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z": "9999-12-31T23:59:59.999999999Z",
    "0000-12-31T23:30:00-01:00": "0001-01-01T00:30:00Z",
    "+10000-01-01T00:30:00+01:00": "9999-12-31T23:30:00Z",
    "2024-02-29T12:00:00Z": "2024-02-29T12:00:00Z",
    "2000-02-29T12:00:00Z": "2000-02-29T12:00:00Z",
}

CHRONO_REJECTS = [
    " ",
    "Z",
    "2026",
    "2026-01-01T",
    "2026-01-01T00:00Z",
    "2026-01-01T00:00:00ZZ",
    "2026-01-01T00:00:00Z.",
    "2026-01-01T00:00:00 GMT",
    "2026-01-01T00:00:00U",
    "2026-01-01T00:00:00+",
    "2026-01-01T00:00:00+1",
    "2026-01-01T00:00:00+01",
    "2026-01-01T00:00:00+01:",
    "2026-01-01T00:00:00+1:00",
    "2026-01-01T00:00:00+01:0",
    "2026-01-01T00:00:00+01:60",
    "2026-01-01T00:00:00+01:000",
    "2026-01-01T00:00:00+01:00:00",
    "2026-01-01T00:00:00\u221201:00",
    "2026-01-01T00:00:00 + 01:00",
    "2026-01-01T00:00:00.Z",
    "2026-01-01T00:00:00. 5Z",
    "2026-01-01T00:00:00 .5Z",
    "2026-01-01T00:00:00.1_2Z",
    "2026-01-01T00:00:00.+12Z",
    "2026-01-01T00:00:00.-12Z",
    "2026-01-01T00:00:00.12 3456Zx",
    "2026-01-01T00:00:00.\u0661\u0662\u0663Z",
    "2026-01-01T00:00:00.\uff11\uff12\uff13\uff14\uff15\uff16Z",
    "2026-01-01T00:00:00.\xb2Z",
    "\u0662\u0660\u0662\u0666-01-01T00:00:00Z",
    "20260101T000000Z",
    "20260-01-01T00:00:00Z",
    "- 2026-01-01T00:00:00Z",
    "2026-001-01T00:00:00Z",
    "2026-01-001T00:00:00Z",
    "2026-01-01T000:00:00Z",
    "2026-00-01T00:00:00Z",
    "2026-01-00T00:00:00Z",
    "2026-01-32T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2025-02-29T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2026-01-01T00:60:00Z",
    "2026-01-01T00:00:61Z",
    "2026-01-01\t00:00:00Z",
    "2026-01-01 T00:00:00Z",
    "2026-01-01_00:00:00Z",
    "2026-01-01--00:00:00Z",
    "\x1c2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00Z\x1f",
    "\u200b2026-01-01T00:00:00Z",
    "\ufeff2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00Z\x00",
]


@pytest.mark.parametrize(("text", "canonical"), REFERENCE_ACCEPTS.items())
def test_text_that_the_reference_accepts_is_read_alike(text: str, canonical: str) -> None:
    assert Timestamp.parse(text).rfc3339() == canonical


@pytest.mark.parametrize("text", REFERENCE_REJECTS)
def test_text_that_the_reference_rejects_is_rejected(text: str) -> None:
    assert repr(text) in rejection(text)


@pytest.mark.parametrize(("text", "reason"), CHOSEN_DEVIATIONS.items())
def test_what_we_choose_to_reject_is_said_clearly(text: str, reason: str) -> None:
    message = rejection(text)
    assert repr(text) in message
    assert reason in message


@pytest.mark.parametrize(("text", "canonical"), CHRONO_ACCEPTS.items())
def test_the_corners_that_chrono_accepts_are_accepted(text: str, canonical: str) -> None:
    assert text_from_epoch_ns(epoch_ns_from_text(text)) == canonical


@pytest.mark.parametrize("text", CHRONO_REJECTS)
def test_the_corners_that_chrono_rejects_are_rejected(text: str) -> None:
    assert repr(text)[:50] in rejection(text)


@pytest.mark.parametrize(
    "text",
    [
        "0000-12-31T23:59:59.999999999Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "+10000-01-01T00:00:00Z",
        "+999999-01-01T00:00:00Z",
        "-2026-01-01T00:00:00Z",
        "0-1-1T0:0:0Z",
    ],
)
def test_the_year_is_judged_after_the_conversion_to_utc(text: str) -> None:
    assert rejection(text) == f"{text!r} is outside the years 0001 to 9999 in UTC"


def test_a_missing_offset_is_named_as_such() -> None:
    assert "has no UTC offset" in rejection("2026-01-01T00:00:00.5")


def test_an_error_shortens_long_text() -> None:
    message = rejection("2026-01-01T00:00:00Z" + "!" * 1_000)
    assert "2026-01-01T00:00:00Z!!!" in message
    assert len(message) < 150


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00" + " " * 300_000 + "x",
        " " * 300_000 + "x",
        "+" + "9" * 300_000 + "-01-01T00:00:00Z",
        "+" + "0" * 300_000 + "-01-01T00:00:00Z",
        "2026-01-01T00:00:00." + "1" * 300_000,
        "2026-01-01T00:00:00+01" + ":" * 300_000,
    ],
)
def test_hostile_lengths_are_rejected_in_the_same_words(text: str) -> None:
    message = rejection(text)
    assert message.startswith(f"{text[:57] + '...'!r} ")
    assert len(message) < 150


@pytest.mark.parametrize("value", [b"2026-01-01T00:00:00Z", 1_767_225_600, None])
def test_only_text_is_parsed(value: Any) -> None:
    with pytest.raises(TypeError):
        epoch_ns_from_text(value)


# An oracle that shares nothing with the module: a regular expression for the canonical form and
# the day number by counting leap years.

CANONICAL = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?Z"
)


def oracle(text: str) -> int | None:
    """Return the epoch nanoseconds of canonical text, None if it is no instant."""
    found = CANONICAL.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = [31, 29 if is_leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= lengths[month - 1]):
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    before = year - 1
    leaps = before // 4 - before // 100 + before // 400
    days = before * 365 + leaps + sum(lengths[: month - 1]) + day - 1 - 719_162
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second
    return seconds * SECOND + int((found[7] or "").ljust(9, "0"))


def or_none(text: str) -> int | None:
    try:
        return epoch_ns_from_text(text)
    except ValueError:
        return None


plausible = st.builds(
    "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}{}Z".format,
    st.integers(0, 9999),
    st.integers(0, 13),
    st.integers(0, 32),
    st.integers(0, 24),
    st.integers(0, 60),
    st.integers(0, 61),
    st.text("0123456789", max_size=9).map(lambda digits: f".{digits}" if digits else ""),
)


@given(plausible)
@example("0000-01-01T00:00:00Z")
@example("2026-02-29T00:00:00Z")
@example("2024-02-29T23:59:59.999999999Z")
def test_canonical_text_is_read_as_an_independent_calendar_reads_it(text: str) -> None:
    assert or_none(text) == oracle(text)


def spoil(text: str, where: int, put: str, take: int) -> str:
    where %= len(text) + 1
    return text[:where] + put + text[where + take :]


NASTY = [*"0129-+:.,TtZzUuCc _\t\n\x1c\xb2\u0661\u2212\uff11", "", "1_2", "+1", " 1", "\ud800"]

spoiled = st.builds(
    spoil,
    epoch_ns.map(text_from_epoch_ns),
    st.integers(0, 40),
    st.sampled_from(NASTY),
    st.integers(0, 3),
)


@given(st.one_of(spoiled, plausible, st.text(max_size=32), st.text("0123456789:-.TZ_ +")))
@example("2026-01-01T00:00:00.1_2Z")
@example("2026-01-01T00:00:00.+12Z")
@example("2026-01-01T00:00:00. 12Z")
@example("2026-01-01T00:00:00.12 Z")
@example("2026-01-01T00:00:00.\u0661\u0662\u0663Z")
@example("2026-01-01T00:00:00.12345\u0661789Z")
@example("2026-01-01T00:00:00.123456789z")
@example("2026-01-01T00:00:00.123456789\n")
@example("2026-01-01T00:00:00,123Z")
@example("2026-W01-1T00:00:00.123Z")
@example("2026-01-01 00:00:00.123Z")
@example("20260101T000000.123Z")
@example("2026-01-01T0000:000Z")
@example("+026-01-01T00:00:00Z")
@example(" 026-01-01T00:00:00.123456Z")
def test_the_fast_path_agrees_with_the_full_grammar_on_any_text(text: str) -> None:
    # A leading space changes no meaning and keeps every text off the fast path.
    expected = or_none(" " + text)
    assert or_none(text) == expected
    assert or_none(text) == expected  # now that the minute is known


@given(epoch_ns, st.integers(0, 9))
def test_a_second_seen_before_is_read_the_same(ns: int, digits: int) -> None:
    head = text_from_epoch_ns(ns // SECOND * SECOND)[:-1]
    fraction = f".{ns % SECOND:09d}"[: digits + 1] if digits else ""
    text = f"{head}{fraction}Z"
    first, again = epoch_ns_from_text(text), epoch_ns_from_text(text)
    step = 10 ** (9 - digits)
    assert first == again == ns // step * step


# --- Integers and text ----------------------------------------------------------------------


@given(epoch_ns)
@example(FIRST_NS)
@example(LAST_NS)
@example(-1)
@example(0)
@example(MIN_EPOCH_NS)
@example(MAX_EPOCH_NS)
def test_an_integer_survives_the_way_through_text_and_through_a_timestamp(ns: int) -> None:
    text = text_from_epoch_ns(ns)
    assert epoch_ns_from_text(text) == ns
    assert Timestamp.from_epoch_ns(ns).epoch_ns == ns
    assert Timestamp.parse(text).epoch_ns == ns
    assert Timestamp.from_epoch_ns(ns).rfc3339() == text


@given(st.one_of(spoiled, plausible, epoch_ns.map(text_from_epoch_ns)))
@example("2026-01-01T00:00:00.123456000Z")
@example("2026-01-01T00:00:00.120000001Z")
@example("2026-01-01T00:00:00.000000000Z")
@example("2026-01-01T00:00:00.12345678\u0661Z")
@example("2026-01-01T00:00:00.123456789z")
@example("2026-01-01T00:00:61.123456789Z")
@example("2026-02-29T00:00:00.123456789Z")
def test_a_text_gives_the_timestamp_and_canonical_text_of_its_integer(text: str) -> None:
    for _ in range(2):  # the second time its minute is known
        ns = or_none(text)
        if ns is None:
            for read in (timestamp_of, canonical_text):
                with pytest.raises(ValueError):  # noqa: PT011 (the words are tested elsewhere)
                    read(text)
        else:
            found = timestamp_of(text)
            assert (found, found.epoch_ns, type(found)) == (Timestamp.parse(text), ns, Timestamp)
            assert found == Timestamp.from_epoch_ns(ns)
            assert canonical_text(text) == text_from_epoch_ns(ns)


@given(epoch_ns)
def test_a_timestamp_of_an_integer_has_the_fields_of_plain_arithmetic(ns: int) -> None:
    made = Timestamp.from_epoch_ns(ns)
    plain = dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(microseconds=ns // 1_000)
    assert made.replace(nanosecond=0) == plain
    assert made.timetuple() == plain.timetuple()
    assert (made.microsecond, made.nanosecond) == (plain.microsecond, ns % 1_000)
    assert (made.tzinfo, made.fold) == (UTC, 0)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (-1_000, "1969-12-31T23:59:59.999999Z"),
        (1_000_000, "1970-01-01T00:00:00.001Z"),
        (1_001_000, "1970-01-01T00:00:00.001001Z"),
        (100_000_000, "1970-01-01T00:00:00.100Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (FIRST_NS, "0001-01-01T00:00:00Z"),
        (LAST_NS, "9999-12-31T23:59:59.999999999Z"),
        (MIN_EPOCH_NS, "1677-09-21T00:12:43.145224192Z"),
        (MAX_EPOCH_NS, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_text_has_the_fewest_of_0_3_6_or_9_digits(ns: int, text: str) -> None:
    assert text_from_epoch_ns(ns) == text
    assert Timestamp.from_epoch_ns(ns).rfc3339("+00:00") == text[:-1] + "+00:00"


@given(st.lists(epoch_ns, max_size=20))
def test_canonical_text_of_equal_precision_sorts_as_the_instants_do(instants: list[int]) -> None:
    texts = [Timestamp.from_epoch_ns(ns).isoformat(timespec="nanoseconds") for ns in instants]
    assert sorted(texts) == [texts[i] for i in sorted(range(len(texts)), key=lambda i: instants[i])]


@pytest.mark.parametrize("ns", [FIRST_NS - 1, LAST_NS + 1, 10**30, -(10**30)])
def test_an_integer_outside_the_years_1_to_9999_is_a_clear_error(ns: int) -> None:
    sentence = f"{ns} nanoseconds since 1970 are outside the years 0001 to 9999"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Timestamp.from_epoch_ns(ns)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        text_from_epoch_ns(ns)


def caches() -> list[dict[Any, Any]]:
    return [value for value in vars(timestamps).values() if type(value) is dict]


def test_memory_stays_bounded_however_many_seconds_are_met(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timestamps, "_CACHE_LIMIT", 50)
    sizes = [len(cache) for cache in caches()]
    for second in range(0, 500 * 86_400 * SECOND, 86_401 * SECOND):
        text = text_from_epoch_ns(second)
        pointed = text[:-1] + ".5Z"
        assert epoch_ns_from_text(text) == Timestamp.from_epoch_ns(second).epoch_ns == second
        assert epoch_ns_from_text(pointed) == second + SECOND // 2
    grown = [len(cache) for cache in caches()]
    assert all(now <= max(50, before) for now, before in zip(grown, sizes, strict=True))


def test_threads_that_fill_and_clear_the_caches_get_right_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timestamps, "_CACHE_LIMIT", 3)
    wrong: list[int] = []

    def convert(start: int) -> None:
        for ns in range(start, start + 1_500 * SECOND, 7 * SECOND // 2):
            text = text_from_epoch_ns(ns)
            if not epoch_ns_from_text(text) == Timestamp.from_epoch_ns(ns).epoch_ns == ns:
                wrong.append(ns)

    threads = [threading.Thread(target=convert, args=(i * SECOND,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- The value ------------------------------------------------------------------------------


def test_it_is_a_datetime_with_three_more_digits() -> None:
    made = Timestamp(2026, 1, 2, 3, 4, 5, 678_901, UTC, nanosecond=234)
    assert isinstance(made, dt.datetime)
    assert made.nanosecond == 234
    assert made.microsecond == 678_901
    assert made.epoch_ns % SECOND == 678_901_234


@pytest.mark.parametrize("nanosecond", [-1, 1_000])
def test_a_nanosecond_outside_0_to_999_is_an_error(nanosecond: int) -> None:
    with pytest.raises(ValueError, match=f"nanosecond is {nanosecond}, expected 0 to 999"):
        Timestamp(2026, 1, 1, nanosecond=nanosecond)


def test_a_nanosecond_is_a_whole_number() -> None:
    wrong: Any = 1.0
    with pytest.raises(TypeError):
        Timestamp(2026, 1, 1, nanosecond=wrong)


def test_it_is_immutable_and_holds_no_dict() -> None:
    made: Any = Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=1)
    for name in ("nanosecond", "epoch_ns", "year", "anything"):
        with pytest.raises(AttributeError):
            setattr(made, name, 5)
    assert not hasattr(made, "__dict__")


@pytest.mark.parametrize(
    "make",
    [
        Timestamp.now,
        lambda: Timestamp.now(UTC),
        lambda: Timestamp.now(EAST),
        Timestamp.today,
        lambda: Timestamp.fromtimestamp(1.5),
        lambda: Timestamp.fromtimestamp(1.5, EAST),
        lambda: Timestamp.combine(dt.date(2026, 1, 1), dt.time(1, tzinfo=UTC)),
        lambda: Timestamp.strptime("2026-01-01 +0200", "%Y-%m-%d %z"),
        lambda: Timestamp.fromordinal(700_000),
        lambda: Timestamp.fromisocalendar(2026, 1, 1),
        lambda: Timestamp.fromisoformat("2026-01-01"),
    ],
)
def test_the_constructors_of_datetime_give_a_working_timestamp(
    make: Callable[[], Timestamp],
) -> None:
    made = make()
    assert type(made) is Timestamp
    assert made.nanosecond == 0
    assert made == made.replace() == copy.copy(made)
    assert (made + US).microsecond == (made.microsecond + 1) % 1_000_000


@given(timestamps_in_zones, st.sampled_from("T x,."))
def test_fromisoformat_reads_back_all_nine_digits(made: Timestamp, separator: str) -> None:
    again = Timestamp.fromisoformat(made.isoformat(separator))
    assert again == made
    assert again.nanosecond == made.nanosecond
    assert Timestamp.fromisoformat(str(made)) == made


@pytest.mark.parametrize(
    ("text", "microsecond", "nanosecond"),
    [
        ("2026-01-01T12:34:56.1234567Z", 123_456, 700),
        ("2026-01-01T12:34:56,12345678901-01:00:00.123456", 123_456, 789),
        ("2026-01-01T12:34:56.5+01:00:00.1234567", 500_000, 0),
        ("20260101T123456.000000001", 0, 1),
        ("2026-01-01+12:34:56.123456789", 123_456, 789),
        ("20260101.123456", 0, 0),
        ("2026-W01-1T12:34:56.123", 123_000, 0),
    ],
)
def test_fromisoformat_takes_the_digits_of_the_clock_only(
    text: str, microsecond: int, nanosecond: int
) -> None:
    made = Timestamp.fromisoformat(text)
    assert (made.microsecond, made.nanosecond) == (microsecond, nanosecond)


@given(timestamps_in_zones)
def test_from_datetime_keeps_the_instant_and_gives_utc(made: Timestamp) -> None:
    converted = Timestamp.from_datetime(made)
    assert converted.tzinfo is UTC
    assert converted.epoch_ns == made.epoch_ns
    assert converted == made
    assert converted.nanosecond == made.nanosecond


def test_from_datetime_returns_a_utc_timestamp_unchanged() -> None:
    made = Timestamp.from_epoch_ns(5)
    assert Timestamp.from_datetime(made) is made


def test_fold_decides_between_the_two_instants_of_a_clock_set_back() -> None:
    zone = SetBack()
    early = dt.datetime(2026, 10, 25, 2, 30, tzinfo=zone)
    late = early.replace(fold=1)
    assert Timestamp.from_datetime(early).rfc3339() == "2026-10-25T00:30:00Z"
    assert Timestamp.from_datetime(late).rfc3339() == "2026-10-25T01:30:00Z"
    made = Timestamp(2026, 10, 25, 2, 30, tzinfo=zone, fold=1, nanosecond=7)
    assert made.rfc3339() == "2026-10-25T01:30:00.000000007Z"
    there_and_back = Timestamp.from_datetime(made).astimezone(zone)
    assert (there_and_back.fold, there_and_back.nanosecond) == (1, 7)
    assert there_and_back.epoch_ns == made.epoch_ns
    assert Timestamp.from_datetime(dt.datetime(2026, 1, 1, tzinfo=UTC, fold=1)).fold == 0
    assert Timestamp.from_datetime(Timestamp(2026, 1, 1, tzinfo=UTC, fold=1)).fold == 0


def test_from_datetime_keeps_the_nanoseconds_of_another_subclass() -> None:
    other = PandasLike(2026, 1, 1, tzinfo=UTC)
    other.nanosecond = 42
    made = Timestamp.from_datetime(other)
    assert made.nanosecond == 42
    assert made == other
    assert made.replace(nanosecond=41) != other


class NoOffset(dt.tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, _: dt.datetime | None) -> None:
        return None

    dst = tzname = utcoffset


@pytest.mark.parametrize("zone", [None, NoOffset()])
def test_without_an_offset_there_is_no_instant(zone: dt.tzinfo | None) -> None:
    naive = Timestamp(2026, 1, 1, tzinfo=zone)
    for ask in (Timestamp.from_datetime, operator.attrgetter("epoch_ns"), Timestamp.rfc3339):
        with pytest.raises(ValueError, match="2026-01-01 00:00:00 has no UTC offset"):
            ask(naive)


class Movable(NoOffset):
    """A zone that changes its mind, as the local one does when a machine travels."""

    offset = dt.timedelta(0)

    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:  # type: ignore[override]
        return self.offset


def test_the_instant_is_that_of_the_zone_as_it_is_now() -> None:
    zone = Movable()
    made = Timestamp(1970, 1, 1, 1, tzinfo=zone, nanosecond=1)
    assert made.epoch_ns == 3_600 * SECOND + 1
    zone.offset = dt.timedelta(hours=1)
    assert made.epoch_ns == 1


def test_an_instant_that_leaves_the_years_in_utc_is_refused() -> None:
    first = dt.datetime.min.replace(tzinfo=EAST)
    with pytest.raises(ValueError, match=r"^0001-01-01 00:00:00\+05:30 is outside the years"):
        Timestamp.from_datetime(first)
    made = Timestamp(1, 1, 1, tzinfo=EAST)
    assert made.epoch_ns == FIRST_NS - 19_800 * SECOND
    with pytest.raises(ValueError, match="outside the years 0001 to 9999"):
        made.rfc3339()


def test_from_datetime_takes_datetimes_only() -> None:
    for wrong in (dt.date(2026, 1, 1), "2026-01-01T00:00:00Z", 5, None):
        value: Any = wrong
        with pytest.raises(TypeError, match="expected an aware datetime"):
            Timestamp.from_datetime(value)


def test_rfc3339_ends_in_z_or_in_zeros_and_in_nothing_else() -> None:
    made = Timestamp(2026, 1, 1, 5, 30, tzinfo=EAST, nanosecond=10)
    assert made.rfc3339() == "2026-01-01T00:00:00.000000010Z"
    assert made.rfc3339(offset="+00:00") == "2026-01-01T00:00:00.000000010+00:00"
    wrong: Any = "+05:30"
    with pytest.raises(ValueError, match="expected 'Z' or"):
        made.rfc3339(offset=wrong)


# --- Comparison and hash --------------------------------------------------------------------

ORDERINGS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@given(st.one_of(close_ns, inner_ns), st.one_of(close_ns, inner_ns), zones, zones)
@example(0, 0, UTC, EAST)
@example(0, 1, UTC, UTC)
@example(1_000, 999, EAST, UTC)
def test_comparison_is_that_of_the_instants(
    left: int, right: int, zone: dt.tzinfo, other_zone: dt.tzinfo
) -> None:
    a = Timestamp.from_epoch_ns(left).astimezone(zone)
    b = Timestamp.from_epoch_ns(right).astimezone(other_zone)
    for ordering in ORDERINGS:
        assert ordering(a, b) == ordering(left, right)
    if left == right:
        assert hash(a) == hash(b)


@given(close_ns, close_ns)
def test_comparison_with_a_plain_datetime_holds_in_both_orders(left: int, right: int) -> None:
    right -= right % 1_000
    a = Timestamp.from_epoch_ns(left)
    plain = dt.datetime(1970, 1, 1, tzinfo=UTC) + dt.timedelta(microseconds=right // 1_000)
    for ordering in ORDERINGS:
        assert ordering(a, plain) == ordering(left, right)
        assert ordering(plain, a) == ordering(right, left)


@given(timestamps_in_zones)
def test_with_nanosecond_0_it_equals_and_hashes_as_the_plain_datetime(made: Timestamp) -> None:
    whole = made.replace(nanosecond=0)
    plain = dt.datetime.combine(made.date(), made.timetz())
    assert whole == plain
    assert plain == whole
    assert hash(whole) == hash(plain)
    assert {plain: "found"}[whole] == "found"


def test_values_that_differ_in_nanoseconds_are_different_keys() -> None:
    made = [Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=n) for n in range(1_000)]
    assert len(set(made)) == 1_000
    assert len({hash(each) for each in made}) > 990


def test_naive_and_aware_values_meet_as_in_datetime() -> None:
    aware = Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=1)
    naive = Timestamp(2026, 1, 1, nanosecond=1)
    assert naive != aware
    assert (naive == aware) is False
    for ordering in ORDERINGS[2:]:
        with pytest.raises(TypeError, match="offset-naive and offset-aware"):
            ordering(naive, aware)
        with pytest.raises(TypeError, match="offset-naive and offset-aware"):
            ordering(aware, dt.datetime(2026, 1, 1))
    assert naive < dt.datetime(2026, 1, 1, 0, 0, 1)
    assert naive > dt.datetime(2026, 1, 1)


def test_values_of_other_types_are_unequal_and_unordered() -> None:
    made: Any = Timestamp(2026, 1, 1, tzinfo=UTC)
    for other in (dt.date(2026, 1, 1), "2026-01-01T00:00:00Z", made.epoch_ns, None):
        assert made != other
        assert (made == other) is False
        with pytest.raises(TypeError):
            assert made < other


# --- Arithmetic -----------------------------------------------------------------------------


@given(timestamps_in_zones, st.timedeltas(dt.timedelta(-1), dt.timedelta(1)))
def test_adding_a_timedelta_keeps_the_nanosecond(made: Timestamp, step: dt.timedelta) -> None:
    moved = made + step
    assert type(moved) is Timestamp
    assert moved == step + made
    assert moved.nanosecond == made.nanosecond
    assert moved.epoch_ns - made.epoch_ns == step // US * 1_000
    assert moved - step == made
    assert (moved - step).nanosecond == made.nanosecond


@given(st.one_of(close_ns, inner_ns), st.one_of(close_ns, inner_ns), zones)
@example(0, 1, UTC)
@example(1, 0, UTC)
def test_a_difference_is_the_exact_one_rounded_down(left: int, right: int, zone: dt.tzinfo) -> None:
    a, b = Timestamp.from_epoch_ns(left), Timestamp.from_epoch_ns(right).astimezone(zone)
    assert type(a - b) is dt.timedelta
    assert (a - b) // US == (left - right) // 1_000
    assert (b - a) // US == (right - left) // 1_000


def test_a_difference_to_a_plain_datetime_is_rounded_down_too() -> None:
    plain = dt.datetime(2026, 1, 1, tzinfo=UTC)
    made = Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=1)
    assert made - plain == dt.timedelta(0)
    assert plain - made == -US
    with pytest.raises(TypeError):
        assert made - dt.datetime(2026, 1, 1)
    with pytest.raises(TypeError):
        assert dt.datetime(2026, 1, 1) - made


def test_only_timedeltas_are_added_and_only_they_and_datetimes_subtracted() -> None:
    made: Any = Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=1)
    for operation in (operator.add, operator.sub):
        with pytest.raises(TypeError):
            operation(made, 5)
        with pytest.raises(TypeError):
            operation(5, made)
    with pytest.raises(OverflowError):
        Timestamp.from_epoch_ns(LAST_NS) + US


# --- Copies and forms -----------------------------------------------------------------------


def same(a: Timestamp, b: Timestamp) -> bool:
    """Tell whether two values agree in everything that can be asked of them."""
    return (
        type(a) is type(b)
        and a == b
        and hash(a) == hash(b)
        and repr(a) == repr(b)
        and (a.tzinfo, a.fold, a.nanosecond) == (b.tzinfo, b.fold, b.nanosecond)
        and a.isoformat() == b.isoformat()
    )


@given(
    st.one_of(
        timestamps_in_zones,
        epoch_ns.map(Timestamp.from_epoch_ns),
        timestamps_in_zones.map(lambda made: made.replace(tzinfo=None, fold=1)),
    )
)
def test_pickles_of_every_protocol_and_copies_keep_everything(made: Timestamp) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert same(pickle.loads(pickle.dumps(made, protocol)), made)
    assert same(copy.copy(made), made)
    assert same(copy.deepcopy([made])[0], made)
    assert eval(repr(made), {"Timestamp": Timestamp, "datetime": dt}) == made  # noqa: S307


@given(timestamps_in_zones, zones)
def test_another_zone_keeps_the_instant_to_the_nanosecond(made: Timestamp, zone: dt.tzinfo) -> None:
    moved = made.astimezone(zone)
    assert type(moved) is Timestamp
    assert moved.tzinfo is zone
    assert moved.epoch_ns == made.epoch_ns
    assert moved.nanosecond == made.nanosecond


def test_the_local_zone_keeps_the_instant_to_the_nanosecond() -> None:
    made = Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=9)
    assert made.astimezone().epoch_ns == made.epoch_ns
    assert made.replace(tzinfo=None).astimezone().nanosecond == 9


def test_a_zone_that_makes_plain_datetimes_loses_no_digits() -> None:
    made = Timestamp(2026, 7, 1, tzinfo=UTC, nanosecond=9)
    moved = made.astimezone(SetBack())
    assert same(moved, Timestamp(2026, 7, 1, 2, tzinfo=moved.tzinfo, nanosecond=9))


@given(timestamps_in_zones)
def test_replace_keeps_the_nanosecond_unless_the_fraction_is_replaced(made: Timestamp) -> None:
    below = made.nanosecond
    assert same(made.replace(), made)
    for change in ({"year": 2020, "day": 1}, {"second": 7}, {"tzinfo": None}, {"fold": 1}):
        changed: Any = change
        assert made.replace(**changed).nanosecond == below
    assert made.replace(2020, 2, 3).timetuple()[:3] == (2020, 2, 3)
    assert made.replace(microsecond=5).nanosecond == 0
    assert made.replace(microsecond=5, nanosecond=6).nanosecond == 6
    assert made.replace(nanosecond=6).microsecond == made.microsecond
    assert made.replace(tzinfo=None).tzinfo is None


def test_replace_rejects_what_the_constructor_rejects() -> None:
    made = Timestamp(2026, 1, 1, nanosecond=1)
    with pytest.raises(ValueError, match="nanosecond is 1000, expected 0 to 999"):
        made.replace(nanosecond=1_000)
    with pytest.raises(ValueError, match="month"):
        made.replace(month=13)


def test_iso_text_shows_nine_digits_where_they_are_needed() -> None:
    made = Timestamp(2026, 1, 1, tzinfo=UTC, nanosecond=5)
    assert made.isoformat() == "2026-01-01T00:00:00.000000005+00:00"
    assert str(made) == f"{made}" == "2026-01-01 00:00:00.000000005+00:00"
    assert made.isoformat(timespec="microseconds") == "2026-01-01T00:00:00.000000+00:00"
    assert made.isoformat(timespec="seconds") == "2026-01-01T00:00:00+00:00"
    whole = made.replace(nanosecond=0)
    assert whole.isoformat() == "2026-01-01T00:00:00+00:00"
    assert whole.isoformat(timespec="nanoseconds") == "2026-01-01T00:00:00.000000000+00:00"
    assert Timestamp(2026, 1, 1, nanosecond=5).isoformat() == "2026-01-01T00:00:00.000000005"


def test_repr_names_the_nanosecond_only_where_there_is_one() -> None:
    assert repr(Timestamp(2026, 1, 1)) == "Timestamp(2026, 1, 1, 0, 0)"
    assert repr(Timestamp(2026, 1, 1, nanosecond=5)) == (
        "Timestamp(2026, 1, 1, 0, 0, nanosecond=5)"
    )


class Special(Timestamp):
    """A subclass, which has to stay one."""


def test_a_subclass_stays_a_subclass() -> None:
    made = Special.from_epoch_ns(1_001)
    for each in (
        Special.parse("1970-01-01T00:00:00.000001001Z"),
        Special.from_datetime(Timestamp.from_epoch_ns(1_001)),
        made.replace(),
        made + dt.timedelta(0),
        made.astimezone(EAST).astimezone(UTC),
        copy.copy(made),
        pickle.loads(pickle.dumps(made)),
    ):
        assert same(each, made)


# --- As the type of a pydantic field --------------------------------------------------------


class Model(pydantic.BaseModel):
    """Anything with an instant in it."""

    at: Timestamp


def complaint(value: object) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate({"at": value})
    (error,) = caught.value.errors()
    assert error["loc"] == ("at",)
    return error["msg"]


@pytest.mark.parametrize(
    "value",
    [
        Timestamp(2026, 1, 1, 5, 30, tzinfo=EAST),
        dt.datetime(2026, 1, 1, tzinfo=UTC),
        dt.datetime(2026, 1, 1, 5, 30, tzinfo=EAST),
        "2026-01-01T00:00:00Z",
        " 2026-1-1 05:30:00 +0530",
    ],
    ids=repr,
)
def test_a_field_takes_aware_datetimes_and_text_and_gives_utc(value: object) -> None:
    at = Model.model_validate({"at": value}).at
    assert same(at, Timestamp(2026, 1, 1, tzinfo=UTC))


def test_a_field_passes_a_utc_timestamp_through_unchanged() -> None:
    made = Timestamp.from_epoch_ns(1_234_567_891)
    assert Model(at=made).at is made


def test_a_field_normalises_fold_away() -> None:
    assert Model(at=Timestamp(2026, 1, 1, tzinfo=UTC, fold=1)).at.fold == 0


@pytest.mark.parametrize(
    "value", [dt.datetime(2026, 1, 1), Timestamp(2026, 1, 1), "2026-01-01T00:00:00"], ids=repr
)
def test_a_field_refuses_what_has_no_offset(value: object) -> None:
    assert "has no UTC offset" in complaint(value)


@pytest.mark.parametrize(
    "value",
    [1_767_225_600, 1.5, True, None, dt.date(2026, 1, 1), b"2026-01-01T00:00:00Z", []],
    ids=repr,
)
def test_a_field_refuses_other_types_by_name(value: object) -> None:
    assert complaint(value).endswith(
        f"expected an aware datetime or RFC 3339 text, not {type(value).__name__}"
    )


def test_a_field_says_what_is_wrong_with_text() -> None:
    assert "'soon' is not RFC 3339 text" in complaint("soon")
    assert "leap second" in complaint("2016-12-31T23:59:60Z")


@pytest.mark.parametrize("value", ["1767225600", "1.5", "true", "null", "[]", "{}"])
def test_from_json_a_field_takes_text_only(value: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="expected RFC 3339 text, not"):
        Model.model_validate_json(f'{{"at":{value}}}')


@given(epoch_ns)
def test_a_field_survives_the_way_through_json(ns: int) -> None:
    model = Model(at=Timestamp.from_epoch_ns(ns))
    text = model.model_dump_json()
    assert text == f'{{"at":"{text_from_epoch_ns(ns)}"}}'
    assert Model.model_validate_json(text) == model
    assert Model.model_validate_json(text).at.epoch_ns == ns
    assert model.model_dump() == {"at": model.at}
    assert type(model.model_dump()["at"]) is Timestamp
    assert model.model_dump(mode="json") == {"at": text_from_epoch_ns(ns)}


def test_an_unvalidated_plain_datetime_is_still_written_as_text() -> None:
    plain: Any = dt.datetime(2026, 1, 1, 5, 30, tzinfo=EAST)
    assert Model.model_construct(at=plain).model_dump_json() == '{"at":"2026-01-01T00:00:00Z"}'


def test_the_json_schema_of_a_field_is_date_time() -> None:
    for schema in (Model.model_json_schema(), Model.model_json_schema(mode="serialization")):
        assert schema["properties"]["at"] == {
            "type": "string",
            "format": "date-time",
            "title": "At",
        }


def test_a_subclass_as_a_field_gives_the_subclass() -> None:
    adapter = pydantic.TypeAdapter(Special)
    assert type(adapter.validate_python(Timestamp.from_epoch_ns(5))) is Special
    assert type(adapter.validate_json('"2026-01-01T00:00:00Z"')) is Special
