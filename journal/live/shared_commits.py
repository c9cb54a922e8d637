"""Shared commits: appends that meet are written by one insert and wait for one sync.

A caller that meets nobody commits by itself, which is quickest. Callers that meet are committed by
a thread of the journal's own: an interrupt (Ctrl-C) reaches the main thread only, so it never tears
a commit that others wait for. The thread takes what waits once it has the lock for writing, so that
all that was not taken yet can still be taken out.
"""

import atexit
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import apsw

from journal.errors import (
    BusyError,
    ClosedError,
    CommitFailedError,
    JournalError,
    OverloadedError,
)
from journal.file.appending import NOTHING, Append, Appender, Refused, note_outcome
from journal.file.connections import Database
from journal.live.tickets import Notify, OwnThread, Ticket
from journal.store import REJECTED, Appended, Outcome

BATCH_EVENTS_MAX = 1_000
BATCH_SIZE_MAX = 4 * 1024 * 1024
"""In characters of data."""

_IDLE_SECONDS = 0.2

# Who waited so long for the lock has met another process, and leaves it to that one for a moment.
_LONG_WAIT_SECONDS = 0.02
_PAUSE_SECONDS = 0.001

_SLICE_SECONDS = 0.05  # on Windows no Ctrl-C ends a wait for another thread


