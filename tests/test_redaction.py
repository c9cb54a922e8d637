"""Redacted copies: the texts are nowhere in them, and everything else is as it was."""

import hashlib
import hmac
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import support
from commands_support import run_here
from support import Channel, lines_of, names_in
from test_absent import CUT, cut, whole
from verify_support import codes, execute

import journal
from journal import Journal, Projection, SessionId, UnknownEvent, continue_copy, limits, parse_event
from journal.events.kinds import KINDS
from journal.file.blocks import TEXT_SQL
from journal.maintenance import Redaction, Shipment, redacting

MARK = "xyzzy-plugh-Grüße"
ERROR, REASON = "stream_failed.error", "priority_threshold_adjusted.reason"
SECRET = b"the key of this device"
ALL = {ERROR: "hash", REASON: "mask", "unknown": "blank"}

KEEPING = Projection(
    "keeping", 1, {"texts": []}, lambda state, event: {"texts": [*state["texts"], _text(event)]}
)


def _text(event: Any) -> str:
    return getattr(event, "error", getattr(event, "reason", ""))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 10)


@pytest.fixture(autouse=True)
def temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> Path:
    """A folder of its own for the originals."""
    folder = tmp_path_factory.mktemp("aside")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return Path(folder)


IDS = f'"session_id":"{SessionId.new()}","stream_id":"{journal.StreamId.new()}"'
SESSION = IDS.partition(",")[0]
TIME = '"timestamp":"2026-01-01T00:00:00Z"'
FAILED = f'{{"event_type":"stream_failed",{IDS},"error":"%s",{TIME}}}'
ADJUSTED = (
    f'{{"event_type":"priority_threshold_adjusted",{SESSION},"old_threshold":7,'
    f'"new_threshold":255,"reason":"%s",{TIME}}}'
)
PAUSED = f'{{"event_type":"stream_paused","note":"%s",{IDS},"deep":{{"a":["%s"]}},{TIME}}}'
PLAIN = [f'{{"event_type":"session_activated",{SESSION},{TIME}}}'] * 10


def make(path: Path) -> Journal:
    """Return an open journal with the mark wherever a program can write it, some in the -wal.

    Its blocks are ten events each; those of the second and of the fourth have no text.
    """
    opened = Journal.open(path, label="pump 7")
    opened.register(KEEPING)
    opened.append_events([parse_event(FAILED % f"{MARK} 1")], key=f"{MARK} key")
    opened.append_ndjson([FAILED % "other", FAILED % f"{MARK} 1", ADJUSTED % f"{MARK} 2"])
    opened.append_ndjson([PAUSED % (MARK, MARK)], unknown="keep")
    opened.append_ndjson(PLAIN[:5])
    opened.append_events([parse_event(line) for line in PLAIN], key="plain")
    opened.append_ndjson([FAILED % "", ADJUSTED % MARK, *PLAIN[:8], *PLAIN, *PLAIN[:3]])
    opened.states("keeping")
    opened.sessions()
    opened.append_ndjson([FAILED % f"{MARK} last"])
    return opened


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Journal]:
    (tmp_path / "live").mkdir()
    with make(tmp_path / "live" / "a.db") as opened:
        yield opened


def ship(path: Path, dest: Path, redact: dict[str, str] | None, **options: Any) -> Shipment:
    with Journal.open(path, read_only=True) as opened:
        return opened.ship(dest, redact=redact, secret=SECRET, **options)


def rows(path: Path, sql: str) -> list[Any]:
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as file:
        return file.execute(sql).fetchall()


def is_in(text: str, path: Path) -> bool:
    """Tell whether the bytes of a file have a text, in any of the ways in which it may be there."""
    found = path.read_bytes()
    escaped = json.dumps(text)[1:-1]
    ways = [it.encode(code) for it in (text, escaped) for code in ("utf-8", "utf-16-le")]
    ways += [text.encode("utf-16-be"), text.encode().hex().encode()]
    return any(way in found or way.upper() in found for way in ways)


# The text is gone


