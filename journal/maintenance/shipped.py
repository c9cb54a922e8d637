"""What was shipped, as the file or the JSON beside it says, held against a journal.

So it may be pruned there, or what is new since then be shipped.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
from pydantic import ValidationError

from journal.errors import NotADatabaseError, OtherHistoryError
from journal.file.blocks import GENESIS, digest_at
from journal.file.connections import Database
from journal.file.extent import Extent, read_extent
from journal.file.identity import meta
from journal.file.paths import absolute, check_readable
from journal.maintenance.redaction import Redaction

_MANIFEST_BYTES_MAX: Final = 64 * 1024 * 1024


class Shipped(NamedTuple):
    """A range of positions that somebody else has, both ends inclusive, and what binds it to ours.

    Digests are those at the position before the first and at the last one.
    """

    name: str
    """The file that says so."""
    journal_id: str
    first: int
    last: int
    digest_before: str
    digest_after: str


def shipped_by_manifest(path: Path) -> Shipped:
    """Return what the JSON beside a shipped file says.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no manifest, or something is redacted in the file.
    """
    is_redacted = False
    try:
        found = _read(path)
        position, _, digest = found["head"].partition(":")
        shipped = Shipped(
            path.name,
            found["journal_id"],
            found["first_position"],
            found["last_position"],
            found["digest_before"],
            digest,
        )
        is_right = int(position) == shipped.last and all(
            isinstance(value, type(wanted))
            for value, wanted in zip(shipped, ("", "", 0, 0, "", ""), strict=True)
        )
        is_redacted = _is_redacted(found.get("redacted"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        is_right = False
    if not is_right:
        raise ValueError(f"{path}: is not the manifest of a shipped file with events")
    if is_redacted:
        raise ValueError(f"{path}: something is redacted in what was shipped")
    return shipped


def _read(path: Path) -> Any:
    """Return what is in a manifest.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or too much for a manifest.
    """
    with path.open("rb") as file:
        text = file.read(_MANIFEST_BYTES_MAX + 1)
    if len(text) > _MANIFEST_BYTES_MAX:
        raise ValueError("too long")
    return json.loads(text)


def _is_redacted(said: Any) -> bool:
    """Tell whether a manifest says of any text that it is not what was appended, or may say so."""
    if said is None:
        return False
    try:
        redaction = Redaction.model_validate(said)
    except ValidationError:
        return True
    return bool(redaction.ranges) or any(text.event_count for text in redaction.texts)


def shipped_by_file(path: Path) -> Shipped:
    """Return what a shipped file says.

    Raises:
        JournalError: it cannot be opened.
        ValueError: it is no shipped file with events, or something is redacted in it.
    """
    database = Database(path, read_only=True, durability="full")
    try:
        with database.read() as connection:
            extent = read_extent(connection)
            if meta(connection, "closed") not in ("ship", "delta") or extent.first > extent.last:
                raise ValueError(f"{path}: is not a shipped file with events")
            sql = "SELECT count(*) FROM block WHERE redacted_digest IS NOT NULL OR salt IS NULL"
            if connection.execute(sql).get:
                raise ValueError(f"{path}: something is redacted in what was shipped")
            return Shipped(
                path.name,
                meta(connection, "journal_id") or "",
                extent.first,
                extent.last,
                _digest_at(connection, extent, extent.cut) or "",
                _digest_at(connection, extent, extent.last) or "",
            )
    finally:
        database.close()


def check_shipped(connection: apsw.Connection, extent: Extent, shipped: Shipped) -> None:
    """Make sure that a range is one of ours, from our first position on.

    An equal digest at its end proves all that is before it, as the digests are chained.

    Raises:
        ValueError: it is not.
    """
    journal_id = meta(connection, "journal_id")
    if shipped.journal_id != journal_id:
        raise ValueError(f"{shipped.name} is of another journal, {shipped.journal_id}")
    if shipped.last < extent.first:
        return
    if shipped.first > extent.first:
        raise ValueError(
            f"{shipped.name} begins at position {shipped.first}, and the journal has events from "
            f"{extent.first} on that are not in it"
        )
    ends = [(shipped.last, shipped.digest_after)]
    if shipped.first == extent.first:
        ends.append((shipped.first - 1, shipped.digest_before))
    for position, digest in ends:
        if position > extent.last or _digest_at(connection, extent, position) != digest:
            raise ValueError(
                f"{shipped.name} is of another branch of the journal: it has another digest at "
                f"position {position}"
            )


def _digest_at(connection: apsw.Connection, extent: Extent, position: int) -> str | None:
    return GENESIS if position == 0 else digest_at(connection, extent, position)


def shipped_of(
    shipped: str | PathLike[str] | None, file: str | PathLike[str] | None
) -> Shipped | None:
    """Return what a manifest or a shipped file says; None where neither is given."""
    if shipped is not None:
        check_readable(absolute(shipped))
        return shipped_by_manifest(Path(shipped))
    return None if file is None else shipped_by_file(absolute(file))


class ShippedBefore(NamedTuple):
    """Where something that was shipped ends."""

    path: Path
    """The file that says so."""
    journal_id: str
    position: int
    digest: str


def shipped_before(file: object) -> ShippedBefore | None:
    """Return where a shipped file ends, as itself or the JSON beside it says; None for no file.

    Texts may be redacted in it: it has the digests of what was appended all the same.

    Raises:
        JournalError: it cannot be opened.
        ValueError: it is neither.
    """
    if not isinstance(file, str | PathLike):
        return None
    path = absolute(file)
    check_readable(path)
    try:
        return _end_of_file(path)
    except NotADatabaseError:  # only then it is opened otherwise: closing it would drop locks
        return _end_by_manifest(path)


def _end_of_file(path: Path) -> ShippedBefore:
    database = Database(path, read_only=True, durability="full")
    try:
        with database.read() as connection:
            extent = read_extent(connection)
            digest = _digest_at(connection, extent, extent.last)
            closed, journal_id = meta(connection, "closed"), meta(connection, "journal_id")
            if closed is None or not journal_id or digest is None:
                raise ValueError(
                    f"{path}: is not a shipped file, of which the last digest is known"
                )
            return ShippedBefore(path, journal_id, extent.last, digest)
    finally:
        database.close()


def _end_by_manifest(path: Path) -> ShippedBefore:
    try:
        found = _read(path)
        is_new = found["last_position"] is None  # nothing had happened in the journal
        position, _, digest = (f"0:{GENESIS}" if is_new else found["head"]).partition(":")
        shipped = ShippedBefore(path, found["journal_id"], int(position), digest)
        is_right = isinstance(shipped.journal_id, str) and shipped.position >= 0
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        is_right = False
    if not is_right:
        raise ValueError(f"{path}: is neither a shipped file nor the manifest of one")
    return shipped


def check_is_ours(connection: apsw.Connection, extent: Extent, shipped: ShippedBefore) -> None:
    """Make sure that what was shipped is a beginning of this journal.

    An equal digest at its end proves all that is before it, as the digests are chained.

    Raises:
        OtherHistoryError: it is not, or nobody can tell any more.
    """
    position, name, path = shipped.position, shipped.path.name, Path(connection.filename)
    journal_id = meta(connection, "journal_id")
    if shipped.journal_id != journal_id:
        what = f"has the id {journal_id}, and {name} is of another journal, {shipped.journal_id}"
        raise OtherHistoryError(path, what)
    if position > extent.last:
        what = f"ends at position {extent.last}, and {name} at {position}: it is later than the end"
        raise OtherHistoryError(path, what)
    digest = _digest_at(connection, extent, position)
    if digest is None:
        what = f"cannot be held against {name}: what its digest at position {position} is made of"
        raise OtherHistoryError(path, f"{what} is gone (after={position} does without)")
    if digest != shipped.digest:
        what = f"is not what {name} is of, but another branch: it has another digest at position"
        raise OtherHistoryError(path, f"{what} {position}")
