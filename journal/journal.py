"""The journal: an event store in one SQLite file."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from journal.errors import JournalError
from journal.events.exact import Unknown
from journal.events.ids import SessionId, StreamId, check_id
from journal.events.records import encode
from journal.events.timestamps import Timestamp
from journal.events.unknown import AnyEvent
from journal.events.values import SessionState, StreamState
from journal.file.appending import Appender
from journal.file.connections import Database
from journal.file.info import JournalInfo, read_info
from journal.file.ndjson import LineAppender, OnError, append_lines
from journal.file.opening import Durability
from journal.file.reading import Reader
from journal.projections import queries
from journal.projections.projector import AsOf, Progress, Projector
from journal.projections.results import (
    Anomaly,
    Projection,
    ProjectionStatus,
    RebuildReport,
    SessionStatus,
    StreamStatus,
)
from journal.store import (
    Appended,
    LinesAppended,
    RecordedEvent,
    RejectedLine,
    check_arguments,
)


class Journal:
    """An `EventStore` in one file. Open it with `Journal.open`, best in a `with` statement.

    Threads may share a journal, and processes a file: writers queue, readers see one moment of the
    file and are never held up. A journal does not survive a fork; open it again in the child.

    Besides what the methods name, each raises `TypeError` for an id of another class than it asks
    for, `ClosedError` once the journal is closed, `StorageError` when the operating system fails,
    `DamagedError` when the file contradicts itself, and `BusyError` when another process holds the
    file for longer than a minute.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._appender = Appender(database)
        self._reader = Reader(database)
        self._projector = Projector(database, self._reader)

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        read_only: bool = False,
        durability: Durability = "full",
    ) -> Self:
        """Open the journal at `path`; make one, for its owner only, if there is no file.

        Args:
            path: the file. It may get companions called -wal and -shm, which are part of it while
                it is open.
            read_only: never write and never make a file. Everything committed is seen, also on
                read-only media.
            durability: what an append waits for. "full": the disk has it, so that it survives a
                power cut. "normal": the operating system has it, so that it survives a crash of
                the program; a power cut may lose the latest appends, each as a whole.

        Raises:
            JournalNotFoundError: no such file, with `read_only`, or no such folder.
            PathIsDirectoryError, AccessDeniedError: as they say.
            NotADatabaseError, NotAJournalError, NewerFormatError: what the file is instead.
            UnsafeSQLiteError: the SQLite library can corrupt a journal.
        """
        if durability not in ("full", "normal"):
            message = f"durability: expected 'full' or 'normal', found {durability!r}"
            raise ValueError(message)
        database = Database(Path(path).absolute(), read_only=read_only, durability=durability)
        try:
            return cls(database)
        except BaseException:
            with suppress(JournalError):  # what went wrong first is what to tell
                database.close()
            raise

    def close(self) -> None:
        """Close the journal; closing it again does nothing.

        The last one to close a file folds the -wal into it, so that one file is left.
        """
        try:
            if not (self._database.closed or self._database.read_only):
                self._appender.close_block()
        except JournalError:
            pass  # the next one to append makes up for it; what was acknowledged is safe
        finally:
            self._database.close()

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the journal."""
        self.close()

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._database.path

    @property
    def last_position(self) -> int:
        """The position of the latest event, 0 where there never was one."""
        return self._reader.last_position()

    def event_count(self) -> int:
        """Return how many events the journal holds."""
        return self._reader.event_count()

    def info(self) -> JournalInfo:
        """Return what is in the file. Counting the kinds reads all of it, 10 million events/s."""
        with self._database.read() as connection:
            return read_info(connection, self.path)

    def append_events(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append events, all or nothing; see `EventStore.append_events`.

        When it returns, the events are as safe as the journal's `durability` says.

        Raises:
            ConcurrencyError, KeyConflictError, InvalidEventError: as `EventStore.append_events`.
            ReadOnlyError, StorageFullError: as they say; nothing was written.
            CommitFailedError: whether it was written is known only after opening the file again.
        """
        check_arguments(expected_versions, key)
        return self._appender.append(encode(events), expected_versions, key)

    def append_ndjson(
        self,
        lines: Iterable[str | bytes],
        *,
        on_error: OnError = "stop",
        unknown: Unknown = "reject",
        on_reject: Callable[[RejectedLine], None] | None = None,
    ) -> LinesAppended:
        """Append the events in lines of JSON, in batches, in memory that does not grow with them.

        A batch is committed at a thousand events or four million characters, or when a line comes
        and it is a second old. No transaction is open while `lines` is waited for. Blank lines are
        ignored.

        Args:
            lines: with or without line ends; bytes are UTF-8.
            on_error: "stop" raises at the first line that is not an event; "skip" goes on.
            unknown: "keep" stores events of kinds that this version does not know.
            on_reject: is called with every rejected line.

        Returns:
            how many events were appended and lines rejected, and the first and last position.

        Raises:
            LineRejectedError: a line is not an event, and `on_error` is "stop". The events of
                all lines before it are committed, and nothing after.
            ReadOnlyError, StorageFullError, CommitFailedError: as `append_events`. The batches
                before are committed.
        """
        appender = self.line_appender(on_error=on_error, unknown=unknown, on_reject=on_reject)
        return append_lines(appender, lines)

    def line_appender(
        self,
        *,
        on_error: OnError = "stop",
        unknown: Unknown = "reject",
        on_reject: Callable[[RejectedLine], None] | None = None,
    ) -> LineAppender:
        """Return what `append_ndjson` feeds lines to, for a source that has to be waited for."""
        return LineAppender(
            self._appender.append, on_error=on_error, unknown=unknown, on_reject=on_reject
        )

    def get_events_for_session(self, session_id: SessionId) -> list[AnyEvent]:
        """Return the events of a session in append order; see `EventStore`."""
        check_id(session_id, SessionId)
        return self._reader.session_events(session_id)

    def get_events_for_stream(self, stream_id: StreamId) -> list[AnyEvent]:
        """Return the events of a stream in append order; see `EventStore`."""
        check_id(stream_id, StreamId)
        return self._reader.stream_events(stream_id)

    def get_events_since(self, since: datetime) -> list[AnyEvent]:
        """Return the events later than `since`, in append order; see `EventStore`.

        Reads only the blocks of a thousand events that hold something later.
        """
        return self._reader.events_since(Timestamp.from_datetime(since).epoch_ns)

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[RecordedEvent]:
        """Yield events with their positions, in order, in memory that does not grow with them.

        It ends at the position that is the last at the time of the call; events appended later are
        for the next call. An iterator that is left alone holds up nobody.

        Args:
            after: the position before the first one wanted; 0 reads from the start.
            limit: how many events at most; None: all.

        Raises:
            ValueError: `after` or `limit` is negative.
        """
        return self._reader.events(*self._reader.span(after, limit))

    def lines(
        self,
        after: int = 0,
        *,
        session_id: SessionId | None = None,
        stream_id: StreamId | None = None,
        since: datetime | None = None,
    ) -> Iterator[tuple[int, str]]:
        """Yield position and canonical JSON of the events that fit everything given, in order.

        Each text is what the event's `model_dump_json()` gives, found without building the event.
        It ends at the position that is the last at the time of the call.

        Args:
            after: the position before the first one wanted.
            session_id: only events of this session.
            stream_id: only events of this stream.
            since: only events with a later timestamp.

        Raises:
            ValueError: `after` is negative, or `since` has no UTC offset.
        """
        if session_id is not None:
            check_id(session_id, SessionId)
        if stream_id is not None:
            check_id(stream_id, StreamId)
        since_ns = None if since is None else Timestamp.from_datetime(since).epoch_ns
        return self._reader.lines(
            *self._reader.span(after, None),
            session_id=session_id,
            stream_id=stream_id,
            since_ns=since_ns,
        )

    def session(self, session_id: SessionId, *, as_of: AsOf = None) -> SessionStatus | None:
        """Return what has become of a session; None if it has no events.

        Like every query of a projection, it sees all that was committed before the call.

        Args:
            session_id: the session.
            as_of: a position: as if the events after it were not there; or an aware datetime: as if
                those with a later timestamp were not. It reads all events of the session.

        Raises:
            ValueError: `as_of` is neither.
        """
        check_id(session_id, SessionId)
        return queries.session(self._projector, session_id, as_of)

    def sessions(
        self, state: SessionState | None = None, *, as_of: AsOf = None
    ) -> list[SessionStatus]:
        """Return the sessions in `state`, or all, in the order of their first events.

        With `as_of` (see `session`) it folds the events from the first one on.

        Raises:
            ValueError: `state` is not a state, or `as_of` not a position or instant.
        """
        return queries.sessions(self._projector, state, as_of)

    def stream(self, stream_id: StreamId, *, as_of: AsOf = None) -> StreamStatus | None:
        """Return what has become of a stream; None if it has no events. See `session`."""
        check_id(stream_id, StreamId)
        return queries.stream(self._projector, stream_id, as_of)

    def streams(
        self,
        session_id: SessionId | None = None,
        state: StreamState | None = None,
        *,
        as_of: AsOf = None,
    ) -> list[StreamStatus]:
        """Return the streams of a session, or all, that are in `state`, or in any.

        They come in the order of their first events. See `session` and `sessions` for `as_of`.
        """
        if session_id is not None:
            check_id(session_id, SessionId)
        return queries.streams(self._projector, session_id, state, as_of)

    def anomalies(
        self, session_id: SessionId | None = None, *, as_of: AsOf = None
    ) -> list[Anomaly]:
        """Return the events that the protocol could not have produced where they stand.

        Those of one session, or all, by position. See `session` and `sessions` for `as_of`.
        """
        if session_id is not None:
            check_id(session_id, SessionId)
        return queries.anomalies(self._projector, session_id, as_of)

    def register(self, projection: Projection[Any]) -> None:
        """Add a projection of your own. It is kept in the file, and caught up when it is read.

        Raises:
            ValueError: the name is taken or empty, or the version is not 1 or more.
        """
        self._projector.register(projection)

    def state(self, name: str, key: str | UUID = "", *, as_of: AsOf = None) -> Any:
        """Return a state of a projection of your own; the initial one where there was no event.

        Args:
            name: the projection, registered before.
            key: which state; "" for a projection without a key function.
            as_of: see `session`; it folds the events from the first one on.

        Raises:
            UnknownProjectionError: no such projection is registered.
            FoldError: the projection's `apply` failed. What it had made before is kept.
        """
        with self._projector.custom(name, as_of) as states:
            return states.state(str(key))

    def states(self, name: str, *, as_of: AsOf = None) -> dict[str, Any]:
        """Return all states of a projection of your own by their keys; see `state`."""
        with self._projector.custom(name, as_of) as states:
            return states.all_states()

    def projections(self) -> list[ProjectionStatus]:
        """Return the name, version and position of every projection, and how far it is behind."""
        return self._projector.statuses()

    def rebuild(
        self,
        names: Iterable[str] | None = None,
        *,
        progress: Progress | None = None,
        check: bool = False,
    ) -> list[RebuildReport]:
        """Fold projections anew from the first event, and put the result in place of the old rows.

        It runs beside readers and writers, who see the old rows until the new ones are complete.
        An interrupted rebuild leaves the old rows in place.

        Args:
            names: which; None: all that are registered. The built-in "sessions" and "streams" are
                folded together.
            progress: is called with the number of events folded and the number there are.
            check: only compare; the old rows stay.

        Returns:
            a report for each, with what differs between the old and the new rows: nothing, unless
            the rows were damaged, or `apply` was changed without its version.

        Raises:
            UnknownProjectionError: a name is not registered.
            FoldError: an `apply` failed; the other projections are rebuilt.
            ReadOnlyError: the journal is open for reading only.
        """
        return self._projector.rebuild(names, progress, check=check)
