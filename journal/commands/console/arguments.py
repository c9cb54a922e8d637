"""The arguments and options that several commands share."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

import journal
from journal.commands.console.output import one_line
from journal.commands.console.typed_times import EXPECTED, epoch_ns_typed, span_ns_typed

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any, Any]
else:
    _ParamType = click.ParamType  # generic since click 8.5

_SHOWN_MAX = 60
_SPAN_NS_MAX = 10_000 * 366 * 86_400 * 1_000_000_000
_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]+))?\s*(?:([kKmMgGtT])(i)?)?[bB]?")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class FileType(click.Path):
    """A file. Whether it exists, can be read, and what it is: that is for whoever opens it.

    As text, it keeps the separator at the end that a folder may be written with.
    """

    def __init__(self, *, allow_dash: bool = False, path_type: type[Path | str] = Path) -> None:
        super().__init__(readable=False, allow_dash=allow_dash, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if not value:
            self.fail("expected the name of a file, found ''", param, ctx)
        return super().convert(value, param, ctx)


class AfterType(_ParamType):
    """A position, or a file that ends at one."""

    name = "position|file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an int or a path."""
        if re.fullmatch("-?[0-9]+", value):
            try:
                return int(value)
            except ValueError:  # Python's limit of digits
                self.fail(f"{_shown(value)} is not a position", param, ctx)
        return FileType().convert(value, param, ctx)


journal_argument = click.argument("path", metavar="JOURNAL", type=FileType())
"""The file, as `path`."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
"""As `as_json`."""


def _shown(value: str) -> str:
    """Return what was typed, for a message: in quotes, on one line, and not too long."""
    return one_line(repr(value if len(value) <= _SHOWN_MAX else f"{value[:_SHOWN_MAX]}..."))


def _instant_typed(text: str) -> Any:
    """Return the `Timestamp` that a text means.

    Raises:
        ValueError: none.
    """
    with suppress(ValueError):
        return journal.Timestamp.parse(text)
    return journal.Timestamp.from_epoch_ns(epoch_ns_typed(text, time.time_ns()))


class TimeType(_ParamType):
    """An instant."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Timestamp`."""
        try:
            return _instant_typed(value)
        except ValueError:
            found = _shown(value)
            self.fail(f"{found} is not a time (expected {EXPECTED})", param, ctx)


def kind_names() -> list[str]:
    """Return the names of the known kinds, whose module takes long to import."""
    from journal.events.kinds import KINDS  # noqa: PLC0415

    return list(KINDS)


class KindType(_ParamType):
    """The name of a kind of event. Any name will do: a file may hold kinds of newer producers."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        if not value:
            self.fail(f"expected a kind of event, one of {', '.join(kind_names())}", param, ctx)
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offer the known kinds."""
        return [CompletionItem(kind) for kind in kind_names() if kind.startswith(incomplete)]


# Those of `journal.SessionState` and `journal.StreamState`, whose module takes long to import.
SESSION_STATES = ("Initializing", "Active", "Closing", "Completed", "Failed")
STREAM_STATES = ("Preparing", "Streaming", "Completed", "Failed", "Cancelled")


class StateType(_ParamType):
    """One of some states, in upper or lower case."""

    name = "state"

    def __init__(self, states: tuple[str, ...]) -> None:
        self._states = states

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the state as it is spelt."""
        spelt = {state.lower(): state for state in self._states}
        if value.lower() not in spelt:
            expected = ", ".join(self._states)
            self.fail(f"{_shown(value)} is not one of {expected}", param, ctx)
        return spelt[value.lower()]

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offer the states."""
        begun = incomplete.lower()
        return [CompletionItem(state) for state in self._states if state.lower().startswith(begun)]


def state_option(states: tuple[str, ...]) -> Callable[[_Command], _Command]:
    """Return the option `state`, one of some states or None."""
    return click.option(
        "--state",
        type=StateType(states),
        metavar="STATE",
        help=f"Only those in this state: {', '.join(states)}.",
    )


read_only_option = click.option(
    "--read-only", is_flag=True, help="Do not store in JOURNAL what is folded for this."
)
"""As `read_only`."""


wide_option = click.option(
    "--wide", is_flag=True, help="Print records: every field in full, on a line of its own."
)
"""As `wide`."""


class AsOfType(_ParamType):
    """A moment: the position of an event, or an instant."""

    name = "position|time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an int or a `Timestamp`."""
        try:
            if value.isascii() and value.isdigit():
                return int(value)
            return _instant_typed(value)
        except ValueError:
            found, expected = _shown(value), f"a number, 0 or more; or {EXPECTED}"
            self.fail(f"{found} is not a position or a time (expected {expected})", param, ctx)


as_of_option = click.option(
    "--as-of",
    type=AsOfType(),
    metavar="POSITION|TIME",
    help="As if events after this position, or with a timestamp later than this, were not there. "
    "Times as for `journal events --since`.",
)
"""As `as_of`."""


class SpanType(_ParamType):
    """A span of time."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it in nanoseconds."""
        span_ns = None
        with suppress(ValueError):
            span_ns = span_ns_typed(value)
        if span_ns is None or span_ns > _SPAN_NS_MAX:
            expected = "like 30d, '1d 12h' or 90s, at most 10,000 years"
            self.fail(f"{_shown(value)} is not a span of time (expected {expected})", param, ctx)
        return span_ns


class SizeType(_ParamType):
    """A size, in bytes or a larger unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it in bytes."""
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            expected = "a number and a unit, like 500MB, 1.5GB or 64MiB; without one, bytes"
            self.fail(f"{_shown(value)} is not a size (expected {expected})", param, ctx)
        whole, below, prefix, binary = found.groups()
        unit = (1_024 if binary else 1_000) ** " kmgt".index((prefix or " ").lower())
        return int(whole) * unit + int((below or "0")[:9]) * unit // 10 ** len((below or "0")[:9])


_ID_DIGITS = 32
_PREFIX_DIGITS_MIN = 4


class PrefixType(_ParamType):
    """An id, or the beginning of one, for `lookups` to look up.

    Args:
        owner: whose id it is: "session" or "stream".
        class_name: the class of the id, which is not imported before it is used.
    """

    name = "id"

    def __init__(self, owner: str, class_name: str) -> None:
        self._owner = owner
        self._class_name = class_name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the id; of a prefix, its hexadecimal digits in lower case."""
        digits = value.replace("-", "").lower()
        if _PREFIX_DIGITS_MIN <= len(digits) < _ID_DIGITS and re.fullmatch("[0-9a-f]+", digits):
            parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
            if value.lower().rstrip("-") in (digits, "-".join(filter(None, parts))):
                return str(digits)
        try:
            return getattr(journal, self._class_name).parse(value)
        except ValueError:
            expected = "32 hexadecimal digits as 8-4-4-4-12, or at least the first 4 of them"
            message = f"{_shown(value)} is not a {self._owner}'s id (expected {expected})"
            self.fail(message, param, ctx)


SESSION = PrefixType("session", "SessionId")
STREAM = PrefixType("stream", "StreamId")
