"""A disk that does what the test says: it counts, fails, dies, and its power can be cut.

Every process that is to be seen opens its journals inside the `with` block of a `Disk` of its own.
With a `log`, what each of them does to files is written there, and a `PowerCut` knows from it what
could be on the disk afterwards.
"""

import os
import pickle
import random
from pathlib import Path
from typing import NamedTuple

import apsw
import support

from journal.testing import FaultVFS
from journal.testing.faults import CODES

SECTOR_BYTES = 512


class Entry(NamedTuple):
    """Something that was done to a file."""

    what: str
    file: str
    data: bytes
    number: int


class TornWrite(Exception):  # noqa: N818 (of a test)
    """Raised by `before`: half of what is to be written is, and the process is killed."""


class Disk(FaultVFS):
    """Writes down what is done, and can stop in the middle of a write.

    What the journal does to the -wal by itself, beside SQLite, is seen, too.
    """

    def __init__(self, log: Path | None = None, folder: Path | None = None) -> None:
        """Begin to act.

        Args:
            log: what to write down what is done in; others may do so, too.
            folder: of the files that this is about.
        """
        self._folder = str(folder)
        self._log = None if log is None else log.open("ab", buffering=0)
        super().__init__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._log is not None:
            self._log.close()

    def about_to(self, what: str, file: str, data: bytes = b"", number: int = 0) -> None:
        try:
            super().about_to(what, file, data, number)
        except TornWrite:
            os.pwrite(os.open(file, os.O_WRONLY), data[: len(data) // 2], number)
            support.die()
        except apsw.Error:
            if what == "sync":
                self.note("failed sync", file)
            raise
        if what != "read":
            self.note(what, file, data, number)

    def note(self, what: str, file: str = "", data: bytes = b"", number: int = 0) -> None:
        """Write an entry of the log, which may also be about what somebody was told."""
        where, name = os.path.split(file)
        if self._log is not None and where in ("", self._folder):
            self._log.write(pickle.dumps(Entry(what, name, bytes(data), number)))


def io_error(what: str, *, full: bool = False) -> apsw.Error:
    """Return what SQLite has for an operation that fails."""
    code = apsw.SQLITE_FULL if full and what in ("write", "truncate") else CODES[what]
    return apsw.exception_for(code)


class PowerCut:
    """Knows what could be on a disk whose power is cut: what was synced, and any of the rest.

    Written sectors that were not synced get there or do not, each on its own. What a sync of the
    -wal that failed should have written gets there or does not, and no later sync makes up for it.
    That files were made is taken to be on the disk at once; that one was removed only when the
    folder is synced, which SQLite does with the first sync of a file that it makes.

    Of the main file a later sync makes up for what one that failed has left: where part of the -wal
    was copied before, SQLite does not copy it again, and there is nothing that a caller could do.
    """

    def __init__(self, log: Path) -> None:
        self._log = log

    def entries(self) -> list[Entry]:
        entries = []
        with self._log.open("rb") as file:
            while True:
                try:
                    entries.append(pickle.load(file))
                except EOFError:
                    return entries

    def leave(self, folder: Path, entries: list[Entry], chance: float, rng: random.Random) -> None:
        """Write the files as a cut after these entries left them.

        Args:
            folder: where; it is made.
            entries: what was done until then.
            chance: how likely it is that something got to the disk that was not synced.
            rng: what decides.
        """
        durable: dict[str, bytearray] = {}
        pending: dict[str, list[tuple[int, bytes] | int]] = {}
        removed: dict[str, bytearray] = {}
        is_new: set[str] = set()

        def some(file: str) -> list[tuple[int, bytes] | int]:
            return [change for change in pending[file] if rng.random() < chance]

        for what, file, data, number in entries:
            if what == "was":
                durable[file], pending[file] = bytearray(data), []
            elif what == "open":
                if file not in durable:
                    durable[file], pending[file] = bytearray(), []
                    is_new.add(file)
            elif what == "delete":
                if file in durable:
                    _apply(durable[file], some(file))
                    removed[file] = durable.pop(file)
            elif what == "truncate":
                pending[file].append(number)
            elif what == "write":
                ends = range(number, number + len(data), SECTOR_BYTES)
                pending[file] += [(o, data[o - number : o - number + SECTOR_BYTES]) for o in ends]
            elif what == "sync":
                _apply(durable[file], pending[file])
                pending[file].clear()
                if file in is_new and file.endswith(("-wal", "-journal")):
                    removed.clear()
                is_new.discard(file)
            elif what == "failed sync" and file.endswith("-wal"):
                is_all = rng.random() < 0.5  # perhaps it only failed to say so
                _apply(durable[file], pending[file] if is_all else some(file))
                pending[file].clear()
        folder.mkdir()
        for file, content in durable.items():
            _apply(content, some(file))
        if removed and rng.random() >= chance:
            durable |= removed
        for file, content in durable.items():
            (folder / file).write_bytes(content)


def _apply(content: bytearray, changes: list[tuple[int, bytes] | int]) -> None:
    for change in changes:
        if isinstance(change, int):
            del content[change:]
            continue
        offset, data = change
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
