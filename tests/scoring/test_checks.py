from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench_data.checks import Check, parse_check
from scoring.checks import AS_EXPECTED, judge
from scoring.requests import facts_key, file_checks

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**4000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

# kind: (check, facts that pass, {reason: facts that do not})
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]] = {
    "table_file": (
        {"path": "x.csv", "columns": ["name", "n"], "rows": [["a", 1.5], ["b", None]]},
        {"columns": ["name", "n"], "rows": [["a", "1.5"], ["b", ""]]},
        {
            "row 1, column n: '2', expected 1.5": {"columns": ["name", "n"], "rows": [["a", "2"], ["b", ""]]},
            "columns ['n', 'name'], expected ['name', 'n']": {"columns": ["n", "name"], "rows": []},
            "1 rows, expected 2": {"columns": ["name", "n"], "rows": [["a", "1.5"]]},
        },
    ),
    "json_file": (
        {"path": "x.json", "value": {"a": [1, 2.0]}},
        {"value": {"a": [1.0, 2]}},
        {"['a'][1]: 3, expected 2.0": {"value": {"a": [1, 3]}}},
    ),
    "text_file": (
        {"path": "x.txt", "lines": ["one", "two"]},
        {"text": "one\ntwo\n"},
        {"line 2: 'too', expected 'two'": {"text": "one\ntoo"}},
    ),
    "image_file": (
        {"path": "x.png", "width": 4, "format": "PNG", "min_colours": 2, "grid_rgba": [[10, 20, 30, 255]]},
        {"width": 4, "format": "PNG", "n_colours": 9, "grid_rgba": [[12.5, 20, 30, 255]]},
        {
            "width 5, expected 4": {"width": 5},
            "1 distinct colours, expected at least 2": {"width": 4, "format": "PNG", "n_colours": 1},
            "row 1 of 1 x 1: mean RGBA [90, 0, 0, 255], expected [10.0, 20.0, 30.0, 255.0] within 3": {
                "width": 4,
                "format": "PNG",
                "n_colours": 9,
                "grid_rgba": [[90, 0, 0, 255]],
            },
            "too small for a grid": {"width": 4, "format": "PNG", "n_colours": 9, "grid_rgba": None},
        },
    ),
    "audio_file": (
        {
            "path": "x.wav",
            "sample_rate_hz": 8000,
            "duration_s": 1,
            "segments": [{"start_s": 0, "end_s": 1, "rms_dbfs": -6, "dominant_hz": 440}],
        },
        {"sample_rate_hz": 8000, "duration_s": 1.0, "segments": [{"rms_dbfs": -6.2, "dominant_hz": 441}]},
        {
            "sample_rate_hz 16000, expected 8000": {"sample_rate_hz": 16000},
            "duration 2.0 s, expected 1": {"sample_rate_hz": 8000, "duration_s": 2.0},
            "0 to 1 s, channel 0: rms_dbfs -7, expected -6": {
                "sample_rate_hz": 8000,
                "duration_s": 1,
                "segments": [{"rms_dbfs": -7}],
            },
            "0 to 1 s, channel 0: 'too short'": {
                "sample_rate_hz": 8000,
                "duration_s": 1,
                "segments": [{"problem": "too short"}],
            },
        },
    ),
    "sqlite_query": (
        {"path": "x.db", "query": "SELECT 1, 'a'", "rows": [[1, "a"]]},
        {"rows": [[1, "a"]]},
        {"row 1, column 2: 'b', expected 'a'": {"rows": [[1, "b"]]}},
    ),
    "python_calls": (
        {
            "path": "x.py",
            "calls": [
                {"function": "f", "args": [1], "kwargs": {"b": 2}, "returns": 3},
                {"function": "f", "raises": "ValueError"},
            ],
        },
        {"calls": [{"returns": 3}, {"raises": ["JSONDecodeError", "ValueError"]}]},
        {
            "f(1, b=2): the value: 4, expected 3": {"calls": [{"returns": 4}, {}]},
            "f(1, b=2): raised KeyError: 'x', expected 3": {
                "calls": [{"raises": ["KeyError"], "message": "KeyError: 'x'"}, {}]
            },
            "f(): returned None, expected ValueError": {"calls": [{"returns": 3}, {"returns": None}]},
            "f(1, b=2): no such thing, expected 3": {"calls": [{"problem": "no such thing"}, {}]},
        },
    ),
    "command_runs": (
        {"path": "x.py", "runs": [{"argv": ["-n"], "stdin": "in", "stdout_lines": ["out"]}]},
        {"runs": [{"exit_code": 0, "stdout": "out\n"}]},
        {
            "run with arguments ['-n'] with input 'in': output line 1: 'o', expected 'out'": {
                "runs": [{"exit_code": 0, "stdout": "o"}]
            },
            "exit code 1 (KeyError: 3), expected 0": {
                "runs": [{"exit_code": 1, "stdout": "out", "stderr_end": "KeyError: 3"}]
            },
        },
    ),
    "html_file": (
        {
            "path": "x.html",
            "elements": [
                {"tag": "A", "attributes": {"class": "big"}, "text": "go  on", "within": "P", "count": 1}
            ],
        },
        {
            "elements": [
                {
                    "tag": "a",
                    "attributes": {"class": "red big", "href": "/"},
                    "text": "go on",
                    "within": ["p"],
                }
            ]
        },
        {
            "0 <A> with {'class': 'big'} with text 'go  on' within <P>, expected 1": {
                "elements": [{"tag": "a", "attributes": {"class": "big"}, "text": "go on", "within": []}]
            }
        },
    ),
}


