"""How a file is opened by somebody who may only read it, wherever it lies."""

import shutil
import tempfile
from pathlib import Path

from journal import errors
from journal.file.paths import beside, check_readable, may_make_files, resolved, uri_of


def read_only_target(path: Path) -> tuple[str, Path | None, bool]:
    """Return what SQLite is to open so as to read everything committed and write nothing.

    Where the folder can be written, that is the file itself: SQLite may keep -wal and -shm beside
    it, which is how other processes are told of a reader. Where it cannot, a -wal without -shm has
    to be copied away with its file, because SQLite must build the -shm anew to see what is in it.

    Returns:
        a file name or URI, the folder of the copy to be removed afterwards, or None, and whether
        the file itself is opened, as others have it open.

    Raises:
        JournalNotFoundError, PathIsDirectoryError, AccessDeniedError: what is at `path`.
    """
    check_readable(path)
    path = resolved(path)
    wal, shm = beside(path, "-wal"), beside(path, "-shm")
    if may_make_files(path.parent) or (wal.exists() and shm.exists()):
        return uri_of(path, mode="ro"), None, True
    if not wal.exists():
        return uri_of(path, mode="ro", immutable=1), None, False
    folder = Path(tempfile.mkdtemp(prefix="journal-"))
    try:
        shutil.copyfile(path, folder / path.name)
        shutil.copyfile(wal, folder / wal.name)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = f"cannot be copied for reading: {error}"
        raise errors.StorageError(path, reason, errno=error.errno) from error
    return uri_of(folder / path.name, mode="ro"), folder, False
