"""Buffered appends: they return at once, and are committed together a little later.

What is buffered is in memory only, so a crash loses it, and nothing else: there is no way out of
the interpreter, but for that, on which it is not written. While anything is buffered, a thread
lives that is no daemon, for which the interpreter waits at its end. Once that has begun, appends
are committed before they return, since it may wait no more.
"""

import atexit
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Literal, NamedTuple, get_args
from weakref import WeakSet

from journal.errors import ClosedError, FlushFailedError, JournalError, OverloadedError
from journal.file.appending import NOTHING, Append, Appender, note_outcome
from journal.file.connections import Database
from journal.live.shared_commits import SharedCommits
from journal.live.tickets import Ticket
from journal.store import REJECTED, Appended, Outcome

WhenFull = Literal["block", "raise"]
"""What an append does that finds the buffer full: wait for room, or raise `OverloadedError`."""

OnFlushFailed = Callable[[FlushFailedError], object]

_DELAY_SECONDS = 0.1
_EVENTS_MAX = 10_000

_SLICE_SECONDS = 0.05
"""How long the end of the main thread may go unnoticed; and no Ctrl-C ends a wait on Windows."""

_open: "WeakSet[BufferedCommits]" = WeakSet()


class Buffering(NamedTuple):
    """How long events may be buffered, and how many; see `Journal.open`."""

    delay_seconds: float
    events_max: int
    when_full: WhenFull
    on_flush_failed: OnFlushFailed | None


def buffering_of(
    durability: str,
    max_delay: float | timedelta | None,
    max_events: int | None,
    when_full: WhenFull | None,
    on_flush_failed: OnFlushFailed | None,
) -> Buffering | None:
    """Return how to buffer, by the arguments of `Journal.open`; None: appends are not buffered.

    Raises:
        ValueError: one of them is not what it should be.
    """
    if durability not in ("full", "normal", "buffered"):
        message = f"durability: expected 'full', 'normal' or 'buffered', found {durability!r}"
        raise ValueError(message)
    arguments = max_delay, max_events, when_full, on_flush_failed
    if durability != "buffered":
        if any(each is not None for each in arguments):
            message = "max_delay, max_events, when_full, on_flush_failed: only with durability "
            message += f"'buffered', found {durability!r}"
            raise ValueError(message)
        return None
    seconds = _DELAY_SECONDS if max_delay is None else max_delay
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if type(seconds) not in (int, float) or not seconds >= 0:
        message = "max_delay: expected 0 or more seconds, or such a timedelta, found "
        raise ValueError(message + repr(max_delay))
    events = _EVENTS_MAX if max_events is None else max_events
    if type(events) is not int or events < 1:
        message = f"max_events: expected 1 or more, found {max_events!r}"
        raise ValueError(message)
    when_full = when_full or "block"
    if when_full not in get_args(WhenFull):
        message = f"when_full: expected 'block' or 'raise', found {when_full!r}"
        raise ValueError(message)
    return Buffering(seconds, events, when_full, on_flush_failed)


