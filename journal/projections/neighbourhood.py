"""The neighbourhood of a session: the events that make its state, and those of its streams.

Those are its own events, and those of its streams that name other sessions.
"""

from collections import Counter
from typing import Any, NamedTuple

import apsw

from journal import limits
from journal.events.ids import SessionId, StreamId
from journal.file.decoding import StoredEvent
from journal.file.extent import Extent, missing_event
from journal.file.names import uuids
from journal.file.reading import Reader
from journal.file.selecting import COLUMNS, events_before

# One pass over the events, and a temporary b-tree of SQLite's for the streams. Those that had
# events before a cut may have none of the session after it.
_SHARED_SQL = """
SELECT json_group_array(id) FROM (
    SELECT stream.id AS id
    FROM (SELECT stream AS id, count(*) AS own FROM event
        WHERE session = ?1 AND stream IS NOT NULL GROUP BY stream) AS counted
    CROSS JOIN stream ON stream.id = counted.id
    WHERE stream.event_count > counted.own
    UNION SELECT stream FROM base_stream WHERE session = ?1 AND state IS NOT NULL
)
"""

_COUNT_SQL = "SELECT count(*) FROM event WHERE seq > ? AND seq <= ?"

_ROWS_SQL = f"""
SELECT {COLUMNS} FROM event
WHERE seq > ? AND seq <= ?
    AND (session = ? OR stream IN (SELECT value FROM json_each(?)))
ORDER BY seq
"""


class Neighbourhood(NamedTuple):
    """Which events it consists of."""

    session: int
    """The session's key."""
    shared: str
    """The keys of its streams that have events of other sessions, too, as a JSON array."""


def neighbourhood(connection: apsw.Connection, session: int) -> Neighbourhood:
    """Return the neighbourhood of a session; one pass over the events."""
    return Neighbourhood(session, connection.execute(_SHARED_SQL, (session,)).get)


def rows_of(
    connection: apsw.Connection, extent: Extent, near: Neighbourhood, after: int, up_to: int
) -> list[StoredEvent]:
    """Return those rows of a range of positions, first exclusive, that are of a neighbourhood.

    Raises:
        DamagedError: an event is missing in the range that is not declared absent.
    """
    here = connection.execute(_COUNT_SQL, (after, up_to)).get
    if here != extent.event_count(after, up_to):
        raise missing_event(connection, extent, after, up_to)
    rows: list[Any] = connection.execute(_ROWS_SQL, (after, up_to, *near)).fetchall()
    return rows


def all_rows(
    connection: apsw.Connection, reader: Reader, session_id: SessionId
) -> list[StoredEvent] | None:
    """Return the rows of a neighbourhood, found along the chains; None: too much to hold."""
    room, data_room = limits.FOLD_EVENTS_MAX, limits.FOLD_DATA_MAX
    room -= reader.version_in(connection, session_id)
    if room < 0:
        return None
    rows = reader.chain_rows(connection, "session", session_id, data_room)
    if rows is None:
        return None
    data_room -= sum(len(row[5] or "") for row in rows)
    found = {row[0]: row for row in rows}
    own = Counter(row[3] for row in rows if row[3] is not None)
    own.update(dict.fromkeys(_streams_before(connection, session_id), 0))
    for key, uuid in uuids(connection, "stream", own):
        count = connection.execute("SELECT event_count FROM stream WHERE id = ?", (key,)).get
        count -= events_before(connection, "stream", key)
        if key in own and count > own[key]:
            room -= count
            if room < 0:
                return None
            rows = reader.chain_rows(connection, "stream", StreamId.from_bytes(uuid), data_room)
            if rows is None:
                return None
            data_room -= sum(len(row[5] or "") for row in rows)
            found.update((row[0], row) for row in rows)
    return [found[position] for position in sorted(found)]


def _streams_before(connection: apsw.Connection, session_id: SessionId) -> list[int]:
    """Return the streams of a session that go on after the cut."""
    rows: Any = connection.execute(
        "SELECT b.stream FROM base_stream AS b JOIN session AS s ON s.id = b.session"
        " WHERE s.uuid = ? AND b.state IS NOT NULL",
        (session_id.bytes,),
    ).fetchall()
    return [key for (key,) in rows]
