"""As of a moment: the events up to a position, or those with a timestamp up to an instant."""

from collections.abc import Iterable
from datetime import datetime
from itertools import takewhile
from pathlib import Path

from journal.errors import PrunedError
from journal.events.timestamps import Timestamp
from journal.file.decoding import StoredEvent
from journal.file.extent import Extent

AsOf = int | datetime | None
"""A position, an instant, or None for now."""


def check_as_of(as_of: AsOf) -> None:
    """Refuse what is not a moment.

    Raises:
        ValueError: it is neither a position of 0 or more nor a datetime with a UTC offset.
    """
    if isinstance(as_of, datetime):
        Timestamp.from_datetime(as_of)
    elif as_of is not None and (type(as_of) is not int or as_of < 0):
        message = f"as_of: expected a position or an aware datetime, found {as_of!r}"
        raise ValueError(message)


def check_not_pruned(path: Path, extent: Extent, as_of: AsOf) -> None:
    """Refuse a moment of which some of the events are gone.

    Raises:
        PrunedError: it is a position before the cut, or an instant at which an event that is gone
            might not have happened yet.
    """
    if isinstance(as_of, datetime):
        instant = Timestamp.from_datetime(as_of)
        pruned_ns = [
            absence.max_timestamp_ns
            for absence in extent.absences
            if absence.last <= extent.cut and absence.max_timestamp_ns is not None
        ]
        if pruned_ns and instant.epoch_ns < max(pruned_ns):
            raise PrunedError(path, f"the instant {instant.rfc3339()}", extent.first)
    elif as_of is not None and as_of < extent.cut:
        raise PrunedError(path, f"position {as_of}", extent.first)


def up_to(rows: Iterable[StoredEvent], as_of: AsOf) -> Iterable[StoredEvent]:
    """Keep the rows up to a position, or those with a timestamp at or before an instant."""
    if as_of is None:
        return rows
    if isinstance(as_of, datetime):
        instant_ns = Timestamp.from_datetime(as_of).epoch_ns
        return (row for row in rows if row[4] <= instant_ns)
    return takewhile(lambda row: row[0] <= as_of, rows)
