"""What a rebuild finds to differ from the rows of the file, row by row and column by column."""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import apsw

from journal.projections.results import Change
from journal.projections.tables import Fold, States

# Of the tables of the built-ins: what people call them, and whose ids their keys are.
_BUILT_IN = {
    "projection_session": ("sessions", "session"),
    "projection_stream": ("streams", "stream"),
    "projection_anomaly": ("anomalies", None),
}


def changes_between(connection: apsw.Connection, fold: Fold[States]) -> Iterator[Change]:
    """Yield every difference between a projection's rows in the file and in the temporary tables.

    The former are `old`, the latter `new`.
    """
    for table, (key, *columns) in fold.tables.items():
        name, ids = _BUILT_IN.get(table, (fold.names[0], None))
        for old_key, new_key, *pairs in _differing(connection, table, key, columns, fold.owner):
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
    connection: apsw.Connection, table: str, key: str, columns: list[str], owner: str | None
) -> Iterable[Any]:
    """Return both keys and then, column by column, both values of the rows that differ."""
    wanted = ", ".join(f"o.{name}, n.{name}" for name in [key, *columns])
    differ = " OR ".join(f"o.{name} IS NOT n.{name}" for name in columns)
    owned = "true" if owner is None else "o.projection = ?1"
    return connection.execute(
        f"SELECT {wanted} FROM temp.{table} AS n"
        f" LEFT JOIN main.{table} AS o ON {owned} AND o.{key} = n.{key}"
        f" WHERE o.{key} IS NULL OR {differ}"
        f" UNION ALL SELECT {wanted} FROM main.{table} AS o"
        f" LEFT JOIN temp.{table} AS n ON n.{key} = o.{key}"
        f" WHERE {owned} AND n.{key} IS NULL",
        () if owner is None else (owner,),
    )
