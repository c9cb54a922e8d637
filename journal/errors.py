"""Every error of the package, by when it occurs. All derive from `JournalError`.

    JournalError
      opening    UnsafeSQLiteError, JournalNotFoundError, PathIsDirectoryError, AccessDeniedError,
                 NotADatabaseError, NotAJournalError, NewerFormatError
      events     InvalidEventError: UnknownKindError, LineRejectedError
      appending  ConcurrencyError, KeyConflictError, ReadOnlyError, CommitFailedError
      projecting FoldError, UnknownProjectionError
      any time   ClosedError, BusyError, StorageFullError, StorageError, DamagedError

Each is also a subclass of the built-in exception that fits, and keeps what its message tells as
attributes. The exception of the driver, where there was one, is the `__cause__`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from journal.events.ids import SessionId
    from journal.file.ndjson import LinesAppended


class JournalError(Exception):
    """The base of every error that this package raises on purpose."""


class PathError(JournalError):
    """An error that concerns the file at `path`; `reason` is the rest of the sentence."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


# Opening


class UnsafeSQLiteError(JournalError, RuntimeError):
    """The SQLite library has the WAL-reset bug, which can corrupt a journal. Upgrade apsw."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"SQLite {version} can corrupt a WAL database when checkpoints race "
            "(expected 3.51.3 or newer, 3.50.7 or 3.44.6; sqlite.org/wal.html#walresetbug): "
            "upgrade apsw"
        )
        self.version = version


class JournalNotFoundError(PathError, FileNotFoundError):
    """There is no such file, and it was opened read-only, or its folder does not exist."""


class PathIsDirectoryError(PathError, IsADirectoryError):
    """The path is a directory."""


class AccessDeniedError(PathError, PermissionError):
    """The operating system refused to open or to write the file."""


class NotADatabaseError(PathError, ValueError):
    """The file is not an SQLite database, or is encrypted, or its first page is damaged."""


class NotAJournalError(PathError, ValueError):
    """The file is an SQLite database of something else."""


class NewerFormatError(PathError, ValueError):
    """The file was written by a newer version of this package. Upgrade, or open it read-only."""

    def __init__(self, path: str | Path, *, expected: int, found: int) -> None:
        super().__init__(
            path, f"has format {found}, this version of journal reads up to {expected}: upgrade it"
        )
        self.expected = expected
        self.found = found


# Events


class InvalidEventError(JournalError, ValueError):
    """What was to be appended or parsed is not an event; nothing was written.

    `line_number` counts from 1 and is None where there are no lines.
    """

    def __init__(self, reason: str, line_number: int | None = None) -> None:
        super().__init__(reason if line_number is None else f"line {line_number}: {reason}")
        self.reason = reason
        self.line_number = line_number


class UnknownKindError(InvalidEventError):
    """The event is of a kind that this version does not know. `unknown="keep"` keeps such."""

    def __init__(self, kind: str, line_number: int | None = None) -> None:
        shown = kind if len(kind) <= 60 else kind[:60] + "..."
        super().__init__(f"event_type {shown!r} is not one of the sixteen known kinds", line_number)
        self.kind = kind


class LineRejectedError(InvalidEventError):
    """A line is no event. All lines before it are committed; it and those after it are not.

    `result` says what is committed (`journal.LinesAppended`).
    """

    def __init__(
        self, line_number: int, line: str | bytes, reason: str, result: "LinesAppended"
    ) -> None:
        super().__init__(reason, line_number)
        self.line = line
        self.result = result


# Appending


class ConcurrencyError(JournalError, RuntimeError):
    """A session is not at the version that the caller saw; nothing was written.

    Read the session again, decide again, and append with its new version.
    """

    def __init__(self, session_id: "SessionId", *, expected: int, actual: int) -> None:
        super().__init__(
            f"session {session_id} is at version {actual}, expected {expected}: "
            "somebody else appended to it"
        )
        self.session_id = session_id
        self.expected = expected
        self.actual = actual


class KeyConflictError(JournalError, ValueError):
    """The idempotency key was used before, with other events; nothing was written."""

    def __init__(self, key: str, first: int | None, last: int | None) -> None:
        where = "an empty append" if first is None else f"positions {first} to {last}"
        super().__init__(f"key {key!r} already stands for other events ({where})")
        self.key = key
        self.first = first
        self.last = last


class ReadOnlyError(PathError, PermissionError):
    """The journal was opened with read_only=True."""


class CommitFailedError(PathError, OSError):
    """A commit failed, so whether its events are in the file is known only after reopening it."""


# Projections


class FoldError(JournalError, RuntimeError):
    """A projection's `apply` raised, or returned no state.

    The projection stays at its last checkpoint, other projections go on. Correct the fold, change
    its version, and read again.
    """

    def __init__(self, projection: str, position: int, reason: str) -> None:
        super().__init__(f"projection {projection!r} failed at position {position}: {reason}")
        self.projection = projection
        self.position = position
        self.reason = reason


class UnknownProjectionError(JournalError, LookupError):
    """There is no projection of this name: register it first."""

    def __init__(self, name: str) -> None:
        super().__init__(f"projection {name!r} is not registered")
        self.name = name


# Any time


class ClosedError(PathError, ValueError):
    """The journal has been closed."""


class BusyError(PathError, TimeoutError):
    """Another process held the file's lock for longer than a minute. A retry can help."""


class StorageFullError(PathError, OSError):
    """The disk is full; nothing was written. A retry can help once there is room."""


class StorageError(PathError, OSError):
    """The operating system failed to read or write the file."""


class DamagedError(PathError, ValueError):
    """The file contradicts itself: it was damaged, or changed by something else."""
