"""One JSON text to one event."""

from journal.events.decoding import decode
from journal.events.unknown import AnyEvent
from journal.events.wire import read_record
from journal.events.wire_exact import Unknown


def parse_event(text: str | bytes, *, unknown: Unknown = "reject") -> AnyEvent:
    """Return the event that a JSON text describes.

    Args:
        text: one JSON object; bytes are UTF-8.
        unknown: what to do with an event of a kind that this version does not know. "reject"
            refuses it; "keep" returns an `UnknownEvent`, which needs a valid session_id and
            timestamp, and a valid stream_id where it has one.

    Raises:
        UnknownKindError: the kind is not known, and `unknown` is "reject".
        InvalidEventError: anything else that the reference implementation rejects.
    """
    return decode(read_record(text, unknown))
