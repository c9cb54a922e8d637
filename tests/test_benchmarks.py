"""The benchmarks still run, at tiny sizes, and verify what they wrote; nothing is about speed."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from journal import Journal

REPOSITORY = Path(__file__).parent.parent

REQUIRED = {
    "append-2000-sessions": 0.40,
    "append-20-sessions": 0.35,
    "append-mixed": None,
    "ndjson-20-sessions": 0.35,
    "one-per-transaction": 0.6,
    "sealing": None,
    "read": 1.0,
    "file-size": 0.35,
    "memory-ndjson": 1.0,
    "memory-events": 1.0,
    "rebuild": 0.4,
    "memory-rebuild": 1.1,
    "open": 1.5,
    "open-read-only": 1.5,
    "session": None,
    "since": None,
    "catch-up": 1.5,
    "import": 1.3,
}


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Every scenario, run once at its small size."""
    folder = tmp_path_factory.mktemp("benchmarks")
    file = folder / "figures.json"
    done = run("--small", "--repeat", "1", "--folder", str(folder), "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert not [left for left in folder.iterdir() if left != file]
    return file, done.stdout


def test_every_scenario_runs_and_verifies_what_it_wrote(small):
    file, printed = small
    run_of = json.loads(file.read_text())
    assert {figure["name"]: figure["required"] for figure in run_of["figures"]} == REQUIRED
    for figure in run_of["figures"]:
        assert len(figure["ours"]) == len(figure["peer"]) >= 1
        assert all(value > 0 for value in figure["ours"] + figure["peer"])
        assert figure["name"] in printed


def test_a_run_says_where_it_was_made(small):
    file, printed = small
    facts = json.loads(file.read_text())["facts"]
    assert {"machine", "python", "sqlite", "folder", "durability", "commit", "seed"} <= facts.keys()
    assert all(fact in printed for fact in facts.values())


def test_two_runs_can_be_compared(small):
    file, _ = small
    done = run("--small", "--repeat", "1", "--compare", str(file), "file-size")
    assert done.returncode == 0, done.stderr
    assert "(was 0." in done.stdout


def test_an_unknown_scenario_is_refused():
    done = run("no-such-thing")
    assert done.returncode == 2
    assert "no such scenario: no-such-thing" in done.stderr


def test_the_readme_names_every_figure():
    text = (REPOSITORY / "benchmarks" / "README.md").read_text("utf-8")
    assert [name for name in REQUIRED if f"`{name}`" not in text] == []


def test_a_file_with_other_events_does_not_pass_for_verified(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY)
    workload = import_module("benchmarks.workload")
    expected, verify = workload.expected, workload.verify
    lines = list(workload.mixed_lines(100, seed=1))
    with Journal.open(tmp_path / "a.journal") as journal:
        journal.append_ndjson(lines)
    verify(tmp_path / "a.journal", expected(lines))
    for others in (lines[:-1], lines[::-1], list(workload.mixed_lines(100, seed=2))):
        with pytest.raises(AssertionError):
            verify(tmp_path / "a.journal", expected(others))
