"""What retention does ahead of a cut counts only if it is still so when the cut is made."""

import gc
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
import test_prune_model
from hypothesis import settings
from prune_support import BLOCK, check_against, check_closed, small_blocks
from support import LONG_ROUNDS, NOON, activated, started
from test_kinds import unknown
from test_retention import EVENTS, cut_of

from journal import Journal, Retention, SessionClosed, SessionId, StreamId
from journal.events import AnyEvent
from journal.file.extent import Extent
from journal.maintenance import retention
from journal.maintenance.cutting import Cut, Cutter
from journal.maintenance.pruning import Pruner
from journal.projections import bases
from journal.projections.lifecycle_states import LifecycleStates


@pytest.fixture(autouse=True)
def one_step_an_append(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)
    monkeypatch.setattr(Pruner, "is_far_behind", lambda *_: False)  # then it makes whole cuts


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many events were folded from a base, each time."""
    counts: list[int] = []
    really = LifecycleStates.fold

    def fold(self: LifecycleStates, rows: list[object]) -> None:
        if self.tables_in is None:
            counts.append(len(rows))
        really(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(LifecycleStates, "fold", fold)
    return counts


def test_the_cut_folds_nothing_again(tmp_path: Path, folds: list[int]) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_events(EVENTS)
    with Journal.open(path, retention=Retention(keep_events=100)) as journal:
        cuts = {0}
        while max(cuts) < 10 * BLOCK:
            journal.append_events(EVENTS[:1])
            assert journal.retention_failure is None
            cuts.add(cut_of(journal))
    assert sorted(cuts) == [BLOCK * number for number in range(11)]
    assert len(folds) == 10
    check_closed(path)


def test_nor_does_it_write_a_state_or_a_digest_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what goes on over the cut, all that is to be written is known when the cut is made."""
    made: list[int] = []
    in_cut: list[int] = []
    really_made, row_digest = bases.Move.made, bases.row_digest

    def move(self: bases.Move, *arguments: Any, **options: Any) -> Any:
        before = len(made)
        result = really_made(self, *arguments, **options)
        in_cut.extend(made[before:])
        return result

    def digest(*columns: Any) -> int:
        made.append(row_digest(*columns))
        return made[-1]

    monkeypatch.setattr(bases.Move, "made", move)
    monkeypatch.setattr(bases, "row_digest", digest)
    going_on = [SessionId.new() for _ in range(30)]
    with Journal.open(tmp_path / "a.db", retention=Retention(keep_events=100)) as journal:
        for number in range(600):
            journal.append_events([activated(going_on[number % 30])])
        assert journal.retention_failure is None
        assert cut_of(journal) >= 5 * BLOCK
    assert len(made) > 5 * 30
    assert in_cut == []


@pytest.mark.parametrize(("at_once", "most"), [(20, 20), (5, 13)])
def test_no_step_makes_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, most: int
) -> None:
    """Where there are fifty to make, that is three steps of twenty, or the four that there may be.

    In the cut itself none is made, and each is written once.
    """
    counts: list[int] = []
    written: list[int] = []
    text_of = bases._text_of

    def count(*arguments: Any) -> str:
        counts[-1] += 1
        return text_of(*arguments)

    def note(_kind: int, _database: str, table: str, row: int) -> None:
        if table == "base_session":
            written.append(row)

    monkeypatch.setattr(bases, "_text_of", count)
    monkeypatch.setattr(bases, "_READY_AT_ONCE", at_once)
    going_on = [SessionId.new() for _ in range(BLOCK)]
    with Journal.open(tmp_path / "a.db", retention=Retention(keep_events=100)) as journal:
        assert journal._database._writer is not None
        journal._database._writer.set_update_hook(note)
        cuts: list[int] = []
        for number in range(10 * BLOCK):
            counts.append(0)
            journal.append_events([activated(going_on[number % BLOCK])])
            cuts.append(cut_of(journal))
        assert journal.retention_failure is None
        assert len(written) == cuts[-1] >= 5 * BLOCK
    made_in_cuts = [count for at, count in enumerate(counts) if cuts[at] > cuts[at - 1]]
    assert max(counts) == most
    assert sum(made_in_cuts) == 0
    assert sum(counts) >= cuts[-1]
    check_closed(tmp_path / "a.db")


