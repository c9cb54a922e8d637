"""Where the events of a file begin and end, and which positions between are absent.

Positions have no gaps but those that the table `absent` declares. Whatever counts, reads or folds
goes by this; a gap that is not declared is damage.
"""

import hashlib
from typing import Any, NamedTuple

import apsw

from journal import limits
from journal.errors import DamagedError

_ENDS_SQL = """
SELECT (SELECT min(seq) FROM event), (SELECT max(seq) FROM event),
    (SELECT last_seq FROM block ORDER BY first_seq DESC LIMIT 1)
"""

ABSENT_SQL = """
SELECT first_seq, last_seq, reason, max_timestamp, digest_after, check_digest,
    json_array(first_seq, last_seq, reason, counts, min_timestamp, max_timestamp,
        digest_before, digest_after, forgotten, declared_at)
FROM absent ORDER BY first_seq
"""
"""The last column is what `check_digest` is over; FORMAT.md specifies it."""


class Absence(NamedTuple):
    """A range of positions, both ends inclusive, at which there is no event any more."""

    first: int
    last: int
    reason: str
    max_timestamp_ns: int | None
    digest_after: str | None


class Extent(NamedTuple):
    """Which positions of a file have an event."""

    first: int
    """The position of the first event, or the one that the next event gets."""
    last: int
    """The largest position that was ever given; 0 where there never was an event."""
    absences: tuple[Absence, ...]

    def event_count(self, after: int, up_to: int) -> int:
        """Return how many events there are from `after` (exclusive) to `up_to` (inclusive)."""
        count = max(0, up_to - after)
        for absence in self.absences:
            count -= max(0, min(up_to, absence.last) - max(after, absence.first - 1))
        return count

    def absence_at(self, position: int) -> Absence | None:
        """Return the range that a position lies in, None where there is an event."""
        for absence in self.absences:
            if absence.first <= position <= absence.last:
                return absence
        return None

    @property
    def cut(self) -> int:
        """The last position of what is missing at the beginning; 0 where nothing is."""
        return self.first - 1 if self.absences else 0


def read_extent(connection: apsw.Connection) -> Extent:
    """Return the extent of a file.

    It takes the same few look-ups however many events or blocks there are.

    Raises:
        DamagedError: the events, the blocks and `absent` contradict each other.
    """
    absences = _absences(connection)
    ends: Any = connection.execute(_ENDS_SQL).fetchone()
    if not all(end is None or isinstance(end, int) for end in ends):
        raise DamagedError(connection.filename, f"the ends of the journal are damaged: {ends}")
    lowest, highest, covered = ends
    first = 1
    for absence in absences:
        if absence.first == first:
            first = absence.last + 1
    last = max(highest or 0, absences[-1].last if absences else 0)
    if (first if lowest is None else lowest) != first or (lowest is None and last >= first):
        missing = first if lowest is None else min(first, lowest)
        raise DamagedError(connection.filename, _gap_text(missing, first, lowest), missing)
    if covered is not None and covered > last:
        what = f"the last event is at position {last}, and a block ends at {covered}"
        raise DamagedError(connection.filename, f"is damaged: {what}", last + 1)
    return Extent(first, last, absences)


def last_position(connection: apsw.Connection) -> int:
    """Return the largest position that was ever given, 0 where there never was an event.

    Raises:
        DamagedError: as `read_extent`.
    """
    return read_extent(connection).last


def _gap_text(missing: int, first: int, lowest: int | None) -> str:
    if lowest is not None and lowest < first:
        return f"is damaged: there is an event at position {missing}, which it says is absent"
    return f"is damaged: the event at position {missing} is missing"


def _absences(connection: apsw.Connection) -> tuple[Absence, ...]:
    found: list[Absence] = []
    end = 0
    for *columns, check_digest, text in connection.execute(ABSENT_SQL):
        row = Absence(*columns)
        is_range = isinstance(row.last, int) and end < row.first <= row.last
        if not is_range or hashlib.sha256(text.encode()).hexdigest() != check_digest:
            what = f"is damaged: its row about absent events from position {row.first}"
            raise DamagedError(connection.filename, what, row.first)
        found.append(row)
        end = row.last
    return tuple(found)


def end_of_page(connection: apsw.Connection, extent: Extent, after: int, up_to: int) -> int:
    """Return the last position of what is good to hold in memory at once.

    That is what is left of a block, which ends before its data gets too large, or as many events
    after the last block; and no further than to where events are absent.
    """
    end = min(up_to, after + limits.PAGE_EVENTS_MAX)
    for absence in extent.absences:
        if after < absence.first <= end:
            end = absence.first - 1
    last: Any = connection.execute(
        "SELECT last_seq FROM block WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
        (after + 1,),
    ).get
    return last if isinstance(last, int) and after < last < end else end


def end_of_fold(connection: apsw.Connection, after: int, up_to: int) -> int:
    """Return the last position of what is good to fold at once, `up_to` at most.

    That is no more than the first block that its data has ended, before it had as many events as
    any other.
    """
    last: Any = connection.execute(
        "SELECT last_seq FROM block WHERE first_seq > ? AND last_seq > ? AND first_seq <= ?"
        " AND last_seq % ? <> 0 AND sealed ORDER BY first_seq LIMIT 1",
        (after - limits.BLOCK_EVENTS_MAX, after, up_to, limits.BLOCK_EVENTS_MAX),
    ).get
    return last if isinstance(last, int) and after < last < up_to else up_to


def missing_event(
    connection: apsw.Connection, extent: Extent, after: int, up_to: int
) -> DamagedError:
    """Return what is to be said of a range that has other events than it should."""
    sql = "SELECT seq FROM event WHERE seq > ? AND seq <= ?"
    here = {row[0] for row in connection.execute(sql, (after, up_to))}
    for position in range(after + 1, up_to + 1):
        if (position in here) is (extent.absence_at(position) is not None):
            what = "is missing" if position not in here else "is declared absent, and is there"
            what = f"is damaged: the event at position {position} {what}"
            return DamagedError(connection.filename, what, position)
    return DamagedError(connection.filename, f"is damaged after position {after}", after + 1)
