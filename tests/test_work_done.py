"""What appending costs, counted in what it does: pages, never time."""

from support import activated

from journal import Journal, SessionId

FRAME_BYTES = 24 + 4_096


def test_the_wal_begins_anew_early_where_commits_are_small(tmp_path):
    path = tmp_path / "a.journal"
    session_id = SessionId.new()
    with Journal.open(path, durability="normal") as journal:
        for number in range(1_000):  # two or three pages each
            journal.append_events([activated(session_id, number)])
        assert path.with_name("a.journal-wal").stat().st_size < 1_010 * FRAME_BYTES


def test_the_wal_grows_longer_where_commits_are_large(tmp_path):
    path = tmp_path / "a.journal"
    with Journal.open(path, durability="normal") as journal:
        while path.stat().st_size < 1_000_000:  # until the first checkpoint
            journal.append_events([activated(SessionId.new()) for _ in range(2_000)])
        wal_bytes = path.with_name("a.journal-wal").stat().st_size
    assert 4_000 * FRAME_BYTES < wal_bytes < 4_500 * FRAME_BYTES
