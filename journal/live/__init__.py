"""What is going on while a journal is open: appends that share their commits.

The types of what `Journal.submit` and `AsyncJournal.submit` return are to be imported from here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journal.live.async_journal import AsyncTicket as AsyncTicket
    from journal.live.tickets import Ticket as Ticket

_HOMES = {"AsyncTicket": "async_journal", "Ticket": "tickets"}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list all the same)


if not TYPE_CHECKING:  # with it, a type checker would believe that every name is here

    def __getattr__(name: str) -> Any:  # not everybody needs asyncio
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"journal.live.{_HOMES[name]}"), name)
