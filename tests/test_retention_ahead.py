"""What retention does ahead of a cut counts only if it is still so when the cut is made."""

import random
from pathlib import Path
from typing import Any

import apsw
import pytest
import test_prune_model
from hypothesis import settings
from prune_support import BLOCK, check_against, check_closed, small_blocks
from support import FIRST_SEED, LONG_ROUNDS, NOON, activated
from test_retention import EVENTS, cut_of

from journal import Journal, Retention, SessionClosed, SessionId
from journal.events import AnyEvent
from journal.file.extent import Extent
from journal.maintenance import retention
from journal.maintenance.cutting import Cut, Cutter
from journal.projections.lifecycle_states import LifecycleStates


@pytest.fixture(autouse=True)
def one_step_an_append(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(retention, "_STEPS_SECONDS", 0)


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
        cuts = [cut_of(journal)]
        for _ in range(30):
            journal.append_events(EVENTS[:1])
            cuts.append(cut_of(journal))
    assert sorted(set(cuts)) == [BLOCK * number for number in range(11)]
    assert len(folds) == 10
    check_closed(path)


def test_what_comes_between_is_not_forgotten(tmp_path: Path, folds: list[int]) -> None:
    """All sessions are over, so none has to be folded but those that something came to late."""
    seed = FIRST_SEED or random.randrange(2**32)
    print(f"again: JOURNAL_TEST_SEED={seed}")
    draw = random.Random(seed)
    sessions = [SessionId.new() for _ in range(500)]
    events: list[AnyEvent] = []
    for session in sessions:
        events += [activated(session), SessionClosed(session_id=session, timestamp=NOON)]
    for name in ("a.db", "whole.db"):
        with Journal.open(tmp_path / name, durability="normal") as journal:
            journal.append_events(events)
    whole = Journal.open(tmp_path / "whole.db", durability="normal")
    not_over: set[SessionId] = set()
    retention = Retention(keep_events=100)
    with whole, Journal.open(tmp_path / "a.db", retention=retention) as journal:
        for number in range(1, 40):
            is_late = number % 3 == 0 or draw.random() < 0.3  # the third step is the cut
            first = cut_of(journal) // 2
            over = [each for each in sessions[first : first + BLOCK // 2] if each not in not_over]
            session = draw.choice(over) if is_late else SessionId.new()
            not_over.add(session)
            event = activated(session)
            for one in (whole, journal):
                one.append_events([event])
            assert journal.retention_failure is None
        assert cut_of(journal) == 13 * BLOCK
        assert len(folds) == 2 * 13
        check_against(journal, whole, cut_of(journal))
    check_closed(tmp_path / "a.db")


class AheadMachine(test_prune_model.PruneMachine):
    """The model of pruning, with every cut made ready before it is made."""

    def __init__(self) -> None:
        super().__init__()
        really = Cutter.cut

        def cut(
            self: Cutter, connection: apsw.Connection, extent: Extent, up_to: int, *rest: Any
        ) -> Cut:
            assert self.do_ahead(connection, extent, up_to)
            return really(self, connection, extent, up_to, *rest)

        self.patch.setattr(Cutter, "cut", cut)


TestAheadItIsAsTheModelSays = pytest.mark.slow(AheadMachine.TestCase)
TestAheadItIsAsTheModelSays.settings = settings(
    test_prune_model.TestAPrunedJournalAnswersAsTheModelDoes.settings, max_examples=20 * LONG_ROUNDS
)
