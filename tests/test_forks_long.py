"""A fork while a thread is in one of SQLite's long statements: the child is refused, not hung.

SQLite's mutexes are copied as they are. A fork waits for two seconds; after that the child is told
what to do instead. The parent's work goes on as if nothing had been.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import lines_of
from test_forks import append, child_appends, forked

import journal
from journal import BusyError, Journal
from journal.file import forking

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

_DEADLINE_SECONDS = 60.0

SHIPPING = [
    "VACUUM INTO",
    "PRAGMA main.integrity_check",
    "SELECT json_group_array",
    "CREATE INDEX read_event_timestamp",
    "ANALYZE",
]
RECOVERING = [
    "VACUUM INTO",
    "INSERT INTO raw_event",
    "CREATE INDEX raw_event_by_seq",
    "CREATE INDEX found_block_by_end",
    "INSERT INTO new.event",
    "PRAGMA main.integrity_check",
]


class Stay:
    """Keeps the first statement that begins with a text from going on, once it has begun."""

    def __init__(self, begins_with: str) -> None:
        self.is_inside = threading.Event()
        self.leave = threading.Event()
        self._begins_with = begins_with
        self._parent = os.getpid()

    def watch(self, connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, self._at)

    def _at(self, event: dict[str, Any]) -> None:
        is_it = event["sql"].strip().startswith(self._begins_with) and os.getpid() == self._parent
        if is_it and not self.is_inside.is_set():
            self.is_inside.set()
            assert self.leave.wait(_DEADLINE_SECONDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    with Journal.open(path, durability="normal") as opened:
        opened.append_ndjson(lines_of("mixed/events.ndjson")[:1500])
    return path


@pytest.fixture
def staying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Stay]]:
    monkeypatch.setattr(forking, "_WAIT_SECONDS", 0.1)
    hooks = list(apsw.connection_hooks)

    def stay(begins_with: str) -> Stay:
        found = Stay(begins_with)
        apsw.connection_hooks.append(found.watch)
        return found

    yield stay
    apsw.connection_hooks[:] = hooks


def check_forks(path: Path, stay: Stay, work: Callable[[], object]) -> None:
    """Fork while the work is where it stays, and again when it is done."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    def refused() -> int:
        with pytest.raises(BusyError, match="forked while another thread was using a journal"):
            Journal.open(path)
        return 0

    with Journal.open(path) as opened:
        thread = threading.Thread(target=run)
        thread.start()
        while not stay.is_inside.wait(0.05):
            assert thread.is_alive(), failed
        child = forked(refused)
        stay.leave.set()
        thread.join()
        child()
        assert not failed
        assert append(opened, 1) == 1
        assert forked(lambda: child_appends(path, 2))() == 2


@pytest.mark.parametrize("begins_with", SHIPPING)
def test_while_it_is_shipped(
    path: Path, tmp_path: Path, staying: Callable[[str], Stay], begins_with: str
) -> None:
    def work() -> None:
        with Journal.open(path, read_only=True) as opened:
            opened.ship(tmp_path / "b.db")

    check_forks(path, staying(begins_with), work)
    assert journal.verify(tmp_path / "b.db", full=True).event_count == 1500


@pytest.mark.parametrize("begins_with", RECOVERING)
def test_while_one_is_recovered(
    path: Path, tmp_path: Path, staying: Callable[[str], Stay], begins_with: str
) -> None:
    damaged, out = tmp_path / "damaged.db", tmp_path / "b.db"
    data = path.read_bytes()
    damaged.write_bytes(data if begins_with == "VACUUM INTO" else bytes(4096) + data[4096:])

    check_forks(path, staying(begins_with), lambda: journal.recover(damaged, out))
    assert journal.verify(out, full=True).event_count == 1500
    with closing(apsw.Connection(str(out))) as file:
        assert file.pragma("integrity_check") == "ok"
