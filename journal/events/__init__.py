"""What an event is: its kinds, models and values, and how its JSON is read and written.

Nothing here knows of storage. The types that a program may name in annotations and `journal` does
not have are here, and imported when they are first used: `journal.events.kinds` is to be had
without the models, which take long to import.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from journal._lazily import imported_lazily

if TYPE_CHECKING:
    from journal.events.event_id import EventId as EventId
    from journal.events.unknown import AnyEvent as AnyEvent
    from journal.events.values import PriorityPercentages as PriorityPercentages

_HOMES = {"AnyEvent": "unknown", "EventId": "event_id", "PriorityPercentages": "values"}


if not TYPE_CHECKING:  # with it, a type checker would believe that every name is here
    __getattr__ = imported_lazily(__name__, _HOMES)


_ABOUT = __doc__


class _Room(ModuleType):
    # This module: its help ends with the table of kinds, which is made when it is asked for.

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        described = import_module("journal.events.describing").kinds_text()
        return f"{_ABOUT or ''}\nThe kinds of events, and what each one carries\n\n{described}\n"


sys.modules[__name__].__class__ = _Room
