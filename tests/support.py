"""What several test files share: events to append, other processes, and a check of a whole file."""

import contextlib
import ctypes
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self
from uuid import UUID

import apsw
import pytest

from journal import (
    Journal,
    SessionActivated,
    SessionId,
    StreamId,
    StreamStarted,
    Timestamp,
    limits,
    verify,
)
from journal.events import AnyEvent
from journal.events.canonical import canonical_json
from journal.file import blocks
from journal.projections import rebuilding

ROUNDS = int(os.environ.get("JOURNAL_TEST_ROUNDS", "1"))
"""Multiplies the rounds of whatever is random: JOURNAL_TEST_ROUNDS=50 for a long run."""

LONG_ROUNDS = int(os.environ.get("JOURNAL_TEST_ROUNDS", "10"))
"""How long the tests are that are marked as slow."""

FIRST_SEED = int(os.environ.get("JOURNAL_TEST_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + LONG_ROUNDS)
"""What slow tests draw from, a test for each: JOURNAL_TEST_SEED=7 JOURNAL_TEST_ROUNDS=1 for one."""


def tried(few: int, *, many: int) -> pytest.MarkDecorator:
    """Give a test its `count`, how much it tries: few by default, many in each long round."""
    long = pytest.param(many * LONG_ROUNDS, marks=pytest.mark.slow)
    return pytest.mark.parametrize("count", [few * ROUNDS, long], ids=["few", "many"])


DATA = Path(__file__).parent / "data"
NOON = Timestamp(2026, 1, 1, 12, tzinfo=UTC)
NOBODY = 65534
TIMEOUT_S = 60.0
"""How long to wait for something that will happen unless there is a bug."""


# Events


def lines_of(name: str) -> list[str]:
    """Return the lines of a file of the reference implementation's output."""
    return (DATA / name).read_text("utf-8").removesuffix("\n").split("\n")


def activated(session_id: SessionId, second: float = 0) -> SessionActivated:
    return SessionActivated(session_id=session_id, timestamp=NOON + timedelta(seconds=second))


def started(session_id: SessionId, stream_id: StreamId, second: float = 0) -> StreamStarted:
    timestamp = NOON + timedelta(seconds=second)
    return StreamStarted(session_id=session_id, stream_id=stream_id, timestamp=timestamp)


def numbered(session_id: SessionId, numbers: Iterable[int]) -> list[AnyEvent]:
    """Return one event for each number, which its timestamp tells."""
    return [activated(session_id, number) for number in numbers]


def number_of(event: AnyEvent) -> int:
    return (event.timestamp.epoch_ns - NOON.epoch_ns) // 1_000_000_000


def texts(events: Iterable[AnyEvent]) -> list[str]:
    return [event.model_dump_json() for event in events]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fold_in_steps(patch: Any, events_max: int) -> None:
    """Have at most so many events folded at once, into the rows of the file and beside them."""
    patch.setattr(limits, "FOLD_EVENTS_MAX", events_max)
    patch.setattr(rebuilding, "_EVENTS_AT_ONCE", events_max)


# Other processes


class Skip(Exception):  # noqa: N818 (not an error)
    """Raised in a child process: this machine does not allow what the test needs."""


_processes = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
if sys.platform != "win32":  # so that a child starts in milliseconds
    _processes.set_forkserver_preload(["pytest.__main__", "hypothesis", "preloaded"])


def _find_preloaded() -> None:
    """Start what forks children, if it does not run: it has to find the modules of the tests."""
    if sys.platform == "win32":
        return
    from multiprocessing import forkserver  # noqa: PLC0415 (POSIX only)

    if forkserver._forkserver._forkserver_pid is not None:
        return
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before])
    try:
        forkserver.ensure_running()
    finally:
        os.environ["PYTHONPATH"] = before
        if not before:
            del os.environ["PYTHONPATH"]


