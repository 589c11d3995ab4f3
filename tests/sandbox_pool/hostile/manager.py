"""A manager to be killed: `python manager.py TIER SCRATCH`. Opens a pool, fills sandboxes, says so, and waits."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from sandbox_pool import SandboxPool
from tests.sandbox_pool.hostile.setups import Setup

_LEAVES_ITS_PARENT = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
    os._exit(0)
os.wait()
open('big', 'wb').write(bytes(1 << 20))
"""


async def run(setup: Setup, scratch: Path) -> None:
    """Hold one sandbox at rest, one in a cell, and keep starting and closing others."""
    async with SandboxPool(setup.config(scratch)) as pool, AsyncExitStack() as stack:
        resting = await stack.enter_async_context(pool.acquire())
        await resting.execute(_LEAVES_ITS_PARENT)
        busy = await stack.enter_async_context(pool.acquire())
        await busy.execute(_LEAVES_ITS_PARENT)
        async with asyncio.TaskGroup() as group:
            group.create_task(busy.execute("while True: pass", timeout_s=1000))
            group.create_task(_churn(pool))
            print("ready", flush=True)  # noqa: T201


async def _churn(pool: SandboxPool) -> None:
    while True:
        async with pool.acquire() as sandbox:
            await sandbox.execute("1")


if __name__ == "__main__":
    tier, folder = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(Setup(tier, "lean"), Path(folder)))  # type: ignore[arg-type]
