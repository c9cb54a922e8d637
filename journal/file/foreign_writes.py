"""Whether something other than a journal writes into a file that is open: `cp` over it, an editor.

In WAL mode nothing but a checkpoint writes to the main file, and each one says in the -shm what it
is about to do. So a file whose time of change is another, while the -shm says the same as before,
was written by somebody who knows nothing of it. SQLite would go on with the pages in its memory,
and lay the next ones over what is there now.
"""

import os
from typing import NamedTuple

from journal.file.wal_index import read_wal_index


class _Look(NamedTuple):
    modified_ns: int
    salt: bytes
    backfilled: int
    attempted: int


class ForeignWrites:
    """Looks at a file through a descriptor of it and one of the -shm. Threads may share it.

    It can tell only where no checkpoint came between two looks, so look often.
    """

    def __init__(self, main: int, shm: int) -> None:
        self._main = main
        self._shm = shm
        self.wal_may_begin_anew = False
        """Whether all of the -wal was in the file at the last look."""
        self._seen = self._settled(self._look(None))
        self._are_found = False

    def are_found(self, modified_ns: int | None = None) -> bool:
        """Look, and tell whether somebody else has written to the file; once found, for ever.

        Args:
            modified_ns: when the file was changed last, if that was asked just now.
        """
        seen = self._seen
        now = self._look(modified_ns)
        if now == seen or self._are_found:
            return self._are_found
        now = self._settled(now)
        if now.modified_ns not in (seen.modified_ns, self._seen.modified_ns):
            is_at_rest = now.backfilled == now.attempted  # no checkpoint is under way or cut short
            self._are_found = is_at_rest and now[1:] == seen[1:]
        self._seen = now
        return self._are_found

    def _settled(self, now: _Look) -> _Look:
        """Look until no checkpoint comes between the time of change and what the -shm says."""
        while now != (again := self._look(None)):
            now = again
        return now

    def _look(self, modified_ns: int | None) -> _Look:
        if modified_ns is None:
            modified_ns = os.fstat(self._main).st_mtime_ns
        frames, salt, backfilled, attempted = read_wal_index(self._shm)
        self.wal_may_begin_anew = frames == backfilled
        return _Look(modified_ns, salt, backfilled, attempted)
