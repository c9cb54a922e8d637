"""`journal label`: what people call a journal."""

from pathlib import Path

import click

import journal
from journal.commands.console.arguments import journal_argument
from journal.commands.console.group import CommandError
from journal.commands.console.output import Output, one_line
from journal.errors import JournalError

_EPILOG = """\b
Example:
  journal label tests.db pump-7
  journal label tests.db
"""


@click.command(epilog=_EPILOG, short_help="Name a journal, or print its name.")
@journal_argument
@click.argument("name", required=False)
def label(path: Path, name: str | None) -> None:
    """Write NAME into JOURNAL as what people call it, such as the name of the device.

    Without NAME, print the one it has. Shipped files carry it along.
    """
    if name is None:
        output = Output()
        with journal.Journal.open(path, read_only=True) as opened:
            found = opened.label
        if found is None:
            raise CommandError(f"{path}: has no label")
        output.line(one_line(found))
        output.flush()
        return
    with journal.Journal.open(path, read_only=True):  # which makes no file
        pass
    try:
        with journal.Journal.open(path, label=name):
            pass
    except JournalError:  # some are ValueErrors, too
        raise
    except ValueError as error:
        raise click.UsageError(one_line(str(error))) from error
