"""Histories: what a file has of a journal, by the positions that the events have there.

A file has that of the journal that it is, and one for each journal, and each branch of it, that it
goes on from or that was merged into it.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import apsw

from journal.errors import DamagedError
from journal.file.blocks import GENESIS, ROWS_SQL, BlockRow, Content, chained
from journal.file.extent import Extent, read_extent
from journal.file.identity import meta

Key = tuple[str, str]
"""A journal's id, and the name of a branch of its history; '' is the one that came first."""

ELSEWHERE = "elsewhere"
"""Why a journal has no events of its own at some positions: those there are other journals'."""

OTHER_BRANCH = "other branch"
"""Why a branch has none at the first positions: until there, its history is that of another."""

BEFORE_DELTA = "before delta"

_BLOCK = """first_seq, last_seq, min_timestamp, max_timestamp, salt, content_digest, digest,
    redacted_digest, sealed"""
_GAP = """first_seq, last_seq, reason, counts, min_timestamp, max_timestamp, digest_before,
    digest_after, forgotten, declared_at"""

_GAPS_SQL = f"SELECT {_GAP}, check_digest, json_array({_GAP}) FROM absent ORDER BY first_seq"
_KEPT_GAPS_SQL = f"""
SELECT {_GAP}, check_digest, json_array(journal_id, branch, {_GAP})
FROM origin_absent WHERE journal_id = ? AND branch = ? ORDER BY first_seq
"""

_ROWS_SQL = ROWS_SQL.replace("e.seq AS position", "e.seq - :offset AS position")

_TEXT_SQL = f"""
SELECT count(*) FILTER (WHERE typeof(timestamp) = 'integer'
        AND typeof(data) IN ('text', 'null')),
    json_group_array(json_array(position, event_type, session_id, stream_id, timestamp, data))
FROM ({_ROWS_SQL})
"""

_BLOCKS_AT_ONCE = 500


class Block(NamedTuple):
    """A row of `block`, or of `origin_block`, by the positions of its history."""

    first: int
    last: int
    smallest_ns: int
    largest_ns: int
    salt: str | None
    content_digest: str
    digest: str
    redacted_digest: str | None
    sealed: int


class Gap(NamedTuple):
    """Positions at which a history has no event in a file, and what that says of them."""

    first: int
    last: int
    reason: str
    counts: str | None
    smallest_ns: int | None
    largest_ns: int | None
    digest_before: str | None
    digest_after: str | None
    forgotten: str | None
    declared_at: str

    def moved(self, by: int) -> "Gap":
        """Return the same of positions that are so many further on."""
        return self._replace(first=self.first + by, last=self.last + by)


class Run(NamedTuple):
    """Positions of a history whose events follow each other in the file as well."""

    first: int
    last: int
    offset: int
    """What is to be added to a position for the one that it has in the file."""


class Interval(NamedTuple):
    """Positions that follow each other, both ends inclusive."""

    first: int
    last: int


def history_keys(connection: apsw.Connection) -> list[Key]:
    """Return of which other journals and branches a file has events, in the order of its own."""
    rows: Any = connection.execute(
        "SELECT journal_id, branch FROM origin GROUP BY 1, 2 ORDER BY min(first_seq)"
    )
    return [(journal_id, branch) for journal_id, branch in rows]


def histories_of(connection: apsw.Connection) -> list["History"]:
    """Return every history that a file has, its own last.

    Raises:
        DamagedError: the file contradicts itself.
    """
    keys = history_keys(connection)
    own = (own_id(connection), "")
    return [History(connection, key) for key in (*(key for key in keys if key != own), own)]


def own_id(connection: apsw.Connection) -> str:
    """Return the id of the journal that a file is."""
    return meta(connection, "journal_id") or ""


def is_merged(connection: apsw.Connection) -> bool:
    """Tell whether others were merged into a file: then it has their blocks apart from its own."""
    return meta(connection, "merged") is not None


def branches_of(connection: apsw.Connection, journal_id: str) -> list["History"]:
    """Return the histories that a file has of a journal, that which came first before others."""
    return [History(connection, key) for key in _keys_of(connection, journal_id)]


