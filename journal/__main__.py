"""Run the `journal` command: as `journal`, or as `python -m journal`."""

import signal


def main() -> None:
    """Run the command with the arguments of this process, and exit.

    Ctrl-C never shows a traceback: while the command is loaded it ends the process as the system
    does, and once all is done it is too late to matter.
    """
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from journal.commands import cli  # noqa: PLC0415 (it takes a while)

    try:
        if listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli(prog_name="journal")
    finally:
        if listens:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
