"""The heads of the chains of events: where those of each session and stream end."""

from collections.abc import Iterable
from functools import cache
from operator import attrgetter
from typing import Any

import apsw

from journal.errors import DamagedError
from journal.events.ids import SessionId

# The heads of sessions in use come back with one look-up each, so a bound costs little.
_HEADS_MAX = 50_000

# One statement that writes many rows takes two thirds of the time of one for each.
ROWS_AT_ONCE = 100


@cache
def write_heads_sql(table: str, count: int) -> str:
    """Return the statement that writes so many heads: id, UUID, last position, count."""
    return (
        f"INSERT INTO {table} (id, uuid, last_seq, event_count) VALUES"
        f" {', '.join(['(?, ?, ?, ?)'] * count)} ON CONFLICT (id) DO UPDATE"
        " SET last_seq = excluded.last_seq, event_count = excluded.event_count"
    )


@cache
def _look_up_sql(table: str, count: int) -> str:
    places = ", ".join(["?"] * count)
    return f"SELECT uuid, id, last_seq, event_count FROM {table} WHERE uuid IN ({places})"


class Head:
    """The end of the chain of one session's or stream's events."""

    __slots__ = ("event_count", "hex", "id", "last_seq", "uuid")

    def __init__(self, uuid: bytes, head_id: int, last_seq: int, event_count: int) -> None:
        self.uuid = uuid
        self.hex = uuid.hex()
        self.id = head_id
        self.last_seq = last_seq
        self.event_count = event_count


def stored_head(
    connection: apsw.Connection, table: str, uuid: bytes, last_position: int
) -> Head | None:
    """Return the head of a session or a stream, as the file has it; None if it is not there.

    Raises:
        DamagedError: it lies beyond the last event, or counts more events than there ever were.
    """
    return next(iter(stored_heads(connection, table, [uuid], last_position)), None)


def stored_heads(
    connection: apsw.Connection, table: str, uuids: list[bytes], last_position: int
) -> list[Head]:
    """Return the heads of some sessions or streams, those that the file has.

    Raises:
        DamagedError: as `stored_head`.
    """
    rows: Any = connection.execute(_look_up_sql(table, len(uuids)), uuids)
    return [Head(*_checked(connection, table, row, last_position)) for row in rows]


def _checked(
    connection: apsw.Connection, table: str, row: tuple[Any, ...], last_position: int
) -> tuple[Any, ...]:
    uuid, _, last_seq, event_count = row
    is_right = (
        isinstance(last_seq, int)
        and isinstance(event_count, int)
        and 1 <= event_count <= last_seq <= last_position
    )
    if not is_right:
        what = f"the head {uuid.hex()} of a {table} is damaged: "
        what += f"last {last_seq!r}, count {event_count!r}, in a journal of {last_position}"
        position = last_seq if isinstance(last_seq, int) else None
        raise DamagedError(connection.filename, what, position)
    return row


class Heads:
    """The heads in one table, `session` or `stream`, that were met lately.

    `known` has them by the int of their UUID. It is a plain dict, which is the fastest look-up that
    Python has; one that is not in it has to be made known with `meet`.
    """

    def __init__(self, connection: apsw.Connection, table: str, last_position: int) -> None:
        self.known: dict[int, Head] = {}
        self._connection = connection
        self._table = table
        self._last_position = last_position
        self._last_id = last_id(connection, table)

    def meet(self, uuid_ints: Iterable[int]) -> None:
        """Have these heads known, as the file has them or else new.

        New ones get their numbers in the order of these. They are looked up a hundred at once.
        """
        known = self.known
        unknown = [uuid_int for uuid_int in dict.fromkeys(uuid_ints) if uuid_int not in known]
        for first in range(0, len(unknown), ROWS_AT_ONCE):
            uuids = {each: each.to_bytes(16) for each in unknown[first : first + ROWS_AT_ONCE]}
            found = stored_heads(
                self._connection, self._table, [*uuids.values()], self._last_position
            )
            stored = {head.uuid: head for head in found}
            for uuid_int, uuid in uuids.items():
                head = stored.get(uuid)
                if head is None:
                    self._last_id += 1
                    head = Head(uuid, self._last_id, 0, 0)
                known[uuid_int] = head

    def forget(self, uuids: Iterable[bytes]) -> None:
        """Know nothing more of heads whose rows are deleted."""
        for uuid in uuids:
            self.known.pop(int.from_bytes(uuid), None)

    def version(self, session_id: SessionId) -> int:
        """Return how many events a session has, 0 for one that is not there."""
        head = self.known.get(session_id.int)
        if head is None:
            head = stored_head(self._connection, self._table, session_id.bytes, self._last_position)
        return 0 if head is None else head.event_count

    def write(self, touched: list[Head], last_position: int) -> None:
        """Write the heads that were moved."""
        self._last_position = last_position
        touched.sort(key=attrgetter("id"))  # in the order of the table, one page after another
        for first in range(0, len(touched), ROWS_AT_ONCE):
            some = touched[first : first + ROWS_AT_ONCE]
            values: list[int | bytes] = []
            for head in some:
                values += (head.id, head.uuid, head.last_seq, head.event_count)
            self._connection.execute(write_heads_sql(self._table, len(some)), values)
        if len(self.known) > _HEADS_MAX:
            self.known.clear()


def last_id(connection: apsw.Connection, table: str) -> int:
    """Return the largest number that was ever given in this table: it is never given again."""
    largest: Any = connection.execute(f"SELECT ifnull(max(id), 0) FROM {table}").get
    mark: Any = connection.execute("SELECT value FROM meta WHERE key = ?", (f"{table}_mark",)).get
    known: int = max(largest, int(mark or 0))
    return known
