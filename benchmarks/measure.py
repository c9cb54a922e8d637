"""What a figure is, and how two things are timed against each other."""

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict


class Settings(NamedTuple):
    """How to run a scenario."""

    folder: Path
    """An empty folder of the file system that is measured."""
    small: bool = False
    repeat: int = 5
    seed: int = 1
    big_events: int = 10_000_000
    """How many events the large file of the scenario `open` has."""
    mixed_events: int = 5_000_000
    """How many events the file of the scenario `commands` has."""
    mixed_file: Path | None = None
    """Where that file is, or is to be kept; None: it is made anew and removed."""

    def size(self, full: int, small: int) -> int:
        """Return the size to run at."""
        return small if self.small else full


class Figure(BaseModel):
    """One measured figure: ours and the peer's values, pair by pair, made in turns."""

    model_config = ConfigDict(frozen=True)

    name: str
    peer_name: str
    unit: str
    ours: list[float]
    peer: list[float]
    required: float | None = None
    """The ratio to reach; None: the figure is only reported."""
    sense: Literal["at least", "at most"] = "at least"
    details: dict[str, float] = {}

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's, of each pair."""
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def reached(self) -> bool | None:
        """Whether the median ratio is what is required."""
        if self.required is None:
            return None
        ratio = median(self.ratios)
        return ratio >= self.required if self.sense == "at least" else ratio <= self.required


def in_turns(
    repeat: int, ours: Callable[[], float], peer: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Call both in turns: ours, peer, ours, peer, ... and return what each gave.

    The machine may be shared: what disturbs one pair disturbs both halves of it, more or less.
    """
    pairs = []
    for _ in range(repeat):
        gc.collect()
        first = ours()
        gc.collect()
        pairs.append((first, peer()))
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def timed_calls(calls: Iterable[Callable[[], object]]) -> list[float]:
    """Return the seconds that each call took."""
    seconds = []
    for call in calls:
        began = perf_counter()
        call()
        seconds.append(perf_counter() - began)
    return seconds


def percentiles_ms(seconds: list[float], name: str) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentile in milliseconds, as details of a figure."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p{percent}_ms": 1000 * cuts[percent - 1] for percent in (50, 95, 99)}
