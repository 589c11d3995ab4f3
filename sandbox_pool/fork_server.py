"""The zygotes of one profile, one after another: each is replaced when it is dead, stuck or worn.

The sandboxes of one that is only worn out live on, those of a dead one are gone with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sandbox_pool.errors import SandboxStartError, UnsupportedHost
from sandbox_pool.zygote import Zygote, ZygoteGone

logger = logging.getLogger(__name__)


class ForkServer:
    """Zygotes of one profile: one that forks, and worn ones that wait for the end of their sandboxes.

    Args:
        spawn: starts a zygote.
        recycle_after: forks after which a fresh zygote takes over.
        timeout_s: for one fork.
    """

    def __init__(
        self, spawn: Callable[[], Awaitable[Zygote]], *, recycle_after: int, timeout_s: float
    ) -> None:
        self._spawn = spawn
        self._recycle_after = recycle_after
        self._timeout_s = timeout_s
        self._current: Zygote | None = None
        self._worn: set[Zygote] = set()
        self._successor: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()
        self._n_forking = 0
        self.n_zygotes = 0
        """Zygotes started so far."""

    @property
    def is_idle(self) -> bool:
        """Whether it could be closed without harm to anybody."""
        zygote = self._current
        return not self._n_forking and not self._worn and (zygote is None or zygote.n_live <= 0)

    async def fork(self, descriptors: Sequence[int], request: Mapping[str, Any]) -> tuple[Zygote, int | None]:
        """Fork a sandbox; see Zygote.fork. The caller says `release` when it is gone.

        A zygote that turns out to be dead is replaced once; what it held is lost.
        """
        self._n_forking += 1
        try:
            try:
                return await self._fork_once(descriptors, request)
            except ZygoteGone as error:
                logger.warning("zygote is replaced: %s", error)
            return await self._fork_once(descriptors, request)
        finally:
            self._n_forking -= 1

    async def _fork_once(
        self, descriptors: Sequence[int], request: Mapping[str, Any]
    ) -> tuple[Zygote, int | None]:
        zygote = await self._ready()
        zygote.n_live += 1
        try:
            return zygote, await zygote.fork(descriptors, request, self._timeout_s)
        except BaseException:
            self.release(zygote)
            raise

    def release(self, zygote: Zygote) -> None:
        """Say that a sandbox of this zygote is gone."""
        zygote.n_live -= 1
        if zygote in self._worn and zygote.n_live <= 0:
            self._worn.discard(zygote)
            self._end(zygote)

    async def _ready(self) -> Zygote:
        async with self._starting:
            current = self._current
            if current is not None and not current.is_alive:
                self._current = None
                self._end(current)
            if self._current is None:
                self._current = await self._spawn()
                self.n_zygotes += 1
        if self._current.n_forks >= self._recycle_after and self._successor is None:
            self._successor = asyncio.create_task(self._succeed(self._current))
        return self._current

    async def _succeed(self, worn: Zygote) -> None:
        """Put a fresh zygote in the place of a worn one, which forks on meanwhile."""
        try:
            fresh = await self._spawn()
        except (SandboxStartError, UnsupportedHost) as error:
            logger.warning("a worn zygote goes on, for none takes its place: %s", error)
            worn.n_forks = 0
            return
        finally:
            self._successor = None
        self.n_zygotes += 1
        if self._current is not worn:  # it died meanwhile and was replaced
            self._end(fresh)
            return
        self._current = fresh
        if worn.n_live <= 0:
            self._end(worn)
        else:
            self._worn.add(worn)

    def _end(self, zygote: Zygote) -> None:
        task = asyncio.create_task(zygote.close())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def close(self) -> None:
        """End all zygotes, and with them all sandboxes."""
        if self._successor is not None:
            self._successor.cancel()
            await asyncio.wait([self._successor])
        async with self._starting:
            for zygote in (self._current, *self._worn):
                if zygote is not None:
                    self._end(zygote)
            self._current = None
            self._worn.clear()
        while self._endings:
            await asyncio.wait(self._endings)
