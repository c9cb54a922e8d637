"""Run the benchmarks: `python -m benchmarks [SCENARIO ...]`; see README.md beside this file."""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import apsw
from pydantic import BaseModel
from pydantic import __version__ as pydantic_version

from benchmarks import (
    appending,
    beside,
    commands,
    folding,
    footprint,
    importing,
    making,
    merging,
    pruning,
    reading,
    recovering,
    sharing,
    shipping,
    verifying,
    written,
)
from benchmarks.measure import Figure, Settings

SCENARIOS: dict[str, Callable[[Settings], list[Figure]]] = {
    "append": appending.append,
    "single": appending.single,
    "ndjson": appending.ndjson,
    "sealing": appending.sealing,
    "making": making.making,
    "read": reading.read,
    "file-size": footprint.file_size,
    "written": written.written,
    "memory": footprint.memory,
    "rebuild": folding.rebuild,
    "verify": verifying.verify,
    "prune": pruning.prune,
    "merge": merging.merging,
    "merge-large": merging.large,
    "ship": shipping.ship,
    "delta": shipping.delta,
    "large-file": reading.large_file,
    "commands": commands.commands,
    "recover": recovering.recover,
    "import": importing.importing,
    "others": beside.others,
    "sharing": sharing.sharing,
    "fairness": sharing.fairness,
    "lag": sharing.lag,
}
if beside.HAS_PEER:
    SCENARIOS |= {
        "peer-single": beside.peer_single,
        "peer-append": beside.peer_append,
        "peer-read": beside.peer_read,
        "peer-rebuild": beside.peer_rebuild,
    }


class Run(BaseModel):
    """What was measured, and where."""

    facts: dict[str, str]
    figures: list[Figure]


def main() -> None:
    """Run scenarios, print their figures, and write them to a file if asked."""
    arguments = _arguments()
    parent = Path(arguments.folder).absolute()
    run = Run(facts=_facts(arguments, parent), figures=[])
    for name, fact in run.facts.items():
        print(f"{name:12} {fact}")
    earlier = _earlier(arguments.compare)
    print(_ROW.format("scenario", "ours", "peer", "", "ratio", "min-max", "required", ""))
    for name in arguments.scenarios or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="journal-benchmark-", dir=parent) as folder:
            settings = Settings(
                folder=Path(folder),
                small=arguments.small,
                repeat=arguments.repeat,
                seed=arguments.seed,
                big_events=arguments.big_events,
                mixed_events=arguments.mixed_events,
                mixed_file=arguments.mixed_file and Path(arguments.mixed_file).absolute(),
            )
            for figure in SCENARIOS[name](settings):
                run.figures.append(figure)
                _print(figure, earlier.get(figure.name))
    if arguments.json:
        Path(arguments.json).write_text(run.model_dump_json(indent=2) + "\n", "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it still work?")
    parser.add_argument("--repeat", type=int, default=5, help="how many turns (default 5)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--big-events", type=int, default=10_000_000, help="in the large file")
    parser.add_argument(
        "--mixed-events", type=int, default=5_000_000, help="in the file of commands (5,000,000)"
    )
    parser.add_argument(
        "--mixed-file", metavar="FILE", help="keep the file of commands there, to use it again"
    )
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where files are made")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--compare", metavar="FILE", help="show the ratios of this --json file, too"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return arguments


def _facts(arguments: argparse.Namespace, folder: Path) -> dict[str, str]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": f"{apsw.sqlite_lib_version()}, apsw {apsw.apsw_version()}",
        "pydantic": pydantic_version,
        "folder": f"{folder} ({_file_system(folder)})",
        "durability": "normal, or full where it says so",
        "peer": _peer(),
        "seed": str(arguments.seed),
        "turns": str(arguments.repeat),
        "size": "small: the figures mean nothing" if arguments.small else "full",
    }


def _peer() -> str:
    return f"eventsourcing {version('eventsourcing')}" if beside.HAS_PEER else "not installed"


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True
        )
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return commit.stdout.strip() + (" and changes" if changed.stdout else "")


def _file_system(folder: Path) -> str:
    """Return the type of the file system, where Linux tells it."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "type unknown"
    types = {point: kind for _, point, kind, *_ in map(str.split, mounts.read_text().splitlines())}
    return next(types[str(above)] for above in (folder, *folder.parents) if str(above) in types)


def _earlier(file: str | None) -> dict[str, float]:
    if file is None:
        return {}
    run = Run.model_validate_json(Path(file).read_text("utf-8"))
    return {figure.name: median(figure.ratios) for figure in run.figures}


_ROW = "{:22} {:>10} {:>10} {:11} {:>6} {:>13} {:>9} {}"


def _print(figure: Figure, earlier: float | None) -> None:
    ratios = figure.ratios
    required = (
        "" if figure.required is None else f"{'<>'[figure.sense == 'at least']}={figure.required}"
    )
    verdict = {None: "", True: "reached", False: "MISSED"}[figure.reached]
    before = "" if earlier is None else f" (was {earlier:.3f})"
    ours, peer = (_short(median(values)) for values in (figure.ours, figure.peer))
    spread = f"{min(ratios):.3f}-{max(ratios):.3f}"
    row = _ROW.format(
        figure.name, ours, peer, figure.unit, f"{median(ratios):.3f}", spread, required, verdict
    )
    print(f"{row}{before}")
    print(
        f"{'':22} against {figure.peer_name}",
        *(f"{k} {v:.2f}" for k, v in figure.details.items()),
        sep="; ",
    )
    sys.stdout.flush()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.2f}"


if __name__ == "__main__":
    main()
