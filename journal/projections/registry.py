"""The projections of one journal: the built-in ones and those that an application registered."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import apsw

from journal import limits
from journal.errors import DamagedError, FoldError, UnknownProjectionError
from journal.events.ids import SessionId, StreamId
from journal.file.checkpoints import check_is_no_subscription, read_checkpoints
from journal.file.connections import Database
from journal.file.extent import end_of_fold, last_position, read_extent
from journal.file.names import folded_codes, kinds_of, session_key, uuids
from journal.file.passed_over import mark_of_rows, shown_version
from journal.file.reading import Reader
from journal.file.selecting import Wanted
from journal.projections.as_of import AsOf, check_as_of, check_not_pruned, up_to
from journal.projections.catching_up import (
    catch_up,
    catch_up_stored,
    catch_up_where_quick,
    prepare_tables,
)
from journal.projections.checkpoints import beginning_of, is_stale, stored_checkpoint
from journal.projections.lifecycle_states import LifecycleFold, LifecycleStates
from journal.projections.neighbourhood import Neighbourhood, all_rows, neighbourhood
from journal.projections.own_states import OwnFold, OwnStates, json_of
from journal.projections.rebuilding import Progress, folded_beside, rebuild_one
from journal.projections.results import Projection, ProjectionStatus, RebuildReport
from journal.projections.tables import AnyFold, Fold, StatesT_co, fold_next, have_our_shape


class Projections:
    """The projections of one journal. Threads may share it."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self.progress: Progress | None = None
        """Is told how far it has come while a read folds much."""
        self._database = database
        self._reader = reader
        self._lifecycle = LifecycleFold()
        self._folds: dict[str, AnyFold] = dict.fromkeys(LifecycleFold.names, self._lifecycle)
        if not database.read_only:
            prepare_tables(database)

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
        with self._database.read() as connection:
            check_is_no_subscription(connection, name)
        self._folds[projection.name] = OwnFold(projection, self._reader)

    @property
    def built_in(self) -> LifecycleFold:
        """The built-in projections."""
        return self._lifecycle

    def own_folds(self) -> list[OwnFold]:
        """Return the application's projections."""
        return [fold for fold in self._folds.values() if isinstance(fold, OwnFold)]

    def catch_up_where_quick(self) -> None:
        """Catch the built-in projections up, if little is missing: plain SQL finds them then.

        Raises:
            JournalError: those of `Database.write`; whoever reads them next makes up for it.
        """
        catch_up_where_quick(self._database, self._lifecycle)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def version(self, session_id: SessionId) -> int:
        """Return how many events a session ever had."""
        return self._reader.version(session_id)

    @contextmanager
    def lifecycle(
        self, as_of: AsOf = None, *, for_pages: bool = False
    ) -> Iterator[tuple[apsw.Connection, LifecycleStates]]:
        """Lend all sessions and streams as of a moment.

        Args:
            as_of: the moment.
            for_pages: states that are folded beside are lent for long, and used inside
                `Database.inside`, a page at a time.
        """
        with self._states(self._lifecycle, as_of, for_pages=for_pages) as lent:
            yield lent

    @contextmanager
    def lifecycle_of(
        self, session_id: SessionId, as_of: AsOf, *, for_pages: bool = False
    ) -> Iterator[tuple[apsw.Connection, LifecycleStates]]:
        """Lend one session and its streams as of a moment, from their own events alone.

        They are folded in memory, or beside if they are many; see `lifecycle` for the arguments.
        """
        with self._database.read() as connection:
            extent = read_extent(connection)
            check_not_pruned(self.path, extent, as_of)
            rows = all_rows(connection, self._reader, session_id)
            if rows is not None:
                begun = beginning_of(connection, self._lifecycle, extent)
                states = self._lifecycle.states(connection, begun.schema, begun.position)
                states.fold(up_to(rows, as_of))
                yield connection, states
                return
            near = neighbourhood(connection, session_key(connection, session_id) or 0)
        with self._beside(self._lifecycle, as_of, near, for_pages=for_pages) as lent:
            yield lent

    def owner_of(self, stream_id: StreamId, as_of: AsOf) -> SessionId | None:
        """Return the session that a stream belongs to as of a moment: that of its first event."""
        with self._database.read() as connection:
            check_not_pruned(self.path, read_extent(connection), as_of)
            key: Any = connection.execute(
                "SELECT b.session FROM base_stream AS b JOIN stream AS t ON t.id = b.stream"
                " WHERE t.uuid = ? AND b.state IS NOT NULL",
                (stream_id.bytes,),
            ).get
            folded = folded_codes(kinds_of(connection))
        if key is None:
            rows = up_to(self._reader.rows(Wanted(stream_id=stream_id)), as_of)
            key = next((row[2] for row in rows if row[1] in folded), None)
        with self._database.read() as connection:
            for _, uuid in uuids(connection, "session", [key]):
                return SessionId.from_bytes(uuid)
        return None

    @contextmanager
    def own(self, name: str, as_of: AsOf = None) -> Iterator[OwnStates]:
        """Lend the states of an application's projection as of a moment."""
        fold = self._fold(name)
        if not isinstance(fold, OwnFold):
            raise UnknownProjectionError(name)
        check_as_of(as_of)
        with self._states(fold, as_of) as (_, states):
            yield states

    def statuses(self) -> list[ProjectionStatus]:
        """Return how far each projection has come, those of the file and those registered."""
        with self._database.read() as connection:
            last, mark = last_position(connection), mark_of_rows(connection)
            stored = {}
            if self._has_tables(connection):
                stored = read_checkpoints(connection, "projection", last)
        is_of_other = {
            name: stored[name].version != fold.version - mark
            for name, fold in self._folds.items()
            if name in stored
        }
        found = {
            name: ProjectionStatus(
                name=name,
                version=shown_version(at.version),
                position=at.position,
                since=at.since,
                lag=last - at.position,
                stale=is_of_other.get(name),
            )
            for name, at in stored.items()
        }
        for name, fold in self._folds.items():
            if name not in found:
                found[name] = ProjectionStatus(
                    name=name, version=fold.version, position=0, since=1, lag=last, stale=False
                )
        return [found[name] for name in sorted(found)]

    def rebuild(
        self, names: Iterable[str] | None, progress: Progress | None, *, check: bool
    ) -> list[RebuildReport]:
        """Fold projections anew; see `Journal.rebuild`."""
        folds = {
            id(fold): fold for fold in map(self._fold, self._folds if names is None else names)
        }
        if not self._database.read_only:
            prepare_tables(self._database)
        reports, failures = [], []
        for fold in folds.values():
            try:
                with suppress(DamagedError, FoldError):  # then there is nothing to compare with
                    catch_up_stored(self._database, fold)
                reports.append(rebuild_one(self._database, fold, progress, replace=not check))
            except FoldError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return reports

    @contextmanager
    def _states(
        self, fold: Fold[StatesT_co], as_of: AsOf, *, for_pages: bool = False
    ) -> Iterator[tuple[apsw.Connection, StatesT_co]]:
        if as_of is None and not self._database.read_only:
            catch_up(self._database, fold, self.progress)
        with self._database.read() as connection:
            extent = read_extent(connection)
            check_not_pruned(self.path, extent, as_of)
            stored = None
            if as_of is None and self._has_tables(connection):
                stored = stored_checkpoint(connection, fold, extent.last)
            if stored is None or is_stale(stored, fold, extent):
                begun = beginning_of(connection, fold, extent)
                states = fold.states(connection, begun.schema, begun.position)
            else:
                states = fold.states(connection, "main", stored.position)
            last = min(as_of, extent.last) if isinstance(as_of, int) else extent.last
            if states.position < last and _can_be_held(connection, states.position, last):
                fold_next(connection, states, extent, last, as_of)
            if states.position >= last:
                yield connection, states
                return
        with self._beside(fold, as_of, for_pages=for_pages) as lent:
            yield lent

    @contextmanager
    def _beside(
        self,
        fold: Fold[StatesT_co],
        as_of: AsOf,
        near: Neighbourhood | None = None,
        *,
        for_pages: bool,
    ) -> Iterator[tuple[apsw.Connection, StatesT_co]]:
        inside = nullcontext() if for_pages else self._database.inside()
        with folded_beside(self._database, fold, as_of, self.progress, near) as lent, inside:
            yield lent

    def _has_tables(self, connection: apsw.Connection) -> bool:
        """Tell whether rows can be read: whoever may not make the tables may find none."""
        return not self._database.read_only or have_our_shape(connection)

    def _fold(self, name: str) -> AnyFold:
        try:
            return self._folds[name]
        except KeyError:
            raise UnknownProjectionError(name) from None


def _can_be_held(connection: apsw.Connection, after: int, up_to: int) -> bool:
    """Tell whether the events in a range, first exclusive, are few and small enough for memory."""
    is_few = up_to - after <= limits.FOLD_EVENTS_MAX
    return is_few and end_of_fold(connection, after, up_to) == up_to
