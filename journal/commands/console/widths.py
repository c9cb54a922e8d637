"""How wide texts are on a terminal: some characters take two columns, some none."""

import unicodedata
from functools import lru_cache


def width_of(text: str) -> int:
    """Return how many columns a text takes; it has neither line ends nor controls."""
    return len(text) if text.isascii() else sum(map(_columns, text))


@lru_cache(4096)
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):  # it stands on the one before
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text with spaces behind it, or before, so that it takes `width` columns."""
    spaces = " " * (width - width_of(text))
    return spaces + text if right else text + spaces


def shortened(text: str, width: int) -> str:
    """Return a text, its end left out where it takes more than `width` columns."""
    if len(text) * 2 <= width or width_of(text) <= width:
        return text
    return _beginning(text, width - 1) + "…"


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, broken at spaces where there are some."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) <= width:
            lines[-1] = longer
            continue
        lines[-1] = lines[-1].rstrip()
        rest = word
        while width_of(rest) > width:
            beginning = _beginning(rest, width) or rest[0]
            lines.append(beginning)
            rest = rest[len(beginning) :]
        lines.append(rest)
    return [line for line in lines if line] or [""]


def _beginning(text: str, width: int) -> str:
    """Return as much of a text as fits."""
    taken = 0
    for place, character in enumerate(text):
        taken += _columns(character)
        if taken > width:
            return text[:place]
    return text
