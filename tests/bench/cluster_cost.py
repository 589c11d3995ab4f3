"""What a worker in a Ray actor costs: wall per record, and CPU of the driver at 256 trajectories.

    python -m tests.bench.cluster_cost        # needs Ray; some two minutes

A Ray of its own with one node, sandboxes that do nothing, quickstart's samples. The records of a model
that answers at once, beside the same without Ray; then 256 trajectories whose calls take two seconds.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

import runner.batch.run
from runner.batch import Watching, prepare, run_batch
from runner.cluster import ray_cluster
from runner.cluster.ray_worker import worker_class
from runner.config import RunConfig
from sandbox_pool import FakePool

CALL_S = 2.0


def idle_worker_class() -> type:
    """Return the actor's class with a pool that executes nothing."""
    base: Any = worker_class()

    class IdleWorker(base):  # type: ignore[misc]
        def start(self, root: str, digest: str) -> str | None:
            problem: str | None = super().start(root, digest)
            from sandbox_pool import FakePool

            self._worker._open_pool = lambda setup: FakePool()
            return problem

    return IdleWorker


async def measure(kind: str, model: str, epochs: int) -> tuple[int, float, float]:
    """Return attempts, wall seconds and CPU seconds of this process, from the beginning of the work."""
    began: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "benchmark": "quickstart",
            "model": model,
            "cluster": kind,
            "epochs": epochs,
            "concurrency": 256,
            "run_dir": str(Path(folder) / "run"),
            "progress": "quiet",
            "admission": {"mode": "fixed"},
        }
        watching = Watching(
            Console(stderr=True),
            handles_signals=False,
            on_begun=lambda run: began.append((time.perf_counter(), time.process_time())),
        )
        summary = await run_batch(prepare(RunConfig.model_validate(settings)), watching)
    wall_s, cpu_s = summary.statistics.elapsed_s, time.process_time() - began[0][1]
    assert summary.n_left == 0
    return summary.statistics.n_finished, wall_s, cpu_s


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def main() -> None:
    """Measure and print."""
    ray_cluster.worker_class = idle_worker_class
    runner.batch.run.SandboxPool = lambda *_, **__: FakePool()  # type: ignore[assignment, misc]
    for kind in ("none", "ray"):
        n, wall_s, cpu_s = uvloop.run(measure(kind, "nop", 60))
        print(
            f"{kind}: {n} records, {1e3 * wall_s / n:.2f} ms each; this process {1e3 * cpu_s / n:.2f} ms of CPU each"
        )
    port = free_port()
    stub = subprocess.Popen(
        [sys.executable, "-m", "tests.stub_server", "--port", str(port), "--latency-s", str(CALL_S)]
    )
    try:
        time.sleep(3)
        n, wall_s, cpu_s = uvloop.run(measure("ray", f"openai:http://127.0.0.1:{port}/v1", 24))
    finally:
        stub.terminate()
        stub.wait()
    print(
        f"256 trajectories, {CALL_S:g} s a call: {n} in {wall_s:.1f} s; the driver takes {100 * cpu_s / wall_s:.1f} % of a core"
    )


if __name__ == "__main__":
    main()
