"""Signatures that `help()` shows on one line."""

import inspect
from types import FunctionType
from typing import Any, Final

_LINE_MAX: Final = 76  # of 80, help() takes four for its frame
_CLASS_METHOD_NOTE: Final = " from builtins.type"  # which help() says below Python 3.13
_REST: Final = "…"


class _Text(str):
    """Text that signatures show without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


class _Shown(inspect.Signature):
    """A signature with every parameter, of which people are shown those that fit the room."""

    room: int = _LINE_MAX

    def __str__(self) -> str:
        shown = _parameters(self)
        text = f"({', '.join(shown)})"
        while len(text) > self.room and shown:
            del shown[-1]
            text = f"({', '.join([*shown, _REST])})"
        return text

    def format(self, *, max_width: int | None = None) -> str:  # noqa: ARG002 (Python 3.13 gives it)
        """Return the same, where help() asks for lines of its own."""
        return str(self)

    def replace(self, **changes: Any) -> "_Shown":
        """Return it as it is for a method that is bound, with the same room."""
        replaced = super().replace(**changes)
        replaced.room = self.room
        return replaced


def shorten_signatures(cls: type) -> None:
    """Leave of the annotations of a class's methods what fits a line: what they return, or nothing.

    Where not even the parameters do, the first of them are shown; `inspect` still knows all. It is
    for classes whose annotations are text that only type checkers can resolve, since what it names
    is imported for them alone: no program can make use of it, and whoever asks for help sees
    signatures of three lines.
    """
    for attribute in vars(cls).values():
        function = getattr(attribute, "__func__", attribute)
        if isinstance(function, FunctionType):
            room = _LINE_MAX - len(function.__name__)
            if isinstance(attribute, classmethod):
                room -= len(_CLASS_METHOD_NOTE)
            _shorten(function, room)


def _shorten(function: FunctionType, room: int) -> None:
    returned = _Text(function.__annotations__.get("return", "None"))
    function.__annotations__ = {}
    signature = inspect.signature(function)
    length = len(str(signature))
    if returned != "None" and length + len(f" -> {returned}") <= room:
        function.__annotations__ = {"return": returned}
    elif length > room:
        shown = _Shown(list(signature.parameters.values()))
        shown.room = room
        function.__signature__ = shown  # type: ignore[attr-defined]


def _parameters(signature: inspect.Signature) -> list[str]:
    """Return the parameters as signatures show them, with the star before those with names only."""
    shown = [str(parameter) for parameter in signature.parameters.values()]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    return shown
