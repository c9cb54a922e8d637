"""What a shipped file holds, as data: in the file, and as JSON beside it."""

import json
import time
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import apsw
from pydantic import BaseModel, ConfigDict

from journal._version import VERSION
from journal.events.timestamps import Timestamp
from journal.file.blocks import digest_at
from journal.file.extent import read_extent
from journal.file.info import read_info
from journal.file.paths import beside

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

    Positions, times and heads are None while there are no events. `first_timestamp` and
    `last_timestamp` are the smallest and the largest.
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


def read_shipment(connection: apsw.Connection, path: Path, *, read_indexes: bool) -> Shipment:
    """Return what a file holds, all but its own size and SHA-256, which it does not have yet.

    Raises:
        DamagedError: what it says of itself is.
    """
    info = read_info(connection, path)
    extent = read_extent(connection)
    is_empty = info.event_count == 0
    return Shipment(
        path=path,
        journal_id=info.journal_id,
        label=info.label,
        shipped_at=Timestamp.from_epoch_ns(time.time_ns()),
        event_count=info.event_count,
        first_position=info.first_position,
        last_position=info.last_position,
        first_timestamp=info.first_timestamp,
        last_timestamp=info.last_timestamp,
        session_count=info.session_count,
        stream_count=info.stream_count,
        counts_by_kind=info.counts_by_kind,
        digest_before=None if is_empty else digest_at(connection, extent, extent.first - 1),
        head=info.head,
        absent=tuple(_absent(connection)),
        read_indexes=read_indexes,
        format_version=info.format_version,
        library_version=VERSION,
        sqlite_version=apsw.sqlite_lib_version(),
        file_bytes=0,
        sha256="",
    )


def _absent(connection: apsw.Connection) -> list[AbsentRange]:
    rows: Any = connection.execute(_ABSENT_SQL)
    return [
        AbsentRange(
            first_position=first,
            last_position=last,
            reason=reason,
            counts_by_kind=None if counts is None else json.loads(counts),
            first_timestamp=None if smallest is None else Timestamp.from_epoch_ns(smallest),
            last_timestamp=None if largest is None else Timestamp.from_epoch_ns(largest),
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
