"""A Ray cluster: the connection, its nodes, the workers on them. With `ray_worker`, all that knows Ray."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from runner.cluster.crew import Crew
from runner.cluster.digest import packages_digest, packages_root
from runner.cluster.links import WorkerLost, WorkerUnavailable
from runner.cluster.messages import Batch, Setup
from runner.cluster.ray_worker import worker_class
from runner.config import ClusterConfig
from runner.errors import ClusterError, ConfigError

LABEL = "sandbox"
"""The resource by which nodes say that they are for workers."""

CONNECT_TIMEOUT_S = 5.0
START_TIMEOUT_S = 120.0
MAX_CALLS = 1000
MAX_UNREAD_BATCHES = 16

_n_users = 0
"""Runs of this process that use the connection, which is the process's."""


@asynccontextmanager
async def open_crew(config: ClusterConfig, setup: Setup) -> AsyncIterator[Crew]:
    """Connect, and open a worker on each node; close them at the end.

    Raises:
        ConfigError: Ray is not installed.
        ClusterError: the cluster cannot be used, or no node may have a worker.
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
    """Be connected to the cluster while the block runs. Raises ConfigError, ClusterError.

    Signal handlers are to be installed inside: Ray brings its own.
    """
    global _n_users
    if _n_users == 0:
        await _connect(config)
    _n_users += 1
    try:
        yield
    finally:
        _n_users -= 1
        if _n_users == 0:
            await asyncio.to_thread(_import_ray().shutdown)


async def _connect(config: ClusterConfig) -> None:
    ray = _import_ray()
    if ray.is_initialized():
        raise ClusterError(
            "this process is connected to Ray already, by other code than ours; end that first"
        )
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address == "local":
        options["include_dashboard"] = False
        _secure()
    elif "://" not in address and ":" in address:
        await asyncio.to_thread(_check_listens, address)
    try:
        await asyncio.to_thread(lambda: ray.init(address=address, **options))
    except Exception as error:
        raise ClusterError(_why_not_connected(address, error)) from error


def _secure() -> None:
    """Let only this process use the cluster that it is about to start: Ray listens on all interfaces."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _check_listens(address: str) -> None:
    """Ask whether anything listens there: Ray itself would wait for a minute, and end the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"cluster.address {address}: nothing answers there ({error}); give HOST:PORT of the head node's "
            "`ray start --head --port`, or leave it out for a cluster of this machine alone"
        ) from error


def _why_not_connected(address: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Version mismatch" in text or "version mismatch" in text:
        return (
            f"the Ray cluster at {address} has other versions than this process: {text} Install the same Ray "
            "and the same Python here and on all nodes"
        )
    if "auth" in text.lower() and "token" in text.lower():
        return (
            f"the Ray cluster at {address} wants a token: {text} Set RAY_AUTH_MODE and RAY_AUTH_TOKEN here as "
            "they were when its nodes were started"
        )
    return f"cannot use the Ray cluster at {address}: {text or type(error).__name__}"


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "cluster.kind is ray, and Ray is not installed: run make install-engines, or pip install "
            "'ray[default]', here and on all nodes"
        ) from error
    return ray


class RayFleet:
    """The nodes of the cluster that this process is connected to; see `links.Fleet`."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._ray = _import_ray()
        self._root = packages_root()
        self._digest = packages_digest(self._root)

    async def nodes(self) -> list[str]:
        """See `links.Fleet`."""
        try:
            return nodes_for_workers(await asyncio.to_thread(self._ray.nodes), self._config.cpus_per_worker)
        except Exception as error:
            raise ClusterError(f"the Ray cluster does not say which nodes it has: {error}") from error

    async def launch(self, node: str) -> RayLink:
        """See `links.Fleet`."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            self._ray.remote(worker_class())
            .options(
                num_cpus=self._config.cpus_per_worker,
                max_restarts=0,
                max_concurrency=MAX_CALLS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
        )
        link = RayLink(self._ray, actor)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                problem = await actor.start.remote(str(self._root), self._digest)
        except TimeoutError:
            problem = (
                f"no worker came up within {START_TIMEOUT_S:g} s; is a CPU free there "
                f"(cluster.cpus_per_worker is {self._config.cpus_per_worker:g})?"
            )
        except self._ray.exceptions.RayError as error:
            problem = str(error)
        except BaseException:
            link.kill()
            raise
        if problem is not None:
            link.kill()
            raise ClusterError(
                f"node {node[:12]}: {problem}. Give the same code to all nodes: with `ray job submit "
                "--working-dir .`, or by installing it on each"
            )
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
            raise self._translated(lost) from lost
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
            raise self._translated(lost) from lost

    def kill(self) -> None:
        """See `links.WorkerLink`."""
        self._ray.kill(self._actor, no_restart=True)

    def _translated(self, error: Exception) -> Exception:
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            return error  # a bug of ours
        why = " ".join(str(error).split())[:300]
        if isinstance(error, exceptions.ActorDiedError):
            return WorkerLost(why)
        return WorkerUnavailable(why)


def nodes_for_workers(nodes: Sequence[Mapping[str, Any]], cpus_per_worker: float) -> list[str]:
    """Return the nodes that may have a worker: those that are labelled, or all that have the CPUs. Pure.

    `nodes` are as `ray.nodes()` gives them.
    """
    alive = [node for node in nodes if node["Alive"]]
    labelled = [node for node in alive if node["Resources"].get(LABEL, 0) > 0]
    needed = max(cpus_per_worker, 1e-9)
    return [node["NodeID"] for node in labelled or alive if node["Resources"].get("CPU", 0) >= needed]
