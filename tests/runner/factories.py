"""Records and samples for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench_data import Sample, Solution
from runner.config import BreakerConfig, Limits, Prices, ResumeConfig, RunLimits
from runner.encoding import encode_line
from runner.gate import Gate
from runner.journal import Journal
from runner.models import Completion, ModelClient, ModelRequest
from runner.protocols import Fenced, Protocol
from runner.recorder import RunIdentity
from runner.records import SCHEMA_VERSION, Owner, StopReason, Timings, Trajectory, Turn, Usage
from runner.scheduling.scheduler import Scheduler, SchedulerSettings
from runner.telemetry.meter import RunMeter
from runner.telemetry.statistics import EndpointStatistics
from runner.trajectory.lease import ArtifactsFolder, Sandboxes
from runner.trajectory.rollout import Rollout, RolloutSettings
from sandbox_pool import FakePool, Pool


def trajectory(sample_id: str = "one", epoch: int = 1, **changes: Any) -> Trajectory:
    """Return a finished trajectory."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": "r",
        "config_hash": "h",
        "benchmark": "test",
        "sample_id": sample_id,
        "epoch": epoch,
        "attempt": f"{sample_id}@{epoch}",
        "model": "m",
        "protocol": "fenced",
        "kernel": "fake",
        "tier": "fake",
        "host": "here",
        "seed": 1,
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "done"}],
        "turns": [Turn(completion="done")],
        "stop_reason": StopReason.ANSWER,
        "owner": Owner.MODEL,
        "error": None,
        "tries": [],
        "n_resumed_turns": 0,
        "artifacts": [],
        "usage": Usage(1, 2, 3),
        "timings": Timings(),
        "started_at": 1.0,
        "finished_at": 2.0,
    }
    return Trajectory(**(values | changes))


async def append(journal: Journal, finished: Trajectory) -> bool:
    """Write a finished trajectory's line; return whether it is on disk."""
    return await journal.append(finished.attempt, encode_line(finished))


def sample(
    sample_id: str = "one", *cells: str, answer: str = "Answer: {last_line}", **changes: Any
) -> Sample:
    """Return a sample whose reference solution is these cells."""
    values: dict[str, Any] = {
        "id": sample_id,
        "messages": ({"role": "user", "content": f"task {sample_id}"},),
        "reference": Solution(cells=cells, answer=answer),
    }
    return Sample(**(values | changes))


class FakeModel:
    """What every model client has, but for the answers."""

    name = "fake"

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def forget(self, attempt: str) -> None: ...

    def endpoints(self) -> tuple[EndpointStatistics, ...]:
        return ()

    def max_trajectories(self) -> int | None:
        return None

    def set_concurrency(self, concurrency: int) -> None: ...

    async def complete(self, request: ModelRequest) -> Completion:
        raise NotImplementedError


IDENTITY = RunIdentity("r", "h", "test", "m", "fenced", "fake", "none", "here", 7, {"upstream": "ipykernel"})


def rollout_settings(
    model: ModelClient,
    pool: Pool | None = None,
    *,
    protocol: Protocol | None = None,
    system_prompt: str = "",
    globs: tuple[str, ...] = (),
    max_sandboxes: int = 1000,
    resume: dict[str, Any] | None = None,
    prices: Prices | None = None,
    send_reasoning: bool = False,
    **limits: Any,
) -> RolloutSettings:
    """Return what rollouts share, with limits by their names."""
    return RolloutSettings(
        model=model,
        protocol=protocol or Fenced(None),
        sandboxes=Sandboxes(pool or FakePool(), Gate(max_sandboxes), globs),
        limits=Limits(**limits),
        system_prompt=system_prompt,
        merge_user_messages=True,
        meter=RunMeter(),
        resume=ResumeConfig(**(resume or {})),
        prices=prices,
        send_reasoning=send_reasoning,
    )


def rollout(settings: RolloutSettings, asked: Sample, path: Path, **changes: Any) -> Rollout:
    """Return one try of the first attempt of a sample."""
    folder = ArtifactsFolder(path, f"artifacts/{asked.id}/1")
    phase = settings.meter.phases.track()
    return Rollout(settings, asked, 1, folder, **({"seed": 7, "phase": phase} | changes))


def scheduler(
    settings: RolloutSettings,
    journal: Journal,
    n: int,
    *,
    concurrency: int = 4,
    grace_s: float = 0.0,
    identity: RunIdentity = IDENTITY,
    breaker: dict[str, Any] | None = None,
    run_limits: dict[str, Any] | None = None,
    on_finished: Any = None,
) -> Scheduler:
    """Return the scheduler of a run of n attempts."""
    return Scheduler(
        settings,
        identity,
        journal,
        SchedulerSettings(
            concurrency=concurrency,
            grace_s=grace_s,
            breaker=BreakerConfig(**(breaker or {})),
            run_limits=RunLimits(**(run_limits or {})),
        ),
        n_total=n,
        on_finished=on_finished,
    )
