"""Pruning with an application's projection that has not seen the events in this process."""

from pathlib import Path

import pytest
from prune_support import small_blocks
from support import lines_of
from verify_support import COUNTING

from journal import Journal

LINES = lines_of("mixed/events.ndjson")[:400]


def test_a_projection_is_folded_before_what_it_names_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    path = tmp_path / "app.db"
    with Journal.open(path) as opened:
        opened.register(COUNTING)
        opened.append_ndjson(LINES)
        expected = opened.states("count")

    with Journal.open(path) as opened:  # which knows no id yet
        opened.register(COUNTING)
        report = opened.prune(before=301)

        assert (report.event_count, sum(report.sessions_forgotten.values()) > 0) == (300, True)
        assert opened.states("count") == expected
        assert [it.change_count for it in opened.rebuild(check=True)] == [0, 0]
        opened.rebuild(["count"])
        assert opened.states("count") == expected