class Child:
    """A process that calls `function(channel, *args)`; an exception in it comes out of `receive`.

    Leaving a `with` block kills what still runs.
    """

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        _find_preloaded()
        self._channel, theirs = _processes.Pipe()
        self._process = _processes.Process(target=_call, args=(function, theirs, args))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._channel.close()

    def send(self, value: object) -> None:
        self._channel.send(value)

    def receive(self) -> Any:
        """Return what the child sends next, or what its function returned, if it is done."""
        assert self._channel.poll(TIMEOUT_S), "the child says nothing"
        what, value = self._channel.recv()
        if what == "skip":
            pytest.skip(value)
        assert what == "value", f"in the child:\n{value}"
        return value

    def received(self) -> list[Any]:
        """Return everything that the child had sent when it was killed."""
        self._process.join(TIMEOUT_S)
        values = []
        try:
            while self._channel.poll():
                what, value = self._channel.recv()
                assert what == "value", f"in the child:\n{value}"
                values.append(value)
        except EOFError:
            pass
        return values

    def kill(self) -> None:
        """End the child as a crash does."""
        self._process.kill()
        self._process.join(TIMEOUT_S)

    def wait_until_killed(self) -> None:
        """Wait for a child that kills itself."""
        self._process.join(TIMEOUT_S)
        assert self._process.exitcode == -signal.SIGKILL, (
            f"exit code {self._process.exitcode}: {self.received()}"
        )


class Channel:
    """The child's end of the line."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, value: object) -> None:
        self._connection.send(("value", value))

    def receive(self) -> Any:
        return self._connection.recv()

    def meet(self) -> None:
        """Wait for the others; see `let_go`."""
        self.send("ready")
        self.receive()


def _call(function: Callable[..., object], connection: Connection, args: Sequence[object]) -> None:
    warnings.simplefilter("error")
    try:
        message = "value", function(Channel(connection), *args)
    except Skip as skip:
        message = "skip", str(skip)
    except BaseException:
        message = "error", traceback.format_exc()
    connection.send(message)


def let_go(children: Iterable[Child]) -> None:
    """Let children that `meet` go on, all at once."""
    children = list(children)
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")


def run(function: Callable[..., object], *args: object) -> Any:
    """Return what a function returns in a process of its own."""
    with Child(function, *args) as child:
        return child.receive()


def die() -> NoReturn:
    """End this process as a crash does: nothing is flushed, closed or unlocked by it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def append_and_die(_channel: Channel, path: Path, events: list[AnyEvent]) -> None:
    """Leave a journal as a crash does: with a -wal."""
    journal = Journal.open(path)
    journal.append_events(events)
    die()


def use_everything() -> None:
    """Have everything loaded that a journal loads when it is first needed."""
    Path.cwd().as_uri()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        with Journal.open(path) as journal:
            journal.append_ndjson([activated(SessionId.new()).model_dump_json()])
        with Journal.open(path, read_only=True) as journal:
            journal.sessions()
            list(journal.lines())
            list(journal.read())
            journal.info()
            journal.ship(Path(folder) / "b.db")
        verify(path, full=True)


