"""A question that only people have, who type the beginning of an id."""

from typing import TYPE_CHECKING, Any

import journal
from journal.commands.group import CommandError

if TYPE_CHECKING:
    from journal import Journal, SessionId

_TOLD_MAX = 3

# Goes by the index of the ids.
_BETWEEN_SQL = "SELECT uuid FROM session WHERE uuid BETWEEN ? AND ? ORDER BY uuid LIMIT ?"


def session_named(opened: "Journal", named: "SessionId | str") -> "SessionId":
    """Return the session whose id is given, or begins with the digits that are given.

    Raises:
        CommandError: no session, or more than one, begins with them.
    """
    if not isinstance(named, str):
        return named
    first, last = (bytes.fromhex(named.ljust(32, digit)) for digit in "0f")
    with opened._database.read() as connection:
        rows: list[Any] = connection.execute(_BETWEEN_SQL, (first, last, _TOLD_MAX + 1)).fetchall()
    found = [journal.SessionId.from_bytes(uuid) for (uuid,) in rows]
    if not found:
        raise CommandError(f"{opened.path}: has no session whose id begins with {named}")
    if len(found) > 1:
        told = ", ".join(map(str, found[:_TOLD_MAX])) + (", ..." if len(found) > _TOLD_MAX else "")
        raise CommandError(f"more than one session's id begins with {named}: {told}")
    return found[0]
