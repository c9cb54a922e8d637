"""Blocks: ranges of events, each with its time range and a digest chained to the block before.

They let a query by time skip what is too old, and let anybody check that events are what they were.
"""

import hashlib
import os
from typing import Any, NamedTuple

import apsw
from pydantic_core import to_json

from journal import limits
from journal.errors import DamagedError
from journal.file.extent import Extent, read_extent
from journal.file.identity import meta

GENESIS = "0" * 64
"""Stands for the digest of the block before the first."""

_SALT_BYTES = 16

_NAMED_SQL = """
FROM event AS e
    CROSS JOIN kind AS k ON k.code = e.kind
    CROSS JOIN session AS s ON s.id = e.session
    LEFT JOIN stream AS t ON t.id = e.stream
WHERE e.seq BETWEEN :first AND :last
"""

ROWS_SQL = f"""
SELECT e.seq AS position, k.name AS event_type,
    lower(hex(s.uuid)) AS session_id,
    CASE WHEN e.stream IS NOT NULL THEN lower(hex(t.uuid)) END AS stream_id,
    e.timestamp AS timestamp, e.data AS data
{_NAMED_SQL}
ORDER BY e.seq
"""

TEXT_SQL = f"""
SELECT json_group_array(json_array(position, event_type, session_id, stream_id, timestamp, data))
FROM ({ROWS_SQL})
"""
"""The JSON text of a block, which its digest is over; FORMAT.md specifies it."""

LOOK_SQL = f"""
SELECT json_group_array(json_array(e.seq, k.name, lower(hex(s.uuid)),
        CASE WHEN e.stream IS NOT NULL THEN lower(hex(t.uuid)) END, e.timestamp, e.data)),
    min(e.timestamp), max(e.timestamp), group_concat(e.kind)
{_NAMED_SQL}
"""
"""The same text, the smallest and the largest timestamp, and the codes of the kinds. Nothing asks
for an order of the events, which is that of the table: in another they have no such digest."""

BlockRow = tuple[int, str, str, str | None, int, str | None]
"""What the digest covers of an event: position, kind, session and stream in hexadecimal digits,
timestamp, data. A list of them as JSON is byte for byte what `TEXT_SQL` gives, in half the time."""

