"""Whatever is done to a journal that is pruned, in any order, it answers as one that keeps all.

The model is a journal that is never pruned. What comes late under a forgotten id is new, so the
model gets it under another id. What is forgotten is found out by what the model says.
"""

import contextlib
import json
import shutil
import tempfile
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import support
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from prune_support import check_closed
from test_model import SESSIONS, SMALL_LIMITS, STREAMS, batches, events

from journal import (
    Journal,
    KeyConflictError,
    Projection,
    PrunedError,
    Retention,
    UnknownEvent,
    limits,
)
from journal.events import AnyEvent
from journal.maintenance import retention
from journal.projections import lifecycle_states
from journal.store import Appended

ENDED_SESSION = ("Completed", "Failed")
ENDED_STREAM = ("Completed", "Failed", "Cancelled")
NAMES = ["reader", "other"]
KEYS = ["first", "second"]
RETENTIONS = [
    None,
    Retention(keep_events=6),
    Retention(keep_events=2, give_up=("reader",), forget_keys_older_than=timedelta(0)),
    Retention(keep_events=9, keep_open=True),
    Retention(keep_age=timedelta(days=2)),
    Retention(keep_bytes=150_000),
]
SMALL = [
    *(limit for limit in SMALL_LIMITS if limit[1] != "BLOCK_EVENTS_MAX"),
    (limits, "BLOCK_EVENTS_MAX", 4),
    (limits, "FOLD_EVENTS_MAX", 9),
    (lifecycle_states, "_ENDED_IN_MEMORY_MAX", 2),
    (retention, "_STEPS_SECONDS", 0.0),  # what it does must not depend on how quick it is
]


def counting(version: int) -> Projection[Any]:
    def apply(state: Any, event: Any) -> Any:
        return {"count": state["count"] + 1, "last": str(event.session_id)}

    return Projection("counts", version, {"count": 0, "last": ""}, apply, lambda e: e.session_id)


def key(an_id: Any) -> tuple[type, int]:
    """Return what tells ids apart: one of a stream may have the digits of a session's."""
    return type(an_id), an_id.int


