"""What recovering takes grows with the file, not with its square."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from support import lines_of

import journal
from journal import Journal


@pytest.fixture
def steps() -> Iterator[list[int]]:
    """Yield the steps of SQLite's machine, of each statement that any new connection runs."""
    found: list[int] = []
    hooks = list(apsw.connection_hooks)

    def watch(connection: apsw.Connection) -> None:
        connection.trace_v2(
            apsw.SQLITE_TRACE_PROFILE,
            lambda event: found.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]),
        )

    apsw.connection_hooks.append(watch)
    yield found
    apsw.connection_hooks[:] = hooks


def test_from_its_pages(tmp_path: Path, steps: list[int]) -> None:
    """Four times as many events, sessions and streams take some four times as many steps."""
    taken = []
    for count in (1_300, 5_200):
        path = tmp_path / f"{count}.db"
        with Journal.open(path, durability="normal") as opened:
            opened.append_ndjson(lines_of("mixed/events.ndjson")[:count])
        # Without its first page it cannot be read through SQLite.
        path.write_bytes(bytes(4096) + path.read_bytes()[4096:])
        steps.clear()
        assert journal.recover(path, tmp_path / "out.db", force=True).proven_count == count
        taken.append(sum(steps))
    assert taken[1] < 5.5 * taken[0], taken
