"""The files of this package that are not Python, found wherever the package itself is."""

from functools import cache


@cache
def text_of(package: str, name: str) -> str:
    """Return a file beside the modules of a package, such as `schema.sql` of `journal.file`.

    Through the loader of the package: from a folder, a zip archive or a PyInstaller bundle.

    Raises:
        OSError: it is not there: whoever packed the program left it out.
    """
    # Only making something new needs this. `importlib.resources` takes eight times as long.
    from pkgutil import get_data  # noqa: PLC0415

    data = get_data(package, name)
    if data is None:
        raise FileNotFoundError(f"{package}: its loader cannot read {name}")
    return data.decode("utf-8")
