"""Appending newline-delimited JSON: lines from anywhere, in batches, bad ones reported."""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Literal

from journal.errors import InvalidEventError, LineRejectedError
from journal.events.codecs import Record
from journal.events.wire import read_record
from journal.events.wire_exact import Unknown
from journal.store import Appended, LinesAppended, RejectedLine

OnError = Literal["stop", "skip"]
"""What to do at a line that is not an event: stop there, or report it and go on."""

BATCH_EVENTS = 1_000
BATCH_SIZE_MAX = 4 * 1024 * 1024
"""In characters."""
BATCH_SECONDS = 1.0
"""How long the first event of a batch may wait for the others."""


class LineAppender:
    """Takes lines one by one and appends their events in batches.

    A batch is committed at a thousand events or four million characters, or when a line comes and
    it is a second old. No transaction is open between calls.

    Args:
        append: appends records in one transaction.
        on_error: "stop" raises at the first line that is not an event, after committing all before
            it; "skip" goes on.
        unknown: what to do with an event of an unknown kind; see `parse_event`.
        on_reject: is called for every rejected line, before the events after it are committed.
    """

    def __init__(
        self,
        append: Callable[[list[Record]], Appended],
        *,
        on_error: OnError = "stop",
        unknown: Unknown = "reject",
        on_reject: Callable[[RejectedLine], None] | None = None,
    ) -> None:
        if on_error not in ("stop", "skip"):
            message = f"on_error: expected 'stop' or 'skip', found {on_error!r}"
            raise ValueError(message)
        if unknown not in ("reject", "keep"):
            message = f"unknown: expected 'reject' or 'keep', found {unknown!r}"
            raise ValueError(message)
        self._append = append
        self._on_error = on_error
        self._unknown = unknown
        self._on_reject = on_reject
        self._line_number = 0
        self._batch: list[Record] = []
        self._room = BATCH_SIZE_MAX
        self._due = 0.0
        self.result = LinesAppended(0, 0, None, None)

    def add(self, line: str | bytes) -> None:
        """Take one line; blank ones count as lines and are otherwise ignored.

        Raises:
            LineRejectedError: the line is not an event, and `on_error` is "stop".
        """
        self.extend((line,))

    def extend(self, lines: Iterable[str | bytes]) -> None:
        """Take lines one by one, as `add` does.

        Raises:
            TypeError: `lines` is a single text, which would be taken character by character.
        """
        if isinstance(lines, str | bytes):
            message = f"expected an iterable of lines, found one {type(lines).__name__}"
            raise TypeError(f"{message} (its splitlines() will do)")
        unknown = self._unknown
        for line in lines:
            self._line_number += 1
            try:
                record = read_record(line, unknown)
            except InvalidEventError as error:
                if not isinstance(line, str | bytes) or line.strip():
                    self._reject(line, error.reason)
                continue
            now = monotonic()
            batch = self._batch
            if not batch:
                self._due = now + BATCH_SECONDS
            batch.append(record)
            self._room -= len(line)
            if len(batch) >= BATCH_EVENTS or self._room <= 0 or now >= self._due:
                self.flush()

    def reject(self, line: str | bytes, reason: str) -> None:
        """Take one line that is not an event, for a reason that the caller has found.

        Raises:
            LineRejectedError: `on_error` is "stop".
        """
        self._line_number += 1
        self._reject(line, reason)

    def _reject(self, line: str | bytes, reason: str) -> None:
        rejected = RejectedLine(self._line_number, line, reason)
        if self._on_error == "stop":
            self.flush()
        self.result = self.result._replace(rejected=self.result.rejected + 1)
        if self._on_reject is not None:
            self._on_reject(rejected)
        if self._on_error == "stop":
            appended, _, first, last = self.result
            raise LineRejectedError(
                self._line_number, line, reason, appended=appended, first=first, last=last
            )

    def flush_if_old(self) -> None:
        """Append what has waited for a second."""
        if self._batch and monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Append what waits."""
        if not self._batch:
            return
        batch, self._batch, self._room = self._batch, [], BATCH_SIZE_MAX
        first, last = self._append(batch)
        self.result = LinesAppended(
            self.result.appended + len(batch),
            self.result.rejected,
            first if self.result.first is None else self.result.first,
            last,
        )

    def append_all(self, lines: Iterable[str | bytes]) -> LinesAppended:
        """Append every line; when the source of lines fails, what it gave before is appended first.

        Raises:
            LineRejectedError: as `add`, and whatever `lines` raises.
        """
        try:
            self.extend(lines)
        except LineRejectedError:
            raise
        except Exception:
            self.flush()
            raise
        self.flush()
        return self.result
