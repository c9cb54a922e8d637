"""Pruning: old events go, block by block, and what became of them stays."""

import time
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, NamedTuple

import apsw
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from journal import limits
from journal.errors import FoldError, ReadOnlyError
from journal.file.appending import Appender
from journal.file.connections import Database
from journal.file.extent import Absence, Extent, end_of_fold, read_extent
from journal.file.identity import check_not_closed
from journal.file.lock_waits import BUSY_TIMEOUT_MS
from journal.maintenance.cutting import (
    Cut,
    Cutter,
    Held,
    checkpoints,
    held_by_name,
    held_by_session,
    last_within,
)
from journal.maintenance.erasing import erase
from journal.maintenance.prune_rules import Rule, ends_due
from journal.maintenance.shipped import Shipped, check_shipped
from journal.maintenance.space import (
    Pages,
    give_back_some,
    is_too_large,
    is_worth_giving_back,
    pages_of,
)
from journal.projections.catching_up import (
    begin_anew,
    bring_up,
    bring_up_here,
    has_begun,
    is_of_another_version,
)
from journal.projections.forgetting import forgotten_at
from journal.projections.own_states import OwnFold
from journal.projections.rebuilding import Progress, folded_beside, rebuild_one
from journal.projections.registry import Projections

_KEYS_AT_ONCE = 1_000
_NS_MIN = -(2**63)  # of SQLite's integers; spans may be longer
_FOLDED_BY_ITSELF_MAX = 500
_OWN_FOLDED_BY_ITSELF_MAX = 2_000
_BLOCKS_BEHIND = 4

_COUNTS_SQL = """
SELECT name, count(*) FROM event JOIN kind ON code = kind WHERE seq > ? AND seq <= ? GROUP BY 1
"""
_KEYS_SQL = "SELECT count(*) FROM append_key WHERE used_at < ? AND ifnull(last_seq, 0) <= ?"
_WAIT_FOR_READERS_SECONDS = 1.0


class PruneReport(BaseModel):
    """What was pruned, or would be; sizes are in bytes.

    `first_position` is that of the first event left, or the one that the next event gets.
    `sessions_forgotten` and `streams_forgotten` say how many nothing is left of, by the states that
    they ended in. `held_by` is what kept more from going: the name of a projection or subscription
    that has not come so far, or the id of an open session, and `held_at` the last position that may
    go for it; None: nothing. `freed_bytes` got free in
    the file, `returned_bytes` of them are not in it any more. Of a dry run these and `file_bytes`
    are estimates by the share of events that go: states that stay take more, so the file gets
    larger than that, by far where many sessions are open. `erased` tells whether the
    deleted texts are in neither the file nor its -wal; else somebody reads or writes, and they go
    when it is pruned again after that. Rarely, some characters stay in the first bytes of a page,
    and a file that another program had made anew can keep more: then it stays False. Copies in the
    states of an application's own projections are left to it. None: it was a dry run.
    """

    model_config = ConfigDict(frozen=True)

    dry_run: bool
    event_count: int
    counts_by_kind: dict[str, int]
    block_count: int
    sessions_forgotten: dict[str, int]
    streams_forgotten: dict[str, int]
    keys_forgotten: int
    first_position: int
    events_left: int
    sessions_left: int
    streams_left: int
    held_by: str | None
    held_at: int | None
    file_bytes: int
    freed_bytes: int
    returned_bytes: int
    erased: bool | None
    seconds: float


class Wanted(NamedTuple):
    """What is to be pruned."""

    rule: Rule
    keep_open: bool = False
    """Stop at the first event of a session that is open."""
    give_up: frozenset[str] = frozenset()
    """The projections and subscriptions that need not have come so far."""
    forget_keys_ns: int | None = None
    """Forget keys of pruned events that were used longer ago."""
    shipped: Shipped | None = None
    """What the rule came from, if it was shipped."""


