"""Instants with nanoseconds: a ``datetime`` subclass, its text form and its integer form.

The text form is the one that the Rust side reads and writes (serde with chrono). Written, it is
``2026-01-01T00:00:00.123456789Z`` with 0, 3, 6 or 9 fraction digits, the fewest that are exact.
Read, it is chrono's relaxed RFC 3339; `Timestamp.parse` has the rules.

The integer form is the number of nanoseconds since 1970-01-01T00:00:00Z. It is exact for the
years 0001 to 9999. What fits a signed 64-bit column is smaller: `MIN_EPOCH_NS` to `MAX_EPOCH_NS`.
"""

from __future__ import annotations

import datetime as dt
import re
from operator import index
from typing import TYPE_CHECKING, Any, Final, Literal, Self, SupportsIndex, TypeVar, overload

from pydantic_core import core_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

__all__ = [
    "MAX_EPOCH_NS",
    "MIN_EPOCH_NS",
    "Instant",
    "Timestamp",
    "canonical_text",
    "epoch_ns_from_text",
    "ns_of_utc",
    "state_of_second",
    "text_from_epoch_ns",
    "timestamp_of",
]

MIN_EPOCH_NS: Final = -(2**63)
"""The earliest instant an int64 of nanoseconds holds: 1677-09-21T00:12:43.145224192Z."""

MAX_EPOCH_NS: Final = 2**63 - 1
"""The latest instant an int64 of nanoseconds holds: 2262-04-11T23:47:16.854775807Z."""

_UTC: Final = dt.UTC
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=_UTC)
_EPOCH_DAY: Final = _EPOCH.toordinal()
_SECONDS_PER_DAY: Final = 86_400
_MINUTES_PER_DAY: Final = 1_440
_NS_PER_SECOND: Final = 1_000_000_000
_NS_DIGITS: Final = 9
_MAX_NANOSECOND: Final = 999

_KEEP: Final[Any] = object()

_T = TypeVar("_T", bound="Timestamp")
_K = TypeVar("_K")
_V = TypeVar("_V")


