"""The commands that show what is folded from events, and `rebuild`."""

import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from commands_support import (
    CALM,
    DATA,
    EAGER,
    MIXED,
    NEXT_VERSION,
    SESSION,
    STREAM,
    activated,
    all_of,
    ended,
    environment,
    make,
    run,
    run_all,
    run_here,
    start,
)
from support import unfold

import journal
from journal.commands import cli
from journal.commands.console import looking, progress
from journal.commands.console.arguments import SESSION_STATES, STREAM_STATES
from journal.commands.console.tables import Column, Look, Table, table, without_middle
from journal.commands.console.times import Clock, duration_text, moment_text
from journal.commands.console.widths import padded, shortened, width_of, wrapped
from journal.projections import Anomaly, SessionStatus, StreamStatus

posix = pytest.mark.skipif(os.name == "nt", reason="signals and terminals of POSIX")

READING = ["sessions", "streams", "session", "anomalies", "projections"]
STYLE = re.compile(r"\x1b\[[0-9;]*m")

BUSY = "08378220-121a-4045-ba76-f4f2c868ab8e"
"""The session of the mixed events with the most of them: 69."""

ODD = "79690975-fbde-15b0-2a33-7357ae2cc59b"
"""The first session of the kinds, which has an event of each and three anomalies."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The mixed events."""
    folder = tmp_path_factory.mktemp("mixed")
    return make(folder / "mixed.db", *MIXED.read_bytes().splitlines())


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    lines = (DATA / "kinds.ndjson").read_bytes().splitlines()
    return make(tmp_path_factory.mktemp("kinds") / "kinds.db", *lines)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """More than is folded in one transaction, up to date."""
    folder = tmp_path_factory.mktemp("large")
    path = make(folder / "large.db", *(MIXED.read_bytes() * 3).splitlines())
    assert run_here("rebuild", path).code == 0
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tests.db"


def lines_of(result):
    """Return the lines of standard output, after making sure that the command did well."""
    assert result.code == 0, result.err
    return result.out.decode().splitlines()


def dumped(models):
    return [model.model_dump(mode="json") for model in models]


def moments_ago(**ago):
    return (datetime.now(UTC) - timedelta(**ago)).isoformat().replace("+00:00", "Z")


def event(kind, at, session=SESSION, **fields):
    """Return a line of JSON."""
    head = {"event_type": kind, "session_id": session}
    return json.dumps({**head, **fields, "timestamp": at}).encode()


def on_terminals(*commands, columns=80, rows=50, program=CALM, **variables):
    """Run several at the same time, each on a terminal; return what they wrote, if they did well.

    Where a line was written over, as progress is, all of it is there, with the "\\r" between.
    """
    pty = pytest.importorskip("pty")
    import fcntl  # noqa: PLC0415 (as pty, not everywhere)
    import termios  # noqa: PLC0415

    env = environment(TERM="xterm", **variables)
    for name in {"COLUMNS", "LINES", "NO_COLOR"}.difference(variables):
        env.pop(name, None)
    running = []
    for command in commands:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = start(*command, stdout=theirs, stderr=theirs, env=env, program=program)
        running.append((ours, process))
        os.close(theirs)
    seen = [all_of(ours).decode().replace("\r\n", "\n") for ours, _ in running]
    assert [ended(process).code for _, process in running] == [0] * len(commands)
    return seen


# Sessions and streams


def test_sessions_and_streams_for_programs(mixed):
    as_json, as_streams = run_all(["sessions", mixed, "--json"], ["streams", mixed, "--json"])
    sessions = [json.loads(line) for line in lines_of(as_json)]
    streams = [json.loads(line) for line in lines_of(as_streams)]

    expected = [json.loads(it) for it in (DATA / "mixed/states.ndjson").read_bytes().splitlines()]
    states = {session["session_id"]: session["state"] for session in sessions}
    assert states == {session["session_id"]: session["state"] for session in expected}
    assert {stream["stream_id"]: stream["error"] for stream in streams} == {
        stream_id: stream["error"]
        for session in expected
        for stream_id, stream in session["streams"].items()
    }
    with journal.Journal.open(mixed, read_only=True) as opened:
        assert sessions == dumped(opened.sessions())
        assert streams == dumped(opened.streams())
    assert list(sessions[0]) == list(SessionStatus.model_fields)
    assert list(streams[0]) == list(StreamStatus.model_fields)
    assert sessions[0]["ended_at"] == "2026-11-23T08:49:55.509378436Z"
    assert as_json.err == "300 sessions: 38 Active, 240 Completed, 22 Failed\n"
    assert as_streams.err == (
        "966 streams: 41 Preparing, 63 Streaming, 157 Completed, 172 Failed, 533 Cancelled\n"
    )


def test_sessions_for_people(path):
    make(
        path,
        event("session_activated", moments_ago(minutes=3, seconds=5)),
        event("stream_created", moments_ago(minutes=3), stream_id=BUSY),
        event("session_timed_out", moments_ago(hours=5), ODD, original_state="Active",
              timeout_duration=9),
        event("session_activated", moments_ago(days=3), BUSY),
        event("session_closed", moments_ago(hours=50), BUSY),
    )  # fmt: skip
    result = run("sessions", path)
    with journal.Journal.open(path, read_only=True) as opened:
        old = opened.sessions()[2]
    began, ended = (f"{moment:%Y-%m-%d %H:%M}" for moment in (old.activated_at, old.ended_at))

    assert [re.split("  +", line) for line in lines_of(result)] == [
        [
            "SESSION",
            "STATE",
            "ACTIVATED",
            "ENDED",
            "LASTED",
            *["EVENTS", "STREAMS", "ACTIVE", "FAILED"],
        ],
        ["27d6e509", "Active", "3 min ago", "-", "-", "2", "1", "1", "0"],
        ["79690975", "Failed", "-", "5 h ago", "-", "1", "0", "0", "0"],
        ["08378220", "Completed", began, ended, "22 h", "2", "0", "0", "0"],
    ]
    assert result.err == "3 sessions: 1 Active, 1 Completed, 1 Failed\n"


