"""What other libraries in this process have of a file, as far as the system tells: on Linux."""

import os
from pathlib import Path

from journal.file.companions import Key, key_of
from journal.file.ofd_locks import Range


def has_posix_locks(key: Key, where: Range | None = None, *, unknown: bool) -> bool:
    """Tell whether a library in this process has locks on a file; `unknown` where Linux is not."""
    try:
        lines = Path("/proc/locks").read_bytes().splitlines()
    except OSError:
        return unknown
    # Like "1: POSIX  ADVISORY  READ 711 fd:01:402 1073741826 1073742335". The device is not always
    # the one that stat() tells (btrfs), so the inode has to do.
    inode = f":{key[1]}".encode()
    pid = str(os.getpid()).encode()
    return any(
        parts[1] == b"POSIX"
        and parts[4] == pid
        and parts[5].endswith(inode)
        and (where is None or where.start <= int(parts[6]) < where.start + where.length)
        for parts in (line.replace(b"-> ", b"").split() for line in lines)
    )


def is_open_again(descriptor: int) -> bool:
    """Tell whether this process has a file open otherwise than through this descriptor."""
    key = key_of(descriptor)
    try:
        others = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:
        return True
    return any(other != descriptor and key_of(other) == key for other in others)
