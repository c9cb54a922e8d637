"""Placing: inserting the events of another file after the last one, with heads and blocks.

They are inserted as they are stored, so that the digests of the file that they come from hold.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Literal

import apsw
from pydantic_core import to_json

from journal.errors import DamagedError
from journal.file.appending import write_events_sql
from journal.file.blocks import BlockRow, Tail
from journal.file.chain_heads import ROWS_AT_ONCE, Head, last_id, stored_heads, write_heads_sql
from journal.file.extent import read_extent
from journal.file.names import FileKind, kinds_of, uuids
from journal.file.passed_over import add_kind

_IDS_MAX = 20_000
"""How many ids of a source are known at once; those in use come back with a look-up each."""

_COLUMNS = 8


class Names:
    """What the small integers in the rows of a source stand for.

    Raises:
        DamagedError: a kind is not what it could be.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.kinds = kinds_of(connection)
        self._connection = connection

    def uuids(
        self, table: Literal["session", "stream"], keys: Collection[int]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield numbers and UUIDs of some sessions or streams, each once.

        Raises:
            DamagedError: one is not there, or its id is none.
        """
        left = set(keys)
        for key, uuid in uuids(self._connection, table, keys):
            if key in left:
                left.remove(key)
                if not isinstance(uuid, bytes) or len(uuid) != 16:
                    break
                yield key, uuid
        for key in left:
            what = f"is damaged: it has no id of the {table} {key}, which an event names"
            raise DamagedError(self._connection.filename, what)


class Placer:
    """Inserts events at the end of a journal. It holds as long as nobody else writes to it.

    Args:
        connection: in a transaction of `Database.write`.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        extent = read_extent(connection)
        self.position = extent.last
        self._connection = connection
        self._tail = Tail(connection, extent)
        self._codes = {kind: code for code, kind in kinds_of(connection).items()}
        self._sessions = _Owners(connection, "session")
        self._streams = _Owners(connection, "stream")

    def complete(self) -> None:
        """Write what is kept until the end of a transaction, and seal the block at the end.

        So no block has events of two journals.
        """
        self._sessions.write()
        self._streams.write()
        self._tail.seal(self._connection, self.position)

    def place(self, rows: Sequence[Any], names: Names) -> None:
        """Insert rows as `History.rows` gives them, at the next positions.

        In columns: what has to be done for each row by itself takes most of the time.
        """
        _, kinds, session_keys, stream_keys, timestamps_ns, data = zip(*rows, strict=True)
        sessions, streams = self._sessions, self._streams
        sessions.meet(names, self.position, session_keys)
        streams.meet(names, self.position, stream_keys)
        positions = range(self.position + 1, self.position + len(rows) + 1)
        codes = {code: self._code_of(names.kinds[code]) for code in set(kinds)}
        values = list(
            chain.from_iterable(
                zip(
                    positions,
                    map(codes.__getitem__, kinds),
                    map(sessions.ids.__getitem__, session_keys),
                    map(streams.ids.__getitem__, stream_keys),
                    timestamps_ns,
                    data,
                    sessions.links(session_keys, positions),
                    streams.links(stream_keys, positions),
                    strict=True,
                )
            )
        )
        for first in range(0, len(values), _COLUMNS * ROWS_AT_ONCE):
            some = values[first : first + _COLUMNS * ROWS_AT_ONCE]
            self._connection.execute(write_events_sql(len(some) // _COLUMNS), some)
        texts: Iterable[BlockRow] = zip(
            positions,
            map({code: names.kinds[code].name for code in codes}.__getitem__, kinds),
            map(sessions.hexes.__getitem__, session_keys),
            map(streams.hexes.__getitem__, stream_keys),
            timestamps_ns,
            data,
            strict=True,
        )
        self._tail.add(self._connection, list(texts), sum(map(len, filter(None, data))))
        self.position = positions[-1]

    def _code_of(self, kind: FileKind) -> int:
        """Return the code of a kind that is stored so, which may be new."""
        code = self._codes.get(kind)
        if code is None:
            fields = None if kind.fields is None else to_json(kind.fields).decode()
            code = self._codes[kind] = add_kind(self._connection, kind.name, fields)
        return code


class _Owners:
    """The sessions or the streams of a source, as they are in the file, by the numbers there.

    What changes of them is in the file after `write`.
    """

    def __init__(self, connection: apsw.Connection, table: Literal["session", "stream"]) -> None:
        self.ids: dict[int | None, int | None] = {None: None}
        self.hexes: dict[int | None, str | None] = {None: None}
        self._connection = connection
        self._table = table
        self._last_id = last_id(connection, table)
        self._names: Names | None = None
        self._uuids: dict[int, bytes] = {}
        self._lasts: dict[int | None, int | None] = {}
        self._counts: Counter[int] = Counter()
        self._moved: set[int] = set()

    def meet(self, names: Names, last_position: int, keys: Iterable[int | None]) -> None:
        """Know what some numbers in a source stand for in the file; those of another are forgotten.

        Raises:
            DamagedError: one stands for nothing.
        """
        if names is not self._names or len(self.ids) > _IDS_MAX:
            self.write()
            self._names = names
            for known in (self.ids, self.hexes):
                known.clear()
                known[None] = None
            for others in (self._uuids, self._lasts, self._counts):
                others.clear()
        unknown = {key for key in set(keys).difference(self.ids) if key is not None}
        if not unknown:
            return
        new = dict(names.uuids(self._table, sorted(unknown)))
        self._uuids.update(new)
        wanted = list(new.values())
        stored: dict[bytes, Head] = {}
        for first in range(0, len(wanted), ROWS_AT_ONCE):
            some = wanted[first : first + ROWS_AT_ONCE]
            found = stored_heads(self._connection, self._table, some, last_position)
            stored.update((head.uuid, head) for head in found)
        for key, uuid in new.items():
            head = stored.get(uuid)
            if head is None:
                self._last_id += 1
                self.ids[key] = self._last_id
                self._lasts[key] = None
            else:
                self.ids[key] = head.id
                self._lasts[key] = head.last_seq
                self._counts[key] = head.event_count
            self.hexes[key] = uuid.hex()

    def links(self, keys: Sequence[int | None], positions: Iterable[int]) -> list[int | None]:
        """Return the position before of each owner, and know these from now on."""
        lasts = self._lasts
        found: list[int | None] = []
        add = found.append
        for key, position in zip(keys, positions, strict=True):
            if key is None:
                add(None)
            else:
                add(lasts[key])
                lasts[key] = position
        counts = Counter(keys)
        counts.pop(None, None)
        self._counts.update(counts)  # type: ignore[arg-type]
        self._moved.update(counts)  # type: ignore[arg-type]
        return found

    def write(self) -> None:
        """Write the heads that were moved."""
        moved = sorted((self.ids[key], key) for key in self._moved)  # in the order of the table
        self._moved.clear()
        for first in range(0, len(moved), ROWS_AT_ONCE):
            some = moved[first : first + ROWS_AT_ONCE]
            values: list[Any] = []
            for head_id, key in some:
                values += (head_id, self._uuids[key], self._lasts[key], self._counts[key])
            self._connection.execute(write_heads_sql(self._table, len(some)), values)
