"""Engines of our own: vLLM's API server as child processes, kept running, with nothing left behind.

On this machine, or on the nodes of a Ray cluster. `plan_engines` checks everything that can be checked before
a process is started; `open_engines` starts them.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from runner.config import RunConfig
from runner.engines.arguments import server_command, server_environment
from runner.engines.checks import check_dtype, check_model
from runner.engines.group import EngineGroup
from runner.engines.host import EngineAddress, EngineHost, EngineSpec
from runner.engines.machine import check_linux, compute_capability, is_cpu_vllm, list_gpus
from runner.engines.placement import place, share_gpus
from runner.engines.process import EngineProcess
from runner.engines.ray_plan import RayPlan, check_workers_reach_this_machine, plan_on_ray
from runner.engines.replica import OnEvent

__all__ = [
    "EngineAddress", "EngineGroup", "EngineHost", "EnginePlan", "EngineProcess", "EngineSpec", "RayPlan",
    "open_engines", "plan_engines",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What will be started: one spec for each replica."""

    specs: tuple[EngineSpec, ...]

    def hosts(self, log_dir: Path) -> list[EngineProcess]:
        """Return a host for each engine; nothing is started yet."""
        return [
            EngineProcess(spec, log_dir / f"engine-{index}.log", own_group=True)
            for index, spec in enumerate(self.specs)
        ]


def plan_engines(config: RunConfig) -> EnginePlan | RayPlan:
    """Check the model, the config and where engines will run; decide how many there are. Blocks.

    Starts no engine. With engines or workers on Ray it connects this process to the cluster, if it is not
    yet: call it before signal handlers are installed.

    Raises:
        ConfigError: says what is not there or does not go together, and what to do.
    """
    engines = config.engines
    if engines.kind == "ray" or (engines.kind == "auto" and config.cluster.kind == "ray"):
        return plan_on_ray(config)
    if config.cluster.kind == "ray":
        check_workers_reach_this_machine(config.cluster)
    model = config.model.client.partition(":")[2]
    check_linux()
    check_model(model, engines)
    is_cpu_build = not engines.command and is_cpu_vllm()
    gpus = () if engines.gpus_per_replica == 0 else list_gpus({**os.environ, **engines.env})
    placement = place(engines, len(gpus), is_cpu_build=is_cpu_build)
    if placement.gpus_per_replica:
        check_dtype(model, engines, compute_capability(gpus))
    argv = server_command(engines, model)
    return EnginePlan(
        tuple(
            EngineSpec(argv, server_environment(engines, shared), engines.start_timeout_s)
            for shared in share_gpus(placement, gpus)
        )
    )


async def open_engines(
    config: RunConfig, log_dir: Path, *, on_event: OnEvent = lambda name, details: None
) -> EngineGroup:
    """Return the engines of a run, ready; the caller closes the group. Safe to cancel.

    Raises:
        ConfigError: as `plan_engines`.
        AllEnginesLost: none started; the message says why and ends with a log.
    """
    plan = await asyncio.to_thread(plan_engines, config)
    group = EngineGroup(plan.hosts(log_dir), config.engines, on_event=on_event)
    await group.start()
    return group
