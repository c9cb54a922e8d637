"""For tests of programs that use the journal: a disk with faults, and the contract of a store.

`FaultVFS` is a disk that is slow, fails or is full. `EventStoreConformance` is the contract of an
event store as a test class, for this package's stores and for yours; it needs pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from journal.testing.conformance import EventStoreConformance as EventStoreConformance
    from journal.testing.faults import FaultVFS as FaultVFS

_HOMES = {"EventStoreConformance": "conformance", "FaultVFS": "faults"}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list all the same)


if not TYPE_CHECKING:  # with it, a type checker would believe that every name is here

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"journal.testing.{_HOMES[name]}"), name)
