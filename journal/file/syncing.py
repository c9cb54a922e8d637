"""Having the disk take what was written to a file."""

import errno
import os

try:
    import fcntl
except ImportError:  # Windows, where fsync does it
    fcntl = None  # type: ignore[assignment]


def sync(descriptor: int) -> None:
    """Return when the disk has what was written to a file, as SQLite does with `fullfsync`.

    On macOS a plain fsync leaves it to the disk when it writes. Where the file system has nothing
    better, as some over a network, that has to do.

    Raises:
        OSError: the disk failed.
    """
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if fcntl is not None and full_sync is not None:
        try:
            fcntl.fcntl(descriptor, full_sync)
        except OSError as error:
            if error.errno == errno.EIO:  # it may be told only once, so fsync could say it is well
                raise
        else:
            return
    os.fsync(descriptor)
