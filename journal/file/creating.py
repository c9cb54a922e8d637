"""Making a new journal in an empty file, and teaching an old one the kinds that came later."""

import time
from uuid import uuid4

import apsw
from pydantic_core import to_json

from journal._version import VERSION
from journal.events.kinds import KINDS
from journal.events.timestamps import text_from_epoch_ns
from journal.file.header import SETTINGS
from journal.file.identity import APPLICATION_ID, FORMAT_VERSION, is_blank, set_meta
from journal.file.names import kinds_of
from journal.file.objects import ADDED_INDEXES, ADDED_TABLES
from journal.file.origins import has_origins
from journal.file.schema import events_view_sql, index_sql, schema_sql, table_sql
from journal.file.wal import mark_wal


def create_journal(connection: apsw.Connection) -> None:
    """Write the schema, in one transaction, unless another process does so first."""
    connection.execute(SETTINGS)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if is_blank(connection):
            connection.execute(schema_sql())
            _add_kinds(connection, list(KINDS))
            set_meta(connection, "journal_id", str(uuid4()))
            set_meta(connection, "created_at", text_from_epoch_ns(time.time_ns()))
            set_meta(connection, "library_version", VERSION)
            set_meta(connection, "min_reader_version", str(FORMAT_VERSION))
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", FORMAT_VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def add_missing_kinds(connection: apsw.Connection) -> None:
    """Add the kinds that this version knows and the file lacks, and show them in its view.

    What a projection made of events that had been kept whole is stale then: it passed over them.

    Raises:
        DamagedError: the file has other fields for a kind than this version.
    """
    if not _missing(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        missing = _missing(connection)
        was_kept_whole = any(kind.name in missing for kind in kinds_of(connection).values())
        _add_kinds(connection, missing)
        connection.execute("DROP VIEW IF EXISTS events")
        connection.execute(events_view_sql(has_origins=has_origins(connection)))
        mark_wal(connection)
        if was_kept_whole:
            connection.execute("UPDATE checkpoint SET version = 0 WHERE type = 'projection'")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def add_missing_tables(connection: apsw.Connection) -> None:
    """Make the tables and indexes that an earlier version of this format did not have."""
    added = {**dict.fromkeys(ADDED_TABLES, table_sql), **dict.fromkeys(ADDED_INDEXES, index_sql)}
    for name, statement_of in added.items():
        sql = "SELECT count(*) FROM main.sqlite_schema WHERE name = ?"
        if not connection.execute(sql, (name,)).get:
            words = statement_of(name).split(maxsplit=2)
            connection.execute(f"{words[0]} {words[1]} IF NOT EXISTS {words[2]}")


def _missing(connection: apsw.Connection) -> list[str]:
    here = {kind.name for kind in kinds_of(connection).values() if kind.is_folded}
    return [name for name in KINDS if name not in here]


def _add_kinds(connection: apsw.Connection, names: list[str]) -> None:
    connection.executemany(
        "INSERT INTO kind (name, fields) VALUES (?, ?)",
        [(name, to_json(KINDS[name].field_names).decode()) for name in names],
    )
