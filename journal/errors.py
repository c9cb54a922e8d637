"""Every error of the package, by when it occurs. All derive from `JournalError`.

    JournalError
      opening    UnsafeSQLiteError, JournalNotFoundError, PathIsDirectoryError, AccessDeniedError,
                 NotADatabaseError, NotAJournalError, NewerFormatError, ClosedCopyError,
                 NotAClosedCopyError, OpenSourceError, FileReplacedError, StaleWalError
      events     InvalidEventError: UnknownKindError, LineRejectedError
      appending  ConcurrencyError, KeyConflictError, ReadOnlyError, CommitFailedError,
                 OverloadedError, FlushFailedError
      projecting FoldError, UnknownProjectionError
      reading    PrunedError
      files      TargetExistsError, WrongTargetError, OtherHistoryError, PrunedFleetError
      any time   ClosedError, BusyError, StorageFullError, StorageError, DamagedError

Each is also a subclass of the built-in exception that fits, and keeps what its message says as
attributes. The exception of the driver, where there was one, is the `__cause__`. Nothing of the
package is imported here, so that everything in it can import this.
"""

from errno import EACCES, EBUSY, EEXIST, EIO, EISDIR, ENOENT, ENOSPC, EROFS, ESTALE, ETIMEDOUT
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID


class JournalError(Exception):
    """The base of every error that this package raises on purpose.

    Errors can be pickled and copied, with their attributes, text and notes.

    Of an error that `Journal.append_events`, `Journal.submit` or a ticket raises, `outcome` says
    what has become of the append: see `journal.store.Outcome`. It is "rejected" where the append
    was refused before it was begun, too. So it does of whatever else ends an append that was begun,
    such as a `KeyboardInterrupt` or an `asyncio.CancelledError`. None where no append is concerned.
    """

    outcome: Any = None

    __str__ = Exception.__str__  # not that of OSError, which would begin with "[Errno 2]"

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how to make a copy: a new instance gets the attributes, `__init__` is not called.

        Exceptions would otherwise be made by calling the class with `args`, which here is the
        message. Those of `OSError` are not in `__dict__`.
        """
        state = {"args": self.args, **vars(self)}
        if isinstance(self, OSError):
            state |= {name: getattr(self, name) for name in ("errno", "strerror", "filename")}
        return _blank, (type(self),), state


def _blank(cls: type[JournalError]) -> JournalError:
    return cls.__new__(cls)


class PathError(JournalError):
    """An error that concerns the file at `path`; `reason` is the rest of the sentence."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


class PathOSError(PathError, OSError):
    """A `PathError` that is an `OSError`, too, and has its `errno`, `strerror` and `filename`.

    `errno` is that of the `OSError` that caused it, or else the usual one of its class.
    """

    usual_errno: ClassVar[int] = EIO

    def __init__(self, path: str | Path, reason: str, *, errno: int | None = None) -> None:
        super().__init__(path, reason)
        self.errno = self.usual_errno if errno is None else errno
        self.strerror = reason
        self.filename = str(path)


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


class JournalNotFoundError(PathOSError, FileNotFoundError):
    """There is no such file, and it was opened read-only, or its folder does not exist."""

    usual_errno = ENOENT


class PathIsDirectoryError(PathOSError, IsADirectoryError):
    """The path is a directory."""

    usual_errno = EISDIR


class AccessDeniedError(PathOSError, PermissionError):
    """The operating system refused to open or to write the file."""

    usual_errno = EACCES


class NotADatabaseError(PathError, ValueError):
    """The file is not an SQLite database, or is encrypted, or its first page is damaged."""


class NotAJournalError(PathError, ValueError):
    """The file is an SQLite database, but not a journal."""


class FileReplacedError(PathOSError):
    """The file at the path is not, or no longer, the one that is open.

    It was moved, deleted, replaced or written to by something else, or its -wal or -shm was; or
    somebody uses it under another name. Nothing was written. Open the journal again.
    """

    usual_errno = ESTALE


class StaleWalError(PathOSError):
    """The -wal beside the file was not written for it: one of them was put there from elsewhere.

    Nothing was read or written: SQLite would lay one over the other.
    """

    usual_errno = ESTALE

    def __init__(self, path: str | Path, reason: str) -> None:
        name = Path(path).name
        super().__init__(
            path,
            f"was put back without its -wal, or the -wal beside it was: {name}-wal {reason}. "
            f"If {name} is what you want, move {name}-wal and {name}-shm away; "
            "otherwise put the file there that they belong to",
        )
        self.reason = reason


class ClosedCopyError(PathOSError, PermissionError):
    """The file is a copy that was made for good, by shipping or recovering: nobody appends to it.

    Otherwise a position would mean one event here and another one in the journal. Open it with
    read_only=True, or make a journal of it with `continue_copy`. `made_by` is "ship", "delta" or
    "recover".
    """

    usual_errno = EROFS

    def __init__(self, path: str | Path, made_by: str) -> None:
        super().__init__(
            path,
            f"is a closed copy, made by {made_by}: open it read-only, or make a journal that goes "
            "on from it (journal continue)",
        )
        self.made_by = made_by


