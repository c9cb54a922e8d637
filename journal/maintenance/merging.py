"""Merging: one journal that has the events of many, each once, and says where it has them from.

All sources are looked at and checked before anything is written. Then what is not there yet is
placed after the last event, journal by journal, in the order that it has there.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from journal import errors
from journal.file import forking
from journal.file.connections import Database
from journal.file.paths import absolute
from journal.maintenance.histories import Block, History, Interval, Key, branches_of
from journal.maintenance.placement import Merging
from journal.maintenance.provenance import MergedOrigin, is_complete, merged_origins
from journal.maintenance.rewriting import rewrite as rewrite_fleet
from journal.maintenance.sources import Part, Source, files_of, inspected

Progress = Callable[[int, int], None]
"""Is told how many events are done, and of how many."""


class WaitingPart(BaseModel):
    """Events of a source that cannot be placed as things are; `rewrite=True` places them.

    Either later ones of their journal are there already, or they are there with texts redacted that
    the source has. `positions` are ranges, both ends inclusive, in that journal.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    journal_id: UUID
    label: str | None
    reason: Literal["later ones are there", "they are redacted there"]
    positions: tuple[tuple[int, int], ...]


class Merged(BaseModel):
    """What merging has done, and what the merged journal has now."""

    model_config = ConfigDict(frozen=True)

    path: Path
    source_count: int
    added_count: int
    """How many events were added."""
    known_count: int
    """How many events of the sources were there already, counted for each source."""
    rewritten: bool
    waiting: tuple[WaitingPart, ...]
    skipped: tuple[Path, ...]
    """The files in folders that are no journals."""
    origins: tuple[MergedOrigin, ...]
    """Which journals it has, and what is missing of each."""

    @property
    def complete(self) -> bool:
        """Whether nothing waits, and no journal has two histories."""
        return not self.waiting and is_complete(self.origins)


