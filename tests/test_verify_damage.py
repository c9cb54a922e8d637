"""Damage is never an exception and never a hang, wherever it is; and it is found if it matters."""

import random
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest
from support import FIRST_SEED, ROUNDS, SEEDS, within
from test_damage import VALUES, places
from verify_support import execute, is_said_to_be_sound, make_whole, meaning, remove

from journal import verify

_CASES = 24
_SLOW_CASES = 150

Mutation = Callable[[random.Random, bytes], bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whole(tmp_path_factory.mktemp("whole") / "a.db")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whole(tmp_path_factory.mktemp("other") / "a.db")


def check_values(whole: Path, path: Path, draw: random.Random, count: int) -> None:
    before = meaning(whole)
    cases = [(*place, value) for place in places(whole) for value in VALUES]
    for table, column, row, value in draw.sample(cases, count):
        what = f"{table}.{column} of {row!r} = {value}"
        shutil.copyfile(whole, path)
        key = "key" if table == "projection_state" else "rowid"
        with suppress(apsw.ConstraintError, apsw.MismatchError):
            execute(path, f"UPDATE {table} SET {column} = {value} WHERE {key} = ?", row)
        with within(60, what):
            if is_said_to_be_sound(path):
                assert meaning(path) == before, what


def test_some_values_in_the_place_of_others(whole: Path, tmp_path: Path) -> None:
    check_values(whole, tmp_path / "b.db", random.Random(FIRST_SEED), _CASES * ROUNDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_many_values_in_the_place_of_others(whole: Path, tmp_path: Path, seed: int) -> None:
    check_values(whole, tmp_path / "b.db", random.Random(seed), _SLOW_CASES)


def pages_of(data: bytes) -> list[bytes]:
    return [data[start : start + 512] for start in range(0, len(data), 512)]


def zeroed(draw: random.Random, data: bytes) -> bytes:
    start, length = draw.randrange(len(data)), draw.choice([1, 16, 512, 2048])
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def flipped(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 2, 5, 50])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def swapped(draw: random.Random, data: bytes) -> bytes:
    pages = pages_of(data)
    one, another = draw.sample(range(len(pages)), 2)
    pages[one], pages[another] = pages[another], pages[one]
    return b"".join(pages)


def repeated(draw: random.Random, data: bytes) -> bytes:
    pages = pages_of(data)
    one, another = draw.sample(range(len(pages)), 2)
    pages[one] = pages[another]
    return b"".join(pages)


def torn(draw: random.Random, data: bytes) -> bytes:
    pages = pages_of(data)
    one, another = draw.sample(range(len(pages)), 2)
    at = draw.randrange(512)
    pages[one] = pages[one][:at] + pages[another][at:]
    return b"".join(pages)


def shifted(draw: random.Random, data: bytes) -> bytes:
    at, by = draw.randrange(len(data)), draw.choice([1, 8, 100, 512])
    return data[:at] + bytes(by) + data[at:]


def cut_off(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def pointed(draw: random.Random, data: bytes) -> bytes:
    """Have a page lead somewhere else: most of its four bytes are numbers of pages."""
    pages = pages_of(data)
    at = draw.randrange(len(pages))
    place = draw.choice([8, *range(12, 40)])
    number = draw.randrange(len(pages) + 1).to_bytes(4)
    pages[at] = pages[at][:place] + number + pages[at][place + 4 :]
    return b"".join(pages)


MUTATIONS: list[Mutation] = [
    *(zeroed, flipped, swapped, repeated, torn, shifted, cut_off, pointed),
]


def check_mutations(whole: Path, path: Path, draw: random.Random, count: int) -> None:
    data, before = whole.read_bytes(), meaning(whole)
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        what = f"{mutation.__name__}, number {number}"
        path.write_bytes(mutation(draw, data))
        with within(60, what):
            if is_said_to_be_sound(path):
                assert meaning(path) == before, what
        remove(path)


def test_some_mutations_of_pages(whole: Path, tmp_path: Path) -> None:
    check_mutations(whole, tmp_path / "b.db", random.Random(FIRST_SEED), _CASES * ROUNDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_many_mutations_of_pages(whole: Path, tmp_path: Path, seed: int) -> None:
    check_mutations(whole, tmp_path / "b.db", random.Random(seed), _SLOW_CASES)


def test_what_cannot_be_read_is_named_with_its_place(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with closing(apsw.Connection(str(whole), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'event'").get
        size = connection.pragma("page_size")
    content = bytearray(whole.read_bytes())
    content[(root - 1) * size : root * size] = bytes(size)
    path.write_bytes(content)

    verification = verify(path, full=True)

    unreadable = [each for each in verification.findings if each.code == "unreadable"]
    assert unreadable
    for each in unreadable:
        assert each.text.startswith(f"{each.where}"), each.text
        assert "cannot be read: " in each.text
        if each.position is not None:
            assert f" {each.position} " in each.text
