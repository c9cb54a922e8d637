"""Answers about sessions and streams, from the built-in projections."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import apsw

from journal import limits
from journal.errors import DamagedError, JournalError
from journal.events.codecs import own_values
from journal.events.ids import SessionId, StreamId, check_id
from journal.events.kinds import KINDS
from journal.events.timestamps import Timestamp
from journal.events.values import SessionState, StreamState
from journal.file.connections import Database
from journal.file.names import not_forgotten, session_key, stream_key
from journal.projections.as_of import AsOf, check_as_of
from journal.projections.lifecycle import (
    CANCELLED,
    COMPLETED,
    FAILED,
    SESSION_COLUMNS,
    STREAM_COLUMNS,
    T_ERROR,
    T_SESSION,
    TOTAL,
    State,
)
from journal.projections.lifecycle_states import LifecycleStates
from journal.projections.listing import (
    SESSIONS,
    STREAMS,
    AnomalyListing,
    Listing,
    Progress,
    Reading,
    RowT,
    Wanted,
    anomalies_of,
    begin,
    begin_anomalies,
    page_of,
    rows_of,
)
from journal.projections.registry import Projections
from journal.projections.results import Anomaly, SessionStatus, StreamStatus
from journal.projections.tables import COUNTER_MAX

_METRICS = KINDS["performance_metrics_recorded"]

StatusT = TypeVar("StatusT", SessionStatus, StreamStatus, Anomaly)
ListingT = TypeVar("ListingT", Listing, AnomalyListing)


class Queries:
    """Answers about the sessions and streams of one journal. Threads may share it."""

    def __init__(self, database: Database, projections: Projections) -> None:
        self.progress: Progress | None = None
        """Is told how far a list that is yielded in pages has come."""
        self._database = database
        self._projections = projections

    def session(self, session_id: SessionId, as_of: AsOf) -> SessionStatus | None:
        """Return one session as of a moment; None if it has no events by then."""
        check_id(session_id, SessionId)
        with self._lent(None if as_of is None else session_id, as_of) as (connection, states):
            key = session_key(connection, session_id)
            found = (
                None if key is None else states.lifecycle.sessions.get(key) or states.session(key)
            )
            return None if found is None else _session_status(session_id, found)

    def sessions(
        self, state: SessionState | None, order: str, limit: int | None, as_of: AsOf
    ) -> list[SessionStatus]:
        """Return the sessions in a state, or all, as of one moment; see `Journal.sessions`."""
        wanted = Wanted(SESSIONS, _name(SessionState, state), order, limit)
        wanted.check()
        with self._lent(None, as_of) as (connection, states):
            listing = _begin_sessions(wanted, connection, states)
            return list(_session_statuses(lambda: nullcontext(connection), listing))

    def iter_sessions(
        self, state: SessionState | None, order: str, limit: int | None, as_of: AsOf
    ) -> Iterator[SessionStatus]:
        """Yield what `sessions` returns, in pages; see `Journal.iter_sessions`."""
        wanted = Wanted(SESSIONS, _name(SessionState, state), order, limit)
        wanted.check()
        lent = self._lent(None, as_of, for_pages=True)
        statuses = partial(_session_statuses, progress=self.progress)
        return self._in_pages(lent, partial(_begin_sessions, wanted), statuses)

    def stream(self, stream_id: StreamId, as_of: AsOf) -> StreamStatus | None:
        """Return one stream as of a moment; None if it has no events by then."""
        check_id(stream_id, StreamId)
        check_as_of(as_of)
        owner = None if as_of is None else self._projections.owner_of(stream_id, as_of)
        if as_of is not None and owner is None:
            return None
        with self._lent(owner, as_of) as (connection, states):
            key = stream_key(connection, stream_id)
            found = None if key is None else states.lifecycle.streams.get(key) or states.stream(key)
            if key is None or found is None:
                return None
            return next(iter(_streams(connection, {key: found})), None)

    def streams(
        self,
        session_id: SessionId | None,
        state: StreamState | None,
        order: str,
        limit: int | None,
        as_of: AsOf,
    ) -> list[StreamStatus]:
        """Return the streams of a session, or all, as of one moment; see `Journal.streams`."""
        wanted = Wanted(STREAMS, _name(StreamState, state), order, limit)
        wanted.check()
        with self._lent(self._apart(session_id, as_of), as_of) as (connection, states):
            listing = _begin_streams(wanted, session_id, connection, states)
            return list(_stream_statuses(lambda: nullcontext(connection), listing))

    def iter_streams(
        self,
        session_id: SessionId | None,
        state: StreamState | None,
        order: str,
        limit: int | None,
        as_of: AsOf,
    ) -> Iterator[StreamStatus]:
        """Yield what `streams` returns, in pages; see `Journal.iter_streams`."""
        wanted = Wanted(STREAMS, _name(StreamState, state), order, limit)
        wanted.check()
        lent = self._lent(self._apart(session_id, as_of), as_of, for_pages=True)
        statuses = partial(_stream_statuses, progress=self.progress)
        return self._in_pages(lent, partial(_begin_streams, wanted, session_id), statuses)

    def anomalies(self, session_id: SessionId | None, as_of: AsOf) -> list[Anomaly]:
        """Return the anomalies of a session, or all, as of one moment, by position."""
        with self._lent(self._apart(session_id, as_of), as_of) as (connection, states):
            listing = _begin_anomalies(session_id, connection, states)
            return list(_anomalies(lambda: nullcontext(connection), listing))

    def iter_anomalies(self, session_id: SessionId | None, as_of: AsOf) -> Iterator[Anomaly]:
        """Yield what `anomalies` returns, in pages; see `Journal.iter_anomalies`."""
        lent = self._lent(self._apart(session_id, as_of), as_of, for_pages=True)
        anomalies = partial(_anomalies, progress=self.progress)
        return self._in_pages(lent, partial(_begin_anomalies, session_id), anomalies)

    def _in_pages(
        self,
        lent: AbstractContextManager[tuple[apsw.Connection, LifecycleStates]],
        begin_list: Callable[[apsw.Connection, LifecycleStates], ListingT],
        statuses: Callable[[Reading, ListingT], Iterator[StatusT]],
    ) -> Iterator[StatusT]:
        """Return what a list has, from the file's tables, or from temporary ones kept for it."""
        with ExitStack() as stack:
            connection, states = stack.enter_context(lent)
            listing = begin_list(connection, states)
            if states.tables_in != "temp":
                return self._told(statuses(self._database.read, listing))
            kept = stack.pop_all()

        @contextmanager
        def reading() -> Iterator[apsw.Connection]:
            self._database.check_open()
            with self._database.inside():
                yield connection

        return self._told(_closing(kept, statuses(reading, listing)))

    def _apart(self, session_id: SessionId | None, as_of: AsOf) -> SessionId | None:
        """Return the session that is to be folded from its own events: not one that has many."""
        if session_id is not None:
            check_id(session_id, SessionId)
            if as_of is None and self._projections.version(session_id) > limits.FOLD_EVENTS_MAX:
                return None
        return session_id

    @contextmanager
    def _lent(
        self, session_id: SessionId | None, as_of: AsOf, *, for_pages: bool = False
    ) -> Iterator[tuple[apsw.Connection, LifecycleStates]]:
        """Lend the states of one session and its streams, or all, as of a moment.

        Raises:
            DamagedError: what is stored of them is not what a fold could have made.
        """
        check_as_of(as_of)
        if session_id is None:
            lent = self._projections.lifecycle(as_of, for_pages=for_pages)
        else:
            lent = self._projections.lifecycle_of(session_id, as_of, for_pages=for_pages)
        with self._damage_told(), lent as found:
            yield found

    def _told(self, rows: Iterator[StatusT]) -> Iterator[StatusT]:
        with self._damage_told():
            yield from rows

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except JournalError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            reason = f"the stored sessions or streams are damaged, rebuild them: {error}"
            raise DamagedError(self._projections.path, reason.splitlines()[0]) from error


