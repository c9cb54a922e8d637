"""Going on with a closed copy: a new journal that has all of it, and says where it came from."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import apsw
from pydantic import BaseModel, ConfigDict

from journal import errors, limits
from journal._version import VERSION
from journal.events.timestamps import text_from_epoch_ns
from journal.file import forking
from journal.file.blocks import ROWS_SQL, Tail, last_block
from journal.file.connections import Database, translated
from journal.file.extent import ABSENT_SQL, Absence, Extent, read_extent
from journal.file.identity import check_label, meta, set_meta
from journal.file.opening import open_copy
from journal.file.origins import Origin, has_origins, read_origins, write_origin
from journal.file.paths import absolute, check_readable
from journal.file.schema import events_view_sql
from journal.file.writers import forget_writers
from journal.maintenance.block_check import Progress
from journal.maintenance.copying import copy_moment
from journal.maintenance.keeping import keep_own
from journal.maintenance.targets import check_target, put_in_place, work_folder
from journal.maintenance.verifying import Verification, verify
from journal.projections.tables import have_our_shape, make_views

_COPIED: Final = 0.2
"""Roughly, how much of the time has passed when the copy is made; the rest is verifying it."""

_PAGES_AT_ONCE: Final = 1_000

_MODE: Final = 0o600  # as that of every new journal

# What a copy has for its readers, and what recovering tells in it.
_TABLES: Final = ("README", "manifest", "recovered", "recovered_apart", "sqlite_stat1")
_INDEXES_SQL: Final = """
SELECT name FROM sqlite_schema WHERE type = 'index' AND name GLOB 'read_*'
    AND tbl_name IN ('event', 'session', 'stream', 'block', 'projection_session',
        'projection_stream', 'projection_anomaly', 'projection_state')
"""


class Continued(BaseModel):
    """A journal that goes on from a copy of another one: what it is, and what it has so far.

    The last of `origins` is the journal that was copied, unless that had no events of its own;
    those before are the ones that it goes on from itself. `head` is the digest at the last
    position, as POSITION:DIGEST, which is that of the copy. It and positions are None where there
    are no events.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    journal_id: UUID
    label: str | None
    origins: tuple[Origin, ...]
    event_count: int
    first_position: int | None
    last_position: int | None
    head: str | None


