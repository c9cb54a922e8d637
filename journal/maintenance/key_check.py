"""The idempotency keys against the events that they stand for."""

import hashlib
from collections.abc import Iterator
from typing import Any

import apsw

from journal.errors import DamagedError
from journal.events.canonical import canonical_json
from journal.file.decoding import Page
from journal.file.extent import Extent, end_of_page
from journal.file.names import FileKind, KnownNames, kinds_of
from journal.file.reading import rows_between
from journal.maintenance.findings import GARBLED, Findings

_KEYS_SQL = "SELECT key, first_seq, last_seq, digest FROM append_key ORDER BY first_seq"


def check_keys(connection: apsw.Connection, extent: Extent, found: Findings) -> None:
    """Make sure that keys stand for ranges that were appended, and for the events there."""
    for key, position, text in wrong_keys(connection, extent, found):
        found.add("key", "append_key", position, f"the key {key!r:.100} {text}")


def wrong_keys(
    connection: apsw.Connection, extent: Extent, found: Findings
) -> Iterator[tuple[Any, int | None, str]]:
    """Yield each key that contradicts the file, its first position, and what is wrong with it.

    A digest is computed again where all events of its range are in the file, and none is of a kind
    that a newer version has stored by its fields. What cannot be read goes into `found`.
    """
    kinds: dict[int, FileKind] = {}
    with found.noted("kind", "kind"):
        kinds = kinds_of(connection)
    known = KnownNames(found.path)
    end = 0
    for key, first, last, digest in found.rows(
        connection, _KEYS_SQL, code="key", where="append_key"
    ):
        text = ""
        with found.noted("key", "append_key"):
            if not _is_range(first, last, extent.last):
                text = f"stands for the positions {first!r} to {last!r}, in a journal of "
                text += f"{extent.last}"
            elif first is not None and first <= end:
                text = f"stands for position {first}, for which another key stands already"
            elif digest != _digest(connection, extent, first, last, kinds, known, digest):
                text = "was used for other events than those that are there"
            else:
                end = last or end
        if text:
            yield key, first if isinstance(first, int) else None, text


def _is_range(first: Any, last: Any, last_position: int) -> bool:
    if first is None and last is None:
        return True
    return type(first) is type(last) is int and 1 <= first <= last <= last_position


def _digest(
    connection: apsw.Connection,
    extent: Extent,
    first: int | None,
    last: int | None,
    kinds: dict[int, FileKind],
    known: KnownNames,
    stored: Any,
) -> Any:
    """Return the digest of the events of a range, or the stored one where it cannot be told."""
    hasher = hashlib.sha256()
    if first is None or last is None:
        return hasher.hexdigest()
    if extent.event_count(first - 1, last) < last - first + 1:
        return stored
    try:
        for text in _texts(connection, extent, first, last, kinds, known):
            if text is None:
                return stored
            hasher.update(f"{text}\n".encode())
    except (DamagedError, *GARBLED):
        return None  # which events are damaged is said where they are held against their blocks
    return hasher.hexdigest()


def _texts(
    connection: apsw.Connection,
    extent: Extent,
    first: int,
    last: int,
    kinds: dict[int, FileKind],
    known: KnownNames,
) -> Iterator[str | None]:
    """Yield the canonical text of events, None for one whose text cannot be told."""
    after = first - 1
    while after < last:
        end = end_of_page(connection, extent, after, last)
        page = Page.of(rows_between(connection, extent, after, end))
        names = known.learn(connection, page)
        for code, session, stream, timestamp_ns, data in page.rows:
            kind = kinds[code]
            if kind.fields is None:
                yield data
            elif not kind.is_known:
                yield None
            else:
                ids = names.sessions[session], names.streams[stream]
                yield canonical_json((kind.name, *ids, timestamp_ns, data))
        after = end
