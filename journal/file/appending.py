"""Appending: records to rows, with the heads of their chains, versions, keys and blocks."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import apsw

from journal.errors import (
    CommitFailedError,
    ConcurrencyError,
    DamagedError,
    InvalidEventError,
    JournalError,
    KeyConflictError,
    StorageFullError,
)
from journal.events.codecs import Record
from journal.events.ids import SessionId
from journal.events.records import content_digest, encode
from journal.events.unknown import AnyEvent
from journal.file.blocks import BlockRow, Tail, check_open_block
from journal.file.chain_heads import ROWS_AT_ONCE, Head, Heads
from journal.file.connections import Database
from journal.file.extent import read_extent
from journal.file.names import codes_to_append, kinds_of
from journal.file.passed_over import add_kind
from journal.file.writers import Writer, committed_number
from journal.store import REJECTED, Appended, Outcome, check_arguments

_RECORDS_AT_ONCE = 10_000
_DIGEST_DIGITS = 64


@cache
def write_events_sql(count: int) -> str:
    """Return the statement that inserts so many rows of `event`."""
    return (
        "INSERT INTO event"
        " (seq, kind, session, stream, timestamp, data, session_prev, stream_prev) VALUES "
        + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * count)
    )


class Append(NamedTuple):
    """Records that are to be appended as a whole, and on what conditions; see `append_of`."""

    records: Sequence[Record]
    expected_versions: Mapping[SessionId, int] | None = None
    key: str | None = None
    digest: str = ""
    """Of the records, where there is a key."""

    @property
    def size(self) -> int:
        """The characters of data that the records have."""
        return sum(len(record[4]) for record in self.records if record[4])

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to write and nothing to look at."""
        return not self.records and not self.expected_versions and self.key is None


class Refused(NamedTuple):
    """An append whose condition is not met."""

    error: JournalError
    rests_on_others: bool
    """Whether what comes before it in the same transaction, not in the file, is in its way."""


NOTHING = Appended(None, None)


def append_of(
    events: Iterable[AnyEvent], expected_versions: Mapping[SessionId, int] | None, key: str | None
) -> Append:
    """Return what is to be appended, after all checks that need no file.

    Raises:
        InvalidEventError, TypeError, ValueError: as `EventStore.append_events`.
    """
    check_arguments(expected_versions, key)
    try:
        records = encode(events)
    except InvalidEventError as error:
        note_outcome(error, REJECTED)
        raise
    expected_versions = expected_versions and dict(expected_versions)
    return Append(records, expected_versions, key, "" if key is None else content_digest(records))


