"""Folds of a file that a package and a newer one, which knows one more kind, write in turn.

Neither takes for its own what the other one has folded, where that kind makes a difference.
"""

import json
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import pytest
from prune_support import rows
from pydantic_core import to_json
from support import NOON
from test_kinds import ONE_MORE, copy_with, run, unknown
from verify_support import COUNTING

from journal import (
    Journal,
    SessionActivated,
    SessionClosed,
    SessionId,
    StreamId,
    continue_copy,
    verify,
)
from journal.events import AnyEvent
from journal.projections.results import ProjectionStatus

pytestmark = pytest.mark.usefixtures("blocks_of_fifty")

SESSION, STREAM = SessionId.new(), StreamId.new()
ANOTHER_VERSION = "sessions and streams: another version has folded them"

PRELUDE = """
import json, sys
from pathlib import Path
from journal import *
from journal import limits
from verify_support import COUNTING
limits.BLOCK_EVENTS_MAX, limits.PAGE_EVENTS_MAX, limits.FOLD_EVENTS_MAX = 50, 40, 120
path, lines = Path(sys.argv[1]), json.loads(sys.argv[2])
def checked(opened):
    counts = [one.event_count for one in opened.sessions() + opened.streams()]
    assert [one.stale for one in opened.projections()] == [False] * len(opened.projections())
    assert [one.change_count for one in opened.rebuild(check=True)] == [0] * len(opened.rebuild())
    since = {one.since for one in opened.projections()}
    found = verify(path, full=True)
    return {"counts": counts, "since": since.pop() if len(since) == 1 else None,
        "sound": found.sound, "unchecked": found.unchecked}
def show(what):
    print(json.dumps(what))
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newer package."""
    folder = tmp_path_factory.mktemp("newer")
    copy_with(folder, ONE_MORE)
    return folder


def in_newer(newer: Path, code: str, path: Path, lines: list[str] | None = None) -> Any:
    """Run a program with the newer package, and return what it shows."""
    result = run(newer, "-c", PRELUDE + code, str(path), json.dumps(lines or []))
    assert result.stderr == ""
    return json.loads(result.stdout)


OPEN = """
with Journal.open(path) as opened:
    opened.append_ndjson(lines)
    show(checked(opened))
"""


def paused(count: int, session: SessionId = SESSION, stream: StreamId = STREAM) -> list[str]:
    return [
        unknown("stream_paused", session, stream, f'"waiting_frames":{n},') for n in range(count)
    ]


def activated(count: int) -> list[AnyEvent]:
    return [SessionActivated(session_id=SessionId.new(), timestamp=NOON) for _ in range(count)]


def counts_of(opened: Journal) -> list[int]:
    return [one.event_count for one in [*opened.sessions(), *opened.streams()]]


def built_in(opened: Journal) -> list[ProjectionStatus]:
    return [one for one in opened.projections() if one.name in {"sessions", "streams"}]


def is_sound(path: Path, unchecked: tuple[str, ...] = ()) -> bool:
    found = verify(path, full=True)
    assert found.findings == ()
    assert found.unchecked == unchecked
    return found.sound


