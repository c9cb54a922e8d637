"""The `journal` command: what it prints, where, and how it ends."""

import base64
import gzip
import json
import os
import re
import select
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

import click
import pytest
from commands_support import (
    DATA,
    EAGER,
    MIXED,
    NEXT_VERSION,
    ROOT,
    SESSION,
    STREAM,
    THOUSAND,
    activated,
    all_of,
    ended,
    environment,
    give,
    holds,
    make,
    run,
    run_all,
    run_here,
    start,
    start_append,
    started,
    stored,
    until,
)
from support import tried

import journal
from journal.commands import cli
from journal.commands.console.incoming import (
    LINE_BYTES_MAX,
    Incoming,
    LineSplitter,
    TooLong,
    open_input,
)
from journal.commands.console.output import Output, OutputClosed, counted, one_line, size_text
from journal.commands.console.typed_times import epoch_ns_typed
from journal.commands.console.widths import width_of
from journal.events.kinds import KINDS
from journal.file import JournalInfo
from journal.limits import DATA_SIZE_MAX

posix = pytest.mark.skipif(os.name == "nt", reason="signals, terminals and pipes of POSIX")

BAD = b'{"event_type":"session_activated"}\n'
BAD_REASON = "missing field 'session_id'"
UNKNOWN_REASON = "event_type 'backpressure_received' is not a known kind"


@pytest.fixture(scope="module")
def mixed_file(tmp_path_factory):
    lines = MIXED.read_bytes().splitlines()
    return make(tmp_path_factory.mktemp("mixed") / "mixed.db", *lines)


