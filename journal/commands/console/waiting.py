"""A word on a terminal while a command waits for another process."""

import sys

from journal.commands.console.output import one_line, say


def tell_of_waits() -> None:
    """Say what the journal logs of its waits, if standard error is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return
    import logging  # noqa: PLC0415 (it takes some milliseconds)

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(one_line(record.getMessage()))

    logger = logging.getLogger("journal")
    logger.setLevel(logging.INFO)
    logger.handlers = [Said()]
