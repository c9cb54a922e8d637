"""Both stores keep the contract of `journal.testing`, and answer as the reference's store does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import lines_of

from journal import (
    EventStore,
    InMemoryEventStore,
    Journal,
    SessionId,
    StreamId,
    Timestamp,
    parse_event,
)
from journal.testing import EventStoreConformance


class TestInMemoryEventStore(EventStoreConformance):
    @pytest.fixture
    def store(self) -> EventStore:
        return InMemoryEventStore()


class TestJournal(EventStoreConformance):
    @pytest.fixture(params=["full", "normal"])
    def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[EventStore]:
        with Journal.open(tmp_path / "a.db", durability=request.param) as journal:
            yield journal


class TestReferenceQueries:
    """lifecycle/queries.ndjson: what the reference's own store answered."""

    @pytest.fixture(params=["memory", "journal"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
        events = [parse_event(line) for line in lines_of("lifecycle/events.ndjson")]
        if request.param == "memory":
            memory = InMemoryEventStore()
            memory.append_events(events)
            yield memory
            return
        with Journal.open(tmp_path / "a.db") as journal:
            journal.append_events(events)
            yield journal

    @pytest.mark.parametrize("op", ["session", "stream", "since"])
    def test_are_answered_as_the_reference_answers(self, store: EventStore, op: str) -> None:
        lines = lines_of("lifecycle/events.ndjson")
        number_of = {line: number for number, line in enumerate(lines)}
        queries = [json.loads(line) for line in lines_of("lifecycle/queries.ndjson")]
        asked = [query for query in queries if query["op"] == op]

        for query in asked:
            numbers = [number_of[event.model_dump_json()] for event in ask(store, op, query["arg"])]
            if op == "since":
                assert len(numbers) == query["count"]
                assert sum(numbers) == query["sum_line_numbers"]
                assert next(iter(numbers), None) == query["first_line"]
                assert numbers == sorted(numbers)
            else:
                assert numbers == query["result_line_numbers"]

        assert asked


def ask(store: EventStore, op: str, arg: str) -> list[Any]:
    if op == "since":
        return store.get_events_since(Timestamp.parse(arg))
    if op == "session":
        return store.get_events_for_session(SessionId(arg))
    return store.get_events_for_stream(StreamId(arg))


def test_the_memory_store_counts_and_lists_its_events() -> None:
    store = InMemoryEventStore()
    events = [parse_event(line) for line in lines_of("lifecycle/events.ndjson")[:10]]

    store.append_events(events)

    assert store.all_events() == events
    assert store.event_count() == 10
