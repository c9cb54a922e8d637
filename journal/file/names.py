"""What the small integers in rows stand for: kinds, sessions and streams."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from pydantic_core import from_json, to_json

from journal.errors import DamagedError, PrunedError
from journal.events.decoding import Blueprint, blueprint
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.file.decoding import NOT_DECODED, Names, Page, sentence
from journal.file.extent import read_extent
from journal.file.identity import meta

_FIELDS_MAX = 1_000
"""How many fields a kind may have: no kind has ten, and a file is input."""

_IDS_MAX = 50_000
"""How many ids of either sort are kept: those of what is in use come back with one look-up each."""

_SPREAD_MAX = 3
"""A range is read for some numbers if it has no more than so many times as many: a row of a range
takes a third of a look-up."""


class FileKind(NamedTuple):
    """What a file says of a code."""

    name: str
    fields: tuple[str, ...] | None
    """The names of the values in data; None: the events of this code were kept whole."""

    @property
    def is_known(self) -> bool:
        """Whether this version knows the kind, whichever way its events are kept."""
        return self.name in KINDS

    @property
    def is_folded(self) -> bool:
        """Whether the data of its events is that of a kind that this version knows."""
        return self.fields is not None and self.is_known


def kinds_of(connection: apsw.Connection) -> dict[int, FileKind]:
    """Return what the codes of kinds stand for in this file, and nowhere else.

    Raises:
        DamagedError: a kind has no name, or not the fields that this version knows it by.
    """
    found = {}
    for code, name, fields in connection.execute("SELECT code, name, fields FROM kind"):
        try:
            found[code] = kind_of(name, fields)
        except NOT_DECODED as error:
            what = f"is damaged: kind {code}: {sentence(error)}"
            raise DamagedError(connection.filename, what) from error
    return found


@lru_cache(maxsize=64)
def kind_of(name: object, fields: str | None) -> FileKind:
    """Return what a row of `kind` says.

    Raises:
        ValueError, TypeError: it cannot be one.
    """
    kind = FileKind(_name(name), None if fields is None else _field_names(fields))
    blueprint(*kind)
    return kind


def _field_names(fields: str) -> tuple[str, ...]:
    names = from_json(fields)
    if (
        not isinstance(names, list)
        or len(names) > _FIELDS_MAX
        or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"expected the names of at most {_FIELDS_MAX} fields")
    return tuple(names)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError("it has no name")
    return name


def uuids(
    connection: apsw.Connection, table: str, keys: Iterable[int | None]
) -> Iterator[tuple[int, bytes]]:
    """Yield the small integers and the UUIDs of some rows of `session` or `stream`.

    Some more may be among them, where reading a range takes less than looking each one up.
    """
    integers = [key for key in keys if isinstance(key, int)]
    first, last = min(integers, default=0), max(integers, default=-1)
    if last - first < _SPREAD_MAX * len(integers):  # what is new mostly has numbers that follow
        return connection.execute(
            f"SELECT id, uuid FROM {table} WHERE id BETWEEN ? AND ?", (first, last)
        )
    return connection.execute(
        f"SELECT id, uuid FROM {table} WHERE id IN (SELECT value FROM json_each(?))",
        (to_json(integers).decode(),),
    )


class KnownNames:
    """What was looked up lately. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kinds: dict[int, Blueprint] = {}
        self._sessions: dict[int, SessionId] = {}
        self._streams: dict[int | None, StreamId | None] = {None: None}

    @property
    def names(self) -> Names:
        """What is known."""
        return Names(self._kinds, self._sessions, self._streams)

    def learn(self, connection: apsw.Connection, page: Page) -> Names:  # noqa: C901
        """Return what every integer in the rows of a page stands for, if it is there.

        Raises:
            DamagedError: what an integer stands for is not what the format says.
            PrunedError: something in it was forgotten since it was read, as its events were pruned.
        """
        # Local references: another thread may replace a full dictionary meanwhile.
        kinds, sessions, streams = self._kinds, self._sessions, self._streams
        if not kinds.keys() >= {row[0] for row in page.rows}:
            for code, kind in kinds_of(connection).items():
                kinds[code] = blueprint(*kind)
        try:
            unknown_sessions = {row[1] for row in page.rows}.difference(sessions)
            if unknown_sessions:
                if len(sessions) > _IDS_MAX:
                    sessions = self._sessions = {}
                    unknown_sessions = {row[1] for row in page.rows}
                for key, uuid in uuids(connection, "session", unknown_sessions):
                    sessions[key] = SessionId.from_bytes(uuid)
            unknown_streams = {row[2] for row in page.rows}.difference(streams)
            if unknown_streams:
                if len(streams) > _IDS_MAX:
                    streams = self._streams = {None: None}
                    unknown_streams = {row[2] for row in page.rows}
                for key, uuid in uuids(connection, "stream", unknown_streams):
                    streams[key] = StreamId.from_bytes(uuid)
        except NOT_DECODED as error:
            raise DamagedError(self._path, f"the ids are damaged: {sentence(error)}") from error
        if not (sessions.keys() >= unknown_sessions and streams.keys() >= unknown_streams):
            self._check_not_pruned(connection, page)
        return Names(kinds, sessions, streams)

    def _check_not_pruned(self, connection: apsw.Connection, page: Page) -> None:
        extent = read_extent(connection)
        if page.positions[0] <= extent.cut:
            raise PrunedError(self._path, f"position {page.positions[0]}", extent.first)


