"""One node's part of a run: a scheduler and a sandbox pool, for attempts that a driver hands out.

Plain Python: Ray's actor (`ray_worker`) passes calls on to it, and so do tests without Ray. Used from one
event loop: `open`, `begin`, then anything, then `close`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bench_data import Sample, Samples
from runner.cluster.equipment import client_for, rollout_settings, same_benchmark, scheduler_settings
from runner.cluster.messages import (
    Answer,
    Assignment,
    Batch,
    Begun,
    Ended,
    Over,
    Progress,
    Setup,
    Share,
    Terms,
    WorkerInfo,
)
from runner.cluster.outbox import Outbox
from runner.cluster.recording import has_same_recording, put_down
from runner.cluster.remote_journal import RemoteJournal
from runner.cluster.scratch import make_scratch
from runner.endpoint_table import EngineEndpoint
from runner.errors import RunnerError, first_error
from runner.event_sink import EventSink
from runner.models import CachingClient, ModelClient, OpenAIClient
from runner.plan import Attempt
from runner.scheduling.scheduler import Scheduler
from runner.telemetry.tracing import build_tracer
from sandbox_pool import Pool, SandboxError, SandboxPool
from sandbox_pool.pool import PoolStatistics

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 1.0


class NodePool(Pool, Protocol):
    """The pool of a node."""

    def capabilities(self) -> dict[str, Any]:
        """Return what holds the code; see `SandboxPool`."""
        ...

    def statistics(self) -> PoolStatistics:
        """Return its numbers."""
        ...


OpenPool = Callable[[Setup], AbstractAsyncContextManager[NodePool]]


def open_pool(setup: Setup) -> SandboxPool:
    """Return the pool that a config asks for, not open yet."""
    return SandboxPool(setup.config.sandbox, trusted_code=setup.trusted_code)


class Worker:
    """See the module. All methods are safe to call while others run."""

    def __init__(self, open_pool: OpenPool = open_pool) -> None:
        self._open_pool = open_pool
        self._stack = AsyncExitStack()
        self._outbox = Outbox()
        self._events = EventSink()
        self._given: asyncio.Queue[Assignment | None] = asyncio.Queue()
        self._waiting: dict[str, Assignment] = {}
        """Given, and not begun."""

        self._last_calls: dict[str, tuple[int, Any]] = {}
        """Of each channel, the number of the last call and its result."""

        self._samples = Samples.of(())
        self._index_of: dict[str, int] = {}
        self._running: asyncio.Task[None] | None = None
        self._is_finishing = False

    async def open(self, setup: Setup) -> WorkerInfo:
        """Open the pool.

        Raises:
            SandboxError: this node cannot hold code as asked.
        """
        os.environ.update(setup.environment)
        self._setup = setup
        benchmark = await asyncio.to_thread(same_benchmark, setup)
        if benchmark is not None:
            self._samples = benchmark.samples
            self._index_of = {name: index for index, name in enumerate(benchmark.samples.ids)}
        has_recording = await asyncio.to_thread(has_same_recording, setup)
        self._pool: NodePool = await self._stack.enter_async_context(self._open_pool(setup))
        return WorkerInfo(
            socket.gethostname(),
            self._pool.capabilities(),
            has_benchmark=benchmark is not None,
            has_recording=has_recording,
        )

    async def begin(self, terms: Terms) -> bool:
        """Connect to the model, and begin to run what is submitted.

        Returns whether this node sees the run directory.

        Raises:
            ConfigError, ModelError: the model cannot be reached from here.
            OSError: there is no place for files here.
        """
        staging = Path(terms.staging)
        scratch = await asyncio.to_thread(make_scratch, staging, terms.nonce)
        self._stack.push_async_callback(asyncio.to_thread, scratch.remove)
        staged_as = f"{staging.parent.name}/{staging.name}" if scratch.is_in_run_dir else None
        self._journal = RemoteJournal(scratch.path, self._outbox, staged_as=staged_as)
        self._events.open(self._journal)
        if terms.recording is not None:
            put = partial(put_down, self._setup, terms.recording, scratch.path)
            self._setup = await asyncio.to_thread(put)
        await self._open_model(terms)
        self._scheduler = self._make_scheduler(terms)
        self._running = asyncio.create_task(self._run())
        return scratch.is_in_run_dir

    def once(self, channel: str, number: int, method: str, *arguments: Any) -> Any:
        """Call a method, unless the driver repeats a call of which it heard no result; return its result.

        The calls of a channel are numbered from 1, and come one behind the other.
        """
        last, result = self._last_calls.get(channel, (0, None))
        if number > last:
            result = getattr(self, method)(*arguments)
            self._last_calls[channel] = (number, result)
        return result

    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Take further attempts, in this order."""
        for assignment in assignments:
            self._waiting[assignment.attempt] = assignment
            self._given.put_nowait(assignment)

    def withdraw(self, attempts: Sequence[str]) -> list[str]:
        """Give back those of the attempts that have not begun; return which."""
        return [name for name in attempts if self._waiting.pop(name, None) is not None]

    async def messages(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield what there is to say, behind a message; ends an earlier call of this."""
        async for batch in self._outbox.batches(after):
            yield batch
            if isinstance(batch.messages[-1], Over):
                return

    def acknowledge(self, number: int, answers: Mapping[int, Answer]) -> None:
        """Hear that the driver has all messages up to this one, and what it says to some of them."""
        self._outbox.acknowledge(number, answers)

    def ping(self) -> bool:
        """Say that this worker is there."""
        return True

    def finish(self) -> None:
        """Learn that no further attempt comes: what there is is run to its end."""
        self._is_finishing = True
        self._given.put_nowait(None)

    def drain(self, reason: str) -> None:
        """Begin no further attempt; a second call ends the grace period of those that run."""
        self._is_finishing = True
        self._scheduler.drain(reason)

    def pause(self, reason: str) -> None:
        """Begin nothing until `resume`."""
        self._scheduler.pause(reason)

    def resume(self) -> None:
        """End a pause."""
        self._scheduler.resume()

    def cancel(self, sample_id: str) -> list[str]:
        """Cancel the running attempts of a sample, or one by its name; return which."""
        return self._scheduler.cancel(sample_id)

    def set_share(self, share: Share) -> None:
        """Change what may be in flight here."""
        if isinstance(self._model, OpenAIClient | CachingClient):
            self._model.set_max_calls(share.max_calls)
        self._scheduler.set_concurrency(share.concurrency)

    def set_endpoints(self, table: Sequence[EngineEndpoint]) -> None:
        """Learn which engines there are, where the run hosts them itself."""
        if table and isinstance(self._model, OpenAIClient | CachingClient):
            self._model.set_endpoints(table)

    async def close(self) -> None:
        """Cancel what runs, close all sandboxes, remove the worker's folder. Idempotent."""
        self._outbox.abandon("the worker was closed before its driver had everything")
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._stack.aclose()

    async def _open_model(self, terms: Terms) -> None:
        self._model: ModelClient = client_for(self._setup, terms, self._events)
        self._stack.push_async_callback(self._model.close)
        self.set_endpoints(terms.endpoints)
        await self._model.start()

    def _make_scheduler(self, terms: Terms) -> Scheduler:
        tracer = build_tracer()
        self._stack.push_async_callback(asyncio.to_thread, tracer.close)
        pool = self._pool
        return Scheduler(
            rollout_settings(self._setup, self._model, pool, tracer),
            replace(terms.identity, host=socket.gethostname()),
            self._journal,
            scheduler_settings(self._setup.config, terms, pool.statistics().max_sandboxes),
            n_total=0,
            n_idle_sandboxes=lambda: pool.statistics().n_idle,
            on_ended=lambda attempt: self._tell(Ended(attempt)),
        )

    async def _run(self) -> None:
        error: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell_progress())
                await self._scheduler.run(self._attempts())
                telling.cancel()
        except Exception as caught:
            error = portable(_cause(caught))
            logger.exception("the worker's scheduler broke off")
        self._tell(Progress(self._scheduler.statistics()))
        drained = None if self._is_finishing else self._scheduler.statistics().draining
        self._outbox.close(Over(drained, error))

    async def _attempts(self) -> AsyncIterator[Attempt]:
        while (assignment := await self._given.get()) is not None:
            if self._waiting.get(assignment.attempt) is not assignment:
                continue  # it was given back
            del self._waiting[assignment.attempt]
            self._outbox.put(Begun(assignment.attempt))
            await asyncio.to_thread(self._journal.take, assignment)
            yield Attempt(self._sample_of(assignment), assignment.epoch)

    def _sample_of(self, assignment: Assignment) -> Sample:
        if isinstance(assignment.sample, Sample):
            return assignment.sample
        return self._samples[self._index_of[assignment.sample]]

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            self._tell(Progress(self._scheduler.statistics()))

    def _tell(self, message: Ended | Progress) -> None:
        self._outbox.put(message)


def _cause(error: Exception) -> Exception:
    cause = first_error(error)
    return cause if isinstance(cause, Exception) else error


def portable(error: Exception) -> Exception:
    """Return an error that another process can read: ours as they are, the text of others."""
    if isinstance(error, RunnerError | SandboxError | OSError):
        return error
    return RuntimeError("".join(traceback.format_exception(error)))