@pytest.mark.parametrize("method", ["blank", "mask", "hash"])
@pytest.mark.parametrize("indexes", [True, False])
def test_a_text_is_nowhere_in_what_is_shipped(
    source: Journal, tmp_path: Path, method: str, temporary_files: Path, *, indexes: bool
) -> None:
    wal = source.path.with_name("a.db-wal")
    plain = source.ship(tmp_path / "plain.db", manifest=True)
    redact = {ERROR: method, REASON: method, "unknown": "blank"}
    made = source.ship(
        tmp_path / "b.db", manifest=True, indexes=indexes, redact=redact, secret=SECRET
    )

    assert is_in(MARK, wal)
    assert is_in(MARK, plain.path)
    for path in (made.path, made.manifest_path):
        for text in (MARK, MARK[:12], f"{MARK} key", SECRET.decode()):
            assert not is_in(text, path), text
    assert names_in(tmp_path) == [
        *("b.db", "b.db.manifest.json", "live", "plain.db", "plain.db.manifest.json")
    ]
    assert names_in(temporary_files) == []


# Where else a text may be, as somebody else or another version leaves it.
PLACES = {
    "another table": f"CREATE TABLE notes (x); INSERT INTO notes VALUES ('{MARK}')",
    "a view": f"CREATE VIEW notes AS SELECT '{MARK}' AS x",
    "a full-text index": f"CREATE VIRTUAL TABLE notes USING fts5(x);"
    f"INSERT INTO notes VALUES ('{MARK}')",
    "samples": "CREATE TABLE notes (x); ANALYZE;"
    f"INSERT INTO sqlite_stat1 VALUES ('event', NULL, '{MARK}')",
    "a column": f"ALTER TABLE stream ADD COLUMN note TEXT; UPDATE stream SET note = '{MARK}'",
    "a name": f'CREATE TABLE "a ""{MARK}" (x); CREATE TABLE " " (y INTEGER PRIMARY KEY'
    " AUTOINCREMENT)",
    "a state without a checkpoint": f"INSERT INTO projection_state VALUES ('gone', '', '{MARK}')",
    "a projection of another shape": "ALTER TABLE projection_stream ADD COLUMN note TEXT;"
    f"UPDATE projection_stream SET note = '{MARK}'",
    "a base": f"INSERT INTO base_state VALUES ('keeping', '', '{MARK}')",
    "a free page": f"CREATE TABLE notes (x); INSERT INTO notes VALUES ('{MARK}'); DROP TABLE notes",
    "a kind by its fields": "INSERT INTO kind VALUES (90, 'device_moved', '[\"to\",\"how\"]');"
    f'UPDATE event SET kind = 90, data = \'["{MARK}","{MARK}"]\' WHERE seq = 5',
    "a kind that is known by now": "INSERT INTO kind VALUES (91, 'stream_failed', NULL);"
    "UPDATE event SET kind = 91, data = replace(replace("
    f"(SELECT data FROM event WHERE seq = 5), 'stream_paused', 'stream_failed'),"
    f' \'"deep"\', \'"error":"{MARK}","deep"\') WHERE seq = 5',
    "a kind that is known and does not fit": "INSERT INTO kind VALUES (91, 'stream_failed', NULL);"
    "UPDATE event SET kind = 91, data = replace("
    "(SELECT data FROM event WHERE seq = 5), 'stream_paused', 'stream_failed') WHERE seq = 5",
}


def reproven(path: Path) -> None:
    """Write the blocks anew, for events that another version would have written so."""
    with closing(apsw.Connection(str(path))) as file:
        before = "0" * 64
        for first, last, salt in file.execute(
            "SELECT first_seq, last_seq, salt FROM block ORDER BY 1"
        ).fetchall():
            text: Any = file.execute(TEXT_SQL, {"first": first, "last": last}).get
            content = hashlib.sha256(f"{salt}{text}".encode()).hexdigest()
            before = hashlib.sha256(f"{before}{content}".encode()).hexdigest()
            sql = "UPDATE block SET content_digest = ?, digest = ? WHERE first_seq = ?"
            file.execute(sql, (content, before, first))


