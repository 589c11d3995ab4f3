"""All engines of a run: started together, each kept running, told of in one table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from runner.config import EnginesConfig
from runner.endpoint_table import EngineEndpoint
from runner.engines.host import EngineHost
from runner.engines.replica import OnEvent, Replica
from runner.errors import AllEnginesLost

Table = tuple[EngineEndpoint, ...]


class EngineGroup:
    """One replica for each host, which it owns. Start it once; `async with` only closes it."""

    def __init__(
        self,
        hosts: Sequence[EngineHost],
        config: EnginesConfig,
        *,
        on_event: OnEvent = lambda name, details: None,
    ) -> None:
        """`on_event` is told of each engine that becomes ready, is lost, does not start or is given up."""
        self._subscribers: list[Callable[[Table], None]] = []
        self._replicas = [
            Replica(f"engine-{index}", host, config, on_change=self._publish, on_event=on_event)
            for index, host in enumerate(hosts)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all engines and wait until each is ready or did not start. Safe to cancel.

        Raises:
            AllEnginesLost: none did; the message ends with the log of one. Nothing is left running then.
        """
        self._tasks = [asyncio.create_task(replica.run()) for replica in self._replicas]
        try:
            for replica in self._replicas:
                await replica.settled.wait()
            for task in self._tasks:
                if task.done():
                    task.result()
            if not any(endpoint.state == "ready" for endpoint in self.endpoints()):
                raise AllEnginesLost(f"none of {len(self._replicas)} engines started: {self._last_failure()}")
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
        """Stop all engines at once; nothing of them is left. Idempotent."""
        for replica in self._replicas:
            replica.drain()
        for task in self._tasks:
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

    def _publish(self) -> None:
        table = self.endpoints()
        for callback in list(self._subscribers):
            callback(table)

    def _last_failure(self) -> str:
        return next((replica.failure for replica in reversed(self._replicas) if replica.failure), "closed")
