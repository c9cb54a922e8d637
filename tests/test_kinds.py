"""The table of kinds: one row is all that a new kind takes, and what it lacks is told at once."""

import ast
import os
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from support import lines_of

import journal
import journal.events
from journal import DamagedError, Journal, SessionId, StreamId, UnknownEvent, parse_event
from journal.events.kinds import KINDS

PACKAGE = Path(journal.__file__).parent

ONE_MORE = '''
class StreamPaused(StreamEvent):
    """A stream waits, with so many frames to send."""

    event_type: Literal["stream_paused"] = "stream_paused"
    waiting_frames: U64

'''


def copy_with(folder: Path, row: str) -> None:
    """Copy the package, with one more row at the end of the table."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "journal", ignore=ignore)
    table = folder / "journal" / "events" / "kinds.py"
    text = table.read_text("utf-8")
    assert text.count("\n_rows: ") == 1
    table.write_text(text.replace("\n_rows: ", f"{row}\n_rows: "), "utf-8")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tests = Path(__file__).parent
    path = os.pathsep.join([str(folder), str(tests)])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def unknown(kind: str, session: SessionId, stream: StreamId, more: str = "") -> str:
    return (
        f'{{"event_type":"{kind}","session_id":"{session}","stream_id":"{stream}",{more}'
        f'"timestamp":"2026-01-01T00:00:01Z"}}'
    )


def test_a_new_kind_is_one_row(tmp_path: Path) -> None:
    copy_with(tmp_path, ONE_MORE)
    session, stream = SessionId.new(), StreamId.new()
    with Journal.open(tmp_path / "old.db") as older:
        older.append_ndjson(
            [
                unknown("stream_resumed", session, stream),
                *lines_of("mixed/events.ndjson")[:50],
                unknown("stream_created", session, stream),
                unknown("stream_paused", session, stream, ' "waiting_frames": 5, "more": [], '),
            ],
            unknown="keep",
        )
        assert older.streams()[-1].event_count > 0

    result = run(tmp_path, str(Path(__file__).with_name("one_more_kind.py")), str(tmp_path))

    assert result.stderr == ""
    assert result.stdout == "all is well\n"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (ONE_MORE.replace("U64", "int"), "StreamPaused.waiting_frames: expected U64, U8, Float"),
        (ONE_MORE.replace("U64", "dict[str, U64]"), "StreamPaused.waiting_frames: expected U64"),
        (ONE_MORE.replace("stream_paused", "stream_failed"), "two of the classes above declare"),
    ],
)
def test_what_a_row_lacks_is_an_error_at_import(tmp_path: Path, row: str, complaint: str) -> None:
    copy_with(tmp_path, row)

    result = run(tmp_path, "-c", "import journal.events.kinds")

    assert result.returncode == 1
    assert complaint in result.stderr


def test_a_file_tells_its_kinds(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "a.db") as journal:
        assert journal.kind_names() == sorted(KINDS)
        journal.append_ndjson(lines_of("next_version.ndjson"), unknown="keep")
        assert journal.kind_names() == sorted([*KINDS, "backpressure_received"])


def test_type_checkers_see_every_kind_in_the_union() -> None:
    tree = ast.parse((PACKAGE / "events" / "kinds.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and node.orelse)
    (union,) = (node for node in block.body if isinstance(node, ast.Assign))
    names = [node.id for node in ast.walk(union.value) if isinstance(node, ast.Name)]

    assert sorted(names) == sorted(kind.model.__name__ for kind in KINDS.values())
    assert {kind.model.__name__ for kind in KINDS.values()} <= set(journal.__all__)


def test_help_shows_every_kind_with_its_fields_and_units() -> None:
    page = pydoc.plain(pydoc.render_doc(journal.events))

    for kind in KINDS.values():
        assert f"    {kind.name}\n      {kind.model.__doc__}\n".replace("`", "") in page
        for field in kind.fields:
            unit = f" +{field.unit}" * bool(field.unit) + ", or null" * field.nullable
            row = rf"        {re.escape(field.name)} +{field.type.name}{unit}\n"
            assert re.search(row, page), field.name
            assert f"    {field.type.name:<12}  {field.type.values}\n" in page
    assert re.search("timeout_duration +u64 +seconds\n", page)
    assert re.search("average_frame_size +float +bytes\n", page)
    assert re.search("latency_ms +u64 +ms, or null\n", page)
    assert max(map(len, page.partition("The kinds of events")[2].splitlines())) <= 80


def test_every_figure_has_a_unit() -> None:
    figures = [
        (kind.name, field)
        for kind in KINDS.values()
        for field in kind.fields
        if field.type.name in {"u64", "u8", "float"}
    ]

    assert len(figures) == 18
    assert [(name, field.name) for name, field in figures if field.unit is None] == []


def test_the_fold_goes_by_the_codes_of_the_file(tmp_path: Path) -> None:
    """Every code of the file stands for another kind than in a new file."""
    lines = lines_of("mixed/events.ndjson")[:600]
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_ndjson(lines)
        expected = journal.sessions(), journal.streams(), journal.anomalies()
    file = apsw.Connection(str(tmp_path / "a.db"))
    file.execute(
        "DROP TRIGGER event_is_never_updated; UPDATE event SET kind = 117 - kind;"
        "UPDATE kind SET code = 117 - code; DELETE FROM checkpoint"
    )
    file.close()

    with Journal.open(tmp_path / "a.db") as journal:
        assert [text for _, text in journal.lines()] == lines
        assert (journal.sessions(), journal.streams(), journal.anomalies()) == expected
        journal.append_ndjson(lines[:5])
        assert journal.rebuild(check=True)[0].change_count == 0


def test_a_kind_of_this_version_under_a_code_of_an_unknown_one_is_not_mixed_up(
    tmp_path: Path,
) -> None:
    """Code 17 was a foreign kind's before; it is not counted as a stream."""
    session, stream = SessionId.new(), StreamId.new()
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_ndjson([unknown("light_switched", session, stream)], unknown="keep")
        assert journal.streams() == []
        assert journal.sessions() == []
        assert journal.version(session) == 1
        (event,) = journal.get_events_for_stream(stream)
        assert isinstance(event, UnknownEvent)


@pytest.mark.parametrize(
    "fields", ["'[\"size\"]'", "'[]'", "'{'", '\'["frame_size_bytes","more"]\'']
)
def test_other_fields_of_a_known_kind_are_damage(tmp_path: Path, fields: str) -> None:
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_ndjson(lines_of("mixed/events.ndjson")[:20])
    file = apsw.Connection(str(tmp_path / "a.db"))
    file.execute(f"UPDATE kind SET fields = {fields} WHERE name = 'skeleton_generated'")
    file.close()

    with pytest.raises(DamagedError, match="kind"):
        Journal.open(tmp_path / "a.db")
    with Journal.open(tmp_path / "a.db", read_only=True) as journal:
        for ask in (lambda: list(journal.read()), lambda: list(journal.lines()), journal.sessions):
            with pytest.raises(DamagedError):
                ask()


def test_every_kind_goes_through_a_file_unchanged(tmp_path: Path) -> None:
    lines = lines_of("kinds.ndjson")
    events = [parse_event(line) for line in lines]
    assert {event.event_type for event in events} == set(KINDS)
    with Journal.open(tmp_path / "a.db") as journal:
        journal.append_events(events)
        assert [one.event for one in journal.read()] == events
        assert [text for _, text in journal.lines()] == lines