class SharedCommits:
    """Appends for the threads that share a journal.

    No more than `waiting_max` appends wait at a time; None: any number.
    """

    def __init__(self, database: Database, appender: Appender, waiting_max: int | None) -> None:
        self._database = database
        self._appender = appender
        self._waiting_max = waiting_max
        self.after_commit: Callable[[int, int], None] | None = None
        """Is told how many events were committed, and how many characters of data they have, once
        those who waited for it know."""
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a signal's handler that appends may be in the same thread
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Ticket] = deque()
        self._thread: threading.Thread | None = None
        self._own_thread = OwnThread()
        self._is_closed = False
        # What tells a caller whether it meets anybody. Where an interrupt leaves one of these
        # behind, callers are committed by the thread, which is right, too.
        self._alone: int | None = None
        self._committing = 0  # threads
        self._have_met = False

    def append(self, append: Append) -> Appended:
        """Append, and return when it is committed; see `Appender.append`.

        An interrupt while others commit it is raised once it is certain what becomes of it.

        Raises:
            OverloadedError: too many wait.
            BusyError: what the thread that commits has called appends.
        """
        try:
            return self._append(append)
        except JournalError as error:
            if error.outcome is None:  # it was refused
                note_outcome(error, REJECTED)
            raise

    def _append(self, append: Append) -> Appended:
        self._database.check_open()
        if append.is_nothing:
            return NOTHING
        if self._alone == threading.get_ident():
            # in a signal's handler, in the middle of an append of its thread
            return self._appender.append(append)
        appended = self._append_alone(append)
        if appended is not None:
            if self.after_commit is not None:
                try:
                    self.after_commit(len(append.records), append.size)
                except BaseException as error:  # an interrupt, in what is done besides
                    note_outcome(error, Outcome("committed", appended))
                    raise
            return appended
        self._check_may_call("appended to")
        ticket = Ticket(append, self._database.path, self._own_thread)
        try:
            self._hand_in(ticket)
            return ticket.wait()
        except BaseException as error:
            self._note_fate(error, ticket)
            raise

    def _append_alone(self, append: Append) -> Appended | None:
        """Append, if it meets nobody; else return None."""
        me = threading.get_ident()
        try:
            with self._lock:
                if self._is_free():
                    self._alone = me
            return self._appender.append(append) if self._alone == me else None
        finally:
            if self._alone == me:
                self._alone = None

    def submit(self, append: Append, notify: Notify | None = None) -> Ticket:
        """Hand in an append, for the journal's own thread to commit.

        Args:
            append: what is to be committed.
            notify: is called in that thread with the tickets of a batch that were handed in with
                it, when they are settled.

        Raises:
            OverloadedError: too many wait.
            JournalError: those of `Database.check_may_write`.
        """
        ticket = Ticket(append, self._database.path, self._own_thread, notify)
        try:
            self._database.check_may_write()
            self._hand_in(ticket)
            return ticket  # noqa: TRY300 (an interrupt may come here, too)
        except JournalError as error:  # it was not handed in
            note_outcome(error, REJECTED)
            raise
        except BaseException as error:
            self._note_fate(error, ticket)
            raise

    def _note_fate(self, error: BaseException, ticket: Ticket) -> None:
        """Have what ended a handing in, or a wait, say what has become of the append."""
        if not self.take_out(ticket):
            ticket._wait()
        note_outcome(error, ticket.outcome or REJECTED)

    def take_out(self, ticket: Ticket) -> bool:
        """Take an append out that nobody has begun to commit; False where it is too late."""
        with self._lock:
            if ticket._has_begun or ticket.outcome is not None:
                return False
            with suppress(ValueError):  # it was not handed in yet
                self._queue.remove(ticket)
            error = ClosedError(self._database.path, "the append was taken back")
            ticket._fail(error, REJECTED)
            return True

    def close(self) -> None:
        """Commit what waits, and refuse whatever comes later.

        Raises:
            BusyError: what the thread that commits has called closes it.
        """
        if os.getpid() != self._pid:
            return
        if self._own_thread.is_this:
            raise BusyError(self._database.path, "cannot be closed by what it has called itself")
        with self._lock:
            self._is_closed = True
            self._changed.notify_all()
        while True:
            with self._lock:
                thread = self._running() if self._queue else self._thread
            if self._queue and thread is None:
                self._commit_all()
            elif thread is None or not thread.is_alive():
                return
            else:
                thread.join(_SLICE_SECONDS)

    def _is_free(self) -> bool:
        """Tell whether a caller meets nobody now, and the one before met nobody."""
        is_anybody_here = self._alone is not None or self._committing or self._queue
        return not (is_anybody_here or self._have_met or self._is_closed)

    def _check_may_call(self, what: str) -> None:
        """Make sure that this thread may wait for what it hands in.

        Raises:
            BusyError: it is the one that would have to commit it.
            JournalError: those of `Database.check_may_write`.
        """
        self._database.check_may_write()
        if self._is_held_up() or self._own_thread.is_this:
            raise BusyError(self._database.path, f"cannot be {what} by what it has called itself")

    def _is_held_up(self) -> bool:
        """Tell whether a signal's handler asks, which has interrupted its thread in here."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # as Condition does

    def _hand_in(self, ticket: Ticket) -> None:
        with self._lock:
            self._make_room(ticket)
            ticket._handed_in_at = time.monotonic()
            self._queue.append(ticket)
            thread = self._running()
            if len(self._queue) == 1 or self._is_due():
                self._changed.notify()
        if thread is None:
            self._commit_until(ticket)

    def _make_room(self, ticket: Ticket) -> None:  # noqa: ARG002 (it is for what may be large)
        """Make sure that an append may be handed in, with `_lock` held."""
        self._check_not_closed()
        waiting = len(self._queue)
        if self._waiting_max is not None and waiting >= self._waiting_max:
            raise OverloadedError(waiting=waiting, waiting_max=self._waiting_max)

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise ClosedError(self._database.path, "the journal is closed")

    def _is_due(self) -> bool:
        """Tell whether anything waits that is to be committed now."""
        return bool(self._queue)

    def _pause_seconds(self) -> float:
        """Return how long there is nothing to do, unless somebody says so."""
        return _IDLE_SECONDS

    def _running(self) -> threading.Thread | None:
        """Return the thread that commits, started if need be; None where callers have to.

        Where an interrupt comes in between, a second one may be started. They exclude each other
        by the lock for writing.
        """
        if _is_ending():
            return None
        thread = self._thread
        if thread is None or not thread.is_alive():
            thread = self._thread = threading.Thread(target=self._run, name="journal commits")
            try:
                thread.start()
            except RuntimeError:  # the system has no more of them
                self._thread = None
                return None
        return thread

    def _run(self) -> None:
        self._own_thread.is_this = True
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            while self._is_due() and not _is_ending():
                self._commit_batch()
            with self._lock:
                is_ending = _is_ending()
                last = self._queue[-1] if self._queue else None
                if not (is_ending or self._is_due() or self._is_closed):
                    self._changed.wait(self._pause_seconds())
                if is_ending or not self._queue:
                    if self._thread is threading.current_thread():
                        self._thread = None
                    self._have_met = False
                    break
        if last is not None:  # whoever comes later commits by itself
            self._commit_until(last)

    def _commit_until(self, ticket: Ticket) -> None:
        while ticket.outcome is None:
            if self._queue:
                self._commit_batch()
            else:  # another thread has begun to commit it, and may have to put it back
                ticket._wait_a_moment()

    def _commit_all(self) -> None:
        while self._queue:
            self._commit_batch()

    def _commit_batch(self) -> None:
        with self._lock:
            self._committing += 1
        try:
            self._commit_some()
        finally:
            with self._lock:
                self._committing -= 1

    def _commit_some(self) -> None:
        """Commit a batch of what waits."""
        batch: list[Ticket] = []
        results: list[Outcome | Refused] = []
        began = time.monotonic()
        waited = 0.0
        try:
            self._appender.make_ready()
            with self._database.write() as connection:
                waited = time.monotonic() - began
                self._take(batch)
                results = self._append_in(connection, batch)
        except BaseException as error:
            if self._is_for_one(error):
                attempt = next((it for it in results if isinstance(it, Outcome)), None)
                outcome = self._appender.outcome_after(error, attempt)
                self._leave_to_others(batch, results, outcome)
                raise
            if results:  # the commit failed: nothing is tried again
                self._settle(batch, results, error)
            elif batch:
                self._commit_each(batch)
                self._committed(batch)
            else:
                late = isinstance(error, BusyError)
                batch = self._take_those_before(began) if late else self._take([])
                self._settle(batch, [error] * len(batch))
        else:
            try:
                self._settle(batch, results)
            except BaseException:  # an interrupt: the others are to hear of it all the same
                self._settle(batch, results)
                raise
            self._committed(batch)
        self._have_met = len(batch) > 1
        if waited > _LONG_WAIT_SECONDS:
            time.sleep(_PAUSE_SECONDS)

    def _committed(self, batch: list[Ticket]) -> None:
        """Tell `after_commit` how much of a batch was committed."""
        if self.after_commit is not None:
            done = [it for it in batch if it.positions is not None]
            self.after_commit(sum(it._event_count for it in done), sum(it._size for it in done))

    def _is_for_one(self, error: BaseException) -> bool:
        """Tell whether it is an interrupt of a caller that commits for others, too."""
        return not (isinstance(error, Exception) or self._own_thread.is_this)

    def _leave_to_others(
        self, batch: list[Ticket], results: Sequence[Outcome | Refused], outcome: Outcome
    ) -> None:
        """Put back what an interrupt has kept from being written; else the file has said it."""
        if outcome.state == "committed":
            self._settle(batch, results)
        elif outcome.state == "unknown":
            reason = "a commit was interrupted, and the file does not say whether it took"
            self._settle(batch, results, CommitFailedError(self._database.path, reason))
        else:
            self._put_back(batch)

    def _put_back(self, batch: list[Ticket]) -> None:
        with self._lock:
            for ticket in reversed(batch):
                ticket._has_begun = False
                if ticket not in self._queue:
                    self._queue.appendleft(ticket)

    def _append_in(
        self, connection: apsw.Connection, batch: list[Ticket]
    ) -> list[Outcome | Refused]:
        """Append a batch; return what is to be said of each append if the commit fails."""
        results = self._appender.append_in(connection, [ticket._append for ticket in batch])
        attempt = self._appender.attempt
        return [it if isinstance(it, Refused) else attempt(it) for it in results]

    def _commit_each(self, batch: list[Ticket]) -> None:
        """Commit each append alone: one of them cannot be written."""
        for number, ticket in enumerate(batch):
            try:
                ticket._commit(self._appender.append(ticket._append))
            except BaseException as error:
                outcome = getattr(error, "outcome", None) or REJECTED
                if self._is_for_one(error):
                    self._put_back(batch[number + 1 :])
                    self._leave_to_others([ticket], [outcome], outcome)
                    self._tell(batch[:number])
                    raise
                ticket._fail(error, outcome)
        self._tell(batch)

    def _take(self, batch: list[Ticket]) -> list[Ticket]:
        """Move what goes into a batch there; what is too large is a batch by itself."""
        events = size = 0
        with self._lock:
            while self._queue:
                ticket = self._queue[0]
                events += len(ticket._append.records) or 1
                size += ticket._size
                if batch and (events > BATCH_EVENTS_MAX or size > BATCH_SIZE_MAX):
                    break
                ticket._has_begun = True
                batch.append(ticket)  # first: no interrupt may come between and lose it
                self._queue.popleft()
        return batch

    def _take_those_before(self, instant: float) -> list[Ticket]:
        with self._lock:
            late = [ticket for ticket in self._queue if ticket._handed_in_at <= instant]
            for ticket in late:
                self._queue.remove(ticket)
        return late

    def _settle(
        self,
        batch: list[Ticket],
        results: Sequence[Outcome | Refused | BaseException],
        error: BaseException | None = None,
    ) -> None:
        """Tell what has become of appends; `error` is that of a commit in which they were."""
        for ticket, result in zip(batch, results, strict=True):
            if ticket.outcome is not None:  # an interrupt came before: this is a repetition
                continue
            if isinstance(result, BaseException):
                ticket._fail(result, REJECTED)
            elif isinstance(result, Refused):
                why: BaseException = result.error
                if error is not None and result.rests_on_others:  # which may not be written
                    why = error
                ticket._fail(why, REJECTED)
            elif error is not None:
                ticket._fail(error, self._appender.outcome_after(error, result))
            else:
                ticket._commit(result.positions or NOTHING)
        self._tell(batch)

    def _tell(self, batch: list[Ticket]) -> None:
        """Tell those who asked for it that a batch is settled."""
        for notify in {each for ticket in batch for each in ticket._notify}:
            notify([ticket for ticket in batch if notify in ticket._notify])


_is_over = not threading.main_thread().is_alive()  # for who opens the first journal at the very end


def _is_ending() -> bool:
    """Tell whether the interpreter is about to end: it waits for what runs, not for what follows.

    Then the thread commits what was handed in before, and callers commit by themselves: daemon
    threads that go on would keep it busy for ever, and the interpreter from its end.
    """
    main = threading.main_thread()
    if threading.current_thread() is main:
        # Not `is_alive`: up to Python 3.12, one that is interrupted in it counts as ended.
        return _is_over
    return not main.is_alive()


def _at_exit() -> None:
    global _is_over  # noqa: PLW0603
    _is_over = True


atexit.register(_at_exit)
