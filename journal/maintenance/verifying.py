"""Verifying: finding out whether a file is what was appended to it."""

import re
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from pydantic import BaseModel, ConfigDict

from journal import errors
from journal.file.blocks import digest_at
from journal.file.connections import Database
from journal.file.extent import Extent
from journal.file.identity import FORMAT_VERSION
from journal.file.objects import check_objects
from journal.file.paths import absolute, check_readable
from journal.maintenance.block_check import Progress, Proof, check_blocks
from journal.maintenance.chain_check import OWNERS, check_chains
from journal.maintenance.file_check import (
    check_bases,
    check_checkpoints,
    check_ids,
    check_kinds,
    check_meta,
    check_origins,
    check_sqlite,
    extent_of,
)
from journal.maintenance.findings import Finding, Findings, OnFinding, is_damage, text_of
from journal.maintenance.key_check import check_keys
from journal.maintenance.origin_check import check_sources
from journal.maintenance.projection_check import check_projections

_LAST_BLOCKS = 3
"""How many blocks a quick look takes: some thousand events, the open block among them."""

_STEPS_BETWEEN_SIGNALS = 5_000

_HEAD = re.compile("([1-9][0-9]{0,18}):([0-9a-f]{64})")


class Verification(BaseModel):
    """What verifying a file has proven, and what it has found.

    Positions are None, and counts 0, where the file could not be looked at.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    full: bool
    sound: bool
    """Whether nothing was found."""
    finding_count: int
    findings: tuple[Finding, ...]
    """The first thousand."""
    first_position: int | None
    """Of the first event that the file has."""
    last_position: int | None
    """The largest that was ever given."""
    head: str | None
    """The digest at the last position, as POSITION:DIGEST, if there is one and the file is sound.
    Noted elsewhere, it proves later that the file has kept its history up to there."""
    checked_after: int
    """The position after which events were held against their blocks."""
    covered_up_to: int
    """The last position that a block has."""
    event_count: int
    """How many events were looked at; each is one of the following, or there are findings."""
    proven_count: int
    """Those that are what was appended, by the digest of their block."""
    redacted_count: int
    """Those in blocks in which a text was redacted, which only the manifest of the copy binds."""
    uncovered_count: int
    """Those that no block covers yet, or whose block has lost some of its events."""
    absent_count: int
    """How many positions have no event any more, or in this file, and the file says so."""
    unchecked: tuple[str, ...]
    """What a full look has left out, each in words."""


def verify(
    path: str | PathLike[str],
    *,
    full: bool = False,
    head: str | None = None,
    on_finding: OnFinding | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Find out whether the journal at `path` is what was appended to it.

    It reads one moment of the file, however long it takes, while others go on appending; the -wal
    grows meanwhile. Damage of the file is never raised, it is a finding, and so is a file that is
    not a journal at all.

    A quick look takes the schema, what the file says of itself, and the last blocks with the heads
    of what they touch. A full one takes every event against its block, the chain of blocks, links,
    heads, ids, kinds, idempotency keys, bases, the built-in projections against a fresh fold, and
    SQLite's own check. Its memory does not grow with the file; it sorts in temporary storage.

    What blocks prove, they prove against each other. Who can write to the file can write all of it
    anew, or put an older state of it back: that is found only with a `head` that was noted
    elsewhere.

    Args:
        path: the file; nothing is written to it.
        full: look at everything.
        head: POSITION:DIGEST, what an earlier verification or `Journal.info` gave as `head`.
        on_finding: is called with each finding at once. What it raises ends the verification.
        progress: is called with the number of events looked at and the number to look at; a full
            look takes each twice, against its block and in folding.

    Raises:
        ValueError: `head` is not of that form.
        JournalNotFoundError, PathIsDirectoryError, AccessDeniedError: there is no file that could
            be read.
        NewerFormatError: the file is of a format that this version cannot read.
        FileReplacedError: somebody put another file there meanwhile.
        BusyError, StorageError: it is in use by something that locks it, or temporary storage
            fails.
    """
    wanted = None if head is None else _parsed(head)
    file = absolute(path)
    found = Findings(file, on_finding)
    seen = _Seen()
    try:
        check_readable(file)
        database = Database(file, read_only=True, durability="full")
    except errors.JournalError as error:
        _take_refusal(found, error)
    else:
        try:
            with database.aside_to_read() as connection:
                seen = _look(connection, found, wanted, full=full, progress=progress)
            if found.count:
                database.check_is_current()  # else it would be no damage
        finally:
            database.close()
    return _result(file, found, seen, full=full)


def _parsed(head: str) -> tuple[int, str]:
    match = _HEAD.fullmatch(head) if isinstance(head, str) else None
    if match is None:
        message = "head: expected POSITION:DIGEST, the digest in 64 hexadecimal digits, found "
        raise ValueError(f"{message}{head!r:.100}")
    return int(match[1]), match[2]


