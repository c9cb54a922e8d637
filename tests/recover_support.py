"""What the tests of recovering share: a file to damage, ways to damage it, and what must hold."""

import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
from support import lines_of

import journal
from journal import DamagedError, Journal, Recovery, Timestamp, parse_event

PAGE = 4096
LINES = lines_of("sample.ndjson")
EARLIEST = Timestamp.from_epoch_ns(0)


def make(path: Path, lines: list[str]) -> Path:
    """Make a journal of these events, with a key, and all of it in the file."""
    middle = len(lines) // 2
    with Journal.open(path, label="pump 7") as opened:
        opened.append_ndjson(lines[:middle])
        opened.append_events([parse_event(line) for line in lines[middle : middle + 30]], key="k")
        opened.append_ndjson(lines[middle + 30 :])
    return path


def pages_of(path: Path, *names: str) -> list[int]:
    """Return the numbers of the leaf pages of tables and indexes."""
    with closing(apsw.Connection(str(path))) as file:
        sql = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'"
        return [number for name in names for (number,) in file.execute(sql, (name,))]


def fill_pages(path: Path, numbers: list[int], content: Callable[[], bytes]) -> None:
    """Overwrite whole pages."""
    with path.open("r+b") as file:
        for number in numbers:
            file.seek((number - 1) * PAGE)
            file.write(content())


def zero(path: Path, *names: str) -> None:
    """Fill the leaf pages of tables and indexes with zeros."""
    fill_pages(path, pages_of(path, *names), lambda: bytes(PAGE))


def recovered(damaged: Path, out: Path, lines: list[str], *, several: bool = False) -> Recovery:
    """Recover a file, and make sure of what must hold whatever was damaged.

    Where `several` things were, one may have taken events of a block away, and another one changed
    others of it: nothing proves these, so they may be wrong, and are said to be unproven.

    Raises:
        DamagedError: nothing was found.
    """
    before = damaged.read_bytes()
    out.unlink(missing_ok=True)
    found = journal.recover(damaged, out)
    assert damaged.read_bytes() == before
    assert (found.path, found.source) == (out, damaged)
    verification = journal.verify(out, full=True)
    assert verification.findings == ()
    assert verification.uncovered_count == found.unproven_count
    assert verification.proven_count + verification.redacted_count == found.proven_count
    with Journal.open(out, read_only=True) as opened:
        got = dict(opened.lines())
        assert len(got) == found.event_count == opened.event_count()
        assert found.event_count == found.proven_count + found.unproven_count
        wrong = {position for position, line in got.items() if lines[position - 1] != line}
        unproven = {at for first, last in found.unproven for at in range(first, last + 1)}
        assert wrong <= (unproven if several else set())
        assert [at for at, _ in opened.read()] == sorted(got)
        everything = [event for _, event in opened.read()]
        later = [it.model_dump_json() for it in everything if it.timestamp > EARLIEST]
        since = opened.get_events_since(EARLIEST)
        assert [event.model_dump_json() for event in since] == later
        sessions = opened.sessions()
        counted = sum(len(opened.get_events_for_session(it.session_id)) for it in sessions)
        assert counted == len(got)
        for stream in opened.streams():
            opened.get_events_for_stream(stream.stream_id)
        assert opened.info().closed_by == "recover"
        assert opened.journal_id == found.journal_id
        lost = {at for first, last in found.lost for at in range(first, last + 1)}
        assert len(lost) == found.lost_count
        assert not lost & set(got)
        assert opened.info().absent_count >= found.lost_count
    return found


def share(damaged: Path, out: Path, lines: list[str], *, several: bool = False) -> float:
    """Return how many of the events come back, of 1.0; see `recovered`."""
    try:
        return recovered(damaged, out, lines, several=several).event_count / len(lines)
    except DamagedError as error:
        assert "nothing of a journal" in str(error), str(error)
        assert not out.exists()
        return 0.0


# Damage


def _page(draw: random.Random, content: bytearray) -> int:
    return PAGE * draw.randrange(len(content) // PAGE)


def _flip(draw: random.Random, content: bytearray) -> None:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _flips(draw: random.Random, content: bytearray) -> None:
    for _ in range(draw.choice([2, 5, 20, 100])):
        _flip(draw, content)


def _zeros(draw: random.Random, content: bytearray) -> None:
    at = draw.choice([_page(draw, content), draw.randrange(len(content))])
    size = draw.choice([512, PAGE, 16 * PAGE])
    content[at : at + size] = bytes(len(content[at : at + size]))


def _garbage(draw: random.Random, content: bytearray) -> None:
    at = _page(draw, content)
    content[at : at + PAGE] = draw.randbytes(PAGE)


def _swap(draw: random.Random, content: bytearray) -> None:
    one, two = _page(draw, content), _page(draw, content)
    first, second = content[one : one + PAGE], content[two : two + PAGE]
    content[one : one + PAGE], content[two : two + PAGE] = second, first


def _tear(draw: random.Random, content: bytearray) -> None:
    at, size = _page(draw, content), 512 * draw.randrange(1, 8)
    other = draw.choice([None, _page(draw, content)])
    rest = bytes(PAGE - size) if other is None else content[other + size : other + PAGE]
    content[at + size : at + PAGE] = rest


def _shift(draw: random.Random, content: bytearray) -> None:
    at, size = _page(draw, content), draw.randrange(1, 300)
    content[at : at + PAGE] = content[at + size : at + PAGE] + bytes(size)


def _insert(draw: random.Random, content: bytearray) -> None:
    at = draw.choice([_page(draw, content), draw.randrange(len(content))])
    content[at:at] = draw.randbytes(draw.choice([PAGE, 1, 100]))


def _truncate(draw: random.Random, content: bytearray) -> None:
    del content[draw.randrange(len(content)) :]


def _first_page(draw: random.Random, content: bytearray) -> None:
    content[:PAGE] = draw.choice([bytes(PAGE), draw.randbytes(PAGE), b"x" * PAGE])


DAMAGES = [
    *(_flip, _flips, _zeros, _garbage, _swap, _tear, _shift, _insert, _truncate, _first_page)
]


def damaged_at_random(draw: random.Random, sound: bytes) -> tuple[str, bytes]:
    """Return what was done to a file, and what it is then."""
    content = bytearray(sound)
    done = [draw.choice(DAMAGES) for _ in range(draw.choice([1, 1, 1, 2, 3]))]
    for damage in done:
        if len(content) >= PAGE:
            damage(draw, content)
    return ", ".join(damage.__name__ for damage in done), bytes(content)


def copy(sound: Path, path: Path) -> Path:
    """Copy a file, with its -wal if it has one, and return the copy."""
    for suffix in ("", "-wal"):
        source, target = (Path(f"{it}{suffix}") for it in (sound, path))
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
    return path


def rows(path: Path, sql: str) -> list[Any]:
    """Return what plain SQL gives."""
    with closing(apsw.Connection(str(path))) as file:
        return file.execute(sql).fetchall()
