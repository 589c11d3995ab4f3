"""Journals of older versions are read; those of newer ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.errors import JournalError
from runner.journal import read_failures, read_trajectories
from runner.journal.migrations import migrated
from runner.records import SCHEMA_VERSION, Timings, Trajectory, Turn, Usage

VERSION_1 = {
    "schema_version": 1, "run_id": "r", "config_hash": "h", "benchmark": "quickstart", "sample_id": "a", "epoch": 1,
    "attempt": "a@1", "model": "m", "protocol": "fenced", "kernel": "lean", "tier": "namespace", "host": "here",
    "seed": 1, "messages": [{"role": "user", "content": "hi"}],
    "turns": [{"completion": "x", "reasoning": None, "tool_calls": None, "finish_reason": "stop", "action": None,
               "observation": None, "verdict": None,
               "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated": False},
               "timings": {"model_s": 0.1, "execute_s": 0.0}}],
    "stop_reason": "answer", "owner": "model", "error": None, "tries": [], "artifacts": [],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated": False},
    "timings": {"queued_s": 0.0, "model_s": 0.1, "sandbox_wait_s": 0.0, "execute_s": 0.0},
    "started_at": 1.0, "finished_at": 2.0,
}  # fmt: skip
"""A line as version 1 wrote it."""


def test_version_1_becomes_the_present_one(tmp_path: Path) -> None:
    """Every field of the present records is there, and nothing that was there has changed."""
    for name in ("trajectories.jsonl", "failures.jsonl"):
        (tmp_path / name).write_text(json.dumps(VERSION_1) + "\n")
    (row,), (failure,) = read_trajectories(tmp_path), read_failures(tmp_path)
    assert row == failure
    assert set(row) == set(Trajectory.__dataclass_fields__)
    assert set(row["turns"][0]) == set(Turn.__dataclass_fields__)
    assert set(row["usage"]) == set(row["turns"][0]["usage"]) == set(Usage.__dataclass_fields__)
    assert set(row["timings"]) == set(Timings.__dataclass_fields__)
    assert row["schema_version"] == SCHEMA_VERSION
    unchanged = {key for key in VERSION_1 if key not in ("schema_version", "turns", "usage", "timings")}
    assert all(row[key] == VERSION_1[key] for key in unchanged)


def test_newer_version_is_refused(tmp_path: Path) -> None:
    """With the line, both versions and what to do."""
    (tmp_path / "trajectories.jsonl").write_text(json.dumps(VERSION_1 | {"schema_version": 99}) + "\n")
    with pytest.raises(
        JournalError, match=r"trajectories.jsonl:1: written by a newer version .*99.* up to 2"
    ):
        list(read_trajectories(tmp_path))


@pytest.mark.parametrize("turns", [None, [None, 3], {}])
def test_what_is_no_trajectory_stays_so(turns: object) -> None:
    """A migration repairs nothing: whoever reads the field says what is wrong with it."""
    assert migrated(VERSION_1 | {"turns": turns}, "here")["turns"] == turns
