"""Keeping projections up to date: catching up, rebuilding beside, and folding as of a moment."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from journal._resources import text_of
from journal.errors import (
    BusyError,
    DamagedError,
    FoldError,
    UnknownProjectionError,
)
from journal.events.decoding import StoredEvent
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.events.timestamps import Timestamp
from journal.file.appending import last_position
from journal.file.connections import Database
from journal.file.opening import BUSY_TIMEOUT_MS
from journal.file.reading import RANGE_SQL, Reader, uuids
from journal.projections.differences import changes_between
from journal.projections.results import Change, Projection, ProjectionStatus, RebuildReport
from journal.projections.tables import (
    CustomFold,
    CustomStates,
    Fold,
    LifecycleFold,
    LifecycleStates,
    States,
    StatesT_co,
    json_of,
)

AsOf = int | datetime | None
"""A position, an instant, or None for now."""

Progress = Callable[[int, int], None]
"""Is told how many events are folded, and of how many."""

EVENTS_AT_ONCE = 10_000
"""How many events are folded in one transaction: it takes some hundredths of a second."""

_EVENTS_BESIDE = 4_000
"""The same where nobody waits: what ends meanwhile stays in memory, and had better fit a cache."""

AnyFold = Fold[States]

_KNOWN_CODES = frozenset(kind.code for kind in KINDS.values())

_WAIT_MS = 250  # for the write lock; after that the rest is folded in memory
_CHANGES_MAX = 1_000
_TEMP_KIB = 4 * 1024


class _Stored(NamedTuple):
    """What the file says of a projection."""

    version: int
    position: int


class Projector:
    """The projections of one journal. Threads may share it."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._reader = reader
        self._lifecycle = LifecycleFold()
        self._folds: dict[str, AnyFold] = dict.fromkeys(LifecycleFold.names, self._lifecycle)
        if not database.read_only:
            self._make_tables()

    def register(self, projection: Projection[Any]) -> None:
        """Add an application's projection; see `Journal.register`."""
        name, version = projection.name, projection.version
        if not isinstance(name, str) or not name or type(version) is not int or version < 1:
            message = f"projection {name!r}: expected a name, and a version of 1 or more"
            raise ValueError(message)
        try:
            json_of(projection.initial)
        except ValueError as error:
            raise ValueError(f"projection {name!r}, initial: {error}") from error
        if projection.name in self._folds:
            message = f"a projection named {projection.name!r} is registered already"
            raise ValueError(message)
        self._folds[projection.name] = CustomFold(projection, self._reader)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    # Reading

    @contextmanager
    def lifecycle(self, as_of: AsOf = None) -> Iterator[tuple[apsw.Connection, LifecycleStates]]:
        """Lend all sessions and streams as of a moment."""
        with self._states(self._lifecycle, as_of) as lent:
            yield lent

    @contextmanager
    def lifecycle_of(
        self, session_id: SessionId, as_of: AsOf
    ) -> Iterator[tuple[apsw.Connection, LifecycleStates]]:
        """Lend one session and its streams as of a moment, from their own events alone."""
        with self._database.read() as connection:
            states = self._lifecycle.states(connection, None, 0)
            states.fold(_as_of(self._neighbourhood(connection, session_id), as_of))
            yield connection, states

    def owner_of(self, stream_id: StreamId, as_of: AsOf) -> SessionId | None:
        """Return the session that a stream belongs to as of a moment: that of its first event."""
        with self._database.read() as connection:
            for row in _as_of(self._reader.stream_rows(connection, stream_id), as_of):
                if row[1] not in _KNOWN_CODES:
                    continue
                ((_, uuid),) = uuids(connection, "session", [row[2]])
                return SessionId.from_bytes(uuid)
        return None

    @contextmanager
    def custom(self, name: str, as_of: AsOf = None) -> Iterator[CustomStates]:
        """Lend the states of an application's projection as of a moment."""
        fold = self._fold(name)
        if not isinstance(fold, CustomFold):
            raise UnknownProjectionError(name)
        check_as_of(as_of)
        with self._states(fold, as_of) as (_, states):
            yield states

    def statuses(self) -> list[ProjectionStatus]:
        """Return how far each projection has come, those of the file and those registered."""
        with self._database.read() as connection:
            last = last_position(connection)
            stored = self._all_stored(connection)
        found = {
            name: ProjectionStatus(
                name=name,
                version=version,
                position=position,
                lag=last - position,
                stale=self._folds[name].version != version if name in self._folds else None,
            )
            for name, (version, position) in stored.items()
        }
        for name, fold in self._folds.items():
            if name not in found:
                found[name] = ProjectionStatus(
                    name=name, version=fold.version, position=0, lag=last, stale=False
                )
        return [found[name] for name in sorted(found)]

    @contextmanager
    def _states(
        self, fold: Fold[StatesT_co], as_of: AsOf
    ) -> Iterator[tuple[apsw.Connection, StatesT_co]]:
        if as_of is None and not self._database.read_only:
            self._catch_up(fold)
        with self._database.read() as connection:
            stored = self._stored(connection, fold) if as_of is None else None
            if stored is None or stored.version != fold.version:
                states = fold.states(connection, None, 0)
            else:
                states = fold.states(connection, "main", stored.position)
            if states.position < last_position(connection):
                rows: Any = connection.execute(RANGE_SQL, (states.position, 2**63 - 1))
                states.fold(_as_of(rows, as_of))
            yield connection, states

    def _neighbourhood(
        self, connection: apsw.Connection, session_id: SessionId
    ) -> list[StoredEvent]:
        """Return the events of a session, and those of its streams that name other sessions."""
        found = {row[0]: row for row in self._reader.session_rows(connection, session_id)}
        own: dict[int, int] = {}
        for row in found.values():
            if row[3] is not None:
                own[row[3]] = own.get(row[3], 0) + 1
        for key, uuid in uuids(connection, "stream", own):
            count = connection.execute("SELECT event_count FROM stream WHERE id = ?", (key,)).get
            if count > own[key]:
                rows = self._reader.stream_rows(connection, StreamId.from_bytes(uuid))
                found.update((row[0], row) for row in rows)
        return [found[position] for position in sorted(found)]

    # Catching up

    def _catch_up(self, fold: AnyFold) -> None:
        """Fold what is new, in transactions of their own, as far as others let us write."""
        with self._database.read() as connection:
            up_to = last_position(connection)
            stored = self._stored(connection, fold)
        with suppress(BusyError):  # then whoever reads folds the rest in memory
            if stored is not None and stored.version != fold.version:
                self._rebuild(fold, wait_ms=_WAIT_MS)
            elif stored is None or stored.position < up_to:
                self._fold_live(fold, up_to)

    def _catch_up_stored(self, fold: AnyFold) -> None:
        """Catch up where there are rows of this version."""
        with self._database.read() as connection:
            stored = self._stored(connection, fold)
        if stored is not None and stored.version == fold.version:
            self._catch_up(fold)

    def _fold_live(self, fold: AnyFold, up_to: int) -> None:
        """Fold the rows of the file up to a position, in several transactions.

        Whoever comes at the same time goes on where the other has come to.
        """
        states: States | None = None
        position = -1
        while position < up_to:
            with self._database.write(_WAIT_MS) as connection:
                stored = self._stored(connection, fold)
                if stored is None:
                    stored = self._begin(connection, fold)
                if stored.version != fold.version or stored.position >= up_to:
                    return  # somebody else was faster
                if states is None or states.position != stored.position:
                    states = fold.states(connection, "main", stored.position)
                _fold_batch(connection, states, up_to)
                states.write()
                position = states.position
                self._checkpoint(connection, fold, position)

    # Rebuilding

    def rebuild(
        self, names: Iterable[str] | None, progress: Progress | None, *, check: bool
    ) -> list[RebuildReport]:
        """Fold projections anew; see `Journal.rebuild`."""
        folds = {
            id(fold): fold for fold in map(self._fold, self._folds if names is None else names)
        }
        reports, failures = [], []
        for fold in folds.values():
            try:
                with suppress(DamagedError, FoldError):  # then there is nothing to compare with
                    self._catch_up_stored(fold)
                reports.append(self._rebuild(fold, progress, replace=not check))
            except FoldError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return reports

    def _rebuild(
        self,
        fold: AnyFold,
        progress: Progress | None = None,
        *,
        replace: bool = True,
        wait_ms: int = BUSY_TIMEOUT_MS,
    ) -> RebuildReport:
        """Fold everything into temporary tables, and put their rows in place of the file's.

        Only the end of it needs the write lock, and an interrupted rebuild leaves nothing behind.
        """
        began = time.monotonic()
        with self._database.aside() as connection:
            states = self._folded_beside(connection, fold, progress)
            with self._database.write(wait_ms, through=connection):
                last = last_position(connection)
                while states.position < last:  # what was appended meanwhile
                    _fold_batch(connection, states, last)
                states.write()
                changes, count = self._compare(connection, fold, last)
                if replace:
                    if changes is None or count:
                        _replace(connection, fold)
                    self._checkpoint(connection, fold, last)
        if progress is not None:
            progress(last, last)
        return RebuildReport(
            projections=fold.names,
            event_count=last,
            seconds=time.monotonic() - began,
            change_count=count,
            changes=changes,
        )

    def _folded_beside(
        self, connection: apsw.Connection, fold: AnyFold, progress: Progress | None
    ) -> States:
        """Return the states in new temporary tables, folded nearly up to the last event."""
        # Should it fail, the tables are gone, so there is nothing to roll back.
        connection.execute(f"PRAGMA temp.journal_mode = OFF; PRAGMA temp.cache_size = -{_TEMP_KIB}")
        for table in fold.tables:
            sql: str = connection.execute(
                "SELECT sql FROM main.sqlite_schema WHERE name = ?", (table,)
            ).get
            if sql is None:
                raise DamagedError(self.path, f"is damaged: no such table: {table}")
            connection.execute(sql.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))
        states: States = fold.states(connection, "temp", 0)
        while True:
            connection.execute("BEGIN")
            last = last_position(connection)
            _fold_batch(connection, states, min(last, states.position + _EVENTS_BESIDE))
            states.make_room()
            connection.execute("COMMIT")
            if states.position == last:
                return states
            if progress is not None:
                progress(states.position, last)

    def _compare(
        self, connection: apsw.Connection, fold: AnyFold, last: int
    ) -> tuple[tuple[Change, ...] | None, int]:
        """Return the first changes from the file's rows to the temporary ones, and how many.

        None: the file has no rows of this version of the fold, or none that can be read; it is
        left as it is then.
        """
        stored = self._stored(connection, fold)
        if stored is None or stored.version != fold.version:
            return None, 0
        try:
            with connection:  # a savepoint
                old = fold.states(connection, "main", stored.position)
                while old.position < last:
                    _fold_batch(connection, old, last)
                    old.write()
                self._checkpoint(connection, fold, last)
                changes = changes_between(connection, fold)
                first = tuple(itertools.islice(changes, _CHANGES_MAX))
                count = len(first) + sum(1 for _ in changes)
        except (DamagedError, FoldError, UnicodeDecodeError):
            return None, 0
        return first, count

    # The table `projection`

    def _make_tables(self) -> None:
        with self._database.read() as connection:
            if _has_tables(connection):
                return
        sql = text_of("journal.projections", "projections.sql")
        with self._database.write() as connection:
            connection.execute(sql)

    def _all_stored(self, connection: apsw.Connection) -> dict[str, _Stored]:
        if not _has_tables(connection):
            return {}
        rows: Iterable[Any] = connection.execute("SELECT name, version, position FROM projection")
        return {
            name: _Stored(version, position)
            for name, version, position in rows
            if isinstance(version, int) and isinstance(position, int)  # else it is made anew
        }

    def _stored(self, connection: apsw.Connection, fold: AnyFold) -> _Stored | None:
        return self._all_stored(connection).get(fold.names[0])

    def _begin(self, connection: apsw.Connection, fold: AnyFold) -> _Stored:
        """Begin at the first event, with no rows."""
        _delete_rows(connection, fold)
        self._checkpoint(connection, fold, 0)
        return _Stored(fold.version, 0)

    def _checkpoint(self, connection: apsw.Connection, fold: AnyFold, position: int) -> None:
        """Write how far a projection has come; its rows have to be there by then."""
        connection.executemany(
            "INSERT OR REPLACE INTO projection (name, version, position) VALUES (?, ?, ?)",
            [(name, fold.version, position) for name in fold.names],
        )

    def _fold(self, name: str) -> AnyFold:
        try:
            return self._folds[name]
        except KeyError:
            raise UnknownProjectionError(name) from None


