"""Keeping what is read or written as text apart from what SQLite has open: it would damage it."""

import os
from contextlib import suppress
from pathlib import Path

import click


def refuse_own_files(path: Path, source: str, rejects_path: Path | None) -> None:
    """Refuse a journal as its own input ("-" for standard input), or for its rejects.

    Files that are there are compared by what they are; names alone do not tell where upper and
    lower case are the same.

    Raises:
        click.UsageError: it is.
    """
    real = Path(os.path.realpath(path))
    own = [real.with_name(real.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    if source != "-" and _is_among(Path(source), own):
        raise click.UsageError(f"{source} is the journal itself, it cannot be FILE, too")
    if rejects_path is None:
        return
    if _is_among(rejects_path, own):
        raise click.UsageError(f"{rejects_path} belongs to the journal, it cannot take --rejects")
    if source != "-" and _is_among(rejects_path, [Path(source)]):
        raise click.UsageError(f"{rejects_path} is what is read, it cannot take --rejects")


def _is_among(path: Path, others: list[Path]) -> bool:
    with suppress(OSError):
        if any(other.exists() and path.exists() and path.samefile(other) for other in others):
            return True
    return os.path.realpath(path) in map(os.path.realpath, others)
