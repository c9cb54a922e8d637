"""Shipping: one complete, checked file from a journal that goes on, or of what is new in it.

It is made in a folder of its own beside the target, and gets its name when all is done.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath, sep
from pathlib import Path
from typing import Final

import apsw

from journal import errors
from journal.file.connections import Database, translated
from journal.file.extent import Extent, read_extent
from journal.file.identity import meta
from journal.file.opening import open_copy, open_reader
from journal.file.paths import absolute, beside, uri_of
from journal.maintenance.copying import copy_moment
from journal.maintenance.delta import Wanted, copy_delta, first_of_delta
from journal.maintenance.finishing import ClosedBy, Report, check, close_for_good, fold
from journal.maintenance.manifest import SUFFIX, Shipment
from journal.maintenance.redacting import copy_redacted
from journal.maintenance.redaction import Policy
from journal.maintenance.shipped import ShippedBefore, check_is_ours, shipped_before
from journal.maintenance.targets import check_target, put_in_place, target_error, work_folder
from journal.projections.own_states import OwnFold
from journal.projections.rebuilding import Progress

_COPIED, _CHECKED, _FOLDED, _INDEXED = 0.1, 0.55, 0.6, 0.95
"""Roughly, how much of the time has passed when each of these is done."""

_LABEL_BYTES_MAX: Final = 100
_HASHED_BYTES: Final = 1024 * 1024


def ship(
    database: Database,
    dest: str | PathLike[str],
    *,
    after: int | str | PathLike[str] | None,
    standalone: bool,
    own_folds: Collection[OwnFold],
    manifest: bool,
    indexes: bool,
    force: bool,
    redact: Mapping[str, str] | None,
    secret: bytes | None,
    progress: Progress | None,
) -> Shipment:
    """Make a closed copy of a journal; see `Journal.ship`."""
    policy = Policy(redact or {}, secret)
    if standalone and after is None:
        raise ValueError("standalone: expected `after`, too: all of the journal needs no base")
    is_folder = _names_folder(dest)
    before = shipped_before(after)
    sources = [database.path, *([] if before is None else [before.path])]
    with database.read() as connection:
        extent = read_extent(connection)
        label, journal_id = meta(connection, "label"), meta(connection, "journal_id")
        wanted, first = None, extent.first
        if after is not None:
            position = _position_after(connection, extent, after, before)
            wanted = Wanted(position, standalone, own_folds)
            first = first_of_delta(connection, extent, position)

    def target_of(first: int | None, last: int | None) -> Path:
        name = file_name(label, str(journal_id), first, last)
        target = check_target(Path(dest, name) if is_folder else dest, sources, force=force)
        if manifest:
            check_target(beside(target, SUFFIX), sources, force=force)
        return target

    total = extent.last if after is None else extent.event_count(first - 1, extent.last)

    def report(share: float) -> None:
        if progress is not None:
            progress(int(share * total), total)

    is_empty = extent.event_count(0, extent.last) == 0
    target = target_of(*((None, None) if is_empty else (first, extent.last)))
    with work_folder(target) as folder:
        copy = folder / "copy"
        try:
            shipment = _made(database, copy, target, wanted, policy, report, indexes=indexes)
        except errors.DamagedError:
            # Another library in this process may have dropped the mark that keeps the -wal from
            # beginning anew under a reader: copy it again before believing it.
            copy.unlink(missing_ok=True)
            shipment = _made(database, copy, target, wanted, policy, report, indexes=indexes)
        if is_folder:  # its name says what it has, which may be more by now
            target = target_of(shipment.first_position, shipment.last_position)
        with _told_of_system(target):
            size_bytes, sha256 = _digest(copy)
        values = {"path": target, "file_bytes": size_bytes, "sha256": sha256}
        shipment = shipment.model_copy(update=values)
        report(1.0)
        _put_in_place(shipment, copy, manifest=manifest, force=force)
    return shipment


def _position_after(
    connection: apsw.Connection, extent: Extent, after: object, before: ShippedBefore | None
) -> int:
    """Return the position that a delta is to follow.

    Raises:
        ValueError: it is no position.
        OtherHistoryError: it is later than the end, or what was shipped is not from here.
    """
    if before is not None:
        check_is_ours(connection, extent, before)
        return before.position
    if not isinstance(after, int) or isinstance(after, bool) or after < 0:
        message = f"after: expected a position of 0 or more, or a file, found {after!r}"
        raise ValueError(message)
    if after > extent.last:
        what = f"ends at position {extent.last}, and {after} is later"
        raise errors.OtherHistoryError(connection.filename, what)
    return after


def _names_folder(dest: str | PathLike[str]) -> bool:
    """Tell whether the file is to get a name of its own in a folder.

    Raises:
        JournalNotFoundError: it is written like one, and not there.
    """
    is_folder = absolute(dest).is_dir()
    if not is_folder and fspath(dest).endswith((sep, "/")):
        raise errors.JournalNotFoundError(absolute(dest), "the folder does not exist")
    return is_folder


def file_name(label: str | None, journal_id: str, first: int | None, last: int | None) -> str:
    """Return the name of a shipped file: label, the beginning of the id, and the positions.

    The positions are None where it has no events.
    It is one that every file system takes, Windows' among them.
    """
    shown = unicodedata.normalize("NFC", label or "")
    shown = re.sub(r"[^\w.-]+", "_", shown).strip("._-")
    shown = shown.encode()[:_LABEL_BYTES_MAX].decode(errors="ignore") or "journal"
    positions = "empty" if first is None else f"{first}-{last}"
    return f"{shown}-{journal_id[:8]}-{positions}.db"


def _made(
    database: Database,
    copy: Path,
    target: Path,
    wanted: Wanted | None,
    policy: Policy,
    report: Report,
    *,
    indexes: bool,
) -> Shipment:
    """Make the copy, complete and checked, or a delta.

    Raises:
        DamagedError: the journal is.
    """

    def part(begins: float, ends: float) -> Report:
        return lambda share: report(begins + (ends - begins) * share)

    def copying(copy: Path, target: Path, report: Report) -> None:
        if wanted is None:
            copy_moment(database, copy, target, report)
        else:
            copy_delta(database, copy, target, wanted, report)

    closed_by: ClosedBy = "ship" if wanted is None else "delta"
    copied = part(0.0, _COPIED)
    if policy.methods:
        copy_redacted(database.path, copying, copy, target, policy, copied, closed_by=closed_by)
    else:
        copying(copy, target, copied)
    with _told_of(database.path, target):
        connection = open_copy(copy)
        try:
            counts = check(connection, copy, database.path, part(_COPIED, _CHECKED))
            fold(connection, part(_CHECKED, _FOLDED))
            shipment = close_for_good(
                connection,
                copy,
                counts,
                closed_by=closed_by,
                indexes=indexes,
                report=part(_FOLDED, _INDEXED),
            )
        finally:
            connection.close()
        open_reader(uri_of(copy, mode="ro", immutable=1), copy).close()
    return shipment


@contextmanager
def _told_of(source: Path, target: Path) -> Iterator[None]:
    """Say of the journal what damage is found in its copy, and of the target what else fails."""
    try:
        with translated(target):
            yield
    except errors.DamagedError as error:
        raise errors.DamagedError(source, error.what, error.position) from error


@contextmanager
def _told_of_system(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise target_error(target, error) from error


def _digest(copy: Path) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of a file."""
    hasher = hashlib.sha256()
    size_bytes = 0
    with copy.open("rb", buffering=0) as file:
        while some := file.read(_HASHED_BYTES):
            hasher.update(some)
            size_bytes += len(some)
    return size_bytes, hasher.hexdigest()


def _put_in_place(shipment: Shipment, copy: Path, *, manifest: bool, force: bool) -> None:
    """Give the file its name, and then the manifest.

    A manifest that was there is removed before: it never stands beside a file that is not its own.
    """
    target = shipment.path
    with _told_of_system(target):
        text = json.dumps(shipment.manifest(), ensure_ascii=False, indent=2)
        copied = beside(copy, SUFFIX)
        copied.write_text(f"{text}\n", "utf-8", newline="\n")
        if force and target.exists():
            shipment.manifest_path.unlink(missing_ok=True)
    put_in_place(copy, target, force=force)
    if manifest:
        put_in_place(copied, shipment.manifest_path, force=force)
