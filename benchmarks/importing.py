"""What a program waits for before it can begin: importing."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measure import Figure, Settings, in_turns

_REPOSITORY = Path(__file__).parent.parent
_OURS = "from journal import Journal"
_PEER = "import apsw; from pydantic import BaseModel"
_TIMED = "from time import perf_counter; began = perf_counter(); {}; print(perf_counter() - began)"


def importing(settings: Settings) -> list[Figure]:
    """Import the journal in a fresh interpreter, against what it cannot do without."""
    ours, peer = (partial(import_ms, code, settings.folder) for code in (_OURS, _PEER))
    ours()  # so that both are compiled
    peer()
    ours_ms, peer_ms = in_turns(settings.repeat * settings.size(5, 1), ours, peer)
    figure = Figure(
        name="import",
        peer_name="apsw and pydantic.BaseModel",
        unit="ms",
        ours=ours_ms,
        peer=peer_ms,
        required=1.3,
        sense="at most",
    )
    return [figure]


def import_ms(statements: str, compiled: Path) -> float:
    """Return how long a fresh interpreter takes to import, without its own start.

    What it has compiled it keeps in a folder of its own, whatever is kept elsewhere.
    """
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    child = subprocess.run(
        [sys.executable, "-c", _TIMED.format(statements)],
        cwd=_REPOSITORY,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(child.stdout) * 1_000
