"""All engines of a run: started together, each kept running, told of in one table."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from runner.config import EnginesConfig
from runner.endpoint_table import EngineEndpoint
from runner.engines.host import EngineHost
from runner.engines.replica import OnEvent, Replica
from runner.errors import AllEnginesLost

logger = logging.getLogger(__name__)

Table = tuple[EngineEndpoint, ...]

LATE_S = 60.0
LATE_FACTOR = 2.0
"""A start waits for those that are so much later than the first, and so many times as late: engines that
stand idle cost more than what joins them later."""


class EngineGroup:
    """One replica for each host, which it owns. Start it once; `async with` only closes it."""

    def __init__(
        self,
        hosts: Sequence[EngineHost],
        config: EnginesConfig,
        *,
        on_event: OnEvent = lambda name, details: None,
    ) -> None:
        """`on_event` is told of each engine that is ready, late or lost, does not start, or is given up."""
        self._on_event = on_event
        self._subscribers: list[Callable[[Table], None]] = []
        self._replicas = [
            Replica(f"engine-{index}", host, config, on_change=self._publish, on_event=on_event)
            for index, host in enumerate(hosts)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all engines and wait until each is ready or did not start. Safe to cancel.

        Those that take much longer than the first one are not waited for: they join when they are ready.

        Raises:
            AllEnginesLost: none did, or all were lost again and given up; the message ends with the log of
                one. Nothing is left running then.
        """
        self._tasks = [asyncio.create_task(replica.run()) for replica in self._replicas]
        try:
            await self._until_settled()
            for task in self._tasks:
                if task.done():
                    task.result()
            if not any(replica.was_ready for replica in self._replicas):
                raise AllEnginesLost(f"none of {len(self._replicas)} engines started: {self._last_failure()}")
            await self._until_ready()
        except BaseException:
            await asyncio.shield(self.close())
            raise

    def endpoints(self) -> Table:
        """Return the table as it is, one row for each replica, always in the same order."""
        return tuple(replica.endpoint for replica in self._replicas)

    def subscribe(self, callback: Callable[[Table], None]) -> Callable[[], None]:
        """Call back with the table now and after each change; return what ends that."""
        self._subscribers.append(callback)
        callback(self.endpoints())
        return lambda: self._subscribers.remove(callback)

    async def all_lost(self) -> AllEnginesLost:
        """Wait until no engine is left and none will be started again; return the error to end a run with.

        Cancel it before `close`.
        """
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        return AllEnginesLost(
            f"all {len(self._replicas)} engines are lost; run the same command again when that is mended: "
            f"finished trajectories are kept. The last one: {self._last_failure()}"
        )

    async def close(self) -> None:
        """Stop all engines at once; nothing of them is left. Idempotent; cancelled, to be called again."""
        for replica in self._replicas:
            replica.drain()
        for task in self._tasks:
            if not task.cancelling():  # a second time would end the wait for what the first has begun
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _until_settled(self) -> None:
        """Wait for all, or, once one is ready, for those that are not much later."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        latest_at: float | None = None
        waits = {asyncio.create_task(replica.settled.wait()) for replica in self._replicas}
        try:
            while waits:
                timeout_s = None if latest_at is None else latest_at - loop.time()
                done, waits = await asyncio.wait(
                    waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    self._tell_late(loop.time() - began_at)
                    return
                if latest_at is None and any(replica.was_ready for replica in self._replicas):
                    took_s = loop.time() - began_at
                    latest_at = began_at + max(took_s + LATE_S, LATE_FACTOR * took_s)
        finally:
            for wait in waits:
                wait.cancel()

    async def _until_ready(self) -> None:
        """Wait for one that is: those that were may be lost again. Raises AllEnginesLost."""
        is_ready = asyncio.Event()

        def look(table: Table) -> None:
            if any(row.state == "ready" for row in table):
                is_ready.set()

        unsubscribe = self.subscribe(look)
        waits = asyncio.create_task(is_ready.wait()), asyncio.create_task(self.all_lost())
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not is_ready.is_set():
                raise waits[1].result()
        finally:
            unsubscribe()
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    def _tell_late(self, waited_s: float) -> None:
        late = [replica.endpoint.replica for replica in self._replicas if not replica.settled.is_set()]
        logger.info("the run begins without engines that start still: %s", late)
        self._on_event("engines_late", {"replicas": late, "waited_s": round(waited_s, 3)})

    def _publish(self) -> None:
        table = self.endpoints()
        for callback in list(self._subscribers):
            callback(table)

    def _last_failure(self) -> str:
        return next((replica.failure for replica in reversed(self._replicas) if replica.failure), "closed")
