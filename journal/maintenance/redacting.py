"""Redacting: a copy of a journal in which some texts are not those that were appended any more.

The original is copied to where temporary files are, checked and changed there, and copied once
more: so no page of the result ever held an old text, and none comes near the target.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import apsw
from pydantic_core import from_json, to_json

from journal import limits
from journal.errors import InvalidEventError
from journal.events.canonical import canonical_json
from journal.events.kinds import KINDS
from journal.events.timestamps import text_from_epoch_ns
from journal.events.wire import read_record
from journal.file import forking
from journal.file.blocks import ROWS_SQL, Content
from journal.file.connections import Database, translated
from journal.file.decoding import NOT_DECODED, damaged
from journal.file.extent import Extent, read_extent
from journal.file.identity import meta, set_meta
from journal.file.names import FileKind, kinds_of
from journal.file.objects import our_columns
from journal.file.opening import open_copy
from journal.file.schema import trigger_sql
from journal.maintenance.copying import copy_moment
from journal.maintenance.finishing import ClosedBy, Report, check
from journal.maintenance.keeping import redact_blocks
from journal.maintenance.redaction import UNKNOWN, Policy, RedactedTexts, add_texts
from journal.maintenance.targets import work_folder
from journal.projections.lifecycle_states import LifecycleFold
from journal.projections.tables import TABLES, VIEWS, delete_rows, have_our_shape, make_tables

_COPIED, _CHECKED, _REDACTED = 0.15, 0.5, 0.85
"""Roughly, how much of the time has passed when each of these is done."""

_TRIGGER: Final = "event_is_never_updated"

_ROWS_SQL: Final = """
SELECT seq, kind, session, stream, timestamp, data FROM event
WHERE seq BETWEEN ? AND ? AND kind IN (SELECT value FROM json_each(?)) ORDER BY seq
"""

# What was derived from the events that are redacted now, or from such as are not there any more.
_KEYS_SQL: Final = """
DELETE FROM append_key AS k
WHERE EXISTS (SELECT 1 FROM temp.redacted WHERE seq BETWEEN k.first_seq AND k.last_seq)
    OR EXISTS (SELECT 1 FROM absent AS a
        WHERE a.first_seq <= k.last_seq AND a.last_seq >= k.first_seq)
"""
_STATES_SQL: Final = """
DELETE FROM checkpoint WHERE type = 'projection' AND (name IN ('sessions', 'streams')
    OR since <= :cut
    OR EXISTS (SELECT 1 FROM temp.redacted WHERE seq BETWEEN since AND position));