@pytest.fixture
def over(tmp_path: Path) -> list[SessionId]:
    """Make two equal files; return the sessions that are over in them, while ten others go on."""
    sessions = [SessionId.new() for _ in range(300)]
    going_on = [SessionId.new() for _ in range(10)]
    events: list[AnyEvent] = []
    for number, session in enumerate(sessions):
        both = activated(session), SessionClosed(session_id=session, timestamp=NOON)
        events += [activated(going_on[number % 10]), *both]
    for name in ("a.db", "whole.db"):
        with Journal.open(tmp_path / name, durability="normal") as journal:
            journal.append_events(events)
            journal.sessions(limit=1)
    return sessions


def test_what_goes_on_late_is_folded_besides(
    tmp_path: Path, folds: list[int], over: list[SessionId]
) -> None:
    """With each append a session that was over goes on, so that its events are to be folded, too.

    What is ready of the others stays so.
    """
    whole = Journal.open(tmp_path / "whole.db", durability="normal")
    retention = Retention(keep_events=100)
    with whole, Journal.open(tmp_path / "a.db", retention=retention) as journal:
        number = cut = 0
        while cut < 8 * BLOCK:
            for one in (whole, journal):
                one.append_events([activated(over[cut // 3 + 1 + number])])
            assert journal.retention_failure is None
            number = 0 if cut_of(journal) > cut else number + 1
            cut = cut_of(journal)
        assert len(folds) == 2 * 8
        assert min(folds[::2]) >= BLOCK // 3  # what goes on all the time
        assert max(folds[1::2]) <= 2 * 5  # two events of each session since
        check_against(journal, whole, cut)
    check_closed(tmp_path / "a.db")


@pytest.mark.usefixtures("over")
def test_what_is_left_out_only_at_the_cut_is_not_counted(tmp_path: Path, folds: list[int]) -> None:
    """Without rows of this version, as at first, it is not known what is over."""
    with closing(apsw.Connection(str(tmp_path / "a.db"))) as file:
        file.execute("UPDATE checkpoint SET version = 0 WHERE type = 'projection'")
    whole = Journal.open(tmp_path / "whole.db", durability="normal")
    retention = Retention(keep_events=100)
    with whole, Journal.open(tmp_path / "a.db", retention=retention) as journal:
        while cut_of(journal) < 4 * BLOCK:
            event = activated(SessionId.new())
            for one in (whole, journal):
                one.append_events([event])
            if len(folds) == 2:
                journal.sessions(limit=1)  # from here on it is known
            assert journal.retention_failure is None
        assert folds[:2] == [BLOCK, BLOCK]
        assert max(folds[2:]) <= BLOCK // 3 + 2  # what goes on, and what the cut goes through
        assert len(folds) == 4 + 1
        check_against(journal, whole, cut_of(journal))
    check_closed(tmp_path / "a.db")


def test_a_stream_that_is_known_later_changes_its_session(tmp_path: Path) -> None:
    """Its first event is of an unknown kind, and of another session than the first that is folded.

    In between is a cut.
    """
    sessions, streams = [[kind.new() for _ in range(60)] for kind in (SessionId, StreamId)]
    with (
        Journal.open(tmp_path / "whole.db", durability="normal") as whole,
        Journal.open(
            tmp_path / "a.db", durability="normal", retention=Retention(keep_events=100)
        ) as journal,
    ):
        for one in (whole, journal):
            for session, stream in zip(sessions, streams, strict=True):
                one.append_ndjson([unknown("light_switched", session, stream)], unknown="keep")
            for number in range(8 * BLOCK):
                session, stream = sessions[(number + 1) % 60], streams[number % 60]
                one.append_events([started(session, stream)])
        assert journal.retention_failure is None
        assert cut_of(journal) >= 4 * BLOCK
        check_against(journal, whole, cut_of(journal))
    check_closed(tmp_path / "a.db")


@pytest.mark.parametrize("is_late", [False, True])
def test_what_comes_between_is_not_forgotten(
    tmp_path: Path, folds: list[int], *, is_late: bool
) -> None:
    """All sessions are over, so none has to be folded but those that something comes to late."""
    sessions = [SessionId.new() for _ in range(500)]
    events: list[AnyEvent] = []
    for session in sessions:
        events += [activated(session), SessionClosed(session_id=session, timestamp=NOON)]
    for name in ("a.db", "whole.db"):
        with Journal.open(tmp_path / name, durability="normal") as journal:
            journal.append_events(events)
    whole = Journal.open(tmp_path / "whole.db", durability="normal")
    retention = Retention(keep_events=100)
    with whole, Journal.open(tmp_path / "a.db", retention=retention) as journal:
        number = cut = 0
        while cut < 8 * BLOCK:  # with each append another session of what is cut next
            session = sessions[cut // 2 + number] if is_late else SessionId.new()
            for one in (whole, journal):
                one.append_events([activated(session)])
            assert journal.retention_failure is None
            number = 0 if cut_of(journal) > cut else number + 1
            cut = cut_of(journal)
        assert len(folds) == 8 * (2 if is_late else 1)
        check_against(journal, whole, cut)
    check_closed(tmp_path / "a.db")


def test_what_was_folded_since_it_was_made_ready_is_no_damage(tmp_path: Path) -> None:
    """Whoever reads a state has all events folded, also those that came since."""
    session = SessionId.new()
    with Journal.open(tmp_path / "a.db", retention=Retention(keep_events=100)) as journal:
        for _ in range(10 * BLOCK):
            journal.append_events([activated(session)])
            assert journal.session(session) is not None
            assert journal.retention_failure is None
        assert cut_of(journal) >= 5 * BLOCK
    check_closed(tmp_path / "a.db")


@pytest.mark.parametrize("error", [KeyboardInterrupt, apsw.IOError])
def test_what_was_interrupted_ahead_is_begun_anew(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """Else what was being read just then would count as not there, for good."""
    going_on = [SessionId.new() for _ in range(20)]
    is_raised = False

    def raise_once(_cursor: object, sql: str, _bindings: object) -> bool:
        nonlocal is_raised
        if not is_raised and sql.startswith(bases._OLD_SQL["session"]):
            is_raised = True
            raise error("here")
        return True

    with Journal.open(tmp_path / "a.db", retention=Retention(keep_events=100)) as journal:
        assert journal._database._writer is not None
        journal._database._writer.exec_trace = raise_once
        for number in range(10 * BLOCK):
            with suppress(KeyboardInterrupt):
                journal.append_events([activated(going_on[number % 20])])
        assert is_raised
        assert cut_of(journal) >= 5 * BLOCK
        assert [journal.version(session) for session in going_on] == [BLOCK // 2] * 20
    check_closed(tmp_path / "a.db")


def test_what_was_made_ready_is_gone_with_the_handle(tmp_path: Path) -> None:
    """No circle of references keeps it until the collector finds it."""
    path = tmp_path / "a.db"
    with Journal.open(path) as journal:
        journal.append_events(EVENTS[:200])
    gc.disable()
    try:
        gc.collect()
        for _ in range(3):
            with Journal.open(path, retention=Retention(keep_events=100)) as journal:
                for event in EVENTS[:3]:
                    journal.append_events([event])
        del journal
        assert not [it for it in gc.get_objects() if isinstance(it, bases.Move)]
    finally:
        gc.enable()


class AheadMachine(test_prune_model.PruneMachine):
    """The model of pruning, with every cut made ready before it is made."""

    def __init__(self) -> None:
        super().__init__()
        really = Cutter.cut

        def cut(
            self: Cutter, connection: apsw.Connection, extent: Extent, up_to: int, *rest: Any
        ) -> Cut:
            while self.do_ahead(connection, extent, up_to):
                pass
            return really(self, connection, extent, up_to, *rest)

        self.patch.setattr(Cutter, "cut", cut)


TestAheadItIsAsTheModelSays = pytest.mark.slow(AheadMachine.TestCase)
TestAheadItIsAsTheModelSays.settings = settings(
    test_prune_model.TestAPrunedJournalAnswersAsTheModelDoes.settings, max_examples=20 * LONG_ROUNDS
)
