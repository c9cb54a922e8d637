"""Every event against its block, and the blocks against each other.

This is the one pass over the events that proves what they are. It goes by positions, block by
block, so that its memory does not grow with the file, and goes on after whatever it finds.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import apsw

from journal import limits
from journal.errors import DamagedError
from journal.file import forking
from journal.file.blocks import GENESIS, LOOK_SQL, Content, chained
from journal.file.decoding import Page, decode_rows
from journal.file.extent import Extent
from journal.file.identity import meta
from journal.file.names import KnownNames, uuids
from journal.file.origins import copied_up_to
from journal.maintenance.findings import Findings
from journal.maintenance.histories import Block

Progress = Callable[[int, int], None]
"""Is told how many events are done, and of how many."""

_BLOCKS_SQL = """
SELECT first_seq, last_seq, min_timestamp, max_timestamp, salt, content_digest, digest,
    redacted_digest, sealed
FROM block WHERE first_seq > ? ORDER BY first_seq LIMIT 1
"""

_ROWS_SQL = """
SELECT seq, kind, session, stream, timestamp, data FROM event
WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?
"""

_DIGITS: Final = frozenset("0123456789abcdef")
_SMALLEST: Final = -(2**63)


class Proof(NamedTuple):
    """What the blocks say of the events of a file.

    Each event is proven, redacted or uncovered, or it is not what it was and there are findings.
    """

    checked_after: int
    """The position after which the events were looked at: 0, the cut, or where the last blocks
    begin."""
    covered_up_to: int
    """The last position that a block has; 0 where there is none."""
    event_count: int
    """How many events were looked at."""
    proven_count: int
    """Those that are what they were when they were appended, by the digest of their block."""
    redacted_count: int
    """Those in blocks in which a text was redacted: they are what the redaction made of them, which
    only its manifest binds."""
    uncovered_count: int
    """Those that no block covers yet, or whose block has lost some of its events."""
    counts_by_code: Mapping[int, int]
    """How many events there are of each kind, by its code."""
    smallest_ns: int | None
    """The smallest timestamp, nanoseconds since 1970; None: there is no event."""
    largest_ns: int | None


class _Seen(NamedTuple):
    """What was found at some positions."""

    event_count: int
    is_complete: bool = False
    """Whether there is an event at each of them, and what it names is there."""
    digest: str = ""
    smallest_ns: int = 0
    largest_ns: int = 0


def check_blocks(
    connection: apsw.Connection,
    extent: Extent,
    found: Findings,
    *,
    after: int | None = None,
    up_to: int | None = None,
    progress: Progress | None = None,
) -> Proof:
    """Hold every event against its block, and every block against the one before it.

    Run it in a transaction, so that it sees one moment of the file; it enters
    `forking.inside_sqlite` by itself, for a block at a time.

    Args:
        connection: which has the file open.
        extent: which positions it has.
        found: takes what is wrong.
        after: look only at what follows this position, at which a block ends; None: at everything.
        up_to: look only at what comes up to this position, at which a block ends.
        progress: is called after each block.

    Raises:
        JournalError: what is no damage, as the disk being full.
    """
    return _Pass(connection, extent, found).run(after, up_to, progress)


class _Pass:
    def __init__(self, connection: apsw.Connection, extent: Extent, found: Findings) -> None:
        self._connection = connection
        self._extent = extent
        self._found = found
        self._redacted_up_to = 0
        self._unproven_up_to = 0
        self._kinds: dict[int, str] = {}
        self._count = self._proven = self._redacted = self._uncovered = 0
        self._counts: Counter[int] = Counter()
        self._smallest_ns: int | None = None
        self._largest_ns: int | None = None

    def run(self, after: int | None, up_to: int | None, progress: Progress | None) -> Proof:
        extent, found = self._extent, self._found
        with found.noted("kind", "kind"):
            rows: Any = self._connection.execute("SELECT code, name FROM kind")
            self._kinds = {code: name for code, name in rows if isinstance(name, str)}
        with found.noted("meta", "meta"):
            closed_by = meta(self._connection, "closed")
            copied = copied_up_to(self._connection)
            self._redacted_up_to = copied if closed_by is None else extent.last
            self._unproven_up_to = extent.last if closed_by == "recover" else copied
        begins = extent.cut if after is None else max(after, extent.cut)
        position = 0 if after is None else begins
        if after is None:
            self._check_before_the_first()
        before = self._digest_at(position)
        block: Block | None = None
        covered = 0
        while True:
            following = self._next_block(position if block is None else block.first)
            if following is None:
                break
            if block is not None and block.sealed != 1:
                text = f"the block from position {block.first} is open, and another one follows it"
                found.add("block-open", "block", block.first, text)
            if up_to is not None and following.first > up_to:
                break
            if following.first <= position:
                text = f"the block from position {following.first} overlaps the one before it"
                found.add("block-range", "block", following.first, text)
            elif following.first > position + 1:
                before = self._check_gap(position, following.first - 1)
            block = following
            self._check_block(block, before)
            before, position = block.digest, max(position, block.last)
            covered = block.last
            if progress is not None:
                progress(self._count, max(self._count, extent.event_count(begins, extent.last)))
        if following is None:
            self._check_end(block, position)
        counted = self._count, self._proven, self._redacted, self._uncovered
        return Proof(begins, covered, *counted, self._counts, self._smallest_ns, self._largest_ns)

    def _check_before_the_first(self) -> None:
        with self._found.noted("unreadable", "event"):
            first: Any = self._connection.execute("SELECT min(seq) FROM event").get
            if first is not None and first < 1:
                text = f"there is an event at position {first}: the first one ever is 1"
                self._found.add("event-position", "event", first, text)

    def _digest_at(self, position: int) -> str | None:
        """Return the digest at a position where a block or a range that is absent ends."""
        if position == 0:
            return GENESIS
        sql = (
            "SELECT digest FROM block WHERE last_seq = ?1 AND first_seq <= ?1"
            " ORDER BY first_seq DESC LIMIT 1"
        )
        with self._found.noted("block", "block", position):
            digest: Any = self._connection.execute(sql, (position,)).get
            if isinstance(digest, str):
                return digest
        absence = self._extent.absence_at(position)
        return absence.digest_after if absence is not None and absence.last == position else None

    def _next_block(self, after: int) -> Block | None:
        """Return the next block whose row can be understood."""
        found = self._found
        while True:
            row: Any = None
            with found.noted("block", "block", after + 1):
                row = self._connection.execute(_BLOCKS_SQL, (after,)).fetchone()
            if row is None:
                return None
            block = Block(*row)
            if block.first <= after:  # the table's own order is broken
                return None
            if _is_understood(block):
                return block
            text = f"the row of the block from position {block.first} is damaged"
            found.add("block", "block", block.first, text)
            after = block.first

    def _check_gap(self, after: int, up_to: int) -> str | None:
        """Look at what lies between two blocks; return the digest at its end, if it is known."""
        extent = self._extent
        count = extent.event_count(after, up_to)
        if count and up_to > self._unproven_up_to:
            text = f"no block covers the events from position {after + 1} to {up_to}"
            self._found.add("block-missing", "block", after + 1, text)
        self._take_uncovered(after, up_to)
        absence = extent.absence_at(up_to)
        return None if absence is None or absence.last != up_to else absence.digest_after

    def _check_block(self, block: Block, before: str | None) -> None:
        first, last = block.first, block.last
        found = self._found
        if before is not None and chained(before, block.content_digest) != block.digest:
            text = f"the block from position {first} to {last} does not follow what is before it: "
            text += "a block was removed, changed together with its events, or put there"
            found.add("block-chain", "block", first, text)
        is_redacted = block.redacted_digest is not None
        salt = "" if is_redacted else block.salt or ""
        expected = block.redacted_digest if is_redacted else block.content_digest
        seen = self._look_at_once(first, last, salt, expected) or self._look(first - 1, last, salt)
        self._count += seen.event_count
        if not seen.is_complete:
            self._uncovered += seen.event_count
            return
        may_be_redacted = last <= self._redacted_up_to
        if is_redacted is not (block.salt is None) or (is_redacted and not may_be_redacted):
            text = f"the block from position {first} to {last} says that a text in it was redacted"
            found.add("block-redacted", "block", first, f"{text}, in a file that no one redacted")
            return
        if seen.digest != expected:
            text = f"the events from position {first} to {last} are not what they were"
            found.add("block-content", "event", first, text)
            return
        if is_redacted:
            self._redacted += seen.event_count
        else:
            self._proven += seen.event_count
        if (seen.smallest_ns, seen.largest_ns) != (block.smallest_ns, block.largest_ns):
            text = f"the block from position {first} to {last} names other times than its events"
            found.add("block-times", "block", first, text, "derived")

    def _check_end(self, block: Block | None, position: int) -> None:
        """Look at what follows the last block, and whether that may still be open."""
        found, last = self._found, self._extent.last
        count = self._extent.event_count(position, last)
        if count and (block is None or block.sealed) and last > self._unproven_up_to:
            text = f"no block covers the events from position {position + 1} to {last}"
            found.add("block-missing", "block", position + 1, text)
        elif block is not None and not block.sealed:
            size = limits.BLOCK_EVENTS_MAX
            if (block.first - 1) // size != _last_event(self._extent) // size:
                text = f"the block from position {block.first} is open, and should be sealed"
                found.add("block-open", "block", block.first, text)
        self._take_uncovered(position, last)

    def _take_uncovered(self, after: int, up_to: int) -> None:
        """Look at events that no block covers: whether they can be read at all."""
        count = self._look(after, up_to, "", is_covered=False).event_count
        self._count += count
        self._uncovered += count

    def _look_at_once(self, first: int, last: int, salt: str, expected: str | None) -> _Seen | None:
        """Look at the events of a block in one statement; they mean what they did, or it is None.

        What is wrong then is found event by event. As Python makes no row of it, this takes less
        time, and other threads can run meanwhile.
        """
        count = last - first + 1
        if count > limits.BLOCK_EVENTS_MAX or self._extent.event_count(first - 1, last) < count:
            return None
        try:
            with forking.inside_sqlite():
                row: Any = self._connection.execute(
                    LOOK_SQL, {"first": first, "last": last}
                ).fetchone()
            text, smallest_ns, largest_ns, codes = row
            counts = {int(code): n for code, n in Counter((codes or "").split(",")).items()}
        except apsw.InterruptError:
            raise
        except (apsw.Error, ValueError):
            return None
        hasher = hashlib.sha256(salt.encode())
        hasher.update(text.encode())
        # Its digest may have been written anew, over fewer events than it says.
        if hasher.hexdigest() != expected or sum(counts.values()) != count:
            return None
        self._counts.update(counts)
        self._take_times([smallest_ns, largest_ns])
        return _Seen(count, True, hasher.hexdigest(), smallest_ns, largest_ns)

    def _look(self, after: int, up_to: int, salt: str, *, is_covered: bool = True) -> _Seen:
        """Look at the events at some positions."""
        content = Content(salt)
        position, count, is_complete = after, 0, True
        smallest_ns, largest_ns = _SMALLEST, _SMALLEST
        with self._found.noted("unreadable", "event", after + 1):
            for rows in self._pages(after, up_to):
                is_complete &= self._check_positions(position, [row[0] for row in rows])
                position = rows[-1][0]
                count += len(rows)
                self._counts.update(row[1] for row in rows)
                named = self._named(rows)
                if len(named) < len(rows):
                    is_complete = False
                    continue
                if not is_covered:
                    self._check_decoded(rows)
                times = [row[4] for row in rows if type(row[4]) is int]
                self._take_times(times)
                if not is_covered:
                    continue
                content.add(named)
                if smallest_ns == largest_ns == _SMALLEST:
                    smallest_ns = times[0]
                smallest_ns, largest_ns = min(smallest_ns, *times), max(largest_ns, *times)
            is_complete &= self._check_gaps(position, [up_to + 1])
            is_complete &= count == up_to - after
            return _Seen(count, is_complete, content.digest(), smallest_ns, largest_ns)
        return _Seen(count)

    def _take_times(self, times: list[int]) -> None:
        for time_ns in (min(times), max(times)) if times else ():
            if self._smallest_ns is None or time_ns < self._smallest_ns:
                self._smallest_ns = time_ns
            if self._largest_ns is None or time_ns > self._largest_ns:
                self._largest_ns = time_ns

    def _pages(self, after: int, up_to: int) -> Iterator[list[Any]]:
        """Yield the rows of events, some at once; a table that is not in order ends it."""
        while after < up_to:
            rows: Any = self._connection.execute(
                _ROWS_SQL, (after, up_to, limits.PAGE_EVENTS_MAX)
            ).fetchall()
            if not rows:
                return
            yield rows
            if rows[-1][0] <= after:
                raise DamagedError(self._found.path, "the events are not in order", after + 1)
            after = rows[-1][0]
            if len(rows) < limits.PAGE_EVENTS_MAX:
                return

    def _check_positions(self, before: int, positions: list[int]) -> bool:
        """Tell whether positions follow each other, but for what is absent; say where not."""
        up_to = positions[-1]
        is_right = self._check_gaps(before, positions)
        absences = [it for it in self._extent.absences if it.first <= up_to and before < it.last]
        if absences:
            for position in positions:
                if any(it.first <= position <= it.last for it in absences):
                    text = f"the event at position {position} is declared absent, and is there"
                    self._found.add("event-absent", "event", position, text)
                    is_right = False
        return is_right

    def _check_gaps(self, before: int, positions: list[int]) -> bool:
        if positions[-1] - before == len(positions):
            return True
        extent, is_right = self._extent, True
        for position in positions:
            if position > before + 1 and extent.event_count(before, position - 1):
                first, last = before + 1, position - 1
                while (absence := extent.absence_at(first)) is not None:
                    first = absence.last + 1
                while (absence := extent.absence_at(last)) is not None:
                    last = absence.first - 1
                text = f"the events from position {first} to {last} are missing"
                if first == last:
                    text = f"the event at position {first} is missing"
                self._found.add("event-missing", "event", first, text)
                is_right = False
            before = position
        return is_right

    def _named(self, rows: list[Any]) -> list[Any]:
        """Return what the digest covers of events, but for those that name what is not there."""
        connection, kinds = self._connection, self._kinds
        sessions: Any = _hex(uuids(connection, "session", {row[2] for row in rows}))
        streams: Any = _hex(uuids(connection, "stream", {row[3] for row in rows}))
        streams[None] = None
        try:
            return [
                (seq, kinds[kind], sessions[session], streams[stream], timestamp_ns, data)
                for seq, kind, session, stream, timestamp_ns, data in rows
            ]
        except KeyError:
            return self._named_one_by_one(rows, sessions, streams)

    def _named_one_by_one(self, rows: list[Any], sessions: Any, streams: Any) -> list[Any]:
        named = []
        for seq, kind, session, stream, timestamp_ns, data in rows:
            names = (self._kinds, "kind", kind), (sessions, "session", session)
            for known, what, key in (*names, (streams, "stream", stream)):
                if key not in known:
                    text = f"the event at position {seq} names {what} {key!r}, which is not there"
                    self._found.add("event-names", "event", seq, text)
                    break
            else:
                ids = sessions[session], streams[stream]
                named.append((seq, self._kinds[kind], *ids, timestamp_ns, data))
        return named

    def _check_decoded(self, rows: list[Any]) -> None:
        """Make sure that events can be read which no digest proves."""
        page = Page.of(rows)
        names = KnownNames(self._found.path).learn(self._connection, page)
        for position, row in zip(*page, strict=True):
            one = Page([position], [row])
            try:
                list(decode_rows(self._found.path, one, names, lambda: names))
            except DamagedError as error:
                self._found.add("event-content", "event", position, error.reason)


def _last_event(extent: Extent) -> int:
    """Return the last position that is not absent."""
    last = extent.last
    for absence in reversed(extent.absences):
        if absence.last == last:
            last = absence.first - 1
    return last


def _hex(pairs: Iterator[tuple[int, bytes]]) -> dict[int | None, str | None]:
    return {key: uuid.hex() for key, uuid in pairs if isinstance(uuid, bytes) and len(uuid) == 16}


def _is_understood(block: Block) -> bool:
    integers = block.first, block.last, block.smallest_ns, block.largest_ns, block.sealed
    digests = block.content_digest, block.digest, block.redacted_digest
    return (
        all(type(integer) is int for integer in integers)
        and 1 <= block.first <= block.last
        and block.sealed in (0, 1)
        and (block.salt is None or isinstance(block.salt, str))
        and all(digest is None or _is_digest(digest) for digest in digests)
        and None not in digests[:2]
    )


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and _DIGITS.issuperset(value)
