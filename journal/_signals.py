"""The signals that end the command, which is ready for them before anything else is loaded."""

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
"""Exit code: ended by one of these signals."""

_NAMES = "SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"  # Windows has no SIGHUP, and alone SIGBREAK
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def handled_signals() -> Iterator[signal.Signals]:
    """Yield those that this process is to heed: what its parent had it ignore stays ignored.

    A shell does so for SIGINT in background jobs of a script, nohup for SIGHUP.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            yield number


def end_at_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """End the process: nothing is open, and nothing to be said."""
    os._exit(INTERRUPTED)


def handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Have `handler` called for each of these signals from now on."""
    for number in handled_signals():
        signal.signal(number, handler)