def record_of(lines):
    """Return the first record of some lines."""
    first = lines[: lines.index("")] if "" in lines else lines
    return dict(line.split(maxsplit=1) for line in first)


def test_wide_prints_records(mixed, kinds):
    sessions = lines_of(run_here("sessions", mixed, "--wide"))
    streams = lines_of(run_here("streams", mixed, "--wide", "--state", "Failed"))
    anomalies = lines_of(run_here("anomalies", kinds, "--wide"))
    session = lines_of(run_here("session", mixed, BUSY, "--wide"))

    assert list(record_of(anomalies)) == list(Anomaly.model_fields)
    assert list(record_of(streams)) == list(StreamStatus.model_fields)
    found = record_of(sessions)
    assert {name.split(".")[0] for name in found} == set(SessionStatus.model_fields)
    assert [found[name] for name in ("session_id", "state", "ended_at", "metrics")] == [
        *(
            "172d61c3-0e7d-4b89-a09e-44a0462d05e3",
            "Completed",
            "2026-11-23T08:49:55.509378436Z",
            "-",
        )
    ]
    assert sessions.count("") == 299
    assert record_of(anomalies)["reason"] == "legal in an Active session, but the session is Failed"
    assert record_of(streams)["error"] == "Connection lost"
    assert session.count("") == 8 + 69
    assert "position          978" in session[-10:]
    assert session[-2].split() == ["highest_priority", "43"]
    assert "metrics.bytes_per_second" in "\n".join(session)


def test_the_state_and_the_moment_select(mixed):
    at = "2026-11-23T08:49:55.508600Z"
    with journal.Journal.open(mixed, read_only=True) as opened:
        failed = dumped(opened.sessions(journal.SessionState.FAILED))
        early = dumped(opened.sessions(as_of=100))
        then = dumped(opened.streams(as_of=journal.Timestamp.parse(at)))
        preparing = dumped(opened.streams(state=journal.StreamState.PREPARING, as_of=100))

    def rows(*arguments):
        return [json.loads(line) for line in lines_of(run_here(*arguments, "--json"))]

    assert rows("sessions", mixed, "--state", "failed") == failed
    assert rows("sessions", mixed, "--as-of", 100) == early
    assert rows("streams", mixed, "--as-of", at) == then
    assert rows("streams", mixed, "--as-of", 100, "--state", "PREPARING") == preparing
    assert (len(failed), len(early), len(then), len(preparing)) == (22, 24, 13, 16)
    counts = run_here("sessions", mixed, "--as-of", at).err
    assert re.fullmatch(rf"\d+ sessions as of {at}: \d+ Initializing, \d+ Active.*\n", counts)
    assert run_here("sessions", mixed, "--as-of", 0) == (
        0,
        b"",
        "no sessions as of position 0\n",
    )


def test_nothing_found_prints_nothing_but_the_count(path, mixed):
    make(path)

    assert run_here("sessions", path) == (0, b"", "no sessions\n")
    assert run_here("streams", path) == (0, b"", "no streams\n")
    assert run_here("anomalies", path) == (0, b"", "no anomalies\n")
    assert run_here("sessions", path, "--json") == (0, b"", "no sessions\n")
    assert run_here("streams", mixed, "--session", SESSION).err == "no streams\n"
    assert run_here("sessions", mixed, "--state", "Closing").err == "no sessions\n"


def test_a_session_can_be_named_by_how_it_begins(path, mixed):
    expected = run_here("streams", mixed, "--session", BUSY, "--json")
    assert len(lines_of(expected)) == 8
    for name in ["0837", "08378220-", "08378220-121A", BUSY.replace("-", "")[:31], f"{{{BUSY}}}"]:
        assert run_here("streams", mixed, "--session", name, "--json") == expected, name

    others = [BUSY[:-1] + digit for digit in "0123"]
    make(path, *(activated(1, session) for session in [*others, SESSION]))
    assert run_here("session", path, "0837") == (
        1,
        b"",
        f"Error: more than one session's id begins with 0837: {', '.join(others[:3])}, ...\n",
    )
    assert run_here("streams", path, "--session", "83f0").err == (
        f"Error: {path}: has no session whose id begins with 83f0\n"
    )


def test_events_are_selected_by_how_an_id_begins(mixed):
    stream = json.loads(lines_of(run_here("streams", mixed, "--json"))[0])["stream_id"]
    for option, found in (("--session", BUSY), ("--stream", stream)):
        expected = run_here("events", mixed, option, found)
        assert lines_of(expected)
        assert run_here("events", mixed, option, found[:8]) == expected

    assert run_here("events", mixed, "--stream", "0000").err == (
        f"Error: {mixed}: has no stream whose id begins with 0000\n"
    )


# One session


def test_a_session_on_a_page(kinds):
    result = run("session", kinds, ODD[:8])
    page = result.out.decode().split("\n\n")

    assert (result.code, result.err) == (0, "")
    facts, streams, events = (part.splitlines() for part in page)
    assert facts == [
        f"Session     {ODD}",
        "State       Failed",
        "Activated   1970-01-01T00:00:00Z",
        "Ended       1970-01-01T00:00:00Z, after 0 ns",
        "Events      16, positions 1 to 16",
        "Streams     1 (1 cancelled)",
        "Anomalies   3, marked with ! below",
        "Expires     2026-01-01T00:00:00.123Z",
        "Threshold   255",
        "Metrics     0 frames/s, 0 bytes/s, 1 byte a frame",
        "  frames    1 high, 1 background",
    ]
    assert streams == [
        "STREAM    STATE        CREATED  LASTED  FRAMES  BYTES  PRIO  !",
        "2fef107a  Cancelled  +0.000000  0 ns         1    1 B     0  3",
    ]
    assert events[0] == "   POS       TIME  STREAM    EVENT"
    assert events[1] == "     1  +0.000000            session_activated"
    assert events[6] == (
        "!    6  +0.000000  2fef107a  stream_created"
        "  ! legal in an Active session, but the session is Failed"
    )
    assert [line.partition("  +0.000000  ")[2][10:] for line in events[11:]] == [
        "skeleton_generated  0 bytes",
        "patch_frames_generated  no frames, 1 byte, prio 0",
        "frames_batched  no frames",
        "priority_threshold_adjusted  0 -> 255",
        "stream_config_updated",
        "performance_metrics_recorded  0 fps, 0 bytes/s",
    ]
    assert len(events) == 17


