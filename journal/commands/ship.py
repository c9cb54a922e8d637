"""`journal ship`: make a complete, checked and closed copy of a journal."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import journal
from journal.commands.console.arguments import (
    AfterType,
    FileType,
    journal_argument,
    json_option,
)
from journal.commands.console.output import Output, counted, one_line, size_text
from journal.commands.console.policies import SECRET_VARIABLE, policy_of, secret_of
from journal.commands.console.progress import CountProgress, making, working
from journal.commands.console.tables import told

if TYPE_CHECKING:
    from journal.maintenance import Redaction, Shipment

_EPILOG = """\b
Example:
  journal ship tests.db copy.db
  journal ship tests.db /media/stick --manifest
  journal ship tests.db copy.db --no-indexes --force --json
  journal ship tests.db monday.db --after sunday.db
  journal ship tests.db copy.db --redact stream_failed.error=blank
  journal ship tests.db copy.db --policy texts.toml --secret-file secret

\b
A policy is TOML or JSON, with as many texts as need be:
  stream_failed.error = "hash"
  priority_threshold_adjusted.reason = "mask"
  unknown = "blank"
"""


@click.command(epilog=_EPILOG, short_help="Make a complete, closed copy to read anywhere.")
@journal_argument
@click.argument("dest", metavar="DEST", type=FileType(path_type=str))
@click.option(
    "--after",
    type=AfterType(),
    metavar="POSITION|FILE",
    help="Only what is new: from the block that has this position on, or the last one of FILE, "
    "which was shipped from this journal before, or is the manifest of that.",
)
@click.option(
    "--standalone",
    is_flag=True,
    help="With --after: have all open sessions and streams in it, with what became of them before.",
)
@click.option(
    "--manifest", is_flag=True, help="Also write what it holds as JSON, DEST.manifest.json."
)
@click.option("--no-indexes", is_flag=True, help="Leave out the indexes for reading.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option(
    "--redact",
    "redact",
    multiple=True,
    metavar="KIND.FIELD=METHOD",
    help="Redact a text: blank, mask (only its length is left) or hash (equal texts stay equal)."
    " unknown=blank empties events of unknown kinds. May be repeated.",
)
@click.option("--policy", metavar="FILE", type=FileType(), help="Many of these, in TOML or JSON.")
@click.option(
    "--secret-file",
    metavar="FILE",
    type=FileType(),
    help=f"What keys the hashes; or {SECRET_VARIABLE} in the environment. It is never in the copy.",
)
@json_option
def ship(
    path: Path,
    dest: str,
    *,
    after: int | Path | None,
    standalone: bool,
    manifest: bool,
    no_indexes: bool,
    force: bool,
    redact: tuple[str, ...],
    policy: Path | None,
    secret_file: Path | None,
    as_json: bool,
) -> None:
    """Make a complete, checked and closed copy of JOURNAL, while others go on writing to it.

    DEST is the file, or a folder: then it is named after the label, the journal and its positions.
    It holds everything up to one moment in one file, with sessions and streams folded, and opens
    from read-only media in anything that reads SQLite; its table README says how to ask it. Nobody
    appends to it. JOURNAL is not changed.

    The indexes for reading find sessions, streams and times at once, and add half to three
    quarters to the file. The manifest has size and SHA-256, and tells what the file must hold.

    With --after it holds the last blocks only, in the time that those take, and says which digest
    lies before them. Sessions and streams in it count what happened since; with --standalone they
    count from the beginning, which takes folding all of it.

    Redacted texts are nowhere in the copy, and what else may have kept them is left out: states of
    projections of your own, and idempotency keys. Blocks without such an event still prove theirs.
    """
    if standalone and after is None:
        raise click.UsageError("--standalone: expected --after, too")
    texts = policy_of(redact, policy)
    secret = secret_of(secret_file, texts)
    output = Output()
    progress = CountProgress()
    with (
        working(progress),
        making(progress),
        journal.Journal.open(path, read_only=True) as opened,
    ):
        found = opened.ship(
            dest,
            after=after,
            standalone=standalone,
            manifest=manifest,
            indexes=not no_indexes,
            force=force,
            redact=texts,
            secret=secret,
            progress=progress.take,
        )
    if as_json:
        output.json_line(found.model_dump(mode="json"))
    else:
        for line in _summary(found, manifest=manifest):
            output.line(line)
    output.flush()


def _summary(found: "Shipment", *, manifest: bool) -> list[str]:
    events = counted(found.event_count, "event")
    if found.event_count:
        events += f", positions {found.first_position} to {found.last_position}"
    absent = sum(it.last_position - it.first_position + 1 for it in found.absent)
    if absent:
        events += f" (and {absent:,} absent)"
    facts = {
        "Shipped": one_line(str(found.path)),
        **({} if found.label is None else {"Label": told(found.label)}),
        "Events": events,
        **({} if found.redacted is None else {"Redacted": _redacted_text(found.redacted)}),
        **_follows(found),
        **({} if found.head is None else {"Head": found.head}),
        "Size": size_text(found.file_bytes),
        "SHA-256": found.sha256,
        **({"Manifest": one_line(str(found.manifest_path))} if manifest else {}),
    }
    return [f"{name:<12}{value}" for name, value in facts.items()]


def _follows(found: "Shipment") -> dict[str, str]:
    """Return the digest before a delta, with its position."""
    if found.digest_before is None or not any(it.reason == "before delta" for it in found.absent):
        return {}
    first = found.first_position or (found.last_position or 0) + 1
    return {"Follows": f"{first - 1}:{found.digest_before}"}


def _redacted_text(found: "Redaction") -> str:
    """Return what was redacted, how, and in how many events."""
    return "; ".join(
        f"{it.field} ({it.method}) in {counted(it.event_count, 'event')}" for it in found.texts
    )
