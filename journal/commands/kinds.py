"""`journal kinds`: the kinds of events and what they carry."""

import click

from journal.commands.console.arguments import json_option
from journal.commands.console.output import Output

_EPILOG = """\b
Example:
  journal kinds
  journal kinds --json
"""


@click.command(epilog=_EPILOG, short_help="List the kinds of events and their fields.")
@json_option
def kinds(*, as_json: bool) -> None:
    """List the kinds of events that this version knows: what each one means, and its own fields.

    Each field has its type and, where it counts something, the unit. `help(journal.events)` in
    Python shows the same.
    """
    from journal.events.describing import kinds_json, kinds_text  # noqa: PLC0415 (takes long)

    output = Output()
    if as_json:
        for kind in kinds_json():
            output.json_line(kind)
    else:
        output.line(kinds_text())
    output.flush()
