"""The SQL, and the modules that `journal.__getattr__` imports by name when they are first used.

The command and the test class are left out: a program that uses them imports them, which
PyInstaller sees, and others need neither click nor pytest.
"""
# ruff: noqa: N999 (PyInstaller finds a hook by this name)

from PyInstaller.utils.hooks import (  # type: ignore[import-untyped]
    collect_data_files,
    collect_submodules,
)

_LEFT_OUT = {
    "journal.__main__",
    "journal._pyinstaller",
    "journal.commands",
    "journal.testing",
}

datas = collect_data_files("journal", includes=["**/*.sql"])
hiddenimports = collect_submodules("journal", filter=lambda name: name not in _LEFT_OUT)
