"""Questions that only people have: what begins with these digits, and whether that is all."""

from typing import TYPE_CHECKING, TypeVar

from journal.commands.console.group import CommandError

if TYPE_CHECKING:
    from journal import Journal, SessionId, StreamId, Timestamp

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


def note_on_end(opened: "Journal", as_of: "int | Timestamp | None") -> str | None:
    """Return what to say where a moment is beyond the end, so that all there is is shown."""
    if isinstance(as_of, int):
        last = opened.last_position
        if as_of > last:
            there = f"the last one is {last}" if last else "there are no events"
            return f"position {as_of} is beyond the end: {there}"
    elif as_of is not None:
        from journal.events.timestamps import MIN_EPOCH_NS  # noqa: PLC0415 (loaded for `as_of`)

        before = type(as_of).from_epoch_ns(max(as_of.epoch_ns - 1, MIN_EPOCH_NS))
        if next(opened.lines(since=before), None) is None:  # nor is one at this very nanosecond
            return f"{as_of.rfc3339()} is beyond the end: no event is later"
    return None


def _only(opened: "Journal", noun: str, digits: str, found: list[_Id]) -> _Id:
    if not found:
        raise CommandError(f"{opened.path}: has no {noun} whose id begins with {digits}")
    if len(found) > 1:
        told = ", ".join(str(one) for one in found[:_TOLD_MAX])
        told += ", ..." if len(found) > _TOLD_MAX else ""
        raise CommandError(f"more than one {noun}'s id begins with {digits}: {told}")
    return found[0]
