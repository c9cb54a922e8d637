"""Erasing: what SQLite leaves of deleted texts where it moves rows from page to page."""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from prune_support import small_blocks
from support import NOON, started

from journal import (
    DamagedError,
    Journal,
    Retention,
    SessionId,
    StreamFailed,
    StreamId,
    continue_copy,
    merge,
    recover,
    verify,
)
from journal.events import AnyEvent
from journal.maintenance import erasing
from journal.maintenance.erasing import erase

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

SEEDS = (0, 1, 5, 6, 9, 10)  # each leaves something in one test or both if nothing erases it


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


def failures(count: int) -> list[AnyEvent]:
    session = SessionId.new()
    return [
        StreamFailed(
            session_id=session,
            stream_id=StreamId.new(),
            error=f"secret {number:06} {'x' * 60}",
            timestamp=NOON,
        )
        for number in range(count)
    ]


def shipped(path: Path, folder: Path) -> Path:
    with Journal.open(path, read_only=True) as journal:
        return journal.ship(folder / "shipped.db").path


def delta(path: Path, folder: Path) -> Path:
    with Journal.open(path, read_only=True) as journal:
        return journal.ship(folder / "delta.db", after=100, standalone=True).path


def recovered(path: Path, folder: Path) -> Path:
    """Recover all of it but what is in one block, which goes apart."""
    damaged = folder / "damaged.db"
    content = path.read_bytes()
    at = content.index(b"secret 000150")
    damaged.write_bytes(content[: at + 20] + b"y" + content[at + 21 :])
    return recover(damaged, folder / "recovered.db").path


def merged(path: Path, folder: Path) -> Path:
    return merge(folder / "fleet.db", [path]).path


@pytest.mark.parametrize("copy", [shipped, delta, recovered, merged])
def test_nor_does_a_copy_that_goes_on(
    path: Path, tmp_path: Path, copy: Callable[[Path, Path], Path]
) -> None:
    """What its tables began with is in no page that has become one above others."""
    with Journal.open(path) as journal:
        journal.append_events(failures(800))
    made = copy(path, tmp_path)
    if copy is not merged:
        made = continue_copy(made, tmp_path / "new.db").path
    with Journal.open(made) as journal:
        for before in (401, 761, 801):
            assert journal.prune(before=before).erased
            assert secrets_in(made.read_bytes()) == secrets_left(journal)


_ANEW_SQL = """
PRAGMA secure_delete = OFF;
CREATE TEMP TABLE kept AS SELECT * FROM projection_stream;
DELETE FROM projection_stream;
INSERT INTO projection_stream SELECT * FROM kept
"""


def test_what_is_above_others_it_cannot_erase_and_says_so(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.append_events(failures(800))
        journal.rebuild()
    with closing(apsw.Connection(str(path))) as connection:  # another program
        connection.execute(_ANEW_SQL).fetchall()
    with Journal.open(path) as journal:
        assert journal.prune(before=401).erased is False
        assert secrets_in(path.read_bytes()) > secrets_left(journal)
        assert journal.prune(before=801).erased
        assert not secrets_in(path.read_bytes())
