"""Merging that is stopped half way, or finds what it cannot write to."""

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import (
    Channel,
    Child,
    become_nobody,
    die,
    folder_for_everybody,
    let_go,
    lines_of,
    names_in,
    run,
)

from journal import Journal, errors, limits, merge, verify
from journal.maintenance import placement, rewriting
from journal.maintenance.placing import Placer

pytestmark = pytest.mark.usefixtures("small_merge_steps")

LINES = lines_of("mixed/events.ndjson")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number, label in enumerate(("a", "b")):
        with Journal.open(folder / f"{label}.db", label=label) as opened:
            for at in range(55):
                lines = LINES[100 * number + at : 100 * number + at + 1]
                opened.append_ndjson(lines)
    return folder


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    return tmp_path / "fleet.db"


def content(path: Path) -> list[tuple[int, str]]:
    with Journal.open(path, read_only=True) as opened:
        return list(opened.lines())


def origins(path: Path) -> list[Any]:
    with Journal.open(path, read_only=True) as opened:
        return [(it.label, it.event_count, it.waiting) for it in opened.origins().origins]


def failing_at(number: int, error: BaseException) -> Callable[..., None]:
    """Return what places events as usual, until it is called for the n-th time."""
    calls = 0
    place = Placer.place

    def placing(self: Placer, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        place(self, *arguments)

    return placing


@pytest.mark.parametrize("number", [3, 8])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (apsw.FullError("full"), errors.StorageFullError)],
    ids=["interrupt", "full"],
)
def test_what_was_stopped_goes_on(
    inbox: Path, fleet: Path, number: int, error: Any, raised: Any, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Placer, "place", failing_at(number, error))
        with pytest.raises(raised):
            merge(fleet, inbox)
    found = verify(fleet, full=True)
    assert found.sound, found.findings
    assert content(fleet)

    done = merge(fleet, inbox)

    assert done.complete
    merge(tmp_path / "whole.db", inbox)
    assert content(fleet) == content(tmp_path / "whole.db")
    assert origins(fleet) == origins(tmp_path / "whole.db")
    found = verify(fleet, full=True)
    assert found.sound, found.findings


def merge_and_die(_channel: Channel, fleet: Path, source: Path, number: int) -> None:
    """Be killed before the n-th piece is placed."""
    limits.BLOCK_EVENTS_MAX, placement._EVENTS_AT_ONCE = 10, 15
    calls, place = itertools.count(1), Placer.place

    def placing(self: Placer, *arguments: Any) -> None:
        if next(calls) == number:
            die()
        place(self, *arguments)

    Placer.place = placing  # type: ignore[method-assign]
    merge(fleet, source)


@pytest.mark.parametrize("number", [1, 2, 5, 9, 12])
def test_who_is_killed_while_merging_leaves_what_the_next_one_goes_on_with(
    inbox: Path, fleet: Path, number: int, tmp_path: Path
) -> None:
    with Child(merge_and_die, fleet, inbox, number) as child:
        child.wait_until_killed()
    found = verify(fleet, full=True)
    assert found.sound, found.findings
    before = len(content(fleet))
    assert 10 * (number - 3) <= before < 110

    done = merge(fleet, inbox)

    assert (done.complete, done.added_count) == (True, 110 - before)
    merge(tmp_path / "whole.db", inbox)
    assert content(fleet) == content(tmp_path / "whole.db")
    assert origins(fleet) == origins(tmp_path / "whole.db")
    found = verify(fleet, full=True)
    assert found.sound, found.findings


