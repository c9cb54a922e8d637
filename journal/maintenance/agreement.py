"""How far two histories of one journal are the same.

The digest at a position stands for everything up to there, so one look at the last position that
both have is enough where they are the same, however much they share.
"""

from typing import Literal, NamedTuple

from journal.file.blocks import BlockRow
from journal.maintenance.histories import History, Interval


class Agreement(NamedTuple):
    """How far a history is the same as another one."""

    position: int
    """The last position up to which they are the same."""
    state: Literal["same", "unproven", "parted", "unrelated"]
    """What follows there: nothing that both have; likewise, but no digest proves that they are the
    same so far; something else in each; or they have nothing in common."""


def agreement(here: History, other: History) -> Agreement:
    """Return how far another history of a journal, or a branch of it, is the same as one here."""
    begins = here.begins_after
    up_to = min(here.last, other.last)
    if up_to < begins or (begins and _is_equal(here, other, begins) is False):
        return Agreement(0, "unrelated")
    is_equal = _is_equal(here, other, up_to)
    if is_equal:
        return Agreement(up_to, "same")
    proven = _last_equal(here, other, begins, up_to)
    parted, compared = _first_other(here, other, proven, up_to)
    if is_equal is None and parted is None:
        return Agreement(up_to, "unproven")
    if parted is None:  # the events are the same, and their blocks are of two histories
        parted = proven + 1 if compared else up_to + 1
    elif parted - 1 > proven and not _is_equal(here, other, parted - 1):
        parted = proven + 1
    return Agreement(parted - 1, "parted")


def _is_equal(here: History, other: History, position: int) -> bool | None:
    """Tell whether the digests at a position are the same; None where one is not known."""
    one, another = here.digest_at(position), other.digest_at(position)
    return None if one is None or another is None else one == another


def _last_equal(here: History, other: History, begins: int, up_to: int) -> int:
    """Return the last end of a block up to which both are proven to be the same."""
    digests = {block.last: block.digest for block in here.blocks() if block.last <= up_to}
    found = begins
    for block in other.blocks():
        if block.last > up_to:
            break
        if digests.get(block.last) == block.digest:
            found = max(found, block.last)
    return found


def _first_other(here: History, other: History, after: int, up_to: int) -> tuple[int | None, bool]:
    """Return the first position at which both have an event, and not the same.

    Of what is redacted in one of them, everything but the data is compared. It also returns
    whether there was a position at which both have one.
    """
    compared = False
    for first, last in _shared(here.held(), other.held(), after, up_to):
        for begin in range(first, last + 1, 1_000):
            end = min(last, begin + 999)
            pairs = zip(_flat(here, begin, end), _flat(other, begin, end), strict=False)
            for one, another in pairs:
                compared = True
                if one == another:
                    continue
                if one[:5] != another[:5] or not _is_redacted(here, other, one[0]):
                    return one[0], True
    return None, compared


def _flat(history: History, first: int, last: int) -> list[BlockRow]:
    return [row for rows in history.texts(first, last) for row in rows]


def _is_redacted(here: History, other: History, position: int) -> bool:
    blocks = here.block_at(position), other.block_at(position)
    return any(block is not None and block.salt is None for block in blocks)


def _shared(ours: list[Interval], theirs: list[Interval], after: int, up_to: int) -> list[Interval]:
    found = []
    for one in ours:
        for other in theirs:
            first = max(one.first, other.first, after + 1)
            last = min(one.last, other.last, up_to)
            if first <= last:
                found.append(Interval(first, last))
    return found
