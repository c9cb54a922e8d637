"""The journal: an event store in one SQLite file.

This is the facade. What it is made of is imported when the first journal is opened: the models and
the driver take a tenth of a second, which a program need not spend at its start.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from journal._signatures import shorten_signatures
from journal.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta
    from os import PathLike
    from types import TracebackType
    from uuid import UUID

    import apsw

    from journal.events.codecs import Record
    from journal.events.ids import SessionId, StreamId
    from journal.events.unknown import AnyEvent
    from journal.events.values import SessionState, StreamState
    from journal.events.wire_exact import Unknown
    from journal.file.connections import Database
    from journal.file.info import JournalInfo
    from journal.file.ndjson import LineAppender, OnError
    from journal.file.opening import Durability
    from journal.file.origins import Origin
    from journal.live.buffered_commits import Buffering, OnFlushFailed, WhenFull
    from journal.live.tickets import Ticket
    from journal.maintenance.manifest import Shipment
    from journal.maintenance.provenance import Provenance
    from journal.maintenance.pruning import Pruner, PruneReport
    from journal.maintenance.retention import Retention
    from journal.projections.as_of import AsOf
    from journal.projections.listing import SessionOrder, StreamOrder
    from journal.projections.rebuilding import Progress
    from journal.projections.results import (
        Anomaly,
        Projection,
        ProjectionStatus,
        RebuildReport,
        SessionStatus,
        StreamStatus,
    )
    from journal.store import Appended, LinesAppended, Outcome, RecordedEvent, RejectedLine


class Journal:
    """An `EventStore` in one file. Open it with `Journal.open`, best in a `with` statement.

    Threads may share a journal, and processes a file: writers queue, readers see one moment of the
    file and are never held up. A journal does not survive a fork; open it again in the child.

    Besides what the methods name, each raises `TypeError` for an id of another class than it asks
    for, `ClosedError` once the journal is closed, `StorageError` when the operating system fails,
    `DamagedError` when the file contradicts itself, and `BusyError` when another process holds the
    file for longer than a minute.
    """

    def __init__(
        self,
        database: Database,
        *,
        waiting_max: int | None = None,
        retention: Retention | None = None,
    ) -> None:
        from journal.file.appending import Appender, append_of  # noqa: PLC0415
        from journal.file.reading import Reader  # noqa: PLC0415
        from journal.live.shared_commits import SharedCommits  # noqa: PLC0415
        from journal.projections.queries import Queries  # noqa: PLC0415
        from journal.projections.registry import Projections  # noqa: PLC0415

        self._database = database
        self._appender = Appender(database)
        self._append_of = append_of  # importing it in each call would take a microsecond
        self._commits = SharedCommits(database, self._appender, waiting_max)
        self._reader = Reader(database)
        self._projections = Projections(database, self._reader)
        self._queries = Queries(database, self._projections)
        self._retainer = None
        if retention is not None:
            from journal.maintenance.retention import Retainer  # noqa: PLC0415

            self._retainer = Retainer(self._appender, self._pruner(), retention)
            self._commits.after_commit = self._retainer.after_append

    @overload
    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        read_only: bool = False,
        durability: Durability = "full",
        label: str | None = None,
        waiting_max: int | None = None,
        retention: Retention | None = None,
    ) -> Self: ...

    @overload
    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        durability: Literal["buffered"],
        label: str | None = None,
        retention: Retention | None = None,
        max_delay: float | timedelta | None = None,
        max_events: int | None = None,
        when_full: WhenFull | None = None,
        on_flush_failed: OnFlushFailed | None = None,
    ) -> BufferedJournal: ...

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        read_only: bool = False,
        durability: Durability | Literal["buffered"] = "full",
        label: str | None = None,
        waiting_max: int | None = None,
        retention: Retention | None = None,
        max_delay: float | timedelta | None = None,
        max_events: int | None = None,
        when_full: WhenFull | None = None,
        on_flush_failed: OnFlushFailed | None = None,
    ) -> Self | BufferedJournal:
        """Open the journal at `path`; make one, for its owner only, if there is no file.

        Args:
            path: the file. It may get companions called -wal and -shm, which are part of it while
                it is open.
            read_only: never write and never make a file. Everything committed is seen, also on
                read-only media.
            durability: what an append waits for. "full": the disk has it, so that it survives a
                power cut. "normal": the operating system has it, so that it survives a crash of
                the program; a power cut may lose the latest appends, each as a whole. "buffered":
                nothing; it returns a ticket at once. See `BufferedJournal`, which this opens.
            label: what people call this journal, such as the name of the device: 1 to 200 printable
                characters, kept in the file. None: leave it as it is.
            waiting_max: how many appends of this journal's threads may wait to be committed; one
                more raises `OverloadedError`. None: any number.
            retention: what is kept; the rest is pruned by itself, as `prune` does it, in small
                steps after appends that seal a block. An append waits some milliseconds for that,
                for each thousand events, or million characters of data, that it appends. What goes
                wrong there fails no append: `retention_failure` has it. None: everything is kept.
            max_delay: only for "buffered", as what follows: for how long an event may be buffered
                before it begins to be written, in seconds or as a timedelta. None: 0.1 s.
            max_events: how many events are buffered or being written at most; half of them begin to
                be written at once. An append of more waits for an empty buffer. None: 10,000.
            when_full: what an append does that finds no room: "block", the default, waits for it,
                "raise" raises `OverloadedError`.
            on_flush_failed: is called in a thread of the journal's own, when buffered events could
                not be written, with the `FlushFailedError` that the next call raises, too.

        Raises:
            ValueError: an argument is not of these, or needs another value of `durability`, or a
                label, a retention or a buffer is given with `read_only`.
            ClosedCopyError: it is a copy made by shipping or recovering, and not `read_only`.
            JournalNotFoundError: no such file, with `read_only`, or no such folder.
            PathIsDirectoryError, AccessDeniedError: as they say.
            NotADatabaseError, NotAJournalError, NewerFormatError: what the file is instead.
            StaleWalError: the -wal beside the file was not written for it.
            FileReplacedError: somebody uses it under another name, or has written into it.
            UnsafeSQLiteError: the SQLite library can corrupt a journal.
        """
        from journal.file.connections import Database  # noqa: PLC0415
        from journal.file.identity import check_label  # noqa: PLC0415
        from journal.file.paths import absolute  # noqa: PLC0415
        from journal.live.buffered_commits import buffering_of  # noqa: PLC0415

        buffering = buffering_of(durability, max_delay, max_events, when_full, on_flush_failed)
        if buffering is not None and (read_only or waiting_max is not None):
            message = "durability: 'buffered' goes neither with read_only nor with waiting_max, "
            raise ValueError(message + "which is for appends that wait to be committed at once")
        if waiting_max is not None and waiting_max < 1:
            message = f"waiting_max: expected 1 or more, or None, found {waiting_max!r}"
            raise ValueError(message)
        if label is not None:
            check_label(label)
            if read_only:
                raise ValueError("label: cannot be written with read_only")
        if retention is not None:
            from journal.maintenance.retention import check_retention  # noqa: PLC0415

            check_retention(retention, read_only=read_only)
        synced: Durability = "normal" if durability == "normal" else "full"
        database = Database(absolute(path), read_only=read_only, durability=synced)
        try:
            if label is not None:
                database.set_label(label)
            if buffering is not None:
                return BufferedJournal(database, buffering, retention=retention)
            return cls(database, waiting_max=waiting_max, retention=retention)
        except BaseException:
            with suppress(JournalError):  # what went wrong first is what to tell
                database.close()
            raise

    def check_file(self) -> None:
        """Make sure that the file at the path is the one that is open; each append does so, too.

        Raises:
            FileReplacedError: it was moved, deleted, replaced or written to by something else.
        """
        self._database.check_is_current()

    def close(self) -> None:
        """Close the journal; closing it again does nothing.

        What was handed in is committed; whoever appends from now on is refused (`ClosedError`).
        Where no more than ten thousand events are not folded yet, the built-in projections catch
        up, so that plain SQL finds every session and stream.
        The last one to close a file folds the -wal into it, so that one file is left.
        An interrupt (Ctrl-C) while it waits for what was handed in drops none of that: closing can
        be repeated.

        Raises:
            BusyError: a handler or a fold that the journal's own thread has called closes it; it is
                not closed.
            StorageFullError, StorageError: it is closed, and nothing is lost, but there is no room
                for that: the -wal stays, and is part of the journal. Where a `with` statement ends
                by another error, it is a note to that.
        """
        self._commits.close()  # not below: an interrupt must not close the file to what waits
        try:
            if not (self._database.closed or self._database.read_only):
                with suppress(JournalError):  # the next one to append makes up for it
                    self._appender.close_block()
                with suppress(JournalError):  # and the next one to read them
                    self._projections.catch_up_where_quick()
                with suppress(JournalError):
                    if self._retainer is not None:
                        self._retainer.at_the_end()
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
        try:
            self.close()
        except JournalError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._database.path

    @property
    def journal_id(self) -> UUID:
        """The identity of the journal; with a position, that of an event."""
        return self._reader.journal_id()

    @property
    def label(self) -> str | None:
        """What people call the journal; None: it has no label."""
        return self._reader.label()

    @property
    def is_older_format(self) -> bool:
        """Whether opening it for writing would migrate the file."""
        return self._reader.is_older_format()

    @property
    def last_position(self) -> int:
        """The position of the latest event, 0 where there never was one."""
        return self._reader.last_position()

    def event_count(self) -> int:
        """Return how many events the journal holds."""
        return self._reader.event_count()

    def version(self, session_id: SessionId) -> int:
        """Return how many events a session ever had; 0 for a session that is not there.

        It is what `expected_versions` is compared with. After pruning, fewer may be left.
        """
        return self._reader.version(session_id)

    def set_label(self, label: str) -> None:
        """Write what people call this journal; see `open`.

        Raises:
            ValueError: it is not 1 to 200 printable characters.
            ReadOnlyError: the journal is open for reading only.
        """
        self._database.set_label(label)

    def find_sessions(self, beginning: str, *, limit: int = 10) -> list[SessionId]:
        """Return the sessions whose ids begin with some hexadecimal digits, in the order of ids.

        Raises:
            ValueError: `beginning` is not 1 to 32 hexadecimal digits, with or without hyphens.
        """
        return self._reader.sessions_beginning(beginning, limit)

    def find_streams(self, beginning: str, *, limit: int = 10) -> list[StreamId]:
        """Return the streams whose ids begin with some hexadecimal digits; see `find_sessions`."""
        return self._reader.streams_beginning(beginning, limit)

    def kind_names(self) -> list[str]:
        """Return the kinds that there can be events of: the known ones, and those kept whole."""
        return self._reader.kind_names()

    def info(self, *, progress: Progress | None = None) -> JournalInfo:
        """Return what is in the file. Counting the kinds reads all of it, 10 million events/s.

        Args:
            progress: is called with the number of events counted and the number there are.
        """
        return self._reader.info(progress)

    def connection(self) -> apsw.Connection:
        """Return a new connection to read the file with in SQL; see the views in FORMAT.md.

        Closing the journal closes it. It is for one thread, writes nothing, and raises apsw's own
        errors. Finish what you read with it soon: a statement that is not finished keeps the -wal
        from beginning anew. Unlike a connection of another library, it drops no locks.
        """
        return self._database.connection()

    def append_events(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Appended:
        """Append events, all or nothing; see `EventStore.append_events`.

        When it returns, the events are as safe as the journal's `durability` says. Threads that
        append at the same time share a commit, and with it the wait for the disk.

        Raises:
            ConcurrencyError, KeyConflictError, InvalidEventError: as `EventStore.append_events`.
            ReadOnlyError, StorageFullError: as they say; nothing was written.
            OverloadedError: more appends wait than `waiting_max` of `open` allows; nothing was
                written.
            CommitFailedError: whether it was written is not known; `resolve` tells it from the
                error's `outcome`.
        """
        return self._commits.append(self._append_of(events, expected_versions, key))

    def submit(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Ticket:
        """Hand in what `append_events` would append, and return a ticket at once.

        It is committed by a thread of the journal's own, together with what others hand in
        meanwhile; what one thread hands in keeps its order. `wait()` of the ticket returns the
        positions, or raises what `append_events` would. Closing the journal commits it, too.

        Raises:
            InvalidEventError: something in `events` is not an event.
            ReadOnlyError: as it says.
            OverloadedError: more appends wait than `waiting_max` of `open` allows.
        """
        return self._commits.submit(self._append_of(events, expected_versions, key))

    def resolve(self, outcome: Outcome) -> Outcome:
        """Return what has become of an append whose outcome was unknown.

        It is the answer of the file, by the row that says how far its writer had come, and final:
        it is given when all that the -wal has is in the file and on the disk. The journal may be
        another one than that which appended, opened later or in another process. The outcome stays
        unknown where the file has no such row: it was restored, recovered or made anew, or opened
        many times since.

        Args:
            outcome: the `outcome` of an error or of a ticket; one that is known is returned as it
                is.

        Raises:
            ReadOnlyError: the journal is open for reading only.
            StorageError, CommitFailedError: the disk does not take it yet.
        """
        return self._appender.resolve(outcome)

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
            ReadOnlyError, StorageFullError, OverloadedError, CommitFailedError: as `append_events`.
                The batches before are committed.
        """
        appender = self.line_appender(on_error=on_error, unknown=unknown, on_reject=on_reject)
        return appender.append_all(lines)

    def line_appender(
        self,
        *,
        on_error: OnError = "stop",
        unknown: Unknown = "reject",
        on_reject: Callable[[RejectedLine], None] | None = None,
    ) -> LineAppender:
        """Return what `append_ndjson` feeds lines to, for a source that has to be waited for."""
        return self.line_appender_to(
            lambda: self, on_error=on_error, unknown=unknown, on_reject=on_reject
        )

    @staticmethod
    def line_appender_to(
        opened: Callable[[], Journal],
        *,
        on_error: OnError = "stop",
        unknown: Unknown = "reject",
        on_reject: Callable[[RejectedLine], None] | None = None,
    ) -> LineAppender:
        """Return a `line_appender` that calls `opened` for the journal when it has what to append.

        So lines without a single event need not make a file.
        """
        from journal.file.appending import Append  # noqa: PLC0415
        from journal.file.ndjson import LineAppender  # noqa: PLC0415

        def append(records: list[Record]) -> Appended:
            return opened()._commits.append(Append(records))

        return LineAppender(append, on_error=on_error, unknown=unknown, on_reject=on_reject)

    def get_events_for_session(self, session_id: SessionId) -> list[AnyEvent]:
        """Return the events of a session in append order; see `EventStore`."""
        return self._reader.session_events(session_id)

    def get_events_for_stream(self, stream_id: StreamId) -> list[AnyEvent]:
        """Return the events of a stream in append order; see `EventStore`."""
        return self._reader.stream_events(stream_id)

    def get_events_since(self, since: datetime) -> list[AnyEvent]:
        """Return the events later than `since`, in append order; see `EventStore`.

        Reads only the blocks of a thousand events that hold something later. Events that were
        pruned, or lost and recovered around, are not there to be returned: `absences` of `info`
        says which.
        """
        return self._reader.events_since(since)

    def read(
        self,
        after: int = 0,
        limit: int | None = None,
        *,
        session_id: SessionId | None = None,
        stream_id: StreamId | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        kinds: Collection[str] | None = None,
        origin: str | None = None,
    ) -> Iterator[RecordedEvent]:
        """Yield the events that fit everything given, with their positions, in order.

        It takes memory that grows with nothing, and the first event comes at once: events are read
        in pages, each in a short transaction, so an iterator that is left alone holds up nobody.
        It ends at the position that is the last at the time of the call; events appended later are
        for the next call. Blocks without anything between `since` and `until` are skipped. A
        session or stream of some thousand events among many more is followed once before its first.

        Args:
            after: the position before the first one wanted; 0 reads from the start.
            limit: how many events at most; None: all.
            session_id: only events of this session.
            stream_id: only events of this stream.
            since: only events with a later timestamp.
            until: only events with this timestamp or an earlier one.
            kinds: only events whose `event_type` is one of these names. A name that the file has
                no event of fits nothing.
            origin: only events that were appended to the journal with this label or id, in one
                that goes on from a copy, or that others were merged into. Where a journal has two
                histories, those are the events of both; the branch, or its first eight digits,
                has only the events of the second one since they parted.

        Raises:
            ValueError: `after` or `limit` is negative, or `since` or `until` has no
                UTC offset, or there is no such `origin`.
            PrunedError: `after`, or what is read next, is before the first event left.
        """
        from journal.file.selecting import Wanted  # noqa: PLC0415

        wanted = Wanted(session_id, stream_id, since, until, kinds, origin)
        return self._reader.read(after, limit, wanted)

    def lines(
        self,
        after: int = 0,
        *,
        session_id: SessionId | None = None,
        stream_id: StreamId | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        kinds: Collection[str] | None = None,
        origin: str | None = None,
    ) -> Iterator[tuple[int, str]]:
        """Yield position and canonical JSON of the events that fit everything given, in order.

        Each text is what the event's `model_dump_json()` gives, found without building the event.
        In all else it is like `read`.

        Args:
            after: the position before the first one wanted.
            session_id: only events of this session.
            stream_id: only events of this stream.
            since: only events with a later timestamp.
            until: only events with this timestamp or an earlier one.
            kinds: only events whose `event_type` is one of these names.
            origin: only events that were appended to the journal with this label or id, or since
                this branch of its history parted; see `read`.

        Raises:
            ValueError: `after` is negative, or `since` or `until` has no
                UTC offset, or there is no such `origin`.
            PrunedError: as `read`.
        """
        from journal.file.selecting import Wanted  # noqa: PLC0415

        wanted = Wanted(session_id, stream_id, since, until, kinds, origin)
        return self._reader.lines(after, wanted)

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
        return self._queries.session(session_id, as_of)

    def sessions(
        self,
        state: SessionState | None = None,
        *,
        order: SessionOrder = "oldest",
        limit: int | None = None,
        as_of: AsOf = None,
    ) -> list[SessionStatus]:
        """Return the sessions in `state`, or all, as of one moment.

        With `as_of` (see `session`) it folds the events from the first one on.

        Args:
            state: only those in this state.
            order: "oldest" or "newest": by their first events, the oldest or the newest first.
                "ended": those that ended last first, those that have not ended at the end.
                "events", "streams", "failed" (streams), "anomalies": those with the most first.
            limit: how many at most, of the first in this order; None: all.
            as_of: see `session`.

        Raises:
            ValueError: `state` is not a state, `order` none of these, `limit` negative, or `as_of`
                not a position or instant.
        """
        return self._queries.sessions(state, order, limit, as_of)

    def iter_sessions(
        self,
        state: SessionState | None = None,
        *,
        order: SessionOrder = "oldest",
        limit: int | None = None,
        as_of: AsOf = None,
    ) -> Iterator[SessionStatus]:
        """Yield what `sessions` returns, in memory that does not grow with it.

        The first one comes at once where the projections are stored up to the last event; an order
        other than "oldest" and "newest" sorts first, and keeps sixteen bytes of each in memory.
        Rows are read in pages of a thousand, each in a short transaction, so an iterator that is
        left alone holds up nobody. So it is not one moment that it shows: each session is as it
        was at the call or has become since, those that are new since are left out, and none comes
        twice. While nobody appends, it is one moment.

        Args:
            state: as for `sessions`.
            order: as for `sessions`.
            limit: as for `sessions`.
            as_of: as for `sessions`. What is folded for it is kept in memory, and so is what cannot
                be folded into the file.

        Raises:
            ValueError: as `sessions`, at the call.
        """
        return self._queries.iter_sessions(state, order, limit, as_of)

    def stream(self, stream_id: StreamId, *, as_of: AsOf = None) -> StreamStatus | None:
        """Return what has become of a stream; None if it has no events. See `session`."""
        return self._queries.stream(stream_id, as_of)

    def streams(
        self,
        session_id: SessionId | None = None,
        state: StreamState | None = None,
        *,
        order: StreamOrder = "oldest",
        limit: int | None = None,
        as_of: AsOf = None,
    ) -> list[StreamStatus]:
        """Return the streams of a session, or all, that are in `state`, or in any.

        Args:
            session_id: only those of this session.
            state: only those in this state.
            order: as for `sessions`, but for "events", "frames", "bytes", "anomalies".
            limit: how many at most, of the first in this order; None: all.
            as_of: see `session` and `sessions`.

        Raises:
            ValueError: as `sessions`.
        """
        return self._queries.streams(session_id, state, order, limit, as_of)

    def iter_streams(
        self,
        session_id: SessionId | None = None,
        state: StreamState | None = None,
        *,
        order: StreamOrder = "oldest",
        limit: int | None = None,
        as_of: AsOf = None,
    ) -> Iterator[StreamStatus]:
        """Yield what `streams` returns, in memory that does not grow with it.

        In all else it is like `iter_sessions`.
        """
        return self._queries.iter_streams(session_id, state, order, limit, as_of)

    def anomalies(
        self, session_id: SessionId | None = None, *, as_of: AsOf = None
    ) -> list[Anomaly]:
        """Return the events that the protocol could not have produced where they stand.

        Those of one session, or all, by position. See `session` and `sessions` for `as_of`.
        """
        return self._queries.anomalies(session_id, as_of)

    def iter_anomalies(
        self, session_id: SessionId | None = None, *, as_of: AsOf = None
    ) -> Iterator[Anomaly]:
        """Yield what `anomalies` returns, in memory that does not grow with it.

        Rows are read in pages, as by `iter_sessions`. Anomalies never change; those of events that
        come after the call are left out.
        """
        return self._queries.iter_anomalies(session_id, as_of)

    def register(self, projection: Projection[Any]) -> None:
        """Add a projection of your own. It is kept in the file, and caught up when it is read.

        Raises:
            ValueError: the name is empty, or taken, by a projection or by a subscription; or the
                version is not 1 or more.
        """
        self._projections.register(projection)

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
        with self._projections.own(name, as_of) as states:
            return states.state(str(key))

    def states(self, name: str, *, as_of: AsOf = None) -> dict[str, Any]:
        """Return all states of a projection of your own by their keys; see `state`."""
        with self._projections.own(name, as_of) as states:
            return states.all_states()

    def report_folding(self, progress: Progress | None) -> None:
        """Have `progress` called while reading a projection takes long, as it folds what is new.

        Args:
            progress: takes the position that is folded up to, and the one it will come to; both
                alike at the end. It is called in the thread that reads, after some thousand events
                each, and not for a few. None: no longer.
        """
        self._projections.progress = progress

    def report_looking(self, progress: Progress | None) -> None:
        """Have `progress` called while what is asked for may be long in coming.

        That is while `read` and `lines` look for events, and while `iter_sessions`, `iter_streams`
        and `iter_anomalies` look for rows. It goes for what is asked for from now on.

        Args:
            progress: takes how many events or rows were looked at, and how many there are; both
                alike at the end. Where they have to be sorted, or a session or a stream is followed
                from its end, that is done first, and reported for itself. It is called in the
                thread that reads, after some hundred or more. None: no longer.
        """
        self._reader.progress = self._queries.progress = progress

    def projections(self) -> list[ProjectionStatus]:
        """Return the name, version and position of every projection, and how far it is behind."""
        return self._projections.statuses()

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
        return self._projections.rebuild(names, progress, check=check)

    def ship(
        self,
        dest: str | PathLike[str],
        *,
        after: int | str | PathLike[str] | None = None,
        standalone: bool = False,
        manifest: bool = False,
        indexes: bool = True,
        force: bool = False,
        redact: Mapping[str, str] | None = None,
        secret: bytes | None = None,
        progress: Progress | None = None,
    ) -> Shipment:
        """Make one complete, checked and closed copy of the journal, for reading anywhere.

        It has everything that was committed at one moment after the call, the projections up to the
        last event, and needs no other file beside it. Nothing is written to the journal, and others
        go on writing; its -wal grows meanwhile, and a process that is forked from this one may be
        refused. The copy gets its name when it is complete and on the disk; whatever stops it
        before, there is nothing under that name.

        Args:
            dest: the file, or a folder: then it is named after the label, the journal and its
                positions. Its mode is what the process's umask leaves of 0644.
            after: have only what is new in it: the events from the first one of the block that has
                this position on, or, of a file that was shipped from this journal or the manifest
                of one, the position where that ends. It takes as long as those events are many.
                What lies before is said to be absent, with the digest there; sessions and streams
                count what happened since, and states of projections of your own are left out.
            standalone: with `after`: have the states of all projections from there on in it, also
                of those that are registered, as after pruning. It takes folding what lies before.
            manifest: also write what the file holds, with its size and SHA-256, as JSON beside it:
                NAME.manifest.json.
            indexes: have indexes by session, stream, id and time in it, which add half to three
                quarters to it.
            force: replace a file that is there.
            redact: texts that the copy is not to have, as methods by KIND.FIELD: "blank" leaves
                nothing of a text, "mask" as many asterisks as it had characters, "hash" its
                HMAC-SHA-256 in hexadecimal digits, so that equal texts stay equal. "unknown":
                "blank" leaves of events of kinds that this version does not know only what every
                event has. What may have kept such texts is left out: states of projections of your
                own, bases, idempotency keys of those events, and tables that are not the journal's.
            secret: the key of the hashes. It is in no file: keep it, or make a new one each time.
            progress: is called with the number of events done and the number to be shipped;
                copying, checking and indexing all count.

        Returns:
            what the file holds, and its size and SHA-256.

        Raises:
            ValueError: `redact` names what is no text of a known kind, or no method; or a hash
                has no secret; `after` is no position, and no file that was shipped; or `standalone`
                comes without it.
            OtherHistoryError: what was shipped before is of another journal or another branch, or
                later than the end; or its digest cannot be told here any more.
            TargetExistsError, WrongTargetError, PathIsDirectoryError: the file may not be made.
            StorageFullError, AccessDeniedError, StorageError: it cannot be made; there was not
                enough room, say.
            NewerFormatError: this version can read the journal, and not write its format.
            DamagedError: the journal is not what was appended to it.
        """
        from journal.maintenance.shipping import ship  # noqa: PLC0415

        return ship(
            self._database,
            dest,
            after=after,
            standalone=standalone,
            own_folds=self._projections.own_folds(),
            manifest=manifest,
            indexes=indexes,
            force=force,
            redact=redact,
            secret=secret,
            progress=progress,
        )

    def prune(
        self,
        *,
        before: int | datetime | None = None,
        keep_events: int | None = None,
        keep_bytes: int | None = None,
        keep_age: timedelta | None = None,
        shipped: str | PathLike[str] | None = None,
        file: str | PathLike[str] | None = None,
        keep_open: bool = False,
        give_up: Iterable[str] = (),
        forget_keys_older_than: timedelta | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> PruneReport:
        """Delete old events for good; what became of them, and every version, stays.

        It takes whole blocks of a thousand events or fewer from the beginning, in transactions of
        some ten thousand events, each complete in itself: an interrupt leaves what is done. One of
        the first six says which blocks may go; all of the events in them have to fit. Events of
        open sessions go, too: their states stay. A session that has ended is forgotten with the
        last event of it and of its streams, a stream that has ended with its last event; what comes
        later under such an id is new.

        The age of a block is the latest timestamp up to its end that is not in the future, so that
        a clock that was wrong for a while makes nothing old and keeps nothing young.

        Args:
            before: events before this position, or with an earlier timestamp.
            keep_events: all but so many of the latest events; 0: all.
            keep_bytes: as many of the oldest as it takes to make the file no larger than this;
                what stays of them may take more, see `Retention`.
            keep_age: events older than this.
            shipped: what was shipped, as the JSON beside a shipped file says: if it begins no later
                than this journal, has the same digests, and nothing is redacted in it.
            file: the same, as the shipped file itself says.
            keep_open: stop at the first event of a session that is open.
            give_up: the names of projections and subscriptions that need not have come so far. No
                other event goes that one of them has not taken yet; the built-in projections, and
                those registered here, are brought up first.
            forget_keys_older_than: forget the keys of pruned events, and of empty appends, that
                were used longer ago. None: keep them all.
            dry_run: only say what would go, with sizes that are estimates, and as if every
                projection that is registered here took all of it: their folds are not tried, and
                one that would fail holds back more.
            progress: is called with the number of events pruned, and the number to go.

        Returns:
            what went, what is forgotten, what stays, and how many bytes came back.

        Raises:
            ValueError: it is not one rule, or a value is not what it should be, or what was shipped
                is not of this journal, or there is nothing of a name to give up.
            OSError: `shipped` or `file` cannot be read.
            ReadOnlyError: the journal is open for reading only, and it is no dry run.
            ClosedCopyError: it is a copy made by shipping or recovering.
        """
        from journal.maintenance.prune_rules import names_given_up, rule_of, span_ns  # noqa: PLC0415
        from journal.maintenance.pruning import Wanted  # noqa: PLC0415
        from journal.maintenance.shipped import shipped_of  # noqa: PLC0415

        rule = rule_of(
            before=before,
            keep_events=keep_events,
            keep_bytes=keep_bytes,
            keep_age=keep_age,
            shipped=shipped,
            file=file,
        )
        keys_ns = span_ns("forget_keys_older_than", forget_keys_older_than)
        found = shipped_of(shipped, file)
        if found is not None:
            rule = rule._replace(before_position=found.last + 1)
        wanted = Wanted(rule, keep_open, names_given_up(give_up), keys_ns, found)
        pruner = self._pruner()
        return (pruner.planned if dry_run else pruner.prune)(wanted, progress)

    def origins(self, *, progress: Progress | None = None) -> Provenance:
        """Return which journals the events come from, and which sessions have events of several.

        Those that others were merged into, or that go on from a copy, have others than their own.

        Args:
            progress: is called with the number of events looked at and the number there are.
        """
        from journal.maintenance.provenance import read_provenance  # noqa: PLC0415

        with self._database.read() as connection:
            return read_provenance(connection, progress)

    def origin_of(self, position: int) -> Origin | None:
        """Return which range of positions, and of which journal, has a position.

        Positions in a range follow each other here and there. None where all events are this
        journal's own.
        """
        return self._reader.origin_of(position)

    @property
    def retention_failure(self) -> Exception | None:
        """Why retention did not do what was due after the latest append; None: it did."""
        return None if self._retainer is None else self._retainer.failure

    def _pruner(self) -> Pruner:
        from journal.maintenance.pruning import Pruner  # noqa: PLC0415

        return Pruner(self._database, self._appender, self._projections)


class BufferedJournal(Journal):
    """A journal whose appends return at once and are committed together, a little later.

        with Journal.open(path, durability="buffered", max_delay=0.1) as journal:
            ticket = journal.append_events(events)
            journal.flush()

    Until then, events are in memory only: nobody reads them, also not through this journal, and a
    crash loses them (kill -9, a signal that nobody handles, `os._exit`, a power cut): those of the
    last `max_delay` and the time it takes to write them, and no more than `max_events`. Every other
    end of the program writes them: its last line, `sys.exit`, an exception, Ctrl-C; also where the
    journal is not closed, or was forgotten. From when the main thread has ended, appends are
    committed before they return. What was flushed is as safe as with durability "full".

    Where writing fails, nothing is tried again: the tickets say what has become of each append, and
    the next call of `append_events`, `append_ndjson`, `flush` or `close` raises `FlushFailedError`,
    once, and does nothing else, but that `close` closes. `on_flush_failed` of `open` hears of it
    at once.

    `append_ndjson` has batches of its own and returns when they are committed, after what was
    buffered before. A process that is forked has none of the buffer: the parent writes it.
    """

    def __init__(
        self, database: Database, buffering: Buffering, *, retention: Retention | None = None
    ) -> None:
        from journal.live.buffered_commits import BufferedCommits  # noqa: PLC0415

        super().__init__(database, retention=retention)
        buffer = BufferedCommits(database, self._appender, buffering)
        buffer.after_commit = self._commits.after_commit
        self._commits = self._buffer = buffer

    def append_events(  # type: ignore[override]  # that is what buffering is
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Ticket:
        """Buffer events, to be committed all or nothing, and return a ticket at once.

        What one thread appends keeps its order. `wait()` of the ticket waits until they are
        committed, and does not hasten it.

        Raises:
            ValueError: `expected_versions` or `key` is given: what they are compared with is not
                known yet.
            InvalidEventError: something in `events` is not an event.
            FlushFailedError: earlier events could not be written; these were not taken.
            OverloadedError: the buffer is full, and `when_full` is "raise".
            BusyError: a signal's handler has interrupted an append, or `on_flush_failed` appends.
        """
        if expected_versions is not None or key is not None:
            raise ValueError(
                "expected_versions, key: a buffered append cannot have them, since it returns "
                "before they can be looked at: open the journal with another durability"
            )
        return self._buffer.buffer(self._append_of(events, None, None))

    def submit(
        self,
        events: Iterable[AnyEvent],
        *,
        expected_versions: Mapping[SessionId, int] | None = None,
        key: str | None = None,
    ) -> Ticket:
        """Do what `append_events` does."""
        return self.append_events(events, expected_versions=expected_versions, key=key)

    def flush(self) -> None:
        """Write what was buffered before the call, and return when the disk has it.

        Raises:
            FlushFailedError: some of it, or of what was buffered earlier, could not be written.
            BusyError: as `append_events`.
        """
        self._buffer.flush()

    def close(self) -> None:
        """Write what is buffered, and close the journal; see `Journal.close`.

        Raises:
            FlushFailedError: some of it could not be written; it is closed.
            StorageFullError, StorageError: as `Journal.close`.
            BusyError: `on_flush_failed` closes it; it is not closed.
        """
        self._buffer.close()
        try:
            super().close()
        except JournalError:
            self._buffer.raise_failure()  # what is lost is more than a -wal that stays
            raise
        self._buffer.raise_failure()


shorten_signatures(Journal)
shorten_signatures(BufferedJournal)
