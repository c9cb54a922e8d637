"""What verifying a file finds: one finding after another, and what is proven in the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import apsw
from pydantic import BaseModel, ConfigDict

from journal.errors import DamagedError, JournalError, PathError, StorageError
from journal.file import forking
from journal.file.connections import translated
from journal.file.decoding import NOT_DECODED, sentence

FINDINGS_MAX: Final = 1_000
"""How many findings a `Verification` keeps; all are counted, and told as they are found."""

GARBLED = (*NOT_DECODED, LookupError, ArithmeticError, RecursionError)
"""What is raised where a value of a file is nothing that it could be."""

_ROWS_AT_ONCE: Final = 1_000
_TEXT_MAX: Final = 500

Severity = Literal["events", "derived"]
"""How bad it is. "events": events, or the proof of what they are, are not what was appended, are
missing, or cannot be read. "derived": only what can be made from the events again is wrong: links
and heads of chains, times of blocks, projections, indexes."""

_READING_FAILED = (
    apsw.SQLITE_IOERR_READ,
    apsw.SQLITE_IOERR_SHORT_READ,
    apsw.SQLITE_IOERR_CORRUPTFS,
    apsw.SQLITE_IOERR_DATA,
)


class Finding(BaseModel):
    """Something in a file that is not as it should be.

    `code` says what is wrong, `where` in which table or thing, `position` at which event, None
    where it is not about a certain one, and `text` all of it in one sentence.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    where: str
    position: int | None
    severity: Severity
    text: str


OnFinding = Callable[[Finding], None]


class Findings:
    """Takes what is found, tells it at once, and keeps the first of it.

    Args:
        path: the file, for `noted`.
        on_finding: is called with each; what it raises goes through.
    """

    def __init__(self, path: Path, on_finding: OnFinding | None = None) -> None:
        self.path = path
        self.count = 0
        self.first: list[Finding] = []
        self._codes: set[str] = set()
        self._on_finding = on_finding
        self._raised: BaseException | None = None

    def add(
        self, code: str, where: str, position: int | None, text: str, severity: Severity = "events"
    ) -> None:
        """Take in a finding."""
        finding = Finding(
            code=code, where=where, position=position, severity=severity, text=_printable(text)
        )
        self.count += 1
        self._codes.add(code)
        if len(self.first) < FINDINGS_MAX:
            self.first.append(finding)
        if self._on_finding is not None:
            try:
                self._on_finding(finding)
            except BaseException as error:
                self._raised = error
                raise

    def has(self, code: str) -> bool:
        """Tell whether there is a finding of a code."""
        return code in self._codes

    @contextmanager
    def noted(
        self,
        code: str,
        where: str,
        position: int | None = None,
        *,
        severity: Severity = "events",
    ) -> Iterator[None]:
        """Be inside SQLite; what is damaged there becomes a finding, and ends the block.

        Raises:
            JournalError: it is no damage: another process, the disk or the caller is at fault.
        """
        try:
            with forking.inside_sqlite(), translated(self.path):
                yield
        except (JournalError, *GARBLED) as error:
            if error is self._raised or not is_damage(error):
                raise
            if isinstance(error, DamagedError) and error.position is not None:
                position = error.position
            text = text_of(error)
            if isinstance(error.__cause__, apsw.Error):  # SQLite does not tell what it read
                place = where if position is None else f"{where}, from position {position} on,"
                text = f"{place} cannot be read: {text}"
            self.add(code, where, position, text, severity)

    def rows(
        self,
        connection: apsw.Connection,
        sql: str,
        parameters: tuple[Any, ...] = (),
        *,
        code: str,
        where: str,
        severity: Severity = "events",
    ) -> Iterator[Any]:
        """Yield the rows of a query, as far as they can be read."""
        cursor: Iterator[Any] = iter(())
        with self.noted(code, where, severity=severity):
            cursor = connection.execute(sql, parameters)
        some: list[Any] = [None]
        while some:
            some = []
            with self.noted(code, where, severity=severity):
                some.extend(islice(cursor, _ROWS_AT_ONCE))
            yield from some


def is_damage(error: Exception) -> bool:
    """Tell whether an error that was met in reading a file says that the file is damaged."""
    if isinstance(error, StorageError):
        result = getattr(error.__cause__, "extendedresult", None)
        return result in _READING_FAILED
    return isinstance(error, DamagedError) or not isinstance(error, JournalError)


def text_of(error: Exception) -> str:
    """Return what an error says of the file."""
    if isinstance(error, PathError):
        return error.reason.removeprefix("is damaged: ")
    return f"{type(error).__name__}: {sentence(error)}"


def _printable(text: str) -> str:
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= _TEXT_MAX else f"{shown[:_TEXT_MAX]}..."
