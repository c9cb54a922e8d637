"""Moments as people type them, much as journalctl takes them. All of it is UTC."""

import re
from datetime import UTC, datetime, timedelta

_S = 1_000_000_000

_UNITS = {
    "us usec": 1_000,
    "ms msec": 1_000_000,
    "s sec secs second seconds": _S,
    "m min mins minute minutes": 60 * _S,
    "h hr hrs hour hours": 3_600 * _S,
    "d day days": 86_400 * _S,
    "w week weeks": 7 * 86_400 * _S,
    "M month months": 2_629_800 * _S,  # both as systemd has them
    "y year years": 31_557_600 * _S,
}
_UNIT_NS = {name: ns for names, ns in _UNITS.items() for name in names.split()}

_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_SPAN_PART = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*([A-Za-z]+)")
_CLOCK = r"(?P<h>[0-9]{1,2}):(?P<min>[0-9]{2})(?::(?P<s>[0-9]{2})(?:\.(?P<ns>[0-9]{1,9}))?)?"
_CALENDAR = re.compile(
    rf"(?:(?P<day>(?P<y>[0-9]{{4}})-(?P<m>[0-9]{{1,2}})-(?P<d>[0-9]{{1,2}})|[a-z]+)(?:[t\s]+|\Z))?"
    rf"(?:{_CLOCK})?\s*(?:utc|z)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EXPECTED = (
    "RFC 3339, like 2026-01-31T12:00:00Z, or, in UTC, 2026-01-31, '2026-01-31 12:00', 12:00, "
    "yesterday, today, now, or how long ago, like 2h, '1d 12h' or 90s"
)
"""What `epoch_ns_typed` takes, in words, beside what a `Timestamp` can be parsed from."""


def epoch_ns_typed(text: str, now_ns: int) -> int:
    """Return the moment that a text means, in nanoseconds since 1970.

    - "now"; a span, as "2h", "1d 12h", "90 seconds": so long ago, also with "-" before it or "ago"
      behind it; with "+" before it, so far ahead. Units are us, ms, s, min (or m), h, d, w,
      month (or M) and y.
    - A date, "today", "yesterday" or "tomorrow": its first instant. A time of day may follow, with
      or without seconds and up to nine digits of them. A time of day alone is today's.
    - "@" and the seconds since 1970, with up to nine digits behind a point.

    Raises:
        ValueError: it is none of these, or outside the years 1 to 9999.
    """
    typed, text = text.strip(), text.strip().lower()
    if text == "now":
        return now_ns
    epoch = re.fullmatch(r"@(-?[0-9]{1,12})(?:\.([0-9]{1,9}))?", text)
    if epoch:
        below = int((epoch[2] or "").ljust(9, "0"))
        return int(epoch[1]) * _S + (-below if epoch[1].startswith("-") else below)
    calendar = _CALENDAR.fullmatch(text)
    if calendar and (calendar["day"] or calendar["h"]):
        return _calendar_ns(calendar, now_ns)
    if typed.startswith("+"):
        return now_ns + span_ns_typed(typed[1:])
    return now_ns - span_ns_typed(typed.removeprefix("-").removesuffix("ago"))


def _calendar_ns(found: re.Match[str], now_ns: int) -> int:
    day = (_EPOCH + timedelta(seconds=now_ns // _S)).replace(hour=0, minute=0, second=0)
    if found["y"]:
        day = datetime(int(found["y"]), int(found["m"]), int(found["d"]), tzinfo=UTC)
    elif found["day"]:
        if found["day"] not in _DAYS:
            raise ValueError(f"{found['day']} is no day")
        day += timedelta(days=_DAYS[found["day"]])
    hour, minute, second = (int(found[name] or 0) for name in ("h", "min", "s"))
    moment = day.replace(hour=hour, minute=minute, second=second)  # which checks them
    return (moment - _EPOCH) // timedelta(seconds=1) * _S + int((found["ns"] or "").ljust(9, "0"))


def span_ns_typed(text: str) -> int:
    """Return the span of time that a text means, as "2h" or "1d 12h", in nanoseconds.

    Raises:
        ValueError: it means none.
    """
    parts = list(_SPAN_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text.rstrip():
        raise ValueError(f"{text!r} is no span of time")
    total = 0
    for whole, below, unit in (part.groups() for part in parts):
        if unit not in _UNIT_NS or len(whole) > 12:
            raise ValueError(f"{text!r} is no span of time")
        total += int(whole) * _UNIT_NS[unit]
        total += int((below or "0")[:9]) * _UNIT_NS[unit] // 10 ** len((below or "0")[:9])
    return total
