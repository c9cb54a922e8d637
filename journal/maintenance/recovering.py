"""Recovering: a new file out of what is left of a damaged one."""

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import apsw
from pydantic import BaseModel, ConfigDict

from journal import errors
from journal.file import forking
from journal.file.connections import translated
from journal.file.identity import APPLICATION_ID, FORMAT_VERSION, check_sqlite, meta
from journal.file.opening import open_reader, overwrite_deleted
from journal.file.paths import absolute, beside, check_readable, resolved, uri_of
from journal.maintenance.gathering import gather, page_size_of
from journal.maintenance.pages import PAGE_SIZES
from journal.maintenance.salvaging import Salvage
from journal.maintenance.targets import check_room, check_target, put_in_place, work_folder
from journal.maintenance.verifying import Verification, verify
from journal.maintenance.wal_frames import lay_over
from journal.maintenance.writing import close_copy, drop_wrong_keys, fold_copy, write_salvaged

Progress = Callable[[int, int], None]
"""Is told how many pages of the damaged file are done, and how many it has."""

_RANGES_MAX: Final = 1_000
_PIECE_BYTES: Final = 1024 * 1024
_UNREADABLE_BYTES: Final = 4096
_HEADER_BYTES: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_JOURNAL_ID: Final = re.compile(rb"journal_id([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_STEPS_BETWEEN_SIGNALS: Final = 200_000


class PositionRange(NamedTuple):
    """Positions that follow each other, both ends inclusive."""

    first: int
    last: int


class Recovery(BaseModel):
    """What was recovered from a damaged file, and what was not.

    Every event in the new file is `proven` by the digest of its block, or `unproven`: nothing
    speaks against it. The new file has the same in its table `recovered`, and in
    `recovered_apart` the rows that were found and not believed.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    """The new file."""
    source: Path
    """The damaged one."""
    with_wal: bool
    """Whether the -wal beside it was of use."""
    journal_id: UUID
    head: str | None
    """The digest at the last position, as POSITION:DIGEST, where it can be told."""
    first_position: int | None
    last_position: int
    event_count: int
    proven_count: int
    unproven_count: int
    lost_count: int
    """How many positions have no event any more that had one in the damaged file."""
    apart_count: int
    """How many rows were found and not believed, also where there is another in their place."""
    apart_after_count: int
    """How many of them have a position after the last one."""
    unproven: tuple[PositionRange, ...]
    """The first thousand ranges."""
    lost: tuple[PositionRange, ...]
    """The first thousand ranges."""
    rebuilt: dict[str, int]
    """How much was made anew, by what it is: heads, links, ids, blocks, kinds, facts."""

    @property
    def is_complete(self) -> bool:
        """Whether no event is missing, as far as the file tells."""
        return not self.lost_count and not self.apart_after_count


def recover(
    damaged: str | PathLike[str],
    out: str | PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Recovery:
    """Make a new file, which opens and verifies, out of what is left of a damaged journal.

    The damaged file is only read, with its -wal and without: what proves more blocks counts. Where
    SQLite cannot read all of it, its pages are read without SQLite. What the digest of a block
    proves is believed. Events that no digest speaks for stay, as unproven, where nothing speaks
    against them, and nothing in the file shows that anything was changed and not only lost. All
    else goes into the table `recovered_apart` of the new file. Positions are kept, and what is
    missing is declared `absent`. The new file is a closed copy: nothing can be appended to it.

    Nobody should write to the damaged file meanwhile. It takes up to three times its size beside
    `out`, and temporary storage of SQLite. An interrupt leaves everything as it was.

    Args:
        damaged: the file; a -wal beside it is found by its name.
        out: where the new file is to be.
        force: it may take the place of a file that is there.
        progress: is called with the number of its pages that are done, and of those it has.

    Returns:
        what was recovered, and what was not.

    Raises:
        DamagedError: there is no event in it that could be recovered; no file is made.
        NewerFormatError: it is of a format that this version cannot read.
        JournalNotFoundError, PathIsDirectoryError, AccessDeniedError: there is no file to read, or
            no folder for the new one.
        TargetExistsError, WrongTargetError: a file is there already, or it is the damaged one.
        StorageFullError, StorageError: there is no room, or the operating system fails.
    """
    check_sqlite(apsw.sqlite_lib_version())
    source = absolute(damaged)
    check_readable(source)
    target = check_target(out, [source], force=force)
    real = resolved(source)
    wal = beside(real, "-wal")
    check_room(target, 2 * real.stat().st_size)
    with work_folder(target) as folder:
        images = _Images(folder, real, wal, source)
        report = _Report(progress, images.page_count)
        new = folder / "new"
        with translated(target):
            found = _recovered(images, new, source, report)
        report.begin(1.0)
        report(1, 1)
        put_in_place(new, target, force=force)
    return found.model_copy(update={"path": target, "source": source})


class _Report:
    """Passes on how far the parts of the work have come, as pages of the file."""

    def __init__(self, progress: Progress | None, page_count: int) -> None:
        self._progress = progress
        self._page_count = page_count
        self._from = self._to = 0.0

    def begin(self, up_to: float) -> None:
        """Begin a part, at the end of which so much is done, of 1.0."""
        self._from, self._to = self._to, up_to

    def __call__(self, done: int, total: int) -> None:
        if self._progress is not None:
            share = self._from + (self._to - self._from) * done / max(total, done, 1)
            self._progress(int(self._page_count * share), self._page_count)


class _Images:
    """Copies of the damaged file: alone, and with its -wal laid over it."""

    def __init__(self, folder: Path, real: Path, wal: Path, source: Path) -> None:
        self.alone = folder / "alone"
        self.both: Path | None = None
        _copy(real, self.alone, source)
        with self.alone.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        said = int.from_bytes(header[16:18]) if header.startswith(_MAGIC) else 0
        self._said = 65536 if said == 1 else said
        self.page_count = -(-self.alone.stat().st_size // (self._said or PAGE_SIZES[0]))
        if not _is_there(wal):
            return
        frames, both = folder / "wal", folder / "both"
        _copy(wal, frames, source)
        _copy(self.alone, both, source)
        if lay_over(both, frames, self.page_size) and not _are_of_two(self.alone, both):
            self.both = both

    @cached_property
    def page_size(self) -> int:
        """How long the pages are, in bytes."""
        return page_size_of(self.alone, self._said)


def _is_there(wal: Path) -> bool:
    try:
        return wal.stat().st_size > 0
    except OSError:
        return False


def _copy(file: Path, to: Path, source: Path) -> None:
    """Copy a file; what the disk does not give is zeros in the copy.

    Raises:
        OSError: of the copy.
        StorageError: of the file, where it cannot be read at all.
    """
    with _reading(source), file.open("rb", buffering=0) as reading:
        size = os.fstat(reading.fileno()).st_size
        with to.open("wb") as writing:
            for at in range(0, size, _PIECE_BYTES):
                writing.write(_piece(reading, at, min(_PIECE_BYTES, size - at)))


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise errors.StorageFullError(source, "cannot be copied: the disk is full") from error
        reason = f"cannot be copied: {error.strerror or error}"
        raise errors.StorageError(source, reason, errno=error.errno) from error


def _piece(reading: Any, at: int, size: int) -> bytes:
    try:
        piece = _read_at(reading, at, size)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        if size <= _UNREADABLE_BYTES:
            return bytes(size)
        step = _UNREADABLE_BYTES
        smaller = range(at, at + size, step)
        return b"".join(_piece(reading, it, min(step, at + size - it)) for it in smaller)
    return piece.ljust(size, b"\0")


def _read_at(reading: Any, at: int, size: int) -> bytes:
    reading.seek(at)
    piece: bytes = reading.read(size)
    return piece


def _are_of_two(alone: Path, both: Path) -> bool:
    """Tell whether the -wal is of another journal than the file."""
    one, other = _journal_ids(alone), _journal_ids(both)
    return bool(one and other) and not one & other


def _journal_ids(file: Path) -> set[bytes]:
    found = set()
    with file.open("rb") as reading:
        rest = b""
        while piece := reading.read(_PIECE_BYTES):
            found.update(_JOURNAL_ID.findall(rest + piece))
            rest = piece[-64:]
    return found


def _recovered(images: _Images, new: Path, source: Path, report: _Report) -> Recovery:
    """Make the new file."""
    report.begin(0.1)
    image = images.both or images.alone
    if _is_intact(image, new):
        verification = _closed(new, report)
        if verification.sound:
            return _result(new, verification, with_wal=images.both is not None)
    best = _salvaged(image, images.page_size, report)
    with_wal = images.both is not None
    if images.both is not None:
        other = _salvaged(images.alone, images.page_size, report)
        if (other.proven_blocks, other.event_count) > (best.proven_blocks, best.event_count):
            best, with_wal = other, False
            if _is_intact(images.alone, new):
                verification = _closed(new, report)
                if verification.sound:
                    return _result(new, verification, with_wal=False)
    _check_format(image, best, source)
    if not best.event_count:
        raise errors.DamagedError(source, "has nothing of a journal in it that could be recovered")
    with forking.inside_sqlite():
        write_salvaged(best, new)
        with suppress(errors.DamagedError):  # verifying finds the same
            drop_wrong_keys(new)
    report.begin(0.8)
    verification = _closed(new, report)
    if not verification.sound:
        first = verification.findings[0].text
        reason = f"cannot be recovered: what was made of it is not sound ({first})"
        raise errors.DamagedError(source, reason)
    lost = [PositionRange(*it) for it in best.lost()]
    return _result(new, verification, with_wal=with_wal, lost=lost)


def _is_intact(image: Path, new: Path) -> bool:
    """Copy a file by SQLite, if it can read all of it; whether it is sound is to be seen."""
    new.unlink(missing_ok=True)
    try:
        with (
            forking.inside_sqlite(),
            closing(open_reader(uri_of(image, mode="ro", immutable=1), image)) as connection,
        ):
            if connection.pragma("user_version") < FORMAT_VERSION:
                return False
            connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)
            overwrite_deleted(connection)  # also in the copy
            connection.execute("VACUUM INTO ?", (str(new),))
    except (apsw.FullError, errors.NewerFormatError):
        raise
    except (apsw.Error, errors.JournalError, UnicodeDecodeError):
        new.unlink(missing_ok=True)
        return False
    return True


def _closed(new: Path, report: _Report) -> Verification:
    """Make a closed copy of a file that was made, verify it, and fold it if it is sound."""
    with forking.inside_sqlite(), suppress(apsw.CorruptError, errors.DamagedError):
        close_copy(new)  # verifying finds the same
    report.begin(0.9)
    verification = verify(new, full=True, progress=report)
    if verification.sound:  # not before: verifying would fold it once more
        report.begin(1.0)
        fold_copy(new, report)
    return verification


def _salvaged(image: Path, page_size: int, report: _Report) -> Salvage:
    with forking.inside_sqlite():
        scratch = apsw.Connection("")  # in temporary storage, and gone when it is closed
        scratch.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)  # Ctrl-C ends it
        scratch.pragma("journal_mode", "off")
        scratch.pragma("synchronous", "off")
        salvage = Salvage(scratch)
    report.begin(0.5)
    gather(scratch, image, page_size, report)
    report.begin(0.7)
    with forking.inside_sqlite():
        salvage.decide(report)
    return salvage


def _check_format(image: Path, salvage: Salvage, source: Path) -> None:
    """Refuse a format that this version cannot read.

    Raises:
        NewerFormatError: it is so; where only the number was damaged, `meta` says otherwise.
    """
    with image.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    found, application_id = (int.from_bytes(header[at : at + 4]) for at in (60, 68))
    is_ours = header.startswith(_MAGIC) and application_id == APPLICATION_ID
    if not is_ours or found <= FORMAT_VERSION:
        return
    needed = salvage.fact("min_reader_version")
    if needed is not None and needed not in map(str, range(1, FORMAT_VERSION + 1)):
        raise errors.NewerFormatError(source, expected=FORMAT_VERSION, found=found)


def _result(
    new: Path,
    verification: Verification,
    *,
    with_wal: bool,
    lost: Sequence[PositionRange] = (),
) -> Recovery:
    """Return what is to be said of a file that was made."""
    target = uri_of(new, mode="ro", immutable=1)
    with forking.inside_sqlite(), closing(open_reader(target, new)) as connection:
        unproven: Any = connection.execute(
            "SELECT first_seq, last_seq FROM recovered WHERE what = 'unproven' ORDER BY 1 LIMIT ?",
            (_RANGES_MAX,),
        )
        rebuilt: Any = connection.execute(
            "SELECT substr(what, 9), count FROM recovered WHERE what LIKE 'rebuilt %'"
        )
        counts: Any = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE seq > ?) FROM recovered_apart",
            (verification.last_position or 0,),
        ).fetchone()
        apart, after = counts
        return Recovery(
            path=new,
            source=new,
            with_wal=with_wal,
            journal_id=UUID(meta(connection, "journal_id")),
            head=verification.head,
            first_position=verification.first_position,
            last_position=verification.last_position or 0,
            event_count=verification.event_count,
            proven_count=verification.proven_count + verification.redacted_count,
            unproven_count=verification.uncovered_count,
            lost_count=sum(last - first + 1 for first, last in lost),
            apart_count=apart,
            apart_after_count=after,
            unproven=tuple(PositionRange(*row) for row in unproven),
            lost=tuple(lost[:_RANGES_MAX]),
            rebuilt=dict(rebuilt),
        )