def _fold_batch(connection: apsw.Connection, states: States, up_to: int) -> None:
    """Fold the next events, in memory."""
    end = min(states.position + EVENTS_AT_ONCE, up_to)
    rows = connection.execute(RANGE_SQL, (states.position, end))
    try:
        states.fold(rows)
    finally:  # an error that is kept would keep the cursor, and that the transaction
        rows.close(force=True)
    states.position = end


def _replace(connection: apsw.Connection, fold: AnyFold) -> None:
    """Put the temporary rows in place of those of the file."""
    _delete_rows(connection, fold)
    for table in fold.tables:
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM temp.{table}")


def _delete_rows(connection: apsw.Connection, fold: AnyFold) -> None:
    for table in fold.tables:
        if fold.owner is None:
            connection.execute(f"DELETE FROM main.{table}")
        else:
            connection.execute(f"DELETE FROM main.{table} WHERE projection = ?", (fold.owner,))


def _has_tables(connection: apsw.Connection) -> bool:
    name = "projection_states"  # what projections.sql makes last
    found = connection.execute("SELECT 1 FROM main.sqlite_schema WHERE name = ?", (name,)).get
    return bool(found)


def check_as_of(as_of: AsOf) -> None:
    """Refuse what is no moment.

    Raises:
        ValueError: it is neither a position of 0 or more nor a datetime with a UTC offset.
    """
    if isinstance(as_of, datetime):
        Timestamp.from_datetime(as_of)
    elif as_of is not None and (type(as_of) is not int or as_of < 0):
        message = f"as_of: expected a position or an aware datetime, found {as_of!r}"
        raise ValueError(message)


def _as_of(rows: Iterable[StoredEvent], as_of: AsOf) -> Iterable[StoredEvent]:
    """Keep the rows up to a position, or those with a timestamp at or before an instant."""
    if as_of is None:
        return rows
    if isinstance(as_of, datetime):
        instant_ns = Timestamp.from_datetime(as_of).epoch_ns
        return (row for row in rows if row[4] <= instant_ns)
    return itertools.takewhile(lambda row: row[0] <= as_of, rows)