class Appender:
    """Appends to one journal file. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tip: _Tip | None = None
        self._generation = -1
        self._writer = Writer()
        self._attempted_in = -1  # of the generations of the database
        self._is_ready = False
        self._is_in_doubt = False
        self._failures = 0
        self._unknown: set[Outcome] = set()
        if not database.read_only:
            with database.undisturbed() as connection:
                check_open_block(connection)

    def append(self, append: Append) -> Appended:
        """Append in one transaction.

        Raises:
            ConcurrencyError, KeyConflictError: as `EventStore.append_events`.
            JournalError: those of `Database.write`.
        """
        attempt: Outcome | None = None
        try:
            self.make_ready()
            with self._database.write() as connection:
                (result,) = self.append_in(connection, (append,))
                if isinstance(result, Refused):
                    raise result.error  # noqa: TRY301 (it has to end the transaction)
                attempt = self.attempt(result)
        except BaseException as error:
            note_outcome(error, self.outcome_after(error, attempt))
            raise
        return result

    def make_ready(self) -> None:
        """Make the row that tells of a commit that fails whether it took.

        Raises:
            JournalError: those of `Database.write`.
        """
        if not self._is_ready or self._is_to_be_renewed():
            with self._database.write() as connection:
                self._renew_where_needed()
                self._writer.make(connection)
            self._is_ready = True

    def _is_to_be_renewed(self) -> bool:
        """Tell whether it is not certain that the latest attempt took: its row is to stay so."""
        return self._is_in_doubt and self._failures != self._database.failures

    def _renew_where_needed(self) -> None:
        if self._is_to_be_renewed():
            self._is_ready = False
            self._writer.renew()
        self._is_in_doubt = False

    def append_in(
        self, connection: apsw.Connection, appends: Sequence[Append]
    ) -> list[Appended | Refused]:
        """Append several, as if one came after the other, in a transaction of `Database.write`.

        All conditions are looked at before anything is written. One that is not met is the result
        of its append, of which nothing is written; the others go on without it.

        Raises:
            JournalError, apsw.Error: the transaction is to be rolled back.
        """
        self._renew_where_needed()
        tip = self._current_tip(connection)
        position = tip.position
        accepted: list[Sequence[Record]] = []
        new_keys: dict[str, tuple[Appended, str]] = {}
        conditions: _Conditions | None = None
        results: list[Appended | Refused] = []
        for append in appends:
            records, expected_versions, key, digest = append
            if key is not None or expected_versions:
                if conditions is None:
                    conditions = _Conditions(connection, tip.sessions, accepted, new_keys)
                found = conditions.look_at(append)
                if found is not None:
                    results.append(found)
                    continue
            appended = NOTHING
            if records:
                accepted.append(records)
                appended = Appended(position + 1, position := position + len(records))
            if key is not None:
                new_keys[key] = appended, digest
            results.append(appended)
        self._write(connection, tip, accepted, new_keys)
        if accepted or new_keys:
            generation = self._database.generation
            is_alone = self._attempted_in == generation
            self._writer.attempt(connection, tip.position, is_alone=is_alone)
            self._attempted_in = generation
            self._is_in_doubt, self._failures = True, self._database.failures
        elif any(isinstance(result, Appended) for result in results):
            self._database.sync(connection)
        return results

    def attempt(self, positions: Appended) -> Outcome:
        """Return what is to be said of an append if its commit fails; before that is tried."""
        return Outcome("unknown", positions, self._writer.token, self._writer.number)

    def outcome_after(self, error: BaseException, attempt: Outcome | None) -> Outcome:
        """Return what has become of an append that ended with an error.

        `attempt` is None where its commit was not tried.
        """
        if attempt is None or isinstance(error, StorageFullError):
            return REJECTED
        if not isinstance(error, CommitFailedError):  # an interrupt, before or after the commit
            with suppress(Exception), self._database.read() as connection:
                return _decided(attempt, committed_number(connection, str(attempt.token)))
        self._unknown.add(attempt)
        return attempt

    def resolve(self, outcome: Outcome) -> Outcome:
        """Return what has become of an append, by what the file says; see `Journal.resolve`.

        Raises:
            JournalError: those of `Database.write`.
        """
        if outcome.state != "unknown" or outcome.token is None:
            return outcome
        with self._database.settled() as connection:
            decided = _decided(outcome, committed_number(connection, outcome.token))
        if decided.state != "unknown":
            self._unknown.discard(outcome)
        return decided

    def _write(
        self,
        connection: apsw.Connection,
        tip: "_Tip",
        accepted: list[Sequence[Record]],
        new_keys: dict[str, tuple[Appended, str]],
    ) -> None:
        records = accepted[0] if len(accepted) == 1 else list(chain(*accepted))
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            tip.insert(records[start : start + _RECORDS_AT_ONCE])
        for key, (appended, digest) in new_keys.items():
            connection.execute(
                "INSERT INTO append_key (key, first_seq, last_seq, digest, used_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (key, *appended, digest, time.time_ns()),
            )

    def close_block(self) -> None:
        """Write the open block, so that the file has digests of all its events.

        Raises:
            JournalError: those of `Database.write`; the journal is complete without it.
        """
        if self._tip is None and not self._is_ready:
            return
        with self._database.write() as connection:
            tip = self._current_tip(connection)
            tip.tail.write_open(connection, tip.position)
            self._writer.remove(connection, {str(each.token) for each in self._unknown})

    def seal_block(self, connection: apsw.Connection) -> None:
        """Seal the block at the end, in a transaction in which all of it is to be pruned."""
        tip = self._current_tip(connection)
        tip.tail.seal(connection, tip.position)

    def forget(self, sessions: Iterable[bytes], streams: Iterable[bytes]) -> None:
        """Know nothing more of sessions and streams whose rows are deleted in this transaction."""
        if self._tip is not None:
            self._tip.sessions.forget(sessions)
            self._tip.streams.forget(streams)

    @property
    def knows_heads(self) -> bool:
        """Whether it has looked at the heads of sessions and streams."""
        return self._tip is not None

    @property
    def open_block(self) -> int:
        """The position at which the block at the end begins; 0 before the first append."""
        return 0 if self._tip is None else self._tip.tail.first

    def _current_tip(self, connection: apsw.Connection) -> "_Tip":
        if self._tip is None or self._generation != self._database.generation:
            self._tip = _Tip(connection)
            self._generation = self._database.generation
        return self._tip


def _decided(attempt: Outcome, committed: int | None) -> Outcome:
    """Return what has become of an attempt, by the number of the latest one that took."""
    if committed is None or attempt.number is None:
        return attempt
    if committed >= attempt.number:
        return Outcome("committed", attempt.positions)
    return REJECTED


def note_outcome(error: BaseException, outcome: Outcome) -> None:
    """Have an error say what has become of the append that it ended."""
    with suppress(AttributeError):  # not every exception of others has attributes
        error.outcome = outcome  # type: ignore[attr-defined]


class _Conditions:
    """Looks at the conditions of what is to be appended in one transaction, one after the other.

    What was accepted before counts as if it were written.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        sessions: Heads,
        accepted: list[Sequence[Record]],
        new_keys: dict[str, tuple[Appended, str]],
    ) -> None:
        self._new_keys = new_keys
        self._connection = connection
        self._sessions = sessions
        self._accepted = accepted
        self._counted = 0
        self._counts: dict[SessionId, int] = {}

    def look_at(self, append: Append) -> Appended | Refused | None:
        """Return the result of an append that is not to be written, None for one that is."""
        try:
            if append.key is not None and (appended := self._appended_before(append)):
                return appended
            if append.expected_versions:
                self._check_versions(append.expected_versions)
        except KeyConflictError as error:
            return Refused(error, append.key in self._new_keys)
        except ConcurrencyError as error:
            return Refused(error, error.session_id in self._counts)
        except JournalError as error:
            return Refused(error, rests_on_others=False)
        return None

    def _appended_before(self, append: Append) -> Appended | None:
        key = str(append.key)
        known = self._new_keys.get(key) or _stored_key(self._connection, key)
        if known is None:
            return None
        appended, digest = known
        if digest != append.digest:
            raise KeyConflictError(key, *appended)
        return appended

    def _check_versions(self, expected_versions: Mapping[SessionId, int]) -> None:
        for records in self._accepted[self._counted :]:
            for record in records:
                self._counts[record[1]] = self._counts.get(record[1], 0) + 1
        self._counted = len(self._accepted)
        for session_id, expected in expected_versions.items():
            actual = self._sessions.version(session_id) + self._counts.get(session_id, 0)
            if actual != expected:
                raise ConcurrencyError(session_id, expected=expected, actual=actual)


