"""The programs of the README's "In your application" run as they stand."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import apsw
import pytest
import support
from support import activated, names_in
from test_readme import blocks, run

from journal import SessionId


def test_the_desktop_application_runs(tmp_path: Path) -> None:
    (program,) = [block for block in blocks("python") if "class Recorder" in block]

    assert run(tmp_path, "-c", program) == "2 events, Completed\n"
    assert names_in(tmp_path) == ["desktop.db"]


def asked(url: str, data: bytes | None = None, **headers: str) -> tuple[int, object]:
    request = urllib.request.Request(url, data, headers)  # noqa: S310 (http)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + support.TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


@pytest.mark.skipif(sys.platform == "win32", reason="it is ended by a signal")
def test_the_service_runs(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (program,) = [block for block in blocks("python") if "aiohttp" in block]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    session = SessionId.new()
    lines = "\n".join(activated(session, number).model_dump_json() for number in range(3))
    path = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    service = subprocess.Popen(
        [sys.executable, "-c", program, str(port)],
        cwd=tmp_path,
        env={**os.environ, **path},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_it_listens(port)
        for _ in range(2):
            key = {"Idempotency-Key": "k"}
            assert asked(f"{url}/events", lines.encode(), **key) == (200, {"first": 1, "last": 3})
        assert asked(f"{url}/events", b"{}", **key)[0] == 400
        assert asked(f"{url}/events", lines[: lines.index("\n")].encode(), **key)[0] == 400
        assert asked(f"{url}/events", b"", **{"Idempotency-Key": ""})[0] == 400
        assert asked(f"{url}/events", b"")[1] == {"first": None, "last": None}
        expected = {"state": "Active", "events": 3}
        assert asked(f"{url}/sessions/{session}") == (200, expected)
        assert asked(f"{url}/sessions/{SessionId.new()}")[0] == 404
        with contextlib.closing(apsw.Connection(str(tmp_path / "service.db"))) as damaging:
            damaging.execute("UPDATE append_key SET digest = 'damaged'")
        assert asked(f"{url}/events", lines.encode(), **key)[0] == 500  # no fault of the client
        service.send_signal(signal.SIGTERM)
        assert service.wait(support.TIMEOUT_S) == 0
    finally:
        service.kill()
        service.wait()
    assert names_in(tmp_path) == ["service.db"]
