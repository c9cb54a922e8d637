"""What a command loads, and when: all that it needs before its work begins, and not much more."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from commands_support import MIXED, environment

from journal import Journal

# Runs a command, and tells what was there before its work began and what was made in it.
_PROBE = """
import gc, json, sys
from pydantic import BaseModel
from journal.__main__ import main
from journal.commands.console.interrupting import Interruption

def models(cls=BaseModel):
    found = {cls}
    for one in cls.__subclasses__():
        found |= models(one)
    return found

raising = Interruption.raising

def probed(self, work):
    modules, before = sorted(sys.modules), models()
    try:
        return raising(self, work)
    finally:
        made = sorted(one.__qualname__ for one in models() - before)
        with open(report, "w") as file:
            json.dump([modules, made, gc.isenabled()], file)

Interruption.raising = probed
report = sys.argv.pop(1)
main()
"""


class Probed(NamedTuple):
    """What was seen of a command."""

    modules: set[str]
    """What was loaded when its work began."""
    made: list[str]
    """The models that were made after that."""
    collects_garbage: bool
    """Whether it did while it worked."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loading") / "tests.db"
    with Journal.open(path) as journal:
        journal.append_ndjson(MIXED.read_text("utf-8").splitlines()[:300])
    return path


def probed(tmp_path: Path, *arguments: object) -> Probed:
    report = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, "-c", _PROBE, report, *map(str, arguments)],
        check=True,
        capture_output=True,
        env=environment(),
    )
    modules, made, collects_garbage = json.loads(report.read_text("utf-8"))
    return Probed({*modules}, made, collects_garbage)


@pytest.mark.parametrize(
    "command", ["sessions", "info", "verify", "rebuild", "ship", "recover", "prune", "append"]
)
def test_no_model_is_made_when_a_signal_would_come_between(
    path: Path, tmp_path: Path, command: str
) -> None:
    """pydantic prints that it panics where a KeyboardInterrupt comes out of making a model."""
    arguments: dict[str, tuple[object, ...]] = {
        "ship": (tmp_path / "copy.db",),
        "recover": ("-o", tmp_path / "new.db"),
        "prune": ("--keep-events", 100_000),
        "append": (MIXED,),
    }
    if command == "append":
        path = tmp_path / "new.db"
    assert probed(tmp_path, command, path, *arguments.get(command, ())).made == []


def test_nor_when_a_copy_goes_on(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with Journal.open(path) as journal:
        journal.ship(copy)
    assert probed(tmp_path, "continue", copy, tmp_path / "new.db").made == []


def test_a_list_does_not_wait_for_what_other_commands_need(path: Path, tmp_path: Path) -> None:
    modules, _, collects_garbage = probed(tmp_path, "sessions", path)
    assert collects_garbage
    assert "journal.projections.queries" in modules
    assert [name for name in sorted(modules) if name.startswith("journal.maintenance.")] == []
    assert not modules & {"journal.file.ndjson", "journal.events.parsing", "tomllib", "logging"}