def _stored_key(connection: apsw.Connection, key: str) -> tuple[Appended, str] | None:
    row: Any = connection.execute(
        "SELECT first_seq, last_seq, digest FROM append_key WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    first, last, digest = row
    is_range = isinstance(first, int) and isinstance(last, int) and 1 <= first <= last
    is_digest = isinstance(digest, str) and len(digest) == _DIGEST_DIGITS
    if not is_digest or not (is_range or (first is None and last is None)):
        raise DamagedError(connection.filename, f"is damaged: its row about the key {key!r}")
    return Appended(first, last), digest


class _Tip:
    """What an append has to know of the file: where it ends, and the heads of its chains.

    This holds as long as nobody else writes and nothing is rolled back.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        extent = read_extent(connection)
        self.position = extent.last
        self.sessions = Heads(connection, "session", self.position)
        self.streams = Heads(connection, "stream", self.position)
        self.tail = Tail(connection, extent)
        self._codes = codes_to_append(kinds_of(connection))
        self._connection = connection

    def insert(self, records: Sequence[Record]) -> None:
        """Insert records after the last position, move the heads, and seal what is full."""
        start = position = self.position
        codes, sessions, streams = self._codes, self.sessions.known, self.streams.known
        moved_sessions: list[Head] = []
        moved_streams: list[Head] = []
        block_rows: list[BlockRow] = []
        data_size = 0
        for first in range(0, len(records), ROWS_AT_ONCE):
            some = records[first : first + ROWS_AT_ONCE]
            values: list[int | str | None] = []
            for kind, session_id, stream_id, timestamp_ns, data in some:
                position += 1
                try:
                    code = codes[kind]
                except KeyError:
                    code = self._add_kind(kind)
                try:
                    session = sessions[session_id.int]
                except KeyError:
                    self.sessions.meet([record[1].int for record in records])
                    session = sessions[session_id.int]
                session_prev = session.last_seq
                if session_prev <= start:
                    moved_sessions.append(session)
                session.last_seq = position
                session.event_count += 1
                stream_key = stream_hex = stream_prev = None
                if stream_id is not None:
                    try:
                        stream = streams[stream_id.int]
                    except KeyError:
                        self.streams.meet([record[2].int for record in records if record[2]])
                        stream = streams[stream_id.int]
                    stream_key, stream_hex, stream_prev = stream.id, stream.hex, stream.last_seq
                    if stream_prev <= start:
                        moved_streams.append(stream)
                    stream.last_seq = position
                    stream.event_count += 1
                if data is not None:
                    data_size += len(data)
                block_rows.append((position, kind, session.hex, stream_hex, timestamp_ns, data))
                values += (
                    position,
                    code,
                    session.id,
                    stream_key,
                    timestamp_ns,
                    data,
                    session_prev or None,
                    stream_prev or None,
                )
            self._connection.execute(write_events_sql(len(some)), values)
        self.sessions.write(moved_sessions, position)
        self.streams.write(moved_streams, position)
        self.tail.add(self._connection, block_rows, data_size)
        self.position = position

    def _add_kind(self, kind: str) -> int:
        """Add a kind that this version does not know, and return its code."""
        code = self._codes[kind] = add_kind(self._connection, kind, None)
        return code
