"""The benchmarks still run, at tiny sizes, and verify what they wrote; nothing is about speed.

All of them take a minute, so that only one is run by default.
"""

import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from journal import Journal

REPOSITORY = Path(__file__).parent.parent

EVENT_FILTERS = (
    *("", "-json", "-since", "-until", "-type", "-type-none", "-session", "-stream"),
    *("-since-type", "-session-since", "-session-type", "-session-stream"),
    *("-stream-since", "-stream-type", "-session-stream-type", "-session-stream-since"),
    *("-session-type-since", "-stream-type-since", "-all-filters", "-after", "-type-limit"),
)
LISTED = ("", "-json", "-failed", "-sort", "-sort-limit", "-last", "-beside")

REQUIRED = {
    "append-many": 0.40,
    "append-steady": 0.40,
    "append-short": 0.40,
    "append-steady-full": None,
    "append-short-full": None,
    "single-steady-full": 0.65,
    "single-short-full": 0.65,
    "single-steady": 0.50,
    "single-short": 0.50,
    "ndjson-steady": 0.38,
    "ndjson-short": 0.17,
    "ndjson-steady-full": None,
    "ndjson-short-full": None,
    "sealing": None,
    "making": 1.3,
    "read-steady": 1.0,
    "read-short": 0.72,
    "file-size": 0.35,
    "memory-ndjson": 1.0,
    "memory-events": 1.0,
    "rebuild-short": None,
    "rebuild-steady": None,
    "memory-rebuild": 1.1,
    "verify-blocks-short": 0.25,
    "verify-blocks-steady": 0.25,
    "verify-full-short": None,
    "verify-full-steady": None,
    "verify-full-merged": None,
    "memory-verify": 1.1,
    "recover": 0.33,
    "recover-pages": None,
    **dict.fromkeys(("memory-recover", "memory-recover-pages"), 1.1),
    "prune-short": 0.5,
    "prune-many": None,
    **dict.fromkeys(("retention-short", "retention-steady", "retention-many")),
    "memory-prune": 1.1,
    "ship": 1.5,
    "memory-ship": 1.1,
    "delta": 1.5,
    "merge-short": 0.5,
    "merge-many": None,
    "merge-overlap": None,
    "merge-large": None,
    "memory-merge": 1.1,
    "open": 1.5,
    "open-read-only": 1.5,
    "session": None,
    "since": None,
    "catch-up": 1.5,
    "import": 1.3,
    "beside-ndjson-steady": None,
    "beside-sqlite3-steady": None,
    "beside-ndjson-short": None,
    "beside-sqlite3-short": None,
    "threads-64": 4,
    "tasks-64": 10,
    "syncs-64": 1 / 20,
    "fairness-64": None,
    "lag": 1.0,
    "lag-slow-sync": 1.0,
    **dict.fromkeys(
        (
            *(f"command-events{filters}" for filters in EVENT_FILTERS),
            *(f"command-{noun}{how}" for noun in ("sessions", "streams") for how in LISTED),
            *("command-streams-session", "command-session", "command-anomalies", "command-info"),
            *(f"command-session-long{how}" for how in ("", "-json", "-wide", "-as-of")),
            *("command-projections", "command-sessions-head"),
        ),
        1.0,
    ),
}
WRITTEN = {
    f"written-{how}-{workload}": None
    for how in ("append", "single")
    for workload in ("steady", "short")
}
PEER = {
    "peer-single-steady": 1.0,
    "peer-single-short": 1.0,
    "peer-append-steady": 1.6,
    "peer-append-short": 1.6,
    "peer-read-steady": 2.0,
    "peer-read-short": 2.0,
    "peer-rebuild-steady": 18.0,
    "peer-rebuild-short": 9.0,
    "peer-bytes-steady": 1 / 7,
    "peer-bytes-short": 1 / 7,
}
HAS_PEER = find_spec("eventsourcing") is not None
EXPECTED = {
    **REQUIRED,
    **(WRITTEN if Path("/proc/self/io").exists() else {}),
    **(PEER if HAS_PEER else {}),
}


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def run_here(monkeypatch, *arguments):
    """Run benchmarks in this process, which takes a second less."""
    monkeypatch.syspath_prepend(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    import_module("benchmarks.__main__").main()


def run_small(folder, *scenarios):
    """Return the file of figures of a run, and what it printed."""
    file = folder / "figures.json"
    done = run("--small", "--repeat", "1", "--folder", str(folder), "--json", str(file), *scenarios)
    assert done.returncode == 0, done.stderr
    assert not [left for left in folder.iterdir() if left != file]
    return file, done.stdout


@pytest.fixture(scope="module")
def file_size(tmp_path_factory):
    return run_small(tmp_path_factory.mktemp("benchmarks"), "file-size")


@pytest.mark.slow
def test_every_scenario_runs_and_verifies_what_it_wrote(tmp_path, monkeypatch):
    """In one run, which keeps the file of the commands."""
    (tmp_path / "folder").mkdir()
    kept = tmp_path / "kept.journal"
    file, printed = run_small(tmp_path / "folder", "--mixed-file", str(kept))
    run_of = json.loads(file.read_text())
    assert {figure["name"]: figure["required"] for figure in run_of["figures"]} == EXPECTED
    for figure in run_of["figures"]:
        assert len(figure["ours"]) == len(figure["peer"]) >= 1
        assert all(value > 0 for value in figure["ours"] + figure["peer"])
        assert figure["name"] in printed
        if figure["name"].startswith("lag"):
            assert figure["details"].keys() == {
                f"{what}_{value}"
                for what in ("idle", "direct", "async")
                for value in ("p50_ms", "p99_ms", "max_ms", "events_per_s")
            }

    assert HAS_PEER or "not installed" in printed
    before = kept.read_bytes()
    monkeypatch.syspath_prepend(REPOSITORY)
    make = import_module("benchmarks.commands").make_folded
    make(kept, 6_000, seed=1)  # as the next run has it
    assert kept.read_bytes() == before
    with pytest.raises(AssertionError):
        make(kept, 7_000, seed=1)


def test_a_run_says_where_it_was_made(file_size):
    file, printed = file_size
    facts = json.loads(file.read_text())["facts"]
    assert {"machine", "python", "sqlite", "folder", "durability", "commit", "seed"} <= facts.keys()
    assert all(fact in printed for fact in facts.values())


def test_two_runs_can_be_compared(file_size, monkeypatch, capsys):
    file, _ = file_size
    run_here(monkeypatch, "--small", "--repeat", "1", "--compare", str(file), "file-size")
    assert "(was 0." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["no-such-thing", *([] if HAS_PEER else ["peer-read"])])
def test_an_unknown_scenario_is_refused(name, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ending:
        run_here(monkeypatch, "--small", name)
    assert ending.value.code == 2
    assert f"no such scenario: {name}" in capsys.readouterr().err


def test_the_readme_names_every_figure():
    text = (REPOSITORY / "benchmarks" / "README.md").read_text("utf-8")
    assert [name for name in (*REQUIRED, *WRITTEN, *PEER) if f"`{name}`" not in text] == []


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
