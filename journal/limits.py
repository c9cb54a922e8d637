"""Numbers that several modules share, each with its reason."""

DATA_SIZE_MAX = 64 * 1024 * 1024
"""The most that an event's data may hold, in characters. The text of a block of them stays far
below the largest that SQLite accepts, a billion bytes, even with every character escaped."""

BLOCK_EVENTS_MAX = 1_000
"""A block is sealed at every position that this divides. A smaller one makes more rows to keep and
to look through; a larger one makes `get_events_since` read more that it does not want."""

BLOCK_DATA_MAX = 1024 * 1024
"""Or at the event that brings the data of a block to this many characters, so that a block can be
held in memory wherever it is read whole."""

PAGE_EVENTS_MAX = 1_000
"""How many events a reader holds in memory at once: some hundred kilobytes, and a transaction of a
millisecond. It holds fewer where they are large: no more than are left of a block."""

FOLD_EVENTS_MAX = 10_000
"""How many events are folded in one transaction, which takes some hundredths of a second: appenders
wait for no longer than that."""

FOLD_DATA_MAX = 8 * 1024 * 1024
"""How many characters of data are folded in memory at once where they can also be folded beside."""
