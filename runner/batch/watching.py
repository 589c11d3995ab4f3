"""Who sees and steers a run while it goes on: a person, Prometheus, another shell, signals."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from rich.console import Console

from runner.batch.driver import Driver
from runner.batch.prepared import Batch
from runner.cluster.opening import drain_s
from runner.control import ControlServer
from runner.errors import Interrupted, RunnerError
from runner.progress import watch
from runner.scheduling.attempt import OnFinished
from runner.telemetry.metrics import MetricsServer

logger = logging.getLogger(__name__)

SILENT = ("quiet", "json")
"""Kinds of progress beside which nothing else is printed."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Watching:
    """Who sees a run while it goes on."""

    console: Console
    on_finished: OnFinished | None = None
    """Told each trajectory that has its line; the run waits for it."""

    handles_signals: bool = True
    """Whether SIGINT and SIGTERM drain the run."""

    on_begun: Callable[[Driver], None] = lambda driver: None
    """Told when the run has begun, by whom it can be drained."""

    label: str = ""
    """What each line begins with, where several runs write them."""

    def say(self, batch: Batch, line: str) -> None:
        """Print a line, unless the user wants nothing beside the progress."""
        if batch.config.progress not in SILENT:
            self.console.print(self.label + line, markup=False, soft_wrap=True)


@asynccontextmanager
async def watched(driver: Driver, batch: Batch, watching: Watching, run_id: str) -> AsyncIterator[None]:
    """Show a run, serve its metrics and take orders from another shell while the block runs."""
    config = batch.config
    async with AsyncExitStack() as stack:
        if config.metrics_port is not None:
            labels = {"run_id": run_id, "model": batch.model.name, "benchmark": config.benchmark}
            server = MetricsServer(driver.statistics, config.metrics_port, labels)
            port = await server.start()
            stack.push_async_callback(server.close)
            watching.say(batch, f"metrics: http://127.0.0.1:{port}/metrics")
        try:
            await stack.enter_async_context(ControlServer(batch.run_dir, driver))
        except (RunnerError, OSError) as error:
            logger.warning("the run cannot be controlled from another shell: %s", error)
        watcher = asyncio.create_task(
            watch(driver.statistics, watching.console, config.progress, watching.label)
        )
        stack.push_async_callback(_end, watcher)
        yield


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@contextmanager
def ending_on_signals(watching: Watching) -> Iterator[None]:
    """End what the block awaits on SIGINT and SIGTERM, for what they do not drain: engines take minutes.

    The block closes what it opened, unless a second signal comes, which ends the process.

    Raises:
        Interrupted: there was a signal.
    """
    if not watching.handles_signals:
        yield
        return
    received: list[int] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def on_signal(number: int) -> None:
        received.append(number)
        _leave_signals()
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    except asyncio.CancelledError:
        if not received or task.uncancel():
            raise
        raise Interrupted(received[0]) from None
    finally:
        _leave_signals()


def _leave_signals() -> None:
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)


@contextmanager
def draining_on_signals(driver: Driver, batch: Batch, watching: Watching) -> Iterator[list[int]]:
    """Drain on SIGINT and SIGTERM while the block runs; yields the list of the signals received."""
    received: list[int] = []
    if not watching.handles_signals:
        yield received
        return

    def on_signal(number: int) -> None:
        if not received and batch.config.progress != "json":  # which says it by itself
            n, grace_s = driver.statistics().n_in_flight, drain_s(batch.config)
            watching.console.print(
                f"{signal.Signals(number).name}: letting {n} trajectories end "
                f"({grace_s:g} s at most, grace_s); once more stops at once",
                soft_wrap=True,
            )
        received.append(number)
        driver.drain(signal.Signals(number).name)

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        _leave_signals()
