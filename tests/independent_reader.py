"""A reader of closed journal files, written from FORMAT.md alone, in plain Python."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

TEXT = """
SELECT json_group_array(json_array(position, event_type, session_id, stream_id, timestamp, data))
FROM (
    SELECT e.seq AS position, k.name AS event_type, lower(hex(s.uuid)) AS session_id,
        CASE WHEN e.stream IS NOT NULL THEN lower(hex(t.uuid)) END AS stream_id,
        e.timestamp AS timestamp, e.data AS data
    FROM event AS e CROSS JOIN kind AS k ON k.code = e.kind
        CROSS JOIN session AS s ON s.id = e.session LEFT JOIN stream AS t ON t.id = e.stream
    WHERE e.seq BETWEEN ? AND ? ORDER BY e.seq)
"""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> list[dict]:
    """Return the events of a file; AssertionError where the file is not what it should be."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as file:
        return events_of(file)


def events_of(file: sqlite3.Connection) -> list[dict]:
    assert file.execute("PRAGMA application_id").fetchone() == (0x504A534A,)
    assert file.execute("PRAGMA user_version").fetchone() == (1,)
    absent = file.execute("SELECT first_seq, last_seq, digest_after FROM absent").fetchall()
    rows = {row[0]: row for row in file.execute("SELECT * FROM event ORDER BY seq")}
    gone = {seq for first, last, _ in absent for seq in range(first, last + 1)}
    last = max([0, *rows, *gone])
    assert rows.keys() == set(range(1, last + 1)) - gone

    for key, table in ((2, "session"), (3, "stream")):
        before = dict(file.execute(f"SELECT {table}, events_before FROM base_{table}"))
        for number, _, head, count in file.execute(f"SELECT * FROM {table}"):
            assert 1 <= count <= head <= last
            length, seq = 0, head
            while seq in rows:
                assert rows[seq][key] == number
                length += 1
                previous = rows[seq][key + 4]
                assert previous is None or previous < seq
                seq = previous
            assert length == count - before.get(number, 0)

    digests = {0: "0" * 64} | {end: digest for _, end, digest in absent}
    covered = []
    blocks = "SELECT first_seq, last_seq, salt, content_digest, digest FROM block ORDER BY 1"
    for first, end, salt, content, digest in file.execute(blocks).fetchall():
        assert content == sha256(salt + file.execute(TEXT, (first, end)).fetchone()[0])
        assert digest == sha256(digests[first - 1] + content)
        digests[end] = digest
        covered += range(first, end + 1)
    assert covered == list(rows)  # of a file that was closed in good order

    kinds = {code: (name, fields) for code, name, fields in file.execute("SELECT * FROM kind")}
    events = []
    for seq, code, *_ in rows.values():
        name, fields = kinds[code]
        data = values = rows[seq][5]
        if fields is not None:
            values = dict(zip(json.loads(fields), json.loads(data or "[]"), strict=True))
        events.append({"position": seq, "kind": name, "ns": rows[seq][4], "values": values})
    return events
