"""Keeping projections up to date: catching up, rebuilding beside, and folding as of a moment."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from journal.appending import last_position
from journal.changes import changes_between
from journal.database import Database
from journal.decoding import StoredEvent
from journal.errors import (
    BusyError,
    DamagedError,
    FoldError,
    JournalError,
    RebuildInterruptedError,
    UnknownProjectionError,
)
from journal.folds import (
    NO_BUILD,
    CustomFold,
    CustomStates,
    Fold,
    LifecycleFold,
    LifecycleStates,
    States,
    StatesT_co,
    json_of,
)
from journal.ids import SessionId, StreamId
from journal.kinds import KINDS
from journal.opening import BUSY_TIMEOUT_MS
from journal.reading import PAGE_SQL, Reader, uuids
from journal.readmodels import Change, Projection, ProjectionStatus, RebuildReport
from journal.timestamps import Timestamp

AsOf = int | datetime | None
"""A position, an instant, or None for now."""

Progress = Callable[[int, int], None]
"""Is told how many events are folded, and of how many."""

EVENTS_AT_ONCE = 10_000
"""How many events are folded in one transaction: it takes some hundredths of a second."""

AnyFold = Fold[States]

_KNOWN_CODES = frozenset(kind.code for kind in KINDS.values())

_WAIT_MS = 250  # for the write lock; after that the rest is folded in memory
_CHANGES_MAX = 1_000
_DELETED_AT_ONCE = 10_000


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
            states = self._lifecycle.states(connection, NO_BUILD, 0)
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
            stored = self._stored(connection)
        found = {
            name: ProjectionStatus(
                name=name,
                version=version,
                position=position,
                lag=last - position,
                stale=self._folds[name].version != version if name in self._folds else None,
            )
            for name, _build, version, position in stored
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
            build, position = NO_BUILD, 0
            if as_of is None:
                build, position = self._live(connection, fold)
            states = fold.states(connection, build, position)
            if position < last_position(connection):
                rows: Any = connection.execute(PAGE_SQL, (position, 2**63 - 1, -1))
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
            build, position = self._live(connection, fold)
            is_stale = self._is_stale(connection, fold)
        if build != NO_BUILD and position >= up_to:
            return
        try:
            if is_stale:
                self._rebuild(fold, resume=True, wait_ms=_WAIT_MS)
            else:
                self._fold_live(fold, up_to)
        except (BusyError, RebuildInterruptedError):
            pass  # whoever reads folds the rest in memory

    def _fold_live(self, fold: AnyFold, up_to: int) -> None:
        states: States | None = None
        position = -1
        while position < up_to:
            with self._database.write(_WAIT_MS) as connection:
                build, position = self._live(connection, fold)
                if build == NO_BUILD:
                    if self._is_stale(connection, fold):  # a program of another version was faster
                        return
                    build = self._add_build(connection, fold, live=True)
                if states is None or states.position != position:
                    states = fold.states(connection, build, position)
                position = self._fold_batch(connection, states, build, up_to)

    def _fold_batch(
        self, connection: apsw.Connection, states: States, build: int, up_to: int
    ) -> int:
        """Fold the next events, write what changed, and return the new position."""
        end = min(states.position + EVENTS_AT_ONCE, up_to)
        if end > states.position:
            rows = connection.execute(PAGE_SQL, (states.position, end, -1))
            try:
                states.fold(rows)
            finally:  # an error that is kept would keep the cursor, and that the transaction
                rows.close(force=True)
            states.write()
            states.position = end
            connection.execute("UPDATE projection SET position = ? WHERE build = ?", (end, build))
        return end

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
                report = self._rebuild(fold, progress, replace=not check)
                reports += [] if report is None else [report]
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
        resume: bool = False,
        wait_ms: int = BUSY_TIMEOUT_MS,
    ) -> RebuildReport | None:
        began = time.monotonic()
        with self._database.read() as connection:
            has_old = self._live(connection, fold)[0] != NO_BUILD
        if has_old:
            with suppress(DamagedError, FoldError):  # then there is nothing to compare with
                self._catch_up(fold)
        with self._database.write(wait_ms) as connection:
            if resume and self._live(connection, fold)[0] != NO_BUILD:
                return None  # somebody else was faster
            build = self._begun_build(connection, fold) if resume else None
            build = build or self._add_build(connection, fold, live=False)
        try:
            changes = self._fold_beside(fold, build, progress, replace=replace, wait_ms=wait_ms)
        except BaseException as error:
            if not (resume and isinstance(error, BusyError)):  # the next reader goes on with it
                with suppress(JournalError):
                    self._drop_build(build, wait_ms)
            raise
        self._sweep(wait_ms)
        return RebuildReport(
            projections=fold.names,
            event_count=self._reader.last_position(),
            seconds=time.monotonic() - began,
            change_count=len(changes or ()),
            changes=None if changes is None else tuple(changes[:_CHANGES_MAX]),
        )

    def _fold_beside(
        self,
        fold: AnyFold,
        build: int,
        progress: Progress | None,
        *,
        replace: bool,
        wait_ms: int,
    ) -> list[Change] | None:
        """Fold everything into a build beside the live one, compare the two, and swap them.

        Another process that finds the stored projection stale may work on the same build.
        """
        states: States | None = None
        while True:
            with self._database.write(wait_ms) as connection:
                row: Any = connection.execute(
                    "SELECT position, live FROM projection WHERE build = ? AND name = ?",
                    (build, fold.names[0]),
                ).fetchone()
                if row is None:
                    raise RebuildInterruptedError(fold.names[0])
                position, live = row
                if live:
                    return None
                if states is None or states.position != position:
                    states = fold.states(connection, build, position)
                last = last_position(connection)
                position = self._fold_batch(connection, states, build, last)
                if position == last:
                    changes = self._finish(connection, fold, build, last, replace=replace)
            if progress is not None:
                progress(position, last)
            if position == last:
                return changes

    def _finish(
        self, connection: apsw.Connection, fold: AnyFold, build: int, last: int, *, replace: bool
    ) -> list[Change] | None:
        changes = None
        live, position = self._live(connection, fold)
        if live != NO_BUILD:
            with suppress(DamagedError, FoldError):
                old = fold.states(connection, live, position)
                while self._fold_batch(connection, old, live, last) < last:
                    pass
                changes = list(changes_between(connection, fold, live, build))
        if replace:
            for name in fold.names:
                connection.execute("DELETE FROM projection WHERE name = ? AND live", (name,))
            connection.execute("UPDATE projection SET live = 1 WHERE build = ?", (build,))
        else:
            connection.execute("DELETE FROM projection WHERE build = ?", (build,))
        return changes

    def _begun_build(self, connection: apsw.Connection, fold: AnyFold) -> int | None:
        """Return the build of this fold that somebody began and has not finished."""
        build: int | None = connection.execute(
            "SELECT build FROM projection WHERE name = ? AND version = ? AND NOT live",
            (fold.names[0], fold.version),
        ).get
        return build

    def _add_build(self, connection: apsw.Connection, fold: AnyFold, *, live: bool) -> int:
        """Add a build without rows; a rebuild of the same projections that was under way ends."""
        connection.execute("INSERT INTO projection_build DEFAULT VALUES")
        build = connection.last_insert_rowid()
        connection.execute("DELETE FROM projection_build WHERE build < ?", (build,))
        for name in fold.names:
            connection.execute("DELETE FROM projection WHERE name = ? AND NOT live", (name,))
            connection.execute(
                "INSERT INTO projection (name, build, version, position, live)"
                " VALUES (?, ?, ?, 0, ?)",
                (name, build, fold.version, live),
            )
        return build

    def _drop_build(self, build: int, wait_ms: int) -> None:
        with self._database.write(wait_ms) as connection:
            connection.execute("DELETE FROM projection WHERE build = ? AND NOT live", (build,))
        self._sweep(wait_ms)

    def _sweep(self, wait_ms: int) -> None:
        """Delete the rows of builds that are no more, a few at a time; what is left can wait."""
        with suppress(BusyError):
            for table, (key, *_) in (LifecycleFold.tables | CustomFold.tables).items():
                for build in self._dead_builds(table):
                    while self._delete_some(table, key, build, wait_ms):
                        pass

    def _delete_some(self, table: str, key: str, build: int, wait_ms: int) -> int:
        with self._database.write(wait_ms) as connection:
            connection.execute(
                f"DELETE FROM {table} WHERE build = ?1 AND {key} IN"
                f" (SELECT {key} FROM {table} WHERE build = ?1 LIMIT ?2)",
                (build, _DELETED_AT_ONCE),
            )
            return connection.changes()

    def _dead_builds(self, table: str) -> list[int]:
        with self._database.read() as connection:
            kept = {build for (build,) in connection.execute("SELECT build FROM projection")}
            dead: list[int] = []
            build = 0
            while True:
                build = connection.execute(
                    f"SELECT min(build) FROM {table} WHERE build > ?", (build,)
                ).get
                if build is None:
                    return dead
                if build not in kept:
                    dead.append(build)

    # The table `projection`

    def _make_tables(self) -> None:
        with self._database.read() as connection:
            if self._stored_schema(connection):
                return
        sql = resources.files("journal").joinpath("projections.sql").read_text("utf-8")
        with self._database.write() as connection:
            connection.execute(sql)

    def _stored_schema(self, connection: apsw.Connection) -> bool:
        name = "projection_states"  # what projections.sql makes last
        return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).get)

    def _stored(self, connection: apsw.Connection) -> list[Any]:
        if not self._stored_schema(connection):
            return []
        return connection.execute(
            "SELECT name, build, version, position FROM projection WHERE live"
        ).fetchall()

    def _live(self, connection: apsw.Connection, fold: AnyFold) -> tuple[int, int]:
        """Return build and position of the live build; NO_BUILD if there is none of this fold."""
        for name, build, version, position in self._stored(connection):
            if name == fold.names[0] and version == fold.version:
                return build, position
        return NO_BUILD, 0

    def _is_stale(self, connection: apsw.Connection, fold: AnyFold) -> bool:
        """Tell whether there is a live build of these projections, of another version."""
        return any(
            name == fold.names[0] and version != fold.version
            for name, _build, version, _position in self._stored(connection)
        )

    def _fold(self, name: str) -> AnyFold:
        try:
            return self._folds[name]
        except KeyError:
            raise UnknownProjectionError(name) from None


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