def merge_beside(channel: Channel, fleet: Path, source: Path) -> str:
    """Merge in small transactions, at the same time as others."""
    limits.BLOCK_EVENTS_MAX, placement._EVENTS_AT_ONCE = 10, 5
    channel.meet()
    try:
        merge(fleet, source)
    except errors.BusyError as error:
        return str(error)
    return "merged"


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("are_same", [False, True])
def test_processes_that_merge_at_once_double_and_lose_nothing(
    inbox: Path, fleet: Path, *, is_there: bool, are_same: bool
) -> None:
    sources = [inbox, inbox] if are_same else [inbox / "a.db", inbox / "b.db"]
    if is_there:
        with Journal.open(fleet):
            pass
    with (
        Child(merge_beside, fleet, sources[0]) as one,
        Child(merge_beside, fleet, sources[1]) as other,
    ):
        let_go([one, other])
        said = {one.receive(), other.receive()}
    assert "merged" in said
    reason = f"{fleet}: is being merged into by somebody else, too: merge again"
    assert said <= ({"merged", reason} if are_same else {"merged"})
    assert merge(fleet, inbox).added_count == 0
    assert sorted(origins(fleet)) == [("a", 55, ()), ("b", 55, ())]
    texts = [text for _, text in content(fleet)]
    for first in (0, 100):
        some = LINES[first : first + 55]
        assert [text for text in texts if text in some] == some
    found = verify(fleet, full=True)
    assert found.sound, found.findings


def late(inbox: Path, to: Path) -> Path:
    with Journal.open(inbox / "a.db", read_only=True) as opened:
        return opened.ship(to, after=30).path


@pytest.mark.parametrize("number", [1, 4])
def test_making_anew_is_done_whole_or_not_at_all(
    inbox: Path, fleet: Path, number: int, tmp_path: Path
) -> None:
    merge(fleet, late(inbox, tmp_path / "late.db"))
    before = content(fleet), names_in(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Placer, "place", failing_at(number, apsw.FullError("full")))
        with pytest.raises(errors.StorageFullError):
            merge(fleet, inbox / "a.db", rewrite=True)
    assert (content(fleet), names_in(tmp_path)) == before
    assert merge(fleet, inbox / "a.db", rewrite=True).complete
    assert [text for _, text in content(fleet)] == LINES[:55]


def rewrite_and_die(_channel: Channel, fleet: Path, source: Path, stage: str) -> None:
    """Be killed while a merged journal is made anew: in the n-th piece, or by a function's end."""
    if stage.isdigit():
        calls, place = itertools.count(1), Placer.place

        def placing(self: Placer, *arguments: Any) -> None:
            if next(calls) == int(stage):
                die()
            place(self, *arguments)

        Placer.place = placing  # type: ignore[method-assign]
    else:
        original = getattr(rewriting, stage)

        def then_die(*arguments: Any, **named: Any) -> None:
            original(*arguments, **named)
            die()

        setattr(rewriting, stage, then_die)
    merge(fleet, source, rewrite=True)


@pytest.mark.parametrize("stage", ["1", "4", "_take_over", "_close_for_moving", "put_in_place"])
def test_who_is_killed_while_making_anew_leaves_one_whole_journal(
    inbox: Path, fleet: Path, stage: str, tmp_path: Path
) -> None:
    merge(fleet, late(inbox, tmp_path / "late.db"))
    names = names_in(tmp_path)
    before = [text for _, text in content(fleet)]
    with Child(rewrite_and_die, fleet, inbox / "a.db", stage) as child:
        child.wait_until_killed()

    is_done = stage == "put_in_place"
    assert [text for _, text in content(fleet)] == (LINES[:55] if is_done else before)
    found = verify(fleet, full=True)
    assert found.sound, found.findings
    assert merge(fleet, inbox / "a.db", rewrite=True).complete
    assert [text for _, text in content(fleet)] == LINES[:55]
    if not is_done:  # the next one to make anything there removes what a killed one left
        assert names_in(tmp_path) == names


def merge_as_nobody(_channel: Channel, fleet: Path, source: Path, rewrite: bool) -> str:
    become_nobody()
    with pytest.raises(errors.AccessDeniedError) as raised:
        merge(fleet, source, rewrite=rewrite)
    return str(raised.value)


