"""The events that are measured with, and the proof that a file holds exactly them.

All are made from `tests/data/mixed/events.ndjson`, 5,442 events of 300 sessions as the reference
implementation printed them, so kinds and values have the proportions of that file. A seed gives
the same lines again.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple
from uuid import UUID

from journal import Journal, SessionId, Timestamp

MIXED = Path(__file__).parent.parent / "tests" / "data" / "mixed" / "events.ndjson"

STREAMS_PER_SESSION = 3
STEADY_SESSIONS = 20
_SAMPLE_SESSIONS = 5
_START_NS = 1_790_000_000_123_456_789
_GAP_NS_MAX = 2_000_000

Workload = Literal["steady", "short", "many"]


class Template(NamedTuple):
    """A line without its ids and time."""

    head: str
    session: str
    stream: str | None
    middle: str
    timestamp: str

    def line(self, session: str, stream: str | None, timestamp: str) -> str:
        """Return the line with other ids and another time."""
        ids = session if stream is None else f'{session}","stream_id":"{stream}'
        return f'{self.head}{ids}{self.middle}"timestamp":"{timestamp}"}}'


def templates() -> list[Template]:
    """Take the lines of the mixed events apart."""
    return [_template(line) for line in MIXED.read_text("utf-8").splitlines()]


def _template(line: str) -> Template:
    head, key, rest = line.partition('"session_id":"')
    session, rest = rest[:36], rest[36:]
    stream = None
    if rest.startswith(before := '","stream_id":"'):
        stream, rest = rest[len(before) :][:36], rest[len(before) + 36 :]
    middle, _, timestamp = rest.rpartition('"timestamp":"')
    return Template(head + key, session, stream, middle, timestamp.removesuffix('"}'))


def open_lines(count: int, sessions: int, seed: int) -> Iterator[str]:
    """Yield events of so many sessions that are open at once, each event of a random one.

    Each session has three streams. The time goes on by a millisecond per event, more or less.
    """
    random = Random(seed)
    kinds = templates()
    ids = [_uuid(random) for _ in range(sessions)]
    streams = [[_uuid(random) for _ in range(STREAMS_PER_SESSION)] for _ in range(sessions)]
    now_ns = _START_NS
    for _ in range(count):
        template = kinds[int(random.random() * len(kinds))]
        session = int(random.random() * sessions)
        stream = None
        if template.stream is not None:
            stream = streams[session][int(random.random() * STREAMS_PER_SESSION)]
        now_ns += int(random.random() * _GAP_NS_MAX)
        yield template.line(ids[session], stream, Timestamp.from_epoch_ns(now_ns).rfc3339())


def mixed_lines(count: int, seed: int) -> Iterator[str]:
    """Yield the mixed events again and again, each time under fresh ids, up to `count`."""
    random = Random(seed)
    lines = templates()
    while count > 0:
        fresh: dict[str | None, str | None] = {None: None}
        for template in lines[:count]:
            for known in (template.session, template.stream):
                if known not in fresh:
                    fresh[known] = _uuid(random)
            session, stream = fresh[template.session], fresh[template.stream]
            yield template.line(session or "", stream, template.timestamp)
        count -= len(lines)


def workload_lines(workload: Workload, count: int, seed: int) -> list[str]:
    """Return the lines of a workload.

    "steady" are 20 sessions that stay open, "many" 2,000 of them, "short" the mixed events under
    ever fresh ids: sessions of some 22 events, streams of 6.
    """
    if workload == "short":
        return list(mixed_lines(count, seed))
    return list(open_lines(count, STEADY_SESSIONS if workload == "steady" else 2_000, seed))


def _uuid(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))


class Expected:
    """What a journal must give back: noted line by line as they go by."""

    def __init__(self) -> None:
        self.count = 0
        self._hasher = hashlib.sha256()
        self.samples: dict[str, list[str]] = {}

    def note(self, line: str) -> str:
        """Note a line, and return it."""
        self.count += 1
        self._hasher.update(f"{line}\n".encode())
        session = line.partition('"session_id":"')[2][:36]
        if session not in self.samples and len(self.samples) < _SAMPLE_SESSIONS:
            self.samples[session] = []
        if session in self.samples:
            self.samples[session].append(line)
        return line

    @property
    def digest(self) -> str:
        """The SHA-256 of all lines, a line feed after each."""
        return self._hasher.hexdigest()


def expected(lines: Iterable[str]) -> Expected:
    """Return what a journal of these lines must give back."""
    noted = Expected()
    for line in lines:
        noted.note(line)
    return noted


def verify(path: Path, wanted: Expected) -> None:
    """Make sure that a file holds exactly these events, and finds those of some sessions.

    Raises:
        AssertionError: it does not.
    """
    hasher = hashlib.sha256()
    with Journal.open(path, read_only=True) as journal:
        assert journal.event_count() == wanted.count, path
        for _, line in journal.lines():
            hasher.update(f"{line}\n".encode())
        assert hasher.hexdigest() == wanted.digest, path
        for session, lines in wanted.samples.items():
            events = journal.get_events_for_session(SessionId(session))
            assert [event.model_dump_json() for event in events] == lines, (path, session)


def remove(path: Path) -> None:
    """Remove a journal, with the companions that reading it may have left."""
    for companion in path.parent.glob(f"{path.name}*"):
        companion.unlink()
