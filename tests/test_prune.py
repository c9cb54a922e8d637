"""Pruning: what goes, what is forgotten, what stays, and what comes back."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from prune_support import BLOCK, check_against, check_closed, rows, small_blocks
from support import NOON, activated, lines_of, numbered, texts

from journal import (
    Journal,
    Projection,
    PrunedError,
    ReadOnlyError,
    SessionClosed,
    SessionId,
    StreamCompleted,
    StreamCreated,
    StreamFailed,
    StreamId,
    StreamStarted,
    Timestamp,
    limits,
    parse_event,
)
from journal.events import AnyEvent

LINES = lines_of("mixed/events.ndjson")[:620]
EVENTS = [parse_event(line) for line in LINES]


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path, durability="normal") as journal:
        journal.append_ndjson(LINES)
        yield journal
    check_closed(path)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "whole.db", durability="normal") as journal:
        journal.append_ndjson(LINES)
        yield journal


@pytest.mark.parametrize("is_folded", [True, False])
@pytest.mark.parametrize("cuts", [[251], [51, 101, 301], [601], [251, 621]])
def test_a_pruned_journal_answers_as_a_whole_one(
    journal: Journal, whole: Journal, cuts: list[int], is_folded: bool
) -> None:
    if is_folded:
        journal.sessions()
    cut = 0
    for before in cuts:
        report = journal.prune(before=before)
        expected = before - 1 if before > 620 else (before - 1) // BLOCK * BLOCK
        assert report.event_count == expected - cut
        assert report.counts_by_kind == Counter(event.event_type for event in EVENTS[cut:expected])
        cut = expected
        assert report.first_position == cut + 1
        assert report.events_left == 620 - cut
        assert report.erased
        check_against(journal, whole, cut)
    open_sessions = {one.session_id for one in journal.sessions("Active")}
    late = [e for e in EVENTS if e.session_id in open_sessions and e.stream_id is None]
    assert late
    for other in (journal, whole):
        other.append_events(late)
    check_against(journal, whole, cut)


def test_what_is_forgotten_has_ended_and_has_no_events_left(
    journal: Journal, whole: Journal, path: Path
) -> None:
    report = journal.prune(before=401)

    left = {event.session_id for event in EVENTS[400:]}
    before = whole.sessions(as_of=400)
    gone = [
        one for one in before if one.state in ("Completed", "Failed") and one.session_id not in left
    ]
    assert report.sessions_forgotten == Counter(one.state.value for one in gone)
    assert sum(report.sessions_forgotten.values()) > 5
    assert {one.session_id for one in journal.sessions()} == {
        one.session_id for one in whole.sessions()
    } - {one.session_id for one in gone}
    streams_left = {event.stream_id for event in EVENTS[400:]}
    streams_gone = [
        one
        for one in whole.streams(as_of=400)
        if one.state not in ("Preparing", "Streaming") and one.stream_id not in streams_left
    ]
    assert report.streams_forgotten == Counter(one.state.value for one in streams_gone)
    assert all(journal.version(one.session_id) == 0 for one in gone)
    assert all(journal.session(one.session_id) is None for one in gone)
    ((forgotten,),) = rows(path, "SELECT forgotten FROM absent")
    assert json.loads(forgotten) == {
        "sessions": report.sessions_forgotten,
        "streams": report.streams_forgotten,
    }
    assert (report.sessions_left, report.streams_left) == rows(
        path, "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM stream)"
    )[0]
