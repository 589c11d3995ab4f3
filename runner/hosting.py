"""Engines that a run hosts itself: opened before it, told to its model client, closed after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def hosted_engines(
    config: RunConfig, model: ModelClient, run_dir: Path, on_event: OnEvent
) -> AsyncIterator[EngineGroup | None]:
    """Have the engines of a run open, and its client told of them; None where it hosts none.

    Raises:
        ConfigError: something is missing that engines need.
        AllEnginesLost: none started; the message ends with a log.
    """
    if not is_hosted(config) or not isinstance(model, OpenAIClient | CachingClient):
        yield None
        return
    async with await open_engines(config, run_dir / LOGS, on_event=on_event) as engines:
        unsubscribe = engines.subscribe(model.set_endpoints)
        try:
            yield engines
        finally:
            unsubscribe()


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
