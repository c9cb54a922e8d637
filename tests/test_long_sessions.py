"""Sessions with more events than are held in memory: what is told of them, and how much is held."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands_support import MIXED, SESSION, make, run_here

from journal import Journal, SessionId, limits
from journal.commands.console import one_session, pages
from journal.commands.console.output import Output
from journal.projections import neighbourhood
from journal.projections.registry import Projections

OTHER = "0b5c3a6e-94a7-4f0c-8a50-3f2a9bb1f1c7"
EVENTS = 1_300
HOWS: dict[str, list[str]] = {"pipe": [], "json": ["--json"], "wide": ["--wide"]}


def line(event_type: str, second: int, session: str = SESSION, **fields: Any) -> bytes:
    at = f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
    fields = {"event_type": event_type, "session_id": session, **fields, "timestamp": at}
    return json.dumps(fields).encode()


def stream(number: int) -> str:
    return f"{number:08x}-121a-4045-ba76-f4f2c868ab8e"


def told(opened: Journal, session_id: SessionId, as_of: Any) -> list[Any]:
    """Return all answers about one session."""
    return [
        opened.session(session_id, as_of=as_of),
        opened.streams(session_id, as_of=as_of),
        list(opened.iter_streams(session_id, order="newest", as_of=as_of)),
        opened.anomalies(session_id, as_of=as_of),
        list(opened.iter_anomalies(session_id, as_of=as_of)),
    ]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Two sessions whose events go to each other's streams, among many that do not."""
    mixed = MIXED.read_bytes().splitlines()[:600]
    lines = [line("session_activated", 0), line("session_activated", 0, OTHER)]
    for number in range(60):
        owner, guest = (SESSION, OTHER) if number % 3 else (OTHER, SESSION)
        lines += [
            line("stream_created", number, owner, stream_id=stream(number)),
            line("stream_started", 2 * number, guest, stream_id=stream(number)),
            line("stream_completed", 100 - number, owner, stream_id=stream(number)),
            *mixed[number * 10 : number * 10 + 10],
        ]
    return make(tmp_path / "a.db", *lines, line("session_closed", 90), line("session_closed", 91))


@pytest.mark.parametrize("read_only", [True, False])
def test_a_long_session_is_told_as_a_short_one(
    shared: Path, monkeypatch: pytest.MonkeyPatch, *, read_only: bool
) -> None:
    with Journal.open(shared, read_only=read_only) as opened:
        moments = [1, 40, 400, opened.last_position, next(opened.read(200)).event.timestamp]
        ids = [SessionId(SESSION), SessionId(OTHER), *opened.find_sessions("0", limit=3)]
        expected = [told(opened, one, moment) for one in ids for moment in moments]
        monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 5)
        assert [told(opened, one, moment) for one in ids for moment in moments] == expected
        assert told(opened, ids[0], None) == told(opened, ids[0], opened.last_position)


def test_the_events_of_a_long_session_are_folded_a_few_at_a_time(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 5)
    found = []

    def rows_of(*arguments: Any) -> Any:
        rows = neighbourhood.rows_of(*arguments)
        found.append([row[0] for row in rows])
        return rows

    monkeypatch.setattr("journal.projections.tables.rows_of", rows_of)
    monkeypatch.setattr("journal.projections.rebuilding._EVENTS_AT_ONCE", 50)
    with Journal.open(shared, read_only=True) as opened:
        monkeypatch.setattr(opened._reader, "chain_rows", None)  # which returns all at once
        status = opened.session(SessionId(SESSION), as_of=opened.last_position)
        events = list(opened.read(session_id=SessionId(SESSION)))

    assert status is not None
    assert status.event_count == len(events) == 103
    assert max(map(len, found)) <= 50
    positions = [position for page in found for position in page]
    assert {event.position for event in events} < set(positions)
    assert len(positions) == 103 + 80  # and those of the other session in its streams


def test_a_long_session_as_of_now_is_told_from_the_tables(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [run_here("session", shared, SESSION, *how) for how in HOWS.values()]
    monkeypatch.setattr(one_session, "_LONG_EVENTS", 5)
    monkeypatch.setattr(limits, "FOLD_EVENTS_MAX", 5)
    monkeypatch.setattr(Projections, "lifecycle_of", None)  # which folds the events of one session
    assert [run_here("session", shared, SESSION, *how) for how in HOWS.values()] == expected


class _Held:
    """Counts what a command has read and not written yet.

    Args:
        methods: of `Journal`; each pass over what one of them yields counts anew.
        mark: what is written once for each.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, methods: list[str], mark: str) -> None:
        self.most = self.written = self._read = 0
        text = Output.text

        def counted_text(output: Output, written: str) -> None:
            if mark in written:
                self.most = max(self.most, self._read)
                self._read -= 1
                self.written += 1
            text(output, written)

        def counted(method: Any) -> Any:
            def reading(*arguments: Any, **options: Any) -> Any:
                self._read = 0
                for it in method(*arguments, **options):
                    self._read += 1
                    yield it

            return reading

        monkeypatch.setattr(Output, "text", counted_text)
        for name in methods:
            monkeypatch.setattr(Journal, name, counted(getattr(Journal, name)))


@pytest.mark.parametrize("how", HOWS)
def test_a_command_holds_no_more_than_a_page_of_events(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line("frames_batched", number, frame_count=1) for number in range(EVENTS)]
    path = make(tmp_path / "a.db", *lines)
    held = _Held(monkeypatch, ["read", "lines"], "frames_batched")
    result = run_here("session", path, SESSION, *HOWS[how])

    assert (result.code, result.err) == (0, "")
    assert result.out.count(b"frames_batched") == held.written == EVENTS
    assert held.most <= pages._PAGE_ROWS


@pytest.mark.parametrize("how", HOWS)
def test_a_command_holds_no_more_than_a_page_of_streams(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line("stream_started", it, stream_id=stream(it)) for it in range(EVENTS)]
    path = make(tmp_path / "a.db", *lines)
    held = _Held(monkeypatch, ["iter_streams"], "Streaming")
    result = run_here("session", path, SESSION, *HOWS[how])

    assert (result.code, result.err) == (0, "")
    assert result.out.count(b"Streaming") == held.written == EVENTS
    assert held.most <= pages._PAGE_ROWS


def test_a_column_that_a_later_page_needs_comes_with_a_new_header(tmp_path: Path) -> None:
    lines = [line("frames_batched", number, frame_count=1) for number in range(EVENTS)]
    path = make(tmp_path / "a.db", *lines, line("stream_created", EVENTS, stream_id=stream(1)))
    out = run_here("session", path, SESSION).out.decode().splitlines()

    headers = [it.split() for it in out if it.split()[1:2] == ["TIME"] or "STREAM  " in it]
    assert headers[0][:2] == ["STREAM", "STATE"]
    assert headers[1:] == [["POS", "TIME", "EVENT"], ["POS", "TIME", "STREAM", "EVENT"]]
    assert out[3] == f"Events      {EVENTS + 1:,}, positions 1 to {EVENTS + 1}"
    assert out[-1].startswith(f"!  {EVENTS + 1}  +21:40.000  00000001  stream_created")
