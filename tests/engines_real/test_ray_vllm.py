"""VLLM itself on Ray, from the command line: a run of the quickstart outlives the engine that it began with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from runner.journal import read_events, read_trajectories
from tests.engines_real.serving import BOOT_LIMIT_S, NAME
from tests.engines_real.tiny_llama import ENVIRONMENT, N_BLOCKS
from tests.processes import ROOT, processes_below, wait_until_gone

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make test-engines"),
    pytest.mark.timeout(2 * BOOT_LIMIT_S + 120),
]

N_SAMPLES, N_EPOCHS, MAX_TURNS = 15, 2, 6
WORKING_S = 12.0
CODE = r"```python\nprint\([1-9][0-9]{0,5}\)\n```"
"""What each reply of the random model is made to be: a turn, and never an answer."""


def settings(model: Path, run_dir: Path) -> dict[str, Any]:
    """Return the config of 30 attempts on an engine on a Ray of the run's own."""
    return {
        "model": {
            "client": f"vllm:{model}",
            "request": {"max_tokens": 100, "structured_outputs": {"regex": CODE}},
            "send_seed": False,  # vLLM for CPU ends at seeds of several requests at once
        },
        "engines": {
            "kind": "ray",
            "served_name": NAME,
            "args": {"enforce_eager": True, "num_gpu_blocks_override": N_BLOCKS},
            "env": ENVIRONMENT,
            "start_timeout_s": BOOT_LIMIT_S,
        },
        "epochs": N_EPOCHS,
        "limit": N_SAMPLES,
        "concurrency": 6,
        "limits": {"max_turns": MAX_TURNS, "working_s": WORKING_S},  # less than vLLM takes to come back
        "run_dir": str(run_dir),
        "progress": "plain",
    }


def core_below(folder: Path) -> int:
    """Return the process that computes, of a folder's engine."""
    names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in processes_below(folder)}
    return next(pid for pid, name in names.items() if name.startswith("VLLM::EngineCor"))


def wait_until(condition: Callable[[], bool], within_s: float) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def n_finished(run_dir: Path) -> int:
    """Return how many trajectories a run has finished."""
    path = run_dir / "trajectories.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_run_goes_on_when_the_core_is_killed(tiny_llama: Path, tmp_path: Path) -> None:
    """Every attempt once, its turns all there, none failed by the loss or the wait; and nothing is left.

    The folder's name is in the environment of all that the run starts, Ray's processes included.
    """
    run_dir = tmp_path / "run"
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(settings(tiny_llama, run_dir)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "KERNELFLEET_TEST": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-m", "runner", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    try:
        wait_until(lambda: n_finished(run_dir) >= 6 or run.poll() is not None, BOOT_LIMIT_S + 60)
        n_before = n_finished(run_dir)
        os.kill(core_below(tmp_path), signal.SIGKILL)
        output, _ = run.communicate(timeout=BOOT_LIMIT_S + 60)
    finally:
        run.kill()
        run.communicate()

    assert run.returncode == 0, output
    rows = list(read_trajectories(run_dir))
    assert Counter(row["attempt"] for row in rows).most_common(1)[0][1] == 1
    assert len(rows) == N_SAMPLES * N_EPOCHS > n_before
    assert (run_dir / "failures.jsonl").read_bytes() == b""
    assert {(row["stop_reason"], row["owner"]) for row in rows} == {("max_turns", "model")}
    assert all(len(row["turns"]) == MAX_TURNS and not row["tries"] for row in rows)
    assert all(turn["observation"]["status"] == "ok" for row in rows for turn in row["turns"])
    told = list(read_events(run_dir))
    names = [event["event"] for event in told]
    assert (names.count("engine_lost"), names.count("engine_ready")) == (1, 2)
    assert min(event["start_s"] for event in told if event["event"] == "engine_ready") > WORKING_S
    assert not wait_until_gone(tmp_path)
