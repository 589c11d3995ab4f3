"""What must hold of a run directory, whatever happened to the run."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from runner.journal import read_failures, read_inflight, read_trajectories
from runner.records import Owner

MODELS_TO_LOSE = (Owner.MODEL, Owner.SAMPLE)


def check_finished(run_dir: Path, attempts: set[str]) -> None:
    """Assert that each attempt has one line, with its artifacts, and that nothing is left in flight."""
    check_sound(run_dir, attempts)
    assert {row["attempt"] for row in read_trajectories(run_dir)} == attempts
    assert list(read_inflight(run_dir)) == []


def check_sound(run_dir: Path, attempts: set[str]) -> None:
    """Assert that no attempt is there twice, that each line is whole, and that owners are right."""
    counts = Counter()
    for row in read_trajectories(run_dir):
        counts[row["attempt"]] += 1
        assert row["owner"] in MODELS_TO_LOSE, (row["attempt"], row["stop_reason"], row["owner"])
        assert len(row["messages"]) >= len(row["turns"])
        for artifact in row["artifacts"]:
            content = (run_dir / artifact["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == artifact["sha256"]
    assert counts.keys() <= attempts
    assert set(counts.values()) <= {1}
    for row in read_failures(run_dir):
        assert row["attempt"] in attempts
        assert row["owner"] not in MODELS_TO_LOSE
    for unfinished in read_inflight(run_dir):
        assert unfinished.attempt in attempts
