"""What a file says that it is: whether it is a journal, of which format, and its label."""

from pathlib import Path
from typing import Any

import apsw

from journal import errors
from journal.file.objects import check_is_table

APPLICATION_ID = 0x504A534A
FORMAT_VERSION = 1

LABEL_CHARACTERS_MAX = 200

_SAFE_SINCE = (3, 51, 3)
_SAFE_BACKPORTS = {(3, 44): 6, (3, 50): 7}


def check_sqlite(version: str) -> None:
    """Refuse an SQLite with the WAL-reset bug.

    Raises:
        UnsafeSQLiteError: it is older than 3.51.3 and not one of the corrected 3.44 and 3.50.

    Source: sqlite.org/wal.html#walresetbug.
    """
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    backport = _SAFE_BACKPORTS.get((major, minor))
    if (major, minor, patch) < _SAFE_SINCE and (backport is None or patch < backport):
        raise errors.UnsafeSQLiteError(version)


def is_blank(connection: apsw.Connection) -> bool:
    """Tell whether there is nothing at all in the file, neither of ours nor of anybody's."""
    return not (
        connection.pragma("application_id")
        or connection.pragma("user_version")
        or connection.execute("SELECT count(*) FROM sqlite_schema").get
    )


def check_identity(connection: apsw.Connection, path: Path) -> None:
    """Refuse what is not a journal, or is one of a newer format.

    Raises:
        NotAJournalError, NewerFormatError: it is.
    """
    if connection.pragma("application_id") != APPLICATION_ID:
        reason = "is an SQLite database, but not a journal"
        if connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
            reason = "is empty, not a journal"
        raise errors.NotAJournalError(path, reason)
    check_format(connection, path)


def check_format(connection: apsw.Connection, path: Path) -> None:
    """Refuse a format that this version cannot write or, on a reading connection, cannot read.

    Raises:
        NewerFormatError: the file is of a newer format.
    """
    found = connection.pragma("user_version")
    if found <= FORMAT_VERSION:
        return
    check_is_table(connection, "meta")
    needed = connection.execute("SELECT value FROM meta WHERE key = 'min_reader_version'").get
    readable = [str(version) for version in range(1, FORMAT_VERSION + 1)]
    if not (connection.readonly("main") and needed in readable):
        raise errors.NewerFormatError(path, expected=FORMAT_VERSION, found=found)


def meta(connection: apsw.Connection, key: str) -> str | None:
    """Return a fact about the file, None where it is not there.

    Raises:
        DamagedError: it is not text.
    """
    value: Any = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).get
    if value is not None and not isinstance(value, str):
        raise errors.DamagedError(connection.filename, f"is damaged: {key} in meta is not text")
    return value


def set_meta(connection: apsw.Connection, key: str, value: str) -> None:
    """Write a fact about the file."""
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def check_label(label: str) -> None:
    """Refuse what cannot be the label of a journal.

    Raises:
        ValueError: it is not a line of 1 to 200 printable characters.
    """
    if not isinstance(label, str) or not 1 <= len(label) <= LABEL_CHARACTERS_MAX:
        message = f"label: expected 1 to {LABEL_CHARACTERS_MAX} characters, found {label!r:.240}"
        raise ValueError(message)
    if not label.isprintable():
        message = f"label: expected printable characters on one line, found {label!r}"
        raise ValueError(message)


def check_not_closed(connection: apsw.Connection, path: Path) -> None:
    """Refuse to write to a copy that was made for good.

    Raises:
        ClosedCopyError: it is one.
    """
    made_by = meta(connection, "closed")
    if made_by is not None:
        raise errors.ClosedCopyError(path, made_by)
