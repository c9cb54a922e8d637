"""Pace: how much of the pruning that nobody asked for is done after one append."""

import time


class Pace:
    """So many steps of some milliseconds, and more within so many seconds.

    Attributes:
        steps_made: how many were made so far, by whoever makes them.
    """

    def __init__(self, steps_min: int, seconds: float) -> None:
        self.steps_made = 0
        self._steps_min = steps_min
        self._end = time.monotonic() + seconds
        self._is_over = False

    @property
    def goes_on(self) -> bool:
        """Whether another step may be made."""
        return not self._is_over and (self.steps_made < self._steps_min or self.has_time)

    @property
    def has_time(self) -> bool:
        """Whether the seconds are not over."""
        return time.monotonic() < self._end

    def has_room_for(self, steps: int) -> bool:
        """Tell whether what takes as long as so many steps may be done; if not, nothing is after.

        It may as the first thing, or where that many have to be made anyway.
        """
        self._is_over = self.steps_made > max(0, self._steps_min - steps)
        return not self._is_over
