"""Erasing: what SQLite leaves of deleted texts where it moves rows from page to page."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prune_support import small_blocks
from support import NOON, started

from journal import DamagedError, Journal, Retention, SessionId, StreamFailed, StreamId, verify
from journal.events import AnyEvent
from journal.maintenance import erasing
from journal.maintenance.erasing import erase

SEEDS = (0, 1, 5, 6, 9, 10)  # each leaves something in one test or both if nothing erases it


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


class Streams:
    """Streams that begin and fail in any order, each failure with a text of its own."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._sessions = [SessionId.new() for _ in range(5)]
        self._live: list[tuple[SessionId, StreamId]] = []
        self._count = 0

    def some(self) -> Iterator[list[AnyEvent]]:
        """Return the events of some appends."""
        for _ in range(self._chance.randint(5, 20)):
            yield [self._next() for _ in range(self._chance.randint(1, 60))]

    def _next(self) -> AnyEvent:
        if not self._live or self._chance.random() < 0.5:
            session, stream = self._chance.choice(self._sessions), StreamId.new()
            self._live.append((session, stream))
            return started(session, stream)
        session, stream = self._live.pop(self._chance.randrange(len(self._live)))
        self._count += 1
        rest = "x" * self._chance.choice([0, 50, self._chance.randint(0, 1_500)])
        error = f"secret {self._count:06} {rest}"
        return StreamFailed(session_id=session, stream_id=stream, error=error, timestamp=NOON)


def secrets_in(text: bytes) -> set[bytes]:
    return set(re.findall(rb"secret [0-9]{6}", text))


def secrets_left(journal: Journal) -> set[bytes]:
    """Return those that the journal still has, and should have."""
    connection = journal.connection()
    texts = [
        text
        for table, column in (
            ("event", "data"),
            ("projection_stream", "error"),
            ("base_stream", "state"),
        )
        for (text,) in connection.execute(f"SELECT {column} FROM {table}")
        if text is not None
    ]
    connection.close()
    return secrets_in("\n".join(texts).encode())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_page_keeps_a_deleted_text(path: Path, seed: int) -> None:
    streams, chance = Streams(seed), random.Random(seed)
    with Journal.open(path, durability="normal") as journal:
        for _ in range(4):
            for events in streams.some():
                journal.append_events(events)
                if chance.random() < 0.3:
                    journal.streams(limit=1)  # folded in steps, so that rows in all pages grow
            report = journal.prune(keep_events=chance.choice([0, 100, 300]))
            assert report.erased
            assert secrets_in(path.read_bytes()) == secrets_left(journal)
            assert not Path(f"{path}-wal").read_bytes()
        assert verify(path, full=True).sound


@pytest.mark.parametrize("seed", SEEDS)
def test_retention_erases_when_the_journal_is_closed(path: Path, seed: int) -> None:
    streams = Streams(seed)
    retention = Retention(keep_events=150)
    for _ in range(2):
        with Journal.open(path, durability="normal", retention=retention) as journal:
            for events in streams.some():
                journal.append_events(events)
            assert journal.retention_failure is None
        with Journal.open(path, read_only=True) as journal:
            assert secrets_in(path.read_bytes()) == secrets_left(journal)
            assert verify(path, full=True).sound


def with_leftovers(path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Return a journal that was pruned, and has something left."""
    streams = Streams(0)
    journal = Journal.open(path, durability="normal")
    with monkeypatch.context() as patch:
        patch.setattr(erasing, "_with_leftovers", lambda _: iter(()))
        for _ in range(20):
            for events in streams.some():
                journal.append_events(events)
                journal.streams(limit=1)
            journal.prune(keep_events=150)
            if secrets_in(path.read_bytes()) != secrets_left(journal):
                return journal
    raise AssertionError("nothing was left")


def test_where_others_write_it_says_that_something_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_leftovers(path, monkeypatch) as journal:
        rows = journal.connection().execute("SELECT * FROM event").fetchall()
        monkeypatch.setattr(erasing, "has_wal", lambda _: True)
        assert journal.prune(keep_events=150).erased is False
        monkeypatch.undo()
        small_blocks(monkeypatch)
        assert journal.prune(keep_events=150).erased is True
        assert journal.connection().execute("SELECT * FROM event").fetchall() == rows
        assert secrets_in(path.read_bytes()) == secrets_left(journal)


def test_events_are_guarded_afterwards_as_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_leftovers(path, monkeypatch) as journal:
        database = journal._database
        assert erase(database, 0)
        with (
            pytest.raises(DamagedError, match="events never change"),
            database.write() as connection,
        ):
            connection.execute("UPDATE event SET data = data")