def _keys_of(connection: apsw.Connection, journal_id: str) -> list[Key]:
    sql = "SELECT DISTINCT branch FROM origin WHERE journal_id = ?"
    branches = {branch for (branch,) in connection.execute(sql, (journal_id,))}
    if journal_id == own_id(connection):
        branches.add("")
    return [(journal_id, branch) for branch in sorted(branches)]


class History:
    """What a file has of one journal or a branch of it.

    Use it in one transaction of its connection.
    """

    def __init__(self, connection: apsw.Connection, key: Key) -> None:
        self.key = key
        self.is_own = key == (own_id(connection), "")
        self.connection = connection
        self.is_kept = not self.is_own and is_merged(connection)

    # Where its events are

    @cached_property
    def _extent(self) -> Extent:
        return read_extent(self.connection)

    def runs(self, first: int = 1) -> Iterator[Run]:
        """Yield where its positions from one on are in the file, in order."""
        if self.is_own:
            yield from self._own_runs(first)
            return
        sql = (
            "SELECT source_first_seq, source_first_seq + last_seq - first_seq,"
            " first_seq - source_first_seq FROM origin WHERE journal_id = ?1 AND branch = ?2"
            " AND source_first_seq >= ifnull((SELECT max(source_first_seq) FROM origin"
            " WHERE journal_id = ?1 AND branch = ?2 AND source_first_seq <= ?3), 0)"
            " ORDER BY source_first_seq"
        )
        rows: Any = self.connection.execute(sql, (*self.key, first))
        for run in map(Run._make, rows):
            if run.last >= first:
                yield run

    def _own_runs(self, first: int) -> Iterator[Run]:
        sql = "SELECT last_seq FROM origin WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1"
        end = int(self.connection.execute(sql, (first,)).get or 0)
        sql = "SELECT first_seq, last_seq FROM origin WHERE first_seq > ? ORDER BY first_seq"
        others: Any = self.connection.execute(sql, (first,))
        for other_first, other_last in others:
            if end + 1 < other_first:
                yield Run(end + 1, other_first - 1, 0)
            end = other_last
        if end < self._extent.last:
            yield Run(end + 1, self._extent.last, 0)

    def known(self) -> list[Interval]:
        """Return which positions were ever placed in the file, whatever was pruned since."""
        return joined(Interval(run.first, run.last) for run in self.runs())

    def held(self) -> list[Interval]:
        """Return at which positions it has events in the file."""
        return joined(
            Interval(first - run.offset, last - run.offset)
            for run in self.runs()
            for first, last in _without(
                Interval(run.first + run.offset, run.last + run.offset), self._extent
            )
        )

    @cached_property
    def last(self) -> int:
        """The last position that it is known to have had; 0 where there is none."""
        known = self.known()
        return max(known[-1].last if known else 0, self.gaps[-1].last if self.gaps else 0)

    @cached_property
    def begins_after(self) -> int:
        """The position where another branch ends that it parted from; 0 where there is none."""
        return 0 if self._parting is None else self._parting.last

    @cached_property
    def parent(self) -> "History | None":
        """The branch that it parted from, if the file has that."""
        parting = self._parting
        if parting is None:
            return None
        for key in _keys_of(self.connection, self.key[0]):
            other = History(self.connection, key)
            if key == self.key or other.begins_after >= parting.last:
                continue
            if parting.counts == key[1]:
                return other
            # Earlier versions wrote no name there, and a digest always.
            if parting.counts is None and other.digest_at(parting.last) == parting.digest_after:
                return other
        return None

    @cached_property
    def _parting(self) -> Gap | None:
        """What is said of the positions up to where it parted from another branch."""
        found = (gap for gap in self.gaps if gap.reason == OTHER_BRANCH) if self.key[1] else ()
        return max(found, key=lambda gap: gap.last, default=None)

    def line(self) -> Iterator[tuple["History", int]]:
        """Yield it, the branch that it parted from, and so on, each with where it counts up to."""
        history: History | None = self
        up_to = self.last
        while history is not None:
            yield history, up_to
            up_to, history = history.begins_after, history.parent

    def known_in_line(self) -> list[Interval]:
        """Return `known`, of it and those that it parted from."""
        return self._in_line(History.known)

    def held_in_line(self) -> list[Interval]:
        """Return `held`, of it and those that it parted from."""
        return self._in_line(History.held)

    def _in_line(self, positions: Callable[["History"], list[Interval]]) -> list[Interval]:
        found = (
            Interval(max(first, history.begins_after + 1), min(last, up_to))
            for history, up_to in self.line()
            for first, last in positions(history)
            if last > history.begins_after and first <= up_to
        )
        return joined(iter(sorted(found)))

    # What it says of them

    @cached_property
    def gaps(self) -> list[Gap]:
        """Where it has no events in the file, and the file says why; in order."""
        if self.is_kept:
            return self._checked(self.connection.execute(_KEPT_GAPS_SQL, self.key))
        of_file = self._checked(self.connection.execute(_GAPS_SQL))
        found: list[Gap] = []
        end = 0
        for run in joined_runs(self.runs()):
            if self.is_own and end + 1 < run.first:
                found.append(self._elsewhere(end + 1, run.first - 1))
            found += (
                clipped(gap, run)
                for gap in of_file
                if gap.first <= run.last and gap.last >= run.first
            )
            end = run.last
        if self.is_own and end < self._extent.last:
            found.append(self._elsewhere(end + 1, self._extent.last))
        return found

    def declared(self) -> list[Gap]:
        """Return `gaps`, and what was pruned in a file into which the journal was merged."""
        if not self.is_kept:
            return self.gaps
        of_file = self._checked(self.connection.execute(_GAPS_SQL))
        pruned = [
            clipped(gap, Run(run.first + run.offset, run.last + run.offset, 0))
            ._replace(digest_before=None, digest_after=None)
            .moved(-run.offset)
            for run in self.runs()
            for gap in of_file
            if gap.first <= run.last + run.offset and gap.last >= run.first + run.offset
        ]
        return sorted((*self.gaps, *pruned), key=lambda gap: gap.first)

    def _checked(self, rows: Any) -> list[Gap]:
        found: list[Gap] = []
        for *columns, check_digest, text in rows:
            gap = Gap(*columns)
            is_range = isinstance(gap.last, int) and gap.first <= gap.last
            if not is_range or hashlib.sha256(text.encode()).hexdigest() != check_digest:
                what = f"is damaged: its row about absent events from position {gap.first}"
                raise DamagedError(self.connection.filename, what, gap.first)
            found.append(gap)
        return found

    def _elsewhere(self, first: int, last: int) -> Gap:
        """Return what is to be said of positions that are those of other journals in this file."""
        sql = "SELECT digest FROM block WHERE last_seq = ?1 AND first_seq <= ?1"
        before = GENESIS if first == 1 else self.connection.execute(sql, (first - 1,)).get
        after: Any = self.connection.execute(sql, (last,)).get
        if after is None:
            sql = "SELECT digest_after FROM absent WHERE last_seq = ?"
            after = self.connection.execute(sql, (last,)).get
        now = meta(self.connection, "created_at") or ""
        return Gap(first, last, ELSEWHERE, None, None, None, before, after, None, now)

    def gap_at(self, position: int) -> Gap | None:
        """Return the gap that a position lies in."""
        return next((it for it in self.gaps if it.first <= position <= it.last), None)

    # Its blocks

    def blocks(self, after: int = 0) -> Iterator[Block]:
        """Yield the blocks that begin after a position, in order."""
        while True:
            some = self._blocks(f"first_seq > ? ORDER BY first_seq LIMIT {_BLOCKS_AT_ONCE}", after)
            for block in some:
                if self._has(block):
                    yield block
            if len(some) < _BLOCKS_AT_ONCE:
                return
            after = some[-1].first

    def block_at(self, position: int) -> Block | None:
        """Return the last block that begins at a position or before it."""
        found = self._blocks("first_seq <= ? ORDER BY first_seq DESC LIMIT 1", position)
        return found[0] if found and self._has(found[0]) else None

    def _blocks(self, condition: str, position: int) -> list[Block]:
        if self.is_kept:
            sql = f"SELECT {_BLOCK} FROM origin_block WHERE journal_id = ? AND branch = ?"
            rows: Any = self.connection.execute(f"{sql} AND {condition}", (*self.key, position))
        else:
            sql = f"SELECT {_BLOCK} FROM block WHERE {condition}"
            rows = self.connection.execute(sql, (position,))
        return [self._understood(Block(*row)) for row in rows]

    def _understood(self, block: Block) -> Block:
        texts = block.content_digest, block.digest, block.salt or "", block.redacted_digest or ""
        numbers = block.last, block.smallest_ns, block.largest_ns, block.sealed
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(isinstance(number, int) for number in numbers)
            or not 1 <= block.first <= block.last
        ):
            what = f"is damaged: the row of the block from position {block.first}"
            raise DamagedError(self.connection.filename, what, block.first)
        return block

    def _has(self, block: Block) -> bool:
        """Tell whether a block is of this history: in `block` are those of all in the file."""
        if self.is_kept or not self.has_others:
            return True
        run = next(self.runs(block.first), None)
        return run is not None and run.first <= block.first

    @cached_property
    def has_others(self) -> bool:
        return bool(self.connection.execute("SELECT EXISTS (SELECT 1 FROM origin)").get)

    def digest_before(self, first: int) -> str | None:
        """Return the digest at the position before the first one of a block; None: unknown."""
        if first == 1:
            return GENESIS
        block = self.block_at(first - 1)
        if block is not None and block.last == first - 1:
            return block.digest
        gap = self.gap_at(first - 1)
        if gap is not None and gap.last == first - 1 and gap.digest_after is not None:
            return gap.digest_after
        if first <= self.begins_after and self.parent is not None:
            return self.parent.digest_before(first)
        return None

    def digest_at(self, position: int) -> str | None:
        """Return the digest at a position, computed again where no row has it; None: unknown."""
        if position == 0:
            return GENESIS
        block = self.block_at(position)
        if block is not None and block.last == position:
            return block.digest
        gap = self.gap_at(position)
        if gap is not None and gap.last == position and gap.digest_after is not None:
            return gap.digest_after
        if position <= self.begins_after:
            return None if self.parent is None else self.parent.digest_at(position)
        if block is None or block.salt is None or (block.sealed and position > block.last):
            return None
        before = self.digest_before(block.first)
        content = self.content(block.first, position, block.salt)
        return None if before is None or content is None else chained(before, content)

    # Its events

    def content(self, first: int, last: int, salt: str) -> str | None:
        """Return the digest of the content of some positions; None where not all are there."""
        content = Content(salt)
        count = 0
        try:
            run = None if first <= self.begins_after else next(self.runs(first), None)
            if run is not None and run.first <= first and last <= run.last:
                return self._content_of_run(run, first, last, salt)
            for rows in self.texts(first, last):
                content.add(rows)
                count += sum(type(row[4]) is int for row in rows)
        except (
            ValueError,
            TypeError,
            apsw.SQLError,
        ) as error:  # no text of JSON
            what = f"is damaged: the events from position {first} to {last} cannot be read"
            raise DamagedError(self.connection.filename, what, first) from error
        return content.digest() if count == last - first + 1 else None

    def _content_of_run(self, run: Run, first: int, last: int, salt: str) -> str | None:
        """Return the same where SQLite can write the text as a whole, which takes less."""
        ends = {"first": first + run.offset, "last": last + run.offset, "offset": run.offset}
        row: Any = self.connection.execute(_TEXT_SQL, ends).fetchone()
        count, text = row
        if count != last - first + 1:
            return None
        return hashlib.sha256(f"{salt}{text}".encode()).hexdigest()

    def texts(self, first: int, last: int) -> Iterator[list[BlockRow]]:
        """Yield what digests cover of the events from one position to another, run by run."""
        if first <= self.begins_after and self.parent is not None:
            yield from self.parent.texts(first, min(last, self.begins_after))
            first = self.begins_after + 1
        for run in self.runs(first):
            if run.first > last:
                return
            begin, end = max(first, run.first), min(last, run.last)
            ends = {"first": begin + run.offset, "last": end + run.offset, "offset": run.offset}
            rows: Any = self.connection.execute(_ROWS_SQL, ends).fetchall()
            yield rows

    def events(self, first: int, last: int) -> list[BlockRow]:
        """Return the same as a whole."""
        return [row for rows in self.texts(first, last) for row in rows]

    def rows(self, first: int, last: int) -> list[Any]:
        """Return the rows of the events at some positions, as the file stores them.

        That is position, code of the kind, numbers of session and stream, timestamp, data.
        """
        found: list[Any] = []
        if first <= self.begins_after and self.parent is not None:
            found = self.parent.rows(first, min(last, self.begins_after))
            first = self.begins_after + 1
        for run in self.runs(first):
            if run.first > last:
                break
            ends = run.offset, max(first, run.first), min(last, run.last)
            found += self.connection.execute(
                "SELECT seq - ?1, kind, session, stream, timestamp, data FROM event"
                " WHERE seq BETWEEN ?2 + ?1 AND ?3 + ?1 ORDER BY seq",
                ends,
            ).fetchall()
        return found

    def has_redacted(self) -> bool:
        """Tell whether a text was redacted in one of its blocks."""
        return any(block.salt is None for block in self.blocks())

    def label(self) -> str | None:
        """Return what its journal was called last."""
        if self.is_own:
            return meta(self.connection, "label")
        sql = "SELECT label FROM origin WHERE journal_id = ? AND branch = ?"
        label: Any = self.connection.execute(
            f"{sql} ORDER BY source_first_seq DESC LIMIT 1", self.key
        ).get
        return label if isinstance(label, str) else None


