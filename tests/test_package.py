"""The package as a whole: its public names, its layers, and what importing it costs."""

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import journal
import journal.events
import journal.file
import journal.maintenance
import journal.testing

PACKAGE = Path(journal.__file__).parent
README = (PACKAGE.parent / "README.md").read_text("utf-8")

PUBLIC = [
    "AccessDeniedError",
    "AsyncJournal",
    "BufferedJournal",
    "BusyError",
    "ClosedCopyError",
    "ClosedError",
    "CommitFailedError",
    "ConcurrencyError",
    "DamagedError",
    "DomainEvent",
    "EventStore",
    "EventSubscriber",
    "FileReplacedError",
    "Finding",
    "FlushFailedError",
    "FoldError",
    "FramesBatched",
    "InMemoryEventStore",
    "InvalidEventError",
    "Journal",
    "JournalError",
    "JournalNotFoundError",
    "KeyConflictError",
    "LineRejectedError",
    "NewerFormatError",
    "NotAClosedCopyError",
    "NotADatabaseError",
    "NotAJournalError",
    "OpenSourceError",
    "OtherHistoryError",
    "OverloadedError",
    "PatchFramesGenerated",
    "PathIsDirectoryError",
    "PerformanceMetrics",
    "PerformanceMetricsRecorded",
    "PriorityDistribution",
    "PriorityThresholdAdjusted",
    "Projection",
    "PrunedError",
    "PrunedFleetError",
    "ReadOnlyError",
    "Recovery",
    "Retention",
    "SessionActivated",
    "SessionClosed",
    "SessionExpired",
    "SessionId",
    "SessionState",
    "SessionTimedOut",
    "SessionTimeoutExtended",
    "SkeletonGenerated",
    "StaleWalError",
    "StorageError",
    "StorageFullError",
    "StreamCancelled",
    "StreamCompleted",
    "StreamConfigUpdated",
    "StreamCreated",
    "StreamFailed",
    "StreamId",
    "StreamStarted",
    "StreamState",
    "TargetExistsError",
    "Timestamp",
    "UnknownEvent",
    "UnknownKindError",
    "UnknownProjectionError",
    "UnsafeSQLiteError",
    "Verification",
    "WrongTargetError",
    "continue_copy",
    "merge",
    "parse_event",
    "recover",
    "verify",
]

# What methods return and nobody makes, by where it can be imported from for annotations.
RETURNED = {
    "store": "Appended Outcome RecordedEvent LinesAppended RejectedLine",
    "file": "JournalInfo LineAppender Origin",
    "projections": "SessionStatus StreamStatus Anomaly ProjectionStatus Change RebuildReport",
    "maintenance": "Shipment AbsentRange Continued PruneReport Redaction Merged WaitingPart"
    " MergedOrigin Provenance SharedSession",
    "live": "AsyncTicket Ticket",
    "events": "AnyEvent EventId PriorityPercentages",
}

