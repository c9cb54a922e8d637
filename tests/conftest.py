"""What holds for every test: signals reach the processes that it starts, and none outlives it."""

import signal
from collections.abc import Iterator

import pytest
from commands_support import end_all


@pytest.fixture(autouse=True)
def _signals_reach_processes() -> Iterator[None]:
    """A background job of a script ignores SIGINT, and so would every process that it starts."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in map(signal.Signals.__getitem__, names)}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    yield
    end_all()
