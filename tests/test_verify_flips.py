"""No single bit of a file can change an event without being found."""

import random
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from support import FIRST_SEED, SEEDS
from verify_support import make_whole, meaning, overwrite, verified

import journal
from journal import NewerFormatError

_PARTS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_whole(tmp_path_factory.mktemp("whole") / "a.db")
    assert verified(path).sound
    return path


def bytes_of_rows(whole: Path) -> list[int]:
    """Return the places of all bytes but those of definitions, which are a thing of their own."""
    with closing(apsw.Connection(str(whole))) as file:
        page_bytes = file.pragma("page_size")
        rows = file.execute("SELECT pageno FROM dbstat WHERE name != 'sqlite_schema'").fetchall()
    return [(page - 1) * page_bytes + byte for (page,) in rows for byte in range(page_bytes)]


def is_sound(path: Path) -> bool:
    try:
        return journal.verify(path, full=True).sound
    except NewerFormatError:  # a number of the format that was changed looks like that
        return False


def flip_each(whole: Path, path: Path, bits: Iterable[tuple[int, int]]) -> int:
    """Flip one bit after the other; return how many are found. With the others nothing changes."""
    original, before = whole.read_bytes(), meaning(whole)
    path.write_bytes(original)
    found = 0
    for place, bit in bits:
        overwrite(path, place, bytes([original[place] ^ 1 << bit]))
        if is_sound(path):
            assert meaning(path) == before, f"bit {bit} of byte {place}"
        else:
            found += 1
        overwrite(path, place, original[place : place + 1])
    return found


def test_some_bits(whole: Path, tmp_path: Path) -> None:
    draw = random.Random(FIRST_SEED)
    places = draw.sample(bytes_of_rows(whole), 40) + draw.sample(range(whole.stat().st_size), 10)
    bits = [(place, draw.randrange(8)) for place in places]
    assert flip_each(whole, tmp_path / "b.db", bits) > len(bits) // 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_bit(whole: Path, tmp_path: Path, seed: int) -> None:
    """Three hundred seeds are all bits of the rows, and a tenth of those of the definitions."""
    rows = [(place, bit) for place in bytes_of_rows(whole) for bit in range(8)]
    rest = [(place, bit) for place in range(whole.stat().st_size) for bit in range(8)]
    bits = rows[seed % _PARTS :: _PARTS] + rest[seed % _PARTS :: _PARTS * 10]
    assert flip_each(whole, tmp_path / "b.db", bits) > len(bits) // 10
