"""Engines that runs host themselves: opened before them, told to their model clients, closed after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from runner.config import RunConfig
from runner.engines import EngineGroup, open_engines
from runner.engines.replica import OnEvent
from runner.models import CachingClient, ModelClient, OpenAIClient

LOGS = "engines"
"""In the run directory: a log for each engine."""


def is_hosted(config: RunConfig) -> bool:
    """Tell whether the run hosts its engines."""
    return config.model.client.startswith("vllm:")


def engines_key(config: RunConfig) -> str | None:
    """Return what runs that can share engines have in common; None where the run hosts none. Pure."""
    if not is_hosted(config):
        return None
    place = (config.cluster.kind, config.cluster.address)
    return repr((config.model.client, place, config.engines.model_dump_json()))


class SharedEngines:
    """Engines for runs of one `engines_key`: started for the first, stopped by `close`."""

    def __init__(self) -> None:
        self.log_dir: Path | None = None
        """Of the engines that run; None where none do."""

        self._group: EngineGroup | None = None
        self._starting = asyncio.Lock()
        self._listeners: list[OnEvent] = []
        self._unheard: list[tuple[str, dict[str, Any]]] = []

    @asynccontextmanager
    async def lend(self, config: RunConfig, log_dir: Path, on_event: OnEvent) -> AsyncIterator[EngineGroup]:
        """Have the engines ready while a run lasts, started if none are left. Safe to cancel.

        Args:
            config: of the run; its `engines_key` is that of all others.
            log_dir: where the logs go of engines that are started for it.
            on_event: told of the engines meanwhile, and of what became of them since the run before.

        Raises:
            ConfigError: something is missing that engines need.
            AllEnginesLost: none started; the message ends with a log.
        """
        self._listeners.append(on_event)
        try:
            async with self._starting:
                group = await self._running(config, log_dir, on_event)
            yield group
        finally:
            self._listeners.remove(on_event)

    async def _running(self, config: RunConfig, log_dir: Path, on_event: OnEvent) -> EngineGroup:
        unheard, self._unheard = self._unheard, []
        for name, details in unheard:
            on_event(name, details)
        if self._group is not None and any(row.state != "failed" for row in self._group.endpoints()):
            on_event("engines_shared", {"logs": str(self.log_dir)})
            return self._group
        await self.close()
        self._group = await open_engines(config, log_dir, on_event=self._tell)
        self.log_dir = log_dir
        return self._group

    def _tell(self, name: str, details: dict[str, Any]) -> None:
        if not self._listeners:
            self._unheard.append((name, details))
        for listener in list(self._listeners):
            listener(name, details)

    async def close(self) -> None:
        """Stop the engines at once; nothing of them is left. Idempotent; cancelled, to be called again."""
        if self._group is not None:
            await self._group.close()
        self._group = self.log_dir = None


def engines_line(run_dir: Path, shared: SharedEngines | None) -> str:
    """Return the line that says whether engines are started for a run, and where their logs are."""
    if shared is not None and shared.log_dir is not None:
        return f"the engines of the run before go on; their logs: {shared.log_dir}"
    return f"starting engines; their logs: {run_dir / LOGS}"


@asynccontextmanager
async def hosted_engines(
    config: RunConfig,
    model: ModelClient,
    run_dir: Path,
    on_event: OnEvent,
    shared: SharedEngines | None = None,
) -> AsyncIterator[EngineGroup | None]:
    """Have the engines of a run open, and its client told of them; None where it hosts none.

    They are the run's own, or, with `shared`, those of several runs, which outlive it.

    Raises:
        ConfigError: something is missing that engines need.
        AllEnginesLost: none started; the message ends with a log.
    """
    if not is_hosted(config) or not isinstance(model, OpenAIClient | CachingClient):
        yield None
        return
    async with AsyncExitStack() as stack:
        lender = SharedEngines() if shared is None else shared
        if shared is None:
            stack.push_async_callback(lender.close)
        engines = await stack.enter_async_context(lender.lend(config, run_dir / LOGS, on_event))
        stack.callback(engines.subscribe(model.set_endpoints))
        yield engines


async def until_lost(running: Coroutine[Any, Any, None], engines: EngineGroup | None) -> None:
    """Await `running`; cancel it when no engine is left.

    Raises:
        AllEnginesLost: that happened. What was in flight is recorded as cancelled, and a resume goes on.
    """
    if engines is None:
        await running
        return
    run = asyncio.ensure_future(running)
    lost = asyncio.ensure_future(engines.all_lost())
    try:
        await asyncio.wait({run, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not run.done():
            raise lost.result()
        run.result()
    finally:
        for task in (run, lost):
            task.cancel()
        await asyncio.wait({run, lost})
