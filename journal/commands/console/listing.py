"""What the commands that list sessions or streams share: order, how many, and a tally."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from journal.commands.console.arguments import (
    as_of_option,
    json_option,
    read_only_option,
    state_option,
    wide_option,
)
from journal.commands.console.output import Output
from journal.commands.console.records import records
from journal.commands.console.tables import anomalies_text, states_text

if TYPE_CHECKING:
    from pydantic import BaseModel

    from journal import Timestamp
    from journal.projections import SessionStatus, StreamStatus

    _Status = TypeVar("_Status", SessionStatus, StreamStatus)

_Command = TypeVar("_Command", bound=Callable[..., Any])

# Those of `journal.projections.listing`, whose module takes long to import.
SESSION_ORDERS = ("oldest", "newest", "ended", "events", "streams", "failed", "anomalies")
STREAM_ORDERS = ("oldest", "newest", "ended", "events", "frames", "bytes", "anomalies")


def listing_options(
    states: tuple[str, ...], orders: Sequence[str]
) -> Callable[[_Command], _Command]:
    """Return all options of a list, from `state` to `read_only`."""
    sort = click.option(
        "--sort",
        type=click.Choice(orders, case_sensitive=False),
        metavar="ORDER",
        help="oldest, newest: by their first events. ended: latest first, those that have not ended"
        f" at the end. {', '.join(orders[3:])}: largest number first. Without it, newest on a"
        " terminal, else (pipe, file, --json) oldest.",
    )
    limit = click.option(
        "--limit",
        type=click.IntRange(min=0),
        metavar="N",
        help="At most N rows, the first in that order.",
    )
    last = click.option(
        "--last",
        type=click.IntRange(min=0),
        metavar="N",
        help="The N that began last, newest first: --sort newest --limit N.",
    )
    shared = (as_of_option, json_option, wide_option, read_only_option)

    def add(command: _Command) -> _Command:
        for option in reversed(shared):
            command = option(command)
        return state_option(states)(sort(limit(last(command))))

    return add


def order_and_limit(
    sort: str | None, limit: int | None, last: int | None, *, for_people: bool
) -> tuple[Any, int | None]:
    """Return which order the options ask for, and how many rows at most.

    Raises:
        UsageError: they contradict each other.
    """
    if last is None:
        return sort or ("newest" if for_people else "oldest"), limit
    if sort is not None or limit is not None:
        raise click.UsageError("--last goes without --sort and --limit")
    return "newest", last


def print_list(
    output: Output,
    found: "Iterable[BaseModel]",
    table: Callable[[], Iterator[str]],
    *,
    as_json: bool,
    wide: bool,
) -> None:
    """Write what was found: as JSON, as records, or as the table that `table` makes of it."""
    if as_json:
        for one in found:
            output.json_line(one.model_dump(mode="json"))
        return
    for line in records(found) if wide else table():
        output.line(line)


class Tally:
    """Counts what goes by, for the words below a list."""

    def __init__(self) -> None:
        self._states: Counter[str] = Counter()
        self._anomalies = 0

    def counting(self, statuses: "Iterable[_Status]") -> "Iterator[_Status]":
        """Yield them, and count their states and anomalies."""
        for status in statuses:
            self._states[str(status.state)] += 1
            self._anomalies += status.anomalies
            yield status

    def text(self, noun: str, states: Sequence[str], as_of: "int | Timestamp | None") -> str:
        """Return how many there were: "300 sessions: 38 Active, 262 Completed; 2 anomalies"."""
        text = states_text(noun, self._states.elements(), states, as_of)
        return text + (f"; {anomalies_text(self._anomalies)}" if self._anomalies else "")
