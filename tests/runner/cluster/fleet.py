"""Workers without Ray: in this process, behind a link that pickles, fails and dies as a network would."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

from runner.cluster.links import WorkerLost, WorkerUnavailable
from runner.cluster.messages import Batch, Setup
from runner.cluster.worker import Worker
from sandbox_pool import FakePool


def copied(value: Any) -> Any:
    """Return what another process would get."""
    return pickle.loads(pickle.dumps(value))


def method_of(method: str, arguments: Sequence[Any]) -> str:
    """Return what a call is for: `once` passes another one on."""
    return str(arguments[2]) if method == "once" else method


class LocalLink:
    """A worker of this process."""

    def __init__(self, worker: Worker, node: str) -> None:
        self.worker = worker
        self.node = node
        self.is_dead = False
        self.is_cut = False
        """Whether nothing arrives for now, in either direction."""

        self.is_frozen = False
        """Whether its process has stopped: nothing is answered, and nothing fails."""

        self.breaks: dict[str, Literal["before", "after"]] = {}
        """Methods whose next call breaks: before the worker has heard it, or after."""

        self.heard: list[str] = []
        """The methods that were called, in order."""

        self.n_calls = 0
        """In flight now."""

        self.most_calls = 0
        """In flight at once, so far."""

        self._died = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    async def call(self, method: str, *arguments: Any) -> Any:
        self.n_calls += 1
        self.most_calls = max(self.most_calls, self.n_calls)
        try:
            return await self._call(method, *arguments)
        finally:
            self.n_calls -= 1

    async def _call(self, method: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        self._check()
        name = method_of(method, arguments)
        breaks = self.breaks.pop(name, None)
        if breaks == "before":
            raise WorkerUnavailable("lost on the way there")
        if self.is_frozen:
            await self._died.wait()
        self._check()
        self.heard.append(name)
        result = getattr(self.worker, method)(*copied(arguments))
        if asyncio.iscoroutine(result):
            result = await result
        await asyncio.sleep(0)
        self._check()
        if breaks == "after":
            raise WorkerUnavailable("lost on the way back")
        return copied(result)

    async def messages(self, after: int) -> AsyncGenerator[Batch, None]:
        self._check()
        async with aclosing(self.worker.messages(after)) as batches:
            while True:
                getting = asyncio.ensure_future(anext(batches))
                dying = asyncio.ensure_future(self._died.wait())
                try:
                    await asyncio.wait([getting, dying], return_when=asyncio.FIRST_COMPLETED)
                    self._check()
                    if self.is_frozen:
                        await self._died.wait()
                        self._check()
                    try:
                        batch = await getting
                    except StopAsyncIteration:
                        return
                finally:
                    for task in (getting, dying):
                        task.cancel()
                    await asyncio.wait([getting, dying])
                self._check()
                yield copied(batch)

    def kill(self) -> None:
        """End the worker; what it runs is gone, what it has not sent is lost."""
        if not self.is_dead:
            self.is_dead = True
            self._died.set()
            self._ending = asyncio.ensure_future(self.worker.close())

    def cut(self) -> None:
        """Let nothing through until `mend`."""
        self.is_cut = True
        self._died.set()

    def mend(self) -> None:
        self.is_cut = False
        self._died.clear()

    def _check(self) -> None:
        if self.is_dead:
            raise WorkerLost("its process is gone")
        if self.is_cut:
            raise WorkerUnavailable("no route")


class LocalFleet:
    """Nodes n1, n2, ... of this process; a test may add some."""

    def __init__(self, n_nodes: int, make_pool: Callable[[Setup], Any] = lambda setup: FakePool()) -> None:
        self.names = [f"n{number}" for number in range(1, n_nodes + 1)]
        self.links: list[LocalLink] = []
        self._make_pool = make_pool

    async def nodes(self) -> list[str]:
        return list(self.names)

    async def launch(self, node: str) -> LocalLink:
        link = LocalLink(Worker(self._make_pool), node)
        self.links.append(link)
        return link

    def lose(self, node: str) -> None:
        """Take a node away with its worker."""
        self.names.remove(node)
        for link in self.links:
            if link.node == node:
                link.kill()

    async def close(self) -> None:
        for link in self.links:
            link.kill()
            if link._ending is not None:
                await link._ending
