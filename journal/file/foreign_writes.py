"""Whether something other than a journal writes into a file that is open: `cp` over it, an editor.

In WAL mode nothing but a checkpoint writes to the main file, and each one says in the -shm what it
is about to do. So a file whose time of change is another, while the -shm says the same as before,
was written by somebody who knows nothing of it. SQLite would go on with the pages in its memory,
and lay the next ones over what is there now.
"""

import os
from typing import NamedTuple

from journal.file.wal_index import WalIndex


class _Look(NamedTuple):
    modified_ns: int
    salt: bytes
    backfilled: int
    attempted: int


class ForeignWrites:
    """Looks at a file through a descriptor of it and the -shm. Threads may share it.

    It can tell only where no checkpoint came between two looks, so look often.
    """

    def __init__(self, main: int, index: WalIndex) -> None:
        self._main = main
        self._index = index
        self._seen = self._look()
        self._are_found = False

    def are_found(self) -> bool:
        """Look, and tell whether somebody else has written to the file; once found, for ever."""
        seen = self._seen
        now = self._look()
        if now == seen or self._are_found:
            return self._are_found
        while now != (again := self._look()):  # until no checkpoint comes between
            now = again
        if now.modified_ns not in (seen.modified_ns, self._seen.modified_ns):
            is_at_rest = now.backfilled == now.attempted  # no checkpoint is under way or cut short
            self._are_found = is_at_rest and now[1:] == seen[1:]
        self._seen = now
        return self._are_found

    def _look(self) -> _Look:
        modified_ns = os.fstat(self._main).st_mtime_ns
        return _Look(modified_ns, *self._index.checkpoint())