@pytest.mark.parametrize("place", PLACES)
def test_what_nobody_knows_is_not_shipped_with_it(tmp_path: Path, place: str) -> None:
    path = tmp_path / "a.db"
    make(path).close()
    execute(path, PLACES[place])
    if "a kind" in place:
        reproven(path)

    made = ship(path, tmp_path / "b.db", ALL)

    assert not is_in(MARK, made.path)
    assert codes(made.path) == set()
    with Journal.open(made.path, read_only=True) as opened:
        events = [one.event for one in opened.read()]
    assert len(events) == made.event_count == 44
    assert events[4].stream_id == events[0].stream_id
    if place == "a kind by its fields":
        assert isinstance(events[4], UnknownEvent)
        assert json.loads(events[4].original_json)["how"] is None
    if place == "a kind that is known by now":
        assert events[4].event_type == "stream_failed"
        assert _text(events[4]) == hashed(MARK)


@pytest.mark.parametrize("redact", [{ERROR: "mask"}, {"unknown": "blank"}])
def test_a_kind_that_is_known_by_now_goes_by_either(tmp_path: Path, redact: dict[str, str]) -> None:
    """By its field, and as something that was not known when it was kept."""
    path = tmp_path / "a.db"
    make(path).close()
    execute(path, PLACES["a kind that is known by now"])
    reproven(path)

    made = ship(path, tmp_path / "b.db", redact)

    with Journal.open(made.path, read_only=True) as opened:
        event = next(opened.read(after=4)).event
    assert event.model_dump_json() == rows(made.path, "SELECT data FROM event WHERE seq = 5")[0][0]
    assert _text(event) == ("*" * len(MARK) if ERROR in redact else MARK)
    assert "deep" not in event.model_dump_json()


# What stands in its place


def hashed(text: str) -> str:
    return hmac.new(SECRET, text.encode(), "sha256").hexdigest()


AFTER = {"blank": lambda _: "", "mask": lambda text: "*" * len(text), "hash": hashed}


@pytest.mark.parametrize("method", AFTER)
def test_all_but_the_texts_is_as_it_was(source: Journal, tmp_path: Path, method: str) -> None:
    made = source.ship(tmp_path / "b.db", redact={ERROR: method}, secret=SECRET)

    def redacted(match: re.Match[str]) -> str:
        return f'"error":"{AFTER[method](match[1])}"'

    expected = [(at, re.sub('"error":"(.*?)"', redacted, text)) for at, text in source.lines()]
    with Journal.open(made.path, read_only=True) as opened:
        assert list(opened.lines()) == expected
        assert opened.sessions() == source.sessions()
        (stream,) = opened.streams()
        assert stream.error == AFTER[method](f"{MARK} last")
        assert opened.anomalies() == source.anomalies()
    view = rows(made.path, "SELECT data ->> 'error' FROM events WHERE event_type = 'stream_failed'")
    assert view[1] == (AFTER[method]("other"),)
    assert (view[0] == view[2]) is True


def test_of_an_unknown_kind_only_what_every_event_has_is_left(
    source: Journal, tmp_path: Path
) -> None:
    made = source.ship(tmp_path / "b.db", redact={"unknown": "blank"})

    with Journal.open(made.path, read_only=True) as opened:
        event = next(opened.read(after=4)).event
    assert isinstance(event, UnknownEvent)
    assert event.original_json == f'{{"event_type":"stream_paused",{IDS},{TIME}}}'
    assert parse_event(event.original_json, unknown="keep") == event


def test_numbers_beside_a_text_keep_their_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = apsw.Connection(":memory:")
    data = '[18446744073709551615,1e+21,-0.0,"a\\u0001\\"é","text",null]'
    policy = redacting.Policy({ERROR: "mask"}, None)
    monkeypatch.setattr(policy, "places", lambda _: [(4, ERROR)])
    connection.execute("CREATE TABLE kind (code, name, fields)")

    found = redacting._Redacting(connection, policy)._array("any", data)

    assert found == (data.replace("text", "****"), {ERROR})


# What proves it


def test_blocks_without_a_redacted_event_prove_theirs(source: Journal, tmp_path: Path) -> None:
    head = source.info().head
    made = source.ship(tmp_path / "b.db", redact=ALL, secret=SECRET)

    found = journal.verify(made.path, full=True, head=head)
    assert found.sound, found.findings
    assert (found.proven_count, found.redacted_count, found.uncovered_count) == (20, 24, 0)
    assert found.head == made.head == head
    sql = "SELECT first_seq, salt IS NULL, redacted_digest IS NULL, sealed FROM block"
    assert rows(made.path, sql) == [
        *((1, 1, 0, 1), (11, 0, 1, 1), (21, 1, 0, 1), (31, 0, 1, 1), (41, 1, 0, 0))
    ]
    sql = "SELECT content_digest, digest FROM block"
    source.close()
    assert rows(made.path, sql) == rows(source.path, sql)


