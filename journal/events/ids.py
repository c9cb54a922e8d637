"""Session and stream ids: UUIDs that a type checker and the models refuse to mix up."""

import re
from typing import Any, ClassVar, Self
from uuid import UUID, SafeUUID, uuid4

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

# The four spellings that the reference reads (Rust crate uuid 1, Uuid::parse_str): hyphenated,
# simple, braced and URN. UUID() of the standard library takes many more.
_HYPHENATED = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_CANONICAL = re.compile(_HYPHENATED)
_SPELLINGS = re.compile(
    rf"(?:[0-9a-f]{{32}}|{_HYPHENATED}|\{{{_HYPHENATED}\}}|(?-i:urn:uuid:){_HYPHENATED})",
    re.IGNORECASE | re.ASCII,
)

# A process meets the same few thousand ids again and again; building one costs a microsecond.
_INTERNED_MAX = 20_000

# UUID forbids setting its slots. Their descriptors do not, and take half the time of what it does
# itself.
_set_int: Any = UUID.__dict__["int"].__set__
_set_is_safe: Any = UUID.__dict__["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown


class _Id(UUID):
    """A UUID of one purpose; the subclasses say which."""

    __slots__ = ()
    interned: ClassVar[dict[str, Any]]
    """The ids of canonical texts that were parsed recently."""

    def __init_subclass__(cls) -> None:
        cls.interned = {}

    def __init__(self, value: str | UUID) -> None:
        """Build an id from its text (hyphenated, simple, braced or URN) or from a UUID.

        Raises:
            ValueError: the text is not in one of the four spellings.
        """
        _set_int(self, value.int if isinstance(value, UUID) else _int_of(value))
        _set_is_safe(self, _UNKNOWN)

    @classmethod
    def new(cls) -> Self:
        """Return a new random (version 4) id."""
        return cls(uuid4())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that `text` spells; the same text usually gives the same object.

        Raises:
            ValueError: the text is not in one of the four spellings.
        """
        known: Self | None = cls.interned.get(text)
        if known is not None:
            return known
        parsed = cls(text)
        if _CANONICAL.fullmatch(text):
            if len(cls.interned) >= _INTERNED_MAX:
                cls.interned.clear()
            cls.interned[text] = parsed
        return parsed

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        """Return the id of sixteen bytes, big-endian, as a journal file holds them.

        Raises:
            ValueError: there are not sixteen.
        """
        if len(value) != 16:
            message = f"expected the 16 bytes of a UUID, found {len(value)}"
            raise ValueError(message)
        new = cls.__new__(cls)
        _set_int(new, int.from_bytes(value, "big"))
        _set_is_safe(new, _UNKNOWN)
        return new

    @classmethod
    def _validate(cls, value: object) -> Self:
        if isinstance(value, str):
            try:
                return cls.parse(value)
            except ValueError as error:
                raise PydanticCustomError(
                    "uuid_parsing", "{reason}", {"reason": str(error)}
                ) from None
        if isinstance(value, UUID) and not isinstance(value, _Id):
            return cls(value)
        raise PydanticCustomError(
            "uuid_type",
            "Input should be a {expected} or a UUID, not {found}",
            {"expected": cls.__name__, "found": type(value).__name__},
        )

    @classmethod
    def _slots_of(cls, value: object) -> tuple[dict[str, Any], None]:
        """Return what `_validate` returns taken apart, as the schema below wants it."""
        new = cls._validate(value)
        return {"int": new.int, "is_safe": new.is_safe}, None

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # An event is made of ids nearly always. pydantic lets an instance of the class of a
        # dataclass pass by itself, without a call into Python, which would take a tenth of the
        # time of making an event. For all else it asks `_slots_of` what to fill a new one with.
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_plain_validator_function(cls._validate),
            python_schema=core_schema.dataclass_schema(
                cls,
                core_schema.no_info_plain_validator_function(cls._slots_of),
                ["int", "is_safe"],
                slots=True,
            ),
            serialization=core_schema.to_string_ser_schema(when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "format": "uuid"}


def check_id(value: object, cls: type[_Id]) -> None:
    """Refuse what is not an id of this class: text, or an id of the other, would find nothing.

    Raises:
        TypeError: `value` is something else.
    """
    if not isinstance(value, cls):
        message = f"expected a {cls.__name__}, found {type(value).__name__}"
        raise TypeError(message)


class SessionId(_Id):
    """The id of a session."""

    __slots__ = ()


class StreamId(_Id):
    """The id of a stream."""

    __slots__ = ()


def _int_of(text: str) -> int:
    if not isinstance(text, str):
        message = f"an id is built from a str or a UUID, not from {type(text).__name__}"
        raise TypeError(message)
    if not _SPELLINGS.fullmatch(text):
        shown = text if len(text) <= 60 else text[:60] + "..."
        message = f"{shown!r} is not a UUID (expected 32 hexadecimal digits as 8-4-4-4-12)"
        raise ValueError(message)
    digits = text.removeprefix("urn:uuid:").strip("{}").replace("-", "")
    return int(digits, 16)
