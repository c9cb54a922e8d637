"""Programs that embed the journal run from whatever they are packed into: a zip archive, a zipapp,
what PyInstaller makes. apsw and pydantic are binary, and therefore beside an archive, not in it.
"""

import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest
from support import DATA, check_file, lines_of

import journal

ROOT = Path(__file__).parent.parent
PACKAGE = Path(journal.__file__).parent
PROGRAM = Path(__file__).with_name("bundled_program.py")
COMMAND = "from journal.__main__ import main\n\nmain()\n"
SUFFIX = ".exe" if os.name == "nt" else ""

# What Windows needs to start any program; nothing elsewhere: no PATH, no HOME, nothing of Python's.
EMPTY = {name: os.environ[name] for name in ("SYSTEMROOT",) if os.name == "nt"}


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def check_run(printed: str, path: Path, package_in: Path | str) -> None:
    """Assert that the program did its work, and with the package that was packed."""
    *words, package = printed.removesuffix("\n").split(" ", 3)
    assert words == ["session_activated", "stream_created", "Active"]
    assert Path(package).is_relative_to(package_in)
    assert not Path(package).is_relative_to(PACKAGE)
    assert len(check_file(path, closed=True)) == 2
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.execute("SELECT state FROM sessions").get == "Active"
    connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the package in a folder, to be packed."""
    folder = tmp_path / "to pack"
    shutil.copytree(PACKAGE, folder / "journal", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_from_a_zip_archive_on_the_path(folder: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    path = tmp_path / "a.db"

    env = {**os.environ, "PYTHONPATH": str(archive)}
    printed = run(sys.executable, PROGRAM, path, cwd=tmp_path, env=env)

    check_run(printed, path, archive)


def test_from_a_zipapp(folder: Path, tmp_path: Path) -> None:
    shutil.copy(PROGRAM, folder / "__main__.py")
    archive = tmp_path / "program.pyz"
    zipapp.create_archive(folder, archive)
    path = tmp_path / "a.db"

    printed = run(sys.executable, archive, path, cwd=tmp_path, env={**os.environ})

    check_run(printed, path, archive)


# PyInstaller, from the wheel


class Bundles(NamedTuple):
    """What PyInstaller made; the Python that it was made with is gone."""

    dist: Path
    modules: list[str]
    """Those in the one file."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Build the program as one folder and as one file, and the command as one folder."""
    work = tmp_path_factory.mktemp("bundles")
    wheels, env, dist = work / "wheels", work / "env", work / "dist"
    pip = "-m", "pip", "--disable-pip-version-check", "--quiet"
    build(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT)
    build(sys.executable, "-m", "venv", env)
    scripts = env / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = wheels.iterdir()
    build(scripts / "python", *pip, "install", wheel, "pyinstaller")
    (work / "command.py").write_text(COMMAND, "utf-8")
    for name, form, source in (
        ("folder", "--onedir", PROGRAM),
        ("file", "--onefile", PROGRAM),
        ("command", "--onedir", work / "command.py"),
    ):
        places = "--distpath", dist, "--workpath", work / "build", "--specpath", work
        build(scripts / "pyinstaller", form, "--name", name, "--log-level=WARN", *places, source)
    viewer = scripts / "pyi-archive_viewer"
    listed = build(viewer, "--list", "--recursive", "--brief", dist / f"file{SUFFIX}")
    shutil.rmtree(env)
    return Bundles(dist, listed.split())


def build(*command: str | Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.bundle
def test_as_one_folder(bundles: Bundles, tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    printed = run(bundles.dist / "folder" / f"folder{SUFFIX}", path, cwd=tmp_path, env=EMPTY)

    check_run(printed, path, bundles.dist / "folder")


@pytest.mark.bundle
def test_as_one_file(bundles: Bundles, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    alone = tmp_path / f"moved{SUFFIX}"
    shutil.copy(bundles.dist / f"file{SUFFIX}", alone)

    printed = run(alone, path, cwd=tmp_path, env=EMPTY)

    unpacked_to = Path(printed.removesuffix("\n").split(" ", 3)[-1]).parents[1]
    assert unpacked_to.name.startswith("_MEI")
    assert not unpacked_to.exists()
    check_run(printed, path, unpacked_to)


@pytest.mark.bundle
def test_the_command_itself(bundles: Bundles, tmp_path: Path) -> None:
    command, path = bundles.dist / "command" / f"command{SUFFIX}", tmp_path / "a.db"
    sample = DATA / "sample.ndjson"
    done = subprocess.run(
        [command, "append", path, sample], cwd=tmp_path, env=EMPTY, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr

    printed = run(command, "events", path, cwd=tmp_path, env=EMPTY)

    assert printed.splitlines() == lines_of("sample.ndjson")


@pytest.mark.bundle
def test_a_program_is_not_given_what_it_does_not_use(bundles: Bundles) -> None:
    tops = {name.split(".")[0] for name in bundles.modules}
    assert {"journal", "pydantic"} <= tops
    assert {"click", "pytest", "PyInstaller"} & tops == set()
    ours = {name for name in bundles.modules if name.startswith("journal.")}
    everything = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    }
    left_out = "journal.__main__", "journal._pyinstaller", "journal.commands", "journal.testing"
    assert ours == {name for name in everything if not name.startswith(left_out)} - {"journal"}
