"""Names of a package that are imported when they are first used.

The models take long to import: the help of the command, and each command that needs few of them,
should not have to wait for all.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its name.
        homes: the modules in it, by the names that they have for it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without this
        return value

    return get
