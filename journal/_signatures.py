"""Signatures that `help()` shows on one line."""

from types import FunctionType

_LINE_MAX = 76  # of 80, help() takes four for its frame


class _Text(str):
    """Text that signatures show without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def shorten_signatures(cls: type) -> None:
    """Leave of the annotations of a class's methods what fits a line: what they return, or nothing.

    It is for classes whose annotations are text that only type checkers can resolve, since what it
    names is imported for them alone: no program can make use of it, and whoever asks for help sees
    signatures of three lines.
    """
    for attribute in vars(cls).values():
        function = getattr(attribute, "__func__", attribute)
        if isinstance(function, FunctionType):
            returned = _Text(function.__annotations__.get("return", "None"))
            function.__annotations__ = {"return": returned}
            if returned == "None" or len(f"{_parameters(function)} -> {returned}") > _LINE_MAX:
                function.__annotations__ = {}


def _parameters(function: FunctionType) -> str:
    """Return the name and the parameters of a function as a signature shows them."""
    code, last_defaults = function.__code__, function.__defaults__ or ()
    names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    last = names[code.co_argcount - len(last_defaults) : code.co_argcount]
    defaults = {**dict(zip(last, last_defaults, strict=True)), **(function.__kwdefaults__ or {})}
    shown = [f"{name}={defaults[name]!r}" if name in defaults else name for name in names]
    if code.co_kwonlyargcount:
        shown.insert(code.co_argcount, "*")
    return f"{function.__name__}({', '.join(shown)})"
