"""The pass over the events that proves what they are: one statement a block, also in parts."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from verify_support import execute, make_whole, verified

from journal.file.blocks import TEXT_SQL, Content, chained, digest_before
from journal.file.opening import open_reader
from journal.file.paths import uri_of
from journal.maintenance.block_check import Proof, check_blocks
from journal.maintenance.file_check import extent_of
from journal.maintenance.findings import Findings


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return make_whole(tmp_path / "a.db")


@pytest.fixture
def reader(whole: Path) -> Iterator[apsw.Connection]:
    with closing(open_reader(uri_of(whole, mode="ro"), whole)) as connection:
        yield connection


def proof_of(
    connection: apsw.Connection, *, after: int | None = None, up_to: int | None = None
) -> Proof:
    found = Findings(Path(connection.filename))
    extent = extent_of(connection, found)
    proof = check_blocks(connection, extent, found, after=after, up_to=up_to)
    assert found.count == 0, found.first
    return proof


def test_two_parts_prove_what_the_whole_does(reader: apsw.Connection) -> None:
    whole = proof_of(reader)
    assert whole.proven_count == whole.event_count == 61
    ends = [0, *(end for (end,) in reader.execute("SELECT last_seq FROM block"))]
    for end in ends:
        first, rest = proof_of(reader, up_to=end), proof_of(reader, after=end)
        assert (first.event_count, rest.event_count) == (end, 61 - end)
        assert first.proven_count + rest.proven_count == 61
        counts = Counter(first.counts_by_code) + Counter(rest.counts_by_code)
        assert counts == whole.counts_by_code
        times = [each for part in (first, rest) for each in (part.smallest_ns, part.largest_ns)]
        times = [each for each in times if each is not None]
        assert (min(times), max(times)) == (whole.smallest_ns, whole.largest_ns)


def test_a_part_ends_where_it_is_told_to(whole: Path, reader: apsw.Connection) -> None:
    execute(whole, "UPDATE event SET data = '[1]' WHERE seq = 45")
    assert proof_of(reader, up_to=40).proven_count == 40


def test_kinds_and_times_are_those_of_the_events(reader: apsw.Connection) -> None:
    proof = proof_of(reader)
    sql = "SELECT kind, count(*) FROM event GROUP BY kind"
    assert proof.counts_by_code == dict(reader.execute(sql))
    sql = "SELECT min(timestamp), max(timestamp) FROM event"
    assert (proof.smallest_ns, proof.largest_ns) == reader.execute(sql).fetchone()


def test_they_are_counted_where_no_block_proves_them(whole: Path, reader: apsw.Connection) -> None:
    execute(whole, "UPDATE meta SET value = 'recover' WHERE key = 'closed'")
    execute(whole, "INSERT OR IGNORE INTO meta VALUES ('closed', 'recover')")
    execute(whole, "DELETE FROM block WHERE first_seq = 21")
    execute(whole, "UPDATE block SET salt = 'another' WHERE first_seq = 41")
    found = Findings(whole)
    proof = check_blocks(reader, extent_of(reader, found), found)
    assert (proof.proven_count, proof.uncovered_count) == (21, 20)
    assert sum(proof.counts_by_code.values()) == proof.event_count == 61
    assert {finding.code for finding in found.first} == {"block-content"}


def test_a_block_that_is_right_takes_one_statement(reader: apsw.Connection) -> None:
    run: list[str] = []
    reader.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: run.append(event["sql"]))
    proof_of(reader)
    reader.trace_v2(0, None)
    blocks = reader.execute("SELECT count(*) FROM block").get
    about_events = [sql for sql in run if "FROM event" in sql]
    assert len([sql for sql in about_events if "json_group_array" in sql]) == blocks == 4
    assert len(about_events) < 2 * blocks


def test_a_digest_of_fewer_events_does_not_hide_that_some_are_gone(whole: Path) -> None:
    with closing(apsw.Connection(str(whole))) as file:
        first, salt = file.execute(
            "SELECT first_seq, salt FROM block ORDER BY first_seq DESC"
        ).fetchone()
        last = file.execute("SELECT max(seq) FROM event").get
    assert first == last  # the block has one event, and then none
    execute(whole, "DELETE FROM event WHERE seq = ?", last)
    with closing(apsw.Connection(str(whole))) as file:
        text: Any = file.execute(TEXT_SQL, {"first": first, "last": last}).get
        assert text == "[]"
        content = Content(salt).digest()
        digest = chained(digest_before(file, first), content)
    execute(
        whole,
        "UPDATE block SET content_digest = ?, digest = ? WHERE first_seq = 61",
        content,
        digest,
    )
    assert {finding.code for finding in verified(whole).findings} >= {"event-missing"}
