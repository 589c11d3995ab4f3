"""The whole runner on a stub server, with a sandbox that does nothing or a real one: what benchmarks drive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from bench_data import Sample
from runner.config import AdmissionConfig, Limits, ModelConfig
from runner.gate import Gate
from runner.journal import Journal
from runner.models import OpenAIClient
from runner.plan import Attempt
from runner.progress import watch
from runner.protocols import Fenced
from runner.recorder import RunIdentity
from runner.scheduling.scheduler import Scheduler, SchedulerSettings
from runner.telemetry.meter import RunMeter
from runner.telemetry.metrics import MetricsServer
from runner.telemetry.statistics import RunStatistics
from runner.trajectory.lease import Sandboxes
from runner.trajectory.rollout import RolloutSettings
from sandbox_pool import DEFAULT_SPEC, FakeSandbox, Observation, Pool, SandboxSpec, Status, Stream

CELL_OUTPUT = "1\n"


class NoOpPool:
    """Sandboxes that do nothing; keeps none of them."""

    @asynccontextmanager
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[FakeSandbox]:
        """See `interface.Pool`."""
        yield FakeSandbox(lambda code: Observation(Status.OK, (Stream("stdout", CELL_OUTPUT),)))


def samples(n: int) -> Iterable[Attempt]:
    """Yield n attempts of one user message, one at a time."""
    for number in range(n):
        yield Attempt(Sample(f"s{number}", ({"role": "user", "content": "Count to three."},)), 1)


async def drive(
    url: str,
    attempts: Iterable[Attempt],
    n: int,
    folder: Path,
    *,
    concurrency: int,
    pool: Pool | None = None,
    max_turns: int = 10,
    protocol: Any = None,
) -> RunStatistics:
    """Run attempts with full journalling, progress and metrics; return the statistics at the end."""
    async with AsyncExitStack() as stack:
        config = ModelConfig(client=f"openai:{url}", name="stub")
        model = OpenAIClient([url], config, admission=AdmissionConfig(), concurrency=concurrency)
        stack.push_async_callback(model.close)
        await model.start()
        settings = RolloutSettings(
            model=model,
            protocol=protocol or Fenced(Fenced.default_limits),
            sandboxes=Sandboxes(pool or NoOpPool(), Gate(concurrency), ()),
            limits=Limits(max_turns=max_turns),
            system_prompt="",
            merge_user_messages=True,
            meter=RunMeter(),
        )
        identity = RunIdentity("r", "h", "bench", "stub", "fenced", "none", "none", "here", 0)
        journal = stack.enter_context(Journal(folder))
        scheduler = Scheduler(
            settings, identity, journal, SchedulerSettings(concurrency=concurrency), n_total=n
        )
        metrics = MetricsServer(scheduler.statistics, 0, {"run_id": "r"})
        await metrics.start()
        stack.push_async_callback(metrics.close)
        with (folder / "console").open("w") as console:
            watcher = asyncio.create_task(watch(scheduler.statistics, Console(file=console), "json"))
            await scheduler.run(attempts)
            statistics = scheduler.statistics()
            watcher.cancel()
            await asyncio.wait([watcher])
        return statistics
