"""What PyInstaller has to know to put this package into a program; it finds it by itself."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Return where the hooks are (entry point `pyinstaller40`)."""
    return [str(Path(__file__).parent)]
