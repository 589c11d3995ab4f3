from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scoring.errors import RunDirError
from scoring.trajectory import artifacts_of, final_answer, require_fields

LINE = {"sample_id": "s", "epoch": 1, "turns": [], "stop_reason": "answer", "owner": "model"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ([], "not a JSON object"),
        ({}, "'sample_id' is missing, expected str"),
        (LINE | {"epoch": "1"}, "'epoch' is '1', expected int"),
        (LINE | {"epoch": True}, "'epoch' is True, expected int"),
        (LINE | {"turns": None}, "'turns' is None, expected list"),
    ],
)
def test_a_foreign_line_is_named(line: Any, text: str) -> None:
    """The error names the line, the key, what is there and what should be."""
    with pytest.raises(RunDirError, match=f"trajectories.jsonl, trajectory 7: {text}"):
        require_fields(line, 7)


def test_the_answer_is_the_last_reply_without_an_action() -> None:
    """Nothing else ends as an answer: not an action, not a cut reply, not an empty attempt."""
    turns = [{"completion": "code", "action": "1"}, {"completion": "done", "action": None}]
    assert final_answer(LINE | {"turns": turns}) == "done"
    assert final_answer(LINE | {"turns": turns, "stop_reason": "length"}) is None
    assert final_answer(LINE | {"turns": turns[:1]}) is None
    assert final_answer(LINE) is None
    assert final_answer(LINE | {"turns": ["text"]}) is None


def test_artifacts_are_those_of_the_attempt() -> None:
    """Entries of other attempts, outside the run directory or of another form are left out."""
    entries = [
        {"path": "artifacts/s/1/output/x.csv", "bytes": 3, "sha256": "ab"},
        {"path": "artifacts/s/1/output/l", "bytes": 0, "sha256": None, "problem": "a symbolic link"},
        {"path": "artifacts/s/2/output/y.csv"},
        {"path": "artifacts/s/1/../../../../etc/passwd"},
        {"path": "/etc/passwd"},
        {},
        "text",
    ]
    found = artifacts_of(LINE | {"artifacts": entries}, Path("run"))
    assert list(found) == ["output/x.csv", "output/l"]
    assert found["output/x.csv"].file == Path("run/artifacts/s/1/output/x.csv")
    assert found["output/l"].problem == "a symbolic link"
    assert artifacts_of(LINE, Path("run")) == {}
