"""Placing in a merged journal what sources have and it lacks, journal by journal."""

import hashlib
import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import apsw
from pydantic_core import to_json

from journal import errors, limits
from journal.file.connections import Database
from journal.file.origins import Origin, extend_origins
from journal.maintenance.agreement import Agreement, agreement
from journal.maintenance.histories import (
    BEFORE_DELTA,
    OTHER_BRANCH,
    Block,
    Gap,
    History,
    Interval,
    Key,
    Run,
    branches_of,
    clipped,
    minus,
    shared,
)
from journal.maintenance.keeping import (
    Keys,
    as_it_is,
    begin_merging,
    write_block,
    write_gap,
    write_keys,
)
from journal.maintenance.placing import Names, Placer
from journal.maintenance.sources import OpenSources, Part, Source
from journal.projections.catching_up import catch_up_where_quick, prepare_tables
from journal.projections.lifecycle_states import LifecycleFold

_EVENTS_AT_ONCE: Final = 10_000
"""How many events a transaction has, and some more."""


class Merging:
    """Places what sources have and a journal lacks.

    Args:
        database: the merged journal.
        sources: what has been looked at and found sound.
        on_events: is told of events that were placed.
        old: that of the sources whose histories keep their names where they part.
    """

    def __init__(
        self,
        database: Database,
        sources: list[Source],
        on_events: Callable[[int], None],
        old: Path | None = None,
    ) -> None:
        self.added_count = 0
        self._old = old
        self._database = database
        self._on_events = on_events
        self._parts: dict[str, list[Part]] = {}
        for source in sources:
            for part in source.parts:
                self._parts.setdefault(part.key[0], []).append(part)
        self._sources = OpenSources({source.path: source.stamp for source in sources})
        self._placer: Placer | None = None
        self._generation = -1
        self._names: tuple[apsw.Connection, Names] | None = None

    def run(self) -> None:
        """Place all; what has to wait is noted in its part."""
        try:
            for parts in sorted(self._parts.values(), key=_begin):
                self._place_journal(parts)
        finally:
            self._sources.close()
        prepare_tables(self._database)  # so that its views answer in plain SQL, too
        catch_up_where_quick(self._database, LifecycleFold())

    def _place_journal(self, parts: list[Part]) -> None:
        """Place what several files have of one journal, the earliest positions first."""
        parts.sort(
            key=lambda part: (
                part.held[0].first,
                part.is_redacted,
                part.path != self._old,
                -part.held[-1].last,
                part.head,
            )
        )
        ends = self._ends(parts[0].key[0])
        parts = self._unknown(parts)
        # Originals before redacted parts that have the same positions.
        queue = [(it.held[0].first, it.is_redacted, number) for number, it in enumerate(parts)]
        heapq.heapify(queue)
        decided: dict[int, int] = {}  # how much had been placed when the branch of a part was found
        while queue:
            first, _, number = heapq.heappop(queue)
            part = parts[number]
            following = _following(part, ends)
            if part.branch is None or following is None or following.first == first:
                if decided.get(number) != self.added_count:
                    # Found anew where others were placed since: it may be known only by them.
                    part.branch = self._branch_of(part, ends)
                elif following is not None:
                    if part.is_redacted:
                        originals = (at for at, is_redacted, _ in queue if not is_redacted)
                        last = min((following.last, *(at - 1 for at in originals)))
                        following = Interval(first, last)
                    ends[part.branch or ""] = self._place(part, following)
                decided[number] = self.added_count
                following = _following(part, ends)
            if following is not None:
                heapq.heappush(queue, (following.first, part.is_redacted, number))
        if parts:
            self._note_waiting(parts)

    def _unknown(self, parts: list[Part]) -> list[Part]:
        """Return the parts that are not known to be there to the last, without opening files."""
        left = []
        with self._database.read() as connection:
            found = [(it, it.known()) for it in branches_of(connection, parts[0].key[0])]
            redacted = {it.key for it, _ in found if it.has_redacted()}
            for part in parts:
                last = part.held[-1].last
                for branch, known in found:
                    is_there = branch.key not in redacted and not minus(part.held, known)
                    if is_there and part.head and branch.digest_at(last) == part.head:
                        part.branch = branch.key[1]
                if part.branch is None:
                    left.append(part)
        return left

    def _ends(self, journal_id: str) -> dict[str, int]:
        """Return the last position that the merged journal has of each branch."""
        with self._database.read() as connection:
            found = {}
            for history in branches_of(connection, journal_id):
                known = history.known()
                found[history.key[1]] = known[-1].last if known else history.begins_after
            return found

    def _branch_of(self, part: Part, ends: dict[str, int]) -> str:
        """Return which branch of its journal a part goes on with, a new one where it is another."""
        source = self._history(part)
        part.parting = None
        with self._database.read() as connection:
            branches = branches_of(connection, part.key[0])
            found = [(agreement(branch, source), branch) for branch in branches if branch.last]
            found = [pair for pair in found if pair[0].state != "unrelated"]
            if not found:
                return ""
            best, branch = max(found, key=lambda pair: _closeness(*pair))
            if source.last <= best.position:
                return branch.key[1]
            if best.state != "parted" and not branch.is_own:
                return branch.key[1]
            # What the merged journal appended itself is not to be gone on with by another file.
            digest = source.digest_at(best.position) or branch.digest_at(best.position)
        name = _name_of(source, best.position)
        ends.setdefault(name, best.position)
        if 0 < best.position == best.seen:
            rest: Any = (None, None, None, digest, None, "")
            part.parting = Gap(1, best.position, OTHER_BRANCH, branch.key[1], *rest)
        return name

    def _place(self, part: Part, interval: Interval) -> int:
        """Place one interval of a part, in bounded transactions; return its last position."""
        key = part.key[0], part.branch or ""
        position = interval.first - 1
        keys = Keys(self._history(part), position if key[1] else 0)
        while position < interval.last:
            first = position + 1
            with self._database.write() as connection:
                _check_alone(connection, key, first)
                begin_merging(connection)
                placer = self._current_placer(connection)
                placer.complete()
                first_here = placer.position + 1
                if part.parting is not None and not History(connection, key).known():
                    write_gap(connection, key, part.parting)
                self._write_gaps(connection, key, part, first)
                begun: list[Block] = []
                for piece in _pieces(self._history(part), first, interval.last):
                    block = self._place_piece(connection, key, part, piece)
                    position = piece.last
                    if block is not None and block.first < piece.first:
                        begun.append(block)
                    if position - first >= _EVENTS_AT_ONCE:
                        break
                placer.complete()
                origin = Origin(
                    first_position=first_here,
                    last_position=placer.position,
                    journal_id=UUID(key[0]),
                    branch=key[1],
                    label=part.label,
                    source_first_position=first,
                )
                extend_origins(connection, origin)
                for block in begun:
                    write_block(connection, key, as_it_is(History(connection, key), block))
                write_keys(connection, key, keys.up_to(position))
            self.added_count += position - first + 1
            self._on_events(position - first + 1)
        return position

    def _place_piece(
        self, connection: apsw.Connection, key: Key, part: Part, piece: "_Piece"
    ) -> Block | None:
        """Place some events, and write the block that they are in; return that."""
        first, last, block = piece
        history = self._history(part)
        if block is not None and block.salt is None:
            history, block = self._original_of(part, history, block)
        rows = history.rows(first, last)
        if len(rows) != last - first + 1:
            what = f"is damaged: an event from position {first} to {last} is missing"
            raise errors.DamagedError(part.path, what, first)
        self._current_placer(connection).place(rows, self._names_of(history.connection))
        if block is not None:
            write_block(connection, key, block)
        return block

    def _original_of(self, part: Part, history: History, block: Block) -> tuple[History, Block]:
        """Return the block as it was before it was redacted, if another source has it."""
        whole = Interval(block.first, block.last)
        for other in self._parts[part.key[0]]:
            if other is part or minus([whole], other.held_in_line):
                continue
            original = self._history(other)
            self._sources.connection(part.path)  # so that it stays open
            found = original.block_at(block.first)
            if found is not None and found.salt is not None and found.digest == block.digest:
                return original, found
        return history, block

    def _current_placer(self, connection: apsw.Connection) -> Placer:
        if self._placer is None or self._generation != self._database.generation:
            self._placer = Placer(connection)
            self._generation = self._database.generation
        return self._placer

    def _history(self, part: Part) -> History:
        return History(self._sources.connection(part.path), part.key)

    def _names_of(self, connection: apsw.Connection) -> Names:
        if self._names is None or self._names[0] is not connection:
            self._names = connection, Names(connection)
        return self._names[1]

    def _write_gaps(self, connection: apsw.Connection, key: Key, part: Part, first: int) -> None:
        """Write what a source says of the positions before those that are placed now."""
        here = History(connection, key)
        known = here.known()
        waiting = [Interval(gap.first, gap.last) for gap in here.gaps if gap.reason == BEFORE_DELTA]
        others = [Interval(gap.first, gap.last) for gap in here.gaps if gap.reason != BEFORE_DELTA]
        for gap in self._history(part).declared():
            if gap.first >= first or gap.reason == OTHER_BRANCH:
                continue
            taken = [*known, *others, *(waiting if gap.reason == BEFORE_DELTA else ())]
            for begin, end in minus([Interval(gap.first, gap.last)], sorted(taken)):
                write_gap(connection, key, clipped(gap, Run(begin, end, 0)))

    def _note_waiting(self, parts: list[Part]) -> None:
        """Note what is earlier than what was placed before."""
        with self._database.read() as connection:
            branches = {it.key[1]: it for it in branches_of(connection, parts[0].key[0])}
            for part in parts:
                branch = branches.get(part.branch or "")
                part.waiting = minus(part.held, branch.known_in_line() if branch else [])
                if branch is not None and not part.is_redacted:
                    part.originals = sorted(self._originals(part, branch))

    def _originals(self, part: Part, branch: History) -> Iterator[Interval]:
        """Yield the positions in redacted blocks here that have other texts in a source."""
        source: History | None = None
        held = shared(part.held_in_line, branch.held_in_line())
        for owner, up_to in branch.line():
            for block in owner.blocks():
                if block.salt is not None:
                    continue
                source = source or self._history(part)
                whole = Interval(block.first, min(block.last, up_to))
                for first, last in shared([whole], held):
                    if source.events(first, last) != branch.events(first, last):
                        yield Interval(first, last)


