"""What is to be merged: files, each looked at and checked before anything is written."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Final, Protocol

import apsw

from journal import errors
from journal.file import forking
from journal.file.blocks import chained
from journal.file.connections import Database
from journal.file.identity import FORMAT_VERSION, meta
from journal.file.names import kinds_of
from journal.file.paths import absolute, beside, check_readable, resolved
from journal.maintenance.histories import (
    Block,
    Gap,
    History,
    Interval,
    Key,
    histories_of,
    joined,
    minus,
)

_COMPANIONS: Final = ("-wal", "-shm", "-journal", ".manifest.json")


class Report(Protocol):
    """Is told how far looking at sources and placing what they have has come."""

    def expect(self, count: int) -> None:
        """Know of so many events more."""

    def take(self, count: int) -> None:
        """Know that so many more were looked at or placed."""


IsKnown = Callable[[Key, Block], bool]
"""Tells whether a block needs no look: it was checked when it was merged before."""


@dataclass
class Part:
    """What a source has of one journal, or of one branch of it."""

    path: Path
    key: Key
    label: str | None
    held: list[Interval]
    """The positions of its events, as they are in that journal."""
    held_in_line: list[Interval]
    """The same, and those of the branches that it parted from."""
    smallest_ns: int
    """The earliest time in its first block, for a good order of the journals."""
    head: str
    is_redacted: bool
    branch: str | None = None
    """The branch that it belongs to in the merged file, once that is known."""
    parting: Gap | None = None
    """Where that parts from another one, if it is new."""
    waiting: list[Interval] = field(default_factory=list)
    """The positions that could not be placed, as later ones were."""
    originals: list[Interval] = field(default_factory=list)
    """Those of blocks that are redacted in the merged file, and not in this one."""


@dataclass
class Source:
    """A file that was looked at and found sound."""

    path: Path
    stamp: tuple[int, int]
    parts: list[Part]
    event_count: int


def files_of(sources: Iterable[str | PathLike[str]], fleet: Path) -> tuple[list[Path], list[Path]]:
    """Return the files that are to be merged, and those in folders that may not be journals.

    Raises:
        WrongTargetError: one is the merged file itself.
        JournalError: one is not there.
    """
    named: dict[Path, None] = {}
    in_folders: dict[Path, None] = {}
    for source in sources:
        path = absolute(source)
        if path.is_dir():
            in_folders.update(dict.fromkeys(_in_folder(path, fleet)))
        else:
            check_readable(path)
            if _is_same(path, fleet):
                raise errors.WrongTargetError(
                    fleet, "is the very file that is to be merged into it"
                )
            named[path] = None
    return list(named), [path for path in in_folders if path not in named]


def _in_folder(folder: Path, fleet: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        reason = f"cannot be read: {(error.strerror or str(error)).lower()}"
        raise errors.AccessDeniedError(Path(error.filename), reason, errno=error.errno)

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or name.endswith(_COMPANIONS) or not path.is_file():
                continue
            if not _is_same(path, fleet):
                yield path


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return resolved(path) == resolved(other)


@contextmanager
def opened(path: Path) -> Iterator[apsw.Connection]:
    """Lend a connection that sees one moment of a source.

    Raises:
        OpenSourceError: it has a -wal.
        JournalError: it cannot be read, or is not a journal of this format.
    """
    check_readable(path)
    _check_no_wal(path)
    database = Database(path, read_only=True, durability="full")
    try:
        with database.aside_to_read() as connection:
            with database.inside():
                connection.execute("PRAGMA temp.journal_mode = OFF")
                connection.execute("BEGIN")
                version = connection.pragma("user_version")
            if version > FORMAT_VERSION:
                raise errors.NewerFormatError(path, expected=FORMAT_VERSION, found=version)
            if version < FORMAT_VERSION:
                reason = f"has format {version}, which was never released"
                raise errors.NotAJournalError(path, reason)
            yield connection
    finally:
        database.close()


def _check_no_wal(path: Path) -> None:
    try:
        size_bytes = beside(resolved(path), "-wal").stat().st_size
    except OSError:
        return
    if size_bytes:
        raise errors.OpenSourceError(path)


def stamp_of(path: Path) -> tuple[int, int]:
    """Return what changes when a file that has no -wal is written to."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def inspected(path: Path, is_known: IsKnown, report: Report) -> Source:
    """Look at all of a source, and check every block that is not known.

    Raises:
        DamagedError: it is not what was appended.
        JournalError: those of `opened`.
    """
    stamp = stamp_of(path)
    with opened(path) as connection:
        with forking.inside_sqlite():
            kinds_of(connection)
            histories = histories_of(connection)
        may_be_unproven = meta(connection, "closed") == "recover"
        found = []
        for history in histories:
            with forking.inside_sqlite():
                found.append((history, history.held()))
        count = sum(last - first + 1 for _, held in found for first, last in held)
        report.expect(count)
        parts = []
        for history, held in found:
            if not held:
                continue
            may_be_so = may_be_unproven or not history.is_own
            is_redacted = _check(connection, history, held, is_known, report, may_be_so)
            with forking.inside_sqlite():
                parts.append(_part(path, history, held, is_redacted=is_redacted))
    return Source(path, stamp, parts, count)


