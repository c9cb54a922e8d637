"""Tables that a person can read on a terminal of eighty columns, and the words below them."""

import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from journal.commands.console.output import Output, counted, one_line, size_text
from journal.commands.console.times import ago_text

if TYPE_CHECKING:
    from uuid import UUID

    from journal import Timestamp

NOTHING = "-"
"""What stands where there is no value."""

_SHORT_ID = 8
_LAST_WIDTH_MIN = 12

_COLOURS = {
    "Initializing": "cyan",
    "Active": "green",
    "Failed": "red",
    "Preparing": "cyan",
    "Streaming": "green",
    "Cancelled": "yellow",
    "!": "red",
}


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: what its header says.
        kind: numbers stand to the right, states have colours. Of the last column, "cut" and "wrap"
            say what becomes of a text that is too long.
        optional: whether it is left out when all its cells are empty.
    """

    title: str
    kind: Literal["text", "number", "state", "cut", "wrap"] = "text"
    optional: bool = False


class Look(NamedTuple):
    """What tables have to respect: how wide they may be (None: no limit), and whether in colour."""

    width: int | None
    colour: bool

    def styled(self, text: str, state: str) -> str:
        """Return the text in the colour of a state."""
        if not self.colour or state not in _COLOURS:
            return text
        return click.style(text, fg=_COLOURS[state])


def look_of(output: Output, *, wide: bool) -> Look:
    """Return how tables look on standard output: plain and unlimited unless it is a terminal."""
    if not output.is_terminal:
        return Look(None, colour=False)
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and os.name != "nt"
    return Look(None if wide else shutil.get_terminal_size().columns, colour)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], look: Look) -> list[str]:
    """Return a header and the rows, each as one text; a row that is wrapped holds line ends."""
    kept = [
        place
        for place, column in enumerate(columns)
        if not column.optional or any(row[place] for row in rows)
    ]
    columns = [columns[place] for place in kept]
    rows = [[row[place] for place in kept] for row in rows]
    titles = [column.title for column in columns]
    layout = _Layout(columns, [titles, *rows], look.width)
    plain = Look(look.width, colour=False)
    return [layout.line(titles, plain), *(layout.line(row, look) for row in rows)]


class _Layout:
    """Where the columns of a table stand."""

    def __init__(
        self, columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None
    ) -> None:
        self._columns = columns
        self._widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        self._tight = False
        if width is not None and self._indent() + self._widths[-1] > width:
            self._tight = True
        self._rest = None if width is None else max(width - self._indent(), _LAST_WIDTH_MIN)

    def _indent(self) -> int:
        """Return where the last column begins."""
        return sum(self._widths[:-1]) + sum(map(self._gap, range(len(self._columns))))

    def _gap(self, place: int) -> int:
        """Return how many spaces precede a column; few where room is short and titles give some."""
        if place == 0:
            return 0
        kinds = self._columns[place - 1].kind, self._columns[place].kind
        return 1 if self._tight and kinds == ("number", "number") else 2

    def line(self, cells: Sequence[str], look: Look) -> str:
        """Return a row as text."""
        line = ""
        for place, (column, width, cell) in enumerate(
            zip(self._columns, self._widths, cells, strict=True)
        ):
            text = f"{cell:>{width}}" if column.kind == "number" else f"{cell:<{width}}"
            if column.kind in ("cut", "wrap"):
                text = self._fitted(cell, column.kind)
            elif column.kind == "state":
                text = look.styled(text, cell)
            line += " " * self._gap(place) + text
        return line.rstrip()

    def _fitted(self, cell: str, kind: str) -> str:
        if self._rest is None or len(cell) <= self._rest:
            return cell
        if kind == "cut":
            return shortened(cell, self._rest)
        return f"\n{' ' * self._indent()}".join(textwrap.wrap(cell, self._rest))


# What stands in the cells


def id_text(uuid: "UUID", *, wide: bool) -> str:
    """Return an id; without `wide` its beginning, which tells it from others."""
    return str(uuid) if wide else str(uuid)[:_SHORT_ID]


def time_text(moment: "Timestamp | None", now_ns: int, *, wide: bool) -> str:
    """Return a time; without `wide` how long ago it was."""
    if moment is None:
        return NOTHING
    return moment.rfc3339() if wide else ago_text(moment.epoch_ns, now_ns)


def few_text(number: int) -> str:
    """Return a number that is usually 0, which is then left out."""
    return f"{number:,}" if number else ""


def bytes_text(size_bytes: int) -> str:
    """Return a size, for a column of sizes: "0", "139 B", "56 kB"."""
    if not size_bytes:
        return "0"
    return f"{size_bytes} B" if size_bytes < 1000 else size_text(size_bytes)


def shortened(text: str, width: int) -> str:
    """Return a text, its end left out where it is too long."""
    return text if len(text) <= width else text[: width - 1] + "…"


def error_text(error: str) -> str:
    """Return the text of an error in one line, which is never empty."""
    return one_line(error) or '""'


# The words below a table


def anomalies_text(number: int) -> str:
    """Return "no anomalies", "1 anomaly", "1,234 anomalies"."""
    return "1 anomaly" if number == 1 else f"{counted(number, 'anomalie')}"


def states_text(
    noun: str, states: Iterable[str], order: Sequence[str], as_of: "int | Timestamp | None"
) -> str:
    """Return how many there are in each state: "300 sessions: 38 Active, 262 Completed"."""
    counts = Counter(map(str, states))
    text = counted(counts.total(), noun) + as_of_text(as_of)
    if counts:
        text += ": " + ", ".join(f"{counts[it]:,} {it}" for it in order if counts[it])
    return text


def as_of_text(as_of: "int | Timestamp | None") -> str:
    """Return the words for `--as-of`, if it was given."""
    if as_of is None:
        return ""
    if isinstance(as_of, int):
        return f" as of position {as_of}"
    return f" as of {as_of.rfc3339()}"
