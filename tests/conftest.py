"""What holds for every test: signals reach the processes that it starts, none outlives it, and one
that draws at random says how to draw the same again."""

import signal
from collections.abc import Generator, Iterator

import pytest
import support
from commands_support import end_all
from hypothesis import HealthCheck, settings
from prune_support import small_blocks

from journal import limits
from journal.maintenance import placement

# How long an example takes says how busy the machine is; and what is drawn without being asked for
# more is the same each time, so that a test does not fail by luck.
settings.register_profile(
    "without clock and luck",
    deadline=None,
    max_examples=30 * support.ROUNDS,
    derandomize=support.ROUNDS == 1,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("without clock and luck")


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


@pytest.fixture
def blocks_of_fifty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small blocks, and fold in small steps, so that few events are many of them."""
    small_blocks(monkeypatch)


@pytest.fixture
def small_merge_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have blocks of ten events, and merge fifteen at a time."""
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)
    monkeypatch.setattr(placement, "_EVENTS_AT_ONCE", 15)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a long test that failed how to run it once more."""
    report = yield
    if report.failed and item.get_closest_marker("slow") and hasattr(item, "callspec"):
        seed = item.callspec.params.get("seed", support.FIRST_SEED)
        rounds = 1 if "seed" in item.callspec.params else support.LONG_ROUNDS
        test = item.nodeid.partition("[")[0]
        command = f"JOURNAL_TEST_SEED={seed} JOURNAL_TEST_ROUNDS={rounds}"
        report.sections.append(("again", f"{command} python -m pytest -m slow {test}"))
    return report
