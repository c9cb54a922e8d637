"""What is in a journal file, in figures."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import apsw
from pydantic import BaseModel, ConfigDict

from journal.errors import DamagedError
from journal.events.timestamps import Timestamp
from journal.file.blocks import digest_at
from journal.file.extent import Extent, read_extent
from journal.file.origins import Origin, read_origins
from journal.file.paths import beside, resolved

_POSITIONS_AT_ONCE = 100_000
"""As many take some hundredths of a second to count."""


class JournalInfo(BaseModel):
    """What is in a journal file.

    Sizes are in bytes; `first_timestamp` and `last_timestamp` are the smallest and the largest, not
    those of the first and the last event. `closed_by` is what made the file, if it is a closed
    copy. `origins` are the ranges of positions that came from other journals, if it goes on from a
    copy. `head` is the digest at the last position, as POSITION:DIGEST: noted elsewhere, it lets
    `verify` find out later whether the history up to there is still the same. `absent_count` is how
    many positions have no event any more. Positions, times and `head` are None while there are no
    events; so is `head` where what it is made of is absent or redacted.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    journal_id: UUID
    label: str | None
    closed_by: str | None
    origins: tuple[Origin, ...]
    created_at: Timestamp
    library_version: str
    format_version: int
    event_count: int
    first_position: int | None
    last_position: int | None
    first_timestamp: Timestamp | None
    last_timestamp: Timestamp | None
    head: str | None
    absent_count: int
    session_count: int
    stream_count: int
    counts_by_kind: dict[str, int]
    sealed_block_count: int
    file_bytes: int
    wal_bytes: int


def read_info(
    connection: apsw.Connection,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> JournalInfo:
    """Read the figures; one pass over the events, of which `progress` is told, the rest by key.

    Raises:
        DamagedError: what the file says of itself is incomplete or garbled.
    """
    try:
        return _read_info(connection, path, progress)
    except DamagedError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = f"what the file says of itself is damaged: {type(error).__name__}: {error}"
        raise DamagedError(path, reason.splitlines()[0]) from error


def _read_info(
    connection: apsw.Connection,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> JournalInfo:
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    extent = read_extent(connection)
    event_count = extent.event_count(0, extent.last)
    by_code: Counter[int] = Counter()
    timestamps: list[int] = []
    for after in range(extent.cut, extent.last, _POSITIONS_AT_ONCE):
        up_to = min(after + _POSITIONS_AT_ONCE, extent.last)
        for code, count, *ends in connection.execute(
            "SELECT kind, count(*), min(timestamp), max(timestamp) FROM event"
            " WHERE seq > ? AND seq <= ? GROUP BY kind",
            (after, up_to),
        ):
            by_code[code] += count
            timestamps += ends
        timestamps = [min(timestamps), max(timestamps)] if timestamps else []
        if progress is not None:
            progress(extent.event_count(0, up_to), event_count)
    counts: Counter[str] = Counter()
    for code, name in connection.execute("SELECT code, name FROM kind ORDER BY code"):
        if by_code[code]:
            counts[name] += by_code[code]  # two codes may share a name
    smallest, largest = map(Timestamp.from_epoch_ns, timestamps) if timestamps else (None, None)
    wal = beside(resolved(path), "-wal")
    return JournalInfo(
        path=path,
        journal_id=UUID(meta["journal_id"]),
        label=meta.get("label"),
        closed_by=meta.get("closed"),
        origins=read_origins(connection),
        created_at=Timestamp.parse(meta["created_at"]),
        library_version=meta["library_version"],
        format_version=connection.pragma("user_version"),
        event_count=event_count,
        absent_count=extent.last - event_count,
        first_position=extent.first if event_count else None,
        last_position=extent.last or None,
        head=_head(connection, extent),
        first_timestamp=smallest,
        last_timestamp=largest,
        session_count=connection.execute("SELECT count(*) FROM session").get,
        stream_count=connection.execute("SELECT count(*) FROM stream").get,
        counts_by_kind=dict(counts),
        sealed_block_count=connection.execute("SELECT count(*) FROM block WHERE sealed").get,
        file_bytes=path.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
    )


def _head(connection: apsw.Connection, extent: Extent) -> str | None:
    digest = digest_at(connection, extent, extent.last) if extent.last else None
    return None if digest is None else f"{extent.last}:{digest}"