def continue_copy(
    copy: str | PathLike[str],
    new: str | PathLike[str],
    *,
    label: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Continued:
    """Make a journal that goes on from a closed copy, under an id of its own.

    It has all that the copy has: events with their positions and blocks, versions of sessions,
    idempotency keys, states of projections. What the copy has only for its readers is left out. It
    says which ranges of positions came from which journal, so that nobody takes what is appended
    to it for events of that one. It is verified in full, and gets its name when it is complete and
    on the disk; whatever stops it before, there is nothing under that name. The copy stays as it
    is.

    Args:
        copy: a file that shipping or recovering made.
        new: the journal to be made, for its owner only.
        label: what people call the new one: 1 to 200 printable characters. None: as the old one.
        force: replace a file that is there.
        progress: is called with the number of events done and the number to do; each counts more
            than once, as copying and verifying take them one after the other.

    Raises:
        ValueError: `label` cannot be one.
        NotAClosedCopyError: `copy` is a journal itself.
        JournalNotFoundError, PathIsDirectoryError, NotADatabaseError, NotAJournalError,
            NewerFormatError, StaleWalError: `copy` is not there, or not a journal's.
        TargetExistsError, WrongTargetError: the file may not be made.
        StorageFullError, AccessDeniedError, StorageError: it cannot be made or read.
        DamagedError: the copy is not sound.
    """
    if label is not None:
        check_label(label)
    source = absolute(copy)
    check_readable(source)
    database = Database(source, read_only=True, durability="full")
    try:
        with database.read() as connection:
            if meta(connection, "closed") is None:
                raise errors.NotAClosedCopyError(source)
            last = read_extent(connection).last
        report = _Report(progress, last)
        target = check_target(new, [source], force=force)
        with work_folder(target) as folder:
            made = folder / "copy"
            copy_moment(database, made, target, report.copied)
            with _told_of(source, target):
                continued = _made(made, label, report)
                made.chmod(_MODE)
            put_in_place(made, target, force=force)
    finally:
        database.close()
    return continued.model_copy(update={"path": target})


class _Report:
    """Makes one progress of copying and verifying."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total

    def _tell(self, share: float) -> None:
        if self._progress is not None:
            self._progress(int(share * self._total), self._total)

    def copied(self, share: float) -> None:
        self._tell(share * _COPIED)

    def verified(self, done: int, total: int) -> None:
        self._tell(_COPIED + (1.0 - _COPIED) * (done / total if total else 1.0))


@contextmanager
def _told_of(source: Path, target: Path) -> Iterator[None]:
    """Say of the copy what damage is found in it, and of the new file what else fails."""
    try:
        with translated(target):
            yield
    except errors.DamagedError as error:
        raise errors.DamagedError(source, error.what, error.position) from error


def _made(made: Path, label: str | None, report: _Report) -> Continued:
    """Make a journal of a copy that nobody else has, and verify it.

    Raises:
        DamagedError: it is not sound.
    """
    connection = open_copy(made)
    try:
        with forking.inside_sqlite(), connection:
            _become_new(connection, label)
            _forget_readers(connection)
        while connection.pragma("freelist_count"):
            with forking.inside_sqlite():  # fetched to the end: it is a page with each step
                connection.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
        label, origins = meta(connection, "label"), read_origins(connection)
        journal_id = _journal_id(connection)
    finally:
        connection.close()
    # As every journal is: with all kinds that are known, and ready for several to open it.
    Database(made, read_only=False, durability="normal").close()
    found = verify(made, full=True, progress=report.verified)
    if not found.sound:
        first = found.findings[0]
        raise errors.DamagedError(made, f"is damaged: {first.text}", first.position)
    return _result(found, journal_id, label, origins)


def _become_new(connection: apsw.Connection, label: str | None) -> None:
    """Give the file an id of its own, and say where its positions came from."""
    extent = read_extent(connection)
    _seal(connection, extent)
    own = keep_own(connection)
    for first, last in own:
        origin = Origin(
            first_position=first,
            last_position=last,
            journal_id=_journal_id(connection),
            branch="",
            label=meta(connection, "label"),
            source_first_position=first,
        )
        write_origin(connection, origin)
    connection.execute("DELETE FROM meta WHERE key IN ('closed', 'wal_id', 'wal_follows')")
    forget_writers(connection)
    set_meta(connection, "journal_id", str(uuid4()))
    set_meta(connection, "created_at", text_from_epoch_ns(time.time_ns()))
    set_meta(connection, "library_version", VERSION)
    if label is not None:
        set_meta(connection, "label", label)


def _journal_id(connection: apsw.Connection) -> UUID:
    text = meta(connection, "journal_id")
    try:
        return UUID(text)
    except (ValueError, TypeError) as error:
        what = f"is damaged: its journal_id is {text!r:.100}"
        raise errors.DamagedError(connection.filename, what) from error


def _seal(connection: apsw.Connection, extent: Extent) -> None:
    """Seal the last block, so that none has events of two journals; events without one get one.

    Raises:
        DamagedError: what the last block covers is not what it was.
    """
    connection.execute("UPDATE block SET sealed = 1 WHERE sealed = 0")
    block = last_block(connection)
    covered = max(0 if block is None else block.last, extent.cut)
    if extent.event_count(covered, extent.last):
        tail = Tail(connection, extent._replace(last=covered))
        for rows in _runs(connection, covered, extent.last):
            tail.add(connection, rows, sum(len(row[5] or "") for row in rows))
            last = rows[-1][0]
        tail.write_open(connection, last)
        connection.execute("UPDATE block SET sealed = 1 WHERE sealed = 0")
    absence = extent.absence_at(extent.last)
    if absence is not None and absence.digest_after is None:
        _begin_chain_anew(connection, absence)


def _begin_chain_anew(connection: apsw.Connection, absence: Absence) -> None:
    """Give a range at the end a digest, as nobody knows the one that was there, to go on from."""
    sql = "UPDATE absent SET digest_after = ? WHERE first_seq = ?"
    connection.execute(sql, (os.urandom(32).hex(), absence.first))
    rows: Any = connection.execute(ABSENT_SQL).fetchall()
    for first, *_, text in rows:
        if first == absence.first:
            digest = hashlib.sha256(text.encode()).hexdigest()
            sql = "UPDATE absent SET check_digest = ? WHERE first_seq = ?"
            connection.execute(sql, (digest, absence.first))


def _runs(connection: apsw.Connection, after: int, up_to: int) -> Iterator[list[Any]]:
    """Yield what digests cover of events, some that follow each other at once."""
    while after < up_to:
        page: list[Any] = connection.execute(
            f"{ROWS_SQL} LIMIT {limits.PAGE_EVENTS_MAX}", {"first": after + 1, "last": up_to}
        ).fetchall()
        if not page:
            return
        begin = 0
        for place in range(1, len(page) + 1):
            if place == len(page) or page[place][0] != page[place - 1][0] + 1:
                yield page[begin:place]
                begin = place
        after = page[-1][0]


def _forget_readers(connection: apsw.Connection) -> None:
    """Remove what a copy has for its readers, and a journal has not."""
    for name in _TABLES:
        if connection.table_exists("main", name):
            connection.execute(f"DROP TABLE main.{name}")
    indexes: Any = connection.execute(_INDEXES_SQL).fetchall()
    for (name,) in indexes:
        connection.execute(f"DROP INDEX main.{name}")
    connection.execute("DROP VIEW IF EXISTS main.events")
    connection.execute(events_view_sql(has_origins=has_origins(connection)))
    if have_our_shape(connection):  # else opening makes them
        make_views(connection, flat=False)


def _result(
    found: Verification, journal_id: UUID, label: str | None, origins: tuple[Origin, ...]
) -> Continued:
    return Continued(
        path=found.path,
        journal_id=journal_id,
        label=label,
        origins=origins,
        event_count=found.event_count,
        first_position=found.first_position,
        last_position=found.last_position,
        head=found.head,
    )
