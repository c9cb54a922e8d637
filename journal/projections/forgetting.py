"""What nothing is left of at a cut, from temporary tables that were folded up to there.

A session is forgotten when it has ended, and neither an event of it nor one of a stream of its own
is left; a stream when it has ended and no event of it is left.
"""

from collections.abc import Iterator
from typing import Any, Final

import apsw

from journal.projections.bases import NOT_FOLDED
from journal.projections.lifecycle import ENDED_STATES, LIVE_STATES

_ENDED: Final = ", ".join(f"'{state}'" for state in sorted(ENDED_STATES))
_LIVE: Final = ", ".join(f"'{state}'" for state in sorted(LIVE_STATES))

_SESSIONS: Final = (
    "SELECT p.session FROM temp.projection_session AS p"
    " JOIN session AS s ON s.id = p.session"
    f" WHERE s.last_seq <= :up_to AND p.state IN ({_ENDED})"
    " AND p.session NOT IN (SELECT o.session FROM temp.projection_stream AS o"
    " JOIN stream AS t ON t.id = o.stream WHERE t.last_seq > :up_to)"
)
_STREAM: Final = (
    "t.last_seq <= :up_to"
    f" AND (p.state IS NULL OR p.state NOT IN ({_LIVE}) OR p.session IN ({_SESSIONS}))"
)


def forgotten_at(connection: apsw.Connection, up_to: int) -> dict[str, dict[str, int]]:
    """Return how many "sessions" and "streams" would be forgotten, by the states they ended in."""
    values = {"up_to": up_to}
    sessions: Any = connection.execute(
        "SELECT state, count(*) FROM temp.projection_session"
        f" WHERE session IN ({_SESSIONS}) GROUP BY 1",
        values,
    ).fetchall()
    streams: Any = connection.execute(
        f"SELECT ifnull(p.state, '{NOT_FOLDED}'), count(*) FROM stream AS t"
        f" LEFT JOIN temp.projection_stream AS p ON p.stream = t.id WHERE {_STREAM} GROUP BY 1",
        values,
    ).fetchall()
    return {"sessions": dict(sessions), "streams": dict(streams)}


def sessions_kept(connection: apsw.Connection, up_to: int) -> Iterator[tuple[int]]:
    """Yield the numbers of the sessions that are not forgotten."""
    sql = f"SELECT id FROM session WHERE id NOT IN ({_SESSIONS})"
    rows: Any = connection.execute(sql, {"up_to": up_to})
    return iter(rows)


def streams_kept(connection: apsw.Connection, up_to: int) -> Iterator[tuple[int, int | None]]:
    """Yield the streams that are not forgotten, and their sessions, None where no state says it."""
    rows: Any = connection.execute(
        "SELECT t.id, ifnull(p.session, b.session) FROM stream AS t"
        " LEFT JOIN temp.projection_stream AS p ON p.stream = t.id"
        f" LEFT JOIN base_stream AS b ON b.stream = t.id WHERE NOT ({_STREAM})",
        {"up_to": up_to},
    )
    return iter(rows)
