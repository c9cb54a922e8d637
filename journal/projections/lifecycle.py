"""The fold: what state sessions and streams are in after their events.

Events are facts: the outcome of an event always applies, even where the protocol could not have
produced it; such an event is an anomaly as well. The rules are those of the reference's aggregate,
among them that the end of a session cancels its active streams although no event says so.

A rebuild folds every event there is, so this is written for speed: it takes the plain values of
events, known by small integers, and keeps each state as a list, whose places are named below. A
list is made five times as fast as an object, and is a row as it is. Nothing here knows of SQLite:
states that are not in memory come from a `Source`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from pydantic_core import from_json

from journal.events.codecs import value_in_data
from journal.events.kinds import KINDS
from journal.events.values import SessionState, StreamState

FOLD_VERSION = 1
"""Changes with the rules, so that what older rules made is known to be stale."""

State = list[Any]
"""The state of a session or of a stream. Times are nanoseconds since 1970, or None."""

SESSION_COLUMNS = (
    "session",  # its key
    "state",
    "activated_at",
    "ended_at",
    "expires_at",  # RFC 3339: it may be beyond int64
    "event_count",
    "total_streams",
    "completed_streams",
    "failed_streams",
    "cancelled_streams",
    "priority_threshold",
    "batched_frames",
    "metrics",  # the data of the latest performance_metrics_recorded
    "anomalies",
    "live_streams",  # a dict whose keys are those that are Preparing or Streaming
)
STREAM_COLUMNS = (
    "stream",  # its key
    "session",  # that it belongs to
    "state",
    "error",
    "created_at",
    "started_at",
    "ended_at",
    "event_count",
    "frames",
    "bytes",
    "highest_priority",
    "config_updates",
    "anomalies",
)

# Places in the state of a session,
(
    KEY,
    STATE,
    ACTIVATED_AT,
    ENDED_AT,
    EXPIRES_AT,
    EVENT_COUNT,
    TOTAL,
    COMPLETED,
    FAILED,
    CANCELLED,
    THRESHOLD,
    BATCHED,
    METRICS,
    ANOMALIES,
    LIVE,
) = range(len(SESSION_COLUMNS))

# and in that of a stream.
(
    T_KEY,
    T_SESSION,
    T_STATE,
    T_ERROR,
    T_CREATED_AT,
    T_STARTED_AT,
    T_ENDED_AT,
    T_EVENT_COUNT,
    T_FRAMES,
    T_BYTES,
    T_PRIORITY,
    T_CONFIG_UPDATES,
    T_ANOMALIES,
) = range(len(STREAM_COLUMNS))

INITIALIZING, ACTIVE, _, SESSION_COMPLETED, SESSION_FAILED = (state.value for state in SessionState)
PREPARING, STREAMING, STREAM_COMPLETED, STREAM_FAILED, STREAM_CANCELLED = (
    state.value for state in StreamState
)
ENDED_STATES = frozenset((SESSION_COMPLETED, SESSION_FAILED))
LIVE_STATES = frozenset((PREPARING, STREAMING))
_COUNTED_AT = {STREAM_COMPLETED: COMPLETED, STREAM_FAILED: FAILED, STREAM_CANCELLED: CANCELLED}

Event = tuple[int, int, int, int | None, int, str | None]
"""position, kind code, session, stream, timestamp_ns, data."""


class AnomalyFound(NamedTuple):
    """An event that the protocol could not have produced where it stands."""

    position: int
    session: int
    stream: int | None
    event_type: str
    state: str | None  # what the stream or session was in; None: it did not exist
    reason: str


class Source(Protocol):
    """Where states come from that are not in memory."""

    def session(self, key: int) -> State | None:
        """Return a session's state, None if it is new."""

    def stream(self, key: int) -> State | None:
        """Return a stream's state, None if it is new."""


