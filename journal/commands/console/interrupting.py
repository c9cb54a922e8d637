"""What ends a command from outside: Ctrl-C, SIGTERM and SIGHUP, on Windows Ctrl-Break, all alike.

Which of three things a signal does depends on what the command is at:

- Nothing yet, or nothing any more: it ends the process. click, which is at work then, would say
  "Aborted!" and exit with 1.
- Its work, inside `raising`: it raises KeyboardInterrupt, once, so that every file is closed.
- Work that wants to end well, inside `asking`: it is told, and goes on to where that is.

A second signal ends the process at once. That is safe: what is not committed is not there. One that
comes within half a second of the first is no second one: closing a terminal sends two, and so do
systemd (SendSIGHUP) and programs that pass on the Ctrl-C that the terminal has sent to all.
"""

import _thread
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar

import click

from journal._signals import INTERRUPTED, end_at_once, handled_signals

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SECOND_SECONDS: Final = 0.5
_LOST: Final = b"\0"  # written where a signal writes its number
_LOST_SECONDS: Final = 0.01

_Result = TypeVar("_Result")


class Interruption:
    """In a `with` block, decides what the signals do. Only the main thread can make it decide.

    Signals are also seen by a thread, since Python's own handlers run only when the main thread is
    in Python code, and it may be waiting for a lock of the file for a minute.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._does: Literal["end", "raise", "ask"] = "end"
        self._taken: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Start listening."""
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the business of the main thread
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        threading.Thread(target=self._listen, name="journal-signals", daemon=True).start()
        self._wakeup_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._ignored
        for number in handled_signals():
            self._before[number] = signal.getsignal(number) or signal.SIG_DFL
            signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        sys.unraisablehook = self._hook_before
        signal.set_wakeup_fd(self._wakeup_before)
        self._sender.close()

    @property
    def taken(self) -> bool:
        """Whether a signal has come."""
        return self._taken is not None

    def raising(self, work: Callable[[], _Result]) -> _Result:
        """Return what `work` does; in there, a signal raises KeyboardInterrupt."""
        try:
            self._does = "raise"
            return work()
        finally:
            self._does = "end"

    @contextmanager
    def asking(self) -> Iterator[threading.Event]:
        """Inside `raising`, in this `with` block, a signal sets an event instead."""
        before, self._does = self._does, "ask"
        try:
            yield self._requested
        finally:
            self._does = before
            if self._taken is not None:  # the thread may not have come to it yet
                self._requested.set()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._does == "end":
            end_at_once(number, frame)
        if self._taken is None:
            self._taken = number
            if self._does == "raise":
                raise KeyboardInterrupt

    def _listen(self) -> None:
        first: float | None = None
        with self._receiver:
            while received := self._receiver.recv(1):
                if received == _LOST:
                    self._raise_again(self._receiver.recv(1))
                elif received[0] not in self._before:
                    continue
                elif first is None:
                    first = time.monotonic()
                    self._requested.set()
                elif time.monotonic() - first >= _SECOND_SECONDS:
                    os._exit(INTERRUPTED)

    def _ignored(self, unraisable: "UnraisableHookArgs") -> None:
        """Take notice of a KeyboardInterrupt that came where Python prints it and goes on.

        That is in what is called when an object goes away; each import has something of the kind.
        """
        if self._taken is None:
            self._hook_before(unraisable)
        elif issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._sender.send(_LOST + bytes([self._taken]))
            self._taken = None
        elif not issubclass(unraisable.exc_type, ResourceWarning):  # what it came between
            self._hook_before(unraisable)

    def _raise_again(self, number: bytes) -> None:
        """Have the main thread take a signal, once it is out of there."""
        time.sleep(_LOST_SECONDS)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, number[0])
        else:  # which does not end a sleep
            _thread.interrupt_main(signal.Signals(number[0]))
        self._receiver.recv(1)  # a signal of our own is written here, too


pass_interruption = click.make_pass_decorator(Interruption, ensure=True)
"""Gives a command the one that is in charge."""