def _take_refusal(found: Findings, error: errors.JournalError) -> None:
    """Take in why a file could not be opened, if that is the file's fault."""
    codes: dict[type[errors.JournalError], str] = {
        errors.NotADatabaseError: "not-a-database",
        errors.NotAJournalError: "not-a-journal",
        errors.StaleWalError: "stale-wal",
        errors.DamagedError: "schema",
    }
    code = codes.get(type(error), "unreadable")
    if type(error) not in codes and not is_damage(error):
        raise error
    if isinstance(error.__cause__, apsw.Error) and code == "schema":
        code = "unreadable"
    text = text_of(error) if code != "stale-wal" else error.args[0].partition(": ")[2]
    found.add(code, "file", None, text)


class _Seen(NamedTuple):
    """What was looked at, as far as it came."""

    extent: Extent = Extent(1, 0, ())
    proof: Proof = Proof(0, 0, 0, 0, 0, 0, {}, None, None)
    head: str | None = None
    unchecked: tuple[str, ...] = ()


def _look(
    connection: apsw.Connection,
    found: Findings,
    head: tuple[int, str] | None,
    *,
    full: bool,
    progress: Progress | None,
) -> _Seen:
    """Look at one moment of a file."""
    # SQLite's own check asks for signals once for so many pages.
    connection.set_progress_handler(lambda: False, _STEPS_BETWEEN_SIGNALS)
    with found.noted("unreadable", "file"):
        connection.execute("PRAGMA temp.journal_mode = OFF")
        connection.execute("BEGIN")
        version = connection.pragma("user_version")
        if version < FORMAT_VERSION:
            text = f"has format {version}, which was never released"
            found.add("format", "file", None, text)
            check_objects(connection)
    if found.count:
        return _Seen()
    check_meta(connection, found)
    extent = extent_of(connection, found)
    check_checkpoints(connection, extent, found)
    if head is not None:
        _check_head(connection, extent, found, *head)
    begins = None if full else _last_blocks(connection, found)
    check_kinds(connection, found, begins or 0)
    passes = _Passes(progress, 2 if full else 1)
    proof = check_blocks(connection, extent, found, after=begins, progress=passes.take)
    unchecked: tuple[str, ...] = ()
    if full:
        check_sqlite(connection, found)
        check_ids(connection, found)
        check_keys(connection, extent, found)
        check_bases(connection, extent, found)
        check_origins(connection, extent, found)
        unchecked = check_sources(connection, found)
    for owner in OWNERS:
        check_chains(connection, owner, extent, found, after=begins)
    if full:
        passes.begin_next()
        unchecked += check_projections(connection, extent, found, passes.take)
    digest = None
    if not found.count:
        with found.noted("block", "block"):
            digest = digest_at(connection, extent, extent.last)
    return _Seen(extent, proof, digest, unchecked)


class _Passes:
    """Makes one progress of several passes over the events."""

    def __init__(self, progress: Progress | None, count: int) -> None:
        self._progress = progress
        self._count = count
        self._done = 0

    def begin_next(self) -> None:
        """Count from the end of the pass before."""
        self._done += 1

    def take(self, done: int, total: int) -> None:
        """Tell how far all of them have come."""
        if self._progress is not None:
            self._progress(self._done * total + done, self._count * total)


def _last_blocks(connection: apsw.Connection, found: Findings) -> int:
    """Return the position after which the last blocks begin."""
    with found.noted("block", "block"):
        sql = "SELECT min(first_seq) FROM (SELECT first_seq FROM block ORDER BY first_seq DESC"
        first: Any = connection.execute(f"{sql} LIMIT {_LAST_BLOCKS})").get
        return max(0, first - 1) if isinstance(first, int) else 0
    return 0


def _check_head(
    connection: apsw.Connection, extent: Extent, found: Findings, position: int, digest: str
) -> None:
    """Hold a digest that was noted earlier against the one at its position now."""
    if position > extent.last:
        text = f"the last position is {extent.last}: what followed, up to {position} and further,"
        text += " was cut off, or an older state was put back"
        found.add("history", "block", position, text)
        return
    with found.noted("head-unknown", "block", position):
        now = digest_at(connection, extent, position)
        if now is None:
            text = f"the digest at position {position} cannot be told any more: what it is made of"
            found.add("head-unknown", "block", position, f"{text} is absent or redacted")
        elif now != digest:
            text = f"the digest at position {position} is {now}, and was {digest}: the history up"
            found.add("history", "block", position, f"{text} to there was written anew")


def _result(path: Path, found: Findings, seen: _Seen, *, full: bool) -> Verification:
    extent, proof = seen.extent, seen.proof
    last = extent.last
    return Verification(
        path=path,
        full=full,
        sound=found.count == 0,
        finding_count=found.count,
        findings=tuple(found.first),
        first_position=extent.first if last >= extent.first else None,
        last_position=last or None,
        head=f"{last}:{seen.head}" if last and seen.head is not None else None,
        checked_after=proof.checked_after,
        covered_up_to=proof.covered_up_to,
        event_count=proof.event_count,
        proven_count=proof.proven_count,
        redacted_count=proof.redacted_count,
        uncovered_count=proof.uncovered_count,
        absent_count=last - extent.event_count(0, last),
        unchecked=seen.unchecked,
    )