_WRITE_SQL = """
INSERT OR REPLACE INTO block
(first_seq, last_seq, min_timestamp, max_timestamp, salt, content_digest, digest, sealed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


class Block(NamedTuple):
    """A row of the table `block`."""

    first: int
    last: int
    salt: str | None
    content_digest: str
    digest: str
    sealed: int


def last_block(connection: apsw.Connection) -> Block | None:
    """Return the last block, which may be open; None where there is none."""
    row: Any = connection.execute(
        "SELECT first_seq, last_seq, salt, content_digest, digest, sealed"
        " FROM block ORDER BY first_seq DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    block = Block(*row)
    texts = block.content_digest, block.digest, "" if block.salt is None else block.salt
    is_range = isinstance(block.last, int) and 1 <= block.first <= block.last
    if not is_range or block.sealed not in (0, 1) or not all(isinstance(it, str) for it in texts):
        what = f"is damaged: the row of the block from position {block.first}"
        raise DamagedError(connection.filename, what, block.first)
    return block


def chained(before: str, content_digest: str) -> str:
    """Return the digest of a block, from that of the block before it and its content digest."""
    return hashlib.sha256(f"{before}{content_digest}".encode()).hexdigest()


class Content:
    """The digest of the content of a block, taken in as the events come."""

    def __init__(self, salt: str) -> None:
        self._hasher = hashlib.sha256(salt.encode())
        self._is_empty = True

    def add(self, rows: list[BlockRow]) -> None:
        """Take in the next events."""
        if rows:
            self._hasher.update(b"[" if self._is_empty else b",")
            # A BLOB must not pass for the text that has the same bytes.
            self._hasher.update(memoryview(to_json(rows, bytes_mode="base64"))[1:-1])
            self._is_empty = False

    def digest(self) -> str:
        """Return the digest of the events so far."""
        closed = self._hasher.copy()
        closed.update(b"[]" if self._is_empty else b"]")
        return closed.hexdigest()


def check_open_block(connection: apsw.Connection) -> None:
    """Hold an open block at the end against its events, before anybody adds to it.

    Raises:
        DamagedError: what it covers is not what it was.
    """
    block = last_block(connection)
    if block is not None and not block.sealed:
        _content_so_far(connection, block, block.last)


def _content_so_far(
    connection: apsw.Connection, block: Block, up_to: int
) -> tuple[Content, int, int]:
    """Return the content of an open block, and its smallest and largest timestamp.

    Raises:
        DamagedError: what its row covers is not what it was.
    """
    found: Any = connection.execute(ROWS_SQL, {"first": block.first, "last": up_to}).fetchall()
    rows: list[BlockRow] = found
    covered = block.last - block.first + 1
    content = Content(block.salt or "")
    before = digest_before(connection, block.first)
    try:
        content.add(rows[:covered])
        is_right = (
            len(rows) == up_to - block.first + 1
            and content.digest() == block.content_digest
            and chained(before, block.content_digest) == block.digest
        )
        content.add(rows[covered:])
    except ValueError:  # what is no text cannot be written as JSON
        is_right = False
    if not is_right:
        what = f"the events from position {block.first} to {block.last} are not what they were"
        raise DamagedError(connection.filename, f"is damaged: {what}", block.first)
    timestamps = [row[4] for row in rows]
    return content, min(timestamps), max(timestamps)


def digest_before(connection: apsw.Connection, first: int) -> str:
    """Return the digest at the position before `first`, at which a block begins.

    Raises:
        DamagedError: nothing says what it is.
    """
    if first == 1:
        return GENESIS
    row: Any = connection.execute(
        "SELECT last_seq, digest FROM block WHERE first_seq < ? ORDER BY first_seq DESC LIMIT 1",
        (first,),
    ).fetchone()
    if row is not None and row[0] == first - 1:
        digest: str = row[1]
        return digest
    absence = read_extent(connection).absence_at(first - 1)
    if absence is not None and absence.digest_after is not None:
        return absence.digest_after
    what = f"is damaged: no block ends before position {first}"
    raise DamagedError(connection.filename, what, first)


def digest_at(connection: apsw.Connection, extent: Extent, position: int) -> str | None:
    """Return the digest at a position: the one that its block would have if it ended there.

    Returns:
        None where what it is made of is absent or redacted, or was not recovered.

    Raises:
        DamagedError: no block has the position, or its events cannot be read.
    """
    if position == 0:
        return GENESIS
    try:
        return _digest_at(connection, extent, position)
    except DamagedError:
        if meta(connection, "closed") == "recover":  # its blocks were lost, and it says so
            return None
        raise


def _digest_at(connection: apsw.Connection, extent: Extent, position: int) -> str | None:
    row: Any = connection.execute(
        "SELECT first_seq, last_seq, salt, digest, sealed FROM block"
        " WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
        (position,),
    ).fetchone()
    first, last, salt, digest, sealed = row or (1, 0, None, "", 1)
    if last == position:
        return str(digest)
    absence = extent.absence_at(position)
    if absence is not None and position > last:
        return absence.digest_after if absence.last == position else None
    if sealed and position > last:
        what = f"is damaged: no block has the event at position {position}"
        raise DamagedError(connection.filename, what, position)
    count = position - first + 1
    if salt is None or extent.event_count(first - 1, position) < count:
        return None
    rows: Any = connection.execute(ROWS_SQL, {"first": first, "last": position}).fetchall()
    if len(rows) != count:
        what = f"is damaged: an event between positions {first} and {position} cannot be read"
        raise DamagedError(connection.filename, what, first)
    content = Content(salt)
    content.add(rows)
    return chained(digest_before(connection, first), content.digest())


class Tail:
    """The block at the end: where it begins, how large it is, and its digest as it grows.

    A block that this process began is hashed, when it is written, from the rows of its events,
    which are kept until then: a few at a time would take longer. One that somebody else began is
    read when it is sealed, and held against what its row says then.
    """

    def __init__(self, connection: apsw.Connection, extent: Extent) -> None:
        block = last_block(connection)
        self._content: Content | None = None
        self._rows: list[BlockRow] = []
        self._data_size = 0
        # One in which a text was redacted stays as it is.
        if block is not None and not block.sealed and block.salt is not None:
            self.first = block.first
            self._salt = block.salt
            self._has_row = True
            self._data_size = connection.execute(
                "SELECT ifnull(sum(length(data)), 0) FROM event WHERE seq >= ?", (self.first,)
            ).get
            return
        covered = max(block.last if block is not None else 0, extent.cut)
        if extent.event_count(covered, extent.last):
            what = f"is damaged: no block has the event at position {covered + 1}"
            raise DamagedError(connection.filename, what, covered + 1)
        self._begin(extent.last + 1, digest_before(connection, extent.last + 1))

    def _begin(self, first: int, before: str) -> None:
        self.first = first
        self._before = before
        self._salt = os.urandom(_SALT_BYTES).hex()
        self._has_row = False
        self._content = Content(self._salt)
        self._smallest_ns: int | None = None
        self._largest_ns: int | None = None

    def add(self, connection: apsw.Connection, rows: list[BlockRow], data_size: int) -> None:
        """Take in events that were just written, and seal the blocks that they fill.

        `data_size` is that of all of them together, in characters.
        """
        start = 0
        for end in self._ends(rows, data_size):
            self._rows += rows[start:end]
            last = rows[end - 1][0]
            digest = self._write(connection, last, sealed=True)
            self._begin(last + 1, digest)
            start = end
        if start < len(rows):
            if self._content is not None:  # else they are read when the block is sealed
                self._rows += rows[start:]
            if not self._has_row:
                self._write(connection, rows[-1][0], sealed=False)

    def write_open(self, connection: apsw.Connection, position: int) -> None:
        """Write the row of the open block, if there is one, so that it covers all its events."""
        if self._has_row and self.first <= position:
            self._write(connection, position, sealed=False)

    def seal(self, connection: apsw.Connection, position: int) -> None:
        """Seal the block at the end, if there is an event in it."""
        if self.first <= position:
            self._begin(position + 1, self._write(connection, position, sealed=True))
            self._data_size = 0

    def _hash(self, content: Content) -> None:
        """Hash the rows that were kept."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        content.add(rows)
        timestamps = [row[4] for row in rows]
        smallest, largest = min(timestamps), max(timestamps)
        if self._smallest_ns is None or smallest < self._smallest_ns:
            self._smallest_ns = smallest
        if self._largest_ns is None or largest > self._largest_ns:
            self._largest_ns = largest

    def _write(self, connection: apsw.Connection, last: int, *, sealed: bool) -> str:
        """Write the block's row, up to `last`, and return its digest."""
        if self._content is None:
            block = last_block(connection)
            if block is None or block.first != self.first:
                what = f"is damaged: the block from position {self.first} is missing"
                raise DamagedError(connection.filename, what, self.first)
            self._before = digest_before(connection, self.first)
            self._content, self._smallest_ns, self._largest_ns = _content_so_far(
                connection, block, last
            )
            self._rows = []  # they were among those just read
        else:
            self._hash(self._content)
        content_digest = self._content.digest()
        digest = chained(self._before, content_digest)
        times = self._smallest_ns, self._largest_ns
        connection.execute(
            _WRITE_SQL,
            (self.first, last, *times, self._salt, content_digest, digest, int(sealed)),
        )
        self._has_row = True
        return digest

    def _ends(self, rows: list[BlockRow], data_size: int) -> list[int]:
        """Return how many of the rows there are up to the end of each block that they fill."""
        events_max = limits.BLOCK_EVENTS_MAX
        if self._data_size + data_size < limits.BLOCK_DATA_MAX:
            to_first_end = -rows[0][0] % events_max + 1  # positions follow each other
            ends = list(range(to_first_end, len(rows) + 1, events_max))
            if ends:
                self._data_size = sum(len(row[5]) for row in rows[ends[-1] :] if row[5])
            else:
                self._data_size += data_size
            return ends
        ends = []
        size = self._data_size
        for count, (position, _, _, _, _, data) in enumerate(rows, start=1):
            size += len(data or "")
            if position % events_max == 0 or size >= limits.BLOCK_DATA_MAX:
                ends.append(count)
                size = 0
        self._data_size = size
        return ends
