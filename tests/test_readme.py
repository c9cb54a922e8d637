"""What the README says is so: its programs run, its console prints what it shows, nothing is left
out. Its two lines that set up an environment are run by `.ci/run`.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from commands_support import ended, environment, run_here, start

import journal
from journal import errors
from journal.commands import cli

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "data" / "sample.ndjson"
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def run(folder: Path, *command: str, **variables: str) -> str:
    """Run Python, where both `-m journal` and `-c` need not load the package."""
    how, what, *arguments = command
    done = ended(
        start(
            *arguments,
            program=[how, what],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            env=environment(**variables),
        )
    )
    assert done.code == 0, done
    return done.out.decode()


def test_the_programs_run_one_after_the_other(tmp_path: Path) -> None:
    ten_lines, own_projection = blocks("python")[:2]

    printed = run(tmp_path, "-c", ten_lines).splitlines()
    states = run(tmp_path, "-c", own_projection)

    assert printed[0].startswith('{"event_type":"stream_created","session_id":"')
    assert re.fullmatch(r"[0-9a-f-]{36} Preparing", printed[1])
    assert re.fullmatch(r"\{'[0-9a-f-]{36}': \{'events': 2, 'errors': 0\}\}\n", states)
    assert len([line for line in own_projection.splitlines() if line]) <= 15


def test_the_first_program_passes_strict_mypy_without_a_plugin(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "ten_lines.py").write_text(blocks("python")[0], "utf-8")

    printed = run(
        tmp_path,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "ten_lines.py",
        PYTHONWARNINGS="default",
    )

    assert printed == "Success: no issues found in 1 source file\n"


def test_the_first_program_passes_strict_pyright(tmp_path: Path) -> None:
    """By basedpyright, which has pyright's rules and more, and downloads nothing when it runs."""
    pytest.importorskip("basedpyright")
    (tmp_path / "ten_lines.py").write_text(blocks("python")[0], "utf-8")
    settings = {
        "typeCheckingMode": "strict",
        "include": ["ten_lines.py"],
        "extraPaths": [str(ROOT)],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")

    arguments = "-m", "basedpyright", "--pythonpath", sys.executable
    printed = run(tmp_path, *arguments, PYTHONWARNINGS="default")

    assert printed.splitlines()[-1].startswith("0 errors, 0 warnings")


def test_the_console_prints_what_it_shows(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data", tmp_path / "tests" / "data")
    console = "".join(it for it in blocks("console") if "journal verify" not in it)
    shown = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)
    assert len(shown) > 8

    for line, expected in shown:
        program, *arguments = shlex.split(line)
        if program == "sqlite3":
            option, file, sql = arguments
            assert option == "-readonly"
            found = query(tmp_path / file, sql)
        else:
            assert program == "journal"
            found = run(tmp_path, "-m", "journal", *arguments)
        pattern = re.escape(expected).replace("…", ".+")  # what is different each time
        assert re.fullmatch(pattern, found), f"{line}\n{found}"


def test_append_says_what_is_shown(tmp_path: Path) -> None:
    """On standard error, which is in no console there; the size may differ by some pages."""
    pattern = "`append` says on standard error what it did: `(.*; sample.db is )(\\d+) kB`"
    ((shown, size),) = re.findall(pattern, README)

    said = run_here("append", tmp_path / "sample.db", SAMPLE).err
    found = re.fullmatch(re.escape(shown).replace("…", ".+") + r"(\d+) kB\n", said)

    assert found, said
    assert int(found[1]) == pytest.approx(int(size), rel=0.05)


def test_verify_prints_what_it_shows(tmp_path: Path) -> None:
    """But for the digest, which is another one in every file."""
    section = README.partition("### Verify")[2]
    (console,) = re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[:1]
    run(tmp_path, "-m", "journal", "append", "sample.db", str(SAMPLE))
    shutil.copyfile(tmp_path / "sample.db", tmp_path / "damaged.db")
    with closing(apsw.Connection(str(tmp_path / "damaged.db"))) as file:
        file.execute("DROP TRIGGER event_is_never_updated")
        file.execute("UPDATE event SET timestamp = timestamp + 1 WHERE seq = 2500")
    shown = re.findall(r"^\$ journal (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)
    assert len(shown) > 1

    for line, expected in shown:
        found = run_here(*(tmp_path / it if it.endswith(".db") else it for it in line.split()))
        assert blanked(found.out.decode()) == blanked(expected), line
        assert found.code == ("damaged" in line)


def blanked(text: str) -> str:
    return re.sub("[0-9a-f]{64}", "", text)


def test_recover_prints_what_it_shows(tmp_path: Path) -> None:
    """But for its numbers, which go by the pages on which the events happen to lie."""
    section = README.partition("### Recover")[2]
    (console,) = re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[:1]
    run(tmp_path, "-m", "journal", "append", "damaged.db", str(SAMPLE))
    content = bytearray((tmp_path / "damaged.db").read_bytes())
    middle = len(content) // 2
    content[middle - 32768 : middle + 32768] = bytes(65536)
    (tmp_path / "damaged.db").write_bytes(content)
    shown = re.findall(r"^\$ journal (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)
    assert len(shown) == 2

    for line, expected in shown:
        found = run_here(*(tmp_path / it if it.endswith(".db") else it for it in line.split()))
        printed = found.out.decode().replace(f"{tmp_path}{os.sep}", "")
        assert numberless(printed) == numberless(expected), line
        assert found.code == (3 if line.startswith("recover") else 0)


def numberless(text: str) -> str:
    text = re.sub(r"positions \d[\d, to]*(\.\.\.)?", "positions", blanked(text))
    return re.sub(r"\d[\d,]*", "N", text)


def query(path: Path, sql: str) -> str:
    """Return what the sqlite3 shell prints."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = connection.execute(sql).fetchall()
    finally:
        connection.close()
    return "".join("|".join(map(str, row)) + "\n" for row in rows)


def test_every_command_is_in_the_table() -> None:
    shown = re.findall(r"^\| `journal (\w+)[ `]", README, re.MULTILINE)

    assert sorted(shown) == sorted(cli.commands)


def test_the_table_of_errors_names_the_public_ones_and_their_built_in_bases() -> None:
    section = README.partition("## Errors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (`.*?) \| ", section, re.MULTILINE)
    shown: dict[str, str] = {}
    for names, bases in rows:
        several = re.findall(r"`(\w+)`", names)
        built_ins = re.findall(r"`(\w+)`", bases)
        assert len(built_ins) in (1, len(several))
        each = built_ins * len(several) if len(built_ins) == 1 else built_ins
        shown |= zip(several, each, strict=True)

    public = {
        name: getattr(errors, name)
        for name in journal.__all__
        if hasattr(errors, name) and name != "JournalError"
    }
    assert shown == {name: built_in_base(cls) for name, cls in public.items()}
    assert len(re.findall(r"^\| `", section, re.MULTILINE)) == len(rows)


def built_in_base(cls: type[errors.JournalError]) -> str:
    """Return the first of its bases that is Python's own, as `except` would have to name it."""
    return next(base.__name__ for base in cls.__mro__ if base.__module__ == "builtins")


def test_every_error_but_the_bases_of_several_is_public() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    own = {name for name in classes if issubclass(getattr(errors, name), Exception)}

    assert own - {"PathError", "PathOSError"} == own.intersection(journal.__all__)


@pytest.mark.parametrize(
    "deviation",
    ["leap second", "1677-09-21 to 2262-04-11", "0001 to 9999", "written as arrays", "`event_id`"],
)
def test_every_deviation_from_the_reference_is_named(deviation: str) -> None:
    """`test_wire`, `test_timestamps` and `test_event_ids` show that they are so."""
    section = README.partition("## Differences from the reference")[2].partition("\n## ")[0]

    assert deviation in section


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:journal|tests|benchmarks)/[\w./]+)`", README))

    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name
