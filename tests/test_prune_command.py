"""`journal prune`: what it says, and that bad input changes nothing."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from commands_support import Ended, ended, run_here, start
from commands_support import run as run_command
from prune_support import check_closed, rows
from support import Channel, become_nobody, bytes_in, folder_for_everybody, lines_of, run

import journal
from journal.maintenance import PruneReport

LINES = lines_of("mixed/events.ndjson")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "a.db"
    with journal.Journal.open(path, durability="normal") as opened:
        opened.append_ndjson(LINES)
        opened.sessions()
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "a.db"))


def test_it_says_what_goes_what_is_forgotten_what_stays_and_what_comes_back(path: Path) -> None:
    before = path.read_bytes()
    dry = run_here("prune", path, "--keep-events", 2000, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert path.read_bytes() == before
    done = run_here("prune", path, "--keep-events", 2000)
    assert (done.code, done.err) == (0, "")

    would, pruned = dry.out.decode().splitlines(), done.out.decode().splitlines()
    assert would[0] == "Would go    3,000 events, up to position 3000, in 3 blocks"
    assert pruned[0] == "Pruned      3,000 events, up to position 3000, in 3 blocks"
    assert would[1:3] == pruned[1:3]
    assert re.fullmatch(
        r"Forgotten   \d+ sessions \(\d+ Completed, \d+ Failed\), \d+ streams \(.*\)", pruned[1]
    )
    assert pruned[2].startswith("Left        2,442 events, from position 3001 on; ")
    assert re.fullmatch(r"File        \d+ kB, .*", pruned[3])
    assert re.fullmatch(
        r"File        about \d+ kB, about \d+ kB smaller: by the share of events, and states that "
        "stay take more",
        would[3],
    )
    assert pruned[4:] == ["Texts       gone from the file and its -wal"]
    check_closed(path)


def test_where_nothing_goes_it_says_nothing_of_deleted_texts(path: Path) -> None:
    """But for those that went before: whether they are gone is asked by pruning again."""
    page = run_here("prune", path, "--before", 1).out.decode()
    assert page.startswith("Pruned      nothing\nForgotten   nothing\nLeft        5,442 events, ")
    assert "Texts" not in page
    run_here("prune", path, "--before", 1001)
    page = run_here("prune", path, "--before", 1).out.decode()
    assert page.startswith("Pruned      nothing\n")
    gone = "Texts       of what was pruned before: gone from the file and its -wal\n"
    assert page.endswith(gone)


def test_a_file_that_stays_larger_than_asked_for_says_so(path: Path) -> None:
    (line,) = (
        it
        for it in run_here("prune", path, "--keep-bytes", "1kB").out.decode().splitlines()
        if it.startswith("Too large")
    )
    assert line == "Too large   nothing more may go, and 1.0 kB were asked for"
    assert b"Too large" not in run_here("prune", path, "--keep-bytes", "9MB").out


def test_json_has_the_report(path: Path) -> None:
    dry = run_here("prune", path, "--before", 1001, "--dry-run", "--json")
    done = run_here("prune", path, "--before", 1001, "--json")
    (line,) = done.out.splitlines()
    assert json.loads(line).keys() == PruneReport.model_fields.keys()
    report = PruneReport.model_validate_json(line)
    assert (report.event_count, report.first_position, report.erased) == (1000, 1001, True)
    planned = PruneReport.model_validate_json(dry.out)
    assert planned.sessions_forgotten == report.sessions_forgotten
    assert (planned.dry_run, planned.erased, planned.event_count) == (True, None, 1000)


@pytest.mark.parametrize(
    ("options", "events"),
    [
        (["--before", "2001"], 2000),
        (["--before", "2001-01-01"], 0),
        (["--before", "now"], 5442),
        (["--keep-events", "0"], 5442),
        (["--keep-bytes", "1GB"], 0),
        (["--keep-bytes", "1B"], 5442),
        (["--keep-age", "1000y"], 0),
        (["--keep-age", "1s"], 5442),
    ],
)
def test_every_rule(path: Path, options: list[str], events: int) -> None:
    result = run_here("prune", path, *options, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["event_count"] == events
    assert run_here("events", path, "--limit", 1).code == 0
    check_closed(path)


def test_names_hold_it_back_and_are_given_up(path: Path) -> None:
    rows(path, "INSERT INTO checkpoint VALUES ('the reader', 'subscription', 1, 1500, 1)")
    result = run_here("prune", path, "--keep-events", 0)
    assert "Pruned      1,000 events" in result.out.decode()
    held = "Held back   by the reader: nothing after position 1500 may go yet\n"
    assert held in result.out.decode()
    result = run_here("prune", path, "--keep-events", 0, "--give-up", "the reader")
    assert "Pruned      4,442 events" in result.out.decode()
    assert "Held" not in result.out.decode()


def test_keep_open_and_old_keys(path: Path) -> None:
    rows(path, "INSERT INTO append_key VALUES ('k', 1, 5, 'x', 5)")
    result = run_here(
        *("prune", path, "--keep-events", 0, "--keep-open", "--forget-keys-older-than", "1d")
    )
    assert result.code == 0
    assert "Held back   by " in result.out.decode()
    for option in ((), ("--dry-run",)):
        kept = run_here(
            *("prune", path, "--keep-events", 2000, "--forget-keys-older-than", "5000y", *option)
        )
        assert (kept.code, b" key" in kept.out) == (0, False), kept.err
    kept = run_here("prune", path, "--keep-events", 0, "--forget-keys-older-than", "1d")
    assert ", 1 key\n" in kept.out.decode()


USAGE = {
    (): "expected exactly one of --before, --keep-events, --keep-bytes, --keep-age, --shipped and",
    ("--before", "7", "--keep-events", "7"): "expected exactly one of --before",
    ("--before", "-1"): "'-1' is not a position or a time",
    ("--keep-events", "-1"): "-1 is not in the range x>=0",
    ("--keep-events", "many"): "'many' is not a valid integer",
    ("--keep-bytes", "5 apples"): "'5 apples' is not a size (expected a number and a unit, like",
    ("--keep-bytes", "-5"): "'-5' is not a size",
    ("--keep-age", "5"): "'5' is not a span of time (expected like 30d, '1d 12h' or 90s",
    ("--keep-age", "999999999999y"): "is not a span of time",
    ("--before", "7", "--forget-keys-older-than", ""): "'' is not a span of time",
}


@pytest.mark.parametrize("options", USAGE)
def test_wrong_usage_changes_nothing(path: Path, options: tuple[str, ...]) -> None:
    before = path.read_bytes()
    result = run_here("prune", path, *options)
    assert (result.code, result.out) == (2, b"")
    assert USAGE[options] in result.err
    assert path.read_bytes() == before


def test_what_cannot_be_is_one_sentence_and_changes_nothing(path: Path, tmp_path: Path) -> None:
    missing, other = tmp_path / "none.db", tmp_path / "other.db"
    other.write_bytes(b"x" * 5000)
    with journal.Journal.open(path) as opened:
        opened.append_ndjson(LINES[:1])
    before = path.read_bytes()
    cases = {
        ("prune", missing, "--before", 7): f"{missing}: does not exist",
        ("prune", other, "--before", 7): f"{other}: is not an SQLite database",
        ("prune", path, "--before", 7, "--give-up", "x"): (
            f"{path}: give_up: there is no projection or subscription 'x'"
        ),
        ("prune", path, "--shipped", missing): f"{missing}: does not exist",
        ("prune", path, "--shipped", other): (
            f"{path}: {other}: is not the manifest of a shipped file with events"
        ),
        ("prune", path, "--file", missing): f"{missing}: does not exist",
        ("prune", path, "--file", path): f"{path}: {path}: is not a shipped file with events",
    }
    for arguments, expected in cases.items():
        for option in ((), ("--dry-run",)):
            result = run_here(*arguments, *option)
            assert result == (1, b"", f"Error: {expected}\n"), arguments
    assert path.read_bytes() == before
    assert not missing.exists()


def test_a_closed_copy_is_refused_by_a_dry_run_too(path: Path, tmp_path: Path) -> None:
    with journal.Journal.open(path, read_only=True) as opened:
        copy = opened.ship(tmp_path / "copy.db").path
    for option in ((), ("--dry-run",)):
        result = run_here("prune", copy, "--keep-events", 0, *option)
        assert (result.code, result.out) == (1, b"")
        assert result.err.startswith(f"Error: {copy}: is a closed copy, made by ship: ")
        assert result.err.count("\n") == 1


def prune_as_nobody(_channel: Channel, path: Path, other: Path) -> tuple[Ended, Ended]:
    for option in ((), ("--dry-run",)):  # so that all is loaded by then
        assert run_here("prune", other, "--keep-events", 2000, *option).code == 0
    become_nobody()
    pruned = run_here("prune", path, "--keep-events", 0)
    return pruned, run_here("prune", path, "--keep-events", 0, "--dry-run")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o644, 0o666, 0o600])
def test_what_may_not_be_written_is_one_sentence(made: Path, path: Path, mode: int) -> None:
    """Another user's file; one that may be written, in a folder that may not; and a secret one."""
    with folder_for_everybody() as folder:
        mine = Path(shutil.copy(made, folder / "a.db"))
        mine.chmod(mode)
        before = bytes_in(folder)
        pruned, dry = run(prune_as_nobody, mine, path)
        assert (pruned.code, pruned.out) == (1, b"")
        assert pruned.err.startswith(f"Error: {mine}: ")
        assert "ermission denied" in pruned.err
        assert pruned.err.count("\n") == 1
        assert dry.code == (1 if mode == 0o600 else 0)
        assert bytes_in(folder) == before


