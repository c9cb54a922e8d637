"""What is told of one session, asked for anew each time, so that little of it is ever held."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, TypeVar

from journal.commands.console.group import CommandError
from journal.commands.console.tables import as_of_text

if TYPE_CHECKING:
    from journal import Journal, SessionId, Timestamp
    from journal.events import AnyEvent
    from journal.projections import Anomaly, StreamStatus

_Item = TypeVar("_Item")


_LONG_EVENTS = 10_000
"""To fold as many takes some tenths of a second."""


class OneSession:
    """A session as of one moment. Its streams and events come in order, in constant memory.

    Each question is answered as of a position that is settled first, from the events of this
    session alone: writers cannot come between two of them. Of a long session as of now, the states
    are those that are stored, which are there at once: its streams may have moved on meanwhile.

    Raises:
        CommandError: it has no events by then.
    """

    def __init__(
        self, opened: "Journal", session_id: "SessionId", as_of: "int | Timestamp | None"
    ) -> None:
        self._opened = opened
        self._id = session_id
        self._last = as_of if isinstance(as_of, int) else opened.last_position
        self._until = None if isinstance(as_of, int) else as_of
        self._moment = as_of
        if as_of is None and opened.version(session_id) <= _LONG_EVENTS:
            self._moment = self._last
        status = opened.session(session_id, as_of=self._moment)
        if status is None:
            known = "" if next(self.events(), None) is None else "of kinds that are known "
            where = f"in {opened.path}{as_of_text(as_of)}"
            raise CommandError(f"session {session_id} has no events {known}{where}")
        self.status = status

    def streams(self) -> "Iterator[StreamStatus]":
        """Return its streams."""
        return self._opened.iter_streams(self._id, as_of=self._moment)

    def events(self) -> "Iterator[tuple[int, AnyEvent]]":
        """Return its events with their positions."""
        events = self._opened.read(session_id=self._id, until=self._until)
        return takewhile(lambda event: event[0] <= self._last, events)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Return its events as canonical JSON with their positions."""
        lines = self._opened.lines(session_id=self._id, until=self._until)
        return takewhile(lambda line: line[0] <= self._last, lines)

    def with_reasons(
        self, events: Iterable[tuple[int, _Item]]
    ) -> Iterator[tuple[int, _Item, str | None]]:
        """Yield its events with what was wrong with each; None: nothing."""
        anomalies: Iterator[Anomaly] = iter(())
        if self.status.anomalies:
            anomalies = self._opened.iter_anomalies(self._id, as_of=self._moment)
        anomaly = next(anomalies, None)
        for position, event in events:
            reason = None
            if anomaly is not None and anomaly.position == position:
                reason, anomaly = anomaly.reason, next(anomalies, None)
            yield position, event, reason


class Ends(Generic[_Item]):
    """The first and the last of some items, and how many are hidden between them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._first: list[_Item] = []
        self._last: deque[_Item] = deque(maxlen=count)
        self.hidden = 0

    def add(self, item: _Item) -> None:
        """Take the next one."""
        if len(self._first) < self._count:
            self._first.append(item)
        else:
            self.hidden += len(self._last) == self._count
            self._last.append(item)

    @property
    def kept(self) -> list[_Item]:
        """Those that are not hidden."""
        return [*self._first, *self._last]