@contextlib.contextmanager
def folder_for_everybody() -> Iterator[Path]:
    """Lend a folder that every user may go into; those of pytest it makes its own again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            folder.chmod(0o755)


def become_nobody() -> None:
    """Give up root's privilege of going everywhere.

    Modules and SQL may lie where only root can go: `preloaded` has seen to it that they are there.
    """
    if not hasattr(os, "geteuid"):
        raise Skip("file permissions work otherwise here")
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    except OSError as error:
        raise Skip(f"root cannot become another user here: {error}") from error


_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000


def own_mounts() -> None:
    """Let this process mount things that nobody else sees and that end with it."""
    if sys.platform != "linux":
        raise Skip("mounting is tried on Linux only")
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER) != 0:
            raise Skip("a process may not have mounts of its own here")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)


def mount_memory(folder: Path, size_bytes: int) -> None:
    """Mount an empty file system of this size over a folder."""
    _mount("tmpfs", folder, "tmpfs", 0, f"size={size_bytes}")


def mount_read_only(folder: Path) -> None:
    """Make a folder and what is in it read-only, for root, too."""
    _mount(str(folder), folder, "", _MS_BIND)
    _mount(str(folder), folder, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def _mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = source.encode(), os.fsencode(target), kind.encode(), flags, data.encode()
    if libc.mount(*arguments) != 0:
        raise Skip(f"may not mount here: {os.strerror(ctypes.get_errno())}")


class InterruptAfterCall:
    """Raises what Ctrl-C raises when the n-th call of a C function from some modules returns.

    That is when CPython looks for signals: one that came while SQLite, or the lock, or the
    interpreter was waited for is raised there.
    """

    def __init__(self, n: int, modules: tuple[str, ...] = ("journal.",)) -> None:
        self.left = n
        self._modules = modules

    def __enter__(self) -> Self:
        self._before = sys.getprofile()
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _profile(self, frame: FrameType, event: str, _arg: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "c_return" and name.startswith(self._modules):
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


@contextlib.contextmanager
def within(seconds: int, what: str) -> Iterator[None]:
    """Fail where something waits for ever, as for a lock that was not given back (POSIX)."""

    def fail(*_: object) -> NoReturn:
        raise AssertionError(f"it hangs {what}")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# A whole file


_MADE: dict[object, bytes] = {}


def made_once(path: Path, what: object, make: Callable[[Path], object]) -> Path:
    """Make a file that many tests begin with: once in this process, from then on it is copied.

    Args:
        path: where; nothing is there.
        what: what tells it from the others, such as the function that makes it with its arguments.
        make: makes it, and closes it.
    """
    if what not in _MADE:
        make(path)
        assert not Path(f"{path}-wal").exists()
        _MADE[what] = path.read_bytes()
    path.write_bytes(_MADE[what])
    return path


def unfold(path: Path) -> None:
    """Leave a file as if nobody had folded its events: closing a journal folds a few by itself."""
    with contextlib.closing(apsw.Connection(str(path))) as file:
        file.execute(
            "DELETE FROM checkpoint; DELETE FROM projection_session; DELETE FROM projection_stream;"
            "DELETE FROM projection_anomaly"
        )


def check_file(path: Path, *, closed: bool = False) -> list[str]:
    """Assert that a journal file holds together, and return its events as canonical JSON.

    Everything is computed anew from the event rows: heads, links, views and the digests of blocks,
    these once by the package's SQL and once in Python. It is a file from which nothing is absent.

    Args:
        path: the file; others may have it open.
        closed: the last writer has closed it, so that the blocks cover all events.
    """
    connection = apsw.Connection(
        f"{path.as_uri()}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    connection.set_busy_timeout(int(TIMEOUT_S * 1000))
    connection.execute("BEGIN")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT * FROM absent").fetchall() == []
        _check_chains(connection, "session")
        _check_chains(connection, "stream")
        _check_blocks(connection, closed=closed)
        lines = _lines(connection)
        _check_view(connection, lines)
        return lines
    finally:
        connection.close()


_EVENTS_SQL = """
SELECT e.seq, k.name, s.uuid, t.uuid, e.timestamp, e.data, k.fields IS NULL
FROM event AS e LEFT JOIN kind AS k ON k.code = e.kind LEFT JOIN session AS s ON s.id = e.session
    LEFT JOIN stream AS t ON t.id = e.stream
