"""What appending and listing cost, counted in what they do, never in time."""

import apsw
import pytest
from commands_support import run_here
from support import activated, started

from journal import Journal, SessionId, StreamId, merge
from journal.commands.console.output import Output
from journal.file import names

FRAME_BYTES = 24 + 4_096


def statements_of(journal, work):
    """Return the statements that the writing connection runs while `work` does."""
    statements = []

    def note(_, sql, __):
        statements.append(" ".join(sql.split())[:40])
        return True

    writer = journal._database._writer
    writer.exec_trace = note
    work()
    writer.exec_trace = None
    return statements


@pytest.fixture
def noted(monkeypatch):
    """Return a list that gets the statements of every new connection."""
    statements = []

    def note(_, sql, __):
        statements.append(" ".join(sql.split()))
        return True

    def watch(connection):
        connection.exec_trace = note

    monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, watch])
    return statements


@pytest.mark.parametrize("read_only", [True, False])
def test_opening_asks_for_the_columns_of_no_table_that_is_as_it_was_made(
    tmp_path, noted, read_only
):
    path = tmp_path / "a.journal"
    Journal.open(path).close()
    noted.clear()
    Journal.open(path, read_only=read_only).close()

    assert any("sqlite_schema" in sql for sql in noted)
    assert not any(sql.startswith("SELECT name, upper(type)") for sql in noted)


def test_a_source_that_has_nothing_new_is_opened_with_one_connection(tmp_path, noted):
    sources = [tmp_path / "a.journal", tmp_path / "b.journal"]
    for source in sources:
        with Journal.open(source) as journal:
            journal.append_events([activated(SessionId.new())])
    fleet = tmp_path / "fleet.journal"
    merge(fleet, sources)
    connections = []
    for count in (1, 2):
        noted.clear()
        assert merge(fleet, sources[:count]).known_count == count
        connections.append(sum(sql.startswith("PRAGMA cell_size_check") for sql in noted))

    assert connections[1] - connections[0] == 1


def test_new_sessions_are_looked_up_a_hundred_at_once(tmp_path):
    events = [activated(SessionId.new(), number) for number in range(300)]
    with Journal.open(tmp_path / "a.journal", durability="normal") as journal:
        journal.append_events(events[:50])
        statements = statements_of(journal, lambda: journal.append_events(events))
        assert journal.event_count() == 350

    assert sum(sql.startswith("SELECT uuid, id") for sql in statements) == 3
    assert len(statements) < 20


def test_known_sessions_are_not_looked_up(tmp_path):
    session_id = SessionId.new()
    with Journal.open(tmp_path / "a.journal", durability="normal") as journal:
        journal.append_events([activated(session_id, 0)])
        statements = statements_of(
            journal, lambda: journal.append_events([activated(session_id, 1)])
        )

    assert [sql.split()[0] for sql in statements] == [
        "BEGIN",
        "INSERT",
        "INSERT",
        "UPDATE",  # how far this writer has come
        "COMMIT",
    ]


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


def test_the_first_line_of_a_list_waits_for_a_hundred_rows_and_look_ups(tmp_path, monkeypatch):
    path = tmp_path / "a.journal"
    with Journal.open(path) as journal:
        journal.append_events([activated(SessionId.new()) for _ in range(700)])
    done = []

    def noted(name):
        method = getattr(Journal, name)

        def noting(*arguments, **options):
            found = method(*arguments, **options)
            if isinstance(found, list):
                done.append(name)
                return found
            return (done.append(name) or one for one in found)

        return noting

    for name in ("iter_sessions", "find_sessions"):
        monkeypatch.setattr(Journal, name, noted(name))
    line = Output.line
    monkeypatch.setattr(Output, "line", lambda *given: (done.append("line"), line(*given)))
    result = run_here("sessions", path)

    first = done[: done.index("line")]
    assert (first.count("iter_sessions"), first.count("find_sessions")) == (100, 100)
    assert done.count("find_sessions") == 100
    assert result.out.count(b"\n") == 701


def test_the_label_is_found_without_counting_the_events(tmp_path, monkeypatch):
    path = tmp_path / "a.journal"
    with Journal.open(path, label="pump 7") as journal:
        assert journal.label == journal.info().label == "pump 7"
        journal.set_label("pump 8")
        assert journal.label == "pump 8"
    with Journal.open(tmp_path / "b.journal") as journal:
        assert journal.label is None

    monkeypatch.setattr(Journal, "info", None)  # which counts them
    assert run_here("label", path).out == b"pump 8\n"


def test_the_states_that_new_events_are_about_are_read_in_two_statements(tmp_path):
    ids = [(SessionId.new(), StreamId.new()) for _ in range(50)]
    with Journal.open(tmp_path / "a.journal", durability="normal") as journal:
        for second in range(2):
            journal.append_events([started(*each, second) for each in ids])
            statements = statements_of(journal, journal.sessions)

    assert sum(sql.startswith("SELECT session, state") for sql in statements) == 1
    assert sum(sql.startswith("SELECT stream, session, state") for sql in statements) == 1


def test_what_a_file_says_of_a_kind_is_parsed_once(tmp_path):
    with Journal.open(tmp_path / "a.journal") as journal, journal._database.read() as connection:
        first = names.kinds_of(connection)
        misses = names.kind_of.cache_info().misses
        assert names.kinds_of(connection) == first
    assert names.kind_of.cache_info().misses == misses
