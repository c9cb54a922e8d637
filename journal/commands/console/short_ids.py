"""Ids as people can tell them apart and type them: their beginnings, as long as need be."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from journal import Journal, SessionId, StreamId

_CHARACTERS_MIN = 8
_CHARACTERS_MAX = 36
_LOOKED_UP_MAX = 100
"""More than stand on a screen; each takes a tenth of a millisecond before the first line is out."""


class ShortIds:
    """Shortens ids; no other id in the journal begins as one of those that were learned.

    Ids of version 7 begin with the time, so that those of a minute share their first eight digits.
    All ids of a kind get the same length, which only grows.
    """

    def __init__(self, opened: "Journal") -> None:
        self._sessions = _Length(opened.find_sessions)
        self._streams = _Length(opened.find_streams)

    def learn(
        self, sessions: "Iterable[SessionId]" = (), streams: "Iterable[StreamId | None]" = ()
    ) -> None:
        """Take notice of the ids that are shown next, a page of them.

        Only the first hundred are looked up in the journal; those after them are told apart from
        each other.
        """
        self._sessions.learn(sessions)
        self._streams.learn(one for one in streams if one is not None)

    def session(self, session_id: "SessionId") -> str:
        """Return the beginning of an id."""
        return str(session_id)[: self._sessions.characters]

    def stream(self, stream_id: "StreamId") -> str:
        """Return the beginning of an id."""
        return str(stream_id)[: self._streams.characters]


class _Length:
    """How much of each id of one kind has to be shown."""

    def __init__(self, find: Callable[..., list[Any]]) -> None:
        self.characters = _CHARACTERS_MIN
        self._find = find
        self._look_ups_left = _LOOKED_UP_MAX

    def learn(self, ids: Iterable[UUID]) -> None:
        texts = sorted({str(one) for one in ids})
        for one, other in pairwise(texts):
            self._tell_apart(one, other)
        for text in texts[: self._look_ups_left]:
            self._look_ups_left -= 1
            others = [text]
            while others and self.characters < _CHARACTERS_MAX:
                found = self._find(text[: self.characters].rstrip("-"), limit=2)
                others = [str(one) for one in found if str(one) != text]
                for other in others:
                    self._tell_apart(text, other)

    def _tell_apart(self, one: str, other: str) -> None:
        if one[: self.characters] != other[: self.characters]:
            return
        same = next(place for place in range(_CHARACTERS_MAX) if one[place] != other[place])
        self.characters = same + 1
