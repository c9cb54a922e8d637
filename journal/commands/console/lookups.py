"""A question that only people have, who type the beginning of an id."""

from typing import TYPE_CHECKING, TypeVar

from journal.commands.console.group import CommandError

if TYPE_CHECKING:
    from journal import Journal, SessionId, StreamId

_Id = TypeVar("_Id")

_TOLD_MAX = 3


def session_named(opened: "Journal", named: "SessionId | str") -> "SessionId":
    """Return the session whose id is given, or begins with the digits that are given.

    Raises:
        CommandError: no session, or more than one, begins with them.
    """
    if not isinstance(named, str):
        return named
    return _only(opened, "session", named, opened.find_sessions(named, limit=_TOLD_MAX + 1))


def stream_named(opened: "Journal", named: "StreamId | str") -> "StreamId":
    """Return the stream whose id is given, or begins with the digits that are given.

    Raises:
        CommandError: no stream, or more than one, begins with them.
    """
    if not isinstance(named, str):
        return named
    return _only(opened, "stream", named, opened.find_streams(named, limit=_TOLD_MAX + 1))


def _only(opened: "Journal", noun: str, digits: str, found: list[_Id]) -> _Id:
    if not found:
        raise CommandError(f"{opened.path}: has no {noun} whose id begins with {digits}")
    if len(found) > 1:
        told = ", ".join(str(one) for one in found[:_TOLD_MAX])
        told += ", ..." if len(found) > _TOLD_MAX else ""
        raise CommandError(f"more than one {noun}'s id begins with {digits}: {told}")
    return found[0]
