"""How a command ends: what becomes of its errors, of Ctrl-C, and of output that nobody reads."""

import gc
import sys
import traceback
from functools import partial, wraps
from importlib import import_module
from os import PathLike
from typing import Any

import click

from journal._signals import INTERRUPTED
from journal.commands.console.interrupting import Interruption
from journal.commands.console.output import OutputClosed, drop_held_output, one_line, say
from journal.commands.console.waiting import tell_of_waits
from journal.errors import JournalError

_NEEDED = (
    "journal.file.appending",
    "journal.file.connections",
    "journal.journal",
    "journal.live.buffered_commits",
    "journal.live.shared_commits",
    "journal.projections.queries",
    "journal.projections.registry",
)
"""What every command needs to open a journal and to ask it."""

_NEEDED_TOO = {
    "append": ("journal.events.parsing", "journal.file.ndjson"),
    "continue": ("journal.maintenance.continuing",),
    "info": ("journal.file.info",),
    "merge": ("journal.maintenance.merging",),
    "origins": ("journal.maintenance.provenance",),
    "prune": ("journal.maintenance.pruning",),
    "recover": ("journal.maintenance.recovering",),
    "ship": ("journal.maintenance.shipping",),
    "verify": ("journal.maintenance.verifying",),
}
"""What some need besides, by their names."""

LOSSES = 3
"""Exit code: done, with losses that were reported."""


class CommandError(click.ClickException):
    """A failure that is told in one line on standard error; the exit code is 1."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))

    def show(self, file: Any = None) -> None:
        """Say it, to whoever still listens."""
        if file is None:
            say(f"Error: {self.message}")
        else:
            super().show(file)


class JournalGroup(click.Group):
    """A group of commands in the order in which they were added, that ends them all alike."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands, in the order of the help."""
        return list(self.commands)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, whose work begins when all that it needs is loaded.

        A signal then would come where others are at work, who may not like it: pydantic prints that
        it panics.
        """
        command = name or cmd.name or ""
        work = cmd.callback
        assert work is not None  # noqa: S101 (for type checkers)

        @wraps(work)
        def begin(*arguments: Any, **options: Any) -> Any:
            for module in (*_NEEDED, *_NEEDED_TOO.get(command, ())):
                import_module(module)
            if not gc.isenabled():  # as `main` left it: the process is the command's own
                gc.freeze()
                gc.enable()
            tell_of_waits()
            interruption = click.get_current_context().ensure_object(Interruption)
            return interruption.raising(partial(work, *arguments, **options))

        cmd.callback = begin
        super().add_command(cmd, name)

    def main(self, *args: Any, **options: Any) -> Any:
        """Parse the arguments and run; what click itself prints ends as commands do, too."""
        try:
            with Interruption() as interruption:
                return super().main(*args, **options, obj=interruption)
        except OSError as error:  # of --help, --version and completion
            CommandError(os_error_text(error, "standard output")).show()
            drop_held_output()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; no traceback leaves this without --debug."""
        interruption = ctx.ensure_object(Interruption)
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, click.UsageError):
            raise
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except Exception as error:
            told = isinstance(error, click.ClickException | JournalError | OSError)
            if _came_of_an_interrupt(error) or (interruption.taken and not told):
                ctx.exit(INTERRUPTED)  # pydantic, say, gives a KeyboardInterrupt another name
            if isinstance(error, OutputClosed):
                ctx.exit(0)
            if ctx.params["debug"]:
                say(traceback.format_exc())
            if isinstance(error, OSError):
                drop_held_output()
            raise command_error(error) from error


def _came_of_an_interrupt(error: BaseException) -> bool:
    """Return whether it is only what closing the files met, as where the terminal is gone."""
    before = error.__context__
    return before is not None and (
        isinstance(before, KeyboardInterrupt) or _came_of_an_interrupt(before)
    )


def command_error(error: Exception) -> click.ClickException:
    """Return what is to be told of an error."""
    match error:
        case click.ClickException():
            return error
        case JournalError():
            return CommandError(str(error))
        case OSError():
            return CommandError(os_error_text(error))
        case _:
            return CommandError(
                f"unexpected {type(error).__name__}: {error} "
                "(a mistake in journal itself; --debug before the command's name shows where)"
            )


def os_error_text(error: OSError, name: str | None = None) -> str:
    """Return which file it is, `name` where the error does not tell, and what went wrong."""
    reason = error.strerror or str(error)
    reason = reason[:1].lower() + reason[1:]
    if isinstance(error.filename, str | PathLike):
        name = str(error.filename)
    return f"{name}: {reason}" if name else reason
