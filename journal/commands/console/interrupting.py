"""Ctrl-C and SIGTERM for work that wants to end well: the first asks for it, the second insists."""

import os
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import Self

from journal.commands.console.group import INTERRUPTED


class Interruption:
    """In a `with` block, makes a signal set `requested` instead of raising KeyboardInterrupt.

    A second signal ends the process at once. That is safe: what is not committed is not there.
    Signals are seen by a thread, since Python's own handlers run only when the main thread is in
    Python code, and it may be waiting for a lock of the file for a minute.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Start listening."""
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the business of the main thread
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="journal-signals", daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # a script's background job: let it be
                self._before[number] = before or signal.SIG_DFL
                signal.signal(number, _noticed)
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
        signal.set_wakeup_fd(self._wakeup_before)
        self._sender.close()

    def _listen(self) -> None:
        with self._receiver:
            while number := self._receiver.recv(1):
                if number[0] not in self._before:
                    continue
                if self.requested.is_set():
                    os._exit(INTERRUPTED)
                self.requested.set()


def _noticed(number: int, frame: FrameType | None) -> None:
    """Do nothing: the signal has been written to the socket already."""
