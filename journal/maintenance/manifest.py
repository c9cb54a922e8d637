"""What a shipped file holds, as data: in the file, and as JSON beside it."""

import json
import time
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import apsw
from pydantic import BaseModel, ConfigDict

from journal._version import VERSION
from journal.errors import DamagedError
from journal.events.timestamps import Timestamp
from journal.file.blocks import digest_at
from journal.file.extent import read_extent
from journal.file.identity import meta
from journal.file.paths import beside
from journal.maintenance.redaction import Redaction, read_redaction

SUFFIX: Final = ".manifest.json"
"""What the name of a manifest has after that of its file."""

_ABSENT_SQL = """
SELECT first_seq, last_seq, reason, counts, min_timestamp, max_timestamp
FROM absent ORDER BY first_seq
"""

_OF_THE_FILE_ITSELF = {"file_bytes", "sha256"}


class AbsentRange(BaseModel):
    """Positions, both ends inclusive, at which a file has no event any more, and why.

    What is not known is None.
    """

    model_config = ConfigDict(frozen=True)

    first_position: int
    last_position: int
    reason: str
    counts_by_kind: dict[str, int] | None
    first_timestamp: Timestamp | None
    last_timestamp: Timestamp | None


class Shipment(BaseModel):
    """A shipped file: what it holds, and how it can be told from any other.

    `first_position` and times are None where there are no events, the other positions and digests
    where there never was one. `first_timestamp` and `last_timestamp` are the smallest and the
    largest.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    """The file."""
    journal_id: UUID
    label: str | None
    shipped_at: Timestamp
    event_count: int
    first_position: int | None
    last_position: int | None
    first_timestamp: Timestamp | None
    last_timestamp: Timestamp | None
    session_count: int
    stream_count: int
    counts_by_kind: dict[str, int]
    digest_before: str | None
    """The digest at the position before the first: 64 zeros before position 1."""
    head: str | None
    """The digest at the last position, as POSITION:DIGEST."""
    absent: tuple[AbsentRange, ...]
    redacted: Redaction | None
    """None: every text is the one that was appended."""
    read_indexes: bool
    format_version: int
    library_version: str
    sqlite_version: str
    file_bytes: int
    sha256: str

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is, if one was written."""
        return beside(self.path, SUFFIX)

    def manifest(self) -> dict[str, Any]:
        """Return what the JSON beside the file says: everything, with the name for the path."""
        values = self.model_dump(mode="json", exclude={"path"})
        return {"file": self.path.name, **values}


class Counts(NamedTuple):
    """What it takes a pass over all events to know; the times are None where there are none."""

    by_kind: dict[str, int]
    smallest_ns: int | None
    largest_ns: int | None


def read_shipment(
    connection: apsw.Connection, path: Path, counts: Counts, *, read_indexes: bool
) -> Shipment:
    """Return what a file holds, all but its own size and SHA-256, which it does not have yet.

    Raises:
        DamagedError: what it says of itself is.
    """
    extent = read_extent(connection)
    last = extent.last
    first = connection.execute("SELECT min(seq) FROM event").get
    head = digest_at(connection, extent, last) if last else None
    return Shipment(
        path=path,
        journal_id=_journal_id(connection),
        label=meta(connection, "label"),
        shipped_at=Timestamp.from_epoch_ns(time.time_ns()),
        event_count=extent.event_count(0, last),
        first_position=first,
        last_position=last or None,
        first_timestamp=_timestamp(counts.smallest_ns),
        last_timestamp=_timestamp(counts.largest_ns),
        session_count=connection.execute("SELECT count(*) FROM session").get,
        stream_count=connection.execute("SELECT count(*) FROM stream").get,
        counts_by_kind=counts.by_kind,
        digest_before=digest_at(connection, extent, extent.first - 1) if last else None,
        head=None if head is None else f"{last}:{head}",
        absent=tuple(_absent(connection)),
        redacted=read_redaction(connection),
        read_indexes=read_indexes,
        format_version=connection.pragma("user_version"),
        library_version=VERSION,
        sqlite_version=apsw.sqlite_lib_version(),
        file_bytes=0,
        sha256="",
    )


def _journal_id(connection: apsw.Connection) -> UUID:
    text = meta(connection, "journal_id")
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError) as error:
        what = f"is damaged: its journal_id is {text!r}"
        raise DamagedError(connection.filename, what) from error


def _timestamp(epoch_ns: int | None) -> Timestamp | None:
    return None if epoch_ns is None else Timestamp.from_epoch_ns(epoch_ns)


def _absent(connection: apsw.Connection) -> list[AbsentRange]:
    rows: Any = connection.execute(_ABSENT_SQL)
    return [
        AbsentRange(
            first_position=first,
            last_position=last,
            reason=reason,
            counts_by_kind=None if counts is None else json.loads(counts),
            first_timestamp=_timestamp(smallest),
            last_timestamp=_timestamp(largest),
        )
        for first, last, reason, counts, smallest, largest in rows
    ]


def write_manifest(connection: apsw.Connection, shipment: Shipment) -> None:
    """Write the manifest into its file: all but what only the finished file can tell."""
    values = shipment.model_dump(mode="json", exclude={"path", *_OF_THE_FILE_ITSELF})
    connection.executemany(
        "INSERT INTO manifest (key, value) VALUES (?, ?)",
        [(key, _text(value)) for key, value in values.items()],
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
