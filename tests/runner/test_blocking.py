"""Nothing blocks the event loop while trajectories run: real kernels, real files, the real journal."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop
from blockbuster import blockbuster_ctx

from bench_data import load
from runner.config import Limits
from runner.journal import Journal, read_trajectories
from runner.models import ScriptedClient
from runner.plan import attempts
from runner.protocols import Fenced
from runner.rollout import RolloutSettings
from runner.scheduler import RunIdentity, Scheduler
from sandbox_pool import SandboxPool


@pytest.mark.kernel
def test_running_trajectories_never_blocks(tmp_path: Path) -> None:
    """Inputs, cells, pictures, artifacts and lines are all read and written off the loop."""
    samples = [s for s in load("quickstart").samples if s.id.startswith(("chart", "image"))][::4]
    protocol = Fenced(Fenced.default_limits)

    async def run(journal: Journal) -> None:
        async with SandboxPool(trusted_code=True) as pool:
            settings = RolloutSettings(
                ScriptedClient("oracle", protocol), protocol, pool, Limits(), "", True, ("output/**",)
            )
            identity = RunIdentity("r", "h", "quickstart", "oracle", "fenced", "k", "t", "here", 0)
            scheduler = Scheduler(settings, identity, journal, concurrency=2, n_total=len(samples), grace_s=0)
            with blockbuster_ctx(scanned_modules=["runner", "sandbox_pool"]) as blockbuster:
                for function in blockbuster.functions.values():
                    # The thread that spawns must outlive the kernel, so that it is the loop's own.
                    function.can_block_in("sandbox_pool/process.py", {"spawn"})
                await scheduler.run(attempts(samples, 1, frozenset()))

    with Journal(tmp_path) as journal:
        uvloop.run(run(journal))

    rows = list(read_trajectories(tmp_path))
    assert [(row["stop_reason"], row["tries"]) for row in rows] == [("answer", [])] * len(samples)
    assert all(row["artifacts"] for row in rows)
