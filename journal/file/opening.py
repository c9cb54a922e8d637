"""Connections to a journal file, with its settings applied.

What is at the path, what the file says that it is, making a new one and the -wal are for the
modules beside this one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import apsw

from journal.file.creating import add_missing_kinds, add_missing_tables, create_journal
from journal.file.identity import FORMAT_VERSION, check_identity, check_not_closed, is_blank
from journal.file.lock_waits import BUSY_TIMEOUT_MS, wait_for_locks
from journal.file.migrations import migrate
from journal.file.objects import check_objects
from journal.file.paths import check_writable, resolved
from journal.file.process_locks import opened
from journal.file.wal import WAL_BYTES_KEPT, use_wal
from journal.limits import DATA_SIZE_MAX

Durability = Literal["full", "normal"]
"""What an append waits for.

"full": the disk has it, so it survives a power cut. "normal": the operating system has it, so it
survives a crash of the program; a power cut may lose the latest appends, each as a whole.
"""

# The heads of sessions and streams are updated all over their tables, so their pages should stay in
# memory: 2 MB, the default, holds those of some twenty thousand.
_CACHE_KIB = 16 * 1024

_VALUE_BYTES_MAX = 5 * DATA_SIZE_MAX  # in UTF-8, with room for the record around it
_STEPS_BETWEEN_SIGNALS = 200_000  # of SQLite's machine: some hundredths of a second

# SQLite's mark of a reader is a lock that another library in the process drops. What is read just
# then may be overwritten, or cut off, so it does not say yet that the file is damaged.
_ATTEMPTS = 3
_OVERWRITTEN = apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB, apsw.SQLITE_IOERR_SHORT_READ

# `Database` lends a connection to one thread at a time, so SQLite need not lock it in every call.
# That saves a quarter of the time of reading a row.
_UNSHARED = apsw.SQLITE_OPEN_NOMUTEX


def open_writer(path: Path, durability: Durability) -> apsw.Connection:
    """Return a connection that can write; an empty file becomes a new journal.

    Raises:
        JournalError: one of those listed under "opening" in `errors`, or apsw.Error.
    """
    return _in_some_attempt(lambda: _open_writer(path, durability))


def _open_writer(path: Path, durability: Durability) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | _UNSHARED
    connection = opened(apsw.Connection(str(resolved(path)), flags=flags))
    try:
        # Until it is known to be ours, closing it must leave its -wal as it is.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        check_writable(path, is_refused=connection.readonly("main"))
        connection.wal_autocheckpoint(0)  # `Checkpoints` does it
        wait_for_locks(connection, BUSY_TIMEOUT_MS)
        _harden(connection)
        if is_blank(connection):
            create_journal(connection)
        check_identity(connection, path)
        migrate(connection, path)
        check_objects(connection)
        check_not_closed(connection, path)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        use_wal(connection, path)
        connection.execute(
            f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'};"
            # On macOS a plain fsync leaves it to the disk when it writes; nothing elsewhere.
            f"PRAGMA fullfsync = {int(durability == 'full')}; PRAGMA checkpoint_fullfsync = ON;"
            f"PRAGMA cache_size = -{_CACHE_KIB};"
        )
        overwrite_deleted(connection)
        connection.pragma("journal_size_limit", WAL_BYTES_KEPT)
        add_missing_tables(connection)
        add_missing_kinds(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def overwrite_deleted(connection: apsw.Connection) -> None:
    """Have what is deleted overwritten, and what moves to other pages, here and in attached files.

    FAST would leave it in pages that get free as a whole.
    """
    connection.pragma("secure_delete", 1)


def _harden(connection: apsw.Connection) -> None:
    """Trust nothing that the file says, before the first query; and let Ctrl-C end every query."""
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
    connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, _VALUE_BYTES_MAX)
    connection.execute("PRAGMA cell_size_check = ON")
    # Python looks for signals when it is called; the callback itself has nothing to do.
    connection.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)


def open_reader(target: str, path: Path) -> apsw.Connection:
    """Return a connection that only reads the journal at `path`, through `target`.

    Raises:
        JournalError: one of those listed under "opening" in `errors`, or apsw.Error.
    """
    return _in_some_attempt(lambda: _open_reader(target, path))


def _open_reader(target: str, path: Path) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI | _UNSHARED
    connection = opened(apsw.Connection(target, flags=flags))
    try:
        wait_for_locks(connection, BUSY_TIMEOUT_MS)
        _harden(connection)
        check_identity(connection, path)
        if connection.pragma("user_version") == FORMAT_VERSION:
            check_objects(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _in_some_attempt(open_it: Callable[[], apsw.Connection]) -> apsw.Connection:
    for _ in range(_ATTEMPTS - 1):
        try:
            return open_it()
        except apsw.Error as error:
            if getattr(error, "extendedresult", None) not in _OVERWRITTEN:
                raise
    return open_it()


def open_copy(path: Path) -> apsw.Connection:
    """Return a connection that writes to a copy which nobody else has, and nobody will miss.

    So it syncs nothing, and should this process die, the copy is of no use.

    Raises:
        JournalError: as `open_reader`.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | _UNSHARED
    connection = opened(apsw.Connection(str(path), flags=flags))
    try:
        _harden(connection)
        check_identity(connection, path)
        check_objects(connection)
        connection.execute(f"PRAGMA synchronous = OFF; PRAGMA cache_size = -{_CACHE_KIB}")
        connection.pragma("journal_mode", "memory")
        overwrite_deleted(connection)
    except BaseException:
        connection.close()
        raise
    return connection
