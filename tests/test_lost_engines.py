"""Engines lost in the middle of a run, from the command line: what is said, what is kept, how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.fake_engine import COMMAND, ENVIRONMENT, write_model
from tests.processes import ROOT, clean_environment, processes_below, wait_until_gone

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(200)]
N_ATTEMPTS = 24


def command(folder: Path, **engines: object) -> list[str]:
    """Return a run with two fake engines, whose processes are known by the folder."""
    settings = {
        "command": list(COMMAND), "env": {**ENVIRONMENT, "FOLDER": str(folder)},
        "gpus_per_replica": 0, "replicas": 2, "served_name": "m", "args": {"token_s": 0.004}, **engines,
    }  # fmt: skip
    model = write_model(folder / "model")
    return [
        COMMAND[0], "-m", "runner", "--model", f"vllm:{model}", "--set", f"engines={json.dumps(settings)}",
        "--limit", "6", "--epochs", "4", "--concurrency", "8", "--run-dir", str(folder / "run"),
    ]  # fmt: skip


def servers(folder: Path) -> list[int]:
    """Return the engines' API servers."""
    found = []
    for pid in processes_below(folder):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"tests.fake_engine" in words[:4] and b"--port" in words:
            found.append(pid)
    return found


def lines(folder: Path, name: str) -> list[dict[str, object]]:
    """Return the lines of a file of the run; none before it is there."""
    path = folder / "run" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def begin(folder: Path, *options: str, **engines: object) -> subprocess.Popen[str]:
    """Return a run that has its first line."""
    process = subprocess.Popen(
        [*command(folder, **engines), *options], cwd=ROOT, env=clean_environment(), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not lines(folder, "trajectories.jsonl"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_all_engines_lost_ends_a_run_that_can_go_on(tmp_path: Path) -> None:
    """One message with the log's end, exit code 1, nothing blamed on a model; the same command ends the run."""
    with begin(tmp_path, max_restarts=0) as process:
        for pid in servers(tmp_path):
            os.kill(pid, signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1, said
    assert "all 2 engines are lost; run the same command again" in said
    assert "Traceback" not in said
    assert wait_until_gone(tmp_path) == set()
    before = lines(tmp_path, "trajectories.jsonl")
    assert 0 < len(before) < N_ATTEMPTS
    assert {row["owner"] for row in before} == {"model"}
    ran = subprocess.run(
        command(tmp_path), cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    attempts = [row["attempt"] for row in lines(tmp_path, "trajectories.jsonl")]
    assert len(attempts) == len(set(attempts)) == N_ATTEMPTS


def test_an_engine_that_hangs_costs_no_attempt(tmp_path: Path) -> None:
    """It is well by its own word, for longer than trajectories have; its turns are redone, none is to blame."""
    with begin(tmp_path, "--set", "limits.working_s=20", stall_s=25.0) as process:
        ready = next(event for event in lines(tmp_path, "events.log") if event["event"] == "engine_ready")
        root = str(ready["url"]).removesuffix("/v1")
        urllib.request.urlopen(f"{root}/admin/die?how=hang", data=b"", timeout=10).close()
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    rows = lines(tmp_path, "trajectories.jsonl")
    assert len({row["attempt"] for row in rows}) == len(rows) == N_ATTEMPTS
    assert {row["stop_reason"] for row in rows} == {"answer"}
    (lost,) = [event for event in lines(tmp_path, "events.log") if event["event"] == "engine_lost"]
    assert "made no token for 25 s (engines.stall_s)" in str(lost["reason"])
    assert wait_until_gone(tmp_path) == set()


def test_a_crash_loop_is_given_up_and_the_run_ends_on_the_rest(tmp_path: Path) -> None:
    """No attempt fails, and the events say what happened."""
    with begin(tmp_path, max_restarts=0) as process:
        os.kill(servers(tmp_path)[0], signal.SIGKILL)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    rows = lines(tmp_path, "trajectories.jsonl")
    assert {row["owner"] for row in rows} == {"model"}
    assert len({row["attempt"] for row in rows}) == len(rows) == N_ATTEMPTS
    assert not lines(tmp_path, "failures.jsonl")
    events = [event["event"] for event in lines(tmp_path, "events.log")]
    assert [events.count(name) for name in ("engine_ready", "engine_lost", "engine_failed")] == [2, 1, 1]
    assert wait_until_gone(tmp_path) == set()