def _name(cls: type[SessionState | StreamState], state: str | None) -> str | None:
    """Return the name of a state.

    Raises:
        ValueError: it is none.
    """
    return None if state is None else cls(state).value


def _begin_sessions(
    wanted: Wanted, connection: apsw.Connection, states: LifecycleStates
) -> Listing:
    return begin(connection, states, wanted)


def _begin_streams(
    wanted: Wanted,
    session_id: SessionId | None,
    connection: apsw.Connection,
    states: LifecycleStates,
) -> Listing:
    return begin(connection, states, wanted, _key(connection, session_id))


def _begin_anomalies(
    session_id: SessionId | None, connection: apsw.Connection, states: LifecycleStates
) -> AnomalyListing:
    return begin_anomalies(states, _key(connection, session_id))


def _key(connection: apsw.Connection, session_id: SessionId | None) -> int | None:
    """Return the key of a session, 0 where there is none; None for any session."""
    return None if session_id is None else session_key(connection, session_id) or 0


def _closing(kept: ExitStack, statuses: Iterator[StatusT]) -> Iterator[StatusT]:
    with kept:
        yield from statuses


def _session_statuses(
    reading: Reading, listing: Listing, progress: Progress | None = None
) -> Iterator[SessionStatus]:
    for page in _pages(rows_of(reading, listing, progress)):
        with reading() as connection:
            ids = _ids(connection, "session", SessionId, (row[0] for row in page))
        yield from (_session_status(ids[row[0]], row) for row in page if row[0] in ids)


