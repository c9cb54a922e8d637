"""What is to be redacted: texts of events, by kind and field, each in one of three ways.

And what a file says of the texts that were redacted in it.
"""

import hmac
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import apsw
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from journal.errors import DamagedError
from journal.events.kinds import KINDS
from journal.file.identity import meta, set_meta

Method = Literal["blank", "mask", "hash"]
METHODS: Final = ("blank", "mask", "hash")

UNKNOWN: Final = "unknown"
"""Stands for the kinds that this version does not know, where a policy names a kind and a field."""

_TEXTS: Final = {
    f"{kind.name}.{field.name}": (kind.name, place)
    for kind in KINDS.values()
    for place, field in enumerate(kind.fields)
    if field.type.name == "text"
}
"""The texts of events as a policy names them: the kind of each, and its place in the data."""

_BLOCKS_SQL: Final = """
SELECT first_seq, last_seq FROM block WHERE redacted_digest IS NOT NULL ORDER BY first_seq
"""


class Policy:
    """Which texts are to be redacted, and how.

    Args:
        redact: methods by KIND.FIELD, or by "unknown".
        secret: the key of hashes.

    Raises:
        ValueError: a name is not that of a text, a method is none, or a hash has no secret.
    """

    def __init__(self, redact: Mapping[str, str], secret: bytes | None) -> None:
        if not isinstance(redact, Mapping):
            message = f"redact: expected methods by KIND.FIELD, found {type(redact).__name__}"
            raise ValueError(message)  # noqa: TRY004 (bad values are ValueErrors, here as elsewhere)
        for name, method in redact.items():
            _check(name, method)
        self.methods: dict[str, Method] = {**cast("Mapping[str, Method]", redact)}
        self._key = _checked_secret(secret, is_needed="hash" in self.methods.values())

    @property
    def takes_unknown(self) -> bool:
        """Whether events of unknown kinds are emptied."""
        return UNKNOWN in self.methods

    def places(self, kind: str) -> list[tuple[int, str]]:
        """Return where the texts of a known kind are in its data, each with its name here."""
        found = ((name, *_TEXTS[name]) for name in self.methods if name != UNKNOWN)
        return [(place, name) for name, owner, place in found if owner == kind]

    def redacted(self, name: str, text: str) -> str:
        """Return what is to stand in the place of a text."""
        match self.methods[name]:
            case "mask":
                return "*" * len(text)
            case "hash":
                return hmac.digest(self._key, text.encode(), "sha256").hex()
            case _:
                return ""


def _check(name: object, method: object) -> None:
    """Refuse what does not say which text is to be redacted, and how.

    Raises:
        ValueError: it does not.
    """
    kind, _, field = name.partition(".") if isinstance(name, str) else ("", "", "")
    if name != UNKNOWN and kind not in KINDS:
        expected = f"KIND.FIELD of a kind that is known (see journal kinds), or {UNKNOWN}"
        raise ValueError(f"redact: expected {expected}, found {name!r:.100}")
    if name != UNKNOWN and name not in _TEXTS:
        has = "is no text" if field in KINDS[kind].field_names else "is not there"
        texts = ", ".join(text for text in _TEXTS if text.startswith(f"{kind}."))
        texts = f"the texts of {kind} are {texts}" if texts else f"{kind} has no texts"
        raise ValueError(f"redact: the field {name!r:.100} {has}: {texts}")
    if method not in METHODS:
        expected = ", ".join(METHODS)
        raise ValueError(f"redact: {name}: expected one of {expected}, found {method!r:.100}")
    if name == UNKNOWN and method != "blank":
        message = f"redact: events of unknown kinds can only be emptied (blank), found {method!r}"
        raise ValueError(message)


def _checked_secret(secret: object, *, is_needed: bool) -> bytes:
    if secret is None and not is_needed:
        return b""
    if not isinstance(secret, bytes) or not secret:
        found = "nothing" if secret is None or secret == b"" else type(secret).__name__
        raise ValueError(f"secret: expected bytes to key the hashes of texts with, found {found}")
    return secret


class RedactedTexts(BaseModel):
    """What was done to some texts: `field` is KIND.FIELD, or "unknown" for events of such kinds."""

    model_config = ConfigDict(frozen=True)

    field: str
    method: Method
    event_count: int
    """In how many events a text was another one before."""


class PositionRange(BaseModel):
    """Positions, both ends inclusive."""

    model_config = ConfigDict(frozen=True)

    first_position: int
    last_position: int


class Redaction(BaseModel):
    """What was redacted in a copy, and in which blocks.

    In `ranges`, one or more events are not what was appended. Their blocks keep the digests of what
    was, and only the SHA-256 of the file binds what they hold now.
    """

    model_config = ConfigDict(frozen=True)

    texts: tuple[RedactedTexts, ...]
    ranges: tuple[PositionRange, ...]


AS_TEXTS: Final = TypeAdapter(tuple[RedactedTexts, ...])


def read_redaction(connection: apsw.Connection) -> Redaction | None:
    """Return what was redacted in a file, None where nothing was to be.

    Raises:
        DamagedError: what the file says of it cannot be understood.
    """
    texts = parsed_texts(connection)
    if texts is None:
        return None
    ranges: list[PositionRange] = []
    rows: Any = connection.execute(_BLOCKS_SQL)
    for first, last in rows:
        if ranges and ranges[-1].last_position + 1 == first:
            first = ranges.pop().first_position  # noqa: PLW2901
        ranges.append(PositionRange(first_position=first, last_position=last))
    return Redaction(texts=texts, ranges=tuple(ranges))


def parsed_texts(connection: apsw.Connection) -> tuple[RedactedTexts, ...] | None:
    """Return what `meta` says of redacted texts, None where it says nothing.

    Raises:
        DamagedError: it cannot be understood.
    """
    text = meta(connection, "redacted")
    try:
        return None if text is None else AS_TEXTS.validate_json(text)
    except ValidationError as error:
        what = f"is damaged: redacted in meta is {text!r:.100}, which it cannot be"
        raise DamagedError(connection.filename, what) from error


def add_texts(connection: apsw.Connection, texts: tuple[RedactedTexts, ...]) -> None:
    """Write down that texts were redacted, after what was before."""
    before = parsed_texts(connection) or ()
    set_meta(connection, "redacted", to_json((*before, *texts)).decode())
