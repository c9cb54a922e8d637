"""Blocks: ranges of events, each with its time range and a digest chained to the block before.

They let a query by time skip what is too old, and let anybody check that events are what they were.
"""

import hashlib

import apsw
from pydantic_core import to_json

EVENTS_MAX = 1_000
"""A block is sealed at every position that this divides."""

DATA_MAX = 1024 * 1024
"""Or at the event that brings its data to this many characters."""

GENESIS = "0" * 64
"""Stands for the digest of the block before the first."""

TEXT_SQL = """
SELECT json_group_array(json_array(position, event_type, session_id, stream_id, timestamp, data))
FROM (
    SELECT e.seq AS position, k.name AS event_type,
        lower(hex(s.uuid)) AS session_id,
        CASE WHEN e.stream IS NOT NULL THEN lower(hex(t.uuid)) END AS stream_id,
        e.timestamp AS timestamp, e.data AS data
    FROM event AS e
        CROSS JOIN kind AS k ON k.code = e.kind
        CROSS JOIN session AS s ON s.id = e.session
        LEFT JOIN stream AS t ON t.id = e.stream
    WHERE e.seq BETWEEN :first AND :last
    ORDER BY e.seq
)
"""
"""The text of a block, which its digest is over; FORMAT.md specifies it."""


BlockRow = tuple[int, str, str, str | None, int, str | None]
"""What the digest covers of an event: position, kind, session and stream in hexadecimal digits,
timestamp, data. A list of them as JSON is byte for byte what `TEXT_SQL` gives, in half the time."""


def digest(connection: apsw.Connection, first: int, last: int, before: str) -> str:
    """Return the digest of the events from `first` to `last`, both inclusive.

    Args:
        connection: to a journal.
        first: position of the first event.
        last: position of the last event.
        before: the digest of the block before, `GENESIS` where there is none.
    """
    text: str = connection.execute(TEXT_SQL, {"first": first, "last": last}).get
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()


def write(
    connection: apsw.Connection, first: int, last: int, *, sealed: bool, known: str | None = None
) -> None:
    """Write the row of the block from `first` to `last`, in place of an open one.

    `known` is its digest, where that is at hand; otherwise the events are read.
    """
    found = known or digest(connection, first, last, digest_before(connection, first))
    connection.execute(
        "INSERT OR REPLACE INTO block"
        " (first_seq, last_seq, min_timestamp, max_timestamp, digest, sealed)"
        " SELECT ?1, ?2, min(timestamp), max(timestamp), ?3, ?4"
        " FROM event WHERE seq BETWEEN ?1 AND ?2",
        (first, last, found, sealed),
    )


def digest_before(connection: apsw.Connection, first: int) -> str:
    """Return the digest of the block before the one that begins at `first`."""
    before: str | None = connection.execute(
        "SELECT digest FROM block WHERE first_seq < ? ORDER BY first_seq DESC LIMIT 1", (first,)
    ).get
    return before or GENESIS


class Tail:
    """The events after the last sealed block: where they begin, how large they are, their hash."""

    def __init__(self, connection: apsw.Connection, position: int) -> None:
        sealed = connection.execute(
            "SELECT last_seq FROM block WHERE sealed ORDER BY first_seq DESC LIMIT 1"
        ).get
        self.first = (sealed or 0) + 1
        self._data_size: int = connection.execute(
            "SELECT ifnull(sum(length(data)), 0) FROM event WHERE seq >= ?", (self.first,)
        ).get
        # None where the block was begun by somebody else: it is read when it is sealed.
        self._hasher = None
        if position < self.first:
            self._hasher = hashlib.sha256(digest_before(connection, self.first).encode())
        self._is_empty = True

    def add(self, connection: apsw.Connection, rows: list[BlockRow], data_size: int) -> None:
        """Take in events that were just written, and seal the blocks that they fill.

        `data_size` is that of all of them together, in characters.
        """
        start = 0
        for end in self._ends(rows, data_size):
            last = rows[end - 1][0]
            self._hash(rows[start:end])
            known = None
            if self._hasher is not None:
                self._hasher.update(b"]")
                known = self._hasher.hexdigest()
            write(connection, self.first, last, sealed=True, known=known)
            self.first, start = last + 1, end
            self._hasher = hashlib.sha256(digest_before(connection, self.first).encode())
            self._is_empty = True
        self._hash(rows[start:])

    def _hash(self, rows: list[BlockRow]) -> None:
        if self._hasher is not None and rows:
            self._hasher.update(b"[" if self._is_empty else b",")
            self._hasher.update(memoryview(to_json(rows))[1:-1])
            self._is_empty = False

    def _ends(self, rows: list[BlockRow], data_size: int) -> list[int]:
        """Return how many of the rows there are up to the end of each block that they fill."""
        if self._data_size + data_size < DATA_MAX:
            to_first_end = -rows[0][0] % EVENTS_MAX + 1  # positions follow each other
            ends = list(range(to_first_end, len(rows) + 1, EVENTS_MAX))
            if ends:
                self._data_size = sum(len(row[5]) for row in rows[ends[-1] :] if row[5])
            else:
                self._data_size += data_size
            return ends
        ends = []
        size = self._data_size
        for count, (position, _, _, _, _, data) in enumerate(rows, start=1):
            size += len(data or "")
            if position % EVENTS_MAX == 0 or size >= DATA_MAX:
                ends.append(count)
                size = 0
        self._data_size = size
        return ends