def _part(path: Path, history: History, held: list[Interval], *, is_redacted: bool) -> Part:
    block = next(history.blocks(), None)
    return Part(
        path=path,
        key=history.key,
        label=history.label(),
        held=held,
        held_in_line=history.held_in_line(),
        smallest_ns=0 if block is None else block.smallest_ns,
        head=history.digest_at(held[-1].last) or "",
        is_redacted=is_redacted,
    )


def _check(
    connection: apsw.Connection,
    history: History,
    held: list[Interval],
    is_known: IsKnown,
    report: Report,
    may_be_unproven: bool,  # noqa: FBT001 (all are what it checks)
) -> bool:
    """Hold the events of a history against its blocks; tell whether a text was redacted.

    Raises:
        DamagedError: they are not what they were.
    """
    before: Block | None = None
    covered: list[Interval] = []
    is_redacted = False
    for block in blocks_of(history):
        with forking.inside_sqlite():
            check_block(connection, history, held, block, before, is_known(history.key, block))
        is_redacted |= block.salt is None
        covered = joined(iter((*covered, Interval(block.first, block.last))))
        report.take(block.last - block.first + 1)
        before = block
    uncovered = minus(held, covered)
    is_open = before is not None and not before.sealed
    if is_open and uncovered and uncovered[-1].first == before.last + 1:  # type: ignore[union-attr]
        uncovered.pop()
    if uncovered and not may_be_unproven:
        what = f"is damaged: no block has the event at position {uncovered[0].first}"
        raise errors.DamagedError(connection.filename, what, uncovered[0].first)
    return is_redacted


def blocks_of(history: History) -> Iterator[Block]:
    """Yield the blocks of a history, and be inside SQLite only while one is read."""
    blocks = history.blocks()
    while True:
        with forking.inside_sqlite():
            block = next(blocks, None)
        if block is None:
            return
        yield block


def check_block(
    connection: apsw.Connection,
    history: History,
    held: list[Interval],
    block: Block,
    before: Block | None,
    is_known: bool,  # noqa: FBT001 (as above)
) -> None:
    """Hold a block against the one before it and, unless it is known, against its events.

    Raises:
        DamagedError: it does not follow, or its events are not what they were.
    """
    first, last = block.first, block.last
    if before is not None and before.last + 1 == first:
        digest: str | None = before.digest
    else:
        digest = history.digest_before(first)
    follows = digest is None or chained(digest, block.content_digest) == block.digest
    if not follows or (before is not None and first <= before.last):
        what = f"is damaged: the block from position {first} to {last} does not follow what is "
        raise errors.DamagedError(connection.filename, f"{what}before it", first)
    if is_known:
        return
    wanted = block.content_digest if block.salt is not None else block.redacted_digest
    content = history.content(first, last, block.salt or "")
    if content is None:
        if first <= history.begins_after:
            held = history.held_in_line()
        here = _count_in(held, first, last)
        is_right = here < last - first + 1 and here == sum(map(len, history.texts(first, last)))
    else:
        is_right = content == wanted
    if not is_right:
        what = f"is damaged: the events from position {first} to {last} are not what they were"
        raise errors.DamagedError(connection.filename, what, first)


def _count_in(intervals: list[Interval], first: int, last: int) -> int:
    """Return how many positions of a range are in some intervals."""
    return sum(
        min(last, it.last) - max(first, it.first) + 1
        for it in intervals
        if it.first <= last and it.last >= first
    )


class OpenSources:
    """Keeps the sources open that were read lately; a merged one has parts of many journals."""

    _MAX: Final = 4

    def __init__(self, stamps: dict[Path, tuple[int, int]]) -> None:
        self._stamps = stamps
        self._open: dict[Path, tuple[Any, apsw.Connection]] = {}

    def connection(self, path: Path) -> apsw.Connection:
        """Return a connection to a source, in a transaction.

        Raises:
            FileReplacedError: it is not what it was when it was looked at.
            JournalError: those of `opened`.
        """
        if path in self._open:
            entry = self._open.pop(path)
        else:
            while len(self._open) >= self._MAX:
                self._close(next(iter(self._open)))
            lender = opened(path)
            entry = lender, lender.__enter__()
        self._open[path] = entry
        self._check(path)
        return entry[1]

    def _check(self, path: Path) -> None:
        try:
            is_same = stamp_of(path) == self._stamps[path]
        except OSError:
            is_same = False
        if not is_same:
            reason = "was changed or moved while it was merged: merge it again"
            raise errors.FileReplacedError(path, reason)

    def _close(self, path: Path) -> None:
        lender, _ = self._open.pop(path)
        lender.__exit__(None, None, None)

    def close(self) -> None:
        """Close all."""
        for path in list(self._open):
            self._close(path)
