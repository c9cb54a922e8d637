"""Forks: nobody is inside SQLite while this process is copied, and the copy forgets the files.

SQLite's global mutexes are copied as they are: a child that was forked while another thread held
one would wait for ever. And a child must neither use nor close what it inherited as if it were its
own: SQLite would believe to hold locks that only the parent has.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

_WAIT_SECONDS = 2.0
"""How long a fork waits for other threads to leave SQLite; they are in it for milliseconds."""


class _Gate:
    """Counts the threads that are inside SQLite, and lets none in while this process forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # entered by itself, it takes a fifth of the time
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._mine = threading.local()
        self._is_forking = False
        self.waited_in_vain = False

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside SQLite; the same thread may be so several times."""
        depth = getattr(self._mine, "depth", 0)
        is_counted = False
        try:  # an interrupt may come after any call, that which gives the lock back among them
            with self._lock:
                while self._is_forking and not depth:
                    self._changed.wait()
                self._inside += 1
                is_counted = True
            self._mine.depth = depth + 1
            yield
        finally:
            if is_counted:
                self._mine.depth = depth
                with self._lock:
                    self._inside -= 1
                    if self._is_forking:
                        self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until no other thread is inside, and let none in."""
        deadline = time.monotonic() + _WAIT_SECONDS
        mine = getattr(self._mine, "depth", 0)
        with self._changed:
            self._is_forking = True
            while self._inside > mine and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            self.waited_in_vain = self._inside > 0

    def after_fork(self) -> None:
        """Let the others in again."""
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()


_gate = _Gate()
_in_child: list[Callable[[], None]] = []

is_refused = False
"""Whether this process was forked while somebody was inside SQLite: it cannot use it safely."""


def inside_sqlite() -> AbstractContextManager[None]:
    """Have forks wait while the block lasts; it should last for milliseconds."""
    return _gate.inside()


def in_child(function: Callable[[], None]) -> None:
    """Have a function called in every process that is forked from this one."""
    _in_child.append(function)


def _before() -> None:
    _gate.before_fork()


def _after_in_parent() -> None:
    _gate.after_fork()


def _after_in_child() -> None:
    global _gate, is_refused  # noqa: PLW0603
    is_refused = is_refused or _gate.waited_in_vain
    _gate = _Gate()
    for function in _in_child:
        function()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
