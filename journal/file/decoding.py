"""Rows to events: page after page, with what the small integers in them stand for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import length_hint
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import ValidationError

from journal.errors import DamagedError, JournalError
from journal.events.decoding import Blueprint, of_its_kind
from journal.events.ids import SessionId, StreamId
from journal.events.timestamps import Timestamp, state_of_second
from journal.events.unknown import AnyEvent

StoredEvent = tuple[int, int, int, int | None, int, str | None]
"""seq, kind, session, stream, timestamp, data, as the file has them."""


class Page(NamedTuple):
    """Some stored events."""

    positions: Sequence[int]
    rows: list[tuple[int, int, int | None, int, str | None]]
    """kind, session, stream, timestamp, data: the positions, where they are known, cost time."""

    @classmethod
    def of(cls, events: Iterable[StoredEvent]) -> "Page":
        """Return a page of whole rows."""
        events = list(events)
        return cls([event[0] for event in events], [event[1:] for event in events])


class Names(NamedTuple):
    """What the small integers in rows stand for."""

    kinds: Mapping[int, Blueprint]
    sessions: Mapping[int, SessionId]
    streams: Mapping[int | None, StreamId | None]


NOT_DECODED = (KeyError, ValueError, TypeError, AttributeError)
"""What is raised where a row is not what the file format says."""


def decode_rows(
    path: Path | str, page: Page, names: Names, learn: Callable[[], Names]
) -> Iterator[AnyEvent]:
    """Yield the event of each row of a page when it is asked for.

    It is written for speed: what most events have is made here, without a call.

    Args:
        path: of the journal, for errors.
        page: as it was read.
        names: what is known already of what its rows name.
        learn: returns all of it that there is; called when something is not known.

    Raises:
        DamagedError: a row is not what the file format says.
        JournalError: whatever `learn` raises.
    """
    remaining = iter(page.rows)
    kinds, sessions, streams = names
    second_ns = next_second_ns = state = 0
    try:
        for kind, session, stream, timestamp_ns, data in remaining:
            try:
                cls, event_type, has_stream, fill = kinds[kind]
                session_id, stream_id = sessions[session], streams[stream]
            except KeyError:
                kinds, sessions, streams = learn()
                cls, event_type, has_stream, fill = kinds[kind]
                session_id, stream_id = sessions[session], streams[stream]
            if (stream is None) is has_stream:
                raise ValueError(f"its kind {'needs a' if has_stream else 'has no'} stream")
            # What Timestamp.from_epoch_ns(timestamp_ns) makes: most events share a second.
            if not second_ns <= timestamp_ns < next_second_ns:
                second = timestamp_ns // 1_000_000_000
                second_ns = second * 1_000_000_000
                next_second_ns = second_ns + 1_000_000_000
                state = state_of_second(second, timestamp_ns)
            microsecond = (timestamp_ns - second_ns) // 1_000
            timestamp = _new_datetime(Timestamp, (state + microsecond).to_bytes(10), UTC)
            timestamp._epoch_ns = timestamp_ns
            event = _new(cls)
            fields = event.__dict__
            fields["event_type"] = event_type
            fields["session_id"] = session_id
            if has_stream is not False:
                fields["stream_id"] = stream_id
            if fill is not None:
                fill(fields, data, timestamp)
            elif data is None:
                fields["timestamp"] = timestamp
            else:
                raise ValueError("its kind has no data")
            yield event if has_stream is not None else of_its_kind(event)
    except JournalError:
        raise
    except NOT_DECODED as error:
        position = page.positions[len(page.rows) - length_hint(remaining) - 1]
        raise damaged(path, position, error) from error


def check_row(kind: Blueprint, stream: int | None, data: Any) -> None:
    """Refuse what `decode_rows` would refuse, without building an event.

    Raises:
        ValueError: the row is not what events of its kind are.
    """
    _, _, has_stream, fill = kind
    if (stream is None) is has_stream:
        raise ValueError(f"its kind {'needs a' if has_stream else 'has no'} stream")
    if has_stream is None:
        return
    if fill is not None:
        fill({}, data, None)
    elif data is not None:
        raise ValueError("its kind has no data")


def damaged(path: Path | str, position: int, error: Exception) -> DamagedError:
    """Return what is to be said of an event that is not as the file format says."""
    what = f"the event at position {position} is damaged: {sentence(error)}"
    return DamagedError(path, what, position)


def sentence(error: Exception) -> str:
    """Return one of `NOT_DECODED` in words."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"its data: {first['msg']}"
    if isinstance(error, KeyError):
        return f"it names {error}, which is not there"
    return str(error)


_new: Any = object.__new__
_new_datetime: Any = datetime.__new__
