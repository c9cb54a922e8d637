"""Whole files: verifying and pruning them, and making others from them.

The types of what `Journal` returns of them are to be imported from here.
"""

from journal.maintenance.continuing import Continued as Continued
from journal.maintenance.manifest import AbsentRange as AbsentRange
from journal.maintenance.manifest import Shipment as Shipment
from journal.maintenance.pruning import PruneReport as PruneReport
from journal.maintenance.redaction import Redaction as Redaction
