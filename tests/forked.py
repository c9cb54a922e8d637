"""Starting programs that use the package without loading it each time, which takes up to a second.

A process that has loaded everything waits for them and forks itself for each. A program then runs
in a process of its own, and the interpreter ends with it as it does after `python -m journal` or
`python -c`. What happens while it loads cannot be seen this way.
"""

import atexit
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

_SERVER = """
import gc, importlib, os, pickle, pkgutil, signal, socket, sys, time, types
import journal

for found in pkgutil.walk_packages(journal.__path__, "journal."):
    if "_pyinstaller" not in found.name:
        importlib.import_module(found.name)
gc.collect()
gc.freeze()

line = socket.socket(fileno=int(sys.argv[1]))
while True:
    request, files, _, _ = socket.recv_fds(line, 65536, 4)
    if not request:
        os._exit(0)
    if os.fork() == 0:
        break
    for file in files:
        os.close(file)
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break

line.close()
*standard, told = files
child = os.fork()
if child:
    os.write(told, b"%8d" % child)
    for file in standard:
        os.close(file)
    os.write(told, b"%8d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)

os.close(told)
for number, file in enumerate(standard):
    os.dup2(file, number)
    os.close(file)
given = pickle.loads(request)
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in given["ignored"]:
    signal.signal(number, signal.SIG_IGN)
if given["in_own_session"]:
    os.setsid()
os.chdir(given["folder"])
for name in given["unset"]:
    del os.environ[name]
os.environ.update(given["set"])
time.tzset()
for number, name, mode in (0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"):
    was = getattr(sys, name)
    like = {"encoding": was.encoding, "errors": was.errors, "closefd": False}
    now = open(number, mode, 1 if number == 2 else -1, **like)
    setattr(sys, name, now)
    setattr(sys, f"__{name}__", now)
sys.argv = ["-c", *given["arguments"]]
main = sys.modules["__main__"] = types.ModuleType("__main__")
exec(given["code"], main.__dict__)
"""

_JOURNAL = "from journal.__main__ import main\nmain()"

_NAMES = "SIGINT", "SIGTERM", "SIGHUP"
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class _Server:
    """The process that has everything loaded."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.line, theirs = socket.socketpair()
        command = [sys.executable, "-c", _SERVER, str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env=environment, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self.line.close()
        self._process.wait()


_servers: list[_Server] = []


class Forked:
    """A program that was started; what is here is as in `subprocess.Popen`."""

    def __init__(
        self,
        program: Sequence[str],
        arguments: Sequence[str],
        *,
        usual: Mapping[str, str],
        env: Mapping[str, str],
        stdin: Any,
        stdout: Any,
        stderr: Any,
        cwd: str | os.PathLike[str] | None = None,
        bufsize: int = -1,
        start_new_session: bool = False,
    ) -> None:
        if not _servers:
            _servers.append(_Server(usual))
        (server,) = _servers
        self.args = [sys.executable, *program, *arguments]
        self.returncode: int | None = None
        ours: list[Any] = []
        theirs: list[int] = []
        for number, wanted in enumerate([stdin, stdout, stderr]):
            if wanted == subprocess.PIPE:
                ends = os.pipe()
                one, other = ends if number else ends[::-1]
                ours.append(open(one, "rb" if number else "wb", bufsize))  # noqa: SIM115
                theirs.append(other)
            elif wanted == subprocess.DEVNULL:
                ours.append(None)
                theirs.append(os.open(os.devnull, os.O_RDWR))
            else:
                ours.append(None)
                theirs.append(os.dup(wanted if isinstance(wanted, int) else wanted.fileno()))
        self.stdin, self.stdout, self.stderr = ours
        self._told, told = os.pipe()
        request = {
            "code": _JOURNAL if program[0] == "-m" else program[1],
            "arguments": list(arguments),
            "set": {k: v for k, v in env.items() if server.environment.get(k) != v},
            "unset": [name for name in server.environment if name not in env],
            "ignored": [it for it in _SIGNALS if signal.getsignal(it) is signal.SIG_IGN],
            "folder": os.getcwd() if cwd is None else str(cwd),  # noqa: PTH109
            "in_own_session": start_new_session,
        }
        data = pickle.dumps(request)
        assert len(data) < 30_000, "does not come in one piece"
        socket.send_fds(server.line, [data], [*theirs, told])
        for file in (*theirs, told):
            os.close(file)
        self.pid = int(os.read(self._told, 8))

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(os.read(self._told, 8))
            os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, given: bytes | None = None, timeout: float | None = None) -> Any:
        found: dict[str, bytes] = {}

        def give() -> None:
            with suppress(BrokenPipeError):
                self.stdin.write(given or b"")
                self.stdin.flush()
            with suppress(BrokenPipeError):
                self.stdin.close()

        def read(name: str) -> None:
            found[name] = getattr(self, name).read()

        threads = [threading.Thread(target=give)] if self.stdin is not None else []
        for name in ("stdout", "stderr"):
            if getattr(self, name) is not None:
                threads.append(threading.Thread(target=read, args=(name,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
        self.wait(timeout)
        return found.get("stdout"), found.get("stderr")


def can_fork(program: Sequence[str], env: Mapping[str, str], usual: Mapping[str, str]) -> bool:
    """Return whether a program would be the same if it were forked, by its environment, too."""
    knows = program[0] == "-c" or list(program) == ["-m", "journal"]
    if not hasattr(socket, "send_fds") or not knows:
        return False
    differ = {name for name in {*env, *usual} if env.get(name) != usual.get(name)}
    return not any(name.startswith(("PYTHON", "LC_", "LANG")) for name in differ)
