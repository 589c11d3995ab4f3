"""A worker is heard to its end, or lost: no way of being out of reach makes a run wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from runner.cluster import pump as module
from runner.cluster.intake import Intake
from runner.cluster.links import WorkerLost, WorkerUnavailable
from runner.cluster.messages import Batch, Ended, Over
from runner.cluster.pump import Pump
from runner.journal import Journal


class Link:
    """A worker that says `batches`, and nothing that is said behind a break."""

    def __init__(self, *batches: Batch, n_breaks: int = 0, is_deaf: bool = False) -> None:
        self._batches = batches
        self._n_breaks = n_breaks
        self._is_deaf = is_deaf
        self._dead = asyncio.Event()
        self.calls: list[tuple[Any, ...]] = []

    async def call(self, method: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        self.calls.append((method, *arguments))
        if self._dead.is_set():
            raise WorkerLost("killed")
        if self._is_deaf and method == "once":
            raise WorkerUnavailable("too big")
        return True

    async def messages(self, after: int) -> AsyncGenerator[Batch, None]:
        self._n_breaks -= 1
        if self._n_breaks >= 0:
            raise WorkerUnavailable("broke")
        for batch in self._batches:
            if batch.first > after:
                yield batch
        await self._dead.wait()
        raise WorkerLost("killed")

    def kill(self) -> None:
        self._dead.set()


@pytest.fixture(name="journal")
def _journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    with Journal(tmp_path) as journal:
        yield journal


def pump_of(link: Link, journal: Journal) -> Pump:
    return Pump("w", link, Intake(journal), lambda worker, attempt: True)


async def nothing(*arguments: Any) -> None:
    pass


async def test_breaks_now_and_then_lose_nothing(journal: Journal) -> None:
    said = [Batch(1, (Ended("a"),)), Batch(2, (Over(None),))]
    link = Link(*said, n_breaks=module.MAX_BREAKS - 1)
    heard = []

    async def hear(message: Any, answer: Any) -> None:
        heard.append(message)

    async with asyncio.timeout(20):
        assert await pump_of(link, journal).hear(hear) == Over(None)
    assert heard == [Ended("a"), Over(None)]


async def test_a_worker_that_answers_and_is_never_heard_is_lost(journal: Journal) -> None:
    """Such as one whose messages are too big for its node's memory."""
    with pytest.raises(WorkerLost, match="not heard 20 times in a row: broke"):
        async with asyncio.timeout(20):
            await pump_of(Link(n_breaks=1000), journal).hear(nothing)


async def test_a_worker_that_answers_and_is_never_heard_without_a_break_is_lost(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says arrives nowhere, and no connection says so."""
    monkeypatch.setattr(module, "SILENCE_S", 0.005)
    with pytest.raises(WorkerLost, match=r"not heard 20 times in a row: it said nothing for 0\.005 s"):
        async with asyncio.timeout(5):
            await pump_of(Link(), journal).hear(nothing)


async def test_a_worker_that_is_heard_and_cannot_be_told_is_lost(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears it learns that, too."""
    monkeypatch.setattr(module, "INSIST_S", 0.05)
    pump = pump_of(Link(is_deaf=True), journal)
    hearing = asyncio.create_task(pump.hear(nothing))
    async with asyncio.timeout(20):
        with pytest.raises(WorkerLost, match=r"not be told for 0\.05 s: too big"):
            await pump.once("submit", "submit", [])
        with pytest.raises(WorkerLost):
            await hearing


async def test_calls_of_a_channel_are_numbered(journal: Journal) -> None:
    link = Link()
    pump = pump_of(link, journal)
    await pump.once("orders", "pause", "why")
    await pump.once("submit", "submit", [])
    await pump.once("orders", "resume")

    assert link.calls == [
        ("once", "orders", 1, "pause", "why"),
        ("once", "submit", 1, "submit", []),
        ("once", "orders", 2, "resume"),
    ]
