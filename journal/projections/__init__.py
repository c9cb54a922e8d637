"""What is folded from the events: the states of sessions and streams, and an application's own.

The types of what `Journal` returns of projections are to be imported from here.
"""

from journal.projections.results import Anomaly as Anomaly
from journal.projections.results import Change as Change
from journal.projections.results import Projection as Projection
from journal.projections.results import ProjectionStatus as ProjectionStatus
from journal.projections.results import RebuildReport as RebuildReport
from journal.projections.results import SessionStatus as SessionStatus
from journal.projections.results import StreamStatus as StreamStatus
