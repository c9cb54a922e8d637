"""`journal recover`: what it prints, how it ends, and what it leaves when it is interrupted."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands_support import DATA, ended, run_here, started
from recover_support import LINES, PAGE, copy, fill_pages, make, pages_of
from support import bytes_in, names_in

import journal
from journal import limits


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", 100)
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sound") / "a.db", LINES[:300])


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return copy(sound, tmp_path / "a.db")


def test_a_whole_file_ends_with_0(path: Path) -> None:
    out = path.with_name("b.db")
    result = run_here("recover", path, "-o", out)
    assert (result.code, result.err) == (0, "")
    lines = dict(line.split(None, 1) for line in result.out.decode().splitlines())
    assert lines == {
        "Recovered": "300 events, positions 1 to 300",
        "Proven": "300 events",
        "Head": lines["Head"],
        "File": str(out),
    }
    assert run_here("info", path).out.decode().count(lines["Head"]) == 1


def test_losses_end_with_3_and_say_what_they_are(path: Path) -> None:
    fill_pages(path, pages_of(path, "event")[1:2], lambda: bytes(PAGE))
    out = path.with_name("b.db")

    result = run_here("recover", path, "--out", out, "--json")

    assert result.code == 3
    assert "some events were lost" in result.err
    (found,) = map(json.loads, result.out.splitlines())
    assert found["complete"] is False
    assert found["event_count"] + found["lost_count"] == 300
    ((first, last),) = found["lost"]
    assert last - first + 1 == found["lost_count"]
    assert found["event_count"] == found["proven_count"] + found["unproven_count"]
    assert (found["path"], found["source"]) == (str(out), str(path))
    printed = run_here("recover", path, "-o", out, "--force").out.decode()
    assert f"Lost        {last - first + 1} events: positions {first} to {last}\n" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["{data}/wire.ndjson", "-o", "{folder}/b.db"], 1, "nothing of a journal"),
        (["{folder}/none.db", "-o", "{folder}/b.db"], 1, "does not exist"),
        (["{folder}", "-o", "{folder}/b.db"], 1, "is a directory"),
        (["{folder}/a.db", "-o", "{folder}/a.db", "--force"], 1, "the very file that is read"),
        (["{folder}/a.db", "-o", "{folder}/no/b.db"], 1, "its folder does not exist"),
        (["{folder}/a.db"], 2, "Missing option '-o'"),
        (["-o", "{folder}/b.db"], 2, "Missing argument 'DAMAGED'"),
    ],
)
def test_wrong_input_is_one_sentence_and_changes_nothing(
    path: Path, arguments: list[str], code: int, text: str
) -> None:
    before = bytes_in(path.parent)
    given = [it.format(data=DATA, folder=path.parent) for it in arguments]
    result = run_here("recover", *given)
    assert result.code == code
    assert text in result.err
    assert result.out == b""
    assert code == 2 or result.err.count("\n") == 1
    assert bytes_in(path.parent) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_everything_as_it_was(path: Path, number: int) -> None:
    fill_pages(path, [1], lambda: bytes(PAGE))
    before, out = bytes_in(path.parent), path.with_name("b.db")
    for delay in (0.02, 0.15):
        process = started("recover", path, "-o", out, is_loaded=True)
        time.sleep(delay)
        process.send_signal(number)
        result = ended(process)
        if out.exists():  # it was quicker
            assert journal.verify(out, full=True).sound
            out.unlink()
        else:
            assert (result.code, result.out) == (130, b"")
        assert bytes_in(path.parent) == before


def test_what_a_killed_one_left_is_removed_by_the_next(path: Path) -> None:
    process = started("recover", path, "-o", path.with_name("b.db"), is_loaded=True)
    while names_in(path.parent) == ["a.db"] and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()

    assert run_here("recover", path, "-o", path.with_name("c.db")).code == 0
    left = [name for name in names_in(path.parent) if name.startswith(".")]
    assert left == []
