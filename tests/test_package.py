"""The package as a whole: its public names, its layers, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import journal

PACKAGE = Path(journal.__file__).parent

# Each room or module may import those before it, and none after.
LAYERS = [
    "_pyinstaller",
    "_resources",
    "_version",
    "errors",
    "events",
    "store",
    "memory",
    "testing",
    "file",
    "projections",
    "journal",
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
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name in {"__init__", "commands"}:
            continue
        allowed = set(LAYERS[: LAYERS.index(name)]) | {name}
        assert imports_of(path) <= allowed, path.name


def test_events_know_nothing_of_storage() -> None:
    code = "import sys, journal.events.wire, journal.memory; sys.exit('apsw' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_nothing_large() -> None:
    code = "import sys, journal; sys.exit(bool({'apsw', 'pydantic', 'click'} & {*sys.modules}))"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_documented() -> None:
    for name in journal.__all__:
        assert getattr(journal, name) is not None
    assert set(journal.__all__) <= set(dir(journal))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = journal.nothing  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert seen == {name: f"journal.{home}" for name, home in journal._HOMES.items()}
