"""What a file says of itself: facts, kinds, ids, what is absent, bases and checkpoints."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import apsw
from pydantic_core import from_json

from journal.events.timestamps import Timestamp
from journal.file.checkpoints import read_checkpoints
from journal.file.extent import ABSENT_SQL, Absence, Extent, read_extent
from journal.file.names import FileKind, kinds_of
from journal.file.origins import read_origins
from journal.maintenance.findings import Findings, Severity
from journal.maintenance.redaction import parsed_texts
from journal.projections.checkpoints import base_digest

_REASONS: Final = ("pruned", "before delta", "lost")
_CLOSED_BY: Final = (None, "ship", "delta", "recover")

_KEPT_SQL: Final = """
SELECT seq FROM event WHERE seq > ? AND kind = ? AND (substr(data, 1, 1) IS '{') IS NOT ?
ORDER BY seq LIMIT 1
"""


def check_meta(connection: apsw.Connection, found: Findings) -> None:
    """Make sure that what the file says of itself can be understood."""
    with found.noted("meta", "meta"):
        facts = dict(connection.execute("SELECT key, value FROM meta"))
        checks: dict[str, Callable[[Any], object]] = {
            "journal_id": UUID,
            "created_at": Timestamp.parse,
            "min_reader_version": int,
            "library_version": str.encode,
        }
        for key, check in checks.items():
            try:
                check(facts[key])
            except (KeyError, ValueError, TypeError, AttributeError):
                text = f"{key} in meta is {facts.get(key)!r}, which it cannot be"
                found.add("meta", "meta", None, text, "derived")
        for key in ("session_mark", "stream_mark"):
            if key in facts and not str(facts[key]).isdecimal():
                text = f"{key} in meta is {facts[key]!r}, which it cannot be"
                found.add("meta", "meta", None, text, "derived")
        parsed_texts(connection)
        if facts.get("closed") not in _CLOSED_BY:
            text = f"closed in meta is {facts['closed']!r}, which it cannot be"
            found.add("meta", "meta", None, text, "derived")


def check_kinds(connection: apsw.Connection, found: Findings, after: int) -> None:
    """Make sure that every kind has a name, and the fields that it has.

    The digest of a block covers the name only. So where events of one name can be kept in two ways,
    whole or by fields, those after a position are held against the way that their kind says.
    """
    kinds: dict[int, FileKind] = {}
    with found.noted("kind", "kind"):
        kinds = kinds_of(connection)
    names = Counter(kind.name for kind in kinds.values())
    for code, kind in kinds.items():
        if kind.is_folded and names[kind.name] == 1:
            continue
        with found.noted("kind", "kind"):
            wrong: Any = connection.execute(_KEPT_SQL, (after, code, kind.fields is None)).get
            if wrong is not None:
                text = f"the event at position {wrong} is kept in another way than its kind"
                found.add("kind", "kind", wrong, f"{text} {kind.name!r:.100} says")


def extent_of(connection: apsw.Connection, found: Findings) -> Extent:
    """Return which positions a file has, as well as can be told where it contradicts itself.

    What is absent is checked by that.
    """
    before = found.count
    absences = _absences(connection, found)
    first = 1
    for absence in absences:
        if absence.first == first:
            first = absence.last + 1
    last = absences[-1].last if absences else 0
    with found.noted("unreadable", "event"):
        last = max(last, connection.execute("SELECT ifnull(max(seq), 0) FROM event").get)
    if found.count == before:
        with found.noted("extent", "event"):
            return read_extent(connection)
    return Extent(first, last, absences)


def _absences(connection: apsw.Connection, found: Findings) -> tuple[Absence, ...]:
    taken: list[Absence] = []
    beginning = 1  # where what is missing at the beginning goes on
    rows = found.rows(connection, ABSENT_SQL, code="absent", where="absent")
    for *columns, check_digest, text in rows:
        absence = Absence(*columns)
        with found.noted("absent", "absent", absence.first):
            wrong = _wrong_with(absence, taken[-1] if taken else None, beginning)
            if wrong is None and hashlib.sha256(text.encode()).hexdigest() != check_digest:
                wrong = "is not what it was when it was written"
            if wrong is None:
                wrong = _wrong_counts(from_json(text)[3], absence)
            if wrong is None:
                taken.append(absence)
                if absence.first == beginning:
                    beginning = absence.last + 1
                continue
            what = f"the row about absent events from position {absence.first} {wrong}"
            found.add("absent", "absent", absence.first, what)
    return tuple(taken)


def _wrong_with(absence: Absence, before: Absence | None, beginning: int) -> str | None:
    """Return what is wrong with a range, None where nothing is."""
    if type(absence.last) is not int or not 1 <= absence.first <= absence.last:
        return f"has no last position at or after it, but {absence.last!r}"
    if absence.reason not in _REASONS:
        return f"gives no reason that there is, but {absence.reason!r}"
    if absence.reason != "lost" and absence.first != beginning:
        return f"says {absence.reason!r}, which only what is missing at the beginning can be"
    if before is not None and absence.first <= before.last:
        return f"overlaps the one from position {before.first}"
    return None


def _wrong_counts(counts: str | None, absence: Absence) -> str | None:
    if counts is None:
        return None
    by_kind = from_json(counts)
    if sum(by_kind.values()) > absence.last - absence.first + 1:
        return "counts more events than it has positions"
    return None


def check_origins(connection: apsw.Connection, extent: Extent, found: Findings) -> None:
    """Make sure that what came from other journals is what was written down when it came."""
    with found.noted("origin", "origin"):
        origins = read_origins(connection)
        if origins and origins[-1].last_position > extent.last:
            text = f"positions up to {origins[-1].last_position} came from another journal, and"
            text += f" the last one is {extent.last}"
            found.add("origin", "origin", extent.last, text)
        for origin in origins:
            end = origin.last_position
            sql = "SELECT last_seq FROM block WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1"
            last: Any = connection.execute(sql, (end,)).get
            if isinstance(last, int) and last > end:
                text = f"the block with position {end} goes on after it, where what came from"
                text += " another journal ends"
                found.add("origin", "block", end, text)


def check_bases(connection: apsw.Connection, extent: Extent, found: Findings) -> None:
    """Make sure that the states at the cut are what they were when they were written."""
    rows = found.rows(
        connection,
        "SELECT projection, version, position, check_digest FROM base",
        code="base",
        where="base",
    )
    for name, version, position, check_digest in rows:
        text = ""
        with found.noted("base", "base", extent.cut or None):
            if type(version) is not int or position != extent.cut or extent.cut == 0:
                text = f"is of position {position!r}, and the cut is at {extent.cut}"
            elif base_digest(connection, name) != check_digest:
                text = "is not what it was when it was written"
        if text:
            what = f"the base of the projection {name!r:.100} {text}"
            found.add("base", "base", extent.cut, what)


def check_checkpoints(connection: apsw.Connection, extent: Extent, found: Findings) -> None:
    """Make sure that whoever reads the events in order has not come beyond the last one."""
    with found.noted("checkpoint", "checkpoint", severity="derived"):
        read_checkpoints(connection, "projection", extent.last)
    with found.noted("checkpoint", "checkpoint", severity="derived"):
        read_checkpoints(connection, "subscription", extent.last)


def check_ids(connection: apsw.Connection, found: Findings) -> None:
    """Make sure that the ids of sessions and streams are ids, each there once."""
    for table in ("session", "stream"):
        sql = f"SELECT id FROM {table} WHERE typeof(uuid) IS NOT 'blob' OR length(uuid) IS NOT 16"
        for (key,) in found.rows(connection, sql, code="id", where=table):
            text = f"the {table} {key} has an id that is none: 16 bytes were expected"
            found.add("id", table, None, text)
        sql = f"SELECT uuid, min(id), max(id) FROM {table} NOT INDEXED"
        sql += " GROUP BY uuid HAVING count(*) > 1"
        for uuid, first, second in found.rows(connection, sql, code="id", where=table):
            text = f"the {table}s {first} and {second} have the same id, {shown(uuid)}"
            found.add("id", table, None, text)


def shown(uuid: Any) -> str:
    """Return an id as people read it, whatever is in its place."""
    if isinstance(uuid, bytes) and len(uuid) == 16:
        return str(UUID(bytes=uuid))
    return repr(uuid)[:60]


def check_sqlite(connection: apsw.Connection, found: Findings) -> None:
    """Have SQLite look at every page, every index and every type of value."""
    sql = "PRAGMA main.integrity_check(100)"
    for (message,) in found.rows(connection, sql, code="sqlite", where="file"):
        if message != "ok":
            severity: Severity = "derived" if " index " in message else "events"
            found.add("sqlite", "file", None, f"SQLite finds: {message}", severity)
