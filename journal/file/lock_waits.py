"""Waiting for locks that others hold."""

import time
from pathlib import Path

import apsw

BUSY_TIMEOUT_MS = 60_000
"""How long a connection waits for a lock; other writers hold it for milliseconds."""

WAIT_MS_MAX = 25
"""How long it waits before it tries again: a millisecond at first, then ever longer."""


_SAID_AFTER_SECONDS = 1.0


class Wait:
    """A wait for another process that writes to a file; one that takes long is logged, once."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._say_at: float | None = time.monotonic() + _SAID_AFTER_SECONDS

    def goes_on(self, now: float) -> None:
        """Log it if it is time for that, by the monotonic clock."""
        if self._say_at is None or now < self._say_at:
            return
        self._say_at = None
        import logging  # noqa: PLC0415 (hardly ever)

        text = "waiting for another process that is writing to %s, for a minute at most"
        logging.getLogger("journal").info(text, self._path)


def wait_for_locks(connection: apsw.Connection, timeout_ms: int) -> None:
    """Set how long a connection waits at most for locks that others hold.

    Not by SQLite's own busy timeout, which would sleep through an interrupt (Ctrl-C).
    """
    deadline = 0.0
    path = connection.filename  # the function must not hold the connection, which holds it
    lasting = Wait(path)

    def wait(attempts: int) -> bool:
        nonlocal deadline, lasting
        if attempts == 0:
            deadline = time.monotonic() + timeout_ms / 1000
            lasting = Wait(path)
        time.sleep(min(attempts + 1, WAIT_MS_MAX) / 1000)
        now = time.monotonic()
        lasting.goes_on(now)
        return now < deadline

    connection.set_busy_handler(wait if timeout_ms else None)
