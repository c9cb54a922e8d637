"""What a merged journal keeps of others besides their events: blocks, absences, and keys."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import apsw

from journal.events.timestamps import text_from_epoch_ns
from journal.file.identity import set_meta
from journal.file.schema import events_view_sql
from journal.maintenance.histories import (
    BEFORE_DELTA,
    Block,
    Gap,
    History,
    Interval,
    Key,
    Run,
    clipped,
    history_keys,
    is_merged,
    minus,
    own_id,
)

KeyRow = tuple[str, int | None, int | None, str, int]
"""Key, first and last position, digest, when it was used."""

_BLOCK_SQL: Final = """
INSERT OR REPLACE INTO origin_block (journal_id, branch, first_seq, last_seq, min_timestamp,
    max_timestamp, salt, content_digest, digest, redacted_digest, sealed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_GAP_SQL: Final = """
INSERT OR REPLACE INTO origin_absent (journal_id, branch, first_seq, last_seq, reason, counts,
    min_timestamp, max_timestamp, digest_before, digest_after, forgotten, declared_at, check_digest)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_KEY_SQL: Final = """
INSERT OR IGNORE INTO origin_key (journal_id, branch, key, first_seq, last_seq, digest, used_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


_INTACT_KEYS_SQL: Final = """
DELETE FROM origin_key AS k WHERE last_seq IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM origin_block AS b WHERE b.journal_id = k.journal_id AND b.branch = k.branch
        AND b.first_seq <= k.first_seq AND b.last_seq >= k.last_seq AND b.salt IS NOT NULL)
"""
"""Digests of keys have no salt, so that of a key that is in one block is left only if that has."""


def begin_merging(connection: apsw.Connection) -> None:
    """Have a journal keep the blocks of others apart from its own, in the transaction at hand."""
    if is_merged(connection):
        return
    histories = [History(connection, key) for key in history_keys(connection)]
    kept = [(history.key, list(history.gaps)) for history in histories]
    for history in histories:
        for block in history.blocks():
            write_block(connection, history.key, block)
    for key, gaps in kept:
        for gap in gaps:
            write_gap(connection, key, gap)
    set_meta(connection, "merged", "1")
    connection.execute("DROP VIEW IF EXISTS main.events")
    connection.execute(events_view_sql(has_origins=True))


def keep_own(connection: apsw.Connection) -> list[Interval]:
    """Have a journal that gets another id keep what it has of its own as it has that of others.

    Returns:
        the positions that are its own.
    """
    history = History(connection, (own_id(connection), ""))
    own = history.known()
    if own and is_merged(connection):
        for gap in list(history.gaps):
            write_gap(connection, history.key, gap)
        for block in history.blocks():
            write_block(connection, history.key, block)
    return own


def write_block(connection: apsw.Connection, key: Key, block: Block) -> None:
    """Write a block of another journal; one that begins at the same position was open then."""
    connection.execute(_BLOCK_SQL, (*key, *block))


def as_it_is(history: History, block: Block) -> Block:
    """Return a block of which some events came from one source and some from another.

    Where a text of it was redacted in one of them, it is a redacted block that holds what it does.
    """
    if block.salt is not None:
        content = history.content(block.first, block.last, block.salt)
        if content in (None, block.content_digest):
            return block
    content = history.content(block.first, block.last, "")
    return block if content is None else block._replace(salt=None, redacted_digest=content)


def redact_blocks(connection: apsw.Connection) -> None:
    """Forget the salts of other journals' blocks with events that are redacted now, and their keys.

    Those events are in `temp.redacted`; see `journal.maintenance.redacting`.
    """
    if not is_merged(connection):
        return
    for key in history_keys(connection):
        history = History(connection, key)
        for block in history.blocks():
            if any(_is_redacted(connection, *ends) for ends in _in_file(history, block)):
                content = history.content(block.first, block.last, "")
                changed = block._replace(salt=None, redacted_digest=content or block.digest)
                write_block(connection, key, changed)
    connection.execute(_INTACT_KEYS_SQL)


def _in_file(history: History, block: Block) -> Iterator[tuple[int, int]]:
    """Yield the positions in the file of the events of a block."""
    if block.first <= history.begins_after and history.parent is not None:
        yield from _in_file(history.parent, block._replace(last=history.begins_after))
    for run in history.runs(block.first):
        if run.first > block.last:
            return
        yield max(block.first, run.first) + run.offset, min(block.last, run.last) + run.offset


def _is_redacted(connection: apsw.Connection, first: int, last: int) -> bool:
    sql = "SELECT EXISTS (SELECT 1 FROM temp.redacted WHERE seq BETWEEN ? AND ?)"
    return bool(connection.execute(sql, (first, last)).get)


def write_gap(connection: apsw.Connection, key: Key, gap: Gap) -> None:
    """Write what is absent in another journal, in the place of what was only not there yet."""
    rows: Any = connection.execute(
        "SELECT first_seq, last_seq, reason, counts, min_timestamp, max_timestamp, digest_before,"
        " digest_after, forgotten, declared_at FROM origin_absent WHERE journal_id = ?"
        " AND branch = ? AND reason = ? AND first_seq <= ? AND last_seq >= ?",
        (*key, BEFORE_DELTA, gap.last, gap.first),
    ).fetchall()
    for before in map(Gap._make, rows):
        sql = "DELETE FROM origin_absent WHERE journal_id = ? AND branch = ? AND first_seq = ?"
        connection.execute(sql, (*key, before.first))
        if before.last == gap.last and gap.digest_after is None:
            gap = gap._replace(digest_after=before.digest_after)
        whole = [Interval(before.first, before.last)]
        for first, last in minus(whole, [Interval(gap.first, gap.last)]):
            _write_gap(connection, key, clipped(before, Run(first, last, 0)))
    _write_gap(connection, key, gap)


def _write_gap(connection: apsw.Connection, key: Key, gap: Gap) -> None:
    if not gap.declared_at:
        gap = gap._replace(declared_at=text_from_epoch_ns(time.time_ns()))
    columns = (*key, *gap)
    marks = ", ".join("?" * len(columns))
    text: Any = connection.execute(f"SELECT json_array({marks})", columns).get
    connection.execute(_GAP_SQL, (*columns, hashlib.sha256(text.encode()).hexdigest()))


def write_keys(connection: apsw.Connection, key: Key, rows: Iterable[KeyRow]) -> None:
    """Write idempotency keys of another journal, but for those that are there."""
    connection.executemany(_KEY_SQL, ((*key, *row) for row in rows))


class Keys:
    """The idempotency keys of a history, taken as far as its events are."""

    def __init__(self, history: History, after: int) -> None:
        self._history = history
        columns = "key, first_seq, last_seq, digest, used_at"
        if history.is_kept:
            sql = f"SELECT {columns} FROM origin_key WHERE journal_id = ? AND branch = ?"
            values: tuple[Any, ...] = history.key
        else:
            sql, values = f"SELECT {columns} FROM append_key WHERE TRUE", ()
        if after:
            sql, values = f"{sql} AND last_seq > ?", (*values, after)
        rows: Any = history.connection.execute(f"{sql} ORDER BY last_seq", values)
        self._rows: Iterator[Any] = rows
        self._next: Any = next(self._rows, None)

    def up_to(self, position: int) -> Iterator[KeyRow]:
        """Yield those that stand for events up to a position, or for none, and were not yielded."""
        while self._next is not None and (self._next[2] is None or self._next[2] <= position):
            if self._is_ours(self._next[2]):
                yield self._next
            self._next = next(self._rows, None)

    def _is_ours(self, last: int | None) -> bool:
        """Tell whether a key is of this journal: in a file may be those of several."""
        if self._history.is_kept or not self._history.has_others:
            return True
        if last is None:
            return self._history.is_own
        run = next(self._history.runs(last), None)
        return run is not None and run.first <= last
