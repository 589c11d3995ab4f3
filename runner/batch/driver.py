"""From a prepared run and what it holds open to what drives it: a scheduler here, or workers on a cluster."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass

from runner.batch.prepared import Batch
from runner.cluster.crew import Crew
from runner.cluster.opening import cluster_run
from runner.cluster.run import ClusterRun
from runner.engines import EngineGroup
from runner.factory import system_prompt
from runner.gate import Gate
from runner.journal import Journal
from runner.recorder import RunIdentity
from runner.resume import RunRecord
from runner.scheduling.attempt import OnFinished
from runner.scheduling.scheduler import Scheduler, SchedulerSettings
from runner.telemetry.tracing import Tracer
from runner.trajectory.lease import Sandboxes
from runner.trajectory.rollout import RolloutSettings
from sandbox_pool import SandboxPool

Driver = Scheduler | ClusterRun
"""What takes the attempts of a run to their end."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What several runs of one process use together."""

    trajectories: Gate
    sandboxes: Gate


@dataclass(frozen=True, slots=True)
class Opened:
    """What a run holds open while it goes on."""

    record: RunRecord
    journal: Journal
    place: SandboxPool | Crew
    """Where its sandboxes are."""

    tracer: Tracer
    engines: EngineGroup | None
    """None where it hosts none, or has nothing left to do."""

    n_done: int
    """Attempts of the run that have a line already."""


def driver_of(
    stack: AsyncExitStack,
    batch: Batch,
    opened: Opened,
    run_id: str,
    shared: Shared | None,
    on_finished: OnFinished | None,
) -> Driver:
    """Return what drives a run, not begun yet; where that is workers, they are told of the engines.

    Until the stack is closed: engines may outlive the run.
    """
    identity = identity_of(batch, opened.record, run_id)
    if not isinstance(opened.place, Crew):
        return _scheduler(batch, opened, opened.place, identity, shared, on_finished)
    driver = cluster_run(
        batch.config,
        opened.place,
        identity,
        opened.journal,
        n_total=batch.n_attempts - opened.n_done,
        n_done_before=opened.n_done,
        on_finished=on_finished,
        shared_trajectories=shared.trajectories if shared else None,
    )
    if opened.engines is not None:
        stack.callback(opened.engines.subscribe(driver.set_endpoints))
    return driver


def _scheduler(
    batch: Batch,
    opened: Opened,
    pool: SandboxPool,
    identity: RunIdentity,
    shared: Shared | None,
    on_finished: OnFinished | None,
) -> Scheduler:
    config = batch.config
    settings = SchedulerSettings(
        concurrency=config.concurrency,
        grace_s=config.grace_s,
        admission=config.admission,
        run_limits=config.run_limits,
        breaker=config.breaker,
        max_sandboxes=pool.statistics().max_sandboxes,
    )
    return Scheduler(
        _rollout_settings(batch, pool, shared, opened.tracer),
        identity,
        opened.journal,
        settings,
        n_total=batch.n_attempts - opened.n_done,
        n_done_before=opened.n_done,
        n_idle_sandboxes=lambda: pool.statistics().n_idle,
        on_finished=on_finished,
        shared_trajectories=shared.trajectories if shared else None,
    )


def _rollout_settings(
    batch: Batch, pool: SandboxPool, shared: Shared | None, tracer: Tracer
) -> RolloutSettings:
    config = batch.config
    gate = shared.sandboxes if shared else Gate(config.sandbox.max_sandboxes)
    return RolloutSettings.of_run(
        config,
        model=batch.model,
        protocol=batch.protocol,
        sandboxes=Sandboxes(pool, gate, config.artifacts),
        system_prompt=system_prompt(config, batch.protocol),
        tracer=tracer,
    )


def identity_of(batch: Batch, record: RunRecord, run_id: str) -> RunIdentity:
    """Return what every line of a run repeats."""
    sandbox = batch.config.sandbox
    return RunIdentity(
        run_id=run_id,
        config_hash=record.config_hash,
        benchmark=batch.config.benchmark,
        model=batch.model.name,
        protocol=batch.protocol.name,
        kernel=str(record.sandbox.get("kernel", "")),
        tier=str(record.sandbox.get("tier", "")),
        host=socket.gethostname(),
        seed=batch.config.seed,
        kernels={name: sandbox.profile_named(name).kernel for name in batch.samples.profiles},
    )