class UnfoldableError(Exception):
    """The event at `position`, or the state before it, is not what it should be."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


class Lifecycle:
    """Sessions and streams under the fold: those in use, and the anomalies met.

    Keys rise with the first events of what they stand for, so one that is above `last_session` or
    `last_stream`, the largest met, is new, and the source need not be asked for it.
    """

    def __init__(
        self, source: Source, rules: "Rules", *, last_session: int, last_stream: int
    ) -> None:
        self.sessions: dict[int, State] = {}
        self.streams: dict[int, State] = {}
        self.anomalies: list[AnomalyFound] = []
        self.ended_sessions: list[int] = []
        self.ended_streams: list[int] = []
        self.error_size = 0
        """In characters, about: of the errors of the streams in memory."""
        self._source = source
        self._rules = rules
        self._last_session = last_session
        self._last_stream = last_stream

    def fold(self, events: Iterable[Event]) -> int:  # noqa: C901, PLR0912 (calls cost too much)
        """Fold events, given in order of position; return the last position, 0 for no events.

        Raises:
            UnfoldableError: an event, or the state before it, is not what the format says.
        """
        sessions, streams = self.sessions, self.streams
        _, passed_over, session_steps, stream_steps, legal_from, created, begun, patched = (
            self._rules
        )
        data: Any
        position = 0
        try:
            for position, kind, session_key, stream_key, at_ns, data in events:
                if kind in passed_over:
                    continue
                session = sessions.get(session_key)
                if session is None:
                    session = self._session(session_key)
                session[EVENT_COUNT] += 1
                if stream_key is None:
                    session_steps[kind](self, session, at_ns, data, position)
                    continue
                stream = streams.get(stream_key)
                if stream is None:
                    stream = self._stream(stream_key, session, kind, at_ns, position)
                    if kind == created and stream[T_EVENT_COUNT] == 0:
                        stream[T_EVENT_COUNT] = 1
                        continue
                stream[T_EVENT_COUNT] += 1
                is_foreign = stream[T_SESSION] != session_key
                # The two most frequent come first, and without a call.
                if kind == patched:
                    if is_foreign:
                        self._check(stream, session, kind, position)
                    frames, size, priority = from_json(data)  # of _PATCH_FIELDS
                    stream[T_FRAMES] += frames
                    stream[T_BYTES] += size
                    highest = stream[T_PRIORITY]
                    if highest is None or priority > highest:
                        stream[T_PRIORITY] = priority
                    continue
                if is_foreign or stream[T_STATE] not in legal_from[kind]:
                    self._check(stream, session, kind, position)
                if kind == begun and stream[T_STATE] == PREPARING:
                    stream[T_STATE] = STREAMING
                    stream[T_STARTED_AT] = at_ns
                else:
                    stream_steps[kind](self, stream, at_ns, data)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UnfoldableError(position, f"{type(error).__name__}: {error}") from error
        return position

    def forget_ended(self) -> None:
        """Drop from memory what is least likely to change; the source must have it by now."""
        for key in self.ended_sessions:
            if key in self.sessions and self.sessions[key][STATE] in ENDED_STATES:
                del self.sessions[key]
        for key in self.ended_streams:
            if key in self.streams and self.streams[key][T_STATE] not in LIVE_STATES:
                del self.streams[key]
        self.ended_sessions.clear()
        self.ended_streams.clear()
        self.error_size = 0

    def forget_all(self) -> None:
        """Drop everything from memory; the source must have it by now."""
        for collection in (self.sessions, self.streams, self.ended_sessions, self.ended_streams):
            collection.clear()
        self.error_size = 0

    def _session(self, key: int) -> State:
        """Return the state of a session, which is made if it is new."""
        session = self.sessions.get(key)
        if session is not None:
            return session
        if key > self._last_session:
            self._last_session = key
        else:
            session = self._source.session(key)
        if session is None:
            session = [key, INITIALIZING, None, None, None, 0, 0, 0, 0, 0, None, 0, None, 0, {}]
        elif session[STATE] in ENDED_STATES:
            self.ended_sessions.append(key)
        self.sessions[key] = session
        return session

    def _stream(self, key: int, session: State, kind: int, at_ns: int, position: int) -> State:
        """Return a stream that is not in memory; a new one if this is its first event.

        In a new one no event is counted yet: that is for the caller.
        """
        if key > self._last_stream:
            self._last_stream = key
        elif (stored := self._source.stream(key)) is not None:
            if stored[T_STATE] not in LIVE_STATES:
                self.ended_streams.append(key)
                self.error_size += len(stored[T_ERROR] or "")
            self.streams[key] = stored
            return stored
        stream = [key, session[KEY], PREPARING, None, at_ns, None, None, 0, 0, 0, None, 0, 0]
        self.streams[key] = stream
        session[TOTAL] += 1
        session[LIVE][key] = None
        if kind == self._rules.created and session[STATE] == ACTIVE:
            return stream
        if kind == self._rules.created:
            state = session[STATE]
            reason = f"legal in an {ACTIVE} session, but the session is {state}"
        else:
            state = None
            reason = "the first event of a stream is to be stream_created"
        self._anomaly(session, stream, self._rules.names[kind], position, state, reason)
        return stream

    def _check(self, stream: State, session: State, kind: int, position: int) -> None:
        """Note what is wrong with an event of a stream that was there before."""
        if stream[T_EVENT_COUNT] == 1:  # this is the first, and was noted
            return
        state = stream[T_STATE]
        if stream[T_SESSION] != session[KEY]:
            reason = "the stream belongs to another session"
        elif kind == self._rules.created:
            reason = f"the stream was created before, and is {state}"
        else:
            legal = " or ".join(sorted(self._rules.legal_from[kind]))
            reason = f"legal in {legal}, but the stream is {state}"
        self._anomaly(session, stream, self._rules.names[kind], position, state, reason)

    def _anomaly(
        self,
        session: State,
        stream: State | None,
        event_type: str,
        position: int,
        state: str | None,
        reason: str,
    ) -> None:
        stream_key = None
        session[ANOMALIES] += 1
        if stream is not None:
            stream_key = stream[T_KEY]
            stream[T_ANOMALIES] += 1
        found = AnomalyFound(position, session[KEY], stream_key, event_type, state, reason)
        self.anomalies.append(found)

    # What the steps below have in common

    def check_session(self, session: State, event_type: str, legal: str, position: int) -> None:
        """Note an event of a session that came in another state than the one it is legal in."""
        state = session[STATE]
        if state != legal:
            reason = f"legal in {legal}, but the session is {state}"
            self._anomaly(session, None, event_type, position, state, reason)

    def end_session(self, session: State, state: str, at_ns: int) -> None:
        """End a session, and cancel those of its streams that are still active."""
        session[STATE] = state
        session[ENDED_AT] = at_ns
        self.ended_sessions.append(session[KEY])
        live = session[LIVE]
        if not live:
            return
        for stream_key in live:
            stream = self.streams.get(stream_key) or self._source.stream(stream_key)
            if stream is None:
                raise LookupError(f"stream {stream_key}, which is active, is not there")
            stream[T_STATE] = STREAM_CANCELLED
            stream[T_ENDED_AT] = at_ns
            self.streams[stream_key] = stream
        self.ended_streams.extend(live)
        session[CANCELLED] += len(live)
        session[LIVE] = {}

    def move_stream(self, stream: State, state: str) -> None:
        """Change the state of a stream, and the counts of the session that it belongs to."""
        key = stream[T_KEY]
        owner = self._session(stream[T_SESSION])
        old, stream[T_STATE] = stream[T_STATE], state
        if old in _COUNTED_AT:
            owner[_COUNTED_AT[old]] -= 1
        if state in _COUNTED_AT:
            owner[_COUNTED_AT[state]] += 1
            owner[LIVE].pop(key, None)
            self.ended_streams.append(key)
        else:
            owner[LIVE][key] = None


# What each event does. The functions of a group take the same arguments, used or not.

SessionStep = Callable[[Lifecycle, State, int, Any, int], None]
"""Takes a session, and the time, data and position of the event."""

StreamStep = Callable[[Lifecycle, State, int, Any], None]
"""Takes a stream, and the time and data of the event."""


def _activated(life: Lifecycle, session: State, at_ns: int, _: Any, position: int) -> None:
    life.check_session(session, "session_activated", INITIALIZING, position)
    session[STATE] = ACTIVE
    session[ACTIVATED_AT] = at_ns
    session[ENDED_AT] = None


def _closed(life: Lifecycle, session: State, at_ns: int, _: Any, position: int) -> None:
    life.check_session(session, "session_closed", ACTIVE, position)
    life.end_session(session, SESSION_COMPLETED, at_ns)


def _broke_off(life: Lifecycle, session: State, at_ns: int, _: Any, _position: int) -> None:
    life.end_session(session, SESSION_FAILED, at_ns)


def _extended(_: Lifecycle, session: State, _at: int, data: Any, _position: int) -> None:
    session[EXPIRES_AT] = _new_expires_at(data)


def _frames_batched(_: Lifecycle, session: State, _at: int, data: Any, _position: int) -> None:
    session[BATCHED] += _batched_count(data)


def _threshold_adjusted(_: Lifecycle, session: State, _at: int, data: Any, _position: int) -> None:
    session[THRESHOLD] = _new_threshold(data)


def _metrics_recorded(_: Lifecycle, session: State, _at: int, data: Any, _position: int) -> None:
    session[METRICS] = data


def _created_again(life: Lifecycle, stream: State, at_ns: int, _: Any) -> None:
    life.move_stream(stream, PREPARING)
    stream[T_CREATED_AT] = at_ns
    stream[T_STARTED_AT] = stream[T_ENDED_AT] = stream[T_ERROR] = None


def _started_again(life: Lifecycle, stream: State, at_ns: int, _: Any) -> None:
    life.move_stream(stream, STREAMING)
    stream[T_ENDED_AT] = stream[T_ERROR] = None
    stream[T_STARTED_AT] = at_ns


def _ended(state: str) -> StreamStep:
    def ended(life: Lifecycle, stream: State, at_ns: int, _: Any) -> None:
        life.move_stream(stream, state)
        stream[T_ENDED_AT] = at_ns
        stream[T_ERROR] = None

    return ended


def _failed(life: Lifecycle, stream: State, at_ns: int, data: Any) -> None:
    life.move_stream(stream, STREAM_FAILED)
    stream[T_ENDED_AT] = at_ns
    stream[T_ERROR] = _error(data)
    life.error_size += len(data)


def _skeleton_generated(_: Lifecycle, stream: State, _at: int, data: Any) -> None:
    stream[T_FRAMES] += 1
    stream[T_BYTES] += _frame_size_bytes(data)


def _config_updated(_: Lifecycle, stream: State, _at: int, _data: Any) -> None:
    stream[T_CONFIG_UPDATES] += 1


def _nothing_of_a_session(
    _: Lifecycle, _session: State, _at: int, _data: Any, _position: int
) -> None:
    """Do nothing: such an event of a session is only counted."""


def _nothing_of_a_stream(_: Lifecycle, _stream: State, _at: int, _data: Any) -> None:
    """Do nothing: such an event of a stream is only counted."""


_new_expires_at = value_in_data(KINDS["session_timeout_extended"], "new_expires_at")
_batched_count = value_in_data(KINDS["frames_batched"], "frame_count")
_new_threshold = value_in_data(KINDS["priority_threshold_adjusted"], "new_threshold")
_error = value_in_data(KINDS["stream_failed"], "error")
_frame_size_bytes = value_in_data(KINDS["skeleton_generated"], "frame_size_bytes")

_PATCH_FIELDS = ("frame_count", "total_bytes", "highest_priority")
if KINDS["patch_frames_generated"].field_names != _PATCH_FIELDS:
    raise TypeError(f"Lifecycle.fold reads {_PATCH_FIELDS} from the data of patch_frames_generated")

_SESSION_STEPS: dict[str, SessionStep] = {
    "session_activated": _activated,
    "session_closed": _closed,
    "session_expired": _broke_off,
    "session_timed_out": _broke_off,
    "session_timeout_extended": _extended,
    "frames_batched": _frames_batched,
    "priority_threshold_adjusted": _threshold_adjusted,
    "performance_metrics_recorded": _metrics_recorded,
}
_STREAM_STEPS: dict[str, StreamStep] = {
    "stream_created": _created_again,
    "stream_started": _started_again,
    "stream_completed": _ended(STREAM_COMPLETED),
    "stream_failed": _failed,
    "stream_cancelled": _ended(STREAM_CANCELLED),
    "skeleton_generated": _skeleton_generated,
    "stream_config_updated": _config_updated,
}
_ANY_STATE = frozenset(state.value for state in StreamState)
_LEGAL_FROM: dict[str, frozenset[str]] = {
    "stream_created": frozenset(),
    "stream_started": frozenset((PREPARING,)),
    "stream_completed": frozenset((STREAMING,)),
    "stream_failed": LIVE_STATES,
    "stream_cancelled": LIVE_STATES,
}


class Rules(NamedTuple):
    """What the events of a file do, by the codes that this file has for the kinds."""

    names: Mapping[int, str]
    passed_over: frozenset[int]
    session_steps: Mapping[int, SessionStep]
    stream_steps: Mapping[int, StreamStep]
    legal_from: Mapping[int, frozenset[str]]
    created: int | None
    started: int | None
    patched: int | None


def rules_for(names: Mapping[int, str], passed_over: Iterable[int]) -> Rules:
    """Return what the kinds of a file do.

    Args:
        names: of the kinds that are folded, by their codes in the file.
        passed_over: the codes of those that are not.
    """
    codes = {name: code for code, name in names.items()}
    of_streams = {code: name for code, name in names.items() if KINDS[name].has_stream}
    of_sessions = {code: name for code, name in names.items() if code not in of_streams}
    return Rules(
        names,
        frozenset(passed_over),
        {c: _SESSION_STEPS.get(name, _nothing_of_a_session) for c, name in of_sessions.items()},
        {c: _STREAM_STEPS.get(name, _nothing_of_a_stream) for c, name in of_streams.items()},
        {c: _LEGAL_FROM.get(name, _ANY_STATE) for c, name in of_streams.items()},
        created=codes.get("stream_created"),
        started=codes.get("stream_started"),
        patched=codes.get("patch_frames_generated"),
    )
