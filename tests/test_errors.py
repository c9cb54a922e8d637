"""The errors: every class survives pickle and copy, and is what a program expects of its bases."""

import copy
import errno
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from journal import errors
from journal.errors import JournalError, LineRejectedError, PathError, PathOSError

PATH = Path("folder") / "app.db"

# One of each class. Attributes are chosen so that none equals what a class would have by itself.
EXAMPLES: list[JournalError] = [
    JournalError("something"),
    PathError(PATH, "is not what it should be"),
    PathOSError(PATH, "broke", errno=errno.EPIPE),
    errors.UnsafeSQLiteError("3.51.2"),
    errors.JournalNotFoundError(PATH, "does not exist", errno=errno.ENOTDIR),
    errors.PathIsDirectoryError(PATH, "is a directory"),
    errors.AccessDeniedError(PATH, "cannot be read", errno=errno.EPERM),
    errors.NotADatabaseError(PATH, "is not an SQLite database"),
    errors.NotAJournalError(PATH, "is not a journal"),
    errors.OpenSourceError(PATH),
    errors.NewerFormatError(PATH, expected=1, found=2),
    errors.ClosedCopyError(PATH, "delta"),
    errors.NotAClosedCopyError(PATH),
    errors.FileReplacedError(PATH, "was moved or deleted"),
    errors.StaleWalError(PATH, "is of another journal"),
    errors.InvalidEventError("missing field 'session_id'", 7),
    errors.UnknownKindError("stream_paused", 8),
    LineRejectedError(9, b'{"\xff', "not UTF-8", appended=8, first=101, last=108),
    errors.ConcurrencyError(UUID(int=1), expected=2, actual=3),
    errors.KeyConflictError("order-17", 4, 5),
    errors.ReadOnlyError(PATH, "is open for reading only"),
    errors.CommitFailedError(PATH, "the commit failed"),
    errors.OverloadedError(waiting=64, waiting_max=64),
    errors.FlushFailedError(PATH, 7, "the disk is full", is_known=True, errno=errno.ENOSPC),
    errors.FoldError("errors", 6, "apply returned None"),
    errors.UnknownProjectionError("errors"),
    errors.PrunedError(PATH, "position 6", 7),
    errors.TargetExistsError(PATH),
    errors.WrongTargetError(PATH, "is the very file that is read"),
    errors.OtherHistoryError(PATH, "ends at position 7, and 8 is later"),
    errors.PrunedFleetError(PATH, "was pruned, and was not made anew"),
    errors.ClosedError(PATH, "the journal is closed"),
    errors.BusyError(PATH, "is locked by another process"),
    errors.StorageFullError(PATH, "the disk is full"),
    errors.StorageError(PATH, "disk I/O error", errno=errno.EREMOTE),
    errors.DamagedError(PATH, "the event at position 5 is missing", 5),
]

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BaseException)
]

USUAL_ERRNO = {
    errors.JournalNotFoundError: errno.ENOENT,
    errors.PathIsDirectoryError: errno.EISDIR,
    errors.AccessDeniedError: errno.EACCES,
    errors.FileReplacedError: errno.ESTALE,
    errors.ReadOnlyError: errno.EROFS,
    errors.CommitFailedError: errno.EIO,
    errors.BusyError: errno.ETIMEDOUT,
    errors.StorageFullError: errno.ENOSPC,
    errors.StorageError: errno.EIO,
    PathOSError: errno.EIO,
}

