"""Records and samples for tests."""

from __future__ import annotations

from typing import Any

from bench_data import Sample, Solution
from runner.records import SCHEMA_VERSION, Owner, StopReason, Timings, Trajectory, Turn, Usage


def trajectory(sample_id: str = "one", epoch: int = 1, **changes: Any) -> Trajectory:
    """Return a finished trajectory."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": "r",
        "config_hash": "h",
        "benchmark": "test",
        "sample_id": sample_id,
        "epoch": epoch,
        "attempt": f"{sample_id}@{epoch}",
        "model": "m",
        "protocol": "fenced",
        "kernel": "fake",
        "tier": "fake",
        "host": "here",
        "seed": 1,
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "done"}],
        "turns": [Turn(completion="done")],
        "stop_reason": StopReason.ANSWER,
        "owner": Owner.MODEL,
        "error": None,
        "tries": [],
        "n_resumed_turns": 0,
        "artifacts": [],
        "usage": Usage(1, 2, 3),
        "timings": Timings(),
        "started_at": 1.0,
        "finished_at": 2.0,
    }
    return Trajectory(**(values | changes))


def sample(
    sample_id: str = "one", *cells: str, answer: str = "Answer: {last_line}", **changes: Any
) -> Sample:
    """Return a sample whose reference solution is these cells."""
    values: dict[str, Any] = {
        "id": sample_id,
        "messages": ({"role": "user", "content": f"task {sample_id}"},),
        "reference": Solution(cells=cells, answer=answer),
    }
    return Sample(**(values | changes))
