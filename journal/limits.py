"""Numbers that several modules share, each with its reason."""

DATA_SIZE_MAX = 64 * 1024 * 1024
"""The most that an event's data may hold, in characters. The text of a block of them stays far
below the largest that SQLite accepts, a billion bytes, even with every character escaped."""