def case_check(kind: str) -> Check:
    """Return the check of a case."""
    return parse_check({"kind": kind, **CASES[kind][0]})


def facts_for(check: Check, facts: Any) -> dict[str, Any]:
    """Return the same facts for every file of a check."""
    return {facts_key(part): facts for part in file_checks(check)}


@pytest.mark.parametrize("kind", CASES)
def test_right_facts_pass(kind: str) -> None:
    """Each kind of file check passes on facts within its tolerance."""
    check = case_check(kind)
    verdict = judge(check, None, facts_for(check, CASES[kind][1]))
    assert (verdict.passed, verdict.reason) == (True, AS_EXPECTED)


@pytest.mark.parametrize(("kind", "reason"), [(kind, reason) for kind in CASES for reason in CASES[kind][2]])
def test_wrong_facts_fail_with_a_reason_to_act_on(kind: str, reason: str) -> None:
    """The reason names the file, the place, what is there and what was expected."""
    check = case_check(kind)
    verdict = judge(check, None, facts_for(check, CASES[kind][2][reason]))
    assert not verdict.passed
    assert verdict.reason.startswith("x.")
    assert reason in verdict.reason


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("facts", [{}, {"problem": 3}, None, {"rows": [[{}]], "columns": 3}])
def test_malformed_facts_fail(kind: str, facts: Any) -> None:
    """Facts of another shape are no pass and no exception."""
    check = case_check(kind)
    assert not judge(check, None, facts_for(check, facts)).passed
    assert not judge(check, None, {}).passed


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_facts_whatsoever_make_a_judge_raise(kind: str, data: st.DataObject) -> None:
    """What an untrusted sandbox says is any JSON, also in place of any part of good facts."""
    check = case_check(kind)
    good = json.loads(json.dumps(CASES[kind][1]))
    facts = data.draw(JSON | st.just(good).flatmap(_with_a_part_replaced))
    verdict = judge(check, None, facts_for(check, facts))
    assert isinstance(verdict.passed, bool)
    verdict.reason.encode()


def _with_a_part_replaced(good: Any) -> st.SearchStrategy[Any]:
    if isinstance(good, dict) and good:
        keys = st.sampled_from(sorted(good))
        return keys.flatmap(lambda k: (JSON | _with_a_part_replaced(good[k])).map(lambda v: {**good, k: v}))
    if isinstance(good, list) and good:
        return (JSON | _with_a_part_replaced(good[0])).map(lambda v: [v, *good[1:]])
    return JSON


NUMBER = {"kind": "answer_number", "value": 5}
TEXT = {"kind": "answer_text", "accept": ["a", "b"]}
LIST = {"kind": "answer_json", "value": [1]}


