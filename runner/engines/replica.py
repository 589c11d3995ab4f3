"""One replica: started, watched, started again, given up. What it is doing is its endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runner.config import EnginesConfig
from runner.endpoint_table import EngineEndpoint
from runner.engines.diagnosis import error_lines, excerpt
from runner.engines.health import watch_health
from runner.engines.host import EngineHost
from runner.engines.restarts import RestartPolicy
from runner.errors import EngineStartError

logger = logging.getLogger(__name__)

OnEvent = Callable[[str, dict[str, Any]], None]
STOP_GRACE_S = 3.0
LOG_LINES = 5
"""Of an engine that was lost, in the event."""


class Replica:
    """Runs in a task of its group. `on_change` is called after each change of `endpoint`."""

    def __init__(
        self,
        name: str,
        host: EngineHost,
        config: EnginesConfig,
        *,
        on_change: Callable[[], None],
        on_event: OnEvent,
    ) -> None:
        self.endpoint = EngineEndpoint(name, url="", epoch=0, model="", max_model_len=0, state="starting")
        self.settled = asyncio.Event()
        """Set when the first start has succeeded or failed."""

        self.was_ready = False
        """Whether it ever was, be it lost since."""

        self.failure = ""
        """Why it last was lost, or did not start, with the end of its log."""

        self._host = host
        self._config = config
        self._restarts = RestartPolicy(config.max_restarts, config.restart_window_s)
        self._worked_s = 0.0
        self._on_change = on_change
        self._on_event = on_event

    async def run(self) -> None:
        """Keep an engine running; return when it is given up. Cancel it to stop the engine."""
        try:
            while True:
                await self._live()
                delay_s = self._restarts.delay_s(self._worked_s)
                if delay_s is None:
                    break
                self._set(state="lost")
                self.settled.set()
                await asyncio.sleep(delay_s)
            self._tell("engine_failed", reason=self._give_up_reason())
            self._set(state="failed")
        finally:
            await asyncio.shield(self._end())
            self.settled.set()

    def drain(self) -> None:
        """Say that no new request should come."""
        if self.endpoint.state in ("starting", "ready"):
            self._set(state="draining")

    async def _live(self) -> None:
        """Start the engine and return when it is lost, or did not start."""
        self._set(state="starting", epoch=self.endpoint.epoch + 1)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            address = await self._host.start()
        except EngineStartError as error:
            self.failure = str(error)
            self._tell("engine_start_failed", reason=self.failure.splitlines()[0])
            return
        self.was_ready = True
        self._set(state="ready", url=address.url, model=address.model, max_model_len=address.max_model_len)
        self._tell("engine_ready", url=address.url, start_s=round(loop.time() - began_at, 3))
        self.settled.set()
        ready_at = loop.time()
        reason = await self._until_lost(address.url)
        self._worked_s += loop.time() - ready_at
        self._set(state="lost")
        log = await self._host.log_tail()
        self.failure = f"{reason}. Its log ends:\n{excerpt(log) or '(empty)'}"
        self._tell("engine_lost", reason=reason, log=error_lines(log, LOG_LINES))
        await self._host.stop(0.0)

    async def _until_lost(self, url: str) -> str:
        """Return how the engine ended, or what is wrong with it."""
        ended = asyncio.create_task(self._host.ended())
        sick = asyncio.create_task(watch_health(url, self._config.stall_s))
        try:
            done, _ = await asyncio.wait({ended, sick}, return_when=asyncio.FIRST_COMPLETED)
            return f"it ended ({ended.result()})" if ended in done else sick.result()
        finally:
            ended.cancel()
            sick.cancel()
            await asyncio.wait({ended, sick})

    async def _end(self) -> None:
        await self._host.stop(STOP_GRACE_S)
        await self._host.close()

    def _give_up_reason(self) -> str:
        config = self._config
        return (
            f"it ended more than {config.max_restarts} times (engines.max_restarts) within "
            f"{config.restart_window_s:g} s of work; the last time: {self.failure.splitlines()[0]}"
        )

    def _set(self, **changes: Any) -> None:
        self.endpoint = replace(self.endpoint, **changes)
        self._on_change()

    def _tell(self, event: str, **details: Any) -> None:
        endpoint = self.endpoint
        logger.info("%s: replica=%s epoch=%d %s", event, endpoint.replica, endpoint.epoch, details)
        self._on_event(event, {"replica": endpoint.replica, "epoch": endpoint.epoch, **details})
