"""The versions of a block that there can be, where some of its events or names are in doubt."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from journal.file.blocks import BlockRow, Content

Ids = dict[int, list[bytes]]
"""The ids that a number may stand for, most likely only one."""

StoredRow = tuple[int, int, int, int | None, int, str | None]
"""seq, kind, session, stream, timestamp, data."""


class Picked(NamedTuple):
    """One version of a block: its events, and what the numbers in them stand for."""

    rows: list[StoredRow]
    kinds: dict[int, str]
    sessions: dict[int, bytes]
    streams: dict[int, bytes]
    doubtful: dict[str, dict[int, Any]]
    """What was picked where there was more than one, by what it is: kinds, sessions, streams."""


def picks(
    rows: Mapping[int, list[StoredRow]],
    kinds: Mapping[int, list[str]],
    sessions: Ids,
    streams: Ids,
) -> Iterator[Picked]:
    """Yield the versions of a block that there can be, the first of everything first.

    Args:
        rows: the versions that there are of each event, by its position.
        kinds: the names that codes may stand for.
        sessions: the ids that numbers may stand for.
        streams: likewise.
    """
    known: dict[str, Mapping[int, Any]] = {
        "rows": rows,
        "kinds": kinds,
        "sessions": sessions,
        "streams": streams,
    }
    first = {what: {key: some[0] for key, some in of.items()} for what, of in known.items()}
    in_doubt = [
        [(what, key, value) for value in some]
        for what, of in known.items()
        for key, some in of.items()
        if len(some) > 1
    ]
    for pick in product(*in_doubt):
        picked: dict[str, dict[int, Any]] = {what: {} for what in known}
        for what, key, value in pick:
            picked[what][key] = value
        whole: dict[str, Any] = {what: first[what] | picked[what] for what in known}
        events = list(whole["rows"].values())
        yield Picked(events, whole["kinds"], whole["sessions"], whole["streams"], picked)


def content_of(picked: Picked, salt: str | None) -> str | None:
    """Return the digest of the content of a block of these events; None where it has none."""
    _, kinds, sessions, streams, _ = picked
    rows: list[BlockRow] = [
        (
            seq,
            kinds[kind],
            sessions[session].hex(),
            None if stream is None else streams[stream].hex(),
            timestamp_ns,
            data,
        )
        for seq, kind, session, stream, timestamp_ns, data in picked.rows
    ]
    content = Content(salt or "")
    try:
        content.add(rows)
    except ValueError:
        return None
    return content.digest()
