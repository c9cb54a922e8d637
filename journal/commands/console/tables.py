"""Tables that a person can read on a terminal of eighty columns, and the words below them."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from journal.commands.console.output import Output, counted, one_line, size_text
from journal.commands.console.times import duration_text, moment_text
from journal.commands.console.widths import padded, shortened, width_of, wrapped

if TYPE_CHECKING:
    from journal import Timestamp
    from journal.projections import StreamStatus

NOTHING = "-"
"""What stands where there is no value."""

TEXT_MAX = 200
"""How much of a long text, in characters, is shown in a table that has room for it."""

_LAST_WIDTH_MIN = {"cut": 12, "wrap": 24}

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
        kind: numbers stand to the right, states have colours, dates lose their time of day where
            room is short. Of the last column, "cut" and "wrap" say what becomes of a text that is
            too long.
        optional: whether it is left out when all its cells are empty.
        spare: where room is short, the columns with 1 are left out first, then those with 2, ...;
            0: never.
    """

    title: str
    kind: Literal["text", "number", "state", "time", "cut", "wrap"] = "text"
    optional: bool = False
    spare: int = 0


class Look(NamedTuple):
    """What the screen sets: its width and height (None: no limit), and whether it has colours."""

    width: int | None
    colour: bool
    height: int | None = None

    def styled(self, text: str, state: str) -> str:
        """Return the text in the colour of a state."""
        if not self.colour or state not in _COLOURS:
            return text
        return click.style(text, fg=_COLOURS[state])


def look_of(output: Output) -> Look:
    """Return how tables look on standard output: plain and unlimited unless it is a terminal."""
    if not output.is_terminal:
        return Look(None, colour=False)
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and os.name != "nt"
    size = shutil.get_terminal_size()
    return Look(size.columns, colour=colour, height=size.lines)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], look: Look) -> list[str]:
    """Return a header and the rows, each as one text; a row that is wrapped holds line ends."""
    return Table(columns, look).lines(rows)