def _check_alone(connection: apsw.Connection, key: Key, first: int) -> None:
    """Make sure that nobody else has placed events of a journal since this merging began.

    Raises:
        BusyError: somebody has.
    """
    last: Any = connection.execute(
        "SELECT source_first_seq + last_seq - first_seq FROM origin"
        " WHERE journal_id = ? AND branch = ? ORDER BY source_first_seq DESC LIMIT 1",
        key,
    ).get
    if last is not None and last >= first:
        reason = "is being merged into by somebody else, too: merge again"
        raise errors.BusyError(connection.filename, reason)


class _Piece(NamedTuple):
    """Some positions of a source, and the block that they are in, if one has them."""

    first: int
    last: int
    block: Block | None


def _begin(parts: list[Part]) -> tuple[int, str]:
    """Return what journals are ordered by: the time at which they begin."""
    return min(part.smallest_ns for part in parts), parts[0].key[0]


def _following(part: Part, ends: dict[str, int]) -> Interval | None:
    """Return the first positions of a part after the last one that was placed of its branch."""
    end = ends.get(part.branch or "", 0)
    for first, last in part.held:
        if last > end:
            return Interval(max(first, end + 1), last)
    return None


def _closeness(found: Agreement, branch: History) -> tuple[int, bool, bool]:
    """Return what is larger, the better a source goes on with a branch."""
    return found.seen, found.state != "parted", not branch.key[1]