def test_the_digest_of_what_a_block_holds_now_is_as_specified(
    source: Journal, tmp_path: Path
) -> None:
    made = source.ship(tmp_path / "b.db", redact=ALL, secret=SECRET)

    with closing(apsw.Connection(str(made.path), flags=apsw.SQLITE_OPEN_READONLY)) as file:
        sql = "SELECT first_seq, last_seq, redacted_digest FROM block WHERE salt IS NULL"
        for first, last, digest in file.execute(sql).fetchall():
            text: Any = file.execute(TEXT_SQL, {"first": first, "last": last}).get
            assert hashlib.sha256(text.encode()).hexdigest() == digest
    execute(made.path, "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 1")
    assert "block-content" in codes(made.path)


def test_events_of_it_never_change_either(source: Journal, tmp_path: Path) -> None:
    made = source.ship(tmp_path / "b.db", redact=ALL, secret=SECRET)

    sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY name"
    assert rows(made.path, sql) == rows(source.path, sql)
    with closing(apsw.Connection(str(made.path))) as file, pytest.raises(apsw.ConstraintError):
        file.execute("UPDATE event SET data = NULL")


def test_a_damaged_event_is_not_blessed_by_redacting_its_block(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make(path).close()
    execute(path, "UPDATE event SET timestamp = timestamp + 1 WHERE seq = 2")

    with pytest.raises(journal.DamagedError, match="from position 1 to 10 are not what they were"):
        ship(path, tmp_path / "b.db", ALL)

    assert names_in(tmp_path) == ["a.db"]


def test_what_does_not_touch_a_redacted_event_is_kept(source: Journal, tmp_path: Path) -> None:
    late = Projection("late", 1, {"n": 0}, lambda state, _: {"n": state["n"] + 1})
    source.register(late)
    source.states("late")
    execute(source.path, "UPDATE checkpoint SET since = 31, position = 40 WHERE name = 'late'")

    made = source.ship(tmp_path / "b.db", redact=ALL, secret=SECRET)

    assert rows(made.path, "SELECT key, first_seq FROM append_key") == [("plain", 11)]
    assert rows(made.path, "SELECT projection FROM projection_state") == [("late",)]
    sql = "SELECT name, position FROM checkpoint ORDER BY 1"
    assert rows(made.path, sql) == [("late", 40), ("sessions", 44), ("streams", 44)]


def test_states_from_before_a_cut_do_not_keep_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BLOCK_EVENTS_MAX", 50)
    path = whole(tmp_path / "a.db")
    cut(path, tmp_path)
    assert is_in('"error": "', path)
    made = ship(path, tmp_path / "b.db", {ERROR: "blank"})

    assert not is_in('"error": "', made.path)
    assert codes(made.path) == set()
    assert set(rows(made.path, "SELECT since FROM folded")) == {(CUT + 1,)}
    with Journal.open(path) as old, Journal.open(made.path, read_only=True) as opened:
        for status in old.sessions():
            assert opened.version(status.session_id) == old.version(status.session_id)
    kept = ship(path, tmp_path / "c.db", {"unknown": "blank"})
    assert set(rows(kept.path, "SELECT since FROM folded")) == {(1,)}


# What says so


def test_the_manifest_tells_what_was_redacted(source: Journal, tmp_path: Path) -> None:
    made = source.ship(tmp_path / "b.db", manifest=True, redact=ALL, secret=SECRET)

    told = json.loads(made.manifest_path.read_bytes())["redacted"]
    assert told == json.loads(
        rows(made.path, "SELECT value FROM manifest WHERE key = 'redacted'")[0][0]
    )
    assert told["texts"] == [
        {"field": ERROR, "method": "hash", "event_count": 5},
        {"field": REASON, "method": "mask", "event_count": 2},
        {"field": "unknown", "method": "blank", "event_count": 1},
    ]
    assert told["ranges"] == [
        {"first_position": 1, "last_position": 10},
        {"first_position": 21, "last_position": 30},
        {"first_position": 41, "last_position": 44},
    ]
    assert source.ship(tmp_path / "c.db").redacted is None


def test_what_was_redacted_before_is_told_again(source: Journal, tmp_path: Path) -> None:
    first = source.ship(tmp_path / "b.db", redact={ERROR: "blank"})
    second = ship(first.path, tmp_path / "c.db", {REASON: "blank"})
    third = ship(second.path, tmp_path / "d.db", None)

    assert isinstance(third.redacted, Redaction)
    assert [(it.field, it.event_count) for it in third.redacted.texts] == [(ERROR, 4), (REASON, 2)]
    assert third.redacted == second.redacted
    assert not is_in(f"{MARK} 2", third.path)
    for made in (second, third):
        assert codes(made.path) == set()
        assert made.head == first.head


def test_a_journal_can_go_on_from_it(source: Journal, tmp_path: Path) -> None:
    made = source.ship(tmp_path / "b.db", redact=ALL, secret=SECRET)

    new = continue_copy(made.path, tmp_path / "c.db")
    with Journal.open(new.path) as opened:
        opened.append_ndjson([*PLAIN, *PLAIN])
    found = journal.verify(new.path, full=True, head=made.head)

    assert found.sound, found.findings
    assert (found.proven_count, found.redacted_count) == (40, 24)
    again = ship(new.path, tmp_path / "d.db", None)
    assert again.redacted == made.redacted
    execute(new.path, "DELETE FROM origin")
    assert "block-redacted" in codes(new.path), "nothing says any more that it may be so"


# What it is not asked for


def test_every_text_of_a_known_kind_can_be_named(source: Journal, tmp_path: Path) -> None:
    texts = {
        f"{kind.name}.{field.name}": "blank"
        for kind in KINDS.values()
        for field in kind.fields
        if field.type.name == "text"
    }

    assert texts.keys() >= {ERROR, REASON}
    assert source.ship(tmp_path / "b.db", redact=texts).redacted is not None


BAD: dict[str, tuple[Any, Any, str]] = {
    "kind": ({"stream_fail.error": "blank"}, None, "expected KIND.FIELD of a kind that is known"),
    "no field": ({"stream_failed": "blank"}, None, "the texts of stream_failed are stream_failed"),
    "field": ({"stream_failed.reason": "blank"}, None, "'stream_failed.reason' is not there"),
    "no text": ({"frames_batched.frame_count": "blank"}, None, "is no text: frames_batched has no"),
    "method": ({ERROR: "delete"}, None, "expected one of blank, mask, hash, found 'delete'"),
    "unknown": ({"unknown": "hash"}, SECRET, "can only be emptied (blank), found 'hash'"),
    "no secret": ({ERROR: "hash"}, None, "secret: expected bytes"),
    "empty secret": ({ERROR: "hash"}, b"", "secret: expected bytes"),
    "empty secret for nothing": ({ERROR: "blank"}, b"", "secret: expected bytes"),
    "text for a secret": ({ERROR: "hash"}, "a text", "with, found str"),
    "no mapping": ([ERROR], None, "redact: expected methods by KIND.FIELD, found list"),
    "no name": ({7: "blank"}, None, "found 7"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_and_changes_nothing(
    source: Journal, tmp_path: Path, what: str
) -> None:
    redact, secret, text = BAD[what]
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        source.ship(tmp_path / "b.db", redact=redact, secret=secret)

    assert "a text" not in str(caught.value)
    assert names_in(tmp_path) == ["live"]


# The command


TOML = f"""
{ERROR} = "hash"
priority_threshold_adjusted.reason = "mask"  # a table in a table, or a name with a dot
unknown = "blank"
"""
POLICIES = {
    "a.toml": TOML,
    "b.json": json.dumps(ALL),
    "c.json": json.dumps({"stream_failed": {"error": "hash"}, REASON: "mask", "unknown": "blank"}),
    "d": f'\ufeff"{ERROR}" = "hash"\n"{REASON}" = "mask"\nunknown = "blank"',
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_toml_or_json(source: Journal, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POLICIES[name], "utf-8")
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    options = ["--policy", tmp_path / name, "--secret-file", tmp_path / "secret"]

    result = run_here("ship", source.path, tmp_path / "b.db", *options, "--redact", f"{ERROR}=hash")

    assert (result.code, result.err) == (0, "")
    assert (
        f"Redacted    {ERROR} (hash) in 5 events; {REASON} (mask) in 2 events;"
        " unknown (blank) in 1 event\n"
    ) in result.out.decode()
    with Journal.open(tmp_path / "b.db", read_only=True) as opened:
        assert _text(next(opened.read()).event) == hashed(f"{MARK} 1")


def test_the_secret_can_be_in_the_environment(
    source: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_REDACTION_SECRET", SECRET.decode())

    options = ["--redact", f"{ERROR}=hash", "--json"]
    result = run_here("ship", source.path, tmp_path / "b.db", *options)

    assert json.loads(result.out)["redacted"]["texts"][0]["event_count"] == 5
    with Journal.open(tmp_path / "b.db", read_only=True) as opened:
        assert _text(next(opened.read()).event) == hashed(f"{MARK} 1")


USAGE: dict[str, tuple[list[str], str]] = {
    "no method": (["--redact", ERROR], "expected KIND.FIELD=blank, mask or hash"),
    "field": (["--redact", "stream_failed.x=blank"], "is not there"),
    "method": (["--redact", f"{ERROR}=gone"], "expected one of blank, mask, hash"),
    "no secret": (["--redact", f"{ERROR}=hash"], "hash needs a secret: give --secret-file"),
    "two ways": (["--redact", f"{ERROR}=mask", "--redact", f"{ERROR}=blank"], "in two ways"),
    "file and option": (["--redact", f"{ERROR}=mask", "--policy", "all"], "in two ways"),
    "missing policy": (["--policy", "none"], "none: no such file or directory"),
    "broken policy": (["--policy", "broken"], "broken: is no policy in JSON or TOML"),
    "broken JSON": (["--policy", "broken.json"], "is no policy in JSON or TOML"),
    "twice": (["--policy", "twice"], "'unknown' is there more than once"),
    "empty policy": (["--policy", "empty"], "it names no text"),
    "number": (["--policy", "number"], "'stream_failed.error': expected blank, mask or hash"),
    "nested": (["--policy", "nested"], "is no policy"),
    "binary": (["--policy", "binary"], "is no policy in JSON or TOML"),
    "huge": (["--policy", "huge"], "it has more than 1,048,576 bytes"),
    "folder": (["--policy", "."], "is a directory"),
    "empty secret": (["--redact", f"{ERROR}=hash", "--secret-file", "newline"], "no secret"),
    "missing secret": (["--redact", f"{ERROR}=hash", "--secret-file", "none"], "no such file"),
}
FILES = {
    "all": f'"{ERROR}" = "blank"',
    "broken": "unknown = blank",
    "broken.json": '{"unknown": "blank"',
    "twice": '{"unknown": "blank", "unknown": "blank"}',
    "empty": "",
    "number": "stream_failed.error = 7",
    "nested": '{"a":' * 100_000,
    "binary": "\udcff\udcfe\0",
    "huge": "#" * 1_048_577,
    "newline": "\n",
}


@pytest.mark.parametrize("what", USAGE)
def test_bad_usage_is_one_sentence_and_changes_nothing(
    source: Journal, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_REDACTION_SECRET", raising=False)
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    options, text = USAGE[what]
    for name in FILES.keys() & {*options}:
        Path(name).write_bytes(FILES[name].encode(errors="surrogateescape"))
    before = names_in(Path())

    result = run_here("ship", source.path, "b.db", *options)

    assert (result.code, result.out) == (2, b"")
    assert text.lower() in result.err.splitlines()[-1].lower()
    assert names_in(Path()) == before


# Whole or not at all


def parts_in(folder: Path) -> list[str]:
    """Return what is left of files that were being made; others have temporary files, too."""
    return [name for name in names_in(folder) if "journal-part" in name]


def redact_until_killed(_channel: Channel, path: Path, dest: Path, aside: str, step: str) -> None:
    tempfile.tempdir = aside
    original = getattr(redacting, step)

    def killed(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        support.die()

    setattr(redacting, step, killed)
    ship(path, dest, ALL)


@pytest.mark.skipif(os.name == "nt", reason="kill -9 of POSIX")
@pytest.mark.parametrize("step", ["check", "_drop_others"])
def test_killed_at_any_step_it_leaves_no_file_of_that_name(
    tmp_path: Path, temporary_files: Path, step: str
) -> None:
    path = tmp_path / "a.db"
    make(path).close()
    (tmp_path / "out").mkdir()
    dest = tmp_path / "out" / "b.db"
    child = support.Child(redact_until_killed, path, dest, str(temporary_files), step)
    child.wait_until_killed()

    assert not dest.exists()
    assert parts_in(temporary_files) != []
    left = [it for it in (tmp_path / "out").rglob("*") if it.is_file()]
    assert not any(is_in(MARK, it) for it in left), "the original is not where the copy is made"
    ship(path, dest, ALL)
    assert names_in(tmp_path / "out") == ["b.db"]
    assert parts_in(temporary_files) == []


@pytest.mark.parametrize("step", ["check", "_drop_others", "copy_moment"])
def test_an_interrupt_leaves_everything_as_it_was(
    source: Journal,
    tmp_path: Path,
    temporary_files: Path,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    shutil.copy(__file__, tmp_path / "b.db")
    monkeypatch.setattr(redacting, step, interrupted)

    with pytest.raises(KeyboardInterrupt):
        source.ship(tmp_path / "b.db", redact=ALL, secret=SECRET, force=True)

    assert names_in(tmp_path) == ["b.db", "live"]
    assert (tmp_path / "b.db").read_bytes() == Path(__file__).read_bytes()
    assert names_in(temporary_files) == []


def test_redacting_takes_the_same_memory_however_much_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held at once are the events of a block, or as many where none has them."""
    path = tmp_path / "a.db"
    with Journal.open(path) as opened:
        opened.append_ndjson([FAILED % number for number in range(300)])
    execute(path, "DELETE FROM block WHERE first_seq BETWEEN 101 AND 191")
    execute(path, "INSERT INTO meta VALUES ('closed', 'recover')")
    monkeypatch.setattr(limits, "PAGE_EVENTS_MAX", 10)
    held: list[int] = []
    original = redacting._Redacting._redact

    def looked_at(self: Any, first: int, last: int) -> bool:
        held.append(last - first + 1)
        return original(self, first, last)

    monkeypatch.setattr(redacting._Redacting, "_redact", looked_at)

    made = ship(path, tmp_path / "b.db", {ERROR: "blank"})

    assert sum(held) >= 300
    assert max(held) <= 11
    assert made.redacted is not None
    assert made.redacted.texts[0].event_count == 300
    assert codes(made.path) == set()


def test_its_progress_rises_to_the_end(source: Journal, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    source.ship(tmp_path / "b.db", redact=ALL, secret=SECRET, progress=lambda *it: told.append(it))

    assert told == sorted(told)
    assert told[-1] == (44, 44)
    assert len(lines_of("kinds.ndjson")) > len({done for done, _ in told}) > 5


def redact_on_a_full_disk(_channel: Channel, path: Path, aside: Path, dest: Path) -> dict[int, Any]:
    """Have more and more room where the original is to be; tell what was said each time."""
    support.own_mounts()
    support.mount_memory(aside, 1024 * 1024)
    tempfile.tempdir = str(aside)
    found: dict[int, Any] = {}
    for free in range(0, 800_000, 80_000):
        filler = aside / "filler"
        filler.write_bytes(bytes(1024 * 1024 - 16_384 - free))
        try:
            found[free] = ship(path, dest, ALL).event_count
            dest.unlink()
        except journal.StorageFullError as error:
            found[free] = str(error)
        filler.unlink()
        assert parts_in(aside) == []
        assert names_in(dest.parent) == []
    return found


def test_where_there_is_no_room_for_the_original_it_says_so(tmp_path: Path) -> None:
    make(tmp_path / "a.db").close()
    for name in ("aside", "out"):
        (tmp_path / name).mkdir()

    arguments = tmp_path / "a.db", tmp_path / "aside", tmp_path / "out" / "b.db"
    found = [*support.run(redact_on_a_full_disk, *arguments).values()]

    assert isinstance(found[0], str)
    assert found[-1] == 44
    for said in found:
        assert said == 44 or said.startswith(str(tmp_path / "aside")), said