def test_sizes_and_spans_as_people_type_them(path: Path) -> None:
    for size in ("1000000000", "1GB", "1 gb", "1.5g", "1000 MiB", "0.9TiB", "999999K"):
        result = run_here("prune", path, "--keep-bytes", size)
        assert result.out.startswith(b"Pruned      nothing\n"), size
    for span in ("900y", "1000000 days", "900y 3months"):
        result = run_here("prune", path, "--keep-age", span)
        assert result.out.startswith(b"Pruned      nothing\n"), span


def test_following_a_file_that_a_cut_overtakes_says_where_to_go_on(path: Path) -> None:
    run_here("prune", path, "--before", 2001)
    result = run_here("events", path, "--after", 7)
    assert result.code == 1
    assert result.err == (
        f"Error: {path}: position 7 is before the first event left, at position 2001\n"
    )
    assert run_here("verify", path, "--full").code == 0
    for command in ("sessions", "streams", "anomalies", "projections", "info"):
        assert run_here(command, path).code == 0, command
    session = json.loads(run_here("sessions", path, "--json", "--last", 1).out)["session_id"]
    assert run_here("session", path, session).code == 0
    assert run_here("rebuild", path, "--check").err.endswith(", nothing differs\n")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_one_who_follows_and_is_overtaken_by_a_cut_is_told_so(path: Path) -> None:
    with journal.Journal.open(path) as opened:
        process = start("events", path, "--follow", "--after", 5441)
        assert process.stdout is not None
        assert process.stdout.readline().decode() == f"{LINES[-1]}\n"
        process.send_signal(signal.SIGSTOP)
        opened.append_ndjson(LINES[:2000])
        opened.prune(before=6443)
        process.send_signal(signal.SIGCONT)
        result = ended(process)
    assert (result.code, result.out) == (1, b"")
    assert result.err == (
        f"Error: {path}: position 5442 is before the first event left, at position 6001\n"
    )


