"""The schema of a file, as SQL: schema.sql, and in it what is made from the table of kinds."""

import re
from collections.abc import Sequence

from journal._resources import text_of
from journal.events.fields import Field
from journal.events.kinds import KINDS

EVENTS_VIEW = "CREATE VIEW events AS"

# What stands in schema.sql where the kinds go.
_KINDS_BEGIN = "        -- one line for each kind"
_KINDS_END = "        ELSE e.data"

# What a file with events of other journals shows of each, its own among them.
_ORIGIN_COLUMNS = {
    "origin_label": "CASE WHEN o.first_seq IS NULL"
    " THEN (SELECT value FROM meta WHERE key = 'label') ELSE o.label END",
    "origin_journal_id": "CASE WHEN o.first_seq IS NULL"
    " THEN (SELECT value FROM meta WHERE key = 'journal_id') ELSE o.journal_id END",
    "origin_branch": "ifnull(o.branch, '')",
    "origin_position": "ifnull(e.seq - o.first_seq + o.source_first_seq, e.seq)",
}
_ORIGIN_JOIN = """    LEFT JOIN origin AS o ON o.last_seq >= e.seq
        AND o.first_seq = (SELECT max(r.first_seq) FROM origin AS r WHERE r.first_seq <= e.seq)
"""

_ID_TEXT = r"lower\(substr\(hex\([st]\.uuid\), 1, 8\)[^;]*?, 21\)\)"


def schema_sql() -> str:
    """Return the statements that make the tables, triggers and views of a new file."""
    text = text_of("journal.file", "schema.sql")
    before, rest = text.split(_KINDS_BEGIN)
    return before + _kinds_sql() + _KINDS_END + rest.split(_KINDS_END, 1)[1]


def trigger_sql(name: str) -> str:
    """Return the statement that makes a trigger."""
    begin, end = f"CREATE TRIGGER {name} ", "END;"
    return begin + schema_sql().split(begin, 1)[1].split(end, 1)[0] + end


def events_view_sql(*, has_origins: bool = False) -> str:
    """Return the statement that makes the view `events`, with every kind that is known.

    With `has_origins`, it shows where each event was appended first.
    """
    sql = EVENTS_VIEW + schema_sql().split(EVENTS_VIEW, 1)[1]
    if not has_origins:
        return sql
    columns, tables = sql.rstrip().removesuffix(";").split("\nFROM event AS e\n")
    shown = "".join(f",\n    {text} AS {name}" for name, text in _ORIGIN_COLUMNS.items())
    return f"{columns}{shown}\nFROM event AS e\n{tables}\n{_ORIGIN_JOIN}"


def flat_events_view_sql(*, has_origins: bool = False) -> str:
    """Return the statement for the same view in a file that has indexes on the texts of ids.

    That of a stream is a column of what is joined from the left: only so does SQLite begin with its
    index where a query asks for it.
    """
    columns, tables = events_view_sql(has_origins=has_origins).split("FROM event AS e\n")
    written = rf"CASE WHEN e.stream IS NOT NULL THEN\s+{_ID_TEXT} END AS stream_id"
    joined = f"(SELECT id, {id_text_sql()} AS stream_id FROM stream) AS t"
    tables = tables.replace("LEFT JOIN stream AS t", f"LEFT JOIN {joined}")
    columns = re.sub(written, "t.stream_id AS stream_id", columns)
    return f"{columns}FROM event AS e\n{tables}"


def id_text_sql() -> str:
    """Return the expression by which the views show the id in a column `uuid`."""
    text = re.findall(_ID_TEXT, schema_sql())[0]
    return " ".join(text.replace("s.uuid", "uuid").split())


def table_sql(name: str) -> str:
    """Return the statement that makes a table."""
    begin = f"CREATE TABLE {name} ("
    return begin + schema_sql().split(begin, 1)[1].split(";\n", 1)[0]


def index_sql(name: str) -> str:
    """Return the statement that makes an index."""
    begin = f"CREATE INDEX {name} ON "
    return begin + schema_sql().split(begin, 1)[1].split(";\n", 1)[0]


def _kinds_sql() -> str:
    return "".join(
        f"        WHEN k.name = '{kind.name}' THEN\n"
        f"            {object_sql('e.data', kind.fields)}\n"
        for kind in KINDS.values()
        if kind.fields
    )


def object_sql(data: str, fields: Sequence[Field], *, inside: tuple[str, ...] = ()) -> str:
    """Return the expression of the JSON object that has these fields, whose values are in `data`.

    Of an object nested in it, where `inside` names one.
    `->` keeps every digit of an integer; `json_extract` makes a float of a large one.
    """
    places = {field.path: place for place, field in enumerate(fields)}
    return _object_sql(data, places, inside)


def _object_sql(data: str, places: dict[tuple[str, ...], int], above: tuple[str, ...]) -> str:
    depth = len(above)
    names = dict.fromkeys(path[depth] for path in places if path[:depth] == above)
    members = []
    for name in names:
        path = (*above, name)
        value = (
            f"{data} -> '$[{places[path]}]'" if path in places else _object_sql(data, places, path)
        )
        members.append(f"'{name}', {value}")
    return f"json_object({', '.join(members)})"
