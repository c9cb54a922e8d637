"""A question that only people have, who type the beginning of an id."""

from typing import TYPE_CHECKING, Any

import journal
from journal.commands.console.group import CommandError

if TYPE_CHECKING:
    from journal import Journal, SessionId, StreamId

_TOLD_MAX = 3

# Goes by the index of the ids.
_BETWEEN_SQL = "SELECT uuid FROM {} WHERE uuid BETWEEN ? AND ? ORDER BY uuid LIMIT ?"


def session_named(opened: "Journal", named: "SessionId | str") -> "SessionId":
    """Return the session whose id is given, or begins with the digits that are given.

    Raises:
        CommandError: no session, or more than one, begins with them.
    """
    if not isinstance(named, str):
        return named
    return journal.SessionId.from_bytes(_only(opened, "session", named))


def stream_named(opened: "Journal", named: "StreamId | str") -> "StreamId":
    """Return the stream whose id is given, or begins with the digits that are given.

    Raises:
        CommandError: no stream, or more than one, begins with them.
    """
    if not isinstance(named, str):
        return named
    return journal.StreamId.from_bytes(_only(opened, "stream", named))


def _only(opened: "Journal", table: str, digits: str) -> bytes:
    first, last = (bytes.fromhex(digits.ljust(32, digit)) for digit in "0f")
    sql = _BETWEEN_SQL.format(table)
    with opened._database.read() as connection:
        rows: list[Any] = connection.execute(sql, (first, last, _TOLD_MAX + 1)).fetchall()
    found: list[bytes] = [uuid for (uuid,) in rows]
    if not found:
        raise CommandError(f"{opened.path}: has no {table} whose id begins with {digits}")
    if len(found) > 1:
        told = ", ".join(str(journal.SessionId.from_bytes(uuid)) for uuid in found[:_TOLD_MAX])
        told += ", ..." if len(found) > _TOLD_MAX else ""
        raise CommandError(f"more than one {table}'s id begins with {digits}: {told}")
    return found[0]
