"""The rows that say how far each opening of a journal has come in appending.

Where a commit fails half-way, such a row is what tells afterwards whether it took: positions and
digests would not, since a retry may have written the same events.
"""

import secrets
from collections.abc import Container
from typing import Any

import apsw

from journal.errors import DamagedError

_TOKEN_BYTES = 16

_ROWS_MAX = 100
"""Openings that ended badly leave their rows behind, of which so many are kept."""


class Writer:
    """The row of one opening. Its number is that of the latest attempt to append.

    After an attempt of which it is not certain what became, `renew` takes a new row: nobody changes
    the old one any more, so that it goes on saying whether that attempt took.
    """

    def __init__(self) -> None:
        self.number = 0
        self._rows: list[tuple[int, str]] = []
        self.renew()

    def renew(self) -> None:
        """Go on with a new row, which the next attempt inserts."""
        self.token = secrets.token_hex(_TOKEN_BYTES)
        self._id = 0

    def make(self, connection: apsw.Connection) -> None:
        """Insert the row, for a transaction that is to be committed before the first attempt."""
        self._insert(connection, 0)

    def _insert(self, connection: apsw.Connection, last_seq: int) -> None:
        self._id = connection.execute(
            "INSERT INTO writer (id, token, commit_no, last_seq)"
            " SELECT ifnull(max(id), 0) + 1, ?, ?, ? FROM writer RETURNING id",
            (self.token, self.number, last_seq),
        ).get
        self._rows.append((self._id, self.token))
        connection.execute("DELETE FROM writer WHERE id <= ?", (self._id - _ROWS_MAX,))

    def attempt(self, connection: apsw.Connection, last_seq: int, *, is_alone: bool) -> None:
        """Count one more attempt, in its transaction.

        `is_alone`: nobody else has written since the attempt before, so the row is as it left it.
        """
        self.number += 1
        if is_alone:
            values = self.number, last_seq, self._id
            connection.execute("UPDATE writer SET commit_no = ?, last_seq = ? WHERE id = ?", values)
            return
        connection.execute(
            "UPDATE writer SET commit_no = ?, last_seq = ? WHERE id = ? AND token = ?",
            (self.number, last_seq, self._id, self.token),
        )
        if not connection.changes():
            self._insert(connection, last_seq)

    def remove(self, connection: apsw.Connection, unknown: Container[str]) -> None:
        """Delete the rows of this opening, but for tokens of which something is unknown."""
        rows = [(row, token) for row, token in self._rows if token not in unknown]
        connection.executemany("DELETE FROM writer WHERE id = ? AND token = ?", rows)


def forget_writers(connection: apsw.Connection) -> None:
    """Have a copy say nothing of commits: those after it are not in it, and may have taken."""
    if connection.table_exists("main", "writer"):
        connection.execute("DELETE FROM writer")


def committed_number(connection: apsw.Connection, token: str) -> int | None:
    """Return the number of the latest attempt of an opening that took; None where no row says.

    Raises:
        DamagedError: the row does not say a number.
    """
    # An interrupt may have come after a row was made and before that was noted: then there are two.
    sql = "SELECT max(commit_no) FROM writer WHERE token = ?"
    number: Any = connection.execute(sql, (token,)).get
    if number is not None and not isinstance(number, int):
        raise DamagedError(connection.filename, "is damaged: a row of the table writer")
    return number