class Timestamp(dt.datetime):
    """A ``datetime`` that also carries the three digits below the microsecond.

    It takes the arguments of ``datetime`` and the keyword ``nanosecond``, 0 to 999; anything
    else there raises `ValueError`. Instances are immutable. Constructors that ``datetime`` has
    (``now``, ``fromtimestamp``, ``combine``, ``strptime``, ...) give ``nanosecond`` 0, except
    ``fromisoformat``, which keeps nine fraction digits.

    Comparison, hash, arithmetic, ``replace``, ``astimezone``, copies, pickles, ``isoformat``,
    ``str`` and ``repr`` count the nanoseconds. With ``nanosecond`` 0 it equals the plain
    ``datetime`` and has the same hash. All else is as in ``datetime``: a naive and an aware
    value are never equal and cannot be ordered, and two values that share one zone object are
    compared and subtracted by wall clock. ``strftime`` knows microseconds only.

    As the type of a pydantic field it accepts aware datetimes and RFC 3339 text, from JSON only
    the text, and always yields a `Timestamp` in UTC.
    """

    __slots__ = ("_epoch_ns", "_nanosecond")

    # One of the two is always filled. The other is when it is first asked for; the nanoseconds
    # since 1970 only where the zone is UTC itself and fold is 0.
    _nanosecond: int
    _epoch_ns: int

    def __new__(
        cls,
        year: SupportsIndex,
        month: SupportsIndex,
        day: SupportsIndex,
        hour: SupportsIndex = 0,
        minute: SupportsIndex = 0,
        second: SupportsIndex = 0,
        microsecond: SupportsIndex = 0,
        tzinfo: dt.tzinfo | None = None,
        *,
        fold: int = 0,
        nanosecond: SupportsIndex = 0,
    ) -> Self:
        """Check the ranges and make the value; see the class."""
        below = index(nanosecond)
        if not 0 <= below <= _MAX_NANOSECOND:
            raise ValueError(f"nanosecond is {below}, expected 0 to 999")
        self: Self = _new(
            cls, year, month, day, hour, minute, second, microsecond, tzinfo, fold=fold
        )
        self._nanosecond = below
        return self

    @classmethod
    def from_epoch_ns(cls, ns: int) -> Self:
        """Return the UTC instant that is ``ns`` nanoseconds after 1970-01-01T00:00:00Z.

        Raises `ValueError` for an instant outside the years 0001 to 9999.
        """
        state = state_of_second(ns // 1_000_000_000, ns)
        self: Self = _new(cls, (state + ns % 1_000_000_000 // 1_000).to_bytes(10), _UTC)
        self._epoch_ns = ns
        return self

    @classmethod
    def from_datetime(cls, moment: dt.datetime) -> Self:
        """Return the same instant in UTC; a value that is in UTC already is returned unchanged.

        The nanoseconds of a `Timestamp` are kept, and so are those of another ``datetime``
        subclass that has an attribute ``nanosecond`` (``pandas.Timestamp``). Where a clock is
        set back, ``fold`` decides which of the two instants is meant.

        Raises `ValueError` for a datetime without a UTC offset, and for an instant that is
        outside the years 0001 to 9999 in UTC.
        """
        if isinstance(moment, cls) and moment.tzinfo is _UTC and not moment.fold:
            return moment
        if not isinstance(moment, dt.datetime):
            raise TypeError(f"expected an aware datetime, not {type(moment).__name__}")
        ns = _epoch_ns_of(moment)
        if not _FIRST_NS <= ns <= _LAST_NS:
            raise ValueError(f"{moment} is outside the years 0001 to 9999 in UTC")
        return cls.from_epoch_ns(ns)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the instant that ``text`` names, in UTC.

        The grammar is that of chrono 0.4.23, ``impl FromStr for DateTime<FixedOffset>``:

        - year, "-", month, "-", day, "T" or one space, hour, ":", minute, ":", second, perhaps
          "." and a fraction, then the offset; none of these may be missing but the fraction;
        - a year has one to four digits and no century is guessed, or a sign and any number of
          digits; the other fields have one or two; digits are ASCII, of a fraction the first
          nine count;
        - the offset is "Z", "z", "UTC" in any case, or a sign with hours and minutes of two
          digits each, with any colons and whitespace or nothing between, up to 23:59;
        - whitespace (Unicode's White_Space) may precede every field, the separators and the
          offset, and may follow the offset; none may stand right after the day, nor next to
          the point.

        Raises `ValueError` for all else, and, unlike chrono, for a leap second (second 60)
        and for an instant that is outside the years 0001 to 9999 in UTC.
        """
        return cls.from_epoch_ns(epoch_ns_from_text(text))

    @classmethod
    def fromisoformat(cls, date_string: str, /) -> Self:
        """Read ISO 8601 text as ``datetime.fromisoformat`` does, keeping nine fraction digits."""
        self = super().fromisoformat(date_string)
        clock = date_string
        if self.tzinfo is not None:
            clock = clock[: max(map(clock.rfind, "+-Z"))]
        # datetime has accepted the text, so a run this long is a fraction and nothing else.
        below = re.search(r"[.,][0-9]{6}([0-9]{1,3})[0-9]*\Z", clock)
        if below is not None:
            self._nanosecond = int(below[1].ljust(3, "0"))
        return self

    @property
    def nanosecond(self) -> int:
        """The three digits below the microsecond, 0 to 999."""
        return self._nanosecond

    @property
    def epoch_ns(self) -> int:
        """The nanoseconds since 1970-01-01T00:00:00Z, exact, negative before 1970.

        Raises `ValueError` if the value has no UTC offset.
        """
        return self._epoch_ns

    def __getattr__(self, name: str) -> int:
        """Fill a slot that is empty."""
        if name == "_nanosecond":
            self._nanosecond = self._epoch_ns % 1_000
            return self._nanosecond
        if name != "_epoch_ns":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        ns = _epoch_ns_of(self)
        if self.tzinfo is _UTC and not self.fold:
            self._epoch_ns = ns
        return ns

    def rfc3339(self, offset: Literal["Z", "+00:00"] = "Z") -> str:
        """Return the instant as RFC 3339 text in UTC, ending in ``offset``.

        The fraction has 0, 3, 6 or 9 digits, the fewest that are exact (``AutoSi`` in chrono).

        Raises `ValueError` if the value has no UTC offset, if it is outside the years 0001 to
        9999 in UTC, and for another ``offset``.
        """
        text = text_from_epoch_ns(self.epoch_ns)
        if offset == "Z":
            return text
        if offset == "+00:00":
            return text[:-1] + offset
        raise ValueError(f"offset is {offset!r}, expected 'Z' or '+00:00'")

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """Format as ``datetime.isoformat`` does, with nine fraction digits where they are needed.

        ``timespec`` may also be "nanoseconds": always nine. The shorter ones cut digits.
        """
        if timespec == "nanoseconds" or (timespec == "auto" and self._nanosecond):
            text = super().isoformat(sep, "microseconds")
            after_microsecond = len("YYYY-MM-DDTHH:MM:SS.ffffff")
            below = f"{self._nanosecond:03d}"
            return text[:after_microsecond] + below + text[after_microsecond:]
        return super().isoformat(sep, timespec)

    def __str__(self) -> str:
        """Return ``isoformat`` with a space between date and time."""
        return self.isoformat(" ")

    def __repr__(self) -> str:
        """Return the call that makes this value."""
        text = super().__repr__()
        if self._nanosecond:
            return f"{text[:-1]}, nanosecond={self._nanosecond})"
        return text

    def __hash__(self) -> int:
        """Hash as the plain ``datetime`` does where the nanosecond is 0."""
        if self._nanosecond:
            return hash((super().__hash__(), self._nanosecond))
        return super().__hash__()

    def __eq__(self, other: object, /) -> bool:
        """Compare as ``datetime`` does, down to the nanosecond."""
        if isinstance(other, dt.datetime) and self._nanosecond != _nanosecond_of(other):
            return False
        return _eq(self, other)

    def __ne__(self, other: object, /) -> bool:
        """Compare as ``datetime`` does, down to the nanosecond."""
        if isinstance(other, dt.datetime) and self._nanosecond != _nanosecond_of(other):
            return True
        return _ne(self, other)

    # In the four below the nanoseconds decide a tie of the microseconds, so they only decide
    # whether the microseconds may be equal. The rest, with its errors, is left to datetime.

    def __lt__(self, other: dt.datetime, /) -> bool:  # type: ignore[override]
        """Compare as ``datetime`` does, down to the nanosecond."""
        if isinstance(other, dt.datetime) and self._nanosecond < _nanosecond_of(other):
            return _le(self, other)
        return _lt(self, other)

    def __le__(self, other: dt.datetime, /) -> bool:  # type: ignore[override]
        """Compare as ``datetime`` does, down to the nanosecond."""
        if isinstance(other, dt.datetime) and self._nanosecond > _nanosecond_of(other):
            return _lt(self, other)
        return _le(self, other)

    def __gt__(self, other: dt.datetime, /) -> bool:  # type: ignore[override]
        """Compare as ``datetime`` does, down to the nanosecond."""
        if isinstance(other, dt.datetime) and self._nanosecond > _nanosecond_of(other):
            return _ge(self, other)
        return _gt(self, other)

    def __ge__(self, other: dt.datetime, /) -> bool:  # type: ignore[override]
        """Compare as ``datetime`` does, down to the nanosecond."""
        if isinstance(other, dt.datetime) and self._nanosecond < _nanosecond_of(other):
            return _gt(self, other)
        return _ge(self, other)

    def __add__(self, other: dt.timedelta, /) -> Self:
        """Return the value moved by a ``timedelta``, with the same nanosecond."""
        moved = super().__add__(other)
        if isinstance(moved, Timestamp):  # and not NotImplemented: it was made just now
            moved._nanosecond = self._nanosecond
        return moved

    __radd__ = __add__

    @overload  # type: ignore[override]
    def __sub__(self, other: dt.datetime, /) -> dt.timedelta: ...

    @overload
    def __sub__(self, other: dt.timedelta, /) -> Self: ...

    def __sub__(self, other: dt.datetime | dt.timedelta, /) -> dt.timedelta | Self:
        """Move the value back by a ``timedelta``, or return the difference of two values.

        A difference is a ``timedelta``, which holds whole microseconds: it is the exact
        difference rounded toward negative infinity.
        """
        if isinstance(other, dt.datetime):
            return _floor_difference(self, other)
        moved = super().__sub__(other)
        if isinstance(moved, Timestamp):  # and not NotImplemented: it was made just now
            moved._nanosecond = self._nanosecond
        return moved

    def __rsub__(self, other: dt.datetime, /) -> dt.timedelta:
        """Return ``other - self``, rounded toward negative infinity to whole microseconds."""
        if isinstance(other, dt.datetime):
            return _floor_difference(other, self)
        return NotImplemented

    def replace(
        self,
        year: SupportsIndex = _KEEP,
        month: SupportsIndex = _KEEP,
        day: SupportsIndex = _KEEP,
        hour: SupportsIndex = _KEEP,
        minute: SupportsIndex = _KEEP,
        second: SupportsIndex = _KEEP,
        microsecond: SupportsIndex = _KEEP,
        tzinfo: dt.tzinfo | None = _KEEP,
        *,
        fold: int = _KEEP,
        nanosecond: SupportsIndex = _KEEP,
    ) -> Self:
        """Return the value with the given fields changed.

        ``microsecond`` without ``nanosecond`` replaces the whole fraction: the nanosecond
        becomes 0. Any other change keeps it.
        """
        if nanosecond is _KEEP:
            nanosecond = self._nanosecond if microsecond is _KEEP else 0
        return type(self)(
            self.year if year is _KEEP else year,
            self.month if month is _KEEP else month,
            self.day if day is _KEEP else day,
            self.hour if hour is _KEEP else hour,
            self.minute if minute is _KEEP else minute,
            self.second if second is _KEEP else second,
            self.microsecond if microsecond is _KEEP else microsecond,
            self.tzinfo if tzinfo is _KEEP else tzinfo,
            fold=self.fold if fold is _KEEP else fold,
            nanosecond=nanosecond,
        )

    # copy.replace of Python 3.13 asks for this name.
    __replace__ = replace

    def astimezone(self, tz: dt.tzinfo | None = None) -> Self:
        """Return the same instant in another zone, with the same nanosecond."""
        moved = super().astimezone(tz)
        # A zone may make a plain datetime, or one that it keeps.
        if isinstance(moved, type(self)) and moved._nanosecond == self._nanosecond:
            return moved
        return _restore(type(self), *_fields_of(moved), self._nanosecond)

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> tuple[Any, ...]:
        """Give pickle and copy all fields with the nanosecond, whatever the protocol."""
        return _restore, (type(self), *_fields_of(self), self._nanosecond)

    def __reduce__(self) -> tuple[Any, ...]:
        """Give pickle and copy all fields with the nanosecond."""
        return self.__reduce_ex__(2)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Tell pydantic how to validate and write a field of this type."""
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_plain_validator_function(cls._from_json_value),
            python_schema=core_schema.no_info_plain_validator_function(cls._from_python_value),
            serialization=core_schema.plain_serializer_function_ser_schema(
                _json_text, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the field to JSON Schema."""
        return {"type": "string", "format": "date-time"}

    @classmethod
    def _from_python_value(cls, value: object) -> Self:
        if isinstance(value, cls) and value.tzinfo is _UTC and not value.fold:
            return value
        if isinstance(value, dt.datetime):
            return cls.from_datetime(value)
        if isinstance(value, str):
            return cls.from_epoch_ns(epoch_ns_from_text(value))
        raise ValueError(f"expected an aware datetime or RFC 3339 text, not {type(value).__name__}")

    @classmethod
    def _from_json_value(cls, value: object) -> Self:
        if isinstance(value, str):
            return cls.from_epoch_ns(epoch_ns_from_text(value))
        raise ValueError(f"expected RFC 3339 text, not {type(value).__name__}")


if TYPE_CHECKING:

    class Instant:
        """The type of a field that takes any aware datetime, and gives back a `Timestamp`.

        A type checker takes what `__set__` does for the parameter of the model's constructor.
        """

        def __get__(self, model: object, owner: object) -> Timestamp: ...
        def __set__(self, model: object, moment: dt.datetime) -> None: ...

else:
    Instant = Timestamp

ns_of_utc: Final[Callable[[Any], int]] = Timestamp.__dict__["_epoch_ns"].__get__
"""Return the nanoseconds of a `Timestamp` that is known to be in UTC, without a call into Python.

Raises AttributeError for a `Timestamp` of which that is not known yet, TypeError for anything else.
"""

# The constructor also takes datetime's own ten-byte state, the one inside every pickled datetime,
# which is faster than eight integers. It is typed for integers only.
_new: Final[Any] = dt.datetime.__new__

_subtract: Final[Callable[[dt.datetime, dt.datetime], dt.timedelta]] = dt.datetime.__sub__

_eq: Final = dt.datetime.__eq__
_ne: Final = dt.datetime.__ne__
_lt: Final = dt.datetime.__lt__
_le: Final = dt.datetime.__le__
_gt: Final = dt.datetime.__gt__
_ge: Final = dt.datetime.__ge__


def _restore(cls: type[_T], *fields: Any) -> _T:
    """Make a value from its fields in order; pickles name this function."""
    *plain, fold, nanosecond = fields
    return cls(*plain, fold=fold, nanosecond=nanosecond)


def _fields_of(moment: dt.datetime) -> tuple[Any, ...]:
    """Return what `_restore` takes, but for the class and the nanosecond."""
    date = (moment.year, moment.month, moment.day)
    clock = (moment.hour, moment.minute, moment.second, moment.microsecond)
    return (*date, *clock, moment.tzinfo, moment.fold)


def _nanosecond_of(moment: dt.datetime) -> int:
    if isinstance(moment, Timestamp):
        return moment._nanosecond
    if type(moment) is dt.datetime:
        return 0
    below: int = getattr(moment, "nanosecond", 0)
    return below


def _epoch_ns_of(moment: dt.datetime) -> int:
    """Return the exact epoch nanoseconds; ValueError if ``moment`` has no UTC offset."""
    # Between two zones this subtraction goes by UTC and heeds fold. In the zone of _EPOCH it goes
    # by wall clock, which there is UTC.
    try:
        since = _subtract(moment, _EPOCH)
    except TypeError as error:
        raise ValueError(f"{moment} has no UTC offset, expected an aware datetime") from error
    microseconds = (since.days * _SECONDS_PER_DAY + since.seconds) * 1_000_000 + since.microseconds
    return microseconds * 1_000 + _nanosecond_of(moment)


_FIRST_NS: Final = _epoch_ns_of(dt.datetime.min.replace(tzinfo=_UTC))
_LAST_NS: Final = _epoch_ns_of(dt.datetime.max.replace(tzinfo=_UTC)) + _MAX_NANOSECOND


def _floor_difference(later: dt.datetime, earlier: dt.datetime) -> dt.timedelta:
    difference = _subtract(later, earlier)
    if _nanosecond_of(later) < _nanosecond_of(earlier):
        difference -= dt.timedelta.resolution
    return difference


def _json_text(value: dt.datetime) -> str:
    return Timestamp.from_datetime(value).rfc3339()


# Integer to value and to text, and text to integer and to value. Minutes are remembered: a day has
# 1,440, so instants all over a week are found again. Of texts the seconds are remembered, too, each
# made of its minute. A dict is enough for threads: a lookup or a store is atomic, and an entry that
# another thread has just cleared away is only computed again.

_CACHE_LIMIT: Final = 4_096

_STATE_OF_MINUTE: Final[dict[int, int]] = {}
_TEXT_OF_MINUTE: Final[dict[int, str]] = {}

_TWO_DIGITS: Final = tuple(f"{number:02d}" for number in range(60))
_THREE_DIGITS: Final = tuple(f"{number:03d}" for number in range(1_000))


def text_from_epoch_ns(ns: int) -> str:
    """Return RFC 3339 text in UTC, ending in 'Z', for nanoseconds since 1970-01-01T00:00:00Z.

    The fraction has 0, 3, 6 or 9 digits, the fewest that are exact. Raises `ValueError` outside
    the years 0001 to 9999.
    """
    minute = ns // 60_000_000_000
    try:
        head = _TEXT_OF_MINUTE[minute]
    except KeyError:
        head = _learn_text(minute, ns)
    second = _TWO_DIGITS[ns // 1_000_000_000 % 60]
    nano = ns % 1_000
    micro = ns // 1_000 % 1_000
    milli = ns // 1_000_000 % 1_000
    if nano:
        return f"{head}{second}.{_THREE_DIGITS[milli]}{_THREE_DIGITS[micro]}{_THREE_DIGITS[nano]}Z"
    if micro:
        return f"{head}{second}.{_THREE_DIGITS[milli]}{_THREE_DIGITS[micro]}Z"
    if milli:
        return f"{head}{second}.{_THREE_DIGITS[milli]}Z"
    return f"{head}{second}Z"


def _learn_text(minute: int, ns: int) -> str:
    day, clock = divmod(minute, _MINUTES_PER_DAY)
    text = f"{_date_of(day, ns).isoformat()}T{clock // 60:02d}:{clock % 60:02d}:"
    _remember(_TEXT_OF_MINUTE, minute, text)
    return text


def state_of_second(second: int, ns: int) -> int:
    """Return datetime's ten-byte state, as a big-endian integer, so many seconds after 1970.

    The microsecond is its last three bytes, so it can simply be added. Raises `ValueError`, which
    names ``ns``, outside the years 0001 to 9999.
    """
    minute = second // 60
    state = _STATE_OF_MINUTE.get(minute)
    if state is None:
        state = _learn_state(minute, ns)
    return state + (second % 60 << 24)


def _learn_state(minute: int, ns: int) -> int:
    day, clock = divmod(minute, _MINUTES_PER_DAY)
    date = _date_of(day, ns)
    state = (date.year << 16 | date.month << 8 | date.day) << 48
    state |= (clock // 60 << 8 | clock % 60) << 32
    _remember(_STATE_OF_MINUTE, minute, state)
    return state


def _date_of(day: int, ns: int) -> dt.date:
    """Return the date ``day`` days after 1970-01-01; ``ns`` is what the error names."""
    try:
        return dt.date.fromordinal(day + _EPOCH_DAY)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{ns} nanoseconds since 1970 are outside the years 0001 to 9999"
        ) from None


def _remember(cache: dict[_K, _V], key: _K, value: _V) -> None:
    if len(cache) >= _CACHE_LIMIT:
        cache.clear()
    cache[key] = value


# Text to integer. The fast path looks up the second, and takes the int() of the fraction once it is
# known to be ASCII digits: int() alone would also take "1_2", "+12" and " 12".

_Known = tuple[int, int]
"""The nanoseconds since 1970, and what `state_of_second` returns."""

_SECONDS: Final[dict[str, _Known]] = {}  # by "2026-01-01T00:00:00." and "2026-01-01T00:00:00Z"
_MINUTES: Final[dict[str, _Known]] = {}  # by "2026-01-01T00:00:"

_MINUTES_OF_DAY: Final = {
    f"{hour:02d}:{minute:02d}:": hour * 60 + minute for hour in range(24) for minute in range(60)
}
_SECONDS_OF_MINUTE: Final = {
    f"{text}{mark}": second for second, text in enumerate(_TWO_DIGITS) for mark in ".Z"
}
# By the length of the whole text, with one to nine fraction digits and the 'Z'.
_NS_OF_LAST_DIGIT: Final[dict[int, int]] = {
    21 + count: int(10 ** (_NS_DIGITS - count)) for count in range(1, 10)
}


def epoch_ns_from_text(text: str) -> int:
    """Return ``Timestamp.parse(text).epoch_ns``, fast for text as `text_from_epoch_ns` writes it.

    Raises `ValueError` as `Timestamp.parse` does.
    """
    try:
        digits = text[20:-1]
        if digits.isdigit() and text.isascii() and text[-1] == "Z":
            return _SECONDS[text[:20]][0] + int(digits) * _NS_OF_LAST_DIGIT[len(text)]
        return _SECONDS[text][0]
    except (AttributeError, KeyError, TypeError):
        return _epoch_ns_not_known(text)


def _epoch_ns_not_known(text: str) -> int:
    if not isinstance(text, str):
        raise TypeError(f"expected RFC 3339 text, not {type(text).__name__}")
    if text[:20] not in _SECONDS and _learn_second(text[:20]):
        return epoch_ns_from_text(text)
    return _epoch_ns_exactly(text)


def _learn_second(head: str) -> bool:
    """Remember the second of "YYYY-MM-DDTHH:MM:SS." or "...Z"; False if it is not exactly that."""
    minute = _MINUTES.get(head[:17]) or _learned_minute(head[:17])
    second = _SECONDS_OF_MINUTE.get(head[17:])
    if minute is None or second is None:
        return False
    ns, state = minute
    _remember(_SECONDS, head, (ns + second * _NS_PER_SECOND, state + (second << 24)))
    return True


def _learned_minute(head: str) -> _Known | None:
    """Remember the minute of "YYYY-MM-DDTHH:MM:"; None if it is not exactly that."""
    try:
        minute_of_day = _MINUTES_OF_DAY[head[11:]]
        date = dt.date.fromisoformat(head[:10])
    except (KeyError, ValueError):
        return None
    if f"{date.isoformat()}T" != head[:11]:  # fromisoformat also reads dates that are not canonical
        return None
    minute = (date.toordinal() - _EPOCH_DAY) * _MINUTES_PER_DAY + minute_of_day
    ns = minute * 60 * _NS_PER_SECOND
    known = ns, state_of_second(minute * 60, ns)
    _remember(_MINUTES, head, known)
    return known


def canonical_text(text: str) -> str:
    """Return ``text_from_epoch_ns(epoch_ns_from_text(text))``, which mostly is the text itself.

    Raises `ValueError` as `Timestamp.parse` does.
    """
    digits = text[20:29]
    if (
        text[:20] in _SECONDS
        and text[29:] == "Z"
        and digits.isdigit()
        and text.isascii()
        and digits[6:] != "000"
    ):
        return text
    return text_from_epoch_ns(epoch_ns_from_text(text))


def timestamp_of(text: str) -> Timestamp:
    """Return ``Timestamp.parse(text)``, fast for the nine fraction digits of a known second."""
    second = _SECONDS.get(text[:20])
    digits = text[20:29]
    if second is None or text[29:] != "Z" or not digits.isdigit() or not digits.isascii():
        return Timestamp.from_epoch_ns(epoch_ns_from_text(text))
    second_ns, state = second
    below_ns = int(digits)
    timestamp: Timestamp = _new(Timestamp, (state + below_ns // 1_000).to_bytes(10), _UTC)
    timestamp._epoch_ns = second_ns + below_ns
    return timestamp


# Rust's char::is_whitespace. That of Python's str.strip and re differs: it has \x1c to \x1f.
_WHITE: Final = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

_OFFSET: Final = (
    r"(?P<offset>[Zz]|[Uu][Tt][Cc]|(?P<sign>[+-])(?P<hours>[0-9]{2})"
    f"[:{_WHITE}]*+"
    r"(?P<minutes>[0-9]{2}))?"
)

# Whitespace may stand between these parts. chrono never steps back, hence the possessive
# repeats, which also keep the time linear in the length of the text.
_GRAMMAR: Final = re.compile(
    f"[{_WHITE}]*+".join(
        (
            "",
            r"(?P<year>[+-][0-9]++|[0-9]{1,4}+)",
            "-",
            r"(?P<month>[0-9]{1,2}+)",
            "-",
            r"(?P<day>[0-9]{1,2}+)[T ]",
            r"(?P<hour>[0-9]{1,2}+)",
            ":",
            r"(?P<minute>[0-9]{1,2}+)",
            ":",
            r"(?P<second>[0-9]{1,2}+)(?:\.(?P<fraction>[0-9]{1,9}+)[0-9]*+)?",
            _OFFSET,
            "",
        )
    )
)

_LEAP_SECOND: Final = 60
_FAR_YEAR: Final = 99_999


def _epoch_ns_exactly(text: str) -> int:
    """Return the epoch nanoseconds by the full grammar, without a cache."""
    found = _GRAMMAR.fullmatch(text)
    if found is None:
        raise _not_a_timestamp(text, "is not RFC 3339 text like 2026-01-01T00:00:00.123456789Z")
    if found["offset"] is None:
        raise _not_a_timestamp(text, "has no UTC offset, expected one at the end: Z or +hh:mm")
    seconds = _day_number(found, text) * _SECONDS_PER_DAY
    seconds += _second_of_day(found, text) - _offset_seconds(found, text)
    ns = seconds * _NS_PER_SECOND + int((found["fraction"] or "0").ljust(_NS_DIGITS, "0"))
    if not _FIRST_NS <= ns <= _LAST_NS:
        raise _outside_years(text)
    return ns


def _day_number(found: re.Match[str], text: str) -> int:
    """Return the days since 1970-01-01, in the proleptic Gregorian calendar."""
    year = _year_number(found["year"], text)
    # An offset may carry the days around datetime's range into it; 400 years are one cycle.
    cycles = {0: 1, dt.MAXYEAR + 1: -1}.get(year, 0)
    try:
        date = dt.date(year + 400 * cycles, int(found["month"]), int(found["day"]))
    except ValueError:
        raise _not_a_timestamp(
            text, "has no such date, expected month 1 to 12 and a day of that month"
        ) from None
    days_per_cycle = 146_097
    return date.toordinal() - _EPOCH_DAY - cycles * days_per_cycle


def _year_number(digits: str, text: str) -> int:
    significant = digits.lstrip("+-").lstrip("0") or "0"
    # int() refuses very long digits in words of its own.
    year = int(significant) if len(significant) <= len(str(_FAR_YEAR)) else _FAR_YEAR
    if year > dt.MAXYEAR + 1 or (year and digits[0] == "-"):
        raise _outside_years(text)
    return year


def _second_of_day(found: re.Match[str], text: str) -> int:
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
    if second == _LEAP_SECOND:
        raise _not_a_timestamp(text, "is a leap second (second 60), expected second 0 to 59")
    try:
        dt.time(hour, minute, second)
    except ValueError:
        raise _not_a_timestamp(
            text, "has no such time of day, expected 00:00:00 to 23:59:59"
        ) from None
    return (hour * 60 + minute) * 60 + second


def _offset_seconds(found: re.Match[str], text: str) -> int:
    if found["sign"] is None:
        return 0
    hours, minutes = int(found["hours"]), int(found["minutes"])
    try:
        dt.time(hours, minutes)
    except ValueError:
        raise _not_a_timestamp(text, "has no such UTC offset, expected -23:59 to +23:59") from None
    seconds = (hours * 60 + minutes) * 60
    return -seconds if found["sign"] == "-" else seconds


def _outside_years(text: str) -> ValueError:
    return _not_a_timestamp(text, "is outside the years 0001 to 9999 in UTC")


def _not_a_timestamp(text: str, problem: str) -> ValueError:
    longest = 60
    shown = text if len(text) <= longest else text[: longest - 3] + "..."
    return ValueError(f"{shown!r} {problem}")