def without_middle(lines: Sequence[str], lines_max: int, noun: str, hidden: int = 0) -> list[str]:
    """Return a table of at most `lines_max` lines below its header, and say what is left out.

    Args:
        lines: the header and the rows.
        lines_max: 3 or more.
        noun: what a row is.
        hidden: how many rows in the middle are not among them.
    """
    header, *rows = lines
    if not hidden and sum(map(_height, rows)) <= lines_max:
        return list(lines)
    last = _fitting(rows[:0:-1], (lines_max - 1) * 2 // 3)
    lines_left = lines_max - 1 - sum(map(_height, rows[len(rows) - last :]))
    first = _fitting(rows[: len(rows) - last - (not hidden)], lines_left)
    left_out = len(rows) - first - last + hidden
    verb = "is" if left_out == 1 else "are"
    note = f"... {counted(left_out, noun)} {verb} left out; a pipe, as to less, gets all ..."
    return [header, *rows[:first], note, *rows[len(rows) - last :]]


def _fitting(rows: Iterable[str], lines_max: int) -> int:
    """Return how many of the rows fit; at least one."""
    heights = accumulate(map(_height, rows))
    return max(1, sum(height <= lines_max for height in heights))


def _height(row: str) -> int:
    return row.count("\n") + 1


class Table:
    """A table that is made page by page; the columns stand where the first page wants them.

    A later page gets wider ones where it needs them, and a header of its own where others are shown
    than before.
    """

    def __init__(self, columns: Sequence[Column], look: Look) -> None:
        self._columns = columns
        self._look = look
        self._widths = [width_of(column.title) for column in columns]
        self._date_widths = list(self._widths)
        self._filled = [not column.optional for column in columns]
        self._tight = self._only_dates = False
        self._shown: list[int] = []

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return the rows of a page as text."""
        for row in rows:
            for place, cell in enumerate(row):
                self._filled[place] |= bool(cell)
                self._widths[place] = max(self._widths[place], width_of(cell))
                if self._columns[place].kind == "time":
                    dated = max(self._date_widths[place], len(_without_clock(cell)))
                    self._date_widths[place] = dated
        before, self._shown = self._shown, [it for it, filled in enumerate(self._filled) if filled]
        if self._look.width is not None:
            self._fit(self._look.width)
        lines = [self._line(row, self._look) for row in rows]
        if self._shown != before:
            titles = [column.title for column in self._columns]
            lines.insert(0, self._line(titles, Look(self._look.width, colour=False)))
        return lines

    def _fit(self, width: int) -> None:
        """Do without what can be missed, until a line fits."""
        self._tight |= self._needed() > width
        self._only_dates |= self._needed() > width
        for spare in sorted({column.spare for column in self._columns} - {0}):
            if self._needed() > width:
                self._shown = [it for it in self._shown if self._columns[it].spare != spare]

    def _needed(self) -> int:
        last = self._shown[-1]
        width = self._width(last)
        return self._indent() + min(width, _LAST_WIDTH_MIN.get(self._columns[last].kind, width))

    def _width(self, place: int) -> int:
        dated = self._only_dates and self._columns[place].kind == "time"
        return (self._date_widths if dated else self._widths)[place]

    def _indent(self) -> int:
        """Return where the last column begins."""
        return sum(map(self._width, self._shown[:-1])) + sum(
            self._gap(*pair) for pair in zip(self._shown, self._shown[1:], strict=False)
        )

    def _gap(self, left: int, right: int) -> int:
        """Return how many spaces part columns; few where room is short and titles give some."""
        kinds = self._columns[left].kind, self._columns[right].kind
        return 1 if self._tight and kinds == ("number", "number") else 2

    def _line(self, cells: Sequence[str], look: Look) -> str:
        """Return a row as text."""
        line = ""
        for before, place in zip((None, *self._shown), self._shown, strict=False):
            column, cell = self._columns[place], cells[place]
            if column.kind == "time" and self._only_dates:
                cell = _without_clock(cell)
            if column.kind in ("cut", "wrap"):
                text = self._fitted(cell, column.kind)
            else:
                text = padded(cell, self._width(place), right=column.kind == "number")
            if column.kind == "state":
                text = look.styled(text, cell)
            line += " " * (0 if before is None else self._gap(before, place)) + text
        return line.rstrip()

    def _fitted(self, cell: str, kind: str) -> str:
        if self._look.width is None:
            return cell
        indent = self._indent()
        room = max(self._look.width - indent, _LAST_WIDTH_MIN["cut"])
        if kind == "cut":
            return shortened(cell, room)
        return f"\n{' ' * indent}".join(wrapped(cell, room))


def _without_clock(cell: str) -> str:
    """Return the date of "2026-01-31 12:00", and every other text as it is."""
    return cell[:10] if len(cell) == 16 and cell[4] == "-" else cell


# What stands in the cells


def time_text(moment: "Timestamp | None", now_ns: int) -> str:
    """Return how long ago a time was, or its date."""
    return NOTHING if moment is None else moment_text(moment.epoch_ns, now_ns)


def lasted_text(began: "Timestamp | None", ended: "Timestamp | None") -> str:
    """Return how long something took that has ended."""
    if began is None or ended is None:
        return NOTHING
    return duration_text(ended.epoch_ns - began.epoch_ns)


def few_text(number: int) -> str:
    """Return a number that is usually 0, which is then left out."""
    return f"{number:,}" if number else ""


def bytes_text(size_bytes: int) -> str:
    """Return a size, for a column of sizes: "0", "139 B", "56 kB"."""
    if not size_bytes:
        return "0"
    return f"{size_bytes} B" if size_bytes < 1000 else size_text(size_bytes)


def told(text: str, characters_max: int = TEXT_MAX) -> str:
    """Return a text of any length in one line, which is never empty, and says if it was longer."""
    told = one_line(text[:characters_max])
    if len(text) > characters_max:
        told += f"… ({len(text):,} characters, --json has all)"
    return told or '""'


def with_error_told(stream: "StreamStatus") -> "StreamStatus":
    """Return a stream whose error is what a table says of it: pages of them are held in memory."""
    if stream.error is None:
        return stream
    return stream.model_copy(update={"error": told(stream.error)})


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
