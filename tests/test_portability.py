"""What only Unix has is used where it is there: the package and the tests, read as on Windows."""

import ast
import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from support import Child, append_and_die, numbered

import journal
from journal import Journal, SessionId, StorageError
from journal.file.paths import uri_of

ROOT = Path(__file__).parent.parent
PACKAGE = Path(journal.__file__).parent

# Modules, and names in modules.
UNIX_ONLY = """
crypt fcntl grp posix pty pwd resource syslog termios tty

os.chown os.chroot os.fchmod os.fchown os.fork os.forkpty os.getegid os.geteuid os.getgid
os.getgroups os.getloadavg os.getpgid os.getpgrp os.getsid os.getuid os.killpg os.lchown
os.mkfifo os.mknod os.nice os.openpty os.posix_fadvise os.posix_fallocate os.posix_spawn
os.pread os.pwrite os.sched_getaffinity os.sched_setaffinity os.setegid os.seteuid os.setgid
os.setgroups os.setpgid os.setregid os.setreuid os.setsid os.setuid os.statvfs os.sync
os.sysconf os.ttyname os.uname os.wait os.wait3 os.wait4
os.O_CLOEXEC os.O_DIRECTORY os.O_DSYNC os.O_NOFOLLOW os.O_NONBLOCK os.O_SYNC os.WNOHANG

select.epoll select.kqueue select.poll

signal.SIGALRM signal.SIGCHLD signal.SIGCONT signal.SIGHUP signal.SIGKILL signal.SIGPIPE
signal.SIGQUIT signal.SIGSTOP signal.SIGTSTP signal.SIGTTIN signal.SIGTTOU signal.SIGUSR1
signal.SIGUSR2 signal.SIGWINCH signal.SIGXFSZ signal.alarm signal.getitimer signal.pause
signal.pthread_kill signal.pthread_sigmask signal.setitimer signal.siginterrupt
signal.sigpending signal.sigtimedwait signal.sigwait signal.sigwaitinfo

socket.AF_UNIX time.pthread_getcpuclockid time.tzset
"""
UNIX_NAMES = frozenset(UNIX_ONLY.split())

# Python's own modules are imported beforehand: on Windows they do without. The tests are imported,
# which is when they are parametrised; to collect them, too, pytest would take four times as long.
IMPORT = """
import asyncio, ctypes, importlib, multiprocessing.connection, pathlib, shutil, signal, subprocess
import sys, tarfile, tempfile, traceback, zipapp
import pytest

for name in sys.argv.pop(1).split():
    module, _, attribute = name.partition(".")
    if attribute:
        vars(importlib.import_module(module)).pop(attribute, None)
    else:
        sys.modules[module] = None
folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
for path in sorted(folder.glob("test_*.py")):
    try:
        importlib.import_module(path.stem)
    except pytest.skip.Exception:
        pass
    except Exception:
        print("ERROR", path.name)
        traceback.print_exc()
    else:
        print("imported", path.name)
"""


