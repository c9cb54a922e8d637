"""Retention: pruning by itself, a little at a time, as an open journal seals blocks."""

import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from journal import limits
from journal.errors import BusyError
from journal.file.appending import Appender
from journal.maintenance.prune_rules import names_given_up, rule_of, span_ns
from journal.maintenance.pruning import Pruner, Wanted

_STEPS_SECONDS: Final = 0.002
"""After so long, no further step is made, unless the append was large or much is left to do."""

_STEPS_A_BLOCK: Final = 9
"""It takes two steps to fold a block, three to six to make its cut ready, and one to make it, where
nothing else is to be done. Whoever falls behind all the same makes whole cuts; see `_make_steps`.
"""

_STEPS_A_CUT_MAX: Final = 12
"""Then so many steps are made for each: a file of which little is folded takes more."""

_WAIT_MS: Final = 10
"""How long to wait for other writers: the next append tries again."""


@dataclass(frozen=True)
class Retention:
    """What a journal keeps; the rest is pruned by itself. One of the first three is given.

    It takes whole sealed blocks of a thousand events or fewer, so some more are kept.

    Attributes:
        keep_events: how many of the latest events are kept.
        keep_bytes: how large the file may get, without its -wal. It gets larger by some blocks,
            and where what stays takes more: some 400 bytes for each session or stream that has not
            ended, some 120 for each key, and the states of an application's own projections. Then
            every sealed block goes, and the file is still larger.
        keep_age: how long events are kept, by their timestamps; see `Journal.prune`.
        keep_open: keep everything from the first event of an open session on.
        give_up: the projections and subscriptions that need not have come so far.
        forget_keys_older_than: forget the keys of pruned events that were used longer ago.
    """

    keep_events: int | None = None
    keep_bytes: int | None = None
    keep_age: timedelta | None = None
    keep_open: bool = False
    give_up: tuple[str, ...] = ()
    forget_keys_older_than: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse what is no retention."""
        self.wanted()

    def wanted(self) -> Wanted:
        """Return what is to be pruned.

        Raises:
            ValueError: it is not one rule, or a value is not what it should be.
        """
        rule = rule_of(
            keep_events=self.keep_events, keep_bytes=self.keep_bytes, keep_age=self.keep_age
        )
        keys_ns = span_ns("forget_keys_older_than", self.forget_keys_older_than)
        return Wanted(rule, self.keep_open, names_given_up(self.give_up), keys_ns)


def check_retention(retention: object, *, read_only: bool) -> None:
    """Refuse what no journal can be opened with.

    Raises:
        TypeError: it is no `Retention`.
        ValueError: nothing can be pruned.
    """
    if not isinstance(retention, Retention):
        raise TypeError(f"retention: expected a Retention, found {retention!r}")
    if read_only:
        raise ValueError("retention: nothing can be pruned with read_only")


class Retainer:
    """Prunes after appends, as a `Retention` says. Threads may share it."""

    def __init__(self, appender: Appender, pruner: Pruner, retention: Retention) -> None:
        self.failure: Exception | None = None
        """Why the latest step was not made; None: it was."""
        self._appender = appender
        self._pruner = pruner
        self._wanted = retention.wanted()
        self._lock = threading.Lock()
        self._is_due = True
        self._open_block = 0

    def after_append(self, event_count: int, data_size: int) -> None:
        """Prune what is due, if the append has sealed a block or there was more to do before.

        Nothing that goes wrong comes out of it: the append has succeeded.

        Args:
            event_count: how many events were appended.
            data_size: how many characters of data they have; a block is full by either.
        """
        is_sealed = self._appender.open_block != self._open_block
        if not (is_sealed or self._is_due) or not self._lock.acquire(blocking=False):
            return
        try:
            self._open_block = self._appender.open_block
            self._is_due = False
            by_count, by_size = limits.BLOCK_EVENTS_MAX, limits.BLOCK_DATA_MAX
            self._make_steps(event_count / by_count + data_size / by_size)
            self.failure = None
        except BusyError as error:
            self.failure = error
            self._is_due = True
        except Exception as error:  # noqa: BLE001 (whatever it was, the append has succeeded)
            self.failure = error
        except BaseException:  # an interrupt
            self._is_due = True
            raise
        finally:
            self._lock.release()

    def at_the_end(self) -> None:
        """Overwrite what is left of deleted texts, if nobody else reads or writes just now.

        Raises:
            JournalError: those of `Database.write`.
        """
        self._pruner.erase()

    def _make_steps(self, blocks: float) -> None:
        """Make some steps; who has appended so many blocks makes more.

        Where several blocks should have gone already, it makes one cut more than there are new
        blocks. So the file is bounded where the steps are not enough: where many projections of an
        application's are folded, where others write more, and where each handle is soon closed,
        as what it has made ready is lost with it.
        """
        began, now_ns = time.monotonic(), time.time_ns()
        count_min = 1 + int(_STEPS_A_BLOCK * blocks)
        cuts_min = 1 + int(blocks) if self._pruner.is_far_behind(self._wanted, now_ns) else 0
        count = cut_count = 0
        is_more = True
        while is_more and (
            count < count_min
            or (cut_count < cuts_min and count < _STEPS_A_CUT_MAX * cuts_min)
            or time.monotonic() < began + _STEPS_SECONDS
        ):
            step = self._pruner.cut_once(
                self._wanted, now_ns, events_max=0, wait_ms=_WAIT_MS, by_itself=True
            )
            is_more = step.is_more
            count += 1
            cut_count += step.cut is not None
        is_too_large = self._pruner.give_back_some(_WAIT_MS)
        is_bounded = self._wanted.rule.keep_bytes is not None
        while is_bounded and is_too_large and time.monotonic() < began + _STEPS_SECONDS:
            is_too_large = self._pruner.give_back_some(_WAIT_MS)
        self._is_due = is_more or (is_bounded and is_too_large)
        if self._wanted.forget_keys_ns is not None:
            self._pruner.forget_some_keys(self._wanted.forget_keys_ns, now_ns, _WAIT_MS)