def test_a_session_for_programs(kinds, mixed):
    result = run("session", mixed, BUSY, "--json")
    found = json.loads(result.out)
    with journal.Journal.open(mixed, read_only=True) as opened:
        session_id = journal.SessionId.parse(BUSY)
        assert found["session"] == opened.session(session_id).model_dump(mode="json")
        assert found["streams"] == dumped(opened.streams(session_id))
    assert result.err == ""
    assert result.out.count(b"\n") == 1
    assert list(found) == ["session", "streams", "events"]
    assert lines_of(run_here("events", mixed, "--session", BUSY, "--json")) == [
        json.dumps(one, separators=(",", ":"), ensure_ascii=False) for one in found["events"]
    ]

    # The events come as they are in the file, to the last digit.
    extreme = run_here("session", kinds, "01239ff2", "--json").out
    assert b'"total_bytes":18446744073709551615' in extreme


def test_a_session_as_of_a_moment(mixed):
    page = run_here("session", mixed, BUSY, "--as-of", 200).out.decode()
    at = "2026-11-23T08:49:55.508900Z"
    early = json.loads(run_here("session", mixed, BUSY, "--as-of", at, "--json").out)

    assert "State       Active as of position 200\n" in page
    assert "Events      7, positions 113 to 177\n" in page
    assert page.endswith("performance_metrics_recorded  49.99 fps, 116 kB/s\n")
    assert [one["position"] for one in early["events"]] == [113, 114, 115, 120, 141]
    assert early["session"]["event_count"] == 5
    assert [stream["state"] for stream in early["streams"]] == [
        *("Preparing", "Streaming", "Preparing")
    ]
    assert run_here("session", mixed, BUSY, "--as-of", 112) == (
        1,
        b"",
        f"Error: session {BUSY} has no events in {mixed} as of position 112\n",
    )


def test_what_is_wrong_is_told_whatever_the_moment(path):
    """Also of events that name another session's stream, which have to be found in its chain."""
    at = "2026-01-01T00:00:00Z"
    make(
        path,
        event("session_activated", at, BUSY),
        event("stream_created", at, BUSY, stream_id=ODD),
        event("stream_started", "2026-01-01T00:00:01Z", stream_id=ODD),
        event("session_closed", "2026-01-01T00:00:02Z", BUSY),
        event("session_closed", "2026-01-01T00:00:03Z", BUSY),
    )
    foreign = run_here("session", path, SESSION).out.decode()
    own = run_here("session", path, BUSY).out.decode()
    wide = run_here("session", path, BUSY, "--wide").out.decode()

    assert "stream_started  ! the stream belongs to another session\n" in foreign
    assert "Streams     none\n" in foreign
    assert "session_closed  ! legal in Active, but the session is Completed\n" in own
    assert own.count("!") == 4  # the marks, the reason, the word about them, and a column's head
    assert wide.endswith("\nanomaly         legal in Active, but the session is Completed\n")
    early = run_here("session", path, BUSY, "--as-of", "2026-01-01T00:00:02Z").out
    assert b"!" not in early.partition(b"POS")[2]


def test_a_session_without_events_is_an_error(path):
    make(path, activated(1))
    with journal.Journal.open(path) as opened:
        opened.append_ndjson([NEXT_VERSION.read_bytes()], unknown="keep")
    strange = json.loads(NEXT_VERSION.read_bytes())["session_id"]

    assert run_here("session", path, BUSY) == (
        1,
        b"",
        f"Error: session {BUSY} has no events in {path}\n",
    )
    assert run_here("session", path, strange).err == (
        f"Error: session {strange} has no events of kinds that are known in {path}\n"
    )
    with journal.Journal.open(path) as opened:
        opened.append_ndjson([activated(2, strange)])
    page = run_here("session", path, strange).out.decode()
    assert "backpressure_received  (a kind not known here)\n" in page


@posix
def test_a_session_fits_the_screen_whatever_its_height(mixed):
    command = ["session", mixed, BUSY]
    piped = lines_of(run_here(*command))
    assert len(piped) == 9 + len(["", "streams"]) + 8 + len(["", "events"]) + 69
    note = r"\.\.\. (\d+) (stream|event)s? (?:is|are) left out; a pipe, as to less, gets all \.\.\."

    for columns, rows in ((80, 24), (200, 50), (100, 35), (80, 101), (40, 30)):
        (seen,) = on_terminals(command, columns=columns, rows=rows)
        lines = STYLE.sub("", seen).splitlines()
        assert max(map(len, lines)) <= max(columns, 60)
        assert len(lines) <= rows - 1
        assert len(lines) == rows - 1 or len(lines) == len(piped) or columns == 40
        assert lines[:2] == [f"Session     {BUSY}", "State       Active"]
        assert lines[-1].split()[0] == "978" or columns == 40
        left_out = dict(reversed(found) for found in re.findall(note, seen))
        _, streams, events = seen.split("\n\n")
        assert streams.startswith("STREAM ")
        shown = len(events.splitlines()) - 1 - ("event" in left_out)
        if columns > 40:
            assert shown + int(left_out.get("event", 0)) == 69
        assert "POS" in events.splitlines()[0]
        assert events.splitlines()[1].split()[0] == "113"


@pytest.mark.parametrize(
    ("as_of", "is_beyond"),
    [
        ("2026-01-01T00:00:02.000000001Z", True),
        ("2026-01-01T00:00:02Z", False),
        ("2026-01-01T00:00:01Z", False),
        ("0001-01-01T00:00:00Z", False),
    ],
)
def test_a_moment_is_beyond_the_end_only_if_no_event_is_there_or_later(path, as_of, is_beyond):
    make(path, event("session_activated", "2026-01-01T00:00:02Z"), activated(1))
    note = f"{as_of} is beyond the end: no event is later\n"

    assert run_here("sessions", path, "--as-of", as_of).err.endswith(note) == is_beyond


