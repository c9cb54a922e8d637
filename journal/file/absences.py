"""Declaring that the events at the beginning of a file are pruned, and deleting them.

Only what the table `absent` declares can be deleted, so that no event is gone that it does not know
of.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import apsw

from journal.events.timestamps import Timestamp
from journal.file.blocks import GENESIS
from journal.file.extent import Extent
from journal.file.names import kinds_of

Forgotten = Mapping[str, Mapping[str, int]]
"""How many "sessions" and "streams" nothing is left of, by the states that they ended in."""


class Figures(NamedTuple):
    """Figures of the events of one kind in a range."""

    kind: int
    event_count: int
    min_timestamp_ns: int
    max_timestamp_ns: int
    last_session: int
    """The largest number of a session."""
    last_stream: int | None


def figures_of(connection: apsw.Connection, first: int, last: int) -> list[Figures]:
    """Return figures of the events in a range, both ends inclusive."""
    rows: Any = connection.execute(
        "SELECT kind, count(*), min(timestamp), max(timestamp), max(session), max(stream)"
        " FROM event WHERE seq BETWEEN ? AND ? GROUP BY kind",
        (first, last),
    )
    return [Figures(*row) for row in rows]


_BEFORE_SQL = """
SELECT first_seq, counts, min_timestamp, max_timestamp, digest_before, forgotten
FROM absent WHERE last_seq = ? AND reason = 'pruned'
"""

_WRITE_SQL = """
INSERT OR REPLACE INTO absent (first_seq, last_seq, reason, counts, min_timestamp, max_timestamp,
    digest_before, digest_after, forgotten, declared_at, check_digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class _Row(NamedTuple):
    """What a row of `absent` says of what was pruned before a position."""

    first: int
    counts: str | None
    min_timestamp_ns: int | None
    max_timestamp_ns: int | None
    digest_before: str | None
    forgotten: str | None


def prune_events(
    connection: apsw.Connection,
    extent: Extent,
    up_to: int,
    forgotten: Forgotten,
    now_ns: int,
) -> dict[str, int]:
    """Declare the events from the cut to the end of a block pruned, and delete them and the blocks.

    Args:
        connection: in a transaction.
        extent: where the events begin and end.
        up_to: the last position that is pruned; a sealed block ends there.
        forgotten: what nothing is left of once they are gone.
        now_ns: the time, nanoseconds since 1970.

    Returns:
        how many events there were of each kind.
    """
    total: Counter[str] = Counter()
    ranges = list(_ranges(extent, up_to))
    for number, (first, last) in enumerate(ranges, 1):
        is_last = number == len(ranges)
        total.update(_declare(connection, first, last, forgotten if is_last else {}, now_ns))
    connection.execute("DELETE FROM event WHERE seq > ? AND seq <= ?", (extent.cut, up_to))
    connection.execute("DELETE FROM block WHERE first_seq <= ?", (up_to,))
    return dict(total)


def _ranges(extent: Extent, up_to: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges, both ends inclusive, in which there are events."""
    first = extent.first
    for absence in extent.absences:
        if first <= absence.first <= up_to:
            if first < absence.first:
                yield first, absence.first - 1
            first = absence.last + 1
    if first <= up_to:
        yield first, up_to


def _declare(
    connection: apsw.Connection, first: int, last: int, forgotten: Forgotten, now_ns: int
) -> dict[str, int]:
    """Write that a range is pruned, in one row with what was pruned just before it."""
    found: Any = connection.execute(_BEFORE_SQL, (first - 1,)).fetchone()
    before = _Row(first, "{}", None, None, _digest_at(connection, first - 1), None)
    if found is not None:
        before = _Row(*found)
    kinds = kinds_of(connection)
    figures = figures_of(connection, first, last)
    counts: Counter[str] = Counter()
    for each in figures:
        counts[kinds[each.kind].name] += each.event_count
    times = [time for each in figures for time in (each.min_timestamp_ns, each.max_timestamp_ns)]
    times += [one for one in before[2:4] if one is not None]
    columns = (
        before.first,
        last,
        "pruned",
        None if before.counts is None else added_counts(before.counts, counts),
        min(times),
        max(times),
        before.digest_before,
        _digest_at(connection, last),
        _with(before.forgotten, forgotten),
        Timestamp.from_epoch_ns(now_ns).rfc3339(),
    )
    marks = ", ".join("?" * len(columns))
    text: Any = connection.execute(f"SELECT json_array({marks})", columns).get
    connection.execute(_WRITE_SQL, (*columns, hashlib.sha256(text.encode()).hexdigest()))
    return dict(counts)


def _digest_at(connection: apsw.Connection, position: int) -> str | None:
    """Return the digest at a position, where a row has it."""
    if position == 0:
        return GENESIS
    digest: Any = connection.execute(
        "SELECT digest FROM block WHERE last_seq = ?1 AND first_seq <= ?1"
        " ORDER BY first_seq DESC LIMIT 1",
        (position,),
    ).get
    if digest is None:
        sql = "SELECT digest_after FROM absent WHERE last_seq = ?"
        digest = connection.execute(sql, (position,)).get
    return digest if isinstance(digest, str) else None


def added_counts(text: str, counts: Mapping[str, int]) -> str:
    """Return a JSON object of figures with others added."""
    total = Counter(json.loads(text))
    total.update(counts)
    return json.dumps(dict(sorted(total.items())), separators=(",", ":"), ensure_ascii=False)


def _with(text: str | None, forgotten: Forgotten) -> str | None:
    """Return the JSON of what was forgotten, with what is forgotten now."""
    known = {} if text is None else json.loads(text)
    for name, states in forgotten.items():
        if states:
            known[name] = json.loads(added_counts(json.dumps(known.get(name, {})), states))
    return json.dumps(known, separators=(",", ":")) if known else None
