"""Events to records: what the file keeps of an event. A record is an event taken apart."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from journal.errors import InvalidEventError
from journal.events.canonical import canonical_json
from journal.events.codecs import Encode, Record, encoder
from journal.events.kinds import KINDS
from journal.events.unknown import AnyEvent, UnknownEvent


def encode(events: Iterable[AnyEvent]) -> list[Record]:
    """Take events apart.

    Raises:
        InvalidEventError: something is not an event, or was built unchecked (`object.__new__`)
            with values that do not fit.
    """
    encoders = _ENCODERS
    check_iterable(events)
    try:
        return [encoders[type(event)](event.__dict__) for event in events]
    except KeyError as error:
        raise InvalidEventError(f"an event has no value for its field {error}") from error
    except (AttributeError, TypeError) as error:
        raise InvalidEventError(f"an event holds a value of the wrong type: {error}") from error


def check_iterable(events: object) -> None:
    """Refuse one event (a model can be iterated) and what is no collection at all.

    Raises:
        InvalidEventError: it is.
    """
    if isinstance(events, list | tuple):  # the look for what can be iterated takes a microsecond
        return
    if isinstance(events, BaseModel | str | bytes) or not isinstance(events, Iterable):
        message = f"expected events, as in a list, found one {type(events).__name__}"
        raise InvalidEventError(message)


def content_digest(records: Iterable[Record]) -> str:
    """Return the SHA-256 of the canonical text of records, a line feed after each."""
    hasher = hashlib.sha256()
    for record in records:
        hasher.update(f"{canonical_json(record)}\n".encode())
    return hasher.hexdigest()


class _Encoders(dict[type[Any], Encode]):
    """What takes events apart, by their classes."""

    def __missing__(self, cls: type[Any]) -> Encode:
        for kind in KINDS.values():
            if kind.model is cls:
                self[cls] = encoder(kind)
                return self[cls]
        message = f"expected an event, found {cls.__name__}"
        raise InvalidEventError(message)


def _encode_unknown(f: Mapping[str, Any]) -> Record:
    timestamp_ns = f["timestamp"]._epoch_ns
    return f["event_type"], f["session_id"], f["stream_id"], timestamp_ns, f["original_json"]


_ENCODERS = _Encoders({UnknownEvent: _encode_unknown})
