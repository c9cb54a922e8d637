"""Moments and durations as people read them. All figures are nanoseconds."""

from datetime import UTC, datetime, timedelta

_US = 1_000
_MS = 1_000 * _US
_S = 1_000 * _MS
_MIN = 60 * _S
_H = 60 * _MIN
_D = 24 * _H

_UNITS = ((_H, "h"), (_MIN, "min"), (_S, "s"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment_text(moment_ns: int, now_ns: int) -> str:
    """Return how far a moment is from now, "3 min ago" or "in 2 h"; from a day on, its date in UTC.

    That is "2026-01-31 12:00", whose first ten characters may stand alone.
    """
    far = abs(now_ns - moment_ns)
    if far < _S:
        return "just now"
    if far >= _D:
        return (_EPOCH + timedelta(seconds=moment_ns // _S)).isoformat(" ", "minutes")[:16]
    text = next(f"{far // unit} {name}" for unit, name in _UNITS if far >= unit)
    return f"{text} ago" if moment_ns <= now_ns else f"in {text}"


def duration_text(span: int) -> str:
    """Return how long something took: "850 ns", "3.2 s", "2 h 13 min"."""
    if span < 0:
        return f"-{duration_text(-span)}"
    for unit, name in ((1, "ns"), (_US, "us"), (_MS, "ms"), (_S, "s")):
        if span < 1_000 * unit and span < _MIN:
            return (
                f"{span // unit} {name}"
                if span >= 10 * unit or unit == 1
                else (f"{span // (unit // 10) / 10} {name}")
            )
    for unit, name, smaller, smaller_name in (
        (_D, "d", _H, "h"),
        (_H, "h", _MIN, "min"),
        (_MIN, "min", _S, "s"),
    ):
        if span >= unit:
            rest = span % unit // smaller
            return f"{span // unit} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{span // _S} s"


class Clock:
    """Tells how long after a first moment something was, all moments in one form.

    Args:
        first_ns: the moment that is zero.
        span: the longest time to be told, which decides how exact the form is.
    """

    def __init__(self, first_ns: int, span: int) -> None:
        self._first_ns = first_ns
        self._span = span

    def text(self, moment_ns: int) -> str:
        """Return "+0.000123" (seconds), "+04:41.642", or "+1:04:41" after an hour's span."""
        since = moment_ns - self._first_ns
        sign, since = ("-", -since) if since < 0 else ("+", since)
        seconds, ns = divmod(since, _S)
        if self._span < _S:
            return f"{sign}{seconds}.{ns // _US:06}"
        minutes, seconds = divmod(seconds, 60)
        if self._span < _H:
            return f"{sign}{minutes:02}:{seconds:02}.{ns // _MS:03}"
        hours, minutes = divmod(minutes, 60)
        if self._span < 2 * _D:
            return f"{sign}{hours}:{minutes:02}:{seconds:02}"
        return f"{sign}{hours // 24}d {hours % 24:02}:{minutes:02}:{seconds:02}"
