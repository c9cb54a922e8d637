"""Waiting for locks that others hold."""

import time

import apsw

BUSY_TIMEOUT_MS = 60_000
"""How long a connection waits for a lock; other writers hold it for milliseconds."""

WAIT_MS_MAX = 25
"""How long it waits before it tries again: a millisecond at first, then ever longer."""


def wait_for_locks(connection: apsw.Connection, timeout_ms: int) -> None:
    """Set how long a connection waits at most for locks that others hold.

    Not by SQLite's own busy timeout, which would sleep through an interrupt (Ctrl-C).
    """
    deadline = 0.0

    def wait(attempts: int) -> bool:
        nonlocal deadline
        if attempts == 0:
            deadline = time.monotonic() + timeout_ms / 1000
        time.sleep(min(attempts + 1, WAIT_MS_MAX) / 1000)
        return time.monotonic() < deadline

    connection.set_busy_handler(wait if timeout_ms else None)