class BufferedCommits(SharedCommits):
    """Appends for the threads that share a journal, committed when they are due together.

    That is when the oldest has waited for long enough, when the buffer is half full, and when
    somebody flushes, closes, or ends the main thread.
    """

    def __init__(self, database: Database, appender: Appender, buffering: Buffering) -> None:
        super().__init__(database, appender, None)
        self._buffering = buffering
        self._events = 0  # that wait or are being committed
        self._is_urgent = False
        self._taken: Ticket | None = None  # the first of the latest batch
        self._failed: list[Ticket] = []
        _open.add(self)

    def buffer(self, append: Append) -> Ticket:
        """Hand in an append that may wait for others; it may have to wait for room itself.

        Raises:
            FlushFailedError: earlier ones could not be written.
            OverloadedError: the buffer is full.
            JournalError: those of `Database.check_may_write`.
        """
        ticket = _BufferedTicket(self, append)
        try:
            self._check_may_call("appended to")
            self.raise_failure()
            if append.is_nothing:
                ticket._commit(NOTHING)
            else:
                self._hand_in_when_there_is_room(ticket)
        except JournalError as error:  # it was not handed in
            note_outcome(error, REJECTED)
            raise
        except BaseException as error:
            self._note_fate(error, ticket)
            raise
        return ticket

    def _append(self, append: Append) -> Appended:
        """Append, and return when it is committed, and with it what was buffered before.

        Raises:
            FlushFailedError: earlier ones could not be written; this one was not tried.
            JournalError: those of `SharedCommits._append`.
        """
        self._check_may_call("appended to")
        self.raise_failure()
        return super()._append(append)

    def flush(self) -> None:
        """Return when all that was buffered before is settled.

        Raises:
            FlushFailedError: some of it could not be written.
            JournalError: those of `Database.check_may_write`.
        """
        self._check_may_call("flushed")
        if self._queue or self._committing:
            last = Ticket(Append(()), self._database.path, self._own_thread)
            self._hand_in(last)
            last._wait()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what nobody was told yet.

        Raises:
            FlushFailedError: buffered events could not be written.
        """
        if not self._failed or os.getpid() != self._pid:
            return
        with self._lock:
            failed, self._failed = self._failed, []
        if failed:
            raise self._error_of(failed)

    def _hand_in_when_there_is_room(self, ticket: Ticket) -> None:
        while True:
            try:
                self._hand_in(ticket)
                break
            except OverloadedError:
                if self._buffering.when_full == "raise":
                    raise
            with self._lock:
                ahead = self._queue[0] if self._queue else self._taken
            if ahead is not None:  # no Condition: an interrupt may leave its lock unlocked
                ahead._wait()

    def _make_room(self, ticket: Ticket) -> None:
        self._check_not_closed()
        if not isinstance(ticket, _BufferedTicket):  # somebody waits for it
            self._is_urgent = True
            return
        if not (self._queue or self._committing):  # an interrupt may have left some behind
            self._events = 0
        limit = self._buffering.events_max
        if self._events and self._events + ticket._event_count > limit:
            self._is_urgent = True
            self._changed.notify()
            raise OverloadedError(waiting=self._events, waiting_max=limit, what="events")
        ticket._is_counted = True
        self._events += ticket._event_count

    def settled(self, event_count: int) -> None:
        """Have so much more room, before those who wait for it hear of it."""
        with self._lock:
            self._events = max(0, self._events - event_count)

    def failed(self, ticket: Ticket) -> None:
        """Note an append that failed, before anybody can know of it."""
        with self._lock:
            self._failed.append(ticket)

    def _is_free(self) -> bool:
        return False

    def _is_due(self) -> bool:
        with self._lock:
            return bool(self._queue) and (
                self._is_urgent
                or self._is_closed
                or 2 * self._events >= self._buffering.events_max
                or self._seconds_left() <= 0
            )

    def _seconds_left(self) -> float:
        due = self._queue[0]._handed_in_at + self._buffering.delay_seconds
        return due - time.monotonic()

    def _pause_seconds(self) -> float:
        if not self._queue:
            return super()._pause_seconds()
        return max(0.0, min(self._seconds_left(), _SLICE_SECONDS))

    def _take(self, batch: list[Ticket]) -> list[Ticket]:
        with self._lock:
            super()._take(batch)
            self._taken = batch[0] if batch else None
            if not self._queue:
                self._is_urgent = False
            return batch

    def _tell(self, batch: list[Ticket]) -> None:
        super()._tell(batch)
        failed = [it for it in batch if isinstance(it, _BufferedTicket) and it._error is not None]
        if failed and self._buffering.on_flush_failed is not None:
            try:
                self._buffering.on_flush_failed(self._error_of(failed))
            except Exception as error:  # noqa: BLE001 (the program's own must not end the thread)
                _log(f"on_flush_failed has failed: {error!r}")

    def _error_of(self, failed: Sequence[Ticket]) -> FlushFailedError:
        path, cause = self._database.path, failed[0]._error
        error = FlushFailedError(
            path,
            sum(ticket._event_count for ticket in failed),
            str(cause).removeprefix(f"{path}: ") or type(cause).__name__,
            is_known=all(ticket._outcome == REJECTED for ticket in failed),
            errno=getattr(cause, "errno", None),
        )
        error.__cause__ = cause
        return error

    def flush_at_exit(self) -> None:
        """Flush, where nobody is left to be told of an error."""
        if self._is_closed or os.getpid() != self._pid:
            return
        try:
            self.flush()
        except JournalError as error:
            _log(str(error))


class _BufferedTicket(Ticket):
    """An append whose caller may not look at what becomes of it."""

    def __init__(self, commits: BufferedCommits, append: Append) -> None:
        super().__init__(append, commits._database.path, commits._own_thread)
        self._commits = commits
        self._is_counted = False

    def _settle(self, outcome: Outcome) -> None:
        if self._is_counted:
            self._commits.settled(self._event_count)
        super()._settle(outcome)

    def _fail(self, error: BaseException, outcome: Outcome) -> None:
        self._error, self._outcome = error, outcome
        if not isinstance(error, ClosedError):  # it was taken out, and its caller knows of it
            self._commits.failed(self)
        super()._fail(error, outcome)


def _log(text: str) -> None:
    import logging  # noqa: PLC0415 (hardly ever)

    logging.getLogger("journal").error("%s", text)


def _at_exit() -> None:
    for commits in list(_open):
        commits.flush_at_exit()


atexit.register(_at_exit)
