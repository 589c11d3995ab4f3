"""A sweep over models that are hosted: each model's engines start once for all its runs, and stop after them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from runner.config import check_config
from runner.journal import read_events, read_trajectories
from runner.matrix import Cell
from runner.sweep import by_engines
from tests.fake_engine import COMMAND, ENVIRONMENT, write_model
from tests.processes import ROOT, clean_environment, processes_below, start_module, wait_until_gone

pytestmark = pytest.mark.slow

TASKS = ROOT / "configs/example_tasks.jsonl"


def write_sweep(folder: Path, *, env: dict[str, str] | None = None, **arguments: str) -> Path:
    """Return a sweep of two benchmarks by two models, whose engines are known by the folder."""
    settings = {
        "matrix": {
            "benchmark": ["quickstart", f"jsonl:{TASKS}"],
            "models": [f"vllm:{write_model(folder / name)}" for name in ("first", "second")],
        },
        "engines": {
            "command": list(COMMAND), "env": {**ENVIRONMENT, "FOLDER": str(folder), **(env or {})},
            "gpus_per_replica": 0, "served_name": "m", "args": {"max_model_len": 32768, **arguments},
            "max_restarts": 0,
        },
        "limit": 2, "limits": {"max_turns": 3}, "progress": "plain",
    }  # fmt: skip
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(settings))
    return path


def command(folder: Path, *options: str, **arguments: str) -> list[str]:
    """Return the command line of that sweep, behind `python -m`."""
    path = write_sweep(folder, **arguments)
    return ["runner", "sweep", str(path), "--run-dir", str(folder / "runs"), *options]


def cells_of(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the run directories by model and benchmark."""
    found = {}
    for path in (folder / "runs").iterdir():
        config = json.loads((path / "config.json").read_text())["config"]
        found[Path(config["model"]["client"]).name, config["benchmark"].partition(":")[0]] = path
    return found


def events_named(run_dir: Path, name: str) -> list[dict[str, Any]]:
    """Return the events of a run with a name."""
    return [event for event in read_events(run_dir) if event["event"] == name]


def serve(folder: Path, model: str) -> list[int]:
    """Return the processes of a model's engines."""
    found = []
    for pid in processes_below(folder):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if str(folder / model).encode() in line and b"fake_engine" in line:
            found.append(pid)
    return found


@pytest.mark.kernel
@pytest.mark.timeout(150)
@pytest.mark.parametrize("side_by_side", ["1", "2"])
def test_two_models_by_two_benchmarks(tmp_path: Path, side_by_side: str) -> None:
    """Each model's engines start once, those of the other are gone by then, and in the end nothing is left."""
    with start_module(*command(tmp_path, "--side-by-side", side_by_side)) as process:
        deadline = time.monotonic() + 100
        while not serve(tmp_path, "second") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert serve(tmp_path, "second")
        assert serve(tmp_path, "first") == []
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output

    runs = cells_of(tmp_path)
    assert len(runs) == 4
    for model in ("first", "second"):
        starts = [events_named(runs[model, name], "engine_ready") for name in ("quickstart", "jsonl")]
        shares = [events_named(runs[model, name], "engines_shared") for name in ("quickstart", "jsonl")]
        logs = [runs[model, name] / "engines/engine-0.log" for name in ("quickstart", "jsonl")]
        (log,) = [path for path in logs if path.exists()]
        assert len({event["url"] for found in starts for event in found}) == 1
        (shared,) = [event for found in shares for event in found]
        assert Path(shared["logs"]) == log.parent
    n_lines = {key: len(list(read_trajectories(path))) for key, path in runs.items()}
    n_tasks = len(TASKS.read_text().splitlines())
    assert n_lines == {
        (model, name): min(2, n_tasks) if name == "jsonl" else 2
        for model in ("first", "second")
        for name in ("quickstart", "jsonl")
    }
    assert wait_until_gone(tmp_path) == set()

    again = subprocess.run(
        [COMMAND[0], "-m", *command(tmp_path)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "starting engines" not in again.stderr, "nothing is left to do"


@pytest.mark.timeout(90)
def test_a_signal_while_engines_start(tmp_path: Path) -> None:
    """It does not wait for them: nothing else is begun, nothing is left, and the exit code says so."""
    with start_module(*command(tmp_path, start_fault="never")) as process:
        deadline = time.monotonic() + 60
        while not serve(tmp_path, "first") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.count("SIGTERM before it had begun") == 1
    assert wait_until_gone(tmp_path) == set()


@pytest.mark.timeout(90)
def test_engines_that_do_not_start(tmp_path: Path) -> None:
    """Each run says why; the other model's are tried all the same."""
    ran = subprocess.run(
        [COMMAND[0], "-m", *command(tmp_path, start_fault="oom")],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=80,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr.count("error: none of 1 engines started") == 4
    assert wait_until_gone(tmp_path) == set()


def test_which_cells_run_together() -> None:
    """Those with the same model and settings of engines, in the place of the first; those without apart."""
    settings: list[dict[str, Any]] = [
        {"model": "vllm:a/b"},
        {"model": "oracle"},
        {"model": "vllm:a/b", "engines": {"replicas": 2}},
        {"model": "vllm:a/b", "benchmark": "pybench", "concurrency": 3},
        {"model": "nop"},
        {"model": "vllm:a/b", "cluster": "ray"},
    ]
    cells = [Cell(str(index), {}, check_config(data)) for index, data in enumerate(settings)]
    assert [[cell.name for cell in group] for group in by_engines(cells)] == [
        ["0", "3"],
        ["1", "4"],
        ["2"],
        ["5"],
    ]
