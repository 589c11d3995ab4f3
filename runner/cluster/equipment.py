"""What a worker works with, by what its driver says: its samples, its model client, its limits."""

from __future__ import annotations

from bench_data import BenchDataError, Benchmark, load
from runner.cluster.messages import Setup, Terms
from runner.config import RunConfig, RunLimits
from runner.errors import ConfigError
from runner.event_sink import EventSink
from runner.factory import build_model
from runner.gate import Gate
from runner.models import ModelClient
from runner.scheduling.scheduler import SchedulerSettings
from runner.telemetry.tracing import Tracer
from runner.trajectory.lease import Sandboxes
from runner.trajectory.rollout import RolloutSettings
from sandbox_pool import Pool


def same_benchmark(setup: Setup) -> Benchmark | None:
    """Return the benchmark, if this node has the same one as the driver. Blocks."""
    try:
        benchmark = load(setup.config.benchmark, setup.config.data)
    except (BenchDataError, ConfigError, OSError):
        return None
    return benchmark if benchmark.digest == setup.benchmark_digest else None


def client_for(setup: Setup, terms: Terms, events: EventSink) -> ModelClient:
    """Return a worker's model client, not started yet. Raises ConfigError."""
    admission = setup.config.admission.model_copy(update={"max_calls": terms.share.max_calls})
    update = {"concurrency": terms.share.concurrency, "admission": admission}
    return build_model(setup.config.model_copy(update=update), setup.protocol, events)


def scheduler_settings(config: RunConfig, terms: Terms, max_sandboxes: int | None) -> SchedulerSettings:
    """Return how a worker's part of a run is driven."""
    return SchedulerSettings(
        concurrency=terms.share.concurrency,
        grace_s=terms.grace_s,
        admission=config.admission,
        run_limits=RunLimits(),  # the driver's to see to, who knows what all have used
        breaker=config.breaker,
        max_sandboxes=max_sandboxes,
    )


def rollout_settings(setup: Setup, model: ModelClient, pool: Pool, tracer: Tracer) -> RolloutSettings:
    """Return what a worker's trajectories have in common."""
    config = setup.config
    return RolloutSettings.of_run(
        config,
        model=model,
        protocol=setup.protocol,
        sandboxes=Sandboxes(pool, Gate(config.sandbox.max_sandboxes), config.artifacts),
        system_prompt=setup.system_prompt,
        tracer=tracer,
    )