def test_each_folds_anew_what_the_other_one_has_folded(tmp_path: Path, newer: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_events([SessionActivated(session_id=SESSION, timestamp=NOON)])
    found = in_newer(newer, OPEN, path, paused(3))
    assert found == {"counts": [4, 3], "since": 1, "sound": True, "unchecked": []}

    for expected in (2, 3):
        assert is_sound(path, (ANOTHER_VERSION,))
        with Journal.open(path, read_only=True) as opened:
            assert [one.stale for one in built_in(opened)] == [True, True]
            assert counts_of(opened) == [expected - 1]
        with Journal.open(path) as opened:
            opened.append_ndjson(paused(1), unknown="keep")
            opened.append_events([SessionActivated(session_id=SESSION, timestamp=NOON)])
            assert counts_of(opened) == [expected]
            assert [(one.version, one.stale) for one in built_in(opened)] == [(1, False)] * 2
            assert opened.rebuild(check=True)[0].changes == ()
        assert is_sound(path)
        found = in_newer(newer, "show(verify(path, full=True).unchecked)", path)
        assert found == [ANOTHER_VERSION]
        found = in_newer(newer, OPEN, path)
        counts = [4 + 2 * (expected - 1), 3 + expected - 1]
        assert found == {"counts": counts, "since": 1, "sound": True, "unchecked": []}


def test_a_shipment_of_a_newer_package_is_sound_and_can_be_gone_on_with(
    tmp_path: Path, newer: Path
) -> None:
    code = """
with Journal.open(path) as opened:
    opened.append_events([SessionActivated(session_id=SessionId.new(),
        timestamp=Timestamp.parse("2026-01-01T00:00:00Z"))])
    opened.append_ndjson(lines)
    opened.ship(path.with_name("copy.db"))
    show(opened.last_position)
"""
    assert in_newer(newer, code, tmp_path / "a.db", paused(3)) == 4

    assert is_sound(tmp_path / "copy.db", (ANOTHER_VERSION,))
    continue_copy(tmp_path / "copy.db", tmp_path / "new.db")
    with Journal.open(tmp_path / "new.db") as opened:
        assert counts_of(opened) == [1]
    assert is_sound(tmp_path / "new.db")


def test_states_of_an_application_are_folded_anew_too(tmp_path: Path, newer: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.register(COUNTING)
        opened.append_events(activated(2))
        opened.append_ndjson(paused(3), unknown="keep")
        assert opened.states("count")[""]["n"] == 2

    code = """
with Journal.open(path) as opened:
    opened.register(COUNTING)
    show([opened.states("count")[""]["n"], checked(opened)["since"]])
"""
    assert in_newer(newer, code, path) == [5, 1]
    with Journal.open(path) as opened:
        opened.register(COUNTING)
        assert [one.stale for one in opened.projections()] == [True] * 3
        assert opened.states("count")[""]["n"] == 2


def test_what_is_open_to_a_newer_package_is_kept(tmp_path: Path, newer: Path) -> None:
    path = tmp_path / "a.db"
    opening = [line for _ in range(60) for line in paused(1, SessionId.new(), StreamId.new())]
    in_newer(newer, OPEN, path, opening)
    with Journal.open(path) as opened:
        for one in activated(100):
            closed = SessionClosed(session_id=one.session_id, timestamp=NOON)
            opened.append_events([one, closed])
        assert len(opened.sessions()) == 100

    code = """
with Journal.open(path) as opened:
    plan = opened.prune(keep_events=20, keep_open=True, dry_run=True)
    made = opened.prune(keep_events=20, keep_open=True)
    show([plan.event_count, made.event_count, len(opened.sessions()), checked(opened)["since"]])
"""
    assert in_newer(newer, code, path) == [0, 0, 160, 1]


@pytest.mark.parametrize("is_kept_whole", [True, False])
def test_a_base_that_passed_over_a_kind_is_no_base_to_who_knows_it(
    tmp_path: Path, newer: Path, is_kept_whole: bool
) -> None:
    path = tmp_path / "a.db"
    if not is_kept_whole:
        in_newer(newer, OPEN, path)
    with Journal.open(path) as opened:
        opened.append_events([SessionActivated(session_id=SESSION, timestamp=NOON)])
    if is_kept_whole:
        with Journal.open(path) as opened:
            opened.append_ndjson(paused(60), unknown="keep")
    else:
        in_newer(newer, OPEN, path, paused(60))
    with Journal.open(path) as opened:
        opened.append_events(activated(140))
        assert opened.prune(keep_events=60).event_count == 100
        assert opened.prune(keep_events=20).event_count == 50  # it goes on from its own base
        assert len(opened.sessions()) == 141
        assert [(one.since, one.stale) for one in opened.projections()] == [(1, False)] * 2
        assert opened.rebuild(check=True)[0].changes == ()
    assert is_sound(path)

    in_newer_first = in_newer(newer, OPEN, path)
    assert in_newer_first == {"counts": [1] * 51, "since": 151, "sound": True, "unchecked": []}
    with Journal.open(path) as opened:
        assert len(opened.sessions()) == 141  # its base is still there
        assert [one.since for one in opened.projections()] == [1, 1]
    assert is_sound(path)


def test_a_base_that_counts_a_kind_is_no_base_to_who_lacks_it(tmp_path: Path, newer: Path) -> None:
    path = tmp_path / "a.db"
    in_newer(newer, OPEN, path, paused(60))
    with Journal.open(path) as opened:
        opened.append_events(activated(50))
    code = "with Journal.open(path) as opened: show(opened.prune(keep_events=30).event_count)"
    assert in_newer(newer, code, path) == 50

    assert is_sound(path, (ANOTHER_VERSION,))
    with Journal.open(path) as opened:
        assert len(opened.sessions()) == 50
        assert [one.since for one in opened.projections()] == [51, 51]
    assert is_sound(path)
    assert in_newer(newer, OPEN, path)["counts"] == [60, *[1] * 50, 60]


def test_a_kind_that_comes_after_a_cut_leaves_the_base_to_both(tmp_path: Path, newer: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_events(activated(120))
        assert opened.prune(keep_events=20).event_count == 100
        assert len(opened.sessions()) == 120

    assert in_newer(newer, OPEN, path, paused(3))["since"] == 1
    with Journal.open(path) as opened:
        assert len(opened.sessions()) == 120
        assert [one.since for one in opened.projections()] == [1, 1]
        assert opened.rebuild(check=True)[0].changes == ()
    assert is_sound(path)


def test_nothing_is_folded_anew_where_an_unknown_kind_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.register(COUNTING)
        opened.append_events(activated(120))
        assert len(opened.sessions()) == opened.states("count")[""]["n"] == 120
        for kind in ("light_switched", "stream_paused"):
            opened.append_ndjson([unknown(kind, SESSION, STREAM)], unknown="keep")
            assert [one.stale for one in opened.projections()] == [False] * 3
            assert [one.position for one in opened.projections()] == [120] * 3
        assert len(opened.sessions()) == opened.states("count")[""]["n"] == 120
    stored = {version for (version,) in rows(path, "SELECT version FROM checkpoint")}
    assert len(stored) == 1
    assert stored.pop() < 0
    assert is_sound(path, ("count: only its application can fold it",))


def standalone(path: Path) -> str:
    return f"opened.ship(path.with_name({path.name!r}), after=100, standalone=True)"


def test_the_base_of_a_delta_is_that_of_both_if_no_kind_makes_a_difference(
    tmp_path: Path, newer: Path
) -> None:
    path, delta, new = tmp_path / "a.db", tmp_path / "delta.db", tmp_path / "new.db"
    with Journal.open(path) as opened:
        opened.append_events(activated(120))
    in_newer(newer, f"{OPEN}    {standalone(delta)}", path, paused(10))
    continue_copy(delta, new)

    with Journal.open(new) as opened:
        opened.append_ndjson([unknown("light_switched", SESSION, STREAM)], unknown="keep")
        assert len(opened.sessions()) == 120
        assert [one.since for one in opened.projections()] == [1, 1]
    assert is_sound(new)


def test_the_base_of_a_delta_that_counts_a_kind_is_no_base_to_who_lacks_it(
    tmp_path: Path, newer: Path
) -> None:
    path, delta, new = tmp_path / "a.db", tmp_path / "delta.db", tmp_path / "new.db"
    in_newer(newer, OPEN, path, paused(10))
    with Journal.open(path) as opened:
        opened.append_events(activated(120))
    in_newer(newer, f"{OPEN}    {standalone(delta)}", path)
    continue_copy(delta, new)

    with Journal.open(new) as opened:
        assert len(opened.sessions()) == 80
        assert [one.since for one in opened.projections()] == [51, 51]
    assert is_sound(new)


def test_where_the_file_does_not_say_what_is_gone_all_kinds_count(tmp_path: Path) -> None:
    """The base stays that of who adds a kind, as there is no event of it before the cut."""
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_events(activated(120))
        opened.prune(keep_events=20)
    with closing(apsw.Connection(str(path))) as file:
        columns = list(file.execute("SELECT * FROM absent").fetchone())[:-1]
        columns[3] = None
        digest = sha256(to_json(columns)).hexdigest()
        file.execute("UPDATE absent SET counts = NULL, check_digest = ?", (digest,))

    with Journal.open(path) as opened:
        opened.append_ndjson(paused(3), unknown="keep")
        opened.rebuild()
        assert len(opened.sessions()) == 120
        assert [one.since for one in opened.projections()] == [1, 1]
    assert is_sound(path)
