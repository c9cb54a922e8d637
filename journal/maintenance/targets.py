"""Files that are made whole or not at all: in a folder of their own, and then renamed.

The folder lies beside the file that is to be made, so that renaming moves no data, and nobody else
looks into it. Whoever is killed leaves it; who comes next to the same place removes it, unless its
owner is alive, which a lock on a file in it tells.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from journal import errors
from journal.file.paths import COMPANIONS, absolute, beside, may_make_files, resolved
from journal.file.syncing import sync

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".journal-part-"
_NAME = re.compile(re.escape(_PREFIX) + "[0-9a-f]{16}")
_LOCK = "lock"

_SUFFIXES = (*COMPANIONS, "-journal")
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}  # of a folder, on some systems


# Before anything is made


def check_target(
    path: str | os.PathLike[str], sources: Iterable[Path] = (), *, force: bool = False
) -> Path:
    """Return the file that is to be made, links followed, after making sure that it may be.

    Args:
        path: where it is to be.
        sources: what it is made from, which it must not take the place of.
        force: it may take the place of another file, but not of one that is in use.

    Raises:
        WrongTargetError: it is a source, or one of the files beside it, by whatever name; it would
            be taken for the -wal of another file, or has such files beside it itself; or it is
            something else than a file.
        TargetExistsError: it is there, without `force`.
        PathIsDirectoryError, JournalNotFoundError, AccessDeniedError, StorageError: it is a folder,
            or what is wrong with its folder or its name.
    """
    target = resolved(absolute(path))
    for source in map(resolved, sources):
        for suffix in ("", *_SUFFIXES):
            if _is_same(target, beside(source, suffix)):
                whose = f"{suffix} of {source}" if suffix else "very file that is read"
                raise errors.WrongTargetError(target, f"is the {whose}")
    _check_folder(target)
    _check_what_is_there(target, force=force)
    for suffix in _SUFFIXES:
        base = target.with_name(target.name.removesuffix(suffix) or target.name)
        if base != target and os.path.lexists(base):
            raise errors.WrongTargetError(target, f"would be taken for the {suffix} of {base.name}")
        if os.path.lexists(beside(target, suffix)):
            reason = f"has {target.name}{suffix} beside it, which belongs to a file that is in use "
            reason += "or was left by one: use another name, or see to that first"
            raise errors.WrongTargetError(target, reason)
    return target


def _is_same(one: Path, other: Path) -> bool:
    if os.path.normcase(one) == os.path.normcase(other):
        return True
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _check_folder(target: Path) -> None:
    folder = target.parent
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            is_folder = False
        else:
            raise target_error(target, error) from error
    if not is_folder:
        raise errors.JournalNotFoundError(target, "its folder does not exist")
    if not may_make_files(folder):
        reason = "cannot be made: its folder cannot be written"
        raise errors.AccessDeniedError(target, reason)


def _check_what_is_there(target: Path, *, force: bool) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise target_error(target, error) from error
    if stat.S_ISDIR(mode):
        raise errors.PathIsDirectoryError(target, "is a directory")
    if not stat.S_ISREG(mode):
        raise errors.WrongTargetError(target, "is not a regular file")
    if not force:
        raise errors.TargetExistsError(target)


def check_room(target: Path, needed_bytes: int) -> None:
    """Make sure that there is room for a file, rather than fill the disk in vain.

    Raises:
        StorageFullError: less than `needed_bytes` is free where it is to be.
    """
    try:
        usage = shutil.disk_usage(target.parent)
    except OSError:
        return
    if usage.total and usage.free < needed_bytes:
        reason = f"there is no room for it: it needs {needed_bytes:,} bytes or more, and "
        reason += f"{usage.free:,} are free there"
        raise errors.StorageFullError(target, reason)


# Making it


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Lend a new folder beside a file that is to be made; in the end, remove it and its files.

    Those that killed processes left there are removed first.

    Raises:
        StorageFullError, AccessDeniedError, StorageError: it cannot be made.
    """
    _remove_dead(target.parent)
    tried: list[Path] = []
    descriptor: int | None = None
    try:
        try:
            folder, descriptor = _new_folder(target.parent, tried)
        except OSError as error:
            raise target_error(target, error) from error
        yield folder
    finally:
        try:
            if descriptor is not None:
                os.close(descriptor)
            _remove_all(tried)
        except BaseException:  # an interrupt came meanwhile
            _remove_all(tried)
            raise


def _new_folder(parent: Path, tried: list[Path]) -> tuple[Path, int]:
    """Return a new folder, noted before it is made, and the descriptor of the lock in it."""
    while True:
        folder = parent / f"{_PREFIX}{os.urandom(8).hex()}"
        tried.append(folder)
        folder.mkdir(mode=0o700)
        lock = folder / _LOCK
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except FileNotFoundError:
            continue  # somebody thought that it was left by a killed one
        try:
            is_ours = _try_lock(descriptor) and lock.exists()
        except OSError:  # no locks here: then nobody takes it for a dead one's, either
            is_ours = True
        if is_ours:
            return folder, descriptor
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock a file, and tell whether that was possible.

    Raises:
        OSError: the file system has no such locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_dead(parent: Path) -> None:
    """Remove the folders that killed processes left."""
    try:
        left = [entry for entry in parent.iterdir() if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    for folder in left:
        _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    try:
        if fcntl is None:
            (folder / _LOCK).unlink()
            _remove(folder)
            return
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:  # its owner was killed before the lock was there, or is about to lock
        with suppress(OSError):
            folder.rmdir()
        return
    except OSError:
        return  # it is alive, or nobody can tell
    try:
        with suppress(OSError):
            if _try_lock(descriptor):
                _remove(folder)
    finally:
        os.close(descriptor)


def _remove_all(folders: Iterable[Path]) -> None:
    for folder in folders:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, the lock last: where it is missing, there is nothing else."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.name != _LOCK:
                with suppress(OSError):
                    entry.unlink()
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()


# Giving it its name


def put_in_place(file: Path, target: Path, *, force: bool = False) -> None:
    """Give a file that is complete its name; after a power cut it is there whole, or not at all.

    Args:
        file: in a `work_folder`; nobody has it open.
        target: what `check_target` returned.
        force: replace what is there by now.

    Raises:
        TargetExistsError: somebody else was faster, without `force`.
        StorageFullError, AccessDeniedError, StorageError: the operating system failed.
    """
    try:
        _sync(file, os.O_RDWR)
        if force:
            file.replace(target)
        else:
            _rename_to_new(file, target)
        _sync_folder(target.parent)
    except FileExistsError as error:
        raise errors.TargetExistsError(target) from error
    except OSError as error:
        raise target_error(target, error) from error


def _rename_to_new(file: Path, target: Path) -> None:
    """Rename a file to a name that nothing has."""
    if os.name == "nt":
        file.rename(target)
        return
    try:
        os.link(file, target)  # which, unlike a rename, replaces nothing
    except FileExistsError:
        raise
    except OSError:  # no links here, as on a memory stick
        if os.path.lexists(target):
            raise FileExistsError from None
        file.rename(target)
    else:
        file.unlink()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    try:
        _sync(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def target_error(target: Path, error: OSError) -> errors.PathOSError:
    """Return what is to be said where the operating system failed to make a file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.StorageFullError(target, "cannot be made: the disk is full")
    why = error.strerror or str(error)
    reason = f"cannot be made: {why[:1].lower()}{why[1:]}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return errors.AccessDeniedError(target, reason, errno=error.errno)
    return errors.StorageError(target, reason, errno=error.errno)