DELETE FROM projection_state
WHERE projection NOT IN (SELECT name FROM checkpoint WHERE type = 'projection')
"""
_OWN_BASES_SQL: Final = """
DELETE FROM base WHERE projection NOT IN ('sessions', 'streams');
DELETE FROM base_state
"""
_BASES_SQL: Final = """
DELETE FROM base;
UPDATE base_session SET state = NULL;
UPDATE base_stream SET state = NULL
"""


Copying = Callable[[Path, Path, Report], None]
"""Copies a file, or the part of it that is wanted, into a new one, which is to become another."""


def copy_redacted(
    source: Path,
    copying: Copying,
    copy: Path,
    target: Path,
    policy: Policy,
    report: Report,
    *,
    closed_by: ClosedBy,
) -> None:
    """Write one moment of a file into a new one, with texts redacted.

    Args:
        source: the file.
        copying: copies it as it is.
        copy: the new one.
        target: what that is to become.
        policy: which texts, and how.
        report: is called with how much is done.
        closed_by: what the copy is to say that it was made by.

    Raises:
        DamagedError: the file is; its events are checked against their blocks before.
        JournalError: as `copy_moment`, also of where temporary files are.
    """
    aside = Path(tempfile.gettempdir(), "redaction")
    with work_folder(aside) as folder:
        original = folder / "original"
        copying(original, aside, _part(report, 0.0, _COPIED))
        with translated(aside):
            connection = open_copy(original)
            try:
                check(connection, original, source, _part(report, _COPIED, _CHECKED))
                connection.execute(
                    "PRAGMA journal_mode = DELETE"
                ).fetchall()  # MEMORY may get large
                _Redacting(connection, policy, closed_by).run(_part(report, _CHECKED, _REDACTED))
            finally:
                connection.close()
        redacted = Database(original, read_only=True, durability="normal")
        try:
            copy_moment(redacted, copy, target, _part(report, _REDACTED, 1.0))
        finally:
            redacted.close()


def _part(report: Report, begins: float, ends: float) -> Report:
    return lambda share: report(begins + (ends - begins) * share)


class _Redacting:
    """Redacts a file that nobody else has."""

    def __init__(
        self, connection: apsw.Connection, policy: Policy, closed_by: ClosedBy = "ship"
    ) -> None:
        self._connection = connection
        self._policy = policy
        self._closed_by = closed_by
        self._counts: Counter[str] = Counter()
        self._kinds = {
            code: kind for code, kind in kinds_of(connection).items() if self._concerns(kind)
        }
        self._codes = to_json([*self._kinds]).decode()

    def _concerns(self, kind: FileKind) -> bool:
        if kind.is_known and self._policy.places(kind.name):
            return True
        return self._policy.takes_unknown and not kind.is_folded

    def run(self, report: Report) -> None:
        connection = self._connection
        extent = read_extent(connection)
        with forking.inside_sqlite():
            connection.execute(f"DROP TRIGGER IF EXISTS main.{_TRIGGER}")
            connection.execute("CREATE TEMP TABLE redacted (seq INTEGER PRIMARY KEY)")
        for first, last, is_block in self._ranges(extent):
            with forking.inside_sqlite(), connection:
                if self._redact(first, last) and is_block:
                    self._write_block(first, last)
            report(last / max(1, extent.last))
        with forking.inside_sqlite(), connection:
            connection.execute(trigger_sql(_TRIGGER))
            self._leave_out(extent)
            texts = (
                RedactedTexts(field=name, method=method, event_count=self._counts[name])
                for name, method in self._policy.methods.items()
            )
            add_texts(connection, tuple(texts))
            if meta(connection, "closed") is None:
                set_meta(connection, "closed", self._closed_by)

    def _ranges(self, extent: Extent) -> Iterator[tuple[int, int, bool]]:
        """Yield ranges that have all events, each with whether it is a block."""
        after, begin = 0, 0
        while True:
            block: Any = self._connection.execute(
                "SELECT first_seq, last_seq FROM block WHERE first_seq > ? ORDER BY 1 LIMIT 1",
                (begin,),
            ).fetchone()
            first, last = block or (extent.last + 1, 0)
            yield from self._uncovered(after, first - 1)
            if block is None:
                return
            yield first, last, True
            begin, after = first, last

    def _uncovered(self, after: int, up_to: int) -> Iterator[tuple[int, int, bool]]:
        """Yield ranges of events that no block has."""
        sql = "SELECT min(seq) FROM event WHERE seq > ? AND seq <= ?"
        while True:
            first: Any = self._connection.execute(sql, (after, up_to)).get
            if first is None:
                return
            after = min(up_to, first + limits.PAGE_EVENTS_MAX)
            yield first, after, False

    def _redact(self, first: int, last: int) -> bool:
        """Redact the events of a range; tell whether any is another one now."""
        connection = self._connection
        changed: list[tuple[str, int]] = []
        rows: Any = connection.execute(_ROWS_SQL, (first, last, self._codes)).fetchall()
        for row in rows:
            try:
                data, names = self._new_data(row)
            except (*NOT_DECODED, IndexError) as error:
                raise damaged(connection.filename, row[0], error) from error
            if names:
                changed.append((data, row[0]))
                self._counts.update(names)
        connection.executemany("UPDATE event SET data = ? WHERE seq = ?", changed)
        positions = [(position,) for _, position in changed]
        connection.executemany("INSERT INTO temp.redacted VALUES (?)", positions)
        return bool(changed)

    def _new_data(self, row: Any) -> tuple[str, set[str]]:
        """Return the data of an event as it is to be, and which texts are others than before."""
        _, code, _, _, _, data = row
        kind = self._kinds[code]
        if kind.fields is None:
            return self._whole(kind.name, row)
        if kind.is_known:
            return self._array(kind.name, data)
        emptied = to_json([None] * len(kind.fields)).decode()
        return emptied, set() if data in (None, emptied) else {UNKNOWN}

    def _array(self, kind: str, data: str) -> tuple[str, set[str]]:
        """Redact the texts among the values of a known kind; all the rest stays to the letter."""
        values = from_json(data)
        changes: dict[str, str] = {}
        names: set[str] = set()
        for place, name in self._policy.places(kind):
            text = values[place]
            if text is None:
                continue
            redacted = self._policy.redacted(name, text)
            if redacted != text:
                changes[f"$[{place}]"] = redacted
                names.add(name)
        if not names:
            return data, names
        arguments = [data, *(it for pair in changes.items() for it in pair)]
        sql = f"SELECT json_set({', '.join('?' * len(arguments))})"
        new: Any = self._connection.execute(sql, arguments).get
        return new, names

    def _whole(self, kind: str, row: Any) -> tuple[str, set[str]]:
        """Redact an event that was kept whole, which may be of a kind that is known by now.

        What is not a field of the kind goes with the texts: nothing says what it is.
        """
        *_, data = row
        places = self._policy.places(kind) if kind in KINDS else []
        names = {name for _, name in places} or {UNKNOWN}
        try:
            record = read_record(data)
        except InvalidEventError:
            new = self._emptied(kind, row)
            return new, names if new != data else set()
        changed: set[str] = set()
        if places and record[4] is not None:
            redacted, changed = self._array(kind, record[4])
            record = (*record[:4], redacted)
        new = canonical_json(record)
        if not changed and self._policy.takes_unknown and new != data:
            changed = {UNKNOWN}
        return new, changed

    def _emptied(self, kind: str, row: Any) -> str:
        """Return the text of an event that says only what every event says."""
        _, _, session, stream, timestamp_ns, _ = row
        found = {"event_type": kind, "session_id": self._id("session", session)}
        if stream is not None:
            found["stream_id"] = self._id("stream", stream)
        found["timestamp"] = text_from_epoch_ns(timestamp_ns)
        return to_json(found).decode()

    def _id(self, table: str, key: int) -> str:
        uuid: Any = self._connection.execute(f"SELECT uuid FROM {table} WHERE id = ?", (key,)).get
        return str(UUID(bytes=uuid))

    def _write_block(self, first: int, last: int) -> None:
        """Write the digest of what a block holds now, and forget the salt of its own."""
        connection = self._connection
        content = Content("")
        rows: Any = connection.execute(ROWS_SQL, {"first": first, "last": last}).fetchall()
        content.add(rows)
        connection.execute(
            "UPDATE block SET salt = NULL, redacted_digest = ? WHERE first_seq = ?",
            (content.digest(), first),
        )

    def _leave_out(self, extent: Extent) -> None:
        """Delete what may have the old texts, or can be made from the events again."""
        connection = self._connection
        _drop_others(connection)
        if have_our_shape(connection):
            delete_rows(connection, LifecycleFold())
            connection.execute(_STATES_SQL, {"cut": extent.cut})
        else:
            make_tables(connection)
        connection.execute(_OWN_BASES_SQL)
        if self._policy.methods.keys() - {UNKNOWN}:  # which no state of the built-in ones has
            connection.execute(_BASES_SQL)
        connection.execute(_KEYS_SQL)
        redact_blocks(connection)


def _drop_others(connection: apsw.Connection) -> None:
    """Drop what this version does not know: nobody can say which texts are in it.

    And what SQLite knows of the rows: it has samples of them.
    """
    ours = {*our_columns(), *TABLES, *VIEWS}
    sql = "SELECT type, name FROM sqlite_schema WHERE type IN ('view', 'table')"
    sql += " AND name NOT IN (SELECT value FROM json_each(?)) AND name <> 'sqlite_sequence'"
    sql += " ORDER BY type = 'table', sql NOT LIKE 'CREATE VIRTUAL%' LIMIT 1"
    known = to_json(sorted(ours)).decode()
    while (found := connection.execute(sql, (known,)).fetchone()) is not None:
        kind, name = found
        quoted = str(name).replace('"', '""')
        connection.execute(f'DROP {kind} main."{quoted}"')
    for table, columns in our_columns().items():
        sql = "SELECT name FROM pragma_table_info(?, 'main')"
        here: Any = connection.execute(sql, (table,)).fetchall()
        for (column,) in here[len(columns) :] if columns else ():
            quoted = str(column).replace('"', '""')
            connection.execute(f'ALTER TABLE main.{table} DROP COLUMN "{quoted}"')
