"""Placing: inserting the events of another file after the last one, with heads and blocks.

They are inserted as they are stored, so that the digests of the file that they come from hold.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
from pydantic_core import to_json

from journal.errors import DamagedError
from journal.file.appending import write_events_sql
from journal.file.blocks import BlockRow, Tail
from journal.file.chain_heads import ROWS_AT_ONCE, Head, Heads
from journal.file.extent import read_extent
from journal.file.names import FileKind, kinds_of, uuids

_IDS_MAX = 50_000


class Placer:
    """Inserts events at the end of a journal. It holds as long as nobody else writes to it.

    Args:
        connection: in a transaction of `Database.write`.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        extent = read_extent(connection)
        self.position = extent.last
        self._connection = connection
        self._sessions = Heads(connection, "session", self.position)
        self._streams = Heads(connection, "stream", self.position)
        self._tail = Tail(connection, extent)
        self._codes = {kind: code for code, kind in kinds_of(connection).items()}

    def seal(self) -> None:
        """Seal the block at the end, so that no block has events of two journals."""
        self._tail.seal(self._connection, self.position)

    def code_of(self, kind: FileKind) -> int:
        """Return the code of a kind that is stored so, which may be new."""
        code = self._codes.get(kind)
        if code is None:
            fields = None if kind.fields is None else to_json(kind.fields).decode()
            sql = "INSERT INTO kind (name, fields) VALUES (?, ?)"
            self._connection.execute(sql, (kind.name, fields))
            code = self._codes[kind] = self._connection.last_insert_rowid()
        return code

    def place(self, rows: Sequence[Any], names: "Names") -> None:
        """Insert rows as `History.rows` gives them, at the next positions."""
        sessions = self._heads(self._sessions, names.sessions({row[2] for row in rows}))
        streams = self._heads(self._streams, names.streams({row[3] for row in rows}))
        kinds = {code: (kind.name, self.code_of(kind)) for code, kind in names.kinds.items()}
        start = position = self.position
        moved_sessions: list[Head] = []
        moved_streams: list[Head] = []
        block_rows: list[BlockRow] = []
        data_size = 0
        for first in range(0, len(rows), ROWS_AT_ONCE):
            values: list[int | str | None] = []
            some = rows[first : first + ROWS_AT_ONCE]
            for _, source_code, session_key, stream_key, timestamp_ns, data in some:
                position += 1
                kind, code = kinds[source_code]
                session = sessions[session_key]
                session_prev = session.last_seq
                if session_prev <= start:
                    moved_sessions.append(session)
                session.last_seq = position
                session.event_count += 1
                stream_key_here = stream_hex = stream_prev = None
                if stream_key is not None:
                    stream = streams[stream_key]
                    stream_key_here, stream_hex = stream.id, stream.hex
                    stream_prev = stream.last_seq
                    if stream_prev <= start:
                        moved_streams.append(stream)
                    stream.last_seq = position
                    stream.event_count += 1
                if data is not None:
                    data_size += len(data)
                block_rows.append((position, kind, session.hex, stream_hex, timestamp_ns, data))
                values += (
                    position,
                    code,
                    session.id,
                    stream_key_here,
                    timestamp_ns,
                    data,
                    session_prev or None,
                    stream_prev or None,
                )
            self._connection.execute(write_events_sql(len(some)), values)
        self._sessions.write(moved_sessions, position)
        self._streams.write(moved_streams, position)
        self._tail.add(self._connection, block_rows, data_size)
        self.position = position

    def _heads(self, heads: Heads, uuid_ints: dict[int, int]) -> dict[int, Head]:
        """Return the heads in this file of what some numbers stand for in another one."""
        known = heads.known
        try:
            return {key: known[uuid_int] for key, uuid_int in uuid_ints.items()}
        except KeyError:
            heads.meet(uuid_ints.values())
            return {key: known[uuid_int] for key, uuid_int in uuid_ints.items()}


class Names:
    """What the small integers in the rows of a file stand for.

    Raises:
        DamagedError: a kind is not what it could be.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.kinds = kinds_of(connection)
        self._connection = connection
        self._known: dict[str, dict[int, int]] = {"session": {}, "stream": {}}

    def sessions(self, keys: set[int]) -> dict[int, int]:
        """Return the UUIDs of sessions, as integers, by their numbers."""
        return self._uuids("session", keys)

    def streams(self, keys: set[int | None]) -> dict[int, int]:
        """Return those of streams; None stands for none."""
        return self._uuids("stream", {key for key in keys if key is not None})

    def _uuids(self, table: str, keys: set[int]) -> dict[int, int]:
        known = self._known[table]
        unknown = keys.difference(known)
        if unknown:
            if len(known) > _IDS_MAX:
                known.clear()
                unknown = keys
            known.update(_integers(self._connection, table, unknown))
        try:
            return {key: known[key] for key in keys}
        except KeyError as error:
            what = f"is damaged: it has no {table} {error.args[0]!r:.40}, which an event names"
            raise DamagedError(self._connection.filename, what) from None


def _integers(
    connection: apsw.Connection, table: str, keys: Iterable[int]
) -> Iterable[tuple[int, int]]:
    for key, uuid in uuids(connection, table, keys):
        if not isinstance(uuid, bytes) or len(uuid) != 16:
            what = f"is damaged: the {table} {key} has an id that is none"
            raise DamagedError(connection.filename, what)
        yield key, int.from_bytes(uuid)
