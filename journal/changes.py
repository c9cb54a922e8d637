"""What differs between two builds of a projection, row by row and column by column."""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import apsw

from journal.folds import Fold, States
from journal.readmodels import Change

# Of the tables of the built-ins: what people call them, and whose ids their keys are.
_BUILT_IN = {
    "projection_session": ("sessions", "session"),
    "projection_stream": ("streams", "stream"),
    "projection_anomaly": ("anomalies", None),
}


def changes_between(
    connection: apsw.Connection, fold: Fold[States], old: int, new: int
) -> Iterator[Change]:
    """Yield every difference between the builds `old` and `new` of a projection."""
    for table, (key, *columns) in fold.tables.items():
        name, ids = _BUILT_IN.get(table, (fold.names[0], None))
        for old_key, new_key, *pairs in _differing(connection, table, key, columns, old, new):
            shown = old_key if new_key is None else new_key
            if ids is not None:
                uuid = connection.execute(f"SELECT uuid FROM {ids} WHERE id = ?", (shown,)).get
                shown = shown if uuid is None else UUID(bytes=uuid)
            if old_key is None or new_key is None:
                was, now = ("missing", "present") if old_key is None else ("present", "missing")
                yield Change(projection=name, key=str(shown), column=None, old=was, new=now)
                continue
            for column, was, now in zip(columns, pairs[::2], pairs[1::2], strict=True):
                if was != now:
                    yield Change(projection=name, key=str(shown), column=column, old=was, new=now)


def _differing(
    connection: apsw.Connection, table: str, key: str, columns: list[str], old: int, new: int
) -> Iterable[Any]:
    """Return both keys and then, column by column, both values of the rows that differ."""
    wanted = ", ".join(f"o.{name}, n.{name}" for name in [key, *columns])
    differ = " OR ".join(f"o.{name} IS NOT n.{name}" for name in columns)
    return connection.execute(
        f"SELECT {wanted} FROM {table} AS o"
        f" LEFT JOIN {table} AS n ON n.build = ?2 AND n.{key} = o.{key}"
        f" WHERE o.build = ?1 AND (n.{key} IS NULL OR {differ})"
        f" UNION ALL SELECT {wanted} FROM {table} AS n"
        f" LEFT JOIN {table} AS o ON o.build = ?1 AND o.{key} = n.{key}"
        f" WHERE n.build = ?2 AND o.{key} IS NULL",
        (old, new),
    )
