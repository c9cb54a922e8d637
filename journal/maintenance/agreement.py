"""How far two histories of one journal are the same.

The digest at a position stands for everything up to there, so one look at the last position that
both have is enough where they are the same, however much they share.

Within a block of which a text was redacted, no digest can be computed. There, events are the same
that are so in all that redaction leaves, unless a digest behind them says otherwise.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json

from journal.events.kinds import KINDS
from journal.file.blocks import BlockRow
from journal.maintenance.histories import History, Interval, shared


class Agreement(NamedTuple):
    """How far a history is the same as another one."""

    position: int
    """The last position up to which they are the same."""
    state: Literal["same", "unproven", "parted", "unrelated"]
    """What follows there: nothing that both have; likewise, but no digest proves that they are the
    same so far; something else in each; or they have nothing in common."""
    seen: int
    """The last position at which a digest, or an event that both have, shows that."""


def agreement(here: History, other: History) -> Agreement:
    """Return how far another history of a journal, or a branch of it, is the same as one here."""
    up_to = min(here.last, other.last)
    if up_to < here.begins_after:
        return Agreement(0, "unrelated", 0)
    if _is_equal(here, other, up_to):
        return Agreement(up_to, "same", up_to)
    digests = dict(_digests(here, up_to)), dict(_digests(other, up_to))
    proven = max((at for at, it in digests[0].items() if it == digests[1].get(at)), default=0)
    alike, parted = _alike(here, other, proven, up_to)
    end = up_to if parted is None else parted - 1
    for at in sorted({*digests[0], *digests[1], alike, end}):
        is_equal = _is_equal(here, other, at) if proven < at <= end else None
        if is_equal:
            proven = at
        elif is_equal is False:  # the events look the same, and are of two histories
            seen, found = proven, proven if alike or parted else up_to
            break
    else:
        seen = found = max(proven, alike)
        if parted is None:
            return Agreement(up_to, "unproven", seen)
    if here.begins_after and found <= here.begins_after:  # so far, it is the other branch
        return Agreement(0, "unrelated", 0)
    return Agreement(found, "parted", seen)


def _is_equal(here: History, other: History, position: int) -> bool | None:
    """Tell whether the digests at a position are the same; None where one is not known."""
    one, another = here.digest_at(position), other.digest_at(position)
    return None if one is None or another is None else one == another


def _digests(history: History, up_to: int) -> Iterator[tuple[int, str]]:
    """Yield positions, each with the digest there, that a row of the file has."""
    for owner, end in history.line():
        for block in owner.blocks():
            if block.last > min(end, up_to):
                break
            yield block.last, block.digest
        for gap in owner.gaps:
            if gap.last <= min(end, up_to) and gap.digest_after is not None:
                yield gap.last, gap.digest_after


def _alike(here: History, other: History, after: int, up_to: int) -> tuple[int, int | None]:
    """Return the last and the first position at which both have an event: the same, and another.

    They are 0 and None where there is none. Of what is redacted in one of them, everything but the
    texts is compared.
    """
    alike = 0
    held = shared(here.held_in_line(), other.held_in_line())
    for first, last in shared(held, [Interval(after + 1, up_to)]):
        for begin in range(first, last + 1, 1_000):
            end = min(last, begin + 999)
            pairs = zip(here.events(begin, end), other.events(begin, end), strict=False)
            for one, another in pairs:
                position = one[0]
                if one != another and (
                    _left(one) != _left(another) or not _is_redacted(here, other, position)
                ):
                    return alike, position
                alike = position
    return alike, None


def _left(row: BlockRow) -> tuple[Any, ...]:
    """Return what redaction leaves of an event, whatever it takes."""
    *others, data = row
    kind = KINDS.get(row[1])
    if kind is None or data is None or not data.startswith("["):  # of unknown kinds, none of it
        return tuple(others)
    fields = zip(kind.fields, from_json(data), strict=False)
    return (*others, *(value for field, value in fields if field.type.name != "text"))


def _is_redacted(here: History, other: History, position: int) -> bool:
    blocks = (
        owner.block_at(position)
        for history in (here, other)
        for owner, up_to in history.line()
        if position <= up_to
    )
    return any(block is not None and block.salt is None for block in blocks)
