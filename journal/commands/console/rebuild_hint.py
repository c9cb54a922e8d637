"""A hint about what a command folds in memory and forgets, because it only reads."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from journal.commands.console.output import counted, one_line, say

if TYPE_CHECKING:
    from journal import Journal

_WORTH_A_HINT = 1_000_000


def hint_at_rebuild(opened: "Journal", path: Path) -> None:
    """Say how to keep what is folded now, if it is so much that one waits for it."""
    events = opened.last_position
    for projection in opened.projections():
        if projection.name == "sessions" and not projection.stale:
            events = projection.lag
    if events >= _WORTH_A_HINT:
        command = f"journal rebuild {shlex.quote(str(path))}"
        text = f"folding {counted(events, 'event')} in memory; run `{command}` once to keep it"
        say(one_line(text))
