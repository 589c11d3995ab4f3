"""A driver with a Ray of its own: what it leaves when it dies, and what it says of a Ray that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import ROOT, processes_below, wait_until_gone

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make test-engines"),
    pytest.mark.timeout(120),
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
        driver.wait(10.0)
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
        command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "127.0.0.1:1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "Ray address 127.0.0.1:1: nothing answers there" in done.stderr
    assert "Traceback" not in done.stderr
