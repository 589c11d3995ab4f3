"""Nothing blocks the event loop while trajectories run: real kernels, real files, the real journal."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop
from blockbuster import blockbuster_ctx

from bench_data import Samples, load
from runner.journal import Journal, read_trajectories
from runner.models import ScriptedClient
from runner.plan import attempts
from runner.protocols import Fenced
from sandbox_pool import SandboxPool
from tests.runner.factories import rollout_settings, scheduler


@pytest.mark.kernel
def test_running_trajectories_never_blocks(tmp_path: Path) -> None:
    """Inputs, cells, pictures, artifacts and lines are all read and written off the loop."""
    samples = [s for s in load("quickstart").samples if s.id.startswith(("chart", "image"))][::4]
    protocol = Fenced(Fenced.default_limits)

    async def drive(journal: Journal) -> None:
        async with SandboxPool(trusted_code=True) as pool:
            model = ScriptedClient("oracle", protocol)
            settings = rollout_settings(model, pool, protocol=protocol, globs=("output/**",))
            run = scheduler(settings, journal, len(samples), concurrency=2)
            with blockbuster_ctx(scanned_modules=["runner", "sandbox_pool"]) as blockbuster:
                for function in blockbuster.functions.values():
                    # The thread that spawns must outlive the kernel, so that it is the loop's own.
                    function.can_block_in("sandbox_pool/process.py", {"spawn"})
                    # Microseconds in the page cache; a thread would cost more.
                    function.can_block_in("runner/journal/inflight.py", {"append", "remove"})
                    function.can_block_in("runner/scheduling/attempt.py", {"has_folder"})
                    function.can_block_in("runner/journal/writer.py", {"event"})
                await run.run(attempts(Samples.of(samples), 1, frozenset()))

    with Journal(tmp_path) as journal:
        uvloop.run(drive(journal))

    rows = list(read_trajectories(tmp_path))
    assert [(row["stop_reason"], row["tries"]) for row in rows] == [("answer", [])] * len(samples)
    assert all(row["artifacts"] for row in rows)