class NotAClosedCopyError(PathError, ValueError):
    """The file is a journal itself, not a copy of one to go on from: append to it."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "is no closed copy, but a journal itself: append to it")


class OpenSourceError(PathOSError):
    """A file that is to be merged is open for writing, or was not closed: it has a -wal.

    Part of it is in there. Close the journal first, or ship it and merge the shipment.
    """

    usual_errno = EBUSY

    def __init__(self, path: str | Path) -> None:
        name = Path(path).name
        super().__init__(
            path,
            f"is in use or was not closed ({name}-wal is beside it): merge a shipment of it "
            f"(journal ship {name} FOLDER), or close it first",
        )


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
    """The event is of a kind that this version does not know. `unknown="keep"` keeps it."""

    def __init__(self, kind: str, line_number: int | None = None) -> None:
        shown = kind if len(kind) <= 60 else kind[:60] + "..."
        super().__init__(f"event_type {shown!r} is not a known kind", line_number)
        self.kind = kind


class LineRejectedError(InvalidEventError):
    """A line is not an event. All lines before it are committed; it and those after it are not.

    `appended` says how many events of the lines before are committed; `first` and `last` are the
    positions of the first and the last of them, None if there are none.
    """

    def __init__(
        self,
        line_number: int,
        line: str | bytes,
        reason: str,
        *,
        appended: int,
        first: int | None,
        last: int | None,
    ) -> None:
        super().__init__(reason, line_number)
        self.line = line
        self.appended = appended
        self.first = first
        self.last = last


# Appending


class ConcurrencyError(JournalError, RuntimeError):
    """A session is not at the version that the caller saw; nothing was written.

    Read the session again, decide again, and append with its new version.
    """

    def __init__(self, session_id: UUID, *, expected: int, actual: int) -> None:
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


class ReadOnlyError(PathOSError, PermissionError):
    """The journal was opened with read_only=True, so nothing can be written."""

    usual_errno = EROFS


class CommitFailedError(PathOSError):
    """A commit failed, so whether its events are in the file is known once the disk works again.

    The journal opens the file again by itself then, which decides it once and for ever:
    `Journal.resolve` tells it from the error's `outcome`. Who only reads may see the events before,
    or not see them.
    """


class OverloadedError(JournalError, RuntimeError):
    """So much waits that the limit of `Journal.open` is reached; nothing was written.

    `waiting` says how many appends, or how many events where they are buffered. A retry can help,
    once some of them are committed.
    """

    def __init__(self, *, waiting: int, waiting_max: int, what: str = "appends") -> None:
        super().__init__(f"{waiting} {what} wait to be committed, the limit is {waiting_max}")
        self.waiting = waiting
        self.waiting_max = waiting_max


class FlushFailedError(PathOSError):
    """Buffered events could not be written; their tickets say what has become of each append.

    It is raised once, by the next call that appends, flushes or closes, which has appended nothing
    itself. `event_count` says how many events it concerns. The `__cause__` is the first error.
    """

    def __init__(
        self, path: str | Path, event_count: int, why: str, *, is_known: bool, errno: int | None
    ) -> None:
        became = "were not written"
        if not is_known:
            became = (
                "may not have been written (Journal.resolve tells, from their tickets' outcome)"
            )
        super().__init__(path, f"{event_count} buffered events {became}: {why}", errno=errno)
        self.event_count = event_count


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


# Reading


class PrunedError(PathError, LookupError):
    """What was asked for lies before the first event that the file still has.

    `first` is the position of that event, and the one to go on from.
    """

    def __init__(self, path: str | Path, asked: str, first: int) -> None:
        super().__init__(path, f"{asked} is before the first event left, at position {first}")
        self.asked = asked
        self.first = first


# Whole files


class TargetExistsError(PathOSError, FileExistsError):
    """There is a file already where one is to be made; it stays. `force=True` replaces it."""

    usual_errno = EEXIST

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "exists already (only with force it is replaced)")


class WrongTargetError(PathError, ValueError):
    """No file may be made there, with or without `force`; nothing was done.

    It is the file that is read or one beside it, or it belongs to a file that is in use.
    """


class OtherHistoryError(PathError, ValueError):
    """What was shipped before is no beginning of the journal at `path`; nothing was made.

    It is of another journal, of another branch of this one, or later than its end; or what it is
    held against is pruned or redacted by now.
    """


# Any time


class PrunedFleetError(PathError, ValueError):
    """A merged journal was pruned, and not made anew: that would lose what pruning kept."""


class ClosedError(PathError, ValueError):
    """The journal was closed before, or was opened by the process that this one was forked from."""


class BusyError(PathOSError, TimeoutError):
    """Another process held the file's lock for longer than a minute. A retry can help.

    Or a handler, of a signal or of logging, say, would have to wait for what it has interrupted, or
    what has called it.
    """

    usual_errno = ETIMEDOUT


class StorageFullError(PathOSError):
    """The disk is full; nothing was written. A retry can help once there is room."""

    usual_errno = ENOSPC


class StorageError(PathOSError):
    """The operating system failed to read or write the file."""


class DamagedError(PathError, ValueError):
    """The file contradicts itself: it was damaged, or changed by something else.

    `what` says what is wrong (it is the `reason`); `position` is that of the event at which it was
    met, None where no single event is concerned.
    """

    def __init__(self, path: str | Path, what: str, position: int | None = None) -> None:
        super().__init__(path, what)
        self.what = what
        self.position = position
