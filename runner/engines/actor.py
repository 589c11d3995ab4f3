"""The far end of an engine on Ray: what runs on its node, as an actor (ray_host) or a task (ray_plan)."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from runner.config import EnginesConfig
from runner.engines.arguments import server_command
from runner.engines.checks import check_dtype, check_model
from runner.engines.host import EngineAddress, EngineSpec
from runner.engines.machine import check_linux, compute_capability, is_cpu_vllm
from runner.engines.process import EngineProcess
from runner.engines.raylet import end_with_raylet
from runner.errors import ConfigError, EngineStartError


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node that engines may run on is like."""

    is_cpu_build: bool
    argv: tuple[str, ...]
    """An engine's command line there: the Python is the node's own."""


def check_node(model: str, engines: EnginesConfig) -> NodeFacts | ConfigError:
    """Check model, template, dtype and vLLM where engines will be. An error is returned: Ray wraps others."""
    try:
        check_linux()
        check_model(model, engines)
        is_cpu_build = not engines.command and is_cpu_vllm()
        if not is_cpu_build and engines.gpus_per_replica != 0:
            check_dtype(model, engines, compute_capability())
    except ConfigError as error:
        return error
    return NodeFacts(is_cpu_build, server_command(engines, model))


class EngineActor:
    """Owns an engine on its node. The engine is in the actor's process group, which the raylet kills.

    Args:
        spec: what to start.
        host: the address to listen on; None: the node's own.
        log: where the log goes if this node sees that file, with `sign` in it; else it stays on the node.
        sign: what the driver wrote there.
        gcs_address: set where vLLM is to spread the engine over nodes: it takes GPUs from that Ray itself.
    """

    def __init__(
        self, spec: EngineSpec, host: str | None, log: str, sign: str, gcs_address: str | None
    ) -> None:
        host = host or node_address()
        if gcs_address is not None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # empty: this actor itself has none of the GPUs
            ours = {"RAY_ADDRESS": gcs_address, "VLLM_HOST_IP": host}
            spec = replace(spec, env={**ours, **spec.env})
        path = Path(log)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if not holds(path, sign):
            self._folder = tempfile.TemporaryDirectory(prefix="kernelfleet-engine-")
            path = Path(self._folder.name) / path.name
        self._process = EngineProcess(spec, path, host=host)

    async def is_there(self) -> bool:
        """Answer, once there is room for this actor. From now on its process ends with its raylet."""
        end_with_raylet()
        return True

    async def start(self) -> EngineAddress | EngineStartError:
        """See EngineHost; an error is returned."""
        with suppress(PermissionError):  # Ray's workers have 15; without the right to, the engine keeps that
            os.setpriority(os.PRIO_PROCESS, 0, 0)  # this thread's, which starts the engine
        try:
            return await self._process.start()
        except EngineStartError as error:
            return error

    async def ended(self) -> str:
        """See EngineHost."""
        return await self._process.ended()

    async def stop(self, grace_s: float) -> None:
        """See EngineHost."""
        await self._process.stop(grace_s)

    async def far_log_tail(self) -> str:
        """Return the end of a log that stays on this node; empty for one that the driver sees."""
        return await self._process.log_tail() if self._folder else ""

    async def close(self) -> None:
        """See EngineHost."""
        await self._process.close()
        if self._folder:
            self._folder.cleanup()


def node_address() -> str:
    """Return the address of this node as the others know it."""
    import ray

    return str(ray.util.get_node_ip_address())


def holds(path: Path, sign: str) -> bool:
    """Return whether a file is there with such a line."""
    try:
        with path.open("rb") as file:
            return any(sign.encode() in line for line in file)
    except OSError:
        return False