def test_where_the_id_of_a_later_row_is_too_short_its_candidates_are_listed(path):
    alike = ("aaaaaaaa-1000-4000-8000-000000000000", "aaaaaaaa-2000-4000-8000-000000000000")
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(250)]
    ids[150], ids[220] = alike
    make(path, *(event("session_activated", "2026-01-01T00:00:00Z", session=it) for it in ids))
    shown = [line.split()[0] for line in lines_of(run_here("sessions", path))[1:]]
    result = run_here("session", path, shown[150])

    assert shown[150] == shown[220] == "aaaaaaaa"
    assert result.code == 1
    assert result.err.endswith(
        f"more than one session's id begins with aaaaaaaa: {', '.join(alike)}\n"
    )
    for command in ("sessions", "streams"):
        assert "of the first hundred rows" in " ".join(
            run_here(command, "--help").out.decode().split()
        )


@posix
def test_the_screen_is_kept_to_also_by_many_streams_and_long_texts(path):
    streams = [f"{i:08x}-121a-4045-ba76-f4f2c868ab8e" for i in range(1000)]
    at = "2026-01-01T00:00:00Z"
    lines = [event("session_activated", at)]
    for stream in streams:
        lines.append(event("stream_created", at, stream_id=stream))
        lines.append(event("stream_failed", at, stream_id=stream, error="接続 lost " * 300))
    make(path, *lines)
    (seen,) = on_terminals(["session", path, SESSION], rows=24)
    early, late = on_terminals(
        ["session", path, SESSION, "--as-of", 1], ["session", path, SESSION, "--as-of", 9999]
    )

    seen = seen[seen.index("Session  ") :]  # it may have taken long, and shown its progress
    lines = STYLE.sub("", seen).splitlines()
    assert 21 < len(lines) < 24  # a row of two lines may not fit
    assert max(map(width_of, lines)) <= 80
    (note,) = (line for line in lines if "streams are left out" in line)
    shown = len(seen.partition("STREAM")[2].partition("\n\n")[0].splitlines()) - len(["", note])
    assert note == f"... {1000 - shown} streams are left out; a pipe, as to less, gets all ..."
    assert shown > 3
    assert lines[4] == "Streams     1,000 (1,000 failed)"
    assert "left out" not in early
    assert late.endswith("\nposition 9999 is beyond the end: the last one is 2001\n")
    assert len(late[late.index("Session  ") :].splitlines()) == 49


def test_only_json_has_a_very_long_text_in_full(path):
    long = "why? " * 5_000
    threshold = {"old_threshold": 1, "new_threshold": 2, "reason": long}
    make(
        path,
        event("session_activated", "2026-01-01T00:00:00Z"),
        event("stream_created", "2026-01-01T00:00:01Z", stream_id=STREAM),
        event("stream_failed", "2026-01-01T00:00:02Z", stream_id=STREAM, error=long),
        event("priority_threshold_adjusted", "2026-01-01T00:00:03Z", **threshold),
    )
    with journal.Journal.open(path) as opened:
        strange = {"event_type": long, "more": {long: long}}
        opened.append_ndjson([json.dumps({**json.loads(activated(4)), **strange})], unknown="keep")

    for command in (["streams", path], ["session", path, SESSION], ["info", path]):
        assert max(map(len, lines_of(run_here(*command)))) < 400
        (whole,) = lines_of(run_here(*command, "--json"))
        assert long in whole
    for command in (["streams", path], ["session", path, SESSION]):
        wide = lines_of(run_here(*command, "--wide"))
        assert max(map(len, wide)) < 1_200
        assert any(line.endswith(" why? … (25,000 characters, --json has all)") for line in wide)


# Ids


def version_7(milliseconds, digits):
    """Return the text of a UUID of version 7; `digits` are the last sixteen of it."""
    text = f"{milliseconds:012x}7abc{digits:016x}"
    return str(uuid.UUID(text[:16] + "8" + text[17:]))