def shipped(path: Path, *, first: int = 1, journal_id: str | None = None) -> dict[str, object]:
    """Return a manifest of all that a journal has now, as shipping writes it."""
    with journal.Journal.open(path, read_only=True) as opened:
        head = opened.info().head
        assert head is not None
        return {
            "file": "a.shipped.db",
            "journal_id": journal_id or str(opened.journal_id),
            "first_position": first,
            "last_position": opened.last_position,
            "digest_before": "0" * 64,
            "head": head,
        }


def test_what_was_shipped_goes_and_nothing_else(path: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "a.manifest.json"
    said = shipped(path)
    manifest.write_text(json.dumps(said), "utf-8")
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    with journal.Journal.open(path) as opened:
        opened.append_ndjson(LINES[:2000])  # the block that was open is sealed, with more in it
    dry = json.loads(run_here("prune", path, "--shipped", manifest, "--dry-run", "--json").out)
    done = json.loads(run_here("prune", path, "--shipped", manifest, "--json").out)
    assert dry["event_count"] == done["event_count"] == 5000
    again = json.loads(run_here("prune", path, "--shipped", manifest, "--json").out)
    assert again["event_count"] == 0

    with journal.Journal.open(copy) as branch:  # a copy that both went on
        branch.append_ndjson(LINES[100:200])
    branched = tmp_path / "branched.json"
    branched.write_text(json.dumps(shipped(copy)), "utf-8")
    refused = {
        "another branch": branched,
        "another journal": said | {"journal_id": "0" * 32},
        "begins at position 5002": said | {"first_position": 5002},
        "redacted": said | {"redacted": True},
        "is not the manifest": said | {"head": "7:x"},
    }
    for sentence, found in refused.items():
        if isinstance(found, dict):
            manifest.write_text(json.dumps(found), "utf-8")
        file = manifest if isinstance(found, dict) else found
        result = run_here("prune", path, "--shipped", file)
        assert (result.code, result.out) == (1, b"")
        assert sentence in result.err
    check_closed(path)


def test_what_shipping_says_is_what_pruning_takes(path: Path, tmp_path: Path) -> None:
    with journal.Journal.open(path) as opened:
        shipment = opened.ship(tmp_path / "shipped.db", manifest=True)
        opened.append_ndjson(LINES[:700])
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    by_manifest = run_here("prune", path, "--shipped", shipment.manifest_path, "--json")
    by_file = run_here("prune", copy, "--file", shipment.path, "--json")
    for result, pruned in ((by_manifest, path), (by_file, copy)):
        assert result.code == 0, result.err
        assert json.loads(result.out)["event_count"] == 5000
        check_closed(pruned)


def test_a_shipped_file_says_it_itself(path: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(path, tmp_path / "shipped.db"))
    rows(file, "INSERT INTO meta VALUES ('closed', 'ship')")
    redacted = Path(shutil.copy(file, tmp_path / "redacted.db"))
    rows(redacted, "UPDATE block SET salt = NULL, redacted_digest = digest WHERE first_seq = 1")
    result = run_here("prune", path, "--file", redacted)
    assert (result.code, "redacted" in result.err) == (1, True)
    result = run_here("prune", path, "--file", file, "--json")
    assert json.loads(result.out)["event_count"] == 5442
    check_closed(path)


def test_an_interrupt_leaves_what_is_done_and_says_so(path: Path) -> None:
    code = (
        "import os, signal\n"
        "from journal import limits\n"
        "from journal.maintenance import pruning\n"
        "limits.FOLD_EVENTS_MAX = 1\n"
        "cut_once = pruning.Pruner.cut_once\n"
        "def cut(self, *a, **k):\n"
        "    if cut.count == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    cut.count += 1\n"
        "    return cut_once(self, *a, **k)\n"
        "cut.count = 0\n"
        "pruning.Pruner.cut_once = cut\n"
        "from journal.commands import cli\n"
        "cli.main(prog_name='journal')\n"
    )
    process = start("prune", path, "--keep-events", 0, program=["-c", code])
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err == b"interrupted: 2,000 events pruned, the rest is left\n"
    check_closed(path)
    with journal.Journal.open(path) as opened:
        assert opened.event_count() == 3442
        assert opened.rebuild(check=True)[0].change_count == 0


def test_help_says_the_rules() -> None:
    text = run_command("prune", "--help").out.decode()
    for option in ("--before POSITION|TIME", "--keep-events N", "--keep-bytes SIZE", "--dry-run"):
        assert option in text
    assert max(map(len, text.splitlines())) <= 80