def _name_of(source: History, parted: int) -> str:
    """Return the name of the branch whose first event is the one after a position."""
    first = next(it.first for it in source.held() if it.last > parted)
    first = max(first, parted + 1)
    digest = source.digest_at(first)
    if digest is None:
        digest = hashlib.sha256(to_json(source.events(first, first))).hexdigest()
    return digest


def _pieces(history: History, first: int, last: int) -> Iterator[_Piece]:
    """Yield positions that follow each other, by the blocks that they are in."""
    while first <= last:
        block = history.block_at(first)
        if block is not None and block.last >= first:
            end = min(block.last, last)
        elif block is not None and not block.sealed and block.salt is not None:
            end = min(block.first + limits.BLOCK_EVENTS_MAX - 1, last)
            block = _extended(history, block, end)
        else:
            following = next(history.blocks(first), None)
            end = last if following is None else following.first - 1
            end, block = min(end, last, first + limits.BLOCK_EVENTS_MAX - 1), None
        yield _Piece(first, end, block)
        first = end + 1


def _extended(history: History, block: Block, last: int) -> Block | None:
    """Return an open block as it is once it is written to cover all its events."""
    digest = history.digest_at(last)
    content = history.content(block.first, last, block.salt or "")
    if digest is None or content is None:
        return None
    times = [row[4] for row in history.events(block.first, last)]
    return block._replace(
        last=last,
        smallest_ns=min(times),
        largest_ns=max(times),
        content_digest=content,
        digest=digest,
    )