def not_forgotten(connection: apsw.Connection, table: str, keys: Iterable[int]) -> dict[int, bytes]:
    """Return the UUIDs of some rows of `session` or `stream`, but of those that were forgotten.

    They may be read after what names them, and pruning may come between.

    Raises:
        LookupError: one is not there, and never was deleted.
    """
    wanted = set(keys)
    found = {key: uuid for key, uuid in uuids(connection, table, wanted) if key in wanted}
    if len(found) < len(wanted):
        missing = max(wanted - found.keys())
        if missing > int(meta(connection, f"{table}_mark") or 0):
            raise LookupError(f"there is no {table} {missing}")
    return found


def session_key(connection: apsw.Connection, session_id: SessionId) -> int | None:
    """Return the small integer of a session, None if it is not in the file."""
    return _key(connection, "session", session_id.bytes)


def stream_key(connection: apsw.Connection, stream_id: StreamId) -> int | None:
    """Return the small integer of a stream, None if it is not in the file."""
    return _key(connection, "stream", stream_id.bytes)


def _key(connection: apsw.Connection, table: str, uuid: bytes) -> int | None:
    found: Any = connection.execute(f"SELECT id FROM {table} WHERE uuid = ?", (uuid,)).get
    return found if isinstance(found, int) else None


def ids_beginning(connection: apsw.Connection, table: str, digits: str, limit: int) -> list[bytes]:
    """Return the ids of sessions or streams that begin with some hexadecimal digits, in order.

    It goes by the index of the ids.

    Raises:
        ValueError: they are not 1 to 32 hexadecimal digits.
    """
    digits = digits.replace("-", "")
    if not re.fullmatch("[0-9a-fA-F]{1,32}", digits):
        raise ValueError(f"expected 1 to 32 hexadecimal digits, found {digits!r}")
    first, last = (bytes.fromhex(digits.ljust(32, digit)) for digit in "0f")
    rows: Any = connection.execute(
        f"SELECT uuid FROM {table} WHERE uuid BETWEEN ? AND ? ORDER BY uuid LIMIT ?",
        (first, last, limit),
    ).fetchall()
    return [uuid for (uuid,) in rows]


def folded_codes(kinds: Mapping[int, FileKind]) -> dict[int, str]:
    """Return the names of the kinds whose events are folded, by their codes."""
    return {code: kind.name for code, kind in kinds.items() if kind.is_folded}


def has_unfolded_kinds(connection: apsw.Connection) -> bool:
    """Tell whether the file has events that were kept whole, of a kind that is known by now.

    Opening for writing adds the kind; until then, whatever was folded has passed over them.
    """
    kinds = kinds_of(connection).values()
    folded = {kind.name for kind in kinds if kind.is_folded}
    return any(kind.is_known and kind.name not in folded for kind in kinds)


def codes_to_append(kinds: Mapping[int, FileKind]) -> dict[str, int]:
    """Return the codes of the kinds as this version stores them, by name."""
    return {
        kind.name: code
        for code, kind in kinds.items()
        if kind.is_folded or (kind.fields is None and not kind.is_known)
    }
