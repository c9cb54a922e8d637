"""Named checkpoints: how far whoever reads the events in order has come."""

from typing import Any, Literal, NamedTuple

import apsw

from journal.errors import DamagedError

CheckpointType = Literal["projection", "subscription"]


class Checkpoint(NamedTuple):
    """How far somebody has come.

    `version` is that of the fold, `position` that of the last event taken, and `since` that of the
    first event that counts: 1, unless it began after a cut and had no base.
    """

    version: int
    position: int
    since: int


def read_checkpoints(
    connection: apsw.Connection, checkpoint_type: CheckpointType, last_position: int
) -> dict[str, Checkpoint]:
    """Return the checkpoints of a type by name.

    Raises:
        DamagedError: one lies outside the file.
    """
    rows: Any = connection.execute(
        "SELECT name, version, position, since FROM checkpoint WHERE type = ? ORDER BY name",
        (checkpoint_type,),
    )
    return {name: _checked(connection, name, row, last_position) for name, *row in rows}


def read_checkpoint(
    connection: apsw.Connection, name: str, checkpoint_type: CheckpointType, last_position: int
) -> Checkpoint | None:
    """Return one checkpoint, None where there is none of this name and type.

    Raises:
        DamagedError: it lies outside the file.
    """
    row: Any = connection.execute(
        "SELECT version, position, since FROM checkpoint WHERE name = ? AND type = ?",
        (name, checkpoint_type),
    ).fetchone()
    return None if row is None else _checked(connection, name, row, last_position)


def _checked(connection: apsw.Connection, name: str, row: Any, last_position: int) -> Checkpoint:
    is_right = isinstance(name, str) and all(isinstance(value, int) for value in row)
    version, position, since = row
    if not is_right or not 0 <= position <= last_position or since < 1:
        what = f"the checkpoint {name!r} is damaged: position {position!r}, since {since!r}, "
        what += f"in a journal of {last_position}"
        found = position if isinstance(position, int) else None
        raise DamagedError(connection.filename, what, found)
    return Checkpoint(version, position, since)


def check_is_no_subscription(connection: apsw.Connection, name: str) -> None:
    """Refuse a name for a projection that a subscription has.

    Raises:
        ValueError: it is so.
    """
    sql = "SELECT 1 FROM checkpoint WHERE name = ? AND type = 'subscription'"
    if connection.execute(sql, (name,)).fetchone() is not None:
        message = f"a subscription of this journal is called {name!r}: expected another name for "
        message += "the projection"
        raise ValueError(message)


def write_checkpoint(
    connection: apsw.Connection, name: str, checkpoint_type: CheckpointType, at: Checkpoint
) -> None:
    """Write how far somebody has come, in the transaction in which that becomes true."""
    connection.execute(
        "INSERT OR REPLACE INTO checkpoint (name, type, version, position, since)"
        " VALUES (?, ?, ?, ?, ?)",
        (name, checkpoint_type, *at),
    )