@pytest.mark.parametrize(
    ("data", "right", "wrong", "reason"),
    [
        (NUMBER | {"abs_tol": 0.1}, "Answer: 5.05", "Answer: 5.2", "answer '5.2': 5.2, expected 5.0"),
        (NUMBER, "Answer: 5", "Answer: five", "answer 'five': None, expected 5.0"),
        (TEXT, "Answer: B.", "Answer: c", "answer 'c', expected 'a' or 'b'"),
        (LIST, "Answer: [1]", "Answer: [2]", "answer: [0]: 2, expected 1"),
        (LIST, "Answer: [1]", "Answer: one", "answer: not JSON: 'one'"),
    ],
)
def test_answers_are_judged(data: dict[str, Any], right: str, wrong: str, reason: str) -> None:
    """Each kind of answer check passes on the right answer and says what is wrong with another."""
    check = parse_check(data)
    assert judge(check, right, {}).passed
    assert judge(check, wrong, {}).reason == reason
    assert judge(check, None, {}, "max_turns").reason == "no final answer (stop_reason: max_turns)"


@pytest.mark.parametrize(
    ("expected", "found", "passes"),
    [(-200, -90, True), (-90, -200, True), (-95.5, -120.25, True), (-200, -89.9, False), (-89, -200, False)],
)
def test_silence_is_silence(expected: float, found: float, passes: bool) -> None:
    """At -90 dBFS and below, nobody hears how quiet it is: a little noise is as good as zeros."""
    segment = {"start_s": 0, "end_s": 1, "rms_dbfs": expected}
    check = parse_check({"kind": "audio_file", "path": "x.wav", "segments": [segment]})
    assert judge(check, None, facts_for(check, {"segments": [{"rms_dbfs": found}]})).passed is passes


def test_elements_in_order() -> None:
    """Each may be the one before it or come after it; one that only comes earlier fails."""
    page = [
        {"tag": tag, "attributes": attributes, "text": text, "within": []}
        for tag, attributes, text in [("p", {"id": "a"}, "1"), ("p", {}, "2"), ("b", {}, "3"), ("p", {}, "1")]
    ]

    def reason(*wanted: dict[str, Any]) -> str:
        check = parse_check({"kind": "html_file", "path": "x", "elements": wanted, "ordered": True})
        return judge(check, None, facts_for(check, {"elements": page})).reason

    one, two, three = {"tag": "p", "text": "1"}, {"tag": "p", "text": "2"}, {"tag": "b", "text": "3"}
    assert reason({"tag": "p", "count": 3}, one, {"tag": "i", "count": 0}, two, three, one) == AS_EXPECTED
    assert reason(three, two) == "x: <p> with {} with text '2' comes too early"
    assert reason(two, {"tag": "p", "attributes": {"id": "a"}}) == "x: <p> with {'id': 'a'} comes too early"


@pytest.mark.parametrize(
    ("name", "found", "passes"),
    [("method", "POST", True), ("type", "Post", True), ("type", "get", False), ("id", "POST", False)],
)
def test_method_and_type_have_no_case(name: str, found: str, passes: bool) -> None:
    """HTML compares the words for these without case; other attributes are equal or not."""
    wanted = {"tag": "x", "attributes": {name: "post"}}
    check = parse_check({"kind": "html_file", "path": "x", "elements": [wanted]})
    element = {"tag": "x", "attributes": {name: found}, "text": "", "within": []}
    assert judge(check, None, facts_for(check, {"elements": [element]})).passed is passes


def test_all_of_passes_when_every_part_does() -> None:
    """The reason lists every part that fails, so that none is found only after the others are mended."""
    text, number = (
        {"kind": "text_file", "path": "x.txt", "lines": ["a"]},
        {"kind": "answer_number", "value": 1},
    )
    check = parse_check({"kind": "all_of", "checks": [text, {"kind": "all_of", "checks": [number]}]})
    assert judge(check, "Answer: 1", facts_for(check, {"text": "a"})).passed
    verdict = judge(check, "Answer: 2", facts_for(check, {"problem": "no such file"}))
    assert verdict.reason == "x.txt: no such file; answer '2': 2.0, expected 1.0"


def test_a_reason_can_always_be_written() -> None:
    """A lone surrogate in the facts does not reach the reason, and a reason has a limit."""
    check = case_check("text_file")
    verdict = judge(check, None, facts_for(check, {"problem": "\ud800" * 5000}))
    assert len(verdict.reason.encode("utf-8")) < 10_000
