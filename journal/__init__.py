"""An embedded, single-file SQLite event journal.

Everything public is here. It is imported when it is first used, because the models take a third of
a second, which the command's help and shell completion should not have to wait for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from journal._version import VERSION

if TYPE_CHECKING:
    from journal.errors import AccessDeniedError as AccessDeniedError
    from journal.errors import BusyError as BusyError
    from journal.errors import ClosedError as ClosedError
    from journal.errors import CommitFailedError as CommitFailedError
    from journal.errors import ConcurrencyError as ConcurrencyError
    from journal.errors import DamagedError as DamagedError
    from journal.errors import FoldError as FoldError
    from journal.errors import InvalidEventError as InvalidEventError
    from journal.errors import JournalError as JournalError
    from journal.errors import JournalNotFoundError as JournalNotFoundError
    from journal.errors import KeyConflictError as KeyConflictError
    from journal.errors import LineRejectedError as LineRejectedError
    from journal.errors import NewerFormatError as NewerFormatError
    from journal.errors import NotADatabaseError as NotADatabaseError
    from journal.errors import NotAJournalError as NotAJournalError
    from journal.errors import PathIsDirectoryError as PathIsDirectoryError
    from journal.errors import ReadOnlyError as ReadOnlyError
    from journal.errors import StorageError as StorageError
    from journal.errors import StorageFullError as StorageFullError
    from journal.errors import UnknownKindError as UnknownKindError
    from journal.errors import UnknownProjectionError as UnknownProjectionError
    from journal.errors import UnsafeSQLiteError as UnsafeSQLiteError
    from journal.event_ids import EventId as EventId
    from journal.events import AnyEvent as AnyEvent
    from journal.events import DomainEvent as DomainEvent
    from journal.events import FramesBatched as FramesBatched
    from journal.events import PatchFramesGenerated as PatchFramesGenerated
    from journal.events import PerformanceMetricsRecorded as PerformanceMetricsRecorded
    from journal.events import PriorityThresholdAdjusted as PriorityThresholdAdjusted
    from journal.events import SessionActivated as SessionActivated
    from journal.events import SessionClosed as SessionClosed
    from journal.events import SessionExpired as SessionExpired
    from journal.events import SessionTimedOut as SessionTimedOut
    from journal.events import SessionTimeoutExtended as SessionTimeoutExtended
    from journal.events import SkeletonGenerated as SkeletonGenerated
    from journal.events import StreamCancelled as StreamCancelled
    from journal.events import StreamCompleted as StreamCompleted
    from journal.events import StreamConfigUpdated as StreamConfigUpdated
    from journal.events import StreamCreated as StreamCreated
    from journal.events import StreamFailed as StreamFailed
    from journal.events import StreamStarted as StreamStarted
    from journal.events import UnknownEvent as UnknownEvent
    from journal.ids import SessionId as SessionId
    from journal.ids import StreamId as StreamId
    from journal.info import JournalInfo as JournalInfo
    from journal.journal import Journal as Journal
    from journal.memory import InMemoryEventStore as InMemoryEventStore
    from journal.ndjson import LineAppender as LineAppender
    from journal.ndjson import LinesAppended as LinesAppended
    from journal.ndjson import RejectedLine as RejectedLine
    from journal.readmodels import Anomaly as Anomaly
    from journal.readmodels import Change as Change
    from journal.readmodels import Projection as Projection
    from journal.readmodels import ProjectionStatus as ProjectionStatus
    from journal.readmodels import RebuildReport as RebuildReport
    from journal.readmodels import SessionStatus as SessionStatus
    from journal.readmodels import StreamStatus as StreamStatus
    from journal.store import Appended as Appended
    from journal.store import EventStore as EventStore
    from journal.store import EventSubscriber as EventSubscriber
    from journal.store import RecordedEvent as RecordedEvent
    from journal.timestamps import Timestamp as Timestamp
    from journal.values import PerformanceMetrics as PerformanceMetrics
    from journal.values import PriorityDistribution as PriorityDistribution
    from journal.values import PriorityPercentages as PriorityPercentages
    from journal.values import SessionState as SessionState
    from journal.values import StreamState as StreamState
    from journal.wire import parse_event as parse_event

__version__ = VERSION

_HOMES = {
    "AccessDeniedError": "errors",
    "BusyError": "errors",
    "ClosedError": "errors",
    "CommitFailedError": "errors",
    "ConcurrencyError": "errors",
    "DamagedError": "errors",
    "FoldError": "errors",
    "InvalidEventError": "errors",
    "JournalError": "errors",
    "JournalNotFoundError": "errors",
    "KeyConflictError": "errors",
    "LineRejectedError": "errors",
    "NewerFormatError": "errors",
    "NotADatabaseError": "errors",
    "NotAJournalError": "errors",
    "PathIsDirectoryError": "errors",
    "ReadOnlyError": "errors",
    "StorageError": "errors",
    "StorageFullError": "errors",
    "UnknownKindError": "errors",
    "UnknownProjectionError": "errors",
    "UnsafeSQLiteError": "errors",
    "EventId": "event_ids",
    "AnyEvent": "events",
    "DomainEvent": "events",
    "FramesBatched": "events",
    "PatchFramesGenerated": "events",
    "PerformanceMetricsRecorded": "events",
    "PriorityThresholdAdjusted": "events",
    "SessionActivated": "events",
    "SessionClosed": "events",
    "SessionExpired": "events",
    "SessionTimedOut": "events",
    "SessionTimeoutExtended": "events",
    "SkeletonGenerated": "events",
    "StreamCancelled": "events",
    "StreamCompleted": "events",
    "StreamConfigUpdated": "events",
    "StreamCreated": "events",
    "StreamFailed": "events",
    "StreamStarted": "events",
    "UnknownEvent": "events",
    "SessionId": "ids",
    "StreamId": "ids",
    "JournalInfo": "info",
    "Journal": "journal",
    "InMemoryEventStore": "memory",
    "LineAppender": "ndjson",
    "LinesAppended": "ndjson",
    "RejectedLine": "ndjson",
    "Anomaly": "readmodels",
    "Change": "readmodels",
    "Projection": "readmodels",
    "ProjectionStatus": "readmodels",
    "RebuildReport": "readmodels",
    "SessionStatus": "readmodels",
    "StreamStatus": "readmodels",
    "Appended": "store",
    "EventStore": "store",
    "EventSubscriber": "store",
    "RecordedEvent": "store",
    "Timestamp": "timestamps",
    "PerformanceMetrics": "values",
    "PriorityDistribution": "values",
    "PriorityPercentages": "values",
    "SessionState": "values",
    "StreamState": "values",
    "parse_event": "wire",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (a list all the same)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"journal.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
