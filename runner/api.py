"""A run from Python: `async for trajectory in runner.run(config)` does what the command does.

    import runner

    async for trajectory in runner.run({"benchmark": "quickstart", "model": "oracle"}):
        print(trajectory.attempt, trajectory.stop_reason)

In a notebook too, where an event loop runs already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from runner.batch import Watching, prepare, run_batch
from runner.config import RunConfig, load_config
from runner.errors import ConfigError, first_error
from runner.progress import RunConsole
from runner.records import Trajectory


async def run(config: RunConfig | Mapping[str, Any] | Path | str) -> AsyncIterator[Trajectory]:
    """Run a benchmark and yield each trajectory once its line is in the run directory.

    What an earlier call finished in the same `run_dir` is not run again, and not yielded. Attempts that
    failed by no fault of the model are not yielded either: they are in `failures.jsonl`, and run again the
    next time. While the caller is busy with a trajectory, at most as many others as `concurrency` finish.
    Ending the iteration early, or cancelling it, cancels what runs; the same config goes on from there.

    Args:
        config: a RunConfig, its keys as a mapping, or the path of a YAML file.

    Raises:
        ConfigError, BenchDataError: the config asks for something that cannot be done.
        ModelError, SandboxError: the run could not begin, or no attempt of it can do better.
        JournalError: the run directory cannot be read or written; what has a line is kept.
    """
    async with aclosing(_run(_checked(config))) as trajectories:
        async for trajectory in trajectories:
            yield trajectory


async def _run(config: RunConfig) -> AsyncGenerator[Trajectory, None]:
    batch = prepare(config)
    finished: asyncio.Queue[Trajectory | None] = asyncio.Queue(maxsize=1)
    late: list[Trajectory] = []

    async def hand_over(trajectory: Trajectory) -> None:
        try:
            await finished.put(trajectory)
        except asyncio.CancelledError:
            late.append(trajectory)  # the run ends, and the caller is still busy with another
            raise

    watching = Watching(RunConsole(), hand_over, handles_signals=False)

    async def drive() -> None:
        try:
            await run_batch(batch, watching)
        finally:
            # A consumer that is gone does not empty the queue any more.
            if not is_over:
                await finished.put(None)

    is_over = False
    running = asyncio.create_task(drive())
    try:
        while (trajectory := await finished.get()) is not None:
            yield trajectory
        for trajectory in late:
            yield trajectory
        await running
    except ExceptionGroup as group:
        raise first_error(group) from None
    finally:
        is_over = True
        running.cancel()
        await asyncio.wait([running])


def _checked(config: RunConfig | Mapping[str, Any] | Path | str) -> RunConfig:
    match config:
        case RunConfig():
            return config
        case Path() | str():
            return load_config(Path(config), {"progress": "quiet"})
        case Mapping():
            return load_config(None, {"progress": "quiet", **config})
    raise ConfigError(f"run() takes a RunConfig, a mapping or a path, not a {type(config).__name__}")
