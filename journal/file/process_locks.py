"""The registry of what this process holds of journal files: see `holding`.

However many journals in the process are open on a file, there is one `Holding` of it, found by
device and inode, which every fork leaves to the parent.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

import apsw

from journal import errors
from journal.file import forking, ofd_locks
from journal.file.companions import Key
from journal.file.holding import Holding, locks_work, open_for_locks
from journal.file.paths import beside, resolved

_registry_lock = threading.Lock()
_holdings: dict[Key, Holding] = {}
_connections: WeakSet[apsw.Connection] = WeakSet()
_inherited: list[apsw.Connection] = []


def hold(path: Path, user: object, *, read_only: bool) -> Holding:
    """Return what this process holds of a file, for one more user of it.

    Raises:
        BusyError: the process was forked while another thread was using a journal.
        AccessDeniedError, JournalNotFoundError: the file cannot be opened.
    """
    if forking.is_refused:
        reason = "this process was forked while another thread was using a journal: "
        reason += "start it with spawn or forkserver instead, or fork while no thread does"
        raise errors.BusyError(path, reason)
    _forget_inherited()
    try:
        status = path.stat()
        key = status.st_dev, status.st_ino
        with forking.inside_sqlite(), _registry_lock:
            _close_unused()
            holding = _holdings.get(key)
            if holding is None:
                holding = Holding(key, resolved(path))
            if not holding.users:
                holding.be_used_anew(resolved(path))
            _refuse_other_name(holding, path, status.st_nlink)
            holding.add_descriptor(read_only=read_only)
            holding.users.add(user)
            _holdings[key] = holding
            return holding
    except errors.JournalError:
        raise
    except FileNotFoundError as error:
        raise errors.JournalNotFoundError(path, "does not exist") from error
    except OSError as error:
        reason = f"cannot be opened: {error.strerror}"
        raise errors.AccessDeniedError(path, reason, errno=error.errno) from error


def let_go(holding: Holding | None, user: object) -> None:
    """Have a user no more, once its connections are closed; and close what nobody uses.

    It may be repeated, after an interrupt.
    """
    with forking.inside_sqlite(), _registry_lock:
        if holding is not None:
            holding.users.discard(user)
        _close_unused()


def _close_unused() -> None:
    for key, unused in [(key, it) for key, it in _holdings.items() if not it.users]:
        with suppress(OSError):
            if unused.close():
                del _holdings[key]


def opened(connection: apsw.Connection) -> apsw.Connection:
    """Note a connection, so that a forked child can close it, and return it."""
    _connections.add(connection)
    return connection


def _refuse_other_name(holding: Holding, path: Path, links: int) -> None:
    """Refuse a file that somebody uses under another of its names: it would have two -wal.

    Raises:
        FileReplacedError: somebody does.
    """
    if links < 2:
        return
    here = resolved(path)
    reason = "is in use under another name that leads to the same file (a hard link)"
    if holding.users and holding.path != here:
        raise errors.FileReplacedError(path, reason)
    if not holding.users and _is_held_elsewhere(here):
        raise errors.FileReplacedError(path, reason)


def _is_held_elsewhere(path: Path) -> bool:
    """Tell whether another process has the main file locked, and nobody the -shm beside it."""
    if not locks_work(path.stat().st_dev, path):
        return False
    main, _ = open_for_locks(path, read_only=True)
    try:
        if not ofd_locks.is_locked(main, ofd_locks.MAIN):
            return False
        try:
            shm = os.open(beside(path, "-shm"), os.O_RDWR)
        except OSError:
            return True
        try:
            return not ofd_locks.is_locked(shm, ofd_locks.SHM)
        finally:
            os.close(shm)
    finally:
        os.close(main)


# Forks


def _in_child() -> None:
    """Keep the inherited connections for `_forget_inherited`, and give up the descriptors."""
    global _registry_lock  # noqa: PLW0603
    _registry_lock = threading.Lock()
    _inherited.extend(_connections)
    _connections.clear()
    for holding in _holdings.values():
        holding.abandon()
    _holdings.clear()


def _forget_inherited() -> None:
    """Close what a forked child inherited, so that its SQLite knows nothing of the files.

    Closing must neither checkpoint nor delete a -wal: it is the parent's.
    """
    while _inherited:
        connection = _inherited.pop()
        with suppress(apsw.Error):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()


forking.in_child(_in_child)
