"""An embedded, single-file SQLite event journal.

What a program names is here; the types that methods only return are in the rooms they come from:
`journal.store`, `journal.file`, `journal.projections`, `journal.events`. A name is imported when it
is first used: the models take long to import, and the command's help and shell completion should
not have to wait for them.
"""

from typing import TYPE_CHECKING

from journal._lazily import imported_lazily
from journal._version import VERSION

if TYPE_CHECKING:
    from journal.errors import AccessDeniedError as AccessDeniedError
    from journal.errors import BusyError as BusyError
    from journal.errors import ClosedCopyError as ClosedCopyError
    from journal.errors import ClosedError as ClosedError
    from journal.errors import CommitFailedError as CommitFailedError
    from journal.errors import ConcurrencyError as ConcurrencyError
    from journal.errors import DamagedError as DamagedError
    from journal.errors import FileReplacedError as FileReplacedError
    from journal.errors import FlushFailedError as FlushFailedError
    from journal.errors import FoldError as FoldError
    from journal.errors import InvalidEventError as InvalidEventError
    from journal.errors import JournalError as JournalError
    from journal.errors import JournalNotFoundError as JournalNotFoundError
    from journal.errors import KeyConflictError as KeyConflictError
    from journal.errors import LineRejectedError as LineRejectedError
    from journal.errors import NewerFormatError as NewerFormatError
    from journal.errors import NotAClosedCopyError as NotAClosedCopyError
    from journal.errors import NotADatabaseError as NotADatabaseError
    from journal.errors import NotAJournalError as NotAJournalError
    from journal.errors import OpenSourceError as OpenSourceError
    from journal.errors import OtherHistoryError as OtherHistoryError
    from journal.errors import OverloadedError as OverloadedError
    from journal.errors import PathIsDirectoryError as PathIsDirectoryError
    from journal.errors import PrunedError as PrunedError
    from journal.errors import PrunedFleetError as PrunedFleetError
    from journal.errors import ReadOnlyError as ReadOnlyError
    from journal.errors import StaleWalError as StaleWalError
    from journal.errors import StorageError as StorageError
    from journal.errors import StorageFullError as StorageFullError
    from journal.errors import TargetExistsError as TargetExistsError
    from journal.errors import UnknownKindError as UnknownKindError
    from journal.errors import UnknownProjectionError as UnknownProjectionError
    from journal.errors import UnsafeSQLiteError as UnsafeSQLiteError
    from journal.errors import WrongTargetError as WrongTargetError
    from journal.events.ids import SessionId as SessionId
    from journal.events.ids import StreamId as StreamId
    from journal.events.kinds import DomainEvent as DomainEvent
    from journal.events.kinds import FramesBatched as FramesBatched
    from journal.events.kinds import PatchFramesGenerated as PatchFramesGenerated
    from journal.events.kinds import PerformanceMetricsRecorded as PerformanceMetricsRecorded
    from journal.events.kinds import PriorityThresholdAdjusted as PriorityThresholdAdjusted
    from journal.events.kinds import SessionActivated as SessionActivated
    from journal.events.kinds import SessionClosed as SessionClosed
    from journal.events.kinds import SessionExpired as SessionExpired
    from journal.events.kinds import SessionTimedOut as SessionTimedOut
    from journal.events.kinds import SessionTimeoutExtended as SessionTimeoutExtended
    from journal.events.kinds import SkeletonGenerated as SkeletonGenerated
    from journal.events.kinds import StreamCancelled as StreamCancelled
    from journal.events.kinds import StreamCompleted as StreamCompleted
    from journal.events.kinds import StreamConfigUpdated as StreamConfigUpdated
    from journal.events.kinds import StreamCreated as StreamCreated
    from journal.events.kinds import StreamFailed as StreamFailed
    from journal.events.kinds import StreamStarted as StreamStarted
    from journal.events.parsing import parse_event as parse_event
    from journal.events.timestamps import Timestamp as Timestamp
    from journal.events.unknown import UnknownEvent as UnknownEvent
    from journal.events.values import PerformanceMetrics as PerformanceMetrics
    from journal.events.values import PriorityDistribution as PriorityDistribution
    from journal.events.values import SessionState as SessionState
    from journal.events.values import StreamState as StreamState
    from journal.journal import BufferedJournal as BufferedJournal
    from journal.journal import Journal as Journal
    from journal.live.async_journal import AsyncJournal as AsyncJournal
    from journal.maintenance.continuing import continue_copy as continue_copy
    from journal.maintenance.findings import Finding as Finding
    from journal.maintenance.merging import merge as merge
    from journal.maintenance.recovering import Recovery as Recovery
    from journal.maintenance.recovering import recover as recover
    from journal.maintenance.retention import Retention as Retention
    from journal.maintenance.verifying import Verification as Verification
    from journal.maintenance.verifying import verify as verify
    from journal.memory import InMemoryEventStore as InMemoryEventStore
    from journal.projections.results import Projection as Projection
    from journal.store import EventStore as EventStore
    from journal.store import EventSubscriber as EventSubscriber