# Each room or module may import those before it, and none after.
LAYERS = [
    "_pyinstaller",
    "_lazily",
    "_resources",
    "_version",
    "_signals",
    "_signatures",
    "errors",
    "limits",
    "events",
    "store",
    "memory",
    "testing",
    "file",
    "projections",
    "maintenance",
    "live",
    "journal",
    "live.async_journal",
    "commands",
    "__main__",
]


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("journal"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_imports_point_one_way() -> None:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in {"__init__", "commands"}:
            continue
        name = ".".join(parts) if ".".join(parts) in LAYERS else parts[0]
        allowed = set(LAYERS[: LAYERS.index(name)]) | {name}
        assert imports_of(path) <= allowed, path.name


def module_graph(folder: Path, package: str) -> dict[str, set[str]]:
    """Return which modules each module names in its imports, wherever in it they are.

    That is more than Python would execute: those for type checkers count, and those in functions.
    That importing a module executes the packages above it does not.
    """
    paths = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        paths[".".join([package, *parts]).removesuffix(".__init__")] = path
    return {
        name: {
            target
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            for target in _imported(node, paths)
        }
        for name, path in paths.items()
    }


def _imported(node: ast.AST, modules: Iterable[str]) -> Iterable[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}.intersection(modules)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports are not looked at"
        inside = {f"{node.module}.{alias.name}" for alias in node.names}
        found = inside.intersection(modules)
        return found if found == inside else {*found, node.module or ""}.intersection(modules)
    return ()


def circle_in(graph: Mapping[str, set[str]]) -> str:
    """Return modules that import each other, the first one again at the end; "" for none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


def test_imports_make_no_circle() -> None:
    graph = module_graph(PACKAGE, "journal")

    assert circle_in(graph) == ""
    assert len(graph) > 40
    assert "journal.events.unknown" in graph["journal.store"]


def test_a_circle_would_be_found_also_among_imports_for_type_checkers(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    for name, text in {
        "__init__": "",
        "errors": "if TYPE_CHECKING:\n    from p.room import rows\n",
        "room/__init__": "",
        "room/rows": "def late():\n    import p.wire\n",
        "wire": "from p import errors\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")

    circle = circle_in(module_graph(tmp_path, "p"))

    assert set(circle.split(" -> ")) == {"p.errors", "p.room.rows", "p.wire"}
    assert circle in "p.errors -> p.room.rows -> p.wire -> p.errors -> p.room.rows -> p.wire"


def test_events_know_nothing_of_storage() -> None:
    code = "import sys, journal.events.wire, journal.memory; sys.exit('apsw' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_nothing_large() -> None:
    code = "import sys, journal; sys.exit(bool({'apsw', 'pydantic', 'click'} & {*sys.modules}))"

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["Journal", "BufferedJournal"])
def test_signatures_in_help_fit_a_line(name: str) -> None:
    page = pydoc.plain(pydoc.render_doc(getattr(journal, name)))
    shown = re.findall(r"^ \|  ((\w+)\(.*)$", page, re.MULTILINE)
    by_name = {method: text for text, method in shown}

    assert len(by_name) > 25
    assert [text for text, _ in shown if len(text) > 76] == []
    assert by_name["session"] == "session(self, session_id, *, as_of=None) -> SessionStatus | None"
    assert by_name["append_ndjson"] == (
        "append_ndjson(self, lines, *, on_error='stop', unknown='reject', …)"
    )
    assert by_name["prune"].startswith("prune(self, *, before=None, keep_events=None, ")
    assert by_name["prune"].endswith(", …)")
    assert by_name["open"].startswith("open(path, *, read_only=False, durability='full', …)")


def test_signatures_that_are_cut_are_known_in_full() -> None:
    assert [*inspect.signature(journal.Journal.lines).parameters] == (
        ["self", "after", "session_id", "stream_id", "since", "until", "kinds", "origin"]
    )
    opening = inspect.signature(journal.Journal.open)
    assert [*opening.parameters][:2] == ["path", "read_only"]
    assert opening.bind("a.db", on_flush_failed=print).arguments["on_flush_failed"] is print
    inspect.signature(journal.Journal.prune).bind(None, keep_events=1, progress=print)


def test_the_public_names_are_these() -> None:
    assert journal.__all__ == PUBLIC


@pytest.mark.parametrize("room", RETURNED)
def test_what_is_only_returned_can_be_imported_for_annotations(room: str) -> None:
    module = import_module(f"journal.{room}")
    names = RETURNED[room].split()

    for name in names:
        assert getattr(module, name).__name__
        assert not hasattr(journal, name)
    assert f"`journal.{room}` (" + ", ".join(f"`{name}`" for name in names) + ")" in README
    with pytest.raises(AttributeError):
        _ = module.nothing


def test_every_public_name_is_there() -> None:
    for name in journal.__all__:
        assert getattr(journal, name) is not None
    assert set(journal.__all__) <= set(dir(journal))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = journal.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "package", [journal, journal.events, journal.file, journal.maintenance, journal.testing]
)
def test_type_checkers_see_the_same_public_names(package: ModuleType) -> None:
    tree = ast.parse(Path(package.__file__ or "").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert seen == {name: f"{package.__name__}.{home}" for name, home in package._HOMES.items()}


def test_commands_use_the_public_interface_and_no_sql() -> None:
    """What a command needs and the interface lacks is missing from the interface."""
    public = {"", "_signals", "_version", "commands", "errors", "events", "limits"}
    for path in (PACKAGE / "commands").rglob("*.py"):
        assert imports_of(path) <= public | {name for name in dir(journal) if name[0] != "_"}, path
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                mine = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls", "os"}
                assert mine or not private, f"{path.name}:{node.lineno} {node.attr}"
                assert node.attr not in {"execute", "executemany"}, f"{path.name}:{node.lineno}"
