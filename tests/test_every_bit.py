"""Every single bit of the events and blocks of a file: none changes an event and is not found.

The bits are dealt out to ten seeds, so that ten rounds are all of them.
"""

from contextlib import closing
from pathlib import Path

import apsw
import pytest
from support import SEEDS
from test_verify_flips import flip_each
from verify_support import LINES, verified

from journal import Journal, limits

pytestmark = pytest.mark.slow

_PARTS = 10
_PAGE_BYTES = 512


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file of 21 events in three blocks, in small pages."""
    path = tmp_path_factory.mktemp("small") / "a.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_EVENTS_MAX", 8)
        with Journal.open(path) as opened:
            opened.append_ndjson(LINES[:21])
    with closing(apsw.Connection(str(path))) as file:
        sql = f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {_PAGE_BYTES}; VACUUM"
        file.execute(sql).fetchall()
        assert file.execute("SELECT count(*), min(sealed) FROM block").fetchone() == (3, 0)
    assert verified(path).sound
    return path


def bits_of(path: Path) -> list[tuple[int, int]]:
    """Return the places of all bits in the pages of the events and blocks."""
    with closing(apsw.Connection(str(path))) as file:
        sql = "SELECT pageno FROM dbstat WHERE name IN ('event', 'block') ORDER BY pageno"
        pages = [page for (page,) in file.execute(sql)]
    places = [(page - 1) * _PAGE_BYTES + byte for page in pages for byte in range(_PAGE_BYTES)]
    return [(place, bit) for place in places for bit in range(8)]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_bit_changes_an_event_unseen(small: Path, tmp_path: Path, seed: int) -> None:
    bits = bits_of(small)[seed % _PARTS :: _PARTS]
    assert flip_each(small, tmp_path / "b.db", bits) > len(bits) // 4


def test_all_seeds_are_all_bits(small: Path) -> None:
    bits = bits_of(small)
    dealt = [bit for seed in range(_PARTS) for bit in bits[seed % _PARTS :: _PARTS]]
    assert sorted(dealt) == bits
