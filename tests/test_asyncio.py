"""`AsyncJournal`: tasks append and read, are cancelled, and their loops end, in good order."""

import asyncio
import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from support import activated, check_file, number_of, numbered, started
from test_shared_commits import held_up, own_threads, wait_for

from journal import (
    AsyncJournal,
    ClosedError,
    ConcurrencyError,
    InvalidEventError,
    Journal,
    JournalNotFoundError,
    OverloadedError,
    SessionId,
    StreamId,
)
from journal.file import connections
from journal.live import AsyncTicket, async_journal
from journal.store import Appended, Outcome
from journal.testing import FaultVFS

ONE, TWO = (SessionId(f"{number:032x}") for number in (1, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in a loop of its own, which has to end."""

    async def limited() -> Any:
        return await asyncio.wait_for(main(), support.TIMEOUT_S)

    return asyncio.run(limited())


def test_tasks_append_and_read(path: Path) -> None:
    async def main() -> None:
        async with AsyncJournal.open(path, durability="normal") as journal:
            assert await journal.append_events(numbered(ONE, range(3))) == Appended(1, 3)
            stream = StreamId.new()
            assert await journal.append_events([started(TWO, stream)], key="k") == Appended(4, 4)
            assert await journal.append_events([started(TWO, stream)], key="k") == Appended(4, 4)
            assert await journal.append_events([]) == Appended(None, None)

            assert [position async for position, _ in journal.read(after=1)] == [2, 3, 4]
            events = [event async for _, event in journal.read(session_id=ONE, limit=2)]
            assert [number_of(event) for event in events] == [0, 1]
            assert len(await journal.get_events_for_session(ONE)) == 3
            session = await journal.session(ONE)
            assert session is not None
            assert session.event_count == 3
            earlier = await journal.session(ONE, as_of=2)
            assert earlier is not None
            assert earlier.event_count == 2
            found = await journal.stream(stream)
            assert found is not None
            assert found.session_id == TWO
            assert [each.session_id async for each in journal.iter_sessions()] == [ONE, TWO]
            newest = journal.iter_sessions(order="newest", limit=1)
            assert [each.session_id async for each in newest] == [TWO]
            assert [each.stream_id async for each in journal.iter_streams(TWO)] == [stream]
            assert await asyncio.to_thread(journal.journal.event_count) == 4

    run(main)
    assert len(check_file(path, closed=True)) == 4


def test_what_is_refused_is_an_error_of_the_task(path: Path) -> None:
    async def main() -> None:
        async with AsyncJournal.open(path) as journal:
            await journal.append_events([activated(ONE)])
            with pytest.raises(ConcurrencyError, match="is at version 1, expected 3"):
                await journal.append_events([activated(ONE)], expected_versions={ONE: 3})
            with pytest.raises(InvalidEventError):
                await journal.append_events(["not an event"])  # type: ignore[list-item]
            with pytest.raises(TypeError, match="expected a SessionId"):
                await journal.session(StreamId.new())  # type: ignore[arg-type]
        with pytest.raises(JournalNotFoundError):
            async with AsyncJournal.open(path.with_name("no.db"), read_only=True):
                pass
        with pytest.raises(ValueError, match="waiting_max"):
            async with AsyncJournal.open(path, waiting_max=0):
                pass

    run(main)


def test_rows_are_made_in_pages_outside_the_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(path, durability="normal") as journal:
        journal.append_events([activated(SessionId.new(), number) for number in range(450)])
    made: list[tuple[str, int]] = []
    rows = async_journal.islice

    def noted(iterator: Any, count: int) -> Any:
        page = list(rows(iterator, count))
        made.append((threading.current_thread().name.split("_")[0], len(page)))
        return iter(page)

    class Lazy:
        def __init__(self, iterator: Any, count: int) -> None:
            self.arguments = iterator, count

        def __iter__(self) -> Any:
            return noted(*self.arguments)

    monkeypatch.setattr(async_journal, "islice", Lazy)

    async def main() -> None:
        async with AsyncJournal.open(path) as journal:
            assert len([each async for each in journal.read()]) == 450
            assert len([each async for each in journal.iter_sessions()]) == 450

    run(main)
    page = [("journal reads", count) for count in (200, 200, 50, 0)]
    assert made == page * 2


def test_tasks_share_commits_and_wake_the_loop_once_for_each(path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = 0
        call = loop.call_soon_threadsafe

        def counted(function: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += threading.current_thread().name == "journal commits"
            return call(function, *arguments, **named)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
        with FaultVFS() as disk:
            async with AsyncJournal.open(path) as journal:
                before = disk.commits
                disk.sync_seconds = 0.01

                async def append(session: SessionId) -> None:
                    for number in range(5):
                        await journal.append_events(
                            [activated(session, number)], expected_versions={session: number}
                        )

                await asyncio.gather(*(append(SessionId.new()) for _ in range(64)))
                disk.sync_seconds = 0
                assert disk.commits - before <= 32
                assert calls <= disk.commits - before

    run(main)
    assert len(check_file(path, closed=True)) == 320


def test_the_loop_goes_on_while_the_disk_is_slow(path: Path) -> None:
    async def main() -> None:
        with FaultVFS() as disk:
            async with AsyncJournal.open(path) as journal:
                await journal.append_events([activated(ONE)])
                disk.sync_seconds = 0.5
                appending = asyncio.create_task(journal.append_events([activated(ONE)]))
                turns = 0
                while not appending.done():
                    await asyncio.sleep(0.001)
                    turns += 1
                disk.sync_seconds = 0
                assert appending.result() == Appended(2, 2)
                assert turns > 20

    run(main)


def test_an_append_cancelled_while_it_waits_is_not_written(path: Path) -> None:
    async def main() -> None:
        async with AsyncJournal.open(path) as journal:
            await journal.append_events([activated(ONE)])
            with held_up(journal.journal):
                task = asyncio.create_task(journal.append_events([activated(TWO)]))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
            assert caught.value.outcome == Outcome("rejected", None)  # type: ignore[attr-defined]
            assert await journal.append_events([activated(ONE)]) == Appended(2, 2)
            assert await journal.get_events_for_session(TWO) == []
            assert journal._waker is not None
            assert journal._waker._futures == {}

    run(main)


def test_an_append_cancelled_while_it_is_committed_is_cancelled_after_that(path: Path) -> None:
    async def main() -> None:
        with FaultVFS() as disk:
            async with AsyncJournal.open(path) as journal:
                await journal.append_events([activated(ONE)])
                disk.sync_seconds = 0.2
                before = disk.syncs
                task = asyncio.create_task(journal.append_events([activated(TWO)]))
                await asyncio.to_thread(wait_for, lambda: disk.syncs > before)
                for _ in range(3):  # who insists does not get further
                    task.cancel()
                    await asyncio.sleep(0.001)
                    assert not task.done()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
                disk.sync_seconds = 0
                outcome = caught.value.outcome  # type: ignore[attr-defined]
                assert outcome == Outcome("committed", Appended(2, 2))
                assert len(await journal.get_events_for_session(TWO)) == 1
                assert task.cancelled()

    run(main)


def test_a_ticket_is_there_at_once_and_can_be_awaited(path: Path) -> None:
    async def main() -> None:
        async with AsyncJournal.open(path, waiting_max=3) as journal:
            with held_up(journal.journal):
                tickets = [journal.submit([activated(ONE, number)]) for number in range(2)]
                tickets.append(journal.submit([activated(TWO)], expected_versions={TWO: 4}))
                assert [(each.positions, each.outcome) for each in tickets] == [(None, None)] * 3
                with pytest.raises(OverloadedError):
                    journal.submit([activated(ONE)])
                with pytest.raises(InvalidEventError):
                    journal.submit(["not an event"])  # type: ignore[list-item]
            first = tickets[0]
            waits = [asyncio.create_task(first.wait()) for _ in range(3)]
            assert await asyncio.gather(*waits) == [Appended(1, 1)] * 3
            assert await first.wait() == first.positions == Appended(1, 1)
            assert await tickets[1].wait() == Appended(2, 2)
            with pytest.raises(ConcurrencyError) as caught:
                await tickets[2].wait()
            outcome = Outcome("rejected", None)
            assert caught.value.outcome == tickets[2].outcome == outcome
            assert journal._waker is not None
            assert journal._waker._futures == {}
            assert isinstance(first, AsyncTicket)

    run(main)


@pytest.mark.parametrize("is_shielded", [False, True])
def test_who_is_cancelled_while_it_waits_for_a_ticket_takes_the_append_back(
    path: Path, *, is_shielded: bool
) -> None:
    async def main() -> None:
        async with AsyncJournal.open(path) as journal:
            await journal.append_events([activated(ONE)])
            with held_up(journal.journal):
                ticket = journal.submit([activated(TWO)])
                other = asyncio.create_task(ticket.wait())
                wait = asyncio.shield(ticket.wait()) if is_shielded else ticket.wait()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(wait, 0.05)
            if is_shielded:
                assert await other == await ticket.wait() == Appended(2, 2)
            else:
                with pytest.raises(ClosedError, match="taken back") as caught:
                    await other
                assert caught.value.outcome == ticket.outcome == Outcome("rejected", None)
                assert await journal.get_events_for_session(TWO) == []

    run(main)


def test_who_is_cancelled_while_a_ticket_is_committed_is_so_after_that(path: Path) -> None:
    async def main() -> None:
        with FaultVFS() as disk:
            async with AsyncJournal.open(path) as journal:
                await journal.append_events([activated(ONE)])
                disk.sync_seconds = 0.2
                before = disk.syncs
                ticket = journal.submit([activated(TWO)])
                tasks = [asyncio.create_task(ticket.wait()) for _ in range(2)]
                await asyncio.to_thread(wait_for, lambda: disk.syncs > before)
                tasks[0].cancel()
                await asyncio.sleep(0.001)
                assert not tasks[0].done()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await tasks[0]
                disk.sync_seconds = 0
                assert await tasks[1] == Appended(2, 2)
                outcome = caught.value.outcome  # type: ignore[attr-defined]
                assert outcome == ticket.outcome == Outcome("committed", Appended(2, 2))

    run(main)


def test_a_ticket_may_be_awaited_in_another_loop(path: Path) -> None:
    journal = AsyncJournal.open(path)
    tickets = []

    async def first() -> None:
        await journal.__aenter__()
        held.enter_context(held_up(journal.journal))
        tickets.append(journal.submit([activated(ONE)]))

    async def second() -> None:
        waiting = asyncio.create_task(tickets[0].wait())
        await asyncio.sleep(0.01)
        held.close()
        assert await waiting == Appended(1, 1)
        await journal.close()

    with contextlib.ExitStack() as held:
        run(first)
        run(second)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_ticket_may_be_awaited_in_two_loops_at_the_same_time(
    path: Path, *, is_cancelled: bool
) -> None:
    journal = AsyncJournal.open(path)
    found: list[Any] = []
    waits: list[Any] = []

    async def wait(ticket: AsyncTicket) -> None:
        waits.append(ticket)
        try:
            found.append(await asyncio.wait_for(ticket.wait(), support.TIMEOUT_S / 10))
        except (ClosedError, TimeoutError) as error:
            found.append(type(error))

    async def main() -> None:
        await journal.__aenter__()
        with held_up(journal.journal):
            ticket = journal.submit([activated(ONE)])
            here = [asyncio.create_task(wait(ticket)) for _ in range(2)]
            await asyncio.sleep(0)
            there = threading.Thread(target=lambda: asyncio.run(wait(ticket)))
            there.start()
            await asyncio.to_thread(wait_for, lambda: len(waits) == 3)
            await asyncio.sleep(0.05)
            if is_cancelled:
                here[0].cancel()
                await asyncio.wait(here)
        await asyncio.wait(here)
        await asyncio.to_thread(there.join)
        await journal.close()

    run(main)
    assert found == ([ClosedError] * 2 if is_cancelled else [Appended(1, 1)] * 3)


@pytest.mark.parametrize("seed", range(support.ROUNDS))
def test_every_cancelled_append_knows_what_became_of_it(path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> list[tuple[int, bool]]:
        told = []
        async with AsyncJournal.open(path) as journal:

            async def append(number: int) -> None:
                try:
                    await journal.append_events([activated(ONE, number)])
                    told.append((number, True))
                except asyncio.CancelledError as error:
                    state = error.outcome.state  # type: ignore[attr-defined]
                    assert state in ("committed", "rejected")
                    told.append((number, state == "committed"))
                    raise

            tasks = []
            for number in range(300):
                tasks.append(asyncio.create_task(append(number)))
                if number % 10 == 0:
                    await asyncio.sleep(rng.random() / 500)
                if rng.random() < 0.5:
                    tasks[rng.randrange(len(tasks))].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return told

    told = run(main)
    with Journal.open(path, read_only=True) as journal:
        there = {number_of(event) for _, event in journal.read()}
    assert {number for number, is_there in told if is_there} == there
    states = [is_there for _, is_there in told]
    assert 20 < states.count(True) < 300


def test_a_deadline_of_the_program_ends_the_wait(path: Path) -> None:
    async def main() -> None:
        async with AsyncJournal.open(path) as journal:
            await journal.append_events([activated(ONE)])
            with held_up(journal.journal):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await journal.append_events([activated(TWO)])
            assert await journal.get_events_for_session(TWO) == []

    run(main)


def test_the_limit_holds_for_tasks_too(path: Path) -> None:
    async def main() -> None:
        async with AsyncJournal.open(path, waiting_max=5) as journal:
            await journal.append_events([activated(ONE)])
            with held_up(journal.journal):
                tasks = [
                    asyncio.create_task(journal.append_events([activated(ONE)])) for _ in range(8)
                ]
                await asyncio.sleep(0.01)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(each) for each in results] == [Appended] * 5 + [OverloadedError] * 3

    run(main)


def test_several_loops_use_it_one_after_the_other(path: Path) -> None:
    journal = AsyncJournal.open(path)

    async def first() -> None:
        await journal.__aenter__()
        assert await journal.append_events([activated(ONE)]) == Appended(1, 1)

    async def second() -> None:
        assert await journal.append_events([activated(ONE)]) == Appended(2, 2)
        assert [position async for position, _ in journal.read()] == [1, 2]

    run(first)
    run(second)
    run(second_last := journal.close)
    run(second_last)  # closing again does nothing
    assert len(check_file(path, closed=True)) == 2


def test_closing_commits_what_waits_and_refuses_what_comes_later(path: Path) -> None:
    async def main() -> None:
        journal = AsyncJournal.open(path)
        with pytest.raises(ClosedError, match="is not open"):
            await journal.append_events([activated(ONE)])
        async with journal:
            await journal.append_events([activated(ONE), activated(TWO)])
            reading = journal.read()
            await anext(reading)
            with held_up(journal.journal):
                inner = journal.journal
                tasks = [
                    asyncio.create_task(journal.append_events([activated(ONE)])) for _ in range(3)
                ]
                await asyncio.sleep(0)
                closing = asyncio.create_task(journal.close())
                await asyncio.to_thread(wait_for, lambda: inner._commits._is_closed)
                uses: list[Awaitable[Any]] = [
                    journal.append_events([activated(TWO)]),
                    journal.session(ONE),
                ]
                for use in uses:
                    with pytest.raises(ClosedError):
                        await use
            await closing
            assert [each.first for each in await asyncio.gather(*tasks)] == [3, 4, 5]
            assert (await anext(reading)).position == 2  # of the page that is there
            with pytest.raises(ClosedError):
                await anext(reading)

    run(main)
    assert own_threads() == []
    assert len(check_file(path, closed=True)) == 5


def test_closing_waits_for_what_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    async def main() -> None:
        journal = AsyncJournal.open(path)
        async with journal:
            await journal.append_events([activated(ONE)])
            inner = journal.journal
            version = inner.version

            def slow(*_: Any) -> Any:
                begun.set()
                assert may_go_on.wait(support.TIMEOUT_S)
                return [version(ONE)]

            monkeypatch.setattr(inner, "get_events_for_session", slow)
            reads = [
                asyncio.create_task(journal.get_events_for_session(ONE))
                for _ in range(async_journal._THREADS_MAX - 1)
            ]
            await asyncio.to_thread(begun.wait, support.TIMEOUT_S)
            closing = asyncio.create_task(journal.close())
            await asyncio.sleep(0.1)
            may_go_on.set()
            assert await asyncio.gather(*reads) == [[1]] * len(reads)
            await closing

    run(main)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_refused_at_once(path: Path) -> None:
    journal = AsyncJournal.open(path)
    kept: list[Any] = []

    async def before() -> None:
        await journal.__aenter__()
        await journal.append_events([activated(ONE), activated(TWO)])
        held.enter_context(held_up(journal.journal))
        kept.append(journal.submit([activated(ONE)]))

    async def in_child() -> int:
        uses: list[Callable[[], Awaitable[Any]]] = [
            kept[0].wait,
            lambda: journal.session(ONE),
            lambda: journal.append_events([activated(ONE)]),
        ]
        for number, use in enumerate(uses):
            try:
                await asyncio.wait_for(use(), 5)
                return 10 + number
            except ClosedError as error:
                if "before" not in str(error):
                    return 20 + number
        await asyncio.wait_for(journal.close(), 5)
        return 0

    with contextlib.ExitStack() as held:
        run(before)
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = asyncio.run(in_child())
            os._exit(code)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    run(kept[0].wait)
    run(journal.close)
    assert len(check_file(path, closed=True)) == 3


def test_a_loop_that_ends_early_leaves_the_append_to_be_committed(path: Path) -> None:
    journal = AsyncJournal.open(path)

    async def main() -> None:
        await journal.__aenter__()
        await journal.append_events([activated(ONE)])
        asyncio.ensure_future(journal.append_events([activated(ONE)])).add_done_callback(
            lambda task: task.cancelled() or task.exception()
        )
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    pending = asyncio.all_tasks(loop)
    inner = journal.journal
    loop.close()
    inner.close()
    for task in pending:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert len(check_file(path, closed=True)) == 2
    del pending, task
    gc.collect()


def test_who_is_cancelled_while_it_is_opened_leaves_it_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = threading.Event()
    open_writer = connections.open_writer

    def slow(*arguments: Any) -> Any:
        opening.set()
        time.sleep(0.1)
        return open_writer(*arguments)

    monkeypatch.setattr(connections, "open_writer", slow)

    async def main() -> None:
        async def use() -> None:
            async with AsyncJournal.open(path):
                raise AssertionError

        task = asyncio.create_task(use())
        await asyncio.to_thread(opening.wait, support.TIMEOUT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert [one for one in apsw.connections() if one and one.filename == str(path)] == []
