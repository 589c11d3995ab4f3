"""From a run's config to its workers, and to what drives them."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager

from bench_data import Benchmark
from runner.cluster.crew import Crew
from runner.cluster.job import environment_of, grace_s
from runner.cluster.messages import Setup
from runner.cluster.ray_cluster import open_crew
from runner.cluster.run import ClusterRun, ClusterSettings
from runner.config import RunConfig
from runner.factory import system_prompt
from runner.gate import Gate
from runner.journal import Journal
from runner.protocols import Protocol
from runner.recorder import RunIdentity
from runner.scheduling.attempt import OnFinished


def crew_of(
    config: RunConfig, benchmark: Benchmark, protocol: Protocol, *, trusted_code: bool
) -> AbstractAsyncContextManager[Crew]:
    """Return the workers of a run, not open yet; see `open_crew`."""
    setup = Setup(
        config=config,
        protocol=protocol,
        system_prompt=system_prompt(config, protocol),
        benchmark_digest=benchmark.digest,
        trusted_code=trusted_code,
        environment=environment_of(config, os.environ),
    )
    return open_crew(config.cluster, setup)


def cluster_run(
    config: RunConfig,
    crew: Crew,
    identity: RunIdentity,
    journal: Journal,
    *,
    n_total: int,
    n_done_before: int,
    on_finished: OnFinished | None,
    shared_trajectories: Gate | None,
) -> ClusterRun:
    """Return what drives the workers of a run."""
    settings = ClusterSettings(
        concurrency=config.concurrency,
        max_calls=config.admission.max_calls,
        grace_s=drain_s(config),
        window_factor=config.cluster.window_factor,
        run_limits=config.run_limits,
        resumes_turns=config.resume.unit == "turns",
    )
    return ClusterRun(
        crew,
        identity,
        journal,
        settings,
        n_total=n_total,
        n_done_before=n_done_before,
        on_finished=on_finished,
        shared_trajectories=shared_trajectories,
    )


def drain_s(config: RunConfig) -> float:
    """Return how long running trajectories may go on after a signal."""
    return config.grace_s if config.cluster.kind == "none" else grace_s(config, os.environ)