class PruneMachine(RuleBasedStateMachine):
    """Two handles on one file that is pruned, and a file that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for owner, name, limit in SMALL:
            self.patch.setattr(owner, name, limit)
        self.folder = Path(tempfile.mkdtemp(prefix="journal-prune-"))
        self.path = self.folder / "a.db"
        self.whole = Journal.open(self.folder / "whole.db", durability="normal")
        self.journals = [self.opened(), self.opened()]
        self.cut = 0
        self.alias: dict[Any, Any] = {}
        self.back: dict[Any, Any] = {}
        self.fresh = 2**100
        self.forgotten: set[Any] = set()
        self.owner: dict[Any, Any] = {}
        self.last: dict[Any, int] = {}
        self.keys: dict[str, tuple[list[AnyEvent], Appended]] = {}
        self.shipped: list[tuple[Path, Path, int]] = []

    def opened(self, kept: Retention | None = None) -> Journal:
        return Journal.open(self.path, durability="normal", retention=kept)

    @initialize(steps=st.sampled_from([0, 7]))
    def choose_pace(self, steps: int) -> None:
        """Have retention spread its steps over appends, or make them all after each."""
        self.patch.setattr(retention, "_STEPS_A_BLOCK", steps)

    # The model

    def to_model(self, an_id: Any) -> Any:
        return self.alias.get(key(an_id), an_id)

    def modelled(self, event: AnyEvent) -> AnyEvent:
        changes: dict[str, Any] = {"session_id": self.to_model(event.session_id)}
        if event.stream_id is not None:
            changes["stream_id"] = self.to_model(event.stream_id)
        if isinstance(event, UnknownEvent):
            told = json.loads(event.original_json)
            told |= {name: str(an_id) for name, an_id in changes.items()}
            changes["original_json"] = json.dumps(told)
        return event.model_copy(update=changes)

    def shown(self, status: Any) -> Any:
        changes = {"session_id": self.back.get(key(status.session_id), status.session_id)}
        if getattr(status, "stream_id", None) is not None:
            changes["stream_id"] = self.back.get(key(status.stream_id), status.stream_id)
        return status.model_copy(update=changes)

    def append(self, journal: Journal, batch: list[AnyEvent], name: str | None = None) -> None:
        first = self.whole.last_position + 1
        for position, event in enumerate(batch, first):
            for an_id in (event.session_id, event.stream_id):
                if an_id is not None:
                    self.last[key(self.to_model(an_id))] = position
        self.whole.append_events([self.modelled(event) for event in batch])
        expected = Appended(first, first + len(batch) - 1) if batch else Appended(None, None)
        assert journal.append_events(batch, key=name) == expected
        if name is not None:
            self.keys[name] = batch, expected
        assert journal.retention_failure is None
        self.notice_retention()

    def notice_retention(self) -> None:
        cut = self.first() - 1
        if cut > self.cut:
            self.note_cut(cut)
        left = {name for (name,) in self.rows("SELECT key FROM append_key")}
        for name in self.keys.keys() - left:
            assert (self.keys.pop(name)[1].last or 0) <= cut

    def note_cut(self, cut: int) -> tuple[dict[str, int], dict[str, int]]:
        """Find out by the model what a cut forgets."""
        sessions = {one.session_id: one for one in self.whole.sessions(as_of=cut)}
        streams = {one.stream_id: one for one in self.whole.streams(as_of=cut)}
        counted: tuple[dict[str, int], dict[str, int]] = {}, {}
        for session_id, one in sessions.items():
            own = [it for it in streams.values() if it.session_id == session_id]
            is_over = one.state.value in ENDED_SESSION and self.last[key(session_id)] <= cut
            if is_over and all(self.last[key(it.stream_id)] <= cut for it in own):
                self.forget(session_id, one.state.value, counted[0])
                for stream in own:
                    self.forget(stream.stream_id, stream.state.value, counted[1])
        for stream_id, stream in streams.items():
            if stream.state.value in ENDED_STREAM and self.last[key(stream_id)] <= cut:
                self.forget(stream_id, stream.state.value, counted[1])
        seen = {event.stream_id for _, event in self.whole.read(limit=cut)} - {None}
        for stream_id in seen - streams.keys():
            if self.last[key(stream_id)] <= cut:
                self.forget(stream_id, "not folded", counted[1])
        self.cut = cut
        return counted

    def forget(self, model_id: Any, state: str, counted: dict[str, int]) -> None:
        if key(model_id) in self.forgotten:
            return
        self.forgotten.add(key(model_id))
        counted[state] = counted.get(state, 0) + 1
        real = self.back.get(key(model_id), model_id)
        self.fresh += 1
        alias = self.alias[key(real)] = type(real)(f"{self.fresh:032x}")
        self.back[key(alias)] = real

    # What is done

    @rule(handle=st.integers(0, 1), batch=batches)
    def append_some(self, handle: int, batch: list[AnyEvent]) -> None:
        self.append(self.journals[handle], batch)

    @rule(handle=st.integers(0, 1), data=st.data())
    def end_sessions(self, handle: int, data: st.DataObject) -> None:
        batch = data.draw(
            st.lists(
                events.filter(
                    lambda e: (
                        e.is_completion
                        or e.is_error
                        or "created" in e.event_type
                        or "activated" in e.event_type
                    )
                ),
                max_size=8,
            )
        )
        self.append(self.journals[handle], batch)

    @rule(
        handle=st.integers(0, 1),
        name=st.sampled_from(KEYS),
        batch=batches,
        is_retry=st.booleans(),
    )
    def append_with_a_key(
        self, handle: int, name: str, batch: list[AnyEvent], is_retry: bool
    ) -> None:
        journal = self.journals[handle]
        if name not in self.keys:
            self.append(journal, batch, name)
        elif is_retry or batch == self.keys[name][0]:
            first_batch, positions = self.keys[name]
            assert journal.append_events(first_batch, key=name) == positions
            self.notice_retention()
        else:
            with pytest.raises(KeyConflictError):
                journal.append_events(batch, key=name)

    @precondition(lambda self: len(self.shipped) < 3)
    @rule(handle=st.integers(0, 1))
    def ship(self, handle: int) -> None:
        journal = self.journals[handle]
        dest = self.folder / f"shipped-{len(self.shipped)}.db"
        shipment = journal.ship(dest, manifest=True, force=True)
        with Journal.open(dest, read_only=True) as copy:
            assert list(copy.read()) == list(journal.read())
            assert copy.sessions() == journal.sessions()
            assert copy.streams() == journal.streams()
            assert [copy.version(one) for one in SESSIONS] == [
                journal.version(one) for one in SESSIONS
            ]
        if shipment.manifest_path is not None and shipment.event_count:
            self.shipped.append((dest, shipment.manifest_path, self.whole.last_position))

    @rule(
        handle=st.integers(0, 1),
        share=st.floats(0, 1.2),
        how=st.sampled_from(
            ["before", "keep_events", "dry", "time", "age", "bytes", "shipped", "file"]
        ),
        keep_open=st.booleans(),
        give_up=st.booleans(),
        forget_keys=st.booleans(),
    )
    def prune(
        self,
        handle: int,
        share: float,
        how: str,
        keep_open: bool,
        give_up: bool,
        forget_keys: bool,
    ) -> None:
        journal = self.journals[handle]
        last = self.whole.last_position
        position = round(share * last)
        options: dict[str, Any] = {"before": position}
        if how == "keep_events":
            options = {"keep_events": max(0, last - position)}
        elif how == "time":
            options = {"before": support.NOON + timedelta(microseconds=1)}
        elif how == "age":
            options = {"keep_age": timedelta(days=round(share * 10))}
        elif how == "bytes":
            options = {"keep_bytes": round(share * 200_000)}
        elif how in {"shipped", "file"} and self.shipped:
            number = min(int(share * len(self.shipped)), len(self.shipped) - 1)
            dest, manifest, last = self.shipped[number]
            options = {how: manifest if how == "shipped" else dest}
        if give_up:
            names = {row[0] for row in self.rows("SELECT name FROM checkpoint")}
            options["give_up"] = sorted(names - {"sessions", "streams"})
        if forget_keys:
            options["forget_keys_older_than"] = timedelta(0)
        if how not in {"bytes", "dry"}:
            planned = journal.prune(**options, keep_open=keep_open, dry_run=True)
        report = journal.prune(**options, keep_open=keep_open, dry_run=how == "dry")
        if how == "dry":
            assert self.first() == self.cut + 1
            return
        assert report.first_position == self.first()
        cut = report.first_position - 1
        assert report.event_count == cut - self.cut
        self.check_how_far(cut, options, how, keep_open, bool(report.held_by))
        assert cut <= max(last, self.cut)
        before = len(self.keys)
        if forget_keys:
            self.keys = {
                name: it for name, it in self.keys.items() if it[1].last and it[1].last > cut
            }
        assert report.keys_forgotten == before - len(self.keys)
        sessions, streams = self.note_cut(cut)
        assert report.sessions_forgotten == sessions
        assert report.streams_forgotten == streams
        if how != "bytes":
            for name in (
                "event_count",
                "counts_by_kind",
                "sessions_forgotten",
                "streams_forgotten",
                "keys_forgotten",
            ):
                assert getattr(planned, name) == getattr(report, name), name
            for name in ("first_position", "events_left", "sessions_left", "streams_left"):
                assert getattr(planned, name) == getattr(report, name), name

    def check_how_far(
        self, cut: int, options: dict[str, Any], how: str, keep_open: bool, is_held: bool
    ) -> None:
        last = self.whole.last_position
        if cut > self.cut:
            lowest = self.rows(
                "SELECT min(position) FROM checkpoint WHERE name NOT IN"
                " ('sessions', 'streams', 'counts')"
            )[0][0]
            if "give_up" not in options and lowest is not None:
                assert cut <= lowest
            if how == "before":
                assert cut < options["before"]
            if how == "keep_events":
                assert last - cut >= options["keep_events"]
            if keep_open:
                open_ids = {
                    one.session_id
                    for one in self.whole.sessions()
                    if one.state.value not in ENDED_SESSION
                }
                assert not any(
                    event.session_id in open_ids
                    for position, event in self.whole.read(self.cut, limit=cut - self.cut)
                )
        if not is_held and how == "keep_events" and options["keep_events"] == 0:
            assert cut == last
        if not is_held and how == "before":
            assert options["before"] - 1 - cut <= 3 or cut == self.cut

    @rule(name=st.sampled_from(NAMES), share=st.floats(0, 1))
    def subscribe(self, name: str, share: float) -> None:
        last = self.whole.last_position
        position = self.cut + round(share * (last - self.cut))
        sql = "INSERT OR REPLACE INTO checkpoint VALUES (?, 'subscription', 1, ?, 1)"
        with self.journals[0]._database.write() as connection:
            connection.execute(sql, (name, position))

    @rule(name=st.sampled_from(NAMES))
    def unsubscribe(self, name: str) -> None:
        with self.journals[0]._database.write() as connection:
            connection.execute("DELETE FROM checkpoint WHERE name = ?", (name,))

    @rule(handle=st.integers(0, 1))
    def rebuild(self, handle: int) -> None:
        for report in self.journals[handle].rebuild(["sessions"]):
            assert report.change_count == 0, report.changes

    @rule(handle=st.integers(0, 1))
    def check_rebuild(self, handle: int) -> None:
        for report in self.journals[handle].rebuild(check=True):
            if report.projections == ("counts",) and report.since > 1:
                continue  # a handle that does not know it has cut: what it was there is gone
            assert report.change_count == 0, report.changes
            assert report.since == 1

    @rule()
    def lose_the_projections(self) -> None:
        with self.journals[0]._database.write() as connection:
            connection.execute("DELETE FROM checkpoint WHERE name IN ('sessions', 'streams')")

    @precondition(lambda self: self.cut == 0)
    @rule(handle=st.integers(0, 1))
    def register(self, handle: int) -> None:
        with contextlib.suppress(ValueError):  # it is already
            self.journals[handle].register(counting(1))
        self.journals[handle].states("counts")

    @rule(handle=st.integers(0, 1), kept=st.sampled_from(RETENTIONS))
    def reopen(self, handle: int, kept: Retention | None) -> None:
        self.journals[handle].close()
        self.journals[handle] = self.opened(kept)

    @rule(handle=st.integers(0, 1))
    def a_cut_overtakes_a_reader(self, handle: int) -> None:
        before = dict(self.whole.read(after=self.cut))
        reader = self.journals[handle].read()
        got = list(islice(reader, 2))
        assert len(got) == min(2, len(before))
        report = self.journals[1 - handle].prune(keep_events=1)
        self.note_cut(report.first_position - 1)
        try:
            got += list(reader)
        except PrunedError as error:
            assert error.first == self.cut + 1
            assert got[-1].position <= self.cut
        else:
            assert [one.position for one in got] == list(before)

    # What is to be so

    def rows(self, sql: str) -> list[Any]:
        connection = self.journals[0].connection()
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def first(self) -> int:
        cut: int = self.rows("SELECT ifnull(max(last_seq), 0) FROM absent")[0][0]
        return cut + 1

    @invariant()
    def answers_as_the_model(self) -> None:
        journal = self.journals[self.whole.last_position % 2]
        assert journal.event_count() == self.whole.last_position - self.cut
        expected = [
            self.shown(one)
            for one in self.whole.sessions()
            if key(one.session_id) not in self.forgotten
        ]
        assert journal.sessions() == expected
        expected = [
            self.shown(one)
            for one in self.whole.streams()
            if key(one.stream_id) not in self.forgotten
        ]
        assert journal.streams() == expected
        anomalies = [self.shown(one) for one in self.whole.anomalies() if one.position > self.cut]
        assert journal.anomalies() == anomalies
        read = list(journal.read())
        assert [one.position for one in read] == [one.position for one in self.whole.read(self.cut)]
        for session in SESSIONS:
            model = self.to_model(session)
            assert journal.version(session) == self.whole.version(model)
            left = [event for _, event in read if event.session_id == session]
            assert journal.get_events_for_session(session) == left
        for stream in STREAMS:
            left = [event for _, event in read if event.stream_id == stream]
            assert journal.get_events_for_stream(stream) == left

    @rule(handle=st.integers(0, 1), share=st.floats(0, 1))
    def as_of(self, handle: int, share: float) -> None:
        journal = self.journals[handle]
        position = round(share * self.whole.last_position)
        if position < self.cut:
            with pytest.raises(PrunedError) as error:
                journal.sessions(as_of=position)
            assert error.value.first == self.cut + 1
            return
        for name, lists, one_of in (
            ("session_id", "sessions", "session"),
            ("stream_id", "streams", "stream"),
        ):
            found = getattr(journal, lists)(as_of=position)
            expected = [
                self.shown(one)
                for one in getattr(self.whole, lists)(as_of=position)
                if key(getattr(one, name)) not in self.forgotten
            ]
            assert found == expected
            for one in found:
                an_id = getattr(one, name)
                assert getattr(journal, one_of)(an_id, as_of=position) == one
        for session in SESSIONS:
            own = [one for one in journal.streams(as_of=position) if one.session_id == session]
            assert journal.streams(session, as_of=position) == own

    @rule()
    def read_only(self) -> None:
        with Journal.open(self.path, read_only=True) as journal:
            assert journal.sessions() == self.journals[0].sessions()
            assert journal.streams() == self.journals[0].streams()

    def teardown(self) -> None:
        try:
            for journal in self.journals:
                journal.close()
            self.whole.close()
            check_closed(self.path)
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)


TestAPrunedJournalAnswersAsTheModelDoes = PruneMachine.TestCase
TestAPrunedJournalAnswersAsTheModelDoes.settings = settings(
    max_examples=6 * support.ROUNDS,
    stateful_step_count=16,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
