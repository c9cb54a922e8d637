"""Whole files: verifying and pruning them, and making others from them.

The types of what `Journal` returns of them are to be imported from here.
"""

from typing import TYPE_CHECKING

from journal._lazily import imported_lazily

if TYPE_CHECKING:
    from journal.maintenance.continuing import Continued as Continued
    from journal.maintenance.manifest import AbsentRange as AbsentRange
    from journal.maintenance.manifest import Shipment as Shipment
    from journal.maintenance.merging import Merged as Merged
    from journal.maintenance.merging import WaitingPart as WaitingPart
    from journal.maintenance.provenance import MergedOrigin as MergedOrigin
    from journal.maintenance.provenance import Provenance as Provenance
    from journal.maintenance.provenance import SharedSession as SharedSession
    from journal.maintenance.pruning import PruneReport as PruneReport
    from journal.maintenance.redaction import Redaction as Redaction

_HOMES = {
    "Continued": "continuing",
    "AbsentRange": "manifest",
    "Shipment": "manifest",
    "Merged": "merging",
    "WaitingPart": "merging",
    "MergedOrigin": "provenance",
    "Provenance": "provenance",
    "SharedSession": "provenance",
    "PruneReport": "pruning",
    "Redaction": "redaction",
}


if not TYPE_CHECKING:  # with it, a type checker would believe that every name is here
    __getattr__ = imported_lazily(__name__, _HOMES)
