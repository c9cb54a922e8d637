"""What the tests of pruning share: a file whose beginning is gone, and one that is whole."""

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import independent_reader
import pytest

from journal import Journal, limits
from journal.projections.checkpoints import base_digest

BLOCK = 50


def small_blocks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "BLOCK_EVENTS_MAX", BLOCK)
    patch.setattr(limits, "PAGE_EVENTS_MAX", 40)
    patch.setattr(limits, "FOLD_EVENTS_MAX", 120)


def rows(path: Path, sql: str, *parameters: Any) -> list[Any]:
    with closing(apsw.Connection(str(path))) as file:
        return file.execute(sql, parameters or None).fetchall()


def check_closed(path: Path) -> None:
    """Assert that a closed file holds together, what is gone from it included."""
    with closing(apsw.Connection(str(path))) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check_rows(file)
    independent_reader.read(path)


def check_rows(file: apsw.Connection) -> None:
    cut = file.execute("SELECT ifnull(max(last_seq), 0) FROM absent WHERE reason = 'pruned'").get
    for *columns, check_digest in file.execute("SELECT * FROM absent"):
        text = json.dumps(columns, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == check_digest
        counts = json.loads(columns[3])
        assert sum(counts.values()) == columns[1] - columns[0] + 1
    for name, position, digest in file.execute(
        "SELECT projection, position, check_digest FROM base"
    ):
        assert position == cut
        assert base_digest(file, name) == digest
    for table in ("session", "stream"):
        heads = {row[0]: row[1:] for row in file.execute(f"SELECT * FROM {table}")}
        left = dict(file.execute(f"SELECT {table}, count(*) FROM event GROUP BY 1"))
        before = dict(file.execute(f"SELECT {table}, events_before FROM base_{table}"))
        assert before.keys() <= heads.keys()
        for key, (_, last, count) in heads.items():
            assert count == left.get(key, 0) + before.get(key, 0)
            assert count > left.get(key, 0) or key not in before
            assert (last > cut) == (key in left)
        mark = file.execute("SELECT value FROM meta WHERE key = ?", (f"{table}_mark",)).get
        assert (
            max(heads, default=0) <= int(mark or 0)
            or file.execute(f"SELECT count(*) FROM event WHERE {table} = ?", (max(heads),)).get
            or max(heads) in before
        )
    dangling = "SELECT count(*) FROM base_stream WHERE state IS NOT NULL AND session NOT IN"
    assert file.execute(f"{dangling} (SELECT id FROM session)").get == 0
    for table in ("session", "stream"):
        sql = f"SELECT count(*) FROM projection_{table} WHERE {table} NOT IN"
        assert file.execute(f"{sql} (SELECT id FROM {table})").get == 0
    assert (
        file.execute("SELECT count(*) FROM projection_anomaly WHERE position <= ?", (cut,)).get == 0
    )
    assert file.execute("SELECT count(*) FROM event WHERE seq <= ?", (cut,)).get == 0
    assert file.execute("SELECT count(*) FROM block WHERE first_seq <= ?", (cut,)).get == 0


def check_against(journal: Journal, whole: Journal, cut: int) -> None:
    """Assert that a pruned journal answers as a whole one with the same events does."""
    assert journal.last_position == whole.last_position
    assert list(journal.read()) == list(whole.read(after=cut))
    assert journal.event_count() == whole.last_position - cut
    sessions = {one.session_id: one for one in whole.sessions()}
    streams = {one.stream_id: one for one in whole.streams()}
    for session in journal.sessions():
        assert session == sessions[session.session_id]
    for stream in journal.streams():
        assert stream == streams[stream.stream_id]
    assert {one.session_id for one in journal.sessions()} >= {
        event.session_id for _, event in whole.read(after=cut) if event.session_id in sessions
    }
    for session in sessions.values():
        if session.state.value not in ("Completed", "Failed"):
            assert journal.session(session.session_id) == session
            assert journal.version(session.session_id) == whole.version(session.session_id)
    for report in journal.rebuild(check=True):
        assert report.change_count == 0, report.changes
