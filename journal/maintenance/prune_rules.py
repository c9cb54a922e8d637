"""What is to be pruned: the one rule that says so, and the blocks that it gives away."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import apsw

from journal.events.timestamps import Timestamp
from journal.file.extent import Extent

_BLOCKS_SQL = "SELECT first_seq, last_seq, max_timestamp, sealed FROM block ORDER BY first_seq"

_NEWEST_SQL = "SELECT max(timestamp) FROM event WHERE seq BETWEEN ? AND ? AND timestamp <= ?"


class Rule(NamedTuple):
    """Which events may go; one of these is given."""

    before_position: int | None = None
    before_ns: int | None = None
    keep_events: int | None = None
    keep_bytes: int | None = None
    keep_age_ns: int | None = None


def rule_of(
    *,
    before: int | datetime | None = None,
    keep_events: int | None = None,
    keep_bytes: int | None = None,
    keep_age: timedelta | None = None,
    shipped: object = None,
    file: object = None,
) -> Rule:
    """Return the one rule that is given; where it is `shipped` or `file`, one that lets none go.

    Raises:
        ValueError: it is none, or more than one, or not what it should be.
    """
    given = {
        name: value
        for name, value in {
            "before": before,
            "keep_events": keep_events,
            "keep_bytes": keep_bytes,
            "keep_age": keep_age,
            "shipped": shipped,
            "file": file,
        }.items()
        if value is not None
    }
    if len(given) != 1:
        found = " and ".join(given) or "none"
        rules = "before, keep_events, keep_bytes, keep_age, shipped, file"
        message = f"expected one rule of {rules}, found {found}"
        raise ValueError(message)
    if isinstance(before, datetime):
        return Rule(before_ns=Timestamp.from_datetime(before).epoch_ns)
    return Rule(
        before_position=_checked("before", before),
        keep_events=_checked("keep_events", keep_events),
        keep_bytes=_checked("keep_bytes", keep_bytes),
        keep_age_ns=span_ns("keep_age", keep_age),
    )


def _checked(name: str, value: object) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        kind = "a position of 0 or more, or an aware datetime" if name == "before" else "0 or more"
        message = f"{name}: expected {kind}, found {value!r}"
        raise ValueError(message)
    return value if isinstance(value, int) else None


def span_ns(name: str, span: object) -> int | None:
    """Return a span of time in nanoseconds.

    Raises:
        ValueError: it is no span, or is negative.
    """
    if span is None:
        return None
    if not isinstance(span, timedelta) or span < timedelta(0):
        message = f"{name}: expected a timedelta of 0 or more, found {span!r}"
        raise ValueError(message)
    return span // timedelta(microseconds=1) * 1_000


def names_given_up(names: object) -> frozenset[str]:
    """Return the names of projections and subscriptions that need not have come so far.

    Raises:
        TypeError: it is one text, or has something else than texts.
    """
    if isinstance(names, str):
        message = f"give_up: expected several names, as in [{names!r}], found one text"
        raise TypeError(message)
    found = frozenset(names) if isinstance(names, Iterable) else None
    if found is None or not all(isinstance(name, str) for name in found):
        message = f"give_up: expected several names, found {names!r}"
        raise TypeError(message)
    return found


def ends_due(
    connection: apsw.Connection,
    extent: Extent,
    rule: Rule,
    now_ns: int,
    *,
    sealed_only: bool = False,
) -> Iterator[int]:
    """Yield the last positions of the blocks that may go, the first one first.

    The last one may be that of the block that is still open. `keep_bytes` lets all of them go: it
    is for the caller to stop when the file is small enough.

    Args:
        connection: what reads them, a few at a time.
        extent: where the events begin and end.
        rule: what gives them away.
        now_ns: the time, nanoseconds since 1970.
        sealed_only: without the block that is still open.
    """
    if extent.first > extent.last:
        return
    ages = _Ages(connection, extent, now_ns)
    last_to_go = _last_to_go(extent, rule)
    undecided: list[int] = []
    for first, last, newest_ns, is_sealed in connection.execute(_BLOCKS_SQL):
        if sealed_only and not is_sealed:
            return
        end = last if is_sealed else extent.last
        if last_to_go is not None:
            if end > last_to_go:
                return
            yield end
            continue
        age_ns = ages.after(first, end, newest_ns if is_sealed else None)
        if age_ns is None:
            undecided.append(end)
            continue
        if age_ns >= _threshold_ns(rule, now_ns):
            return
        yield from undecided
        undecided.clear()
        yield end


def _last_to_go(extent: Extent, rule: Rule) -> int | None:
    """Return the last position that may go; None where that depends on times."""
    if rule.before_position is not None:
        return rule.before_position - 1
    if rule.keep_bytes is not None:
        return extent.last
    if rule.keep_events is None:
        return None
    last = extent.last - rule.keep_events
    while last > extent.cut and extent.event_count(last, extent.last) < rule.keep_events:
        last -= rule.keep_events - extent.event_count(last, extent.last)  # over what was lost
    return last


def _threshold_ns(rule: Rule, now_ns: int) -> int:
    return rule.before_ns if rule.before_ns is not None else now_ns - (rule.keep_age_ns or 0)


class _Ages:
    """The running maximum of the timestamps that are not later than now.

    A clock that was wrong for a while neither makes events old nor keeps them young.
    """

    def __init__(self, connection: apsw.Connection, extent: Extent, now_ns: int) -> None:
        self._connection = connection
        self._now_ns = now_ns
        pruned = [
            absence.max_timestamp_ns for absence in extent.absences if absence.last <= extent.cut
        ]
        known = [each for each in pruned if each is not None and each <= now_ns]
        self._newest_ns = max(known, default=None)

    def after(self, first: int, last: int, newest_ns: int | None) -> int | None:
        """Return it up to the end of the next block; None while there is none.

        `newest_ns` is the largest timestamp in the block, if that is known.
        """
        if newest_ns is None or newest_ns > self._now_ns:
            found: Any = self._connection.execute(_NEWEST_SQL, (first, last, self._now_ns)).get
            newest_ns = found
        if newest_ns is not None and (self._newest_ns is None or newest_ns > self._newest_ns):
            self._newest_ns = newest_ns
        return self._newest_ns
