"""A Ray cluster: the connection, its nodes, the workers on them. With `ray_worker`, all that knows Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runner.cluster.crew import Crew
from runner.cluster.digest import packages_digest, packages_root
from runner.cluster.links import WorkerLost, WorkerUnavailable
from runner.cluster.messages import Batch, Setup
from runner.cluster.ray_worker import worker_class
from runner.config import ClusterConfig
from runner.engines.ray_connection import (
    alive_nodes,
    connect,
    disconnect,
    is_connected,
    nodes_for_workers,
    renew_handlers,
)
from runner.engines.ray_host import describe_ray_error
from runner.errors import ClusterError

START_TIMEOUT_S = 120.0
MAX_CALLS = 1000
MAX_UNREAD_BATCHES = 16
SAME_CODE = (
    "Give the same code to all nodes: with `ray job submit --working-dir .`, or by installing it on each"
)

_n_users = 0
"""Runs of this process that use the connection, which is the process's."""

_is_ours = False
"""Whether they made it, and so end it."""

_changing = threading.Lock()
"""Held while it is made or ended: runs of a sweep come side by side, and Ray bears only one of these."""


@asynccontextmanager
async def open_crew(config: ClusterConfig, setup: Setup) -> AsyncIterator[Crew]:
    """Connect, and open a worker on each node; close them at the end.

    Raises:
        ConfigError: Ray is not installed, or there is no connection to the cluster.
        ClusterError: no node may have a worker.
        SandboxError: no node can hold code as asked.
    """
    async with connected(config):
        fleet = RayFleet(config)
        crew = Crew(fleet, setup, None if config.workers == "auto" else config.workers)
        try:
            await crew.open()
            yield crew
        finally:
            await crew.close()


@asynccontextmanager
async def connected(config: ClusterConfig) -> AsyncIterator[None]:
    """Be connected to the cluster while the block runs. Raises ConfigError."""
    global _n_users
    _n_users += 1
    try:
        try:
            await asyncio.to_thread(_connect, config.address)
        finally:
            renew_handlers()
        yield
    finally:
        _n_users -= 1
        if _n_users == 0:
            await asyncio.to_thread(_disconnect)


def _connect(address: str | None) -> None:
    global _is_ours
    with _changing:
        if not is_connected():
            connect(address)
            _is_ours = True


def _disconnect() -> None:
    global _is_ours
    with _changing:
        if _is_ours and _n_users == 0:  # else a run has come meanwhile
            _is_ours = False
            disconnect()


class RayFleet:
    """The nodes of the cluster that this process is connected to; see `links.Fleet`."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._root = packages_root()
        self._digest = packages_digest(self._root)

    async def nodes(self) -> list[str]:
        """See `links.Fleet`."""
        try:
            nodes = await asyncio.to_thread(alive_nodes)
        except Exception as error:
            raise ClusterError(f"the Ray cluster does not say which nodes it has: {error}") from error
        return [node.node_id for node in nodes_for_workers(nodes, self._config.cpus_per_worker)]

    async def launch(self, node: str) -> RayLink:
        """See `links.Fleet`."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            ray.remote(worker_class())
            .options(
                num_cpus=self._config.cpus_per_worker,
                max_restarts=0,
                max_concurrency=MAX_CALLS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
        )
        link = RayLink(ray, actor)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                problem = await actor.start.remote(str(self._root), self._digest)
                if problem is not None:
                    problem += f". {SAME_CODE}"
        except TimeoutError:
            problem = (
                f"no worker came up within {START_TIMEOUT_S:g} s; is a CPU free there "
                f"(cluster.cpus_per_worker is {self._config.cpus_per_worker:g})?"
            )
        except ray.exceptions.RayError as error:
            problem = describe_ray_error(error)
        except BaseException:
            link.kill()
            raise
        if problem is not None:
            link.kill()
            raise ClusterError(f"node {node[:12]}: {problem}")
        return link


class RayLink:
    """A worker in an actor; see `links.WorkerLink`."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor

    async def call(self, method: str, *arguments: Any) -> Any:
        """See `links.WorkerLink`."""
        try:
            result, error = await self._actor.call.remote(method, arguments)
        except self._ray.exceptions.RayError as lost:
            raise _translated(self._ray.exceptions, lost) from lost
        if error is not None:
            raise error
        return result

    async def messages(self, after: int) -> AsyncGenerator[Batch, None]:
        """See `links.WorkerLink`."""
        stream = self._actor.messages.options(
            num_returns="streaming", _generator_backpressure_num_objects=MAX_UNREAD_BATCHES
        ).remote(after)
        try:
            async for reference in stream:
                yield await reference
        except self._ray.exceptions.RayError as lost:
            raise _translated(self._ray.exceptions, lost) from lost

    def kill(self) -> None:
        """See `links.WorkerLink`."""
        self._ray.kill(self._actor, no_restart=True)


def _translated(exceptions: Any, error: Exception) -> Exception:
    """Return what a Ray error means; a RayTaskError is a bug of ours."""
    is_bug: bool = isinstance(error, exceptions.RayTaskError)
    if is_bug:
        return error
    why = " ".join(str(error).split())[:300]
    is_dead: bool = isinstance(error, exceptions.ActorDiedError)
    return WorkerLost(why) if is_dead else WorkerUnavailable(why)
