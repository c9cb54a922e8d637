"""Which texts a shipped file is not to have, as options and files say it; and the secret."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from journal.commands.console.group import os_error_text
from journal.commands.console.output import one_line

SECRET_VARIABLE: Final = "JOURNAL_REDACTION_SECRET"  # noqa: S105 (the name of one)

_POLICY_BYTES_MAX: Final = 1024 * 1024
_SECRET_BYTES_MAX: Final = 64 * 1024


def policy_of(options: tuple[str, ...], file: Path | None) -> dict[str, str]:
    """Return methods by KIND.FIELD, from KIND.FIELD=METHOD and from a file.

    What they mean, and whether there is such a field, is for the journal to say.

    Raises:
        click.UsageError: one is not of that form, or the file is not; or they contradict each
            other.
    """
    found: dict[str, str] = {}
    for option in options:
        name, equals, method = option.partition("=")
        if not equals:
            raise _usage(
                f"--redact: expected KIND.FIELD=blank, mask or hash, found {option!r:.100}"
            )
        _take(found, name, method, "--redact")
    for name, method in () if file is None else _pairs(_parsed(file), file):
        _take(found, name, method, str(file))
    return found


def secret_of(file: Path | None, policy: dict[str, str]) -> bytes | None:
    """Return the secret: a file without the line end after it, or else that in the environment.

    Raises:
        click.UsageError: there is none, and a policy needs one; or there is nothing in it.
    """
    if file is not None:
        secret = _bytes_of(file, _SECRET_BYTES_MAX, "secret")
        secret = secret.removesuffix(b"\n").removesuffix(b"\r")
        if not secret:
            raise _usage(f"{file}: is empty, and no secret")
        return secret
    if "hash" not in policy.values():
        return None
    text = os.environ.get(SECRET_VARIABLE)
    if not text:
        what = "is empty" if text == "" else "is not set"
        message = f"hash needs a secret: give --secret-file FILE ({SECRET_VARIABLE} {what})"
        raise _usage(message)
    return os.fsencode(text)


def _usage(message: str) -> click.UsageError:
    return click.UsageError(one_line(message))


def _take(found: dict[str, str], name: str, method: str, where: str) -> None:
    if found.setdefault(name, method) != method:
        message = f"{where}: {name!r:.100} is to be redacted in two ways: {found[name]!r:.100} "
        raise _usage(f"{message}and {method!r:.100}")


def _parsed(file: Path) -> dict[str, Any]:
    """Return the table that a file has: JSON if it begins with a brace, otherwise TOML."""
    try:
        text = _bytes_of(file, _POLICY_BYTES_MAX, "policy").decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            found: dict[str, Any] = json.loads(text, object_pairs_hook=_without_doubles)
        else:
            import tomllib  # noqa: PLC0415 (every command would wait for it)

            found = tomllib.loads(text)
    except RecursionError:
        raise _usage(f"{file}: is no policy: it is nested too deeply") from None
    except ValueError as error:
        raise _usage(f"{file}: is no policy in JSON or TOML: {error}") from error
    if not found:
        raise _usage(f"{file}: is no policy: it names no text")
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{double!r:.100} is there more than once")
    return found


def _pairs(table: dict[str, Any], file: Path, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and methods; a table in the table has the fields of a kind."""
    for key, value in table.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _pairs(value, file, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        else:
            message = f"{file}: {name!r:.100}: expected blank, mask or hash, found {value!r:.100}"
            raise _usage(message)


def _bytes_of(file: Path, bytes_max: int, what: str) -> bytes:
    try:
        with file.open("rb") as opened:
            found = opened.read(bytes_max + 1)
    except OSError as error:
        raise _usage(os_error_text(error, str(file))) from error
    if len(found) > bytes_max:
        raise _usage(
            f"{file}: is no {what.removeprefix('a ')}: it has more than {bytes_max:,} bytes"
        )
    return found