def merge(
    fleet: str | PathLike[str],
    sources: str | PathLike[str] | Iterable[str | PathLike[str]],
    *more: str | PathLike[str],
    rewrite: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Merge the events of other journals into one, which is made if it is not there.

    An event is known by the journal that it was appended to, the branch of its history, and its
    position there. So sources may come in any order, twice, and overlap; merging again adds
    nothing, and after an interruption it goes on. Each journal's events keep their order; journals
    follow each other as they come. What a source says is absent is absent; positions that are
    missing without that are listed as waiting, and so are events that come when later ones of
    their journal are placed already.

    Where two files tell different histories of one journal, both are kept: what came first under
    the branch "", the other under the digest of the first event that differs.

    Args:
        fleet: the merged journal; it may have events of its own.
        sources: files, or folders with files: shipments, deltas, journals that are closed, and
            merged journals.
        more: further sources.
        rewrite: where something waits that the sources have, make the merged journal anew with it,
            in order. It gets other positions, and so an id of its own; its label stays, and its
            idempotency keys stand for the same events. Checkpoints of subscriptions are not taken
            over: they begin anew. What was pruned from the merged journal comes back, so the
            sources have to have all of it. Nobody else may have it open.
        progress: is called with the number of events done and the number to do; each counts twice
            or more, as they are checked before anything is written.

    Raises:
        WrongTargetError: a source is the merged journal itself.
        OpenSourceError: a source is in use, or was not closed.
        JournalNotFoundError, NotADatabaseError, NotAJournalError, NewerFormatError,
            AccessDeniedError, DamagedError: a source is not there or not sound, or the merged
            journal is not.
        ClosedCopyError: the merged journal is a shipped or recovered file.
        FileReplacedError: a source was changed meanwhile.
        PrunedFleetError: of what was pruned from the merged journal, `rewrite` found something in
            no source: states, versions and counts would be lost. It was not made anew.
        StorageFullError, StorageError, BusyError: the merged journal cannot be written. What was
            placed before is there, and merging again goes on.
    """
    path = absolute(fleet)
    wanted = [sources] if isinstance(sources, str | PathLike) else list(sources)
    named, in_folders = files_of([*wanted, *more], path)
    report = _Report(progress)
    is_there = path.exists() and path.stat().st_size > 0  # an empty file is none yet
    with _opened(path) if is_there else nullcontext() as database:
        looked_at, skipped = _inspected(database, named, in_folders, report)
        total = sum(source.event_count for source in looked_at)
        if not looked_at:
            where = absolute(wanted[0]) if wanted else path
            raise errors.JournalNotFoundError(where, "has no journals to merge")
        if database is None and not total:
            raise errors.NotAJournalError(
                looked_at[0].path, "has no events, nor has another source"
            )
        report.begin_placing(total)
        with _opened(path) if database is None else nullcontext(database) as into:
            merging = Merging(into, looked_at, report.take)
            merging.run()
    added_count = merging.added_count
    parts = [part for source in looked_at for part in source.parts]
    is_rewritten = rewrite and any(part.waiting or part.originals for part in parts)
    if is_rewritten:
        added, parts = rewrite_fleet(path, looked_at, report)
        added_count += max(0, added)  # what was there twice is there once
    report.end()
    origins = _origins(path)
    late = sum(last - first + 1 for part in parts for first, last in part.waiting)
    return Merged(
        path=path,
        source_count=len(looked_at),
        added_count=added_count,
        known_count=total - added_count - late,
        rewritten=is_rewritten,
        waiting=tuple(waiting for part in parts for waiting in _waiting(part)),
        skipped=tuple(skipped),
        origins=origins,
    )


def _origins(path: Path) -> tuple[MergedOrigin, ...]:
    with _opened(path, read_only=True) as database, database.read() as connection:
        return merged_origins(connection)


@contextmanager
def _opened(path: Path, *, read_only: bool = False) -> Iterator[Database]:
    database = Database(path, read_only=read_only, durability="full")
    try:
        yield database
    finally:
        database.close()


class _Report:
    """Makes one progress of looking at all sources and placing what they have."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = self._total = 0

    def expect(self, count: int) -> None:
        """Know of so many events more: each is to be looked at, and to be placed."""
        self._total += 2 * count

    def begin_placing(self, total: int) -> None:
        """Know how many events there are in the sources: all were looked at."""
        self._done, self._total = total, 2 * total

    def take(self, count: int) -> None:
        """Count so many events more."""
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    def end(self) -> None:
        """Say that all is done: what was there already needed no placing."""
        if self._progress is not None:
            self._progress(self._total, self._total)


def _inspected(
    database: Database | None, named: list[Path], in_folders: list[Path], report: _Report
) -> tuple[list[Source], list[Path]]:
    """Look at all sources; those in folders that are no journals are left out and returned."""
    found: list[Source] = []
    skipped: list[Path] = []
    with _known_to(database) as is_known:
        for path in (*named, *in_folders):
            try:
                found.append(inspected(path, is_known, report))
            except (errors.NotADatabaseError, errors.NotAJournalError):
                if path in named:
                    raise
                skipped.append(path)
    return found, skipped


@contextmanager
def _known_to(database: Database | None) -> Iterator[Callable[[Key, Block], bool]]:
    """Lend what tells whether the merged journal has a block already."""
    if database is None:
        yield lambda _key, _block: False
        return
    with database.aside_to_read() as connection:
        histories: dict[str, list[History]] = {}

        def is_known(key: Key, block: Block) -> bool:
            with forking.inside_sqlite():
                if key[0] not in histories:
                    histories[key[0]] = branches_of(connection, key[0])
                return any(it.block_at(block.first) == block for it in histories[key[0]])

        with database.inside():
            connection.execute("BEGIN")
        yield is_known


def _waiting(part: Part) -> Iterator[WaitingPart]:
    """Yield what waits of a part, for each reason."""
    reasons: dict[Literal["later ones are there", "they are redacted there"], list[Interval]] = {
        "later ones are there": part.waiting,
        "they are redacted there": part.originals,
    }
    for reason, positions in reasons.items():
        if positions:
            yield WaitingPart(
                path=part.path,
                journal_id=UUID(part.key[0]),
                label=part.label,
                reason=reason,
                positions=tuple(positions),
            )
