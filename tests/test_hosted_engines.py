"""`--model vllm:PATH` from the command line: engines come, are used, die, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.fake_engine import COMMAND, ENVIRONMENT, write_model
from tests.processes import ROOT, clean_environment, wait_until_gone

pytestmark = pytest.mark.kernel


def command(folder: Path, *options: str, **arguments: str) -> list[str]:
    """Return a run with two fake engines, whose processes are known by the folder."""
    engines = {
        "command": list(COMMAND), "env": {**ENVIRONMENT, "FOLDER": str(folder)},
        "gpus_per_replica": 0, "replicas": 2, "served_name": "m", "args": {"max_model_len": 32768, **arguments},
    }  # fmt: skip
    model = write_model(folder / "model")
    return [
        COMMAND[0], "-m", "runner", "--model", f"vllm:{model}", "--set", f"engines={json.dumps(engines)}",
        "--limit", "6", "--epochs", "4", "--set", "limits.max_turns=3",
        "--run-dir", str(folder / "run"), *options,
    ]  # fmt: skip


def rows(run_dir: Path) -> list[dict[str, object]]:
    """Return the lines of the run."""
    return [json.loads(line) for line in (run_dir / "trajectories.jsonl").read_text().splitlines()]


@pytest.mark.timeout(120)
def test_a_run_on_engines_of_its_own(tmp_path: Path) -> None:
    """Every attempt has its line, both engines were asked, and no process of theirs is left."""
    ran = subprocess.run(
        command(tmp_path), cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    assert {row["stop_reason"] for row in rows(tmp_path / "run")} <= {"answer", "max_turns"}
    assert {row["model"] for row in rows(tmp_path / "run")} == {"m"}
    assert sorted(path.name for path in (tmp_path / "run/engines").iterdir()) == [
        "engine-0.log",
        "engine-1.log",
    ]
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["engines"]["env"]["FOLDER"] == "(not recorded)"
    assert wait_until_gone(tmp_path) == set()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """However the runner ends, its engines are gone within seconds; the same command goes on."""
    with subprocess.Popen(
        command(tmp_path, "--set", "grace_s=1"), cwd=ROOT, env=clean_environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        lines = tmp_path / "run/trajectories.jsonl"
        while time.monotonic() < deadline and not (lines.is_file() and lines.stat().st_size):
            time.sleep(0.05)
        os.kill(process.pid, number)
        process.wait(30)
    assert wait_until_gone(tmp_path) == set()
    ran = subprocess.run(
        command(tmp_path), cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    attempts = [row["attempt"] for row in rows(tmp_path / "run")]
    assert len(attempts) == len(set(attempts)) == 24


@pytest.mark.timeout(120)
def test_engines_that_do_not_start(tmp_path: Path) -> None:
    """One message with the end of a log and the remedy, exit code 1, nothing left."""
    broken = command(tmp_path, "--set", "engines.max_restarts=0", start_fault="oom")
    ran = subprocess.run(
        broken, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 1
    assert "none of 2 engines started" in ran.stderr
    assert "Traceback (most recent call last)" not in ran.stderr.splitlines()[0]
    assert wait_until_gone(tmp_path) == set()


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """It is refused before anything is started or written."""
    words = command(tmp_path)
    words[words.index("--model") + 1] = f"vllm:{tmp_path}/nowhere"
    ran = subprocess.run(words, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "nowhere" in ran.stderr
    assert not (tmp_path / "run").exists()