class _Tally:
    """What was pruned so far."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.counts: dict[str, int] = {}
        self.block_count = 0
        self.forgotten: dict[str, dict[str, int]] = {"sessions": {}, "streams": {}}
        self.keys = 0

    @property
    def event_count(self) -> int:
        return sum(self.counts.values())

    def add(self, cut: Cut) -> None:
        _add(self.counts, cut.counts)
        self.block_count += cut.block_count
        for name, states in cut.forgotten.states.items():
            _add(self.forgotten[name], states)

    def report(
        self,
        connection: apsw.Connection,
        extent: Extent,
        before: Pages,
        after: Pages,
        held: Held | None,
        *,
        erased: bool | None,
    ) -> PruneReport:
        """Return all of it; `extent` and `after` are those by now."""
        sessions: Any = connection.execute("SELECT count(*) FROM session").get
        streams: Any = connection.execute("SELECT count(*) FROM stream").get
        if erased is None:
            sessions -= sum(self.forgotten["sessions"].values())
            streams -= sum(self.forgotten["streams"].values())
        return PruneReport(
            dry_run=erased is None,
            event_count=self.event_count,
            counts_by_kind=dict(sorted(self.counts.items())),
            block_count=self.block_count,
            sessions_forgotten=dict(sorted(self.forgotten["sessions"].items())),
            streams_forgotten=dict(sorted(self.forgotten["streams"].items())),
            keys_forgotten=self.keys,
            first_position=extent.first,
            events_left=extent.event_count(extent.cut, extent.last),
            sessions_left=sessions,
            streams_left=streams,
            held_by=None if held is None else held.by,
            held_at=None if held is None else held.position,
            file_bytes=after.file_bytes,
            freed_bytes=max(0, before.used_bytes - after.used_bytes),
            returned_bytes=max(0, before.file_bytes - after.file_bytes),
            erased=erased,
            seconds=time.monotonic() - self.began,
        )


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


class Pruner:
    """Prunes one journal. One thread at a time may use it."""

    def __init__(self, database: Database, appender: Appender, projections: Projections) -> None:
        self._database = database
        self._projections = projections
        self._lifecycle = projections.built_in
        self._cutter = Cutter(appender, self._lifecycle)
        self._keys_after = 0
        self._failing: set[tuple[str, int]] = set()
        """The versions of an application's projections that failed at the beginning."""

    def prune(self, wanted: Wanted, progress: Progress | None) -> PruneReport:
        """Prune; see `Journal.prune`."""
        if self._database.read_only:
            raise ReadOnlyError(self._database.path, "is open for reading only")
        now_ns = time.time_ns()
        tally = _Tally()
        with self._database.read() as connection:
            extent, before = read_extent(connection), pages_of(connection)
            self._check(connection, extent, wanted)
            ends, held = self._planned_ends(connection, extent, wanted, now_ns)
        total = extent.event_count(extent.cut, ends[-1]) if ends else 0
        # By size the number of events is a guess; by others, what comes meanwhile is for later.
        while tally.event_count < total or wanted.rule.keep_bytes is not None:
            cut, held, _ = self.cut_once(wanted, now_ns)
            if cut is None:
                break
            tally.add(cut)
            if progress is not None:
                progress(min(tally.event_count, total), total)
        if wanted.forget_keys_ns is not None:
            tally.keys = self._forget_keys(wanted.forget_keys_ns, now_ns)
        with self._database.read() as connection:
            is_worth_it = is_worth_giving_back(pages_of(connection))
        while is_worth_it:
            with self._database.write() as connection:
                is_worth_it = give_back_some(connection) > 0
        erased = self.erase(_WAIT_FOR_READERS_SECONDS)
        if progress is not None:
            progress(total, total)
        with self._database.read() as connection:
            extent, after = read_extent(connection), pages_of(connection)
            return tally.report(connection, extent, before, after, held, erased=erased)

    def planned(self, wanted: Wanted, progress: Progress | None) -> PruneReport:
        """Return what `prune` would do, without doing it."""
        now_ns = time.time_ns()
        tally = _Tally()
        with self._database.read() as connection:
            extent, before = read_extent(connection), pages_of(connection)
            self._check(connection, extent, wanted)
            ends, held = self._planned_ends(connection, extent, wanted, now_ns)
        if wanted.keep_open and ends:
            with folded_beside(self._database, self._lifecycle, None, progress) as (connection, _):
                found = held_by_session(connection, "temp", extent, ends[-1])
            progress = None  # it has come to its end
            if found is not None:
                held = found
                ends = [end for end in ends if end <= found.position]
        up_to = ends[-1] if ends else extent.cut
        if ends:
            with folded_beside(self._database, self._lifecycle, up_to, progress) as (connection, _):
                tally.forgotten = forgotten_at(connection, up_to)
        with self._database.read() as connection:
            tally.block_count = len(ends)
            tally.counts = dict(connection.execute(_COUNTS_SQL, (extent.cut, up_to)))
            if wanted.forget_keys_ns is not None:
                used_before_ns = max(_NS_MIN, now_ns - wanted.forget_keys_ns)
                tally.keys = connection.execute(_KEYS_SQL, (used_before_ns, up_to)).get
            here = extent.event_count(extent.cut, extent.last)
            after = _pages_after(before, tally.event_count, here)
            left = extent._replace(first=up_to + 1, absences=(*extent.absences, _gone(up_to)))
            return tally.report(connection, left, before, after, held, erased=None)

    def cut_once(
        self,
        wanted: Wanted,
        now_ns: int,
        *,
        events_max: int | None = None,
        wait_ms: int = BUSY_TIMEOUT_MS,
        by_itself: bool = False,
    ) -> "Step":
        """Prune what may go, as far as one transaction should.

        Args:
            wanted: what is to go.
            now_ns: the time.
            events_max: how many events at most, though a block at least; None: as in folding.
            wait_ms: how long to wait for other writers.
            by_itself: nobody asked for it just now. It prunes no block that is still open, folds a
                few hundred or thousand events at most, and what another version made of the
                built-in projections only where it has to know which sessions are open.
        """
        own_folds = [fold for fold in self._own_folds() if fold.names[0] not in wanted.give_up]
        if wanted.rule.keep_bytes is not None:
            events_max = 0
        choice = _Choice(
            wanted, now_ns, limits.FOLD_EVENTS_MAX if events_max is None else events_max, by_itself
        )
        names = {fold.names[0] for fold in own_folds}
        with self._database.read() as connection:
            extent = read_extent(connection)
            end, held = choice.end(connection, extent, names)
        if end is None:
            return Step(None, held, is_more=False)
        up_to = extent.last if wanted.keep_open else end
        if not self._is_folded(wanted, up_to, wait_ms, by_itself=by_itself):
            return Step(None, None, is_more=True)
        for fold in own_folds:
            first = self._before_cut(fold, extent, end, wait_ms, by_itself=by_itself)
            if first is not None:
                return first
        with self._database.write(wait_ms) as connection:
            extent = read_extent(connection)
            end, held = choice.end(connection, extent)
            if end is not None and wanted.keep_open:
                end, held = self._end_before_open(connection, extent, choice, end)
            if end is None:
                return Step(None, held, is_more=False)
            if by_itself and self._cutter.do_ahead(connection, extent, end):
                return Step(None, held, is_more=True)
            cut = self._cutter.cut(connection, extent, end, own_folds, now_ns)
        return Step(cut, held, is_more=True)

    def _end_before_open(
        self, connection: apsw.Connection, extent: Extent, choice: "_Choice", end: int
    ) -> tuple[int | None, Held | None]:
        """Return the end of what may go before the first event of an open session."""
        if not bring_up_here(connection, self._lifecycle, extent, extent.last):
            # Another version was here just now, so it is not known which are.
            return None, Held(self._lifecycle.names[0], extent.cut)
        session = held_by_session(connection, "main", extent, end)
        return choice.end(connection, extent, at_most=session)

    def is_far_behind(self, wanted: Wanted, now_ns: int) -> bool:
        """Tell whether by the rule several blocks should have gone already."""
        rule = wanted.rule
        with self._database.read() as connection:
            extent = read_extent(connection)
            if rule.keep_bytes is None:
                ends = ends_due(connection, extent, rule, now_ns, sealed_only=True)
                return len(list(islice(ends, _BLOCKS_BEHIND))) == _BLOCKS_BEHIND
            pages = pages_of(connection)
            each = pages.used_bytes // max(1, extent.event_count(extent.cut, extent.last))
            block_bytes = min(each * limits.BLOCK_EVENTS_MAX, 2 * limits.BLOCK_DATA_MAX)
            return is_too_large(pages, rule.keep_bytes + _BLOCKS_BEHIND * block_bytes)

    def erase(self, wait_seconds: float = 0) -> bool:
        """Overwrite what is left of deleted texts and empty the -wal; tell whether it is done."""
        return erase(self._database, wait_seconds)

    def give_back_some(self, wait_ms: int) -> bool:
        """Give back a few pages, if there are many to give back; tell whether there still are."""
        with self._database.read() as connection:
            is_worth_it = is_worth_giving_back(pages_of(connection))
        if is_worth_it:
            with self._database.write(wait_ms) as connection:
                give_back_some(connection)
                is_worth_it = is_worth_giving_back(pages_of(connection))
        return is_worth_it

    def forget_some_keys(self, span_ns: int, now_ns: int, wait_ms: int = BUSY_TIMEOUT_MS) -> int:
        """Forget those of the next thousand keys that are old and stand for pruned events.

        Returns:
            how many. After the last key it begins anew with the first one.
        """
        with self._database.read() as connection:
            cut = read_extent(connection).cut
            rows: list[Any] = connection.execute(
                "SELECT rowid, used_at < ? AND ifnull(last_seq, 0) <= ? FROM append_key"
                " WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (max(_NS_MIN, now_ns - span_ns), cut, self._keys_after, _KEYS_AT_ONCE),
            ).fetchall()
        self._keys_after = rows[-1][0] if len(rows) == _KEYS_AT_ONCE else 0
        gone = [rowid for rowid, is_old in rows if is_old]
        if gone:
            with self._database.write(wait_ms) as connection:
                connection.execute(
                    "DELETE FROM append_key WHERE rowid IN (SELECT value FROM json_each(?))",
                    (to_json(gone).decode(),),
                )
        return len(gone)

    def _forget_keys(self, span_ns: int, now_ns: int) -> int:
        self._keys_after = 0
        count = self.forget_some_keys(span_ns, now_ns)
        while self._keys_after:
            count += self.forget_some_keys(span_ns, now_ns)
        return count

    def _own_folds(self) -> list[OwnFold]:
        return self._projections.own_folds()

    def _is_folded(self, wanted: Wanted, up_to: int, wait_ms: int, *, by_itself: bool) -> bool:
        """Fold up to a position; tell whether it has come so far, or near enough for a cut."""
        fold = self._lifecycle
        if is_of_another_version(self._database, fold):
            if not by_itself:
                rebuild_one(self._database, fold)
                return True
            if not wanted.keep_open:
                return True
            begin_anew(self._database, fold, wait_ms)  # it has to be known which sessions are open
        events_max = _FOLDED_BY_ITSELF_MAX if by_itself else None
        # Each append brings new events, so the last of them are folded by the cut.
        behind_max = _FOLDED_BY_ITSELF_MAX if by_itself and wanted.keep_open else 0
        return bring_up(
            self._database,
            fold,
            up_to,
            wait_ms=wait_ms,
            events_max=events_max,
            behind_max=behind_max,
        )

    def _before_cut(
        self, fold: OwnFold, extent: Extent, up_to: int, wait_ms: int, *, by_itself: bool
    ) -> "Step | None":
        """Fold an application's projection; return what there is to say if no cut can be made now.

        One that fails is at its checkpoint, which holds the rest back. Where it has none of this
        version, it has taken nothing yet, and needs all that is there.
        """
        held = Held(fold.names[0], extent.cut)
        of_version = fold.names[0], fold.version
        if by_itself and of_version in self._failing and not has_begun(self._database, fold):
            return Step(None, held, is_more=False)  # to try it again each time would take long
        try:
            if not is_of_another_version(self._database, fold):
                events_max = _OWN_FOLDED_BY_ITSELF_MAX if by_itself else None
                is_folded = bring_up(
                    self._database, fold, up_to, wait_ms=wait_ms, events_max=events_max
                )
                return None if is_folded else Step(None, None, is_more=True)
            rebuild_one(self._database, fold, wait_ms=wait_ms)
        except FoldError:
            if not has_begun(self._database, fold):
                self._failing.add(of_version)
                return Step(None, held, is_more=False)
        return None

    def _check(self, connection: apsw.Connection, extent: Extent, wanted: Wanted) -> None:
        """Refuse to prune what was shipped from another journal, and to give up what is not there.

        Raises:
            ClosedCopyError: it is a copy that was made for good.
            ValueError: it is so.
        """
        check_not_closed(connection, self._database.path)  # which a dry run opens all the same
        if wanted.shipped is not None:
            check_shipped(connection, extent, wanted.shipped)
        known = {*checkpoints(connection, extent), *self._lifecycle.names}
        known.update(fold.names[0] for fold in self._own_folds())
        for name in wanted.give_up:
            if name not in known:
                message = f"give_up: there is no projection or subscription {name!r}"
                raise ValueError(message)

    def _planned_ends(
        self, connection: apsw.Connection, extent: Extent, wanted: Wanted, now_ns: int
    ) -> tuple[list[int], Held | None]:
        """Return the ends of the blocks that would go, and what holds back the next one."""
        names = {fold.names[0] for fold in self._own_folds()} | wanted.give_up
        held = held_by_name(connection, extent, names)
        ends = list(ends_due(connection, extent, wanted.rule, now_ns))
        if wanted.rule.keep_bytes is not None:
            before = pages_of(connection)
            here = extent.event_count(extent.cut, extent.last)
            count = 0
            while count < len(ends) and is_too_large(
                _pages_after(before, extent.event_count(extent.cut, ends[count - 1]), here)
                if count
                else before,
                wanted.rule.keep_bytes,
            ):
                count += 1
            ends = ends[:count]
        may_go = [end for end in ends if held is None or end <= held.position]
        return may_go, held if len(may_go) < len(ends) else None


