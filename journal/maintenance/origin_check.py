"""Whether a merged file has what its sources had, by the blocks that they had there."""

from typing import Any

import apsw

from journal.maintenance.findings import Findings
from journal.maintenance.histories import History, Interval, history_keys, is_merged, joined, minus
from journal.maintenance.sources import blocks_of, check_block

_OVERLAP_SQL = """
SELECT b.first_seq FROM origin AS a JOIN origin AS b
    ON b.journal_id = a.journal_id AND b.branch = a.branch AND b.first_seq > a.first_seq
WHERE b.source_first_seq <= a.source_first_seq + a.last_seq - a.first_seq
ORDER BY b.first_seq LIMIT 1
"""


def check_sources(connection: apsw.Connection, found: Findings) -> tuple[str, ...]:
    """Hold the events that came from other journals against the blocks that they had there.

    Args:
        connection: in a transaction.
        found: takes what is wrong.

    Returns:
        what cannot be checked, in words.
    """
    histories: list[History] = []
    with found.noted("origin", "origin"):
        if is_merged(connection):
            histories = [History(connection, key) for key in history_keys(connection)]
            later: Any = connection.execute(_OVERLAP_SQL).get
            if later is not None:
                text = f"positions from {later} on have events that come before others of the same"
                found.add("origin", "origin", later, f"{text} journal, or a second time")
    unproven = sum(_check(connection, history, found) for history in histories)
    if not unproven:
        return ()
    return (f"{unproven:,} events that no block of the journal that they came from has",)


def _check(connection: apsw.Connection, history: History, found: Findings) -> int:
    """Check the blocks of one journal, and return how many of its events no block has."""
    held: list[Interval] = []
    with found.noted("origin", "origin"):
        held = history.held()
    covered: list[Interval] = []
    before = None
    with found.noted("origin-block", "origin_block"):
        for block in blocks_of(history):
            if covered and block.first <= covered[-1].last + 1:
                covered[-1] = Interval(covered[-1].first, block.last)
            else:
                covered.append(Interval(block.first, block.last))
            with found.noted("origin-block", "origin_block", block.first):
                check_block(connection, history, held, block, before, is_known=False)
            before = block
    return sum(last - first + 1 for first, last in minus(held, joined(iter(covered))))