ORDER BY e.seq
"""


def _lines(connection: apsw.Connection) -> list[str]:
    lines = []
    for number, row in enumerate(connection.execute(_EVENTS_SQL), 1):
        position, kind, session, stream, timestamp_ns, data, is_kept_whole = row
        assert position == number
        if is_kept_whole:
            lines.append(data)
            continue
        session_id = SessionId.from_bytes(session)
        stream_id = None if stream is None else StreamId.from_bytes(stream)
        lines.append(canonical_json((kind, session_id, stream_id, timestamp_ns, data)))
    return lines


def _check_chains(connection: apsw.Connection, table: str) -> None:
    heads: dict[int, tuple[int, int]] = {}
    for position, key, prev in connection.execute(
        f"SELECT seq, {table}, {table}_prev FROM event ORDER BY seq"
    ):
        if key is None:
            assert prev is None
            continue
        last, count = heads.get(key, (None, 0))
        assert prev == last, f"position {position}, {table}_prev"
        heads[key] = position, count + 1
    stored = connection.execute(f"SELECT id, last_seq, event_count FROM {table}")
    assert {key: (last, count) for key, last, count in stored} == heads


def _check_blocks(connection: apsw.Connection, *, closed: bool) -> None:
    events = {row[0]: row for row in connection.execute(_EVENTS_SQL)}
    rows = connection.execute(
        "SELECT first_seq, last_seq, min_timestamp, max_timestamp, salt, content_digest, digest,"
        " redacted_digest, sealed FROM block ORDER BY first_seq"
    ).fetchall()
    end, before, salts = 0, "0" * 64, set()
    for index, row in enumerate(rows):
        first, last, smallest, largest, salt, content_digest, digest, redacted_digest, sealed = row
        assert first == end + 1
        assert first <= last <= len(events)
        within = [events[position] for position in range(first, last + 1)]
        timestamps = [row[4] for row in within]
        assert (smallest, largest) == (min(timestamps), max(timestamps))
        assert re.fullmatch("[0-9a-f]{32}", salt)
        assert content_digest == _content_digest(within, salt)
        text = connection.execute(blocks.TEXT_SQL, {"first": first, "last": last}).get
        assert content_digest == hashlib.sha256(f"{salt}{text}".encode()).hexdigest()
        before = hashlib.sha256(f"{before}{content_digest}".encode()).hexdigest()
        assert digest == before
        assert redacted_digest is None
        salts.add(salt)
        sizes = [len(row[5] or "") for row in within]
        assert (first - 1) // limits.BLOCK_EVENTS_MAX == (last - 1) // limits.BLOCK_EVENTS_MAX
        assert sum(sizes[:-1]) < limits.BLOCK_DATA_MAX
        is_full = last % limits.BLOCK_EVENTS_MAX == 0 or sum(sizes) >= limits.BLOCK_DATA_MAX
        assert sealed == int(is_full)
        assert sealed or index == len(rows) - 1
        end = last
    assert len(salts) == len(rows)
    if end < len(events):  # what has come since the row of the open block was written
        assert not closed
        assert rows
        assert not rows[-1][-1]
        rest = [events[position] for position in range(rows[-1][0], len(events) + 1)]
        assert rest[0][0] // limits.BLOCK_EVENTS_MAX == rest[-1][0] // limits.BLOCK_EVENTS_MAX
        assert sum(len(row[5] or "") for row in rest) < limits.BLOCK_DATA_MAX


def _content_digest(rows: list[Any], salt: str) -> str:
    """Return the content digest of a block as FORMAT.md says, without SQL."""
    values = [
        [position, kind, session.hex(), None if stream is None else stream.hex(), timestamp, data]
        for position, kind, session, stream, timestamp, data, _ in rows
    ]
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{salt}{text}".encode()).hexdigest()


def _check_view(connection: apsw.Connection, lines: list[str]) -> None:
    rows = connection.execute(
        "SELECT v.position, v.event_type, v.session_id, v.stream_id, v.timestamp, v.timestamp_ns,"
        " v.data, v.session_key, v.stream_key, e.session, e.stream, k.fields IS NULL"
        " FROM events AS v JOIN event AS e ON e.seq = v.position JOIN kind AS k ON k.code = e.kind"
        " ORDER BY v.position"
    )
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        position, kind, session_id, stream_id, timestamp, timestamp_ns, data, *keys = row
        session_key, stream_key, session, stream, is_kept_whole = keys
        assert (session_key, stream_key) == (session, stream)
        expected = json.loads(line)
        assert (position, kind) == (number, expected.pop("event_type"))
        assert UUID(session_id) == UUID(expected.pop("session_id"))
        stream_text = expected.pop("stream_id", None)
        assert stream_id == (None if stream_text is None else str(UUID(stream_text)))
        instant = Timestamp.parse(expected.pop("timestamp"))
        assert timestamp_ns == instant.epoch_ns
        assert Timestamp.parse(timestamp) == instant
        if is_kept_whole:
            assert data == line
        else:
            assert (json.loads(data) if data else {}) == expected, line