def imported(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import the tests of a folder in a process that lacks what Windows lacks."""
    command = [sys.executable, "-c", IMPORT, UNIX_ONLY, folder]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    )


def test_every_test_is_there_without_what_only_unix_has() -> None:
    done = imported(ROOT / "tests")

    assert "ERROR" not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("imported test_") > 60


def test_what_windows_lacks_is_missed(tmp_path: Path) -> None:
    lines = [
        "import fcntl",
        "from signal import SIGKILL",
        "import os\nos.fork",
        "import os, signal",
    ]
    for number, line in enumerate(lines):
        (tmp_path / f"test_{number}.py").write_text(f"{line}\ndef test_it(): pass\n", "utf-8")

    done = imported(tmp_path)

    assert re.findall(r"^ERROR test_(\d)\.py", done.stdout, re.MULTILINE) == ["0", "1", "2"]
    assert re.findall(r"^imported test_(\d)\.py", done.stdout, re.MULTILINE) == ["3"]


# The package: a function, or a statement outside of any, asks before it uses what only Unix has


def unguarded(source: str) -> list[str]:
    """Return what a module uses of Unix alone without asking whether it is there."""
    module = ast.parse(source)
    return list(_unguarded(module, module))


def _unguarded(node: ast.AST, scope: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inside = child if isinstance(node, ast.Module | ast.ClassDef) else scope
        for name in _unix_names(child):
            if not _asks_for(name, ast.unparse(inside)):
                yield name
        yield from _unguarded(child, inside)


def _unix_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names):
            used = [alias.name for alias in names]
        case ast.ImportFrom(str(module), names, 0):
            used = [module, *(f"{module}.{alias.name}" for alias in names)]
        case ast.Attribute(ast.Name(module), name):
            used = [f"{module}.{name}"]
        case _:
            return []
    return [name for name in used if name in UNIX_NAMES]


def _asks_for(name: str, scope: str) -> bool:
    module, _, attribute = name.partition(".")
    questions = "sys.platform", "os.name", f"hasattr({module}, '{attribute}')"
    caught = r"except \(?[\w, ]*(ImportError|ModuleNotFoundError|AttributeError)"
    return any(question in scope for question in questions) or bool(re.search(caught, scope))


def test_the_package_asks_for_what_only_unix_has() -> None:
    uses = {path.name: unguarded(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}

    assert {name: used for name, used in uses.items() if used} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import fcntl", ["fcntl"]),
        ("from resource import getrusage", ["resource"]),
        ("from os import fork, getpid", ["os.fork"]),
        ("import signal\nsignal.signal(signal.SIGHUP, f)", ["signal.SIGHUP"]),
        ("def f():\n    return select.poll()", ["select.poll"]),
        ("def f():\n    hasattr(os, 'fork')\ndef g():\n    os.fork()", ["os.fork"]),
        ("class A:\n    x = hasattr(os, 'fork')\n    def g(self):\n        os.fork()", ["os.fork"]),
        ("if hasattr(os, 'fork'):\n    os.geteuid()", ["os.geteuid"]),
        ("import os, signal, select, time", []),
        ("if hasattr(os, 'fork'):\n    os.fork()", []),
        ("if sys.platform != 'win32':\n    import fcntl", []),
        ("try:\n    import fcntl\nexcept (ImportError, OSError):\n    fcntl = None", []),
        ("def f():\n    if os.name == 'nt':\n        return\n    os.kill(1, signal.SIGKILL)", []),
        ("def f():\n    try:\n        g()\n    except OSError:\n        os.sync()", ["os.sync"]),
    ],
)
def test_the_scan_sees_what_it_should(source: str, found: list[str]) -> None:
    assert unguarded(source) == found


# Names, as SQLite takes them apart


class Noting(apsw.VFS):
    """Notes the name of what is to be opened, and opens nothing."""

    def __init__(self) -> None:
        self.name: str | None = None
        super().__init__("noting", "")

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802, ARG002
        self.name = name.filename()
        raise apsw.CantOpenError(self.name)


@pytest.mark.parametrize(
    "name",
    [
        "/tmp/a b?mode=rw#c%41&d.db",
        "/tmp/\xe4\u6f22\U0001f600.db",
        "C:\\data\\a.db",
        "\\\\server\\share\\a.db",
        "\\\\?\\C:\\data\\a.db",
        "\\\\?\\UNC\\server\\share\\a.db",
    ],
)
def test_every_name_comes_to_sqlite_as_it_is(name: str) -> None:
    class Named(type(Path())):  # type: ignore[misc]
        def __str__(self) -> str:
            return name

    noting = Noting()
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(uri_of(Named("a"), mode="ro", immutable=1), flags=flags, vfs="noting")
    noting.unregister()

    assert noting.name == name


# Syncing, as on macOS

F_FULLFSYNC = 51


def sync_as_on_macos(monkeypatch: pytest.MonkeyPatch, error: int = 0) -> list[str]:
    """Return the list that will have the syncs which are not SQLite's; full ones have an error."""
    fcntl = pytest.importorskip("fcntl")
    others = fcntl.fcntl
    syncs: list[str] = []

    def control(descriptor: int, command: int, *arguments: Any) -> Any:
        if command != F_FULLFSYNC:
            return others(descriptor, command, *arguments)
        syncs.append("full")
        if error:
            raise OSError(error, os.strerror(error))
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda _: syncs.append("plain"))
    return syncs


@pytest.fixture
def left_by_a_crash(tmp_path: Path) -> Path:
    with Child(append_and_die, tmp_path / "a.db", numbered(SessionId.new(), [1])) as child:
        child.wait_until_killed()
    return tmp_path / "a.db"


def test_the_wal_is_synced_to_the_disk_itself(
    left_by_a_crash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = sync_as_on_macos(monkeypatch)

    Journal.open(left_by_a_crash).close()

    assert set(syncs) == {"full"}


@pytest.mark.parametrize("error", ["ENOTSUP", "EINVAL"])
def test_a_file_system_without_full_syncs_has_plain_ones(
    left_by_a_crash: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    syncs = sync_as_on_macos(monkeypatch, getattr(errno, error))

    Journal.open(left_by_a_crash).close()

    assert set(zip(syncs[::2], syncs[1::2], strict=True)) == {("full", "plain")}


def test_a_full_sync_that_fails_is_not_made_good_by_a_plain_one(
    left_by_a_crash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = sync_as_on_macos(monkeypatch, errno.EIO)

    with pytest.raises(StorageError, match="cannot be synced"):
        Journal.open(left_by_a_crash)

    assert set(syncs) == {"full"}
