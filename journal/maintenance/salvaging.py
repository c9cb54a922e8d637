"""Deciding what to believe of the rows that were gathered from a damaged file.

Believed is what the digest of a block proves. Events that no digest speaks for are believed where
nothing speaks against them: their page is in order, they can be named and read, their links agree
with the events around them, and nowhere in the file was anything changed, only lost. All others go
apart. Nothing is ever put together by guessing: a name, a time, or a version of an event that is in
doubt is tried, and taken if a digest proves it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

import apsw
from pydantic_core import to_json

from journal import limits
from journal.errors import DamagedError
from journal.events.decoding import Blueprint, blueprint
from journal.events.ids import SessionId, StreamId
from journal.events.kinds import KINDS
from journal.file.blocks import GENESIS, chained
from journal.file.decoding import Names, Page, decode_rows
from journal.maintenance import salvage_sql as sql
from journal.maintenance.gathering import SCHEMA
from journal.maintenance.histories import Block
from journal.maintenance.naming import find_names
from journal.maintenance.versions import Ids, Picked, content_of, picks

_TRIES_MAX: Final = 2_000
"""How many versions of a block are tried at most: each takes some tenth of a millisecond."""

_ROWS_AT_ONCE: Final = 1_000

_DIGEST: Final = re.compile("[0-9a-f]{64}")

FileKinds = dict[int, list[tuple[str, str | None]]]
"""The names and fields that a code may stand for."""


class AbsentRow(NamedTuple):
    """A row of `absent` whose digest proves it."""

    first: int
    last: int
    reason: str
    counts: str | None
    min_timestamp: int | None
    max_timestamp: int | None
    digest_before: str | None
    digest_after: str | None
    forgotten: str | None
    declared_at: str
    check_digest: str


class Salvage:
    """What can be believed of what was gathered, in tables beside it.

    `chosen` has the events, `kept_block` the blocks, `lost` the positions that are missing, `apart`
    what is not believed.

    Args:
        scratch: the connection that has all of it.
    """

    def __init__(self, scratch: apsw.Connection) -> None:
        self.scratch = scratch
        chain: Any = chained
        scratch.create_scalar_function("chained", chain, 2, deterministic=True)
        scratch.execute(SCHEMA + sql.TABLES)
        self.absences: list[AbsentRow] = []
        self.kinds: FileKinds = {}
        self.is_changed = False
        """Whether something in the file was changed, not only lost."""
        self.last_position = 0
        self._guessed: set[int] = set()
        self.proven_kinds: set[int] = set()
        """Codes that nothing named, and a digest proved."""

    @property
    def proven_blocks(self) -> int:
        """How many blocks are proven."""
        return self._count("kept_block WHERE state = 'proven'")

    @property
    def event_count(self) -> int:
        """How many events are believed."""
        return self._count("chosen")

    def fact(self, key: str, check: Callable[[str], object] = str) -> str | None:
        """Return what the file says of itself, None where nothing or several things are found.

        Args:
            key: of the table `meta`.
            check: raises a ValueError where a text cannot be what is asked for.
        """
        rows: Any = self.scratch.execute(
            "SELECT DISTINCT value FROM raw_meta WHERE key = ?", (key,)
        )
        found = [value for (value,) in rows if _passes(value, check)]
        return found[0] if len(found) == 1 else None

    def decide(self, progress: Callable[[int, int], None]) -> None:
        """Decide about everything that was gathered.

        Args:
            progress: is called with the number of blocks looked at, and of those there are.
        """
        with self.scratch:
            self._decide_absences()
            self._find_kinds()
            find_names(self.scratch, self._proves)
            self._prove_blocks(progress)
            self._keep_blocks()
            self._is_changed()
            self.scratch.execute(sql.OTHERS_SQL)
            self._believe_unproven()
            self._check_links()
            self._find_lost()

    def _count(self, rows: str, values: tuple[Any, ...] = ()) -> int:
        count: Any = self.scratch.execute(f"SELECT count(*) FROM {rows}", values).get
        return int(count)

    # What is absent

    def _decide_absences(self) -> None:
        end = 0
        for *columns, text in self.scratch.execute(sql.ABSENT_TEXT_SQL):
            row = AbsentRow(*columns)
            digest = hashlib.sha256(text.encode()).hexdigest()
            if digest == row.check_digest and row.first > end:
                self.absences.append(row)
                end = row.last
        self.scratch.execute("CREATE TABLE absence (first_seq INTEGER PRIMARY KEY, last_seq)")
        self.scratch.executemany(
            "INSERT INTO absence VALUES (?, ?)", [(it.first, it.last) for it in self.absences]
        )

    @property
    def cut(self) -> int:
        """The last position that was left out on purpose; 0 where none was."""
        return next((row.last for row in self.absences if row.reason != "lost"), 0)

    def absence_ending_at(self, position: int) -> AbsentRow | None:
        """Return the declared range that ends at a position."""
        return next((row for row in self.absences if row.last == position), None)

    # Names

    def _find_kinds(self) -> None:
        pages: dict[int, dict[tuple[str, str | None], set[int]]] = {}
        for code, name, fields, page in self.scratch.execute("SELECT * FROM raw_kind"):
            is_known = name in KINDS and fields is not None
            pair = name, _fields_of(name) if is_known else fields
            pages.setdefault(code, {}).setdefault(pair, set()).add(page)
        for code, found in pages.items():
            # A kind has a row and an entry of an index. What only looks like one has not both.
            both = [pair for pair, places in found.items() if len(places) > 1]
            # Where nothing is proven, the first one counts.
            self.kinds[code] = sorted(both or found, key=lambda pair: pair[0] not in KINDS)
        codes: Any = self.scratch.execute("SELECT DISTINCT kind FROM raw_event").fetchall()
        lost = [code for (code,) in codes if code not in self.kinds]
        if lost:
            self._guess_kinds(lost)

    def _guess_kinds(self, codes: Iterable[int]) -> None:
        """Let codes that nothing names stand for what they do in a new file, to be proven."""
        names = list(KINDS)
        for code in codes:
            if 1 <= code <= len(names):
                name = names[code - 1]
                self.kinds[code] = [(name, _fields_of(name))]
                self._guessed.add(code)

    def uuids(self, owner: str, keys: Iterable[int | None]) -> Ids:
        """Return the ids that some numbers of sessions or streams may stand for."""
        text = to_json([key for key in keys if key is not None]).decode()
        found: Ids = {}
        for key, uuid in self.scratch.execute(
            "SELECT id, uuid FROM name WHERE owner = ? AND id IN (SELECT value FROM json_each(?))",
            (owner, text),
        ):
            found.setdefault(key, []).append(uuid)
        return found

    # Blocks

    def _prove_blocks(self, progress: Callable[[int, int], None]) -> None:
        rows: Any = self.scratch.execute(
            f"SELECT DISTINCT {sql.BLOCK_COLUMNS} FROM raw_block ORDER BY first_seq, last_seq DESC"
        ).fetchall()
        for done, row in enumerate(rows, 1):
            block = Block(*row)
            if self._is_possible(block):
                state, block = self._proof(block)
                self.scratch.execute(
                    f"INSERT INTO found_block VALUES ({', '.join('?' * 10)}, 0)", (*block, state)
                )
            progress(done, len(rows))
        self.scratch.execute("CREATE INDEX found_block_by_end ON found_block (last_seq)")
        self.scratch.execute("CREATE INDEX found_block_by_first ON found_block (first_seq)")
        self.scratch.execute(sql.LINKED_SQL, {"genesis": GENESIS})
        for absence in self.absences:
            if absence.digest_after is not None:
                self.scratch.execute(
                    "UPDATE found_block SET is_linked = 1"
                    " WHERE first_seq = ? AND digest = chained(?, content_digest)",
                    (absence.last + 1, absence.digest_after),
                )

    def _proves(self, block: Block) -> bool:
        return self._is_possible(block) and self._proof(block)[0] == "proven"

    def _is_possible(self, block: Block) -> bool:
        size = limits.BLOCK_EVENTS_MAX
        return (
            self.cut < block.first <= block.last
            and (block.first - 1) // size == (block.last - 1) // size
            and block.sealed in (0, 1)
            and all(map(_is_digest, (block.content_digest, block.digest)))
            and (block.redacted_digest is None or _is_digest(block.redacted_digest))
        )

    def _proof(self, block: Block) -> tuple[str, Block]:
        """Return what the events of a block say of it: proven, changed, missing or unnamed.

        And the block, with the digest of what its events are, where the chain proves that one.
        """
        versions = self._versions(block.first, block.last)
        if len(versions) != block.last - block.first + 1:
            return "missing", block
        rows = [row for some in versions.values() for row in some]
        sessions = self.uuids("session", {row[2] for row in rows})
        streams = self.uuids("stream", {row[3] for row in rows})
        kinds = {code: [name for name, _ in names] for code, names in self.kinds.items()}
        is_named = all(
            kind in kinds and session in sessions and (stream is None or stream in streams)
            for _, kind, session, stream, *_ in rows
        )
        if not is_named:
            return "unnamed", block
        befores = self._digests_before(block.first)
        for picked in islice(picks(versions, kinds, sessions, streams), _TRIES_MAX):
            content = content_of(picked, block.salt)
            if content is None:
                continue
            wanted = block.content_digest if block.salt is not None else block.redacted_digest
            if content != wanted:
                if block.salt is None or not any(
                    chained(before, content) == block.digest for before in befores
                ):
                    continue
                block = block._replace(content_digest=content)
            return "proven", self._as_proven(block, picked, befores)
        return "changed", block

    def _versions(self, first: int, last: int) -> dict[int, list[tuple[Any, ...]]]:
        """Return the versions that there are of each event in a range, most likely one."""
        rows: Any = self.scratch.execute(
            "SELECT seq, kind, session, stream, timestamp, data FROM raw_event"
            " WHERE seq BETWEEN ? AND ? GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY seq",
            (first, last),
        )
        return {seq: list(some) for seq, some in groupby(rows, key=itemgetter(0))}

    def _digests_before(self, first: int) -> list[str]:
        """Return what may be the digest before a position at which a block begins."""
        if first == 1:
            return [GENESIS]
        found: Any = self.scratch.execute(
            "SELECT digest FROM found_block WHERE last_seq = ? AND first_seq > ?",
            (first - 1, first - 1 - limits.BLOCK_EVENTS_MAX),
        ).fetchall()
        absence = self.absence_ending_at(first - 1)
        after = [] if absence is None or absence.digest_after is None else [absence.digest_after]
        return [digest for (digest,) in found] + after

    def _as_proven(self, block: Block, picked: Picked, befores: list[str]) -> Block:
        """Take in the events of a proven block, and return its row as it must be."""
        ends = picked.rows[0][0], picked.rows[-1][0]
        raw: Any = self.scratch.execute(
            "SELECT seq, kind, session, stream, timestamp, data, session_prev, stream_prev"
            " FROM raw_event WHERE seq BETWEEN ? AND ?",
            ends,
        )
        links = {row[:6]: row[6:] for row in raw}
        self.scratch.executemany(
            "INSERT OR IGNORE INTO chosen VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
            [(*row, *links[row]) for row in picked.rows],
        )
        for owner, names in (
            ("session", picked.doubtful["sessions"]),
            ("stream", picked.doubtful["streams"]),
        ):
            for key, uuid in names.items():
                self.scratch.execute(
                    "DELETE FROM name WHERE owner = ? AND id = ? AND uuid <> ?", (owner, key, uuid)
                )
        for code, name in picked.doubtful["kinds"].items():
            self.kinds[code] = [pair for pair in self.kinds[code] if pair[0] == name]
        used = {row[1] for row in picked.rows}
        self.proven_kinds |= self._guessed & used
        self._guessed -= used
        times = [row[4] for row in picked.rows]
        digest = block.digest
        is_linked = any(chained(before, block.content_digest) == digest for before in befores)
        if befores and not is_linked and not self._is_followed(block, digest):
            digest = chained(befores[-1], block.content_digest)
        return block._replace(smallest_ns=min(times), largest_ns=max(times), digest=digest)

    def _is_followed(self, block: Block, digest: str) -> bool:
        following = self._count(
            "raw_block WHERE first_seq = ? AND digest = chained(?, content_digest)",
            (block.last + 1, digest),
        )
        return bool(following)

    def _keep_blocks(self) -> None:
        """Keep the blocks that are proven, and between them those that their neighbours prove."""
        for condition in ("state = 'proven'", "is_linked"):
            rows: Any = self.scratch.execute(
                f"SELECT * FROM found_block WHERE {condition}"
                " ORDER BY is_linked DESC, last_seq - first_seq DESC, first_seq"
            )
            for *block, _ in rows:
                self.scratch.execute(
                    f"INSERT INTO kept_block SELECT {', '.join('?' * 10)} WHERE NOT EXISTS"
                    " (SELECT 1 FROM kept_block WHERE first_seq BETWEEN ?2 - ?11 AND ?2"
                    " AND last_seq >= ?1)",
                    (*block, limits.BLOCK_EVENTS_MAX),
                )
        self._drop_unlinked()
        self.scratch.execute(
            "UPDATE kept_block SET sealed = 1"
            " WHERE first_seq < (SELECT max(first_seq) FROM kept_block)"
        )

    def _drop_unlinked(self) -> None:
        """Drop the rows of blocks that contradict the next one: their digest is not what it was."""
        rows: Any = self.scratch.execute(
            "SELECT first_seq, last_seq, content_digest, digest FROM kept_block ORDER BY first_seq"
        )
        dropped: list[tuple[int, int]] = []
        begin, end, before = 0, 0, GENESIS
        for first, last, content_digest, digest in rows:
            if first == end + 1 and chained(before, content_digest) != digest:
                dropped.append((begin, end))
            begin, end, before = first, last, digest
        for ends in dropped:
            self.scratch.execute(
                "DELETE FROM kept_block WHERE first_seq = ? AND last_seq = ?", ends
            )
            self.scratch.execute("UPDATE chosen SET is_proven = 0 WHERE seq BETWEEN ? AND ?", ends)

    # What no digest speaks for

    def _is_changed(self) -> None:
        """Find out whether anything in the file was changed, not only lost."""
        changed = self._count(
            "found_block AS f WHERE state = 'changed' AND NOT EXISTS (SELECT 1 FROM kept_block AS k"
            " WHERE k.state = 'proven' AND k.first_seq <= f.last_seq"
            " AND k.last_seq >= f.first_seq)"
        )
        gaps = self._count(
            "raw_gap AS g WHERE NOT EXISTS (SELECT 1 FROM absence AS a"
            " WHERE a.first_seq <= g.first_seq AND g.last_seq <= a.last_seq)"
        )
        self.is_changed = self.is_changed or bool(changed or gaps)

    def _believe_unproven(self) -> None:
        """Take in the events that nothing speaks against, and put the others apart."""
        rows = self.scratch.execute("SELECT * FROM other ORDER BY seq")
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            self._judge(some)

    def _judge(self, rows: list[Any]) -> None:
        """Take some rows of `other` in, or put them apart."""
        names = self._names_of(rows)
        believed, apart = [], []
        for row in rows:
            reason = self._speaks_against(row, names)
            if reason is None:
                believed.append(row[:8])
            else:
                apart.append((*row[:8], row[9], reason))
        self.scratch.executemany("INSERT INTO chosen VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)", believed)
        self.scratch.executemany(f"INSERT INTO apart VALUES ({', '.join('?' * 10)})", apart)

    def _names_of(self, rows: list[Any]) -> Names:
        """Return what numbers in rows stand for, where that is not in doubt."""
        kinds: dict[int, Blueprint] = {}
        for code, found in self.kinds.items():
            if len(found) == 1 and code not in self._guessed:
                name, fields = found[0]
                try:
                    kinds[code] = blueprint(
                        name, None if fields is None else tuple(json.loads(fields))
                    )
                except ValueError:
                    continue
        sessions = self.uuids("session", {row[2] for row in rows})
        streams = self.uuids("stream", {row[3] for row in rows})
        named: dict[int | None, StreamId | None] = {None: None}
        named |= {key: StreamId.from_bytes(it[0]) for key, it in streams.items() if len(it) == 1}
        return Names(
            kinds,
            {key: SessionId.from_bytes(it[0]) for key, it in sessions.items() if len(it) == 1},
            named,
        )

    def _speaks_against(self, row: Any, names: Names) -> str | None:
        """Return why an event is not believed, None where nothing speaks against it."""
        seq, kind, session, stream, timestamp_ns, data, *_ = row
        is_sound, _, versions, state, smallest_ns, largest_ns = row[8:]
        is_named = kind in names.kinds and session in names.sessions and stream in names.streams
        is_of_its_time = smallest_ns is None or smallest_ns <= timestamp_ns <= largest_ns
        against = {
            "its kind, its session or its stream cannot be named": not is_named,
            "its block is proven without it": state == "proven",
            "its block is not what it was, and which of its events was changed is not known": (
                state == "changed"
            ),
            "there are several versions of it, and no digest proves one": versions > 1,
            "no digest proves it, and the file was changed elsewhere": self.is_changed,
            "no digest proves it, and its page is broken or not in use": not is_sound,
            "its time is none of those in its block": not is_of_its_time,
        }
        for reason, speaks in against.items():
            if speaks:
                return reason
        page = Page([seq], [(kind, session, stream, timestamp_ns, data)])
        try:
            for _ in decode_rows("", page, names, lambda: names):
                pass
        except DamagedError as error:
            return f"it cannot be read: {error.reason}"
        return None

    def _check_links(self) -> None:
        """Put apart the unproven events whose links do not agree with the events around them."""
        if not self._count("chosen WHERE NOT is_proven"):
            return
        for owner in ("session", "stream"):
            self.scratch.execute(sql.DISAGREEING_SQL.format(owner=owner))
        self.scratch.execute(
            "INSERT INTO apart SELECT seq, kind, session, stream, timestamp, data, session_prev,"
            " stream_prev, NULL, 'its links do not agree with the events around it'"
            " FROM chosen WHERE seq IN (SELECT seq FROM disagreeing);"
            "DELETE FROM chosen WHERE seq IN (SELECT seq FROM disagreeing)"
        )

    # What is missing

    def _find_lost(self) -> None:
        """Find the positions that were given, and have no event."""
        self.last_position = self.scratch.execute(sql.LAST_SQL, {"is_changed": self.is_changed}).get
        self.scratch.execute(sql.LOST_SQL, {"last": self.last_position})

    def lost(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of positions that are missing."""
        rows: Any = self.scratch.execute("SELECT * FROM lost ORDER BY first_seq")
        yield from rows


def _fields_of(name: str) -> str:
    """Return the names of the fields of a kind that is known, as the table `kind` has them."""
    return to_json(KINDS[name].field_names).decode()


def _passes(text: str, check: Callable[[str], object]) -> bool:
    try:
        check(text)
    except ValueError:
        return False
    return True


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))
