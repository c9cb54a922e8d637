"""Provenance: which journals the events of a file were appended to, and what is missing of each."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final
from uuid import UUID

import apsw
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from journal.file.extent import read_extent
from journal.maintenance.histories import (
    BEFORE_DELTA,
    ELSEWHERE,
    OTHER_BRANCH,
    History,
    Interval,
    histories_of,
    joined,
    minus,
    own_id,
)

_SHARED_SQL: Final = """
WITH ranges AS (
    SELECT first_seq, last_seq, journal_id FROM origin
    UNION ALL SELECT lag(last_seq, 1, 0) OVER (ORDER BY first_seq) + 1, first_seq - 1, :own
        FROM origin
    UNION ALL SELECT max(last_seq) + 1, 9223372036854775807, :own FROM origin
)
SELECT s.uuid, json_group_array(p.journal_id) FROM (
    SELECT DISTINCT e.session AS session, r.journal_id AS journal_id
    FROM ranges AS r CROSS JOIN event AS e ON e.seq BETWEEN r.first_seq AND r.last_seq
    WHERE r.first_seq <= r.last_seq AND {looked_at}
) AS p JOIN session AS s ON s.id = p.session
GROUP BY p.session HAVING count(*) > 1 ORDER BY p.session
"""

_EVENTS_PER_LOOK: Final = 10_000
"""As many take some milliseconds."""


class MergedOrigin(BaseModel):
    """What a file has of one journal, or of one branch of its history.

    All positions are those in that journal.
    """

    model_config = ConfigDict(frozen=True)

    journal_id: UUID
    branch: str
    """"" for the history that came first; another one has the digest of its first event."""
    label: str | None
    event_count: int
    """How many events of it are in the file."""
    first_position: int | None
    """That of the first event that is in the file; None: none is left."""
    last_position: int | None
    """That of the last one that ever was."""
    absent: tuple[tuple[int, int], ...]
    """Ranges that are not waited for: they are gone by what sources say, or were pruned here, or
    lie before the events of a delta, if the file is one."""
    waiting: tuple[tuple[int, int], ...]
    """Ranges that are missing, and that no source has declared absent."""
    parted_after: int | None
    """The position up to which a branch has the history of another one; None: it is none."""


class SharedSession(BaseModel):
    """A session with events that were appended to several journals."""

    model_config = ConfigDict(frozen=True)

    session_id: UUID
    journal_ids: tuple[UUID, ...]


class Provenance(BaseModel):
    """Which journals the events of a file come from; the file's own is the last, if it has any."""

    model_config = ConfigDict(frozen=True)

    origins: tuple[MergedOrigin, ...]
    shared_sessions: tuple[SharedSession, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is waited for, and no journal has two histories."""
        return is_complete(self.origins)


def is_complete(origins: Iterable[MergedOrigin]) -> bool:
    """Tell whether nothing is waited for, and no journal has two histories."""
    return not any(origin.branch or origin.waiting for origin in origins)


def read_provenance(
    connection: apsw.Connection, progress: Callable[[int, int], None] | None = None
) -> Provenance:
    """Return which journals the events of a file come from, and which sessions are of several.

    `progress` is called with how many events were looked at for it, and how many there are.

    Raises:
        DamagedError: the file contradicts itself.
    """
    own = {"own": own_id(connection)}
    with _looking(connection, progress) as looked_at:
        rows: Any = connection.execute(_SHARED_SQL.format(looked_at=looked_at), own).fetchall()
    shared = tuple(
        SharedSession(
            session_id=UUID(bytes=uuid),
            journal_ids=tuple(map(UUID, sorted(from_json(journal_ids)))),
        )
        for uuid, journal_ids in rows
    )
    return Provenance(origins=merged_origins(connection), shared_sessions=shared)


@contextmanager
def _looking(
    connection: apsw.Connection, progress: Callable[[int, int], None] | None
) -> Iterator[str]:
    """Lend a condition that is true of every event `e`, and calls `progress` now and then."""
    if progress is None:
        yield "TRUE"
        return
    extent = read_extent(connection)
    total, done = extent.event_count(0, extent.last), count(_EVENTS_PER_LOOK, _EVENTS_PER_LOOK)

    def look(*_position: Any) -> bool:
        progress(min(next(done), total), total)
        return True

    connection.create_scalar_function("journal_looked_at", look, 1)
    try:
        yield f"(e.seq % {_EVENTS_PER_LOOK} <> 0 OR journal_looked_at(e.seq))"
    finally:
        connection.create_scalar_function("journal_looked_at", None, 1)


def merged_origins(connection: apsw.Connection) -> tuple[MergedOrigin, ...]:
    """Return which journals, and branches of them, the events of a file come from.

    Raises:
        DamagedError: the file contradicts itself.
    """
    return tuple(filter(None, map(_origin, histories_of(connection))))


def _origin(history: History) -> MergedOrigin | None:
    known, held = history.known(), history.held()
    if not known and history.is_own:
        return None
    last = history.last
    declared = [
        Interval(gap.first, gap.last)
        for gap in history.declared()
        if gap.reason not in (BEFORE_DELTA, ELSEWHERE, OTHER_BRANCH)
    ]
    elsewhere = [
        Interval(gap.first, gap.last)
        for gap in history.gaps
        if gap.reason in (ELSEWHERE, OTHER_BRANCH)
    ]
    waiting = minus([Interval(1, last)], sorted((*known, *declared, *elsewhere)))
    return MergedOrigin(
        journal_id=UUID(history.key[0]),
        branch=history.key[1],
        label=history.label(),
        event_count=sum(last - first + 1 for first, last in held),
        first_position=held[0].first if held else None,
        last_position=known[-1].last if known else None,
        absent=tuple(minus(joined(iter(sorted((*known, *declared)))), held)),
        waiting=tuple(waiting),
        parted_after=history.begins_after if history.key[1] else None,
    )
