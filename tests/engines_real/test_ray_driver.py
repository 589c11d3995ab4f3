"""A driver with a Ray of its own: what it leaves when it dies, and what it says of a Ray that is not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fake_engine import COMMAND, ENVIRONMENT, write_model
from tests.processes import ROOT, processes_below, wait_until_gone

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make test-engines"),
    pytest.mark.timeout(600),
]

DRIVER = """
import asyncio, sys
from pathlib import Path
from runner.engines import open_engines
from tests.runner.engines.test_open_engines import config

async def main():
    folder = Path(sys.argv[1])
    group = await open_engines(config(folder, kind="ray", replicas=2), folder / "logs")
    print("ready", *(row.url for row in group.endpoints()), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_engines_end_with_their_driver(tmp_path: Path, how: signal.Signals) -> None:
    """One with a Ray of its own, which ends as well; its engines are reached on this machine alone.

    Not looked at: two agents of Ray's, which take a minute to see that their raylet was killed.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert driver.stdout is not None
        said = driver.stdout.readline().split()
        assert said[0] == "ready"
        assert all(url.startswith("http://127.0.0.1:") for url in said[1:])
        assert len(processes_below(tmp_path)) == 6  # keeper, engine and core of each
        os.kill(driver.pid, how)
        driver.wait(30.0)
        assert not wait_until_gone(tmp_path)
    finally:
        driver.kill()
        driver.wait(10.0)
        assert driver.stdout is not None
        driver.stdout.close()


def test_an_address_where_no_ray_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that is not connected: one line, exit code 2."""
    command = [
        sys.executable, "-m", "runner", "--model", f"vllm:{tmp_path}", "--set", "engines.kind=ray",
        "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "127.0.0.1:1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "Ray address 127.0.0.1:1: nothing answers there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("cluster", ["none", "ray"])
def test_a_run_survives_the_death_of_an_actor(tmp_path: Path, cluster: str) -> None:
    """With its sandboxes here, or on the cluster's workers: every attempt once, none failed by the loss."""
    run_dir = tmp_path / "run"
    events = run_dir / "events.log"
    with started_run(tmp_path, run_dir, cluster) as run:
        wait_until(lambda: run.poll() is not None or has_turns(events, run_dir))
        os.kill(actor_below(tmp_path), signal.SIGKILL)
        output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    lines = (run_dir / "trajectories.jsonl").read_text().splitlines()
    attempts = [json.loads(line)["attempt"] for line in lines]
    assert (
        len(set(attempts)) == len(attempts) == int(output.split(" trajectories finished")[0].split()[-1]) > 20
    )
    told = [json.loads(line)["event"] for line in events.read_text().splitlines()]
    assert told.count("engine_lost") == 1
    assert told.count("engine_ready") >= 2
    assert not wait_until_gone(tmp_path)


@contextmanager
def started_run(folder: Path, run_dir: Path, cluster: str) -> Iterator[subprocess.Popen[str]]:
    """Run the quickstart on two fake engines on a Ray of its own, which are known by the folder."""
    settings = {
        "model": f"vllm:{write_model(folder / 'model')}", "cluster": {"kind": cluster}, "concurrency": 8,
        "limits": {"max_turns": 4}, "run_dir": str(run_dir), "progress": "plain",
        "engines": {
            "kind": "ray", "replicas": 2, "gpus_per_replica": 0, "cpus_per_replica": 0, "served_name": "m",
            "command": COMMAND, "env": {**ENVIRONMENT, "FOLDER": str(folder)}, "args": {"token_s": 0.02},
        },
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(settings))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    run = subprocess.Popen(
        [sys.executable, "-m", "runner", "--config", str(folder / "config.yaml")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def has_turns(events: Path, run_dir: Path) -> bool:
    """Whether a run has trajectories in the middle."""
    return events.is_file() and "run_started" in events.read_text() and any((run_dir / "inflight").iterdir())


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + 150.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def actor_below(folder: Path) -> int:
    """Return the actor of one of a folder's engines: whom its keeper works for."""
    for pid in processes_below(folder):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if len(words) > 4 and words[3].endswith(b"keeper.py"):
            return int(words[4])
    raise AssertionError("no keeper runs")
