"""Tickets: what somebody holds who has handed in an append, until it is known what became of it."""

import os
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from threading import Lock

from journal.errors import ClosedError, CommitFailedError, JournalError
from journal.file.appending import Append
from journal.store import Appended, Outcome

_SLICE_SECONDS = 0.05  # on Windows no Ctrl-C ends a wait for another thread
_NOTHING_LEFT = Append(())

Notify = Callable[[Iterable["Ticket"]], None]
"""Is told of tickets of its own that are settled, those of a batch at once."""


class Ticket:
    """An append that was handed in with `Journal.submit`."""

    def __init__(self, append: Append, path: Path, notify: Notify | None = None) -> None:
        self._append = append
        self._notify = notify
        self._size = sum(len(record[4]) for record in append.records if record[4])
        self._path = path
        self._pid = os.getpid()
        self._handed_in_at = 0.0
        self._has_begun = False
        self._is_known = False
        self._wake_up = Lock()
        self._wake_up.acquire()
        self._positions: Appended | None = None
        self._error: BaseException | None = None

    def wait(self) -> Appended:
        """Wait until the append is committed, and return the positions of its events.

        It may be called again, and by several threads. An interrupt (Ctrl-C) ends the wait only:
        the append goes on.

        Raises:
            JournalError: what `append_events` would raise; each call raises one of its own.
        """
        self._wait()
        if self._error is not None:
            raise _own(self._error)
        assert self._positions is not None  # noqa: S101 (for the type checker)
        return self._positions

    @property
    def positions(self) -> Appended | None:
        """Where the events are; None while that is not known, and where nothing was committed."""
        return self._positions if self._error is None else None

    @property
    def outcome(self) -> Outcome | None:
        """What has become of the append; None while that is not known."""
        if not self._is_known:
            return None
        if self._error is None:
            return Outcome("committed", self._positions)
        if isinstance(self._error, CommitFailedError):
            return Outcome("unknown", self._positions)
        return Outcome("rejected", None)

    def _wait(self) -> None:
        if not self._is_known and os.getpid() != self._pid:  # what would commit it is in the parent
            raise ClosedError(self._path, "this append was handed in before the process was forked")
        # No Event: who settles it would wait for a thread that a signal's handler holds up in it.
        while not self._is_known:
            if self._wake_up.acquire(timeout=_SLICE_SECONDS):
                self._wake_up.release()  # for the next one who waits

    def _settle(self, positions: Appended | None, error: BaseException | None) -> None:
        """Let those go on who wait."""
        self._positions, self._error = positions, error
        self._append = _NOTHING_LEFT
        self._is_known = True
        self._wake_up.release()


def _own(error: BaseException) -> BaseException:
    """Return an error to raise in this thread, which no other thread raises, too."""
    if not isinstance(error, JournalError):
        return error
    mine = copy(error)
    mine.__cause__ = error.__cause__
    return mine
