"""Runs on a cluster, seen from outside: how far they are, and whether they are whole."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from runner.journal import read_trajectories

N_SAMPLES = 43


def wait_until(is_so: Callable[[], bool], seconds: float, why: Callable[[], object] = lambda: "") -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"it took too long: {why()}"
        time.sleep(0.02)


def n_lines(run_dir: Path) -> int:
    """Return how many trajectories are done."""
    path = run_dir / "trajectories.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def is_in_the_middle(process: subprocess.Popen[str], run_dir: Path) -> bool:
    """Whether trajectories are done, and others under way."""
    return process.poll() is not None or (n_lines(run_dir) >= 3 and any((run_dir / "inflight").iterdir()))


def check_whole(run_dir: Path) -> None:
    """Every attempt has one line, and none failed by what was killed."""
    counts = Counter(row["attempt"] for row in read_trajectories(run_dir))
    assert set(counts.values()) == {1}
    assert len(counts) == N_SAMPLES
    assert not (run_dir / "failures.jsonl").exists() or not (run_dir / "failures.jsonl").read_text()
