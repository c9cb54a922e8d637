"""For tests of programs that use the journal: a disk with faults, and the contract of a store.

`FaultVFS` is a disk that is slow, fails or is full. `EventStoreConformance` is the contract of an
event store as a test class, for this package's stores and for yours; it needs pytest.
"""

from typing import TYPE_CHECKING

from journal._lazily import imported_lazily

if TYPE_CHECKING:
    from journal.testing.conformance import EventStoreConformance as EventStoreConformance
    from journal.testing.faults import FaultVFS as FaultVFS

_HOMES = {"EventStoreConformance": "conformance", "FaultVFS": "faults"}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list all the same)


if not TYPE_CHECKING:  # with it, a type checker would believe that every name is here
    __getattr__ = imported_lazily(__name__, _HOMES)