def test_what_may_not_be_read_or_written_is_said(inbox: Path) -> None:
    with folder_for_everybody() as folder:
        fleet = folder / "fleet.db"
        merge(fleet, late(inbox, folder / "late.db"))
        source = Path(shutil.copy(inbox / "a.db", folder / "b.db"))
        before = content(fleet)
        for path in folder.iterdir():
            path.chmod(0o644)
        mine = folder / "theirs"
        mine.mkdir()
        mine.chmod(0o777)

        # The merged journal belongs to somebody else.
        assert "Permission denied" in run(merge_as_nobody, fleet, source, True)
        # So does the folder in which one would be made.
        assert "permission denied" in run(merge_as_nobody, folder / "new.db", source, False)
        # So does a source, which nobody else may read.
        source.chmod(0o600)
        reason = run(merge_as_nobody, mine / "fleet.db", source, False)
        assert reason == f"{source}: cannot be read: permission denied"
        assert (content(fleet), names_in(mine)) == (before, [])


def test_a_file_in_use_is_not_made_anew(inbox: Path, fleet: Path, tmp_path: Path) -> None:
    merge(fleet, late(inbox, tmp_path / "late.db"))
    before = content(fleet)
    with Journal.open(fleet, read_only=True), pytest.raises(errors.BusyError):
        merge(fleet, inbox / "a.db", rewrite=True)
    assert content(fleet) == before


def test_what_was_appended_meanwhile_is_not_lost(
    inbox: Path, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(fleet, late(inbox, tmp_path / "late.db"))
    close = rewriting._close_for_moving

    def appending(made: Path) -> None:
        with Journal.open(fleet) as opened:
            opened.append_ndjson(LINES[300:301])
        close(made)

    monkeypatch.setattr(rewriting, "_close_for_moving", appending)
    with pytest.raises(errors.BusyError, match="was not made anew"):
        merge(fleet, inbox / "a.db", rewrite=True)
    assert content(fleet)[-1][1] == LINES[300]


def test_two_that_merge_at_the_same_time_double_nothing(
    inbox: Path, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(fleet, inbox / "a.db")
    run = placement.Merging._place
    calls = 0

    def beside(self: placement.Merging, *arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            merge(fleet, inbox / "b.db")
        return run(self, *arguments)

    monkeypatch.setattr(placement.Merging, "_place", beside)
    with pytest.raises(errors.BusyError, match="merged into by somebody else"):
        merge(fleet, inbox)
    monkeypatch.undo()
    assert merge(fleet, inbox).added_count == 0
    assert len(content(fleet)) == 110


def test_a_source_that_changes_meanwhile_is_noticed(
    inbox: Path, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = placement.Merging.run

    def changing(self: placement.Merging) -> None:
        with Journal.open(inbox / "b.db") as opened:
            opened.append_ndjson(LINES[300:400])
        os.utime(inbox / "b.db", ns=(1, 1))
        run(self)

    monkeypatch.setattr(placement.Merging, "run", changing)
    with pytest.raises(errors.FileReplacedError, match="was changed or moved"):
        merge(fleet, inbox)
    monkeypatch.undo()
    assert merge(fleet, inbox).complete


def test_a_folder_that_cannot_be_written_is_said(inbox: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.JournalNotFoundError, match="folder does not exist"):
        merge(tmp_path / "nowhere" / "fleet.db", inbox)


def test_progress_ends_with_all(inbox: Path, fleet: Path, tmp_path: Path) -> None:
    def told_by(*arguments: Any, **options: Any) -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []
        merge(*arguments, **options, progress=lambda done, total: told.append((done, total)))
        return told

    first = told_by(fleet, inbox)
    again = told_by(fleet, inbox)  # all of which is known
    other = tmp_path / "other.db"
    merge(other, late(inbox, tmp_path / "late.db"))
    anew = told_by(other, inbox, rewrite=True)

    assert first[-1] == again[-1] == (220, 220)
    for told in (first, again, anew):
        assert any(done < total for done, total in told)
        assert all(done <= total for done, total in told)
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1][0] == told[-1][1]
