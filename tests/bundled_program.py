"""A program that embeds the journal: what `test_bundles.py` packs, and runs with a new file."""

import sys
from datetime import UTC, datetime

import journal
from journal import Journal, SessionActivated, SessionId, StreamCreated, StreamId


def main() -> None:
    session, stream, now = SessionId.new(), StreamId.new(), datetime.now(UTC)
    with Journal.open(sys.argv[1]) as opened:
        opened.append_events(
            [
                SessionActivated(session_id=session, timestamp=now),
                StreamCreated(session_id=session, stream_id=stream, timestamp=now),
            ]
        )
        read = [event.event_type for _, event in opened.read()]
        states = [status.state.value for status in opened.sessions()]
    print(*read, *states, journal.__file__)


if __name__ == "__main__":
    main()
