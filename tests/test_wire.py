"""The wire: what the reference accepts and rejects, and that both readers agree."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROUNDS, lines_of

from journal import (
    InvalidEventError,
    SessionId,
    UnknownEvent,
    UnknownKindError,
    parse_event,
)
from journal.events import wire, wire_exact
from journal.events.canonical import canonical_json
from journal.events.kinds import KINDS

SESSION = "67e55044-10b1-426f-9247-bb680e5fe0c8"
STREAM = "f47ac10b-58cc-4372-a567-0e02b2c3d479"

# What the reference accepts and this package does not: the README names them all.
DEVIATIONS = {
    "2016-12-31T23:59:60Z": "leap second",
    "-0001-01-01T00:00:00Z": "outside the years 0001 to 9999",
    "+10000-01-01T00:00:00Z": "outside the years 0001 to 9999",
    '"26-01-01T00:00:00Z"': "out of range",
    '"metrics":[1.5': "expected a valid dictionary",
}


def batched(**fields: Any) -> str:
    return json.dumps(
        {
            "event_type": "frames_batched",
            "session_id": SESSION,
            "frame_count": 5,
            "timestamp": "2026-01-01T00:00:00Z",
            **fields,
        }
    )


@pytest.mark.parametrize("line", lines_of("wire.ndjson"))
def test_what_the_reference_accepts_and_rejects_is_accepted_and_rejected(line: str) -> None:
    case = json.loads(line)
    reason = next((why for mark, why in DEVIATIONS.items() if mark in case["input"]), None)

    if reason is not None:
        assert "canonical" in case
        with pytest.raises(InvalidEventError, match=reason):
            parse_event(case["input"])
    elif "canonical" in case:
        assert parse_event(case["input"]).model_dump_json() == case["canonical"]
        assert parse_event(case["input"].encode()).model_dump_json() == case["canonical"]
    else:
        with pytest.raises(InvalidEventError) as caught:
            parse_event(case["input"])
        assert "\n" not in str(caught.value)


def test_all_deviations_are_in_the_reference_data() -> None:
    inputs = [json.loads(line)["input"] for line in lines_of("wire.ndjson")]

    for mark in DEVIATIONS:
        assert sum(mark in text for text in inputs) == 1


@pytest.mark.parametrize("name", ["kinds", "lifecycle/events", "mixed/events", "sample"])
def test_reference_output_comes_back_byte_for_byte(name: str) -> None:
    for line in lines_of(f"{name}.ndjson"):
        assert parse_event(line).model_dump_json() == line


def test_pretty_printed_and_reordered_json_is_the_same_event() -> None:
    for line in lines_of("kinds.ndjson"):
        fields = json.loads(line)
        reordered = dict(reversed(fields.items()))
        for text in (json.dumps(fields, indent=2), json.dumps(reordered), f"\r\n {line}\t "):
            assert parse_event(text).model_dump_json() == line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON: expecting value at character 1"),
        ("{", "not JSON: expecting property name enclosed in double quotes at character 2"),
        ("5", "expected a JSON object, found 5"),
        ("{}", "missing field 'event_type'"),
        (batched(frame_count=-1), "field 'frame_count': expected greater than or equal to 0"),
        (batched(frame_count=2**64), "field 'frame_count': expected a valid integer"),
        (batched().replace(": 5", ": -0"), "field 'frame_count': expected a valid integer"),
        (batched(session_id="x"), "field 'session_id': 'x' is not a UUID"),
        (batched(timestamp="now"), "field 'timestamp': 'now' is not RFC 3339 text"),
        (batched(extra=0).replace('"extra": 0', '"extra": NaN'), "not JSON: NaN is not a value"),
        (batched(extra=0).replace('"extra": 0', '"extra": 1e999'), "number 1e999 is out of range"),
        (batched(extra=json.loads("[" * 127 + "]" * 127)), "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        (batched(x="\ud800"), "not Unicode: a string holds a lone surrogate"),
        (batched().replace(SESSION, "\ud800"), "not Unicode: a string holds a lone surrogate"),
    ],
)
def test_the_reason_is_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        parse_event(text)

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.line_number is None


def test_the_deepest_nesting_that_the_reference_takes_is_taken() -> None:
    text = batched(extra=json.loads("[" * 126 + "]" * 126))

    assert parse_event(text).event_type == "frames_batched"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\xff{}", "not UTF-8: byte 0xff at byte 1"), (5, "expected JSON text as str or bytes")],
)
def test_what_is_no_text_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(InvalidEventError, match=reason):
        parse_event(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_duplicate_of_any_field_is_refused_and_of_any_other_ignored(kind: str) -> None:
    line = next(line for line in lines_of("kinds.ndjson") if f'"{kind}"' in line)
    fields = json.loads(line)

    for name, value in fields.items():
        again = f'{line[:-1]},"{name}":{json.dumps(value)}}}'
        with pytest.raises(InvalidEventError, match=f"duplicate field '{name}'"):
            parse_event(again)
    assert parse_event(f'{line[:-1]},"x":1,"x":2}}').model_dump_json() == line


def test_a_duplicate_inside_the_metrics_is_refused() -> None:
    line = next(line for line in lines_of("kinds.ndjson") if '"latency_ms":' in line)

    for name in ("latency_ms", "low_frames", "frames_per_second"):
        with pytest.raises(InvalidEventError, match=f"duplicate field '{name}'"):
            parse_event(line.replace(f'"{name}":', f'"{name}":1,"{name}":'))


def test_a_duplicate_is_seen_behind_every_disguise() -> None:
    """The fast reader counts characters, so try to make the counts come out even."""
    escaped = batched().replace("T00:00:00Z", r"T00\u003a00\u003a00Z")
    doubled = escaped[:-1] + f', "session_id": "{SESSION}", "frame_count": 6}}'
    simple = batched().replace(SESSION, SESSION.replace("-", ""))
    zeros = simple[:-1].replace(": 5", ": -0") + "}"

    for text in (doubled, zeros, batched()[:-1] + ', "frame_count" : 6}'):
        with pytest.raises(InvalidEventError):
            parse_event(text)
    assert parse_event(escaped).model_dump_json() == parse_event(batched()).model_dump_json()


@pytest.mark.parametrize("content", ["{}", "null"])
def test_a_state_may_be_written_as_an_object(content: str) -> None:
    text = (
        f'{{"event_type":"session_timed_out","session_id":"{SESSION}","original_state":'
        f'{{"Active":{content}}},"timeout_duration":6,"timestamp":"2026-01-01T00:00:00Z"}}'
    )

    assert '"original_state":"Active"' in parse_event(text).model_dump_json()
    with pytest.raises(InvalidEventError):
        parse_event(text.replace(content, "[]"))
    with pytest.raises(InvalidEventError):
        parse_event(text.replace(f'"Active":{content}', f'"Active":{content},"Active":{content}'))


def test_an_unknown_kind_is_refused_by_name() -> None:
    (line,) = lines_of("next_version.ndjson")

    with pytest.raises(UnknownKindError, match="'backpressure_received' is not a known") as caught:
        parse_event(line)

    assert caught.value.kind == "backpressure_received"


def test_an_unknown_kind_can_be_kept_whole() -> None:
    (line,) = lines_of("next_version.ndjson")

    event = parse_event(line, unknown="keep")

    assert isinstance(event, UnknownEvent)
    assert event.session_id == SessionId(SESSION)
    assert event.timestamp.epoch_ns % 1_000_000_000 == 123_456_789
    assert event.original_json == event.model_dump_json() == line
    assert not event.is_error
    assert event.metadata()["event_type"] == "backpressure_received"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"session_id": None}, "field 'session_id': expected a string, found null"),
        ({"timestamp": "noon"}, "field 'timestamp': 'noon' is not"),
        ({"timestamp": "1600-01-01T00:00:00Z"}, "out of range"),
        ({"stream_id": "x"}, "field 'stream_id': 'x' is not a UUID"),
        ({"stream_id": 5}, "field 'stream_id': expected a string, found 5"),
        ({"event_type": ""}, "expected the name of a kind"),
    ],
)
def test_an_unknown_kind_needs_a_session_and_a_time(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidEventError, match=reason):
        parse_event(batched(**{"event_type": "new_kind", **change}), unknown="keep")


def test_an_unknown_kind_needs_no_stream() -> None:
    for change in ({}, {"stream_id": None}):
        event = parse_event(batched(event_type="new_kind", **change), unknown="keep")
        assert event.stream_id is None


# Both readers


def outcome_of_both(text: str) -> tuple[str, str]:
    def outcome(read: Any) -> str:
        try:
            return canonical_json(read(text, "reject"))
        except InvalidEventError as error:
            return f"{type(error).__name__}: {error}"

    return outcome(wire.read_record), outcome(wire_exact.read_exactly)


NUMBERS = st.one_of(
    st.integers(-5, 300).map(str),
    st.integers(-(2**65), 2**65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.0", "1e3", "1E+2", "1e400", "-1", "0.1e1", "00", "1.", "2" * 30]),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
)


@settings(max_examples=100 * ROUNDS)
@given(line=st.sampled_from(lines_of("kinds.ndjson")), number=NUMBERS, data=st.data())
def test_both_readers_agree_about_numbers(line: str, number: str, data: st.DataObject) -> None:
    fields = json.loads(line)
    metrics = fields.get("metrics", fields)
    inner = metrics.get("priority_distribution", metrics)
    target = data.draw(st.sampled_from([metrics, inner]))
    name = data.draw(st.sampled_from(sorted(target)))
    target[name] = "@@"

    fast, exact = outcome_of_both(json.dumps(fields).replace('"@@"', number))

    assert fast == exact


@settings(max_examples=150 * ROUNDS)
@given(line=st.sampled_from(lines_of("wire.ndjson") + lines_of("kinds.ndjson")), data=st.data())
def test_both_readers_agree_about_broken_lines(line: str, data: st.DataObject) -> None:
    text: str = json.loads(line).get("input", line)
    position = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 3))
    inserted = data.draw(st.text('{}[]":,-0e\\ \u00e9\ud800', max_size=3))

    fast, exact = outcome_of_both(text[:position] + inserted + text[position + cut :])

    assert fast == exact


@given(st.text())
def test_any_text_is_an_event_or_an_invalid_event(text: str) -> None:
    fast, exact = outcome_of_both(text)

    assert fast == exact


@given(st.binary())
def test_any_bytes_are_an_event_or_an_invalid_event(data: bytes) -> None:
    with pytest.raises(InvalidEventError):
        parse_event(data)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives(value: float) -> None:
    line = next(line for line in lines_of("kinds.ndjson") if '"metrics":' in line)
    fields = json.loads(line)
    fields["metrics"]["average_frame_size"] = value

    event: Any = parse_event(json.dumps(fields))

    assert event.metrics.average_frame_size == value
    assert parse_event(event.model_dump_json()) == event


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives(text: str) -> None:
    fields = {
        "event_type": "stream_failed",
        "session_id": SESSION,
        "stream_id": STREAM,
        "error": text,
        "timestamp": "2026-01-01T00:00:00Z",
    }

    for spelling in (json.dumps(fields), json.dumps(fields, ensure_ascii=False)):
        event: Any = parse_event(spelling)
        assert event.error == text
        assert parse_event(event.model_dump_json()) == event
