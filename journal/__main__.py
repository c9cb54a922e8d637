"""Run the `journal` command: as `journal`, or as `python -m journal`."""

import gc
import os
import signal

from journal._signals import end_at_once, handle


def main() -> None:
    """Run the command with the arguments of this process, and exit.

    A signal never shows a traceback. While the command is loaded it ends the process at once, with
    exit code 130; `Interruption` decides from then on; and when all is done it is too late.
    """
    try:
        handle(end_at_once)
    except KeyboardInterrupt:
        end_at_once(signal.SIGINT, None)
    # What is loaded stays: to look for what does not would take a fifth of the time until the work
    # begins. To look for plugins takes the longer the more packages are installed.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from journal.commands import cli  # noqa: PLC0415 (it takes a while)

    try:
        cli(prog_name="journal")
    finally:
        handle(signal.SIG_IGN)


if __name__ == "__main__":
    main()
