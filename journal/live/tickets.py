"""Tickets: what somebody holds who has handed in an append, until it is known what became of it."""

import os
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from threading import Lock, local

from journal.errors import BusyError, ClosedError, JournalError
from journal.file.appending import Append, note_outcome
from journal.store import Appended, Outcome

_SLICE_SECONDS = 0.05  # on Windows no Ctrl-C ends a wait for another thread
_NOTHING_LEFT = Append(())

Notify = Callable[[Iterable["Ticket"]], None]
"""Is told of tickets of its own that are settled, those of a batch at once."""


class OwnThread(local):
    """Tells a thread whether it is the journal's own, which commits: it must not wait for itself.

    It runs code of the program, too, such as a handler of logging, or a projection's fold.
    """

    is_this = False


class Ticket:
    """An append that was handed in with `Journal.submit`."""

    def __init__(
        self, append: Append, path: Path, own_thread: OwnThread, notify: Notify | None = None
    ) -> None:
        self._append = append
        self._own_thread = own_thread
        self._notify = [] if notify is None else [notify]
        self._event_count = len(append.records)
        self._size = append.size
        self._path = path
        self._pid = os.getpid()
        self._handed_in_at = 0.0
        self._has_begun = False
        self._is_known = False
        self._wake_up = Lock()
        self._wake_up.acquire()
        self._positions: Appended | None = None
        self._error: BaseException | None = None
        self._outcome: Outcome | None = None

    def wait(self) -> Appended:
        """Wait until the append is committed, and return the positions of its events.

        It may be called again, and by several threads. An interrupt (Ctrl-C) ends the wait only:
        the append goes on.

        Raises:
            JournalError: what `append_events` would raise; each call raises one of its own.
            BusyError: the thread that commits it has called this, in a handler of logging, say.
        """
        if self._own_thread.is_this and not self._is_known:
            raise BusyError(self._path, "cannot be waited for by what it has called itself")
        self._wait()
        if self._error is not None:
            raise self._own(self._error)
        assert self._positions is not None  # noqa: S101 (for the type checker)
        return self._positions

    @property
    def positions(self) -> Appended | None:
        """Where the events are; None while that is not known, and where nothing was committed."""
        return self._positions

    @property
    def outcome(self) -> Outcome | None:
        """What has become of the append; None while that is not known."""
        return self._outcome if self._is_known else None

    def _check_may_wait(self) -> None:
        if not self._is_known and os.getpid() != self._pid:  # what would commit it is in the parent
            raise ClosedError(self._path, "this append was handed in before the process was forked")

    def _wait(self) -> None:
        self._check_may_wait()
        # No Event: who settles it would wait for a thread that a signal's handler holds up in it.
        while not self._is_known:
            self._wait_a_moment()

    def _wait_a_moment(self) -> None:
        if self._wake_up.acquire(timeout=_SLICE_SECONDS):
            self._wake_up.release()  # for the next one who waits

    def _own(self, error: BaseException) -> BaseException:
        """Return an error to raise in this thread, which no other thread raises, too."""
        mine = error
        if isinstance(error, JournalError):
            mine = copy(error)
            mine.__cause__ = error.__cause__
        if self._outcome is not None:
            note_outcome(mine, self._outcome)
        return mine

    def _commit(self, positions: Appended) -> None:
        """Let those go on who wait: it is committed."""
        self._positions = positions
        self._settle(Outcome("committed", positions))

    def _fail(self, error: BaseException, outcome: Outcome) -> None:
        """Let those go on who wait: it ended with an error."""
        self._error = error
        self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._append = _NOTHING_LEFT
        self._is_known = True
        self._wake_up.release()
