"""Signals: while a run opens, what was opened is closed and the error says which it was; then it drains."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from typing import Any, cast

import pytest
from rich.console import Console

from runner.batch import prepare
from runner.batch.driver import Driver
from runner.batch.watching import Watching, draining_on_signals, ending_on_signals
from runner.commands.run import exit_code
from runner.config import RunConfig
from runner.errors import Interrupted
from runner.telemetry.statistics import RunStatistics


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_what_is_awaited(number: signal.Signals) -> None:
    """What closes may await; the next signal is the process's own matter."""
    is_closed = False

    async def open_for_long() -> None:
        nonlocal is_closed
        with ending_on_signals(Watching(Console())):
            try:
                os.kill(os.getpid(), number)
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0)
                is_closed = not asyncio.get_running_loop().remove_signal_handler(number)

    with pytest.raises(Interrupted, match=f"stopped by {number.name} before") as raised:
        await open_for_long()
    assert is_closed
    assert exit_code(raised.value) == 128 + number
    await asyncio.sleep(0)  # nothing is cancelled any more


async def test_a_cancellation_by_others_stays_one() -> None:
    """As when a caller of the API gives up."""

    async def open_for_long() -> None:
        with ending_on_signals(Watching(Console())):
            await asyncio.sleep(30)

    task = asyncio.create_task(open_for_long())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_who_handles_signals_keeps_them() -> None:
    """A sweep does for all its runs."""
    heard = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.set)
    with ending_on_signals(Watching(Console(), handles_signals=False)):
        os.kill(os.getpid(), signal.SIGTERM)
        await heard.wait()
    assert asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


class Drained:
    """A run of which nothing is known but that it was told to end."""

    def __init__(self) -> None:
        self.reason = asyncio.Queue[str]()

    def statistics(self) -> RunStatistics:
        """Return how far it is."""
        return RunStatistics(5, n_in_flight=2)

    def drain(self, reason: str) -> None:
        """Be told to end."""
        self.reason.put_nowait(reason)


@pytest.mark.parametrize(
    ("progress", "says"), [("plain", "SIGINT: letting 2"), ("quiet", "SIGINT"), ("json", "")]
)
async def test_first_signal_is_answered(progress: Any, says: str) -> None:
    """Whoever pressed Ctrl-C is told what happens now; a program that reads JSON finds nothing but JSON."""
    console = Console(file=io.StringIO(), width=200)
    batch, driver = prepare(RunConfig(progress=progress)), Drained()
    with draining_on_signals(cast("Driver", driver), batch, Watching(console)) as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert await driver.reason.get() == "SIGINT"
    assert received == [signal.SIGINT]
    written = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert written.startswith(says)
    assert bool(written) is bool(says)