def _stream_statuses(
    reading: Reading, listing: Listing, progress: Progress | None = None
) -> Iterator[StreamStatus]:
    for page in _pages(rows_of(reading, listing, progress), T_ERROR):
        with reading() as connection:
            statuses = _streams(connection, {row[0]: row for row in page})
        yield from statuses


def _anomalies(
    reading: Reading, listing: AnomalyListing, progress: Progress | None = None
) -> Iterator[Anomaly]:
    for page in _pages(anomalies_of(reading, listing, progress)):
        with reading() as connection:
            sessions = _ids(connection, "session", SessionId, {one.session for one in page})
            streams = _ids(
                connection, "stream", StreamId, {it.stream for it in page if it.stream is not None}
            )
        for one in page:
            if one.session not in sessions or not (one.stream is None or one.stream in streams):
                continue  # it was pruned since the page was read
            yield Anomaly(
                position=one.position,
                session_id=sessions[one.session],
                stream_id=None if one.stream is None else streams[one.stream],
                event_type=one.event_type,
                state=one.state,
                reason=one.reason,
            )


def _pages(rows: Iterator[RowT], text_at: int | None = None) -> Iterator[list[RowT]]:
    is_all = False
    while not is_all:
        page, is_all = page_of(rows, text_at)
        if page:
            yield page


def _streams(connection: apsw.Connection, found: dict[int, State]) -> list[StreamStatus]:
    stream_ids = _ids(connection, "stream", StreamId, found)
    owners = {state[T_SESSION] for state in found.values()}
    session_ids = _ids(connection, "session", SessionId, owners)
    return [
        _stream_status(stream_ids[key], session_ids[state[T_SESSION]], state)
        for key, state in found.items()
        if key in stream_ids and state[T_SESSION] in session_ids
    ]


def _ids(connection: apsw.Connection, table: str, cls: Any, keys: Iterable[int]) -> dict[int, Any]:
    """Return ids by their keys, but of what was forgotten since the keys were read."""
    found = not_forgotten(connection, table, keys)
    return {key: cls.from_bytes(uuid) for key, uuid in found.items()}


def _instant(epoch_ns: int | None) -> Timestamp | None:
    return None if epoch_ns is None else Timestamp.from_epoch_ns(epoch_ns)


def _session_status(session_id: SessionId, state: State) -> SessionStatus:
    values = dict(zip(SESSION_COLUMNS, state, strict=True))
    values["activated_at"] = _instant(values["activated_at"])
    values["ended_at"] = _instant(values["ended_at"])
    values["batched_frames"] = min(values["batched_frames"], COUNTER_MAX)
    if values["metrics"] is not None:
        values["metrics"] = own_values(_METRICS, values["metrics"])["metrics"]
    ended = state[COMPLETED] + state[FAILED] + state[CANCELLED]
    return SessionStatus(session_id=session_id, active_streams=state[TOTAL] - ended, **values)


def _stream_status(stream_id: StreamId, session_id: SessionId, state: State) -> StreamStatus:
    values = dict(zip(STREAM_COLUMNS, state, strict=True))
    for name in ("created_at", "started_at", "ended_at"):
        values[name] = _instant(values[name])
    for name in ("frames", "bytes"):
        values[name] = min(values[name], COUNTER_MAX)
    return StreamStatus(stream_id=stream_id, session_id=session_id, **values)
