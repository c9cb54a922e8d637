"""The links from each event to the one before it of its session and stream, and where they begin.

The events are sorted by their sessions, and by their streams, in temporary storage of SQLite.
"""

from typing import Any, Literal

import apsw

from journal.file import forking
from journal.file.extent import Extent
from journal.maintenance.file_check import shown
from journal.maintenance.findings import Findings

Owner = Literal["session", "stream"]
OWNERS: tuple[Owner, ...] = ("session", "stream")


def check_chains(
    connection: apsw.Connection,
    owner: Owner,
    extent: Extent,
    found: Findings,
    *,
    after: int | None = None,
) -> None:
    """Make sure that each link leads to the event before, and each head to the last one.

    Args:
        connection: which has the file open, in a transaction.
        owner: whose chains.
        extent: which positions the file has.
        found: takes what is wrong.
        after: look only at the events after this position; None: at all, and at all heads.
    """
    if after is None and _are_right(connection, owner, extent):
        return
    checked = _Chains(connection, owner, extent, found, after)
    checked.check()
    if after is None:
        checked.check_others()


_RIGHT_SQL = """
SELECT count(*) FILTER (WHERE following IS NULL) IS (SELECT count(*) FROM {owner})
    AND NOT count(*) FILTER (WHERE link IS NOT before AND NOT (
        before IS NULL AND typeof(link) = 'integer' AND link BETWEEN 1 AND :cut))
    AND NOT count(*) FILTER (WHERE following IS NULL AND NOT ifnull(
        h.last_seq = e.seq AND typeof(h.event_count) = 'integer'
        AND h.event_count BETWEEN 1 AND h.last_seq
        AND typeof(ifnull(b.events_before, 0)) = 'integer'
        AND h.event_count - ifnull(b.events_before, 0) = e.number, 0))
FROM (
    SELECT {owner} AS key, seq, {owner}_prev AS link, lag(seq) OVER chain AS before,
        lead(seq) OVER chain AS following, row_number() OVER chain AS number
    FROM event WHERE seq > :cut AND typeof({owner}) = 'integer'
    WINDOW chain AS (PARTITION BY {owner} ORDER BY seq)
) AS e
    LEFT JOIN {owner} AS h ON e.following IS NULL AND h.id = e.key
    LEFT JOIN base_{owner} AS b ON e.following IS NULL AND b.{owner} = e.key
"""
"""Whether every link and head is right. To say which one is not takes three times as long."""


def _are_right(connection: apsw.Connection, owner: Owner, extent: Extent) -> bool:
    """Tell whether there is nothing to be found, as far as one statement can tell."""
    try:
        with forking.inside_sqlite():
            sql = _RIGHT_SQL.format(owner=owner)
            return bool(connection.execute(sql, {"cut": extent.cut}).get)
    except apsw.Error:  # whoever looks closer says which
        return False


class _Chains:
    def __init__(
        self,
        connection: apsw.Connection,
        owner: Owner,
        extent: Extent,
        found: Findings,
        after: int | None,
    ) -> None:
        self._connection = connection
        self._owner = owner
        self._extent = extent
        self._found = found
        self._after = after
        self._heads_sql = (
            "SELECT h.uuid, h.last_seq, h.event_count, ifnull(b.events_before, 0)"
            f" FROM {owner} AS h LEFT JOIN base_{owner} AS b ON b.{owner} = h.id"
        )
        self._heads = 0
        self._key: int | None = None
        self._last = 0
        self._count = 0
        self._first_link: Any = None

    def check(self) -> None:
        """Check the links of every chain, first to last, and its head."""
        owner = self._owner
        sql = f"SELECT {owner}, seq, {owner}_prev FROM event"
        sql += f" WHERE seq > ? AND typeof({owner}) = 'integer' ORDER BY {owner}, seq"
        after = self._extent.cut if self._after is None else self._after
        rows = self._found.rows(
            self._connection, sql, (after,), code="unreadable", where=owner, severity="derived"
        )
        for key, position, link in rows:
            self._take(key, position, link)
        self._end_chain()

    def _take(self, key: int, position: int, link: Any) -> None:
        if key != self._key:
            self._end_chain()
            self._key, self._count, self._first_link = key, 0, link
            if not self._may_begin(key, position, link):
                self._add_link(position, link, "where no event of its {} is")
        elif link != self._last:
            self._add_link(position, link, f"and the one before it of its {{}} is {self._last}")
        self._last = position
        self._count += 1

    def _end_chain(self) -> None:
        key, self._key = self._key, None
        if key is not None:
            is_whole = self._after is None or self._first_link is None
            self._check_head(key, self._last, self._count if is_whole else None)

    def _add_link(self, position: int, link: Any, what: str) -> None:
        text = f"the event at position {position} links to {link!r}, {what.format(self._owner)}"
        self._found.add("link", "event", position, text, "derived")

    def _check_head(self, key: int, last: int, count: int | None) -> None:
        """Hold a head against the last event of its chain, and their number, if it is known."""
        head: Any = None
        with self._found.noted("unreadable", self._owner, last, severity="derived"):
            head = self._connection.execute(f"{self._heads_sql} WHERE h.id = ?", (key,)).fetchone()
        if head is None:
            return  # what names it says so
        self._heads += 1
        uuid, last_seq, counted, events_before = head
        text = ""
        if last_seq != last:
            text = f"has its last event at position {last}, and says {last_seq!r}"
        elif type(counted) is not int or not 1 <= counted <= last:
            text = f"says that it had {counted!r} events"
        elif type(events_before) is not int:
            text = f"says that {events_before!r} of its events are before the cut"
        elif count is not None and counted - events_before != count:
            text = f"has {count} events, and says {counted - events_before}"
        if text:
            what = f"the {self._owner} {shown(uuid)} {text}"
            self._found.add("head", self._owner, last, what, "derived")

    def _may_begin(self, key: int, position: int, link: Any) -> bool:
        """Tell whether a link leads to where the chain goes on before the events looked at."""
        if link is None:
            return True
        if type(link) is not int or not 1 <= link < position:
            return False
        if self._extent.absence_at(link) is not None:
            return True
        if self._after is None or link > self._after:
            return False
        sql = f"SELECT {self._owner} FROM event WHERE seq = ?"
        with self._found.noted("unreadable", "event", link):
            there: Any = self._connection.execute(sql, (link,)).get
            return bool(there == key)
        return True

    def check_others(self) -> None:
        """Check the heads of what has no events here: all of them are before the cut."""
        owner, cut = self._owner, self._extent.cut
        with self._found.noted("unreadable", owner, severity="derived"):
            if self._connection.execute(f"SELECT count(*) FROM {owner}").get == self._heads:
                return
        rows = self._found.rows(
            self._connection,
            f"{self._heads_sql} WHERE h.id NOT IN (SELECT {owner} FROM event"
            f" WHERE {owner} IS NOT NULL)",
            code="unreadable",
            where=owner,
            severity="derived",
        )
        for uuid, last, counted, events_before in rows:
            is_right = type(last) is int and 1 <= last <= cut and counted == events_before
            if not is_right or type(counted) is not int or not 1 <= counted <= last:
                text = f"the {owner} {shown(uuid)} has no events, and says {counted!r}, the"
                text += f" last at position {last!r}"
                self._found.add("head", owner, None, text, "derived")
