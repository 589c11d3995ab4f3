"""How many may do something at once: a first-come-first-served limit that can be changed at any time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """At most `limit` holders. Used from one event loop; safe to cancel at any point."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._n_waiting = 0
        self.n_held = 0

    @property
    def limit(self) -> int:
        """How many may hold it. A lower one sends nobody away: it takes effect as holders leave."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._admit()

    @property
    def n_waiting(self) -> int:
        """How many wait to hold it."""
        return self._n_waiting

    def try_acquire(self) -> bool:
        """Hold it if that needs no waiting; return whether it is held."""
        if self.n_held < self._limit and not self._n_waiting:
            self.n_held += 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait until it is held, in the order of the callers."""
        if self.try_acquire():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._n_waiting += 1
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # admitted in the same moment
            else:
                self._n_waiting -= 1
                waiter.cancel()
            raise

    def release(self) -> None:
        """Let go of it."""
        self.n_held -= 1
        self._admit()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold it for the length of a block."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()

    def _admit(self) -> None:
        while self._waiters and self.n_held < self._limit:
            waiter = self._waiters.popleft()
            if waiter.done():  # it was cancelled
                continue
            self.n_held += 1
            self._n_waiting -= 1
            waiter.set_result(None)