__version__ = VERSION

_HOMES = {
    "AccessDeniedError": "errors",
    "BusyError": "errors",
    "ClosedError": "errors",
    "ClosedCopyError": "errors",
    "CommitFailedError": "errors",
    "ConcurrencyError": "errors",
    "DamagedError": "errors",
    "FileReplacedError": "errors",
    "FlushFailedError": "errors",
    "FoldError": "errors",
    "InvalidEventError": "errors",
    "JournalError": "errors",
    "JournalNotFoundError": "errors",
    "KeyConflictError": "errors",
    "LineRejectedError": "errors",
    "NewerFormatError": "errors",
    "NotAClosedCopyError": "errors",
    "NotADatabaseError": "errors",
    "NotAJournalError": "errors",
    "OpenSourceError": "errors",
    "OtherHistoryError": "errors",
    "OverloadedError": "errors",
    "PathIsDirectoryError": "errors",
    "PrunedError": "errors",
    "PrunedFleetError": "errors",
    "ReadOnlyError": "errors",
    "StaleWalError": "errors",
    "StorageError": "errors",
    "StorageFullError": "errors",
    "TargetExistsError": "errors",
    "UnknownKindError": "errors",
    "UnknownProjectionError": "errors",
    "UnsafeSQLiteError": "errors",
    "WrongTargetError": "errors",
    "DomainEvent": "events.kinds",
    "FramesBatched": "events.kinds",
    "PatchFramesGenerated": "events.kinds",
    "PerformanceMetricsRecorded": "events.kinds",
    "PriorityThresholdAdjusted": "events.kinds",
    "SessionActivated": "events.kinds",
    "SessionClosed": "events.kinds",
    "SessionExpired": "events.kinds",
    "SessionTimedOut": "events.kinds",
    "SessionTimeoutExtended": "events.kinds",
    "SkeletonGenerated": "events.kinds",
    "StreamCancelled": "events.kinds",
    "StreamCompleted": "events.kinds",
    "StreamConfigUpdated": "events.kinds",
    "StreamCreated": "events.kinds",
    "StreamFailed": "events.kinds",
    "StreamStarted": "events.kinds",
    "UnknownEvent": "events.unknown",
    "SessionId": "events.ids",
    "StreamId": "events.ids",
    "BufferedJournal": "journal",
    "Journal": "journal",
    "AsyncJournal": "live.async_journal",
    "Retention": "maintenance.retention",
    "InMemoryEventStore": "memory",
    "continue_copy": "maintenance.continuing",
    "Finding": "maintenance.findings",
    "merge": "maintenance.merging",
    "Recovery": "maintenance.recovering",
    "recover": "maintenance.recovering",
    "Verification": "maintenance.verifying",
    "verify": "maintenance.verifying",
    "Projection": "projections.results",
    "EventStore": "store",
    "EventSubscriber": "store",
    "Timestamp": "events.timestamps",
    "PerformanceMetrics": "events.values",
    "PriorityDistribution": "events.values",
    "SessionState": "events.values",
    "StreamState": "events.values",
    "parse_event": "events.parsing",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list all the same)


if not TYPE_CHECKING:  # with it, a type checker would believe that every name is here
    __getattr__ = imported_lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
