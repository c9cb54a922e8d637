"""What is at a path, as far as that can be told without opening the file."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import quote

from journal import errors

_LONGEST_SUFFIX = len("-journal")
_NAME_BYTES_MAX = 255  # of the file systems in use
_PATH_BYTES_MAX = 511  # of SQLite on Unix (MAX_PATHNAME in os_unix.c, with the zero at its end)

_pread: Callable[[int, int, int], bytes] | None = getattr(os, "pread", None)

COMPANIONS = ("-wal", "-shm")
"""What SQLite keeps beside a file while it is in use."""


def beside(path: Path, suffix: str) -> Path:
    """Return the companion of a file."""
    return path.with_name(path.name + suffix)


def resolved(path: Path) -> Path:
    """Return the file that a path leads to: -wal and -shm are beside that, not beside a link."""
    return Path(os.path.realpath(path))


def uri_of(path: Path, **parameters: str | int) -> str:
    r"""Return the name by which SQLite opens a file with parameters (sqlite.org/uri.html).

    Everything in it is quoted, so that no name of Windows looks like one with a host: neither
    `\\server\share\a.db` nor `\\?\C:\a.db`.
    """
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"file:{quote(str(path), safe='')}?{query}"


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Return bytes of a file that is open; none on Windows, where no lock of ours needs them."""
    return b"" if _pread is None else _pread(descriptor, count, offset)


def may_make_files(folder: Path) -> bool:
    """Tell whether files can be made in a folder."""
    if os.name != "nt":
        return os.access(folder, os.W_OK)
    try:  # Windows answers for the attribute "read-only", which means nothing for folders
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_readable(path: Path) -> None:
    """Refuse what is not a regular file that may be read.

    Raises:
        JournalNotFoundError, PathIsDirectoryError, NotADatabaseError, AccessDeniedError,
            StorageError: what is there, or is not.
    """
    # Without opening it: closing it again would drop this process's locks on it (POSIX), those of
    # another Journal included.
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.JournalNotFoundError(path, "does not exist", errno=error.errno) from error
    except PermissionError as error:
        reason = "cannot be read: permission denied"
        raise errors.AccessDeniedError(path, reason, errno=error.errno) from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise errors.StorageError(path, reason, errno=error.errno) from error
    if stat.S_ISDIR(mode):
        raise errors.PathIsDirectoryError(path, "is a directory, not a journal")
    if not stat.S_ISREG(mode):
        raise errors.NotADatabaseError(path, "is not a regular file")
    if not os.access(path, os.R_OK):
        raise errors.AccessDeniedError(path, "cannot be read: permission denied")


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path that means the same wherever the program goes.

    Raises:
        JournalNotFoundError: it is relative, and the working directory was removed.
        StorageError: SQLite cannot open it: it is too long, or not UTF-8.
    """
    try:
        found = Path(path).absolute()
    except FileNotFoundError as error:
        raise errors.JournalNotFoundError(
            Path(path), "the working directory does not exist"
        ) from error
    try:
        name, whole = (len(str(text).encode()) + _LONGEST_SUFFIX for text in (found.name, found))
    except UnicodeEncodeError as error:
        reason = "its name is not UTF-8, which SQLite needs"
        raise errors.StorageError(found, reason, errno=errno.EILSEQ) from error
    if name > _NAME_BYTES_MAX or whole > _PATH_BYTES_MAX:
        reason = (
            f"its name or its path is too long (expected at most {_NAME_BYTES_MAX} and "
            f"{_PATH_BYTES_MAX} bytes with {_LONGEST_SUFFIX} for the files beside it, "
            f"found {name} and {whole})"
        )
        raise errors.StorageError(found, reason, errno=errno.ENAMETOOLONG)
    return found


def create_file(path: Path) -> bool:
    """Make an empty file that only its owner may use; SQLite gives -wal and -shm the same mode.

    Tell whether it was made: it may be there.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        check_readable(path)
        return False
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = "its folder does not exist"
        raise errors.JournalNotFoundError(path, reason, errno=error.errno) from error
    except PermissionError as error:
        if os.name == "nt" and path.is_dir():
            raise errors.PathIsDirectoryError(path, "is a directory, not a journal") from error
        reason = "cannot be created: permission denied"
        raise errors.AccessDeniedError(path, reason, errno=error.errno) from error
    except OSError as error:
        if error.errno == errno.EROFS and os.path.lexists(path):
            reason = "cannot be written: read-only media"
            raise errors.AccessDeniedError(path, reason, errno=error.errno) from error
        reason = f"cannot be created: {error.strerror}"
        raise errors.StorageError(path, reason, errno=error.errno) from error
    return True


def remove_if_empty(path: Path) -> None:
    """Remove a file that was made just now, if nothing has come into it."""
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def check_writable(path: Path, *, is_refused: bool) -> None:
    """Refuse a file that may not be written, or not what SQLite needs beside it.

    Raises:
        AccessDeniedError: a companion, or the folder, may not be written.
    """
    if is_refused:  # SQLite falls back to reading without a word
        raise errors.AccessDeniedError(path, "cannot be written: permission denied")
    for companion in (beside(resolved(path), suffix) for suffix in COMPANIONS):
        if companion.exists():
            reason = f"{companion.name} beside it belongs to somebody else"
            may_be_written = os.access(companion, os.W_OK)
        else:
            reason = f"SQLite has to make {companion.name} in its folder"
            may_be_written = may_make_files(companion.parent)
        if not may_be_written:
            raise errors.AccessDeniedError(path, f"cannot be written, {reason}: permission denied")