def joined(intervals: Iterator[Interval]) -> list[Interval]:
    """Return intervals, which come in order, with those as one that adjoin or overlap."""
    found: list[Interval] = []
    for interval in intervals:
        if found and interval.first <= found[-1].last + 1:
            found[-1] = Interval(found[-1].first, max(found[-1].last, interval.last))
        else:
            found.append(interval)
    return found


def joined_runs(runs: Iterator[Run]) -> Iterator[Run]:
    """Yield runs with those as one that adjoin on both sides."""
    before: Run | None = None
    for run in runs:
        if before is None:
            before = run
        elif (before.last + 1, before.offset) == (run.first, run.offset):
            before = Run(before.first, run.last, run.offset)
        else:
            yield before
            before = run
    if before is not None:
        yield before


def minus(intervals: list[Interval], others: list[Interval]) -> list[Interval]:
    """Return what is in some intervals and not in others; both are in order."""
    found: list[Interval] = []
    for first, last in intervals:
        begin = first
        for other in others:
            if other.last < begin:
                continue
            if other.first > last:
                break
            if begin < other.first:
                found.append(Interval(begin, other.first - 1))
            begin = other.last + 1
        if begin <= last:
            found.append(Interval(begin, last))
    return found


def shared(intervals: list[Interval], others: list[Interval]) -> list[Interval]:
    """Return what is in some intervals and in others as well; both are in order."""
    return minus(intervals, minus(intervals, others))


def _without(interval: Interval, extent: Extent) -> list[Interval]:
    absent = [Interval(absence.first, absence.last) for absence in extent.absences]
    return minus([interval], absent)


def clipped(gap: Gap, run: Run) -> Gap:
    """Return what a row of `absent` says of the positions of one run."""
    first, last = max(gap.first, run.first), min(gap.last, run.last)
    is_whole = (first, last) == (gap.first, gap.last)
    return gap._replace(
        first=first,
        last=last,
        counts=gap.counts if is_whole else None,
        forgotten=gap.forgotten if is_whole else None,
        digest_before=gap.digest_before if first == gap.first else None,
        digest_after=gap.digest_after if last == gap.last else None,
    )
