"""Telling sessions from streams in a damaged file: their rows look alike, and so do their ids.

What a page is of, the schema says, where it can be read, and the events that its rows lead to.
Where each session has one stream, and both have the same numbers, events do not tell. Then the
pages that belong together are taken for one of the two, and then for the other: a digest proves
which it is.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import apsw

from journal import limits
from journal.maintenance import salvage_sql as sql
from journal.maintenance.histories import Block

_BLOCKS_MAX: Final = 200
"""How many blocks are tried at most for each of the two."""

Proves = Callable[[Block], bool]
"""Whether the digest of a block proves its events, by the names that there are."""


def find_names(scratch: apsw.Connection, proves: Proves) -> None:
    """Find out which heads and ids are of sessions, and which of streams, into the table `name`.

    Args:
        scratch: has the tables of `gathering` and `salvage_sql`.
        proves: tells whether a block proves, and if so, may keep that.
    """
    _vote(scratch, sql.HAS_ITS_LAST_SQL, "head", is_clear=True)
    _agree(scratch)
    _try_undecided(scratch, proves)
    _vote(scratch, sql.HAS_ITS_LAST_SQL, "head", is_clear=False)
    _agree(scratch)
    scratch.execute(sql.EITHER_SQL)


def _agree(scratch: apsw.Connection) -> None:
    for found in 2 * ("id", "head"):
        _vote(scratch, sql.AGREES_SQL, found, is_clear=False)


def _vote(scratch: apsw.Connection, votes: str, found: str, *, is_clear: bool) -> None:
    """Let the rows of each page vote for what it is of, and take in the names of those decided.

    Where it is to be clear, the loser has less than two thirds: of two that are nearly alike, a
    damaged event may have decided.
    """
    both = {f"{owner}s": votes.format(owner=owner) for owner in ("session", "stream")}
    share = 1.5 if is_clear else 1.0
    scratch.execute(sql.OWNER_SQL.format(found=found, **both), {"share": share})
    scratch.execute(
        f"INSERT OR IGNORE INTO name SELECT owner, id, uuid FROM raw_{found}"
        f" JOIN {found}_owner USING (page) WHERE owner IS NOT NULL"
    )


def _try_undecided(scratch: apsw.Connection, proves: Proves) -> None:
    """Try for each table that nothing tells of, with those that contradict it, which one it is."""
    scratch.execute(sql.UNDECIDED_SQL)
    edges: Any = scratch.execute(sql.TOGETHER_SQL)
    scratch.executemany(
        "UPDATE undecided SET part = ? WHERE page = ?",
        [(part, page) for page, part in _parts(edges).items()],
    )
    parts: Any = scratch.execute(
        "SELECT part FROM undecided GROUP BY part ORDER BY count(*) DESC"
    ).fetchall()
    for (part,) in parts:
        is_open = scratch.execute("SELECT 1 FROM undecided WHERE part = ?", (part,)).get
        if is_open:
            _try_part(scratch, part, proves)


def _try_part(scratch: apsw.Connection, part: int, proves: Proves) -> None:
    values = {"part": part, "size": limits.BLOCK_EVENTS_MAX, "most": _BLOCKS_MAX}
    rows: Any = scratch.execute(sql.BLOCKS_OF_PART_SQL, values).fetchall()
    for owner, other in (("session", "stream"), ("stream", "session")):
        scratch.execute(sql.TRIAL_SQL, {**values, "owner": owner, "other": other})
        if any(proves(Block(*row)) for row in rows):
            scratch.execute(sql.DECIDED_SQL)
            return
        scratch.execute(sql.NO_TRIAL_SQL)


def _parts(edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return for each page one that stands for all that belong together with it."""
    above: dict[int, int] = {}

    def top(page: int) -> int:
        while (up := above.setdefault(page, page)) != page:
            above[page] = above[up]
            page = up
        return page

    for one, other in edges:
        above[top(one)] = top(other)
    return {page: top(page) for page in list(above)}