COPIERS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(
            pickle.dumps(error, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


class UnforeseenError(PathOSError):
    """Like a class that somebody adds, with a constructor of its own and no thought of pickle."""

    def __init__(self, *, where: list[str], count: int) -> None:
        super().__init__(where[0], f"broke {count} times", errno=errno.EPIPE)
        self.where = where
        self.count = count


def named(error: JournalError) -> str:
    return type(error).__name__


def facts(error: BaseException) -> tuple[Any, ...]:
    """Return all that can be seen of an error."""
    system = [getattr(error, name, None) for name in ("errno", "strerror", "filename")]
    return type(error), str(error), error.args, dict(vars(error)), system


def test_there_is_an_example_of_every_class() -> None:
    assert {type(example) for example in EXAMPLES} == set(CLASSES)
    assert len(EXAMPLES) == len(CLASSES)


@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize(
    "example", [*EXAMPLES, UnforeseenError(where=["a.db", "b"], count=2)], ids=named
)
def test_errors_can_be_copied_and_pickled(example: JournalError, copier: str) -> None:
    example.add_note("while the third batch was appended")
    try:
        found = COPIERS[copier](example)
        again = COPIERS[copier](found)
        expected = facts(example)
    finally:
        del example.__notes__

    assert facts(found) == facts(again) == expected
    assert found is not example
    assert found.__notes__ == ["while the third batch was appended"]


def test_a_copy_can_be_raised_from_another_error() -> None:
    with pytest.raises(errors.DamagedError) as caught:
        raise pickle.loads(pickle.dumps(EXAMPLES[-1])) from OSError("why")

    assert isinstance(caught.value.__cause__, OSError)


def fail(number: int) -> None:
    error = EXAMPLES[number]
    error.add_note("in the other process")
    raise error


def test_errors_come_back_from_a_process_pool() -> None:
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        futures = [pool.submit(fail, number) for number in range(len(EXAMPLES))]
        found = [future.exception(timeout=60) for future in futures]

    for error, example in zip(found, EXAMPLES, strict=True):
        assert error is not None
        assert error.__notes__ == ["in the other process"]
        del error.__notes__
        assert facts(error) == facts(example)


@pytest.mark.parametrize(
    ("error", "usual"),
    [
        (errors.ClosedCopyError(PATH, "ship"), errno.EROFS),
        (errors.StaleWalError(PATH, "is of another journal"), errno.ESTALE),
        (errors.TargetExistsError(PATH), errno.EEXIST),
    ],
)
def test_what_makes_its_words_by_itself_has_errno_and_filename(
    error: PathOSError, usual: int
) -> None:
    assert (error.errno, error.filename) == (usual, str(PATH))
    assert str(error) == f"{PATH}: {error.strerror}"


@pytest.mark.parametrize("cls", list(USUAL_ERRNO))
def test_system_errors_have_errno_and_filename(cls: type[PathOSError]) -> None:
    """All but those above, which make their words by themselves."""
    usual, caused = cls(PATH, "reason"), cls(PATH, "reason", errno=errno.EPIPE)

    assert (usual.errno, caused.errno) == (USUAL_ERRNO[cls], errno.EPIPE)
    for error in (usual, caused):
        assert (error.filename, error.strerror) == (str(PATH), "reason")
        assert str(error) == f"{PATH}: reason"


def test_every_system_error_has_a_usual_errno() -> None:
    system = {cls for cls in CLASSES if issubclass(cls, OSError)}

    assert system == USUAL_ERRNO.keys() | {
        errors.ClosedCopyError,
        errors.FlushFailedError,
        errors.OpenSourceError,
        errors.StaleWalError,
        errors.TargetExistsError,
    }


def test_the_usual_errno_is_one_that_the_built_in_stands_for() -> None:
    """`OSError(ENOENT, ...)` makes a `FileNotFoundError`, and so on."""
    for cls, number in USUAL_ERRNO.items():
        if number != errno.EROFS:  # Python has no class for it
            assert issubclass(cls, type(OSError(number, "")))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_fits_a_built_in_and_says_when_it_is_raised(cls: type[JournalError]) -> None:
    assert issubclass(cls, JournalError)
    if cls not in (JournalError, PathError):
        assert cls.__mro__[cls.__mro__.index(JournalError) + 1] is not Exception
    assert "__doc__" in vars(cls)
    assert len((cls.__doc__ or "").split()) >= 4


def test_the_docstring_of_the_module_names_every_class() -> None:
    tree = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]

    named = {word.strip(":,") for word in tree.split() if word.strip(":,").endswith("Error")}
    assert named == {cls.__name__ for cls in CLASSES} - {"PathError", "PathOSError"}


def test_damage_is_data() -> None:
    error = errors.DamagedError(PATH, "the event at position 5 is missing", 5)

    assert (error.path, error.position) == (PATH, 5)
    assert error.what == "the event at position 5 is missing"
    assert str(error) == f"{PATH}: the event at position 5 is missing"
    assert errors.DamagedError(PATH, "is damaged").position is None
