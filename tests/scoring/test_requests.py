from __future__ import annotations

import json

import pytest

from bench_data.checks import parse_check
from scoring.requests import facts_key, file_checks, request_of, runs_code, timeout_s

SECRET = "7654321"

CHECKS = [
    {"kind": "table_file", "path": "x.csv", "columns": [SECRET], "rows": [[SECRET]]},
    {"kind": "json_file", "path": "x", "value": SECRET},
    {"kind": "text_file", "path": "x", "lines": [SECRET]},
    {"kind": "image_file", "path": "x", "width": int(SECRET), "min_colours": int(SECRET),
     "grid_rgba": [[int(SECRET)] * 4]},
    {"kind": "audio_file", "path": "x", "duration_s": int(SECRET),
     "segments": [{"start_s": 0, "end_s": 1, "rms_dbfs": int(SECRET), "dominant_hz": int(SECRET)}]},
    {"kind": "sqlite_query", "path": "x", "query": "SELECT 1", "rows": [[SECRET]]},
    {"kind": "python_calls", "path": "x", "calls": [{"function": "f", "returns": SECRET},
                                                    {"function": "f", "raises": SECRET}]},
    {"kind": "command_runs", "path": "x", "runs": [{"stdout_lines": [SECRET], "exit_code": int(SECRET)}]},
    {"kind": "html_file", "path": "x", "elements": [{"tag": "p", "text": SECRET,
     "attributes": {"a": SECRET}}]},
]  # fmt: skip


@pytest.mark.parametrize("data", CHECKS, ids=lambda data: data["kind"])
def test_a_request_never_holds_what_is_expected(data: dict) -> None:
    """Nothing that enters a sandbox says what would pass, and it is JSON."""
    check = parse_check(data)
    assert SECRET not in json.dumps(request_of(check))
    assert 0 < timeout_s(check) < 600


def test_checks_of_one_reading_share_its_facts() -> None:
    """Two expectations about the same file need it to be read once; another query reads it again."""
    first, second = parse_check(CHECKS[1]), parse_check(CHECKS[1] | {"value": 1})
    assert facts_key(first) == facts_key(second)
    assert facts_key(parse_check(CHECKS[5])) != facts_key(parse_check(CHECKS[5] | {"query": "SELECT 2"}))


def test_file_checks_are_found_in_depth() -> None:
    """Parts of all_of are found in order, answers left out; two kinds run the model's code."""
    number = {"kind": "answer_number", "value": 1}
    inner = {"kind": "all_of", "checks": [number, CHECKS[6], CHECKS[7]]}
    check = parse_check({"kind": "all_of", "checks": [CHECKS[0], inner, number]})
    found = list(file_checks(check))
    assert [part.kind for part in found] == ["table_file", "python_calls", "command_runs"]
    assert [runs_code(part) for part in found] == [False, True, True]
