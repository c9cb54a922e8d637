"""The floor of appending: apsw alone writes what the journal wrote, from rows built beforehand."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from journal.file.opening import Durability, open_reader, open_writer
from journal.file.paths import create_file

_CHECKPOINT_PAGES = 1_000  # what SQLite does by default

Rows = list[tuple[Any, ...]]


class Statement(NamedTuple):
    """A statement, and the rows to run it with."""

    sql: str
    rows: Rows


Batch = list[Statement]
"""What one transaction writes."""


def batches_of(path: Path, batch_events: int) -> list[Batch]:
    """Return what it takes to write a finished journal once more, in batches.

    That is the rows of its events and, for each batch, the heads of the sessions and streams that
    are new or moved. The blocks are left out: the floor does without.
    """
    connection = open_reader(f"{path.as_uri()}?mode=ro", path)
    try:
        return list(_batches(connection, batch_events))
    finally:
        connection.close()


def open_floor(path: Path, durability: Durability) -> apsw.Connection:
    """Return a connection to a new journal, with its settings but the checkpoints of SQLite."""
    create_file(path)
    connection = open_writer(path, durability)
    connection.wal_autocheckpoint(_CHECKPOINT_PAGES)
    return connection


def write_batch(connection: apsw.Connection, batch: Batch) -> None:
    """Write a batch in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for sql, rows in batch:
        connection.executemany(sql, rows)
    connection.execute("COMMIT")


def _batches(connection: apsw.Connection, batch_events: int) -> Iterator[Batch]:
    sessions, streams = _Heads(connection, "session"), _Heads(connection, "stream")
    events = connection.execute("SELECT * FROM event ORDER BY seq")
    while rows := list(islice(events, batch_events)):
        yield [
            Statement("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows),
            *sessions.written([(row[2], row[0]) for row in rows]),
            *streams.written([(row[3], row[0]) for row in rows if row[3] is not None]),
        ]


class _Heads:
    """The heads in one table as they were after each batch."""

    def __init__(self, connection: apsw.Connection, table: str) -> None:
        self._uuids = dict(connection.execute(f"SELECT id, uuid FROM {table}"))
        self._counts = dict.fromkeys(self._uuids, 0)
        self._insert = f"INSERT INTO {table} (id, uuid, last_seq, event_count) VALUES (?, ?, ?, ?)"
        self._update = f"UPDATE {table} SET last_seq = ?, event_count = ? WHERE id = ?"

    def written(self, links: list[tuple[int, int]]) -> list[Statement]:
        """Return the statements that move the heads along these (id, position)."""
        new = {key for key, _ in links if self._counts[key] == 0}
        last: dict[int, int] = {}
        for key, position in links:
            self._counts[key] += 1
            last[key] = position
        heads = [(key, position, self._counts[key]) for key, position in last.items()]
        inserts: Rows = [(key, self._uuids[key], seq, n) for key, seq, n in heads if key in new]
        updates: Rows = [(seq, n, key) for key, seq, n in heads if key not in new]
        both = Statement(self._insert, inserts), Statement(self._update, updates)
        return [statement for statement in both if statement.rows]
