"""A journal for programs that use asyncio: the loop waits for no disk and no lock."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from os import PathLike
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from journal.errors import ClosedError, JournalError
from journal.events.ids import SessionId, StreamId
from journal.events.unknown import AnyEvent
from journal.events.values import SessionState, StreamState
from journal.file.appending import append_of, note_outcome
from journal.file.opening import Durability
from journal.file.paths import absolute
from journal.journal import Journal
from journal.live.shared_commits import SharedCommits
from journal.live.tickets import Ticket
from journal.projections.as_of import AsOf
from journal.projections.listing import SessionOrder, StreamOrder
from journal.projections.results import SessionStatus, StreamStatus
from journal.store import REJECTED, Appended, Outcome, RecordedEvent

P = ParamSpec("P")
T = TypeVar("T")

PAGE_ROWS = 200
"""How many rows are made at a time: while they are, the loop has to share the interpreter."""

_THREADS_MAX = 4


class AsyncJournal:
    """A `Journal` whose methods are awaited.

        async with AsyncJournal.open(path) as journal:
            await journal.append_events(events)
            async for position, event in journal.read():
                ...

    Tasks that append at the same time share commits, as threads do. Several loops may use it, one
    after the other. `journal` is the `Journal` under it, for whatever is not here: call its methods
    by `asyncio.to_thread`. Those that return a whole list hold up the loop while they make it,
    wherever they run, as the interpreter runs one thread at a time: by 33 ms for 14,800 sessions.
    So prefer what is read with `async for`, which makes 200 rows at a time.
    """

    def __init__(self, opening: Callable[[], Journal], path: str | PathLike[str]) -> None:
        self._opening = opening
        self._path = absolute(path)
        self._journal: Journal | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._waker: _Waker | None = None

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        read_only: bool = False,
        durability: Durability = "full",
        label: str | None = None,
        waiting_max: int | None = None,
    ) -> Self:
        """Return a journal that `async with` opens and closes; see `Journal.open`.

        There is no `retention`: prune with `asyncio.to_thread(journal.journal.prune, ...)`.
        Tasks need no buffer. Where there is to be one all the same, for fewer syncs, the
        `append_events` of a `BufferedJournal` may be called in the loop: with `when_full="raise"`,
        it waits for nothing.

        Raises:
            ValueError: `durability` is "buffered".
            JournalError, ValueError: those of `Journal.open`, when `async with` opens it.
        """
        if durability == "buffered":  # type: ignore[comparison-overlap]
            raise ValueError(
                "durability: expected 'full' or 'normal', found 'buffered': its append_events may "
                "be called in a loop as it is, with Journal.open(path, when_full='raise', ...)"
            )
        opening = partial(
            Journal.open,
            path,
            read_only=read_only,
            durability=durability,
            label=label,
            waiting_max=waiting_max,
        )
        return cls(opening, path)

    async def __aenter__(self) -> Self:
        """Open it."""
        self._pid = os.getpid()
        threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="journal reads")
        opening = threads.submit(self._opening)
        try:
            self._journal = await _to_the_end(asyncio.wrap_future(opening))
        except BaseException:
            if not opening.cancelled() and opening.exception() is None:  # only this was cancelled
                await _to_the_end(asyncio.wrap_future(threads.submit(opening.result().close)))
            threads.shutdown(wait=False)
            raise
        self._threads = threads
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        try:
            await self.close()
        except JournalError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    async def close(self) -> None:
        """Let what runs come to its end, commit what waits, and close; see `Journal.close`.

        A task that is cancelled meanwhile is so when it is closed.
        """
        journal, threads = self._journal, self._threads
        if journal is None or threads is None:
            return
        self._journal = None
        if os.getpid() != self._pid:  # the threads are in the parent
            journal.close()
            return
        last = ThreadPoolExecutor(1, thread_name_prefix="journal closes")
        try:
            await _to_the_end(asyncio.wrap_future(last.submit(_close, journal, threads)))
        finally:
            last.shutdown(wait=False)

    @property
    def journal(self) -> Journal:
        """The journal under it.

        Raises:
            ClosedError: it is not open, or was opened before the process was forked.
        """
        return self._opened()[0]

    def _opened(self) -> tuple[Journal, ThreadPoolExecutor]:
        if self._journal is None or self._threads is None:
            raise ClosedError(self._path, "the journal is not open")
        if os.getpid() != self._pid:  # the threads are in the parent
            raise ClosedError(self._path, "was opened before this process was forked")
        return self._journal, self._threads

    async def append_events(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append events, all or nothing; see `Journal.append_events`.

        If the task is cancelled before anybody has begun to commit it, nothing is written. After
        that, it is cancelled when the commit is done. The `asyncio.CancelledError` has an attribute
        `outcome` that says which.

        Raises:
            JournalError: those of `Journal.append_events`.
        """
        return await self.submit(events, expected_versions=expected_versions, key=key).wait()

    def submit(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> "AsyncTicket":
        """Hand in what `append_events` would append, and return a ticket at once.

        What one task hands in keeps its order. Closing the journal commits it, too.

        Raises:
            InvalidEventError: something in `events` is not an event.
            ReadOnlyError: as it says.
            OverloadedError: more appends wait than `waiting_max` of `open` allows.
        """
        try:
            commits = self.journal._commits
        except ClosedError as error:
            note_outcome(error, REJECTED)
            raise
        loop = asyncio.get_running_loop()
        waker = self._waker
        if waker is None or waker.loop is not loop:
            waker = self._waker = _Waker(loop)
        ticket = commits.submit(append_of(events, expected_versions, key), waker)
        return AsyncTicket(ticket, commits, waker)

    async def session(self, session_id: SessionId, *, as_of: AsOf = None) -> SessionStatus | None:
        """Return what has become of a session; see `Journal.session`."""
        return await self._call(self.journal.session, session_id, as_of=as_of)

    async def stream(self, stream_id: StreamId, *, as_of: AsOf = None) -> StreamStatus | None:
        """Return what has become of a stream; see `Journal.stream`."""
        return await self._call(self.journal.stream, stream_id, as_of=as_of)

    async def get_events_for_session(self, session_id: SessionId) -> list[AnyEvent]:
        """Return the events of a session, as a whole list; see `Journal`, and `read`."""
        return await self._call(self.journal.get_events_for_session, session_id)

    def read(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        session_id: SessionId | None = None,
        stream_id: StreamId | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        kinds: Collection[str] | None = None,
        origin: str | None = None,
    ) -> AsyncIterator[RecordedEvent]:
        """Yield the events that fit everything given, with their positions; see `Journal.read`."""
        return self._pages(
            partial(
                self.journal.read,
                after,
                limit,
                session_id=session_id,
                stream_id=stream_id,
                since=since,
                until=until,
                kinds=kinds,
                origin=origin,
            )
        )

    def iter_sessions(
        self,
        state: SessionState | None = None,
        *,
        order: SessionOrder = "oldest",
        limit: int | None = None,
        as_of: AsOf = None,
    ) -> AsyncIterator[SessionStatus]:
        """Yield the sessions in `state`, or all; see `Journal.iter_sessions`."""
        listing = self.journal.iter_sessions
        return self._pages(partial(listing, state, order=order, limit=limit, as_of=as_of))

    def iter_streams(
        self,
        session_id: SessionId | None = None,
        state: StreamState | None = None,
        *,
        order: StreamOrder = "oldest",
        limit: int | None = None,
        as_of: AsOf = None,
    ) -> AsyncIterator[StreamStatus]:
        """Yield the streams of a session, or all, that are in `state`; see `Journal`."""
        listing = self.journal.iter_streams
        return self._pages(
            partial(listing, session_id, state, order=order, limit=limit, as_of=as_of)
        )

    async def _pages(self, begin: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        rows = await self._call(begin)
        while page := await self._call(list, islice(rows, PAGE_ROWS)):
            for row in page:
                yield row

    async def _call(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in a thread."""
        _, threads = self._opened()
        return await asyncio.wrap_future(threads.submit(function, *arguments, **named))


class AsyncTicket:
    """An append that was handed in with `AsyncJournal.submit`."""

    def __init__(self, ticket: Ticket, commits: SharedCommits, waker: "_Waker") -> None:
        self._ticket = ticket
        self._commits = commits
        self._wakers = [waker]

    async def wait(self) -> Appended:
        """Wait until the append is committed, and return the positions of its events.

        It may be called again, and by several tasks, in any loop. A task that is cancelled takes
        the append back with it, as it does a future: if nobody has begun to commit it, nothing is
        written, and other tasks that wait get a `ClosedError`; after that, the task is cancelled
        when the commit is done. The `asyncio.CancelledError` has an attribute `outcome` that says
        which. A deadline that is to end the wait only takes `asyncio.shield`.

        Raises:
            JournalError: what `append_events` would raise; each call raises one of its own.
        """
        ticket, waker = self._ticket, self._waker_here()
        ticket._check_may_wait()
        future = waker.future_of(ticket)
        try:
            await future
        except asyncio.CancelledError as error:
            if not self._commits.take_out(ticket):
                await waker.wait_for(ticket)
            for each in self._wakers:
                each((ticket,))
            note_outcome(error, ticket.outcome or REJECTED)
            raise
        return ticket.wait()

    def _waker_here(self) -> "_Waker":
        """Return what wakes the tasks of the loop that runs."""
        loop = asyncio.get_running_loop()
        for waker in self._wakers:
            if waker.loop is loop:
                return waker
        waker = _Waker(loop)
        self._wakers.append(waker)
        self._ticket._notify.append(waker)
        return waker

    @property
    def positions(self) -> Appended | None:
        """Where the events are; None while that is not known, and where nothing was committed."""
        return self._ticket.positions

    @property
    def outcome(self) -> Outcome | None:
        """What has become of the append; None while that is not known."""
        return self._ticket.outcome


class _Waker:
    """Lets the tasks of one loop go on when their appends are settled, a batch at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._futures: dict[Ticket, list[asyncio.Future[None]]] = {}

    def future_of(self, ticket: Ticket) -> asyncio.Future[None]:
        """Return what is done when a ticket is settled; called in the loop."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._futures.setdefault(ticket, []).append(future)
        if ticket.outcome is not None:  # before this was here to be found
            self.wake((ticket,))
        return future

    async def wait_for(self, ticket: Ticket) -> None:
        """Wait until a ticket is settled, whoever cancels the task."""
        while ticket.outcome is None:
            with suppress(asyncio.CancelledError):
                await self.future_of(ticket)

    def __call__(self, tickets: Iterable[Ticket]) -> None:
        """Wake the tasks that wait for some tickets; called in any thread."""
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self.loop.call_soon_threadsafe(self.wake, tickets)

    def wake(self, tickets: Iterable[Ticket]) -> None:
        """Wake the tasks that wait for some tickets; called in the loop."""
        for ticket in tickets:
            for future in self._futures.pop(ticket, ()):
                if not future.done():
                    future.set_result(None)


def _close(journal: Journal, threads: ThreadPoolExecutor) -> None:
    """Close a journal once nothing is read from it any more."""
    threads.shutdown(wait=True)
    journal.close()


async def _to_the_end(future: "asyncio.Future[T]") -> T:
    """Wait for what cannot be stopped half-way; whoever was cancelled meanwhile is so after it."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        with suppress(Exception):
            future.result()
        raise cancelled
    return future.result()