@pytest.fixture
def mixed(mixed_file, tmp_path):
    return Path(shutil.copy(mixed_file, tmp_path / "mixed.db"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tests.db"


# Append, then events


def test_append_then_events_gives_canonical_input_back(tmp_path):
    files = [DATA / "lifecycle" / "events.ndjson", DATA / "kinds.ndjson", MIXED]
    paths = [tmp_path / f"{number}.db" for number in range(3)]
    appended = run_all(
        *(
            ["append", path, file, "--durability", "normal"]
            for path, file in zip(paths, files, strict=True)
        )
    )
    printed = [*(run_here("events", path) for path in paths[:2]), run("events", paths[2])]

    for file, first, second in zip(files, appended, printed, strict=True):
        count = file.read_bytes().count(b"\n")
        assert (first.code, first.out) == (0, b"")
        assert re.fullmatch(
            rf"appended {count:,} events \(positions 1 to {count}\) from [\d.]+ [kM]B "
            rf"in \d+\.\d s \([\d,]+/s\); \d\.db is [\d.]+ kB\n",
            first.err,
        )
        assert second == (0, file.read_bytes(), "")


def test_the_encoding_of_the_locale_does_not_matter(path):
    text = "schlüssel 鍵 \u2028"
    line = (
        activated(1)
        .replace(b"session_activated", b"stream_failed")
        .replace(b',"timestamp"', f',"stream_id":"{STREAM}","error":"{text}","timestamp"'.encode())
    )
    env = environment(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert run("append", path, given=line, env=env).code == 0
    assert run("events", path, env=env) == (0, line, "")


def test_a_last_line_without_an_end_counts_and_blank_ones_are_ignored(path):
    given = b"\n" + activated(1) + b" \r\n" + activated(2)[:-1] + b"\r\n" + activated(3)[:-1]

    assert run("append", path, given=given).code == 0
    assert stored(path) == activated(1) + activated(2) + activated(3)


@pytest.mark.parametrize("given", [b"", b"\n \n"])
def test_input_without_an_event_makes_no_file(path, given):
    result = run("append", path, "-", given=given)

    assert result.code == 0
    assert re.fullmatch(
        r"appended no events from \d bytes in 0\.\d s; tests\.db was not made\n", result.err
    )
    assert list(path.parent.iterdir()) == []


def test_the_summary_tells_of_other_writers_between(path):
    process = start_append(path)
    make(path, activated(2))
    result = ended(process, activated(3))

    assert result.err.startswith(
        "appended 1,001 events (positions 1 to 1002, among those of other writers) from "
    )


# Lines that are no events


def test_stop_says_what_is_in_the_journal_and_what_is_not(path, tmp_path):
    file = tmp_path / "some.ndjson"
    file.write_bytes(activated(1) + activated(2) + BAD + activated(3))
    result = run_here("append", path, file)

    assert result.code == 1
    assert result.err == (
        f"Error: {file}: line 3: {BAD_REASON}; appended 2 events of the lines before it "
        "(positions 1 to 2), and nothing of it or after it "
        "(--on-error skip goes on after such a line)\n"
    )
    assert stored(path) == activated(1) + activated(2)


def test_stop_at_the_first_line(path, tmp_path):
    rejects = tmp_path / "rejects.ndjson"
    result = run("append", path, "--rejects", rejects, given=BAD)

    assert result.code == 1
    assert result.err == (
        f"Error: standard input: line 1: {BAD_REASON}; appended no events of the lines before it, "
        "and nothing of it or after it (--on-error skip goes on after such a line)\n"
    )
    assert json.loads(rejects.read_bytes())["line"] == BAD.decode()[:-1]


@pytest.mark.parametrize(("how", "code"), [("stop", 1), ("skip", 3)])
@pytest.mark.parametrize("given", [BAD, BAD * 1_500, b"\n" + BAD[:-1]])
@pytest.mark.parametrize("before", [None, b""])
def test_nothing_but_bad_lines_makes_no_journal(path, tmp_path, how, code, given, before):
    rejects, file = tmp_path / "rejects.ndjson", tmp_path / "bad.ndjson"
    file.write_bytes(given)
    if before is not None:
        path.write_bytes(before)
    result = run_here("append", path, file, "--on-error", how, "--rejects", rejects)

    assert result.code == code
    rejected = rejects.read_bytes().splitlines()
    assert len(rejected) == (1 if how == "stop" else given.count(b"{"))
    assert json.loads(rejected[0])["line"] == BAD.decode()[:-1]
    if how == "skip":
        assert result.err.endswith("; tests.db was not made\n" if before is None else
                                   "; tests.db is 0 bytes\n")  # fmt: skip
    assert {each.name for each in tmp_path.iterdir()} == {
        *("rejects.ndjson", "bad.ndjson"),
        *([] if before is None else ["tests.db"]),
    }
    assert before is None or path.read_bytes() == before


def test_nothing_but_bad_lines_leaves_a_journal_as_it_is(path):
    before = make(path, activated(1)).read_bytes()
    for how in ("stop", "skip"):
        assert run("append", path, "--on-error", how, given=BAD).code != 0
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_journal_that_another_makes_before_the_first_event_is_appended_to(path):
    process = start("append", path, "--on-error", "skip")
    give(process, BAD)
    assert process.stderr.readline() == f"rejected line 1: {BAD_REASON}\n".encode()
    assert not path.exists()
    make(path, activated(1))
    result = ended(process, activated(2))

    assert result.code == 3
    assert stored(path) == activated(1) + activated(2)


def test_what_another_makes_that_is_no_journal_is_left_alone(path):
    process = start("append", path, "--on-error", "skip")
    give(process, BAD)
    assert process.stderr.readline() == f"rejected line 1: {BAD_REASON}\n".encode()
    path.write_bytes(b"{}\n" * 1000)
    result = ended(process, activated(2))

    reason = "is not an SQLite database; appended no events before that"
    assert (result.code, result.err) == (1, f"Error: {path}: {reason}\n")
    assert path.read_bytes() == b"{}\n" * 1000


# Input in another form


LOOKS = [
    (gzip.compress(activated(1) * 9), "gzip, since it begins with 1f 8b", "gunzip -c"),
    (activated(1).decode().encode("utf-16"), "UTF-16, since it begins with ff fe", "iconv"),
    (b"\xfe\xff" + activated(1).decode().encode("utf-16-be"), "UTF-16, since it begins with fe ff",
     "iconv"),
]  # fmt: skip


@pytest.mark.parametrize("how", ["stop", "skip"])
@pytest.mark.parametrize(("given", "name", "program"), LOOKS, ids=["gzip", "le", "be"])
def test_another_form_is_named_for_what_it_looks_like(path, tmp_path, how, given, name, program):
    file, rejects = tmp_path / "some events", tmp_path / "rejects.ndjson"
    file.write_bytes(given)
    result = run_here("append", path, file, "--on-error", how, "--rejects", rejects)

    assert result.code == 1
    assert result.err.count("\n") == 1
    assert result.err.startswith(
        f"Error: {file}: looks like {name}; nothing was appended (`{program}"
    )
    assert not path.exists()
    assert rejects.read_bytes() == b""

    if how == "stop" and shutil.which(program.partition(" ")[0]):  # what it recommends does it
        bin_folder = str(Path(sys.executable).parent)
        command = result.err.partition("`")[2].partition("`")[0]
        env = environment(PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
        subprocess.run(command, shell=True, check=True, env=env, capture_output=True)  # noqa: S602
        assert stored(path).startswith(activated(1))


def test_another_form_is_named_from_a_pipe_too(path):
    result = run("append", path, given=LOOKS[0][0])

    assert result.code == 1
    assert result.err == (
        "Error: standard input: looks like gzip, since it begins with 1f 8b; nothing was appended "
        f"(`gunzip -c | journal append {path}` does)\n"
    )
    assert list(path.parent.iterdir()) == []


def test_only_the_beginning_is_another_form(path):
    given = activated(1) + LOOKS[0][0] + b"\n" + activated(2)
    assert run("append", path, "--on-error", "skip", given=given).code == 3
    assert stored(path) == activated(1) + activated(2)


def test_a_byte_order_mark_is_rejected_by_its_name_as_the_reference_rejects_it(path, tmp_path):
    wire = [json.loads(line) for line in (DATA / "wire.ndjson").read_bytes().splitlines()]
    (marked,) = [case for case in wire if case["input"].startswith("\ufeff")]
    assert "error" in marked
    file = tmp_path / "some.ndjson"
    file.write_bytes(marked["input"].encode() + b"\n" + activated(1))
    reason = "begins with a byte order mark of UTF-8 (ef bb bf), which JSON has none of"

    stopped = run_here("append", path, file)
    assert stopped.code == 1
    assert stopped.err == (
        f"Error: {file}: line 1: {reason}; appended no events of the lines before it, and nothing "
        f"of it or after it (`tail -c +4 {file} | journal append {path}` leaves it out)\n"
    )
    assert not path.exists()
    skipped = run("append", path, file, "--on-error", "skip")
    assert skipped.err.startswith(f"rejected line 1: {reason}\nappended 1 event (position 1), ")
    assert (skipped.code, stored(path)) == (3, activated(1))


def test_unknown_kinds_are_rejected_or_kept(path):
    result = run_here("append", path, NEXT_VERSION)
    assert result.code == 1
    assert result.err == (
        f"Error: {NEXT_VERSION}: line 1: {UNKNOWN_REASON}; appended no events of the lines "
        "before it, and nothing of it or after it (--unknown keep appends such events, "
        "--on-error skip leaves them out)\n"
    )

    given = activated(1) + NEXT_VERSION.read_bytes() + activated(2)
    assert run("append", path, "--unknown", "keep", given=given).code == 0
    everything = run("events", path)
    by_type = run_here("events", path, "--type", "backpressure_received")
    as_json = run_here("events", path, "--type", "backpressure_received", "--json")
    assert everything == (0, given, "")
    assert by_type == (0, NEXT_VERSION.read_bytes(), "")
    assert as_json.out == b'{"position":2,"event":' + NEXT_VERSION.read_bytes()[:-1] + b"}\n"


def test_skip_reports_and_keeps_every_rejected_line(path, tmp_path):
    rejects = tmp_path / "rejects.ndjson"
    rejects.write_bytes(b'{"from":"an earlier run"}\n{"line_number":1,"rea')  # killed in between
    bad = [BAD, b'{"error":"\xff\xfe"}\n', b"\x1b[31mno \xc3\xa9vent\n"]
    given = activated(1) + bad[0] + bad[1] + activated(2) + bad[2] + activated(3)
    result = run("append", path, "--on-error", "skip", "--rejects", rejects, given=given)

    assert result.code == 3
    *told, summary = result.err.splitlines()
    assert told == [
        f"rejected line 2: {BAD_REASON}",
        "rejected line 3: not UTF-8: byte 0xff at byte 11",
        "rejected line 5: not JSON: expecting value at character 1",
    ]
    assert summary.startswith("appended 3 events (positions 1 to 3), rejected 3 lines, from ")
    assert stored(path) == activated(1) + activated(2) + activated(3)

    earlier, broken, first, second, third = rejects.read_bytes().splitlines()
    assert (earlier, broken) == (b'{"from":"an earlier run"}', b'{"line_number":1,"rea')
    assert json.loads(first) == {
        "line_number": 2,
        "reason": BAD_REASON,
        "line": BAD.decode()[:-1],
    }
    assert json.loads(second) == {
        "line_number": 3,
        "reason": "not UTF-8: byte 0xff at byte 11",
        "line_base64": base64.b64encode(bad[1][:-1]).decode(),
    }
    assert json.loads(third)["line"] == "\x1b[31mno évent"


def test_after_ten_rejected_lines_the_others_are_counted(path):
    result = run("append", path, "--on-error", "skip", given=activated(1) + BAD * 1_200)

    assert result.code == 3
    *told, more, summary = result.err.splitlines()
    assert told == [f"rejected line {number}: {BAD_REASON}" for number in range(2, 12)]
    assert more == "more lines were rejected, from here on they are only counted"
    assert summary.startswith("appended 1 event (position 1), rejected 1,200 lines, from 42 kB in")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_reject_that_cannot_be_kept_is_an_error(path, tmp_path):
    file = tmp_path / "some.ndjson"
    file.write_bytes(activated(1) + BAD + activated(2))
    result = run_here("append", path, file, "--on-error", "skip", "--rejects", "/dev/full")

    assert result.code == 1
    assert result.err == (
        "Error: /dev/full: no space left on device; appended 1 event (position 1) before that\n"
    )
    assert stored(path) == activated(1)


def test_a_line_that_is_too_long_is_rejected_and_not_held(path, tmp_path):
    rejects = tmp_path / "rejects.ndjson"
    process = start("append", path, "--on-error", "skip", "--rejects", rejects)
    process.stdin.write(activated(1))
    for _ in range(65):
        process.stdin.write(b"x" * 1024 * 1024)
    result = ended(process, b"\n" + activated(2))

    assert result.code == 3
    assert result.err.splitlines()[0] == "rejected line 2: too long: more than 67108864 bytes"
    assert stored(path) == activated(1) + activated(2)
    assert json.loads(rejects.read_bytes()) == {
        "line_number": 2,
        "reason": "too long: more than 67108864 bytes; only its first 65536 are kept here",
        "truncated": True,
        "line": "x" * 65_536,
    }


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_line_without_end_stops_the_reading(path):
    result = run_here("append", path, "/dev/zero")

    assert result.code == 1
    assert result.err.startswith("Error: /dev/zero: line 1: too long: more than 67108864 bytes;")


def test_lines_are_cut_alike_whatever_the_chunks():
    data = b"one\n\ntwo\r\n" + b"x" * 9 + b"\n" + b"y" * 8 + b"\n" + b"z" * 30 + b"\nlast"
    expected = [b"one", b"", b"two\r", TooLong(b"x" * 9), b"y" * 8, TooLong(b"z" * 9), b"last"]
    for size in range(1, len(data) + 1):
        splitter = LineSplitter(line_bytes_max=8)
        found = []
        for at in range(0, len(data), size):
            found += splitter.feed(data[at : at + size])
        found += splitter.finish()
        assert found[5].start.startswith(b"z" * 9)  # how much of it depends on the chunks
        found[5] = TooLong(b"z" * 9)
        assert expected == found, size
        assert splitter.held_bytes == 0
        assert list(splitter.finish()) == []


def test_the_longest_line_is_the_longest_event_of_the_library():
    assert LINE_BYTES_MAX == DATA_SIZE_MAX


# Producers that wait, and interruptions


def test_a_producer_that_falls_silent_is_committed(path):
    process = start("append", path)
    give(process, activated(1) + activated(2) + activated(3)[:20])
    until(holds(path, 2))
    result = ended(process, activated(3)[20:])

    assert result.code == 0
    assert stored(path) == activated(1) + activated(2) + activated(3)


def test_what_was_read_before_an_interruption_is_still_given():
    read_end, write_end = os.pipe()
    incoming = Incoming(FileIO(read_end))
    interrupted = threading.Event()
    chunks = incoming.chunks(interrupted)
    os.write(write_end, b"one")
    assert next(chunks) == b"one"
    os.write(write_end, b"two")
    until(lambda: not incoming._queue.empty())
    interrupted.set()

    assert list(chunks) == [b"two"]
    assert not incoming.ended
    os.close(write_end)
    incoming._thread.join(60)
    assert incoming.stream.closed


def test_the_thread_ends_when_the_rest_of_a_file_is_not_wanted(tmp_path):
    file = tmp_path / "large"
    file.write_bytes(bytes(32 * 1024 * 1024))
    incoming = Incoming(open_input(str(file)))
    next(incoming.chunks(threading.Event()))
    until(incoming._queue.full)
    incoming.close()
    incoming._thread.join(60)

    assert incoming.stream.closed


@posix
def test_an_interruption_of_a_large_file_leaves_whole_batches(path, tmp_path):
    file = tmp_path / "endless.ndjson"
    os.mkfifo(file)
    lines = MIXED.read_bytes()

    def write():
        with suppress(BrokenPipeError), file.open("wb") as pipe:
            while True:
                pipe.write(lines)

    writer = threading.Thread(target=write)
    writer.start()
    process = start("append", path, file, "--durability", "normal")
    until(holds(path, at_least=1))
    process.send_signal(signal.SIGINT)
    result = ended(process)
    writer.join()

    assert result.code == 130
    found = stored(path)
    count = found.count(b"\n")
    assert count > 0
    assert (lines * (len(found) // len(lines) + 1)).startswith(found)
    assert result.err.startswith(f"interrupted: appended {count:,} events (positions 1 to {count})")


# Events


def test_each_filter_and_all_of_them(mixed):
    lines = MIXED.read_bytes().splitlines(keepends=True)
    parsed = [json.loads(line) for line in lines]
    session, stream = parsed[2]["session_id"], parsed[2]["stream_id"]
    since = parsed[3000]["timestamp"]

    def those(keep):
        return b"".join(line for line, event in zip(lines, parsed, strict=True) if keep(event))

    by_all = run("events", mixed, "--session", session, "--after", 9, "--type", "stream_started")
    by_session = run_here("events", mixed, "--session", session.upper())
    by_stream = run_here("events", mixed, "--stream", stream)
    by_since = run_here("events", mixed, "--since", since)
    by_types = run_here("events", mixed, "--type", "stream_failed", "--type", "session_closed")
    some = run_here("events", mixed, "--after", 5000, "--limit", 2)
    none = run_here("events", mixed, "--after", 2**70, "--limit", 0, "--session", SESSION)

    assert by_session == (0, those(lambda event: event["session_id"] == session), "")
    assert by_stream.out == those(lambda event: event.get("stream_id") == stream)
    later = journal.Timestamp.parse(since)
    assert by_since.out == those(lambda event: journal.Timestamp.parse(event["timestamp"]) > later)
    assert by_types.out == those(
        lambda event: event["event_type"] in ("stream_failed", "session_closed")
    )
    assert by_all.out == b"".join(
        line
        for line, event in zip(lines[9:], parsed[9:], strict=True)
        if event["session_id"] == session and event["event_type"] == "stream_started"
    )
    assert some.out == b"".join(lines[5000:5002])
    assert none == (0, b"", "")


def test_limit_counts_what_is_printed(mixed):
    result = run_here("events", mixed, "--type", "stream_failed", "--limit", 2, "--json")

    positions = [json.loads(line)["position"] for line in result.out.splitlines()]
    lines = MIXED.read_bytes().splitlines()
    failed = [i for i, line in enumerate(lines, 1) if b'"stream_failed"' in line]
    assert positions == failed[:2]
    assert result.out.splitlines()[0] == b'{"position":%d,"event":%s}' % (
        failed[0],
        lines[failed[0] - 1],
    )


def test_a_misspelt_kind_is_wrong_usage(mixed):
    misspelt = run_here("events", mixed, "--type", "stream_started", "--type", "stream_faild")
    strange = run_here("events", mixed, "--type", "\x1bqwx" + "y" * 500)
    shouted = run_here("events", mixed, "--type", "STREAM_FAILED")

    for result in (misspelt, strange, shouted):
        assert (result.code, result.out) == (2, b"")
        assert "Invalid value for '--type'" in result.err
    assert misspelt.err.endswith(
        ": stream_faild is neither a known kind nor one in mixed.db, did you mean stream_failed?\n"
    )
    assert "did you mean stream_failed?\n" in shouted.err
    assert "\\x1bqwxyyy" in strange.err
    assert "`journal kinds` lists the known" in strange.err
    assert len(strange.err) < 600


def test_a_kind_that_the_file_has_is_none(path):
    kept = {**json.loads(activated(1)), "event_type": "light_switched"}
    with journal.Journal.open(path) as opened:
        opened.append_ndjson([json.dumps(kept)], unknown="keep")

    assert len(run_here("events", path, "--type", "light_switched").out.splitlines()) == 1
    assert run_here("events", path, "--type", "stream_failed") == (0, b"", "")
    assert "did you mean light_switched?" in run_here("events", path, "--type", "light_switch").err


# Times


NOW = "2026-03-10T15:30:45.123456789Z"


def test_times_are_typed_as_for_journalctl_and_are_utc():
    expected = {
        "now": NOW,
        "2h": "2026-03-10T13:30:45.123456789Z",
        "-2h": "2026-03-10T13:30:45.123456789Z",
        "2 hours ago": "2026-03-10T13:30:45.123456789Z",
        "+90s": "2026-03-10T15:32:15.123456789Z",
        "1d 12h": "2026-03-09T03:30:45.123456789Z",
        "1.5min": "2026-03-10T15:29:15.123456789Z",
        "5m": "2026-03-10T15:25:45.123456789Z",
        "1M": "2026-02-08T05:00:45.123456789Z",
        "2w": "2026-02-24T15:30:45.123456789Z",
        "500us": "2026-03-10T15:30:45.122956789Z",
        "2026-01-31": "2026-01-31T00:00:00Z",
        " 2026-1-3 ": "2026-01-03T00:00:00Z",
        "2026-01-31 12:00": "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:59": "2026-01-31T12:00:59Z",
        "2026-01-31 12:00:00.123456789": "2026-01-31T12:00:00.123456789Z",
        "2026-01-31 12:00 UTC": "2026-01-31T12:00:00Z",
        "09:05": "2026-03-10T09:05:00Z",
        "today": "2026-03-10T00:00:00Z",
        "Yesterday": "2026-03-09T00:00:00Z",
        "yesterday 14:30": "2026-03-09T14:30:00Z",
        "tomorrow": "2026-03-11T00:00:00Z",
        "@0": "1970-01-01T00:00:00Z",
        "@1395716396.5": "2014-03-25T02:59:56.500Z",
    }
    now_ns = journal.Timestamp.parse(NOW).epoch_ns
    found = {
        text: journal.Timestamp.from_epoch_ns(epoch_ns_typed(text, now_ns)).rfc3339()
        for text in expected
    }
    assert found == expected

    wrong = ["", "2", "h", "2x", "2h 3", "--2h", "monday", "12", "12:0", "24:00", "2026", "2026-01"]
    wrong += ["2026-02-30", "2026-01-31 12:00 +01:00", "now 2h", "ago", "+", "-", "1e3s", "\u0661h"]
    for text in wrong:
        with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
            epoch_ns_typed(text, now_ns)


def test_since_is_strictly_later_and_until_is_not_later(path):
    at = [f"2026-01-01T00:00:00.{digits}Z" for digits in ("000000001", "000000002", "000000003")]
    start = "2026-01-01T00:00:00Z"
    lines = [activated(0).replace(start.encode(), one.encode()) for one in (at[1], at[2], at[0])]
    make(path, *lines)

    def found(*options):
        texts = lines_of_events(path, *options)
        return [at.index(json.loads(text)["timestamp"]) for text in texts]

    assert found() == [1, 2, 0]
    for place, moment in enumerate(at):
        assert found("--since", moment) == [one for one in (1, 2, 0) if one > place]
        assert found("--until", moment) == [one for one in (1, 2, 0) if one <= place]
        assert found("--since", moment, "--until", at[2]) == [
            one for one in (1, 2, 0) if place < one
        ]
    assert found("--until", at[1], "--limit", 1) == [1]
    assert found("--until", "2026-01-01") == []
    assert found("--since", "2026-01-01", "--until", "2026-01-02 00:00") == [1, 2, 0]
    assert found("--since", "2026-01-01 01:00:00.000000002+01:00") == [2]
    assert found("--since", at[0], "--until", at[0]) == []


def lines_of_events(path, *options):
    result = run_here("events", path, *options)
    assert (result.code, result.err) == (0, "")
    return result.out.splitlines()


def test_times_before_now_are_taken_as_such(path):
    now = time.time_ns()
    moments = [journal.Timestamp.from_epoch_ns(now - ago * 10**9) for ago in (7200, 60, -7200)]
    texts = [moment.rfc3339().encode() for moment in moments]
    make(path, *(activated(0).replace(b"2026-01-01T00:00:00Z", text) for text in texts))

    assert len(lines_of_events(path, "--since", "1h")) == 2
    assert len(lines_of_events(path, "--since", "-1h", "--until", "now")) == 1
    assert len(lines_of_events(path, "--since", "yesterday")) == 3
    assert len(lines_of_events(path, "--until", "3h ago")) == 0
    assert len(lines_of_events(path, "--until", "+1d")) == 3
    counts = {"1h": 1, "yesterday": 0, "+1d": 1}
    for as_of, count in counts.items():
        rows = run_here("sessions", path, "--as-of", as_of, "--json").out.splitlines()
        assert len(rows) == count


@posix
def test_until_holds_for_what_follows(path):
    make(path, activated(1), activated(9))
    process = start("events", path, "--follow", "--until", "2026-01-01T00:00:03Z", "--limit", 2)
    assert process.stdout.readline() == activated(1)
    make(path, activated(5), activated(3))

    assert ended(process) == (0, activated(3), "")


def test_a_reader_that_has_seen_enough_is_no_error(mixed):
    for process in [start("events", mixed), start("events", mixed, "--follow", "--json")]:
        assert process.stdout.readline()
        process.stdout.close()

        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


@posix
def test_follow_notices_that_nobody_reads_while_nothing_comes(path):
    make(path, activated(1))
    process = start("events", path, "--follow")
    assert process.stdout.readline() == activated(1)
    process.stdout.close()

    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""


@posix
def test_follow_sees_what_another_process_appends(path):
    other = "53ecf930-2466-4163-80da-791106474b88"
    make(path, activated(1), activated(2, other))
    process = start(
        "events", path, "--follow", "--session", SESSION, "--since", "2026-01-01T00:00:00Z"
    )
    assert process.stdout.readline() == activated(1)
    assert run("append", path, given=activated(3, other) + activated(0) + activated(4)).code == 0
    assert process.stdout.readline() == activated(4)
    make(path, activated(5))
    assert process.stdout.readline() == activated(5)
    process.send_signal(signal.SIGINT)

    assert ended(process) == (130, b"", "")


@posix
def test_a_reader_that_went_away_is_seen_as_macos_tells_it(monkeypatch):
    """It tells of it only where something is asked for."""

    class Poll:
        def register(self, _descriptor, asked):
            self._asked = asked

        def poll(self, _milliseconds):
            return [(1, self._asked | select.POLLHUP)] if self._asked else []

    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb"), os.fdopen(write_end, "w") as writer:
        monkeypatch.setattr(sys, "stdout", writer)
        output = Output()
        output.wait(0)
        monkeypatch.setattr(select, "poll", Poll, raising=False)
        with pytest.raises(OutputClosed):
            output.wait(0)


def test_the_first_line_is_written_at_once_and_the_others_together(monkeypatch):
    """What is looked for in a large file may be far between."""
    now, written = 0.0, []
    monkeypatch.setattr("journal.commands.console.output.time.monotonic", lambda: now + 1_000.0)
    monkeypatch.setattr(
        "journal.commands.console.output.write_all", lambda _, data: written.append(data)
    )
    output = Output()
    for text in ("a", "b", "c"):
        output.line(text)
    assert written == [b"a\n"]
    now = 0.2
    output.line("d")
    output.line("e")
    assert written == [b"a\n", b"b\nc\nd\n"]
    output.line("f" * 70_000)
    assert len(written) == 3
    output.line("g")
    output.flush()
    assert written[3:] == [b"g\n"]


def test_follow_shows_what_fits_and_no_more(path):
    """Each look asks the file for what fits, not for everything to choose from."""
    session = "67e55044-10b1-426f-9247-bb680e5fe0c9"
    make(path, activated(0), activated(1, session))
    process = start("events", path, "--follow", "--session", session, "--limit", 3)
    assert process.stdout.readline() == activated(1, session)
    for second in range(2, 6):
        make(path, activated(second, SESSION if second % 2 else session))
    result = ended(process)
    assert result.code == 0
    assert result.out == activated(2, session) + activated(4, session)


def test_follow_ends_at_its_limit(path):
    make(path, activated(1))
    process = start("events", path, "--follow", "--limit", 2, "--json", "--type", "stream_started",
                    "--type", "session_activated")  # fmt: skip
    assert json.loads(process.stdout.readline())["position"] == 1
    make(path, activated(2), activated(3))

    result = ended(process)
    assert (result.code, result.err) == (0, "")
    assert result.out == b'{"position":2,"event":' + activated(2)[:-1] + b"}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_an_error(mixed):
    with Path("/dev/full").open("wb") as full:
        result = run("events", mixed, stdout=full)

    assert result.code == 1
    assert re.fullmatch(r"Error: .*no space left on device\n", result.err)


# Kinds


def test_kinds_for_people_and_programs():
    result = run("kinds")
    page = result.out.decode()
    rows = [json.loads(line) for line in run_here("kinds", "--json").out.splitlines()]

    assert (result.code, result.err) == (0, "")
    assert page.rstrip("\n") in journal.events.__doc__
    assert max(map(len, page.splitlines())) <= 80
    assert [row["event_type"] for row in rows] == list(KINDS)
    for row, line in zip(rows, kinds_lines(), strict=True):
        assert list(row) == ["event_type", "about", "fields"]
        assert dict.fromkeys(field["name"].split(".")[0] for field in row["fields"]) == (
            dict.fromkeys(json.loads(line))
        )
    timed_out = rows[3]["fields"]
    assert timed_out[2:4] == [
        {"name": "original_state", "type": "SessionState", "unit": None, "nullable": False},
        {"name": "timeout_duration", "type": "u64", "unit": "seconds", "nullable": False},
    ]
    assert run_here("kinds", "x.db").code == 2


def kinds_lines():
    """Return a line for each kind, in the order of the table."""
    lines = (DATA / "kinds.ndjson").read_bytes().splitlines()
    by_kind = {json.loads(line)["event_type"]: line for line in lines}
    return [by_kind[kind] for kind in KINDS]


# Info


def test_info_for_people(mixed):
    result = run("info", mixed)

    assert (result.code, result.err) == (0, "")
    lines = result.out.decode().splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines[:10])
    assert list(facts) == [
        *("Events", "Timestamps", "Sessions", "Streams", "Size", "File", "Journal", "Created"),
        *("Format", "Head"),
    ]
    assert facts["File"] == str(mixed)
    assert facts["Events"] == "5,442, positions 1 to 5442"
    assert facts["Sessions"] == "300"
    assert facts["Timestamps"] == "2026-11-23T08:49:55.508499256Z to 2026-11-23T08:49:55.529994448Z"
    assert re.fullmatch(r"\d+ kB", facts["Size"])
    assert re.fullmatch(r"20\S+Z by journal \S+", facts["Created"])
    assert facts["Format"] == "1, 5 sealed blocks"
    assert re.fullmatch(r"5442:[0-9a-f]{64}", facts["Head"])
    assert lines[10:13] == ["", "Events by kind", "  patch_frames_generated        1,280"]
    assert len(lines) == 12 + 13


@posix
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50), (60, 20), (120, 13)])
def test_info_fits_the_screen(path, columns, rows):
    kinds = (DATA / "kinds.ndjson").read_bytes().splitlines()
    kept = {**json.loads(activated(1)), "event_type": "界" * 300}
    with journal.Journal.open(path, label="pump 7") as opened:
        opened.append_ndjson(kinds)
        opened.append_ndjson([json.dumps(kept)], unknown="keep")
    os.environ.update(COLUMNS=str(columns), LINES=str(rows))
    try:
        seen = on_terminal("info", path)
    finally:
        del os.environ["COLUMNS"], os.environ["LINES"]

    lines = seen.splitlines()
    height = sum(-(-width_of(line) // columns) or 1 for line in lines)
    assert height < rows or rows == 13  # which has no room for all that is more important
    assert lines[0] == "Label       pump 7"
    kinds_shown = sum(seen.count(f" {kind} ") for kind in KINDS)
    left_out = re.search(r"Events by kind \(without the (\d+) rarest; a pipe gets all\)", seen)
    assert kinds_shown + seen.count("界…") + (int(left_out[1]) if left_out else 0) == 17
    assert (left_out is None) == (rows in (24, 50))


@posix
def test_info_fits_the_screen_with_a_long_path_and_every_known_kind(tmp_path, monkeypatch):
    name = "a.db"
    folder = tmp_path / ("x" * (150 - len(str(tmp_path / "x" / name)) + 1))
    folder.mkdir()
    path = make(folder / name, *(DATA / "kinds.ndjson").read_bytes().splitlines(), label="pump 7")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")

    seen = on_terminal("info", path)

    assert len(str(path)) == 150
    assert sum(-(-width_of(line) // 80) or 1 for line in seen.splitlines()) < 24
    assert [kind for kind in KINDS if f" {kind} " not in seen] == []
    assert "without" not in seen


def on_terminal(*arguments):
    """Return what a command writes to a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start(*arguments, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = all_of(ours).decode().replace("\r\n", "\n")
    assert ended(process).code == 0
    return seen


def test_info_for_programs(mixed):
    result = run_here("info", mixed, "--json")

    assert result.out.count(b"\n") == 1
    found = json.loads(result.out)
    assert list(found) == list(JournalInfo.model_fields)
    assert found["event_count"] == found["last_position"] == 5_442
    assert found["last_timestamp"] == "2026-11-23T08:49:55.529994448Z"
    assert found["counts_by_kind"]["stream_created"] == 966
    assert found["file_bytes"] == mixed.stat().st_size


def test_info_of_an_empty_journal(path):
    result = run_here("info", make(path))

    assert result.code == 0
    assert result.out.startswith(b"Events      none\nTimestamps  none\nSessions    0\n")
    assert b"Format      1, no sealed blocks\n" in result.out
    assert b"kind" not in result.out


# Failures


def _not_a_database(path):
    path.write_bytes(b"{}\n" * 1000)
    return "is not an SQLite database"


def _of_something_else(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    return "is an SQLite database, but not a journal"


def _directory(path):
    path.mkdir()
    return "is a directory, not a journal"


def _newer(path):
    make(path)
    newer = sqlite3.connect(path)
    newer.execute("UPDATE meta SET value = '99' WHERE key = 'min_reader_version'")
    newer.execute("PRAGMA user_version = 99")
    newer.commit()
    newer.close()
    return "has format 99, this version of journal reads up to 1: upgrade it"


def test_what_is_no_journal_is_left_alone(tmp_path):
    paths = [tmp_path / f"{number}.db" for number in range(4)]
    makers = [_not_a_database, _of_something_else, _directory, _newer]
    reasons = [maker(path) for maker, path in zip(makers, paths, strict=True)]
    before = [path.is_file() and path.read_bytes() for path in paths]
    results = run_all(*(["append", path] for path in paths), stdin=subprocess.DEVNULL)
    for path, reason, result in zip(paths, reasons, results, strict=True):
        expected = (1, b"", f"Error: {path}: {reason}\n")
        assert result == expected
        assert run_here("events", path) == expected
        assert run_here("info", path, "--json") == expected
    assert before == [path.is_file() and path.read_bytes() for path in paths]


def test_reading_creates_nothing(tmp_path, path):
    for result in (
        run("events", path, "--follow"),
        run_here("events", path),
        run_here("info", path),
    ):
        assert result == (1, b"", f"Error: {path}: does not exist\n")
    assert list(tmp_path.iterdir()) == []


@posix
def test_append_creates_nothing_when_its_files_cannot_be_opened(tmp_path, path):
    (tmp_path / "secret").touch(mode=0)
    missing = run("append", path, tmp_path / "missing")
    folder = run_here("append", path, tmp_path)
    rejects = run_here("append", path, MIXED, "--rejects", tmp_path)
    no_folder = run_here("append", tmp_path / "no" / "tests.db", MIXED)

    assert missing == (1, b"", f"Error: {tmp_path / 'missing'}: no such file or directory\n")
    assert folder == (1, b"", f"Error: {tmp_path}: is a directory\n")
    assert rejects == (1, b"", f"Error: {tmp_path}: is a directory\n")
    assert no_folder == (1, b"", f"Error: {tmp_path}/no/tests.db: its folder does not exist\n")
    if os.geteuid():
        result = run_here("append", path, tmp_path / "secret")
        assert result == (1, b"", f"Error: {tmp_path / 'secret'}: permission denied\n")
    assert [found.name for found in tmp_path.iterdir()] == ["secret"]


def test_a_failure_in_the_middle_says_what_is_in(path):
    process = start_append(path)
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")  # as if a newer version had migrated the file
    other.close()
    result = ended(process, activated(2))

    assert result.code == 1
    assert result.err.endswith(
        ": upgrade it; appended 1,000 events (positions 1 to 1000) before that\n"
    )


def test_wrong_usage_says_what_was_expected(path, tmp_path):
    file = tmp_path / "some.ndjson"
    file.write_bytes(activated(1))
    (tmp_path / "sub").mkdir()
    cases = {
        ("events", path, "--session", "x"): "'--session': 'x' is not a session's id (expected 32 ",
        (
            "events",
            path,
            "--stream",
            "\x1b",
        ): "'--stream': '\\x1b' is not a stream's id (expected 32 ",
        (
            "events",
            path,
            "--since",
            "2026-13-01",
        ): "'2026-13-01' is not a time (expected RFC 3339, like",
        ("events", path, "--until", "2026-01-01T00:00:60Z"): "'2026-01-01T00:00:60Z' is not a time",
        ("events", path, "--since", "9" * 5_000): f"'{'9' * 60}...' is not a time",
        ("events", path, "--session", "x" * 5_000): f"'{'x' * 60}...' is not a session's id",
        ("events", path, "--after", "-1"): "'--after': -1 is not in the range x>=0",
        ("events", path, "--type", ""): "expected a kind of event, one of session_activated, ",
        ("append", path, file, "--on-error", "go"): "'go' is not one of 'stop', 'skip'",
        ("append", path, file, "--rejects", path): "belongs to the journal, it cannot take",
        ("append", path, file, "--rejects", f"{path}-wal"): "belongs to the journal",
        (
            "append",
            path,
            file,
            "--rejects",
            tmp_path / "sub" / ".." / path.name,
        ): "belongs to the journal, it cannot take",
        ("append", path, file, "--rejects", file): "is what is read, it cannot take --rejects",
        ("append", path, path): "is the journal itself, it cannot be FILE",
        ("append",): "Missing argument 'JOURNAL'",
        ("events", path, "--bogus"): "No such option",
        ("bogus",): "No such command 'bogus'",
    }
    for arguments, expected in cases.items():
        result = run_here(*arguments)
        assert result.code == 2, arguments
        assert expected in result.err.replace("\n", " "), arguments
        assert result.out == b""
    assert sorted(tmp_path.iterdir()) == [file, tmp_path / "sub"]
    assert run("events", path, "--session", "x").code == 2


def test_the_journal_is_known_by_what_is_there_where_names_do_not_tell(path, tmp_path, monkeypatch):
    """As where upper and lower case are the same."""
    file = tmp_path / "some.ndjson"
    file.write_bytes(activated(1))
    (tmp_path / "sub").mkdir()
    monkeypatch.setattr(os.path, "realpath", str)
    for suffix in ("", "-wal"):
        other_name = tmp_path / "sub" / ".." / f"{path.name}{suffix}"
        result = run_here("append", path, file, "--rejects", other_name)

        assert result.code == 2
        assert "belongs to the journal, it cannot take --rejects" in result.err.replace("\n", " ")
        assert other_name.read_bytes() == b""


def test_debug_shows_the_traceback(path):
    process = start("--debug", "info", path)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (1, b"")
    assert b"Traceback" in err
    assert err.endswith(f"\nError: {path}: does not exist\n".encode())


def test_a_mistake_in_the_program_is_one_line_too(monkeypatch, path):
    def broken(*_arguments, **_options):
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(journal.Journal, "open", broken)
    code, out, err = run_here("info", path)
    assert (code, out) == (1, b"")
    assert err == (
        "Error: unexpected ZeroDivisionError: oh\\nno (a mistake in journal itself; --debug before "
        "the command's name shows where)\n"
    )


@posix
def test_nobody_listening_to_standard_error_stops_nothing(path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = run(
        "append", path, "--on-error", "skip", given=BAD * 2 + activated(1), stderr=write_end
    )
    os.close(write_end)

    assert result.code == 3
    assert stored(path) == activated(1)


@posix
def test_closed_standard_streams(path):
    make(path, activated(1))

    def closing(stream, *arguments):
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'"$@" {stream}', "sh", sys.executable, "-m", "journal", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        return ended(process)

    assert closing("<&-", "append", path) == (1, b"", "Error: standard input: closed\n")
    assert closing(">&-", "events", path) == (1, b"", "Error: standard output: closed\n")
    assert closing("2>&-", "append", path) == (0, b"", "")
    assert closing("<&- 2>&-", "events", path) == (0, activated(1), "")


# On a terminal


@posix
def test_a_large_file_shows_its_progress_on_a_terminal(path, tmp_path):
    pty = pytest.importorskip("pty")

    file = tmp_path / "large.ndjson"
    file.write_bytes(BAD + MIXED.read_bytes() * 9)
    ours, theirs = pty.openpty()
    process = start(
        *("append", path, file, "--durability", "normal", "--on-error", "skip"),
        stderr=theirs,
        program=EAGER,
    )
    os.close(theirs)
    seen = all_of(ours)
    assert ended(process).code == 3

    assert re.search(rb"\r\[#+ *\] \d+ %, [\d,]+ events, [\d,]+ events/s, \d+ s left", seen)
    screen = [line.rpartition(b"\r")[2] for line in seen.replace(b"\r\n", b"\n").split(b"\n")]
    assert screen[0] == f"rejected line 1: {BAD_REASON}".encode()
    assert screen[1].startswith(b"appended 48,978 events (positions 1 to 48978), rejected 1 line,")
    assert screen[2:] == [b""]


@posix
def test_a_pipe_shows_how_many_and_how_fast_on_a_terminal(path):
    pty = pytest.importorskip("pty")

    ours, theirs = pty.openpty()
    process = start("append", path, stderr=theirs, program=EAGER)
    os.close(theirs)
    give(process, THOUSAND * 3)
    until(holds(path, 3_000))
    process.stdin.close()
    seen = all_of(ours)
    process.wait(timeout=60)

    assert re.search(rb"\r\d[\d,]* events, [\d,]+ events/s", seen)
    assert b"left" not in seen
    assert b"%" not in seen
    assert seen.rpartition(b"\r")[2] == b"\n"
    assert seen.split(b"\r")[-2].startswith(b"appended 3,000 events")


@posix
def test_append_reads_from_a_terminal(path):
    pty = pytest.importorskip("pty")

    ours, theirs = pty.openpty()
    process = start("append", path, stdin=theirs)
    os.close(theirs)
    os.write(ours, activated(1))
    until(holds(path, 1))
    os.write(ours, b"\x04")
    result = ended(process)
    os.close(ours)

    assert result.code == 0
    assert result.err.startswith("reading events from the terminal, one per line, until its end")
    assert stored(path) == activated(1)


# Help, completion, start


@pytest.mark.parametrize("command", [cli, *cli.commands.values()], ids=lambda command: command.name)
def test_help_has_a_summary_and_examples_that_can_be_pasted(command):
    arguments = [] if command is cli else [command.name]
    text = run_here(*arguments, "--help").out.decode()
    examples = text.partition("  Example:\n")[2].partition("\n\n")[0].splitlines()

    assert len(text.splitlines()) < 60
    assert all(len(line) <= 80 for line in text.splitlines() if "130" not in line)
    assert examples
    for example in examples:
        name, *arguments = shlex.split(example.rpartition("journal ")[2].partition(" > ")[0])
        cli.commands[name].make_context(name, arguments)
    if command is not cli:
        assert command.short_help
        assert command.short_help.endswith(".")
        assert len(command.short_help) < 60


@pytest.mark.parametrize("name", ["append", "events"])
def test_help_says_the_exit_codes(name):
    text = run_here(name, "--help").out.decode()

    assert "Exit codes:" in text
    assert "130" in text


def _complete(words):
    env = environment(
        _JOURNAL_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )
    return [line.partition(",")[2] for line in run(env=env).out.decode().splitlines()]


def test_the_shell_completes_commands_and_values():
    assert _complete("journal ") == list(cli.commands)
    assert _complete("journal events x.db --type stream_c") == [
        "stream_created",
        "stream_completed",
        "stream_cancelled",
        "stream_config_updated",
    ]
    assert _complete("journal append x.db --on-error ") == ["stop", "skip"]


@posix
def test_completion_is_enabled_as_the_help_says():
    env = environment(_JOURNAL_COMPLETE="zsh_source")

    assert b"#compdef journal" in run(env=env).out


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--help"], {}),
        (["--version"], {}),
        (["events", "--help"], {}),
        (
            [],
            {
                "_JOURNAL_COMPLETE": "bash_complete",
                "COMP_WORDS": "journal sessions x.db --state ",
                "COMP_CWORD": "4",
            },
        ),
    ],
)
def test_help_version_and_completion_do_not_import_the_models(arguments, variables):
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from journal.__main__ import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    )
    result = ended(process)

    assert result.code == 0
    assert result.out
    loaded = set(result.err.split())
    assert "click" in loaded
    heavy = {"apsw", "pydantic", "pydantic_core", "journal.events.kinds", "journal.journal"}
    assert not loaded & heavy


@posix
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["events", "--help"], []])
def test_a_full_disk_is_no_traceback_whatever_is_printed(arguments):
    env = environment() if arguments else environment(_JOURNAL_COMPLETE="bash_source")
    with open("/dev/full", "wb") as full:
        process = start(*arguments, stdout=full, env=env)
        result = ended(process)

    assert result.code == 1
    assert re.fullmatch(r"Error: .*no space left on device\n", result.err)


def moments(seconds, count):
    return [seconds * number / count for number in range(count)]


@posix
@tried(4, many=12)
def test_ctrl_c_at_any_moment_shows_no_traceback(path, count):
    """While the command is loaded, and at work: it cannot end before, its input does not."""
    for delay in moments(0.36, count):
        process = started("append", path)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        result = ended(process)

        assert result.code == 130
        assert re.fullmatch("(interrupted: appended no events from 0 bytes in .*\n)?", result.err)


@posix
@tried(4, many=10)
def test_ctrl_c_ends_following_quietly_whenever_it_comes(path, count):
    make(path, *[activated(1)] * 50)
    for delay in moments(0.06, count):
        process = start("events", path, "--follow", "--after", "1")
        process.stdout.read(1)
        with journal.Journal.open(path) as opened:
            opened.append_ndjson([activated(2)] * 500)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
        assert ended(process)[::2] == (130, "")


def test_a_file_that_may_not_be_read_is_a_failure_and_no_wrong_usage(path, monkeypatch):
    make(path, activated(1))
    monkeypatch.setattr(os, "access", lambda *_: False)

    result = run_here("info", path)

    assert (result.code, result.err) == (1, f"Error: {path}: cannot be read: permission denied\n")


def test_an_empty_name_is_wrong_usage():
    for arguments in (["append", ""], ["info", ""], ["append", "x.db", ""]):
        result = run_here(*arguments)
        assert result.code == 2
        assert result.err.endswith("expected the name of a file, found ''\n")


@posix
def test_what_is_no_regular_file_is_no_journal():
    for name in ("append", "info"):
        result = run(name, "/dev/null", given=b"")
        assert (result.code, result.err) == (1, "Error: /dev/null: is not a regular file\n")


def test_version():
    assert run("--version") == (0, f"journal {journal.__version__}\n".encode(), "")


def test_a_checkout_starts_from_anywhere(tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "--version"],
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )

    assert result.stdout.startswith(b"journal ")


# Words


def test_sizes_and_counts_are_written_for_people():
    sizes = [0, 1, 999, 1_000, 9_949, 9_950, 412_300, 999_499, 999_500, 1_128_453, 10**12, 10**16]
    assert [size_text(size) for size in sizes] == [
        *("0 bytes", "1 byte", "999 bytes", "1.0 kB", "9.9 kB", "10 kB", "412 kB", "999 kB"),
        *("1.0 MB", "1.1 MB", "1.0 TB", "10,000 TB"),
    ]
    assert [counted(number, "line") for number in (0, 1, 2, 1_234)] == [
        *("no lines", "1 line", "2 lines", "1,234 lines"),
    ]
    assert one_line("a\nb\x1b\u2028\ud800 é") == "a\\nb\\x1b\\u2028\\ud800 é"


def test_every_command_is_a_click_command_with_its_own_module():
    for name, command in cli.commands.items():
        assert isinstance(command, click.Command)
        module = "continue_" if name == "continue" else name  # which is a word of Python's
        assert (ROOT / "journal" / "commands" / f"{module}.py").exists()
