"""Runs of one process share its connection to Ray: made once, ended by the last, and only if they made it."""

from __future__ import annotations

import asyncio
import time

import pytest

from runner.cluster import ray_cluster
from runner.config import ClusterConfig
from runner.errors import ConfigError


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