def test_short_ids_tell_ids_apart_and_can_be_typed(path):
    now = 1_790_000_000_000
    sessions = [version_7(now + i // 3, i) for i in range(30)] + [BUSY]
    streams = [version_7(now, i + 100) for i in range(31)]
    lines = []
    for session, stream in zip(sessions, streams, strict=True):
        lines.append(event("session_activated", moments_ago(hours=1), session))
        lines.append(event("stream_created", moments_ago(hours=1), session, stream_id=stream))
    lines += [event("session_closed", moments_ago(hours=1), session) for session in sessions[::7]]
    lines.append(event("stream_created", moments_ago(hours=1), BUSY, stream_id=streams[0]))
    make(path, *lines)

    for command in (["sessions"], ["sessions", "--state", "Completed"], ["streams"], ["anomalies"]):
        _, *rows = lines_of(run_here(*command[:1], path, *command[1:]))
        assert rows
        place = {"sessions": 0, "streams": 1, "anomalies": 1}[command[0]]
        shown = {row.split()[place] for row in rows}
        assert all(one.startswith(("01a", "0837")) for one in shown)
        for one in shown:
            session = json.loads(run_here("session", path, one, "--json").out)["session"]
            assert session["session_id"].startswith(one)
            assert one[-1] != "-"
    shown = [row.split()[0] for row in lines_of(run_here("streams", path))[1:]]
    assert len(set(shown)) == len(streams)
    for one in shown:
        assert len(lines_of(run_here("events", path, "--stream", one))) in (1, 2)


def test_ids_that_differ_at_once_stay_short(mixed, path):
    assert {len(row.split()[0]) for row in lines_of(run_here("sessions", mixed))[1:]} == {8}
    others = [BUSY[:-1] + digit for digit in "0123"]
    make(path, *(activated(1, session) for session in others))

    rows = lines_of(run_here("sessions", path))[1:]
    assert [row.split()[0] for row in rows] == others


# Anomalies and projections


def test_anomalies(kinds):
    with journal.Journal.open(kinds, read_only=True) as opened:
        expected = dumped(opened.anomalies())
    result = run("anomalies", kinds, "--json")
    early = run_here("anomalies", kinds, "--as-of", 6)

    assert [json.loads(line) for line in lines_of(result)] == expected
    assert list(json.loads(lines_of(result)[0])) == list(Anomaly.model_fields)
    assert result.err == "90 anomalies in 30 sessions\n"
    assert early.out.decode() == (
        "POSITION  SESSION   STREAM    EVENT           REASON\n"
        "       6  79690975  2fef107a  stream_created  "
        "legal in an Active session, but the session is Failed\n"
    )
    assert early.err == "1 anomaly in 1 session as of position 6\n"
    assert run_here("sessions", kinds).err == "30 sessions: 30 Failed; 90 anomalies\n"


def test_projections(path):
    make(path, activated(1), activated(2))
    unfold(path)
    header = "NAME      VERSION  POSITION  LAG  STALE"
    never = run_here("projections", path)
    assert lines_of(never) == [
        header,
        "sessions        1         0    2  no",
        "streams         1         0    2  no",
    ]
    assert never.err == (
        "2 projections: 2 behind\n"
        "LAG: events that are not folded yet. Reading folds them each time, until they are\n"
        f"stored: by the application when it reads or closes, or by `journal rebuild {path}`.\n"
    )
    assert run_here("projections", path, "--json").err == "2 projections: 2 behind\n"

    own = journal.Projection(name="own", version=3, initial=0, apply=lambda state, _: state + 1)
    with journal.Journal.open(path) as opened:
        opened.register(own)
        assert opened.state("own") == 2
        opened.sessions()
    other = sqlite3.connect(path)
    other.execute("UPDATE checkpoint SET version = 0 WHERE name = 'streams'")
    other.commit()
    other.close()
    result = run_here("projections", path)
    assert lines_of(result) == [
        header,
        "own             3         2    0  -",
        "sessions        1         2    0  no",
        "streams         0         2    0  yes",
    ]
    assert result.err == (
        "3 projections: 1 stale\n"
        "STALE: another version of journal made it. It is made anew when it is read, or by\n"
        f"`journal rebuild {path}`.\n"
    )
    assert json.loads(lines_of(run_here("projections", path, "--json"))[0]) == {
        "name": "own",
        "version": 3,
        "position": 2,
        "since": 1,
        "lag": 0,
        "stale": None,
    }


# Rebuild


def _spoil(path):
    other = sqlite3.connect(path)
    other.executescript(
        "UPDATE projection_session SET state = 'Active', ended_at = NULL WHERE session = 1;"
        "UPDATE projection_stream SET error = x'ff' WHERE stream = 2;"
        "DELETE FROM projection_stream WHERE stream = 1;"
    )
    other.close()


def test_rebuild_says_what_differs_and_puts_it_right(mixed, path):
    shutil.copy(mixed, path)
    unfold(path)
    first = run("rebuild", path)
    again = run_here("rebuild", path, "streams")
    checked = run_here("rebuild", path, "--check")
    assert (first.code, first.out) == (0, b"")
    assert re.fullmatch(
        r"rebuilt sessions and streams: 5,442 events in \d+\.\d s \([\d,]+/s\), "
        r"no earlier rows to compare with\n",
        first.err,
    )
    for result, end in [(again, ", nothing changed\n"), (checked, ", nothing differs\n")]:
        assert (result.code, result.out) == (0, b"")
        assert result.err.endswith(end)

    sound = run_here("sessions", path, "--json")
    _spoil(path)
    compared = run_here("rebuild", path, "--check", "--json")
    rebuilt = run_here("rebuild", path, "sessions")
    changes = [
        ("sessions", "172d61c3-0e7d-4b89-a09e-44a0462d05e3", "state", "Active", "Completed"),
        ("sessions", "172d61c3-0e7d-4b89-a09e-44a0462d05e3", "ended_at", None, 1795423795509378436),
        ("streams", "887bb866-43dd-4c89-beb0-c7a8aa63fb01", None, "missing", "present"),
        ("streams", "a9cd9632-9754-4825-a3ed-d086b042ed5e", "error", "x'ff'", None),
    ]
    assert compared.code == rebuilt.code == 3
    assert [tuple(json.loads(line).values()) for line in compared.out.splitlines()] == changes
    assert rebuilt.out.decode() == (
        "sessions 172d61c3-0e7d-4b89-a09e-44a0462d05e3 state: Active -> Completed\n"
        "sessions 172d61c3-0e7d-4b89-a09e-44a0462d05e3 ended_at: "
        "none -> 2026-11-23T08:49:55.509378436Z\n"
        "streams 887bb866-43dd-4c89-beb0-c7a8aa63fb01: missing -> present\n"
        "streams a9cd9632-9754-4825-a3ed-d086b042ed5e error: x'ff' -> none\n"
    )
    assert compared.err.endswith(", 4 values differ; the old rows stay\n")
    assert rebuilt.err.endswith(", 4 values changed\n")
    assert run_here("rebuild", path).err.endswith(", nothing changed\n")
    assert run_here("sessions", path, "--json") == sound


def test_rebuild_leaves_what_only_the_application_can_fold(path):
    make(path, activated(1))
    own = journal.Projection(name="own", version=1, initial=0, apply=lambda state, _: state + 1)
    with journal.Journal.open(path) as opened:
        opened.register(own)
        assert opened.state("own") == 1
    named = run_here("rebuild", path, "sessions", "own")
    unknown = run_here("rebuild", path, "mine")
    every = run_here("rebuild", path)

    assert (named.code, unknown.code, every.code) == (1, 1, 0)
    assert named.err == (
        "Error: projection 'own' is an application's own, and only that has its code: "
        "the application can rebuild it, with Journal.rebuild(['own'])\n"
    )
    assert unknown.err == (
        f"Error: {path}: has no projection 'mine', only sessions, streams, own\n"
    )
    assert every.err.startswith("left out, as their code is in the application: own\nrebuilt ")


def test_rebuild_of_an_empty_journal(path):
    make(path)
    unfold(path)
    result = run_here("rebuild", path)

    assert result.code == 0
    assert re.fullmatch(
        r"rebuilt sessions and streams: no events in \d\.\d s, no earlier rows to compare with\n",
        result.err,
    )


def _everything(connection):
    """Return what a file is made of, and every row of its projections."""
    schema = "SELECT name FROM sqlite_schema ORDER BY name"
    names = [name for (name,) in connection.execute(schema)]
    tables = ["checkpoint", *(name for name in names if re.fullmatch(r"projection_[a-z]+", name))]
    return names, [connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_interrupted_rebuild_leaves_the_old_rows_and_nothing_else(large, path, tmp_path, name):
    number = signal.Signals[name]
    shutil.copy(large, path)
    _spoil(path)  # so that a rebuild would replace them
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ours, theirs = pytest.importorskip("pty").openpty()
    env = environment(TERM="xterm", SQLITE_TMPDIR=str(scratch))
    other = sqlite3.connect(path, isolation_level=None)
    before = _everything(other)

    # It folds beside without the lock, but ends with it: so it cannot end before the signal.
    other.execute("BEGIN IMMEDIATE")
    process = start("rebuild", path, stderr=theirs, env=env, program=EAGER)
    os.close(theirs)
    seen = b""
    while b"events/s" not in seen:
        seen += os.read(ours, 65_536)
    process.send_signal(number)
    other.execute("ROLLBACK")
    code, out, _ = ended(process)
    seen += all_of(ours)

    assert (code, out) == (-number if name == "SIGKILL" else 130, b"")
    if name != "SIGKILL":
        assert seen.endswith(b"interrupted: the old rows stay\r\n")
    assert _everything(other) == before
    other.close()
    beside = {found.name for found in tmp_path.iterdir()} - {f"{path.name}-wal", f"{path.name}-shm"}
    assert beside == {path.name, "scratch"}
    assert list(scratch.iterdir()) == []
    assert run_here("rebuild", path).code == 3
    assert run_here("rebuild", path).code == 0


class _Terminal(StringIO):
    """Standard error on a terminal, interrupted as soon as it has shown progress."""

    interrupted = False

    def isatty(self):
        return True

    def flush(self):
        if not self.interrupted and "events/s" in self.getvalue():
            self.interrupted = True
            raise KeyboardInterrupt


def test_progress_is_taken_away_also_by_an_interrupt_that_comes_while_it_is_written(
    large, monkeypatch
):
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_SECONDS_BEFORE", 0.0)
    with pytest.raises(SystemExit) as caught:
        cli.main(["rebuild", str(large)], prog_name="journal")

    assert caught.value.code == 130
    assert "events/s" in terminal.getvalue()
    assert terminal.getvalue().rpartition("\r")[2] == "interrupted: the old rows stay\n"


@posix
def test_rebuild_shows_its_progress_on_a_terminal(large):
    (seen,) = on_terminals(["rebuild", large, "--check"], program=EAGER)

    figures = r"\r\[#+ *\] \d+ %, [\d,]+ events, [\d,]+ events/s, \d+ s left"
    assert re.search(figures, seen)
    assert seen.splitlines()[-1].endswith("nothing differs")
    last = seen.rpartition("\r")[2]
    assert last.startswith("compared sessions and streams: 16,326 events in ")


@posix
def test_what_is_folded_before_an_answer_shows_its_progress_and_takes_it_away(large, path):
    shutil.copy(large, path)
    unfold(path)
    commands = [
        ["sessions", path, "--json", "--read-only"],  # else the first would fold for the others
        ["streams", path, "--as-of", 16_000],
        ["anomalies", path, "--read-only"],
    ]
    for command, seen in zip(commands, on_terminals(*commands, program=EAGER), strict=True):
        first = {"sessions": '{"session_id"', "streams": "STREAM ", "anomalies": "POSITION"}
        progress, found, rest = seen.partition(f"\r{first[command[0]]}")
        assert re.search(r"\r\[#+ *\] \d+ %, [\d,]+ events, [\d,]+ events/s, \d+ s left", progress)
        assert found
        page, _, more = rest.partition("\r")
        assert "events/s" not in page
        assert not more or command[0] == "anomalies"  # of which there is more than one page

    (folded,) = on_terminals(["sessions", large, "--json"], program=EAGER)
    assert folded.startswith("{")


def test_progress_has_rate_and_remaining_time_and_does_not_come_in_the_first_second(monkeypatch):
    terminal = _Terminal()
    terminal.interrupted = True
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    shown = progress.Progress()

    def after(seconds, events, share):
        clock[0] = 1_000.0 + seconds
        terminal.truncate(0)
        shown.show(events, share)
        return terminal.getvalue().strip("\r\0 ")

    assert after(0.9, 900, 0.1) == ""
    assert after(2.0, 1_000, 0.01) == (
        "[                    ] 1 %, 1,000 events, 500 events/s, 3 min 18 s left"
    )
    assert after(2.1, 1_000, 0.02) == ""
    assert after(3.0, 1, None) == "1 event, 0 events/s"
    assert after(4.0, 40_000, 0.5) == (
        "[##########          ] 50 %, 40,000 events, 10,000 events/s, 4 s left"
    )
    assert after(5.0, 40_000, 0.9999).endswith(", 1 s left")


# What they leave alone


def test_looking_does_not_write(path):
    make(path, activated(1))
    before = path.read_bytes()
    for name in READING:
        assert run_here(name, path, *[SESSION][: name == "session"]).code == 0
    assert path.read_bytes() == before


def test_what_is_no_journal_is_left_alone(tmp_path, path):
    empty = tmp_path / "empty.db"
    empty.touch()
    for name in [*READING, "rebuild"]:
        arguments = [SESSION][: name == "session"]
        expected = (1, b"", f"Error: {path}: does not exist\n")
        assert run_here(name, path, *arguments) == expected
        expected = (1, b"", f"Error: {empty}: is empty, not a journal\n")
        assert run_here(name, empty, *arguments) == expected
    assert run("prune", path, "--before", 9) == (1, b"", f"Error: {path}: does not exist\n")
    assert run("rebuild", path, "--check") == (1, b"", f"Error: {path}: does not exist\n")
    assert [found.name for found in tmp_path.iterdir()] == ["empty.db"]
    assert empty.read_bytes() == b""


LOOKS = [["sessions"], ["streams"], ["anomalies"], ["session", BUSY]]


@pytest.fixture
def unfolded(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "_WORTH_STORING", 5_000)
    path = Path(shutil.copy(mixed, tmp_path / "my file.db"))
    unfold(path)
    return path


def folded_up_to(path):
    with journal.Journal.open(path, read_only=True) as opened:
        return {one.name: one.position for one in opened.projections()}["sessions"]


def looked(path, arguments, *options):
    return run_here(arguments[0], path, *arguments[1:], *options)


@pytest.mark.parametrize("arguments", LOOKS)
def test_much_that_is_folded_is_stored(unfolded, mixed, arguments):
    expected = looked(mixed, arguments)

    assert looked(unfolded, arguments) == expected
    assert folded_up_to(unfolded) == 5_442
    assert [found.name for found in unfolded.parent.iterdir()] == [unfolded.name]


_EXPECTED = {}


@pytest.mark.parametrize("arguments", LOOKS)
@pytest.mark.parametrize("why", ["--read-only", "--as-of", "little", "closed", "older", "not own"])
def test_it_is_not_stored_where_that_is_not_wanted(unfolded, mixed, monkeypatch, arguments, why):
    options = {"--read-only": ["--read-only"], "--as-of": ["--as-of", 5_442]}.get(why, [])
    key = (*arguments, *options)
    if key not in _EXPECTED:
        _EXPECTED[key] = looked(mixed, arguments, *options)
    if why == "little":
        monkeypatch.setattr(looking, "_WORTH_STORING", 5_442)
    elif why == "closed":
        change(unfolded, "INSERT INTO meta VALUES ('closed', 'ship')")
    elif why == "older":
        monkeypatch.setattr(journal.Journal, "is_older_format", True)
    elif why == "not own":
        if not hasattr(os, "geteuid"):
            pytest.skip("files have no owner here")
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    before = unfolded.read_bytes()

    assert looked(unfolded, arguments, *options) == _EXPECTED[key]
    assert unfolded.read_bytes() == before
    assert folded_up_to(unfolded) == 0


def change(path, sql):
    other = sqlite3.connect(path)
    other.execute(sql)
    other.commit()
    other.close()


def test_a_reader_that_has_seen_enough_is_no_error(large):
    process = start("streams", large, "--json")
    process.stdout.close()

    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""


def test_wrong_usage_says_what_was_expected(path):
    moment = "is not a position or a time (expected a number, 0 or more; or RFC 3339, like 2026-01"
    digits = "(expected 32 hexadecimal digits as 8-4-4-4-12, or at least the first 4 of them)"
    cases = {
        ("sessions", path, "--as-of", "-1"): f"'-1' {moment}",
        ("streams", path, "--as-of", "2026-02-30"): f"'2026-02-30' {moment}",
        ("session", path, SESSION, "--as-of", ""): f"'' {moment}",
        ("anomalies", path, "--as-of", "\u0661"): f"'\u0661' {moment}",
        ("anomalies", path, "--as-of", "9" * 5_000): moment,
        ("sessions", path, "--state", "Sleeping"): "'Sleeping' is not one of Initializing, Active,",
        ("streams", path, "--state", "Active"): "'Active' is not one of Preparing, Streaming,",
        ("session", path, "27d"): f"'27d' is not a session's id {digits}",
        ("session", path, "27d6e50-9"): f"'27d6e50-9' is not a session's id {digits}",
        ("streams", path, "--session", "\x1b123"): f"'\\x1b123' is not a session's id {digits}",
        ("session", path): "Missing argument 'ID'",
        ("rebuild",): "Missing argument 'JOURNAL'",
    }
    for arguments, expected in cases.items():
        result = run_here(*arguments)
        assert (result.code, result.out) == (2, b""), arguments
        assert expected in result.err, arguments


# On a terminal


@posix
def test_states_are_coloured_on_a_terminal_only(kinds):
    command = ["sessions", kinds, "--as-of", 18]
    (seen,) = on_terminals(command, columns=120)
    (plain,) = on_terminals(command, NO_COLOR="1", columns=120)
    piped = run_here(*command, "--sort", "newest")

    assert "\x1b[31mFailed   \x1b[0m" in seen
    assert "\x1b[32m" not in seen
    assert "\x1b" not in plain
    assert STYLE.sub("", seen) == plain
    assert plain == piped.out.decode() + piped.err


@posix
def test_tables_fit_a_terminal(path, kinds):
    sample = make(path, *(DATA / "sample.ndjson").read_bytes().splitlines())
    streams, anomalies = on_terminals(["streams", sample], ["anomalies", kinds, "--as-of", 9])
    (broad,) = on_terminals(["streams", sample, "--state", "Failed"], columns=120)

    *rows, count = STYLE.sub("", streams).splitlines()
    assert max(map(len, rows)) <= 80
    assert count.startswith("966 streams: ")
    assert rows[0].split() == ["STREAM", "SESSION", "STATE", "ENDED", "LASTED", "BYTES", "ERROR"]
    assert "  Connection lost" in streams
    assert broad.startswith("STREAM    SESSION   STATE   CREATED           ENDED       ")
    assert anomalies.splitlines()[3:] == [
        "       9  79690975  2fef107a  stream_failed   legal in Preparing or Streaming,",
        "                                              but the stream is Completed",
        "2 anomalies in 1 session as of position 9",
    ]


# Help, completion, words


def test_help_says_the_exit_codes_of_rebuild():
    text = run_here("rebuild", "--help").out.decode()

    assert "  3    done, and the old rows differed from the new ones\n" in text
    assert "  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); the old rows are in place\n" in text
    assert list(cli.commands) == [
        *("append", "events", "kinds", "sessions", "streams", "session"),
        *("anomalies", "projections", "rebuild", "info", "label"),
        *("verify", "ship", "continue", "recover", "prune", "merge", "origins"),
    ]


def test_the_shell_completes_states():
    assert list(journal.SessionState) == list(SESSION_STATES)
    assert list(journal.StreamState) == list(STREAM_STATES)
    words = "journal streams x.db --state c"
    env = environment(_JOURNAL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="4")
    assert run(env=env).out == b"plain,Completed\nplain,Cancelled\n"


def test_the_commands_do_not_import_the_models_before_they_are_used():
    code = "import sys, journal.commands; sys.exit(bool({'apsw', 'pydantic'} & {*sys.modules}))"

    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


S, MIN, H, D = 10**9, 60 * 10**9, 3600 * 10**9, 86_400 * 10**9


def test_times_are_written_for_people():
    now = time.time_ns()
    ago = {
        0: "just now",
        S - 1: "just now",
        S: "1 s ago",
        MIN - 1: "59 s ago",
        3 * MIN: "3 min ago",
        D - 1: "23 h ago",
        -2 * H: "in 2 h",
    }
    assert {span: moment_text(now - span, now) for span in ago} == ago
    for text in ("2026-03-01T23:59:59.999999999Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:00Z"):
        moment = journal.Timestamp.parse(text).epoch_ns
        for other in (moment + D, moment - D):
            assert moment_text(moment, other) == text[:16].replace("T", " ")
    spans = {
        0: "0 ns",
        999: "999 ns",
        1_000: "1.0 us",
        9_999: "9.9 us",
        12_345_678: "12 ms",
        3_299_999_999: "3.2 s",
        MIN - 1: "59 s",
        MIN: "1 min",
        2 * H + 13 * MIN: "2 h 13 min",
        3 * D + 59 * MIN: "3 d",
        -90 * S: "-1 min 30 s",
    }
    assert {span: duration_text(span) for span in spans} == spans
    moments = {S - 1: "+0.000123", H - 1: "+00:00.000", H: "+0:00:00", 3 * D: "+0d 00:00:00"}
    assert {span: Clock(now, span).text(now + 123_456) for span in moments} == moments
    assert Clock(now, 9 * D).text(now + 2 * D + 5 * H + 61 * S) == "+2d 05:01:01"
    assert Clock(now, H - 1).text(now - 61 * S) == "-01:01.000"


def test_tables_have_their_numbers_to_the_right_and_no_needless_columns():
    columns = [
        Column("NAME"),
        *(Column("N", "number"), Column("M", "number")),
        Column("!", optional=True),
        Column("WORDS", "wrap"),
    ]
    rows = [["a", "1", "20", "", "some words"], ["bcdef", "1,000", "3", "", "y" * 20]]

    assert table(columns, rows, Look(None, colour=False)) == [
        "NAME       N   M  WORDS",
        "a          1  20  some words",
        "bcdef  1,000   3  yyyyyyyyyyyyyyyyyyyy",
    ]
    assert table(columns, rows, Look(30, colour=False)) == [
        "NAME       N  M  WORDS",
        "a          1 20  some words",
        "bcdef  1,000  3  yyyyyyyyyyyyy\n                 yyyyyyy",
    ]


def test_tables_do_without_the_time_of_day_and_then_without_columns_where_room_is_short():
    columns = [
        Column("NAME", spare=2),
        *(Column("ENDED", "time"), Column("N", "number", spare=1), Column("ERROR", "cut")),
    ]
    rows = [["abc", "2026-01-31 12:00", "1", "接続が失われ"], ["d", "3 min ago", "20", "é" * 20]]

    def at(width):
        return table(columns, rows, Look(width, colour=False))

    assert at(None) == [
        "NAME  ENDED              N  ERROR",
        "abc   2026-01-31 12:00   1  接続が失われ",
        f"d     3 min ago         20  {'é' * 20}",
    ]
    assert at(41)[1:] == [
        "abc   2026-01-31 12:00   1  接続が失われ",
        f"d     3 min ago         20  {'é' * 12}…",
    ]
    assert at(34) == [
        "NAME  ENDED        N  ERROR",
        "abc   2026-01-31   1  接続が失われ",
        f"d     3 min ago   20  {'é' * 11}…",
    ]
    assert at(30)[0] == "NAME  ENDED       ERROR"
    assert at(28)[1:] == ["2026-01-31  接続が失われ", f"3 min ago   {'é' * 15}…"]


def test_a_table_goes_on_with_wider_columns_and_a_new_header_where_others_are_shown():
    table = Table([Column("A"), Column("!", optional=True)], Look(None, colour=False))

    assert table.lines([["1", ""]]) == ["A", "1"]
    assert table.lines([["123", ""], ["4", ""]]) == ["123", "4"]
    assert table.lines([["5", "x"]]) == ["A    !", "5    x"]
    assert table.lines([["6", ""]]) == ["6"]


def test_what_is_left_out_in_the_middle_is_counted():
    rows = ["header", *map(str, range(10))]

    def without(lines, lines_max, hidden=0):
        return without_middle(lines, lines_max, "row", hidden)

    note = "... {} left out; a pipe, as to less, gets all ..."
    assert without(rows, 10) == rows
    assert without(rows, 9) == [*rows[:4], note.format("2 rows are"), *rows[6:]]
    assert without(rows, 3) == ["header", "0", note.format("8 rows are"), "9"]
    assert note.format("1,000 rows are") in without(rows, 11, 1_000)
    tall = ["header", "a", "b\nb\nb", "c"]
    assert without(tall, 4) == ["header", "a", note.format("1 row is"), "c"]


def test_widths_are_those_of_a_terminal():
    assert [width_of(text) for text in ("", "abc", "é", "e\u0301", "界", "\uff46")] == [
        0,
        3,
        1,
        1,
        2,
        2,
    ]
    assert padded("界", 4) == "界  "
    assert padded("界", 4, right=True) == "  界"
    assert shortened("界界界", 5) == "界界…"
    assert shortened("界界界", 6) == "界界界"
    assert shortened("界界界", 4) == "界…"
    assert wrapped("one two  three", 9) == ["one two", "three"]
    assert wrapped("界界界界 ab", 5) == ["界界", "界界", "ab"]
