"""The connection to Ray, which runs of one process share, and what is said of a worker that does not start."""

from __future__ import annotations

import asyncio
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runner.cluster import ray_cluster
from runner.config import ClusterConfig
from runner.errors import ClusterError, ConfigError


class Ray:
    """As Ray: to connect takes a while, and twice is an error."""

    def __init__(self, *, is_connected: bool = False, error: Exception | None = None) -> None:
        self.is_connected = is_connected
        self.n_connects = 0
        self.error = error

    def connect(self, address: str | None) -> bool:
        assert not self.is_connected
        self.n_connects += 1
        n_connects = self.n_connects
        time.sleep(0.05)
        assert n_connects == self.n_connects, "ray.init twice"
        if self.error is not None:
            raise self.error
        self.is_connected = True
        return False

    def disconnect(self) -> None:
        assert self.is_connected
        self.is_connected = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_cluster, "connect", self.connect)
        monkeypatch.setattr(ray_cluster, "disconnect", self.disconnect)
        monkeypatch.setattr(ray_cluster, "is_connected", lambda: self.is_connected)


async def use(seconds: float = 0.0) -> None:
    async with ray_cluster.connected(ClusterConfig(kind="ray")):
        await asyncio.sleep(seconds)


async def test_two_that_begin_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the runs of a sweep side by side."""
    ray = Ray()
    ray.install(monkeypatch)
    async with asyncio.TaskGroup() as group:
        group.create_task(use())
        group.create_task(use(0.1))
        await asyncio.sleep(0.08)
        assert ray.is_connected
    assert (ray.n_connects, ray.is_connected) == (1, False)

    await use()
    assert (ray.n_connects, ray.is_connected) == (2, False)


async def test_a_connection_of_others_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are on it, and outlive the run."""
    ray = Ray(is_connected=True)
    ray.install(monkeypatch)
    await use()
    assert (ray.n_connects, ray.is_connected) == (0, True)


async def test_none_that_is_refused_or_cancelled_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Ray(error=ConfigError("nobody there"))
    ray.install(monkeypatch)
    with pytest.raises(ConfigError, match="nobody there"):
        await use()
    ray.error = None

    connecting = asyncio.create_task(use())
    await asyncio.sleep(0.02)
    connecting.cancel()
    await asyncio.wait([connecting])
    assert connecting.cancelled()
    assert (ray.n_connects, ray.is_connected) == (2, False)

    await use()
    assert (ray.n_connects, ray.is_connected) == (3, False)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("it has other code", r"^node n1: it has other code\. Give the same code to all nodes: .* on each$"),
        (None, r"^node n1: no worker came up within 0\.01 s; is a CPU free there .*\?$"),
    ],
)
async def test_a_worker_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, answer: str | None, says: str
) -> None:
    """What to do is of its reason: a node without a free CPU has the right code."""
    monkeypatch.setattr(ray_cluster, "START_TIMEOUT_S", 0.01)
    killed = []

    async def start(root: str, digest: str) -> str | None:
        if answer is None:
            await asyncio.sleep(10)
        return answer

    actor = SimpleNamespace(start=SimpleNamespace(remote=start))
    made = SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda: actor))
    ray: Any = ModuleType("ray")
    ray.exceptions = SimpleNamespace(RayError=KeyError)
    ray.remote = lambda worker: made
    ray.kill = lambda actor, no_restart: killed.append(actor)
    strategies: Any = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: node
    for module in (ray, strategies):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "ray.util", ModuleType("ray.util"))

    with pytest.raises(ClusterError, match=says):
        await ray_cluster.RayFleet(ClusterConfig(kind="ray")).launch("n1")
    assert killed == [actor]
