"""The `journal` command.

Each command is a module of its own; `group` decides how any of them ends, `arguments` holds the
types of options that several share, `output` writes. Help, version and shell completion must not
wait for the models: modules here import `journal`, which costs nothing until something of it is
used, and of the modules beneath it only `errors` and `kinds`, but for type checkers.
"""

import click

from journal._version import VERSION
from journal.commands.anomalies import anomalies
from journal.commands.append import append
from journal.commands.console.group import JournalGroup
from journal.commands.continue_ import continue_
from journal.commands.events import events
from journal.commands.info import info
from journal.commands.kinds import kinds
from journal.commands.label import label
from journal.commands.merge import merge
from journal.commands.origins import origins
from journal.commands.projections import projections
from journal.commands.prune import prune
from journal.commands.rebuild import rebuild
from journal.commands.recover import recover
from journal.commands.session import session
from journal.commands.sessions import sessions
from journal.commands.ship import ship
from journal.commands.streams import streams
from journal.commands.verify import verify

_EPILOG = """\b
Example:
  journal append tests.db events.ndjson
  journal events tests.db --type stream_failed --json
  journal sessions tests.db --state Active
  journal info tests.db

\b
Exit codes:
  0    done
  1    failed; standard error says why. Or not sound (verify)
  2    wrong usage
  3    done, with losses (append --on-error skip, recover), differences
       (rebuild) or open ends (merge, origins) that were reported
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP; on Windows Ctrl-Break)

\b
Shell completion (zsh_source and fish_source for other shells):
  eval "$(_JOURNAL_COMPLETE=bash_source journal)"
"""


@click.group(cls=JournalGroup, epilog=_EPILOG)
@click.version_option(VERSION, prog_name="journal", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(*, debug: bool) -> None:
    """Append events to a journal, one SQLite file, and see what sessions and streams have become.

    Data goes to standard output, everything else to standard error. Only `append` makes a
    journal of events, only `append`, `label`, `prune`, `rebuild` and `merge` write to one; `ship`
    makes a closed copy, `continue` a journal that goes on from one, `merge` one of many.
    """


for _command in (
    *(append, events, kinds),
    *(sessions, streams, session, anomalies, projections, rebuild),
    *(info, label, verify, ship, continue_, recover, prune, merge, origins),
):
    cli.add_command(_command)