class Step(NamedTuple):
    """What one step of pruning did."""

    cut: Cut | None
    held: Held | None
    """What holds back the rest."""
    is_more: bool
    """Whether another one may have something to do."""


class _Choice(NamedTuple):
    """How far one cut goes."""

    wanted: Wanted
    now_ns: int
    events_max: int
    by_itself: bool

    def end(
        self,
        connection: apsw.Connection,
        extent: Extent,
        names: Collection[str] = (),
        *,
        at_most: Held | None = None,
    ) -> tuple[int | None, Held | None]:
        """Return where it ends, None where nothing may go; and what holds back the next block.

        `names` are to come so far before the cut is made; `at_most` holds it back, too.
        """
        rule = self.wanted.rule
        if rule.keep_bytes is not None and not is_too_large(pages_of(connection), rule.keep_bytes):
            return None, None
        ends = ends_due(connection, extent, rule, self.now_ns, sealed_only=self.by_itself)
        held = held_by_name(connection, extent, {*names, *self.wanted.give_up})
        holding = [each for each in (held, at_most) if each is not None]
        lowest = min(holding, key=lambda each: each.position, default=None)
        end = end_of_fold(connection, extent.cut, extent.cut + self.events_max)
        return last_within(ends, lowest, end)


def _pages_after(before: Pages, gone: int, here: int) -> Pages:
    """Estimate the pages once some of the events are gone."""
    used = before.page_count - before.free_count
    free = before.free_count + (used * gone // here if here else 0)
    after = before._replace(free_count=free)
    if is_worth_giving_back(after):
        return before._replace(page_count=before.page_count - free, free_count=0)
    return after


def _gone(up_to: int) -> Absence:
    return Absence(1, up_to, "pruned", None, None)
