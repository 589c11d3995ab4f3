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
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from bench_data import BenchDataError, Benchmark, Sample, Samples, load
from runner.cluster.messages import (
    Answer,
    Assignment,
    Batch,
    Begun,
    Ended,
    Over,
    Progress,
    Setup,
    Terms,
    WorkerInfo,
)
from runner.cluster.outbox import Outbox
from runner.cluster.remote_journal import RemoteJournal
from runner.cluster.scratch import make_scratch
from runner.config import RunConfig, RunLimits
from runner.endpoint_table import EngineEndpoint
from runner.errors import ConfigError, RunnerError, first_error
from runner.event_sink import EventSink
from runner.factory import build_model
from runner.gate import Gate
from runner.lease import Sandboxes
from runner.meter import RunMeter
from runner.models import CachingClient, ModelClient, OpenAIClient
from runner.plan import Attempt
from runner.rollout import RolloutSettings
from runner.scheduler import Scheduler, SchedulerSettings
from runner.tracing import build_tracer
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

        self._known: set[str] = set()
        """Given, whatever came of them."""

        self._withdrawn: set[str] = set()

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
        benchmark = await asyncio.to_thread(_load_same, setup)
        if benchmark is not None:
            self._samples = benchmark.samples
            self._index_of = {name: index for index, name in enumerate(benchmark.samples.ids)}
        self._pool: NodePool = await self._stack.enter_async_context(self._open_pool(setup))
        return WorkerInfo(
            socket.gethostname(), self._pool.capabilities(), has_benchmark=benchmark is not None
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
        await self._open_model(terms)
        self._scheduler = self._make_scheduler(terms)
        self._running = asyncio.create_task(self._run())
        return scratch.is_in_run_dir

    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Take further attempts, in this order. Those that were given before are passed over."""
        for assignment in assignments:
            if assignment.attempt in self._known:
                continue  # the driver was not sure
            self._known.add(assignment.attempt)
            self._withdrawn.discard(assignment.attempt)
            self._waiting[assignment.attempt] = assignment
            self._given.put_nowait(assignment)

    def withdraw(self, attempts: Sequence[str]) -> list[str]:
        """Give back those of the attempts that have not begun; return which. Twice gives the same."""
        given_back = [name for name in attempts if self._waiting.pop(name, None) is not None]
        self._known.difference_update(given_back)
        self._withdrawn.update(given_back)
        return [name for name in attempts if name in self._withdrawn]

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

    def set_concurrency(self, concurrency: int) -> None:
        """Change how many trajectories may be in flight here."""
        self._scheduler.set_concurrency(concurrency)

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
        admission = self._setup.config.admission
        if admission.max_calls is not None:  # for each endpoint, of all workers together
            max_calls = max(1, admission.max_calls // terms.n_workers)
            admission = admission.model_copy(update={"max_calls": max_calls})
        update = {"concurrency": terms.concurrency, "admission": admission}
        config = self._setup.config.model_copy(update=update)
        self._model: ModelClient = build_model(config, self._setup.protocol, self._events)
        self._stack.push_async_callback(self._model.close)
        self.set_endpoints(terms.endpoints)
        await self._model.start()

    def _make_scheduler(self, terms: Terms) -> Scheduler:
        config = self._setup.config
        return Scheduler(
            self._rollout_settings(config),
            replace(terms.identity, host=socket.gethostname()),
            self._journal,
            SchedulerSettings(
                concurrency=terms.concurrency,
                grace_s=terms.grace_s,
                admission=config.admission,
                run_limits=RunLimits(),  # the driver's to see to, who knows what all have used
                breaker=config.breaker,
                max_sandboxes=self._pool.statistics().max_sandboxes,
            ),
            n_total=0,
            n_idle_sandboxes=lambda: self._pool.statistics().n_idle,
            on_ended=lambda attempt: self._tell(Ended(attempt)),
        )

    def _rollout_settings(self, config: RunConfig) -> RolloutSettings:
        tracer = build_tracer()
        self._stack.push_async_callback(asyncio.to_thread, tracer.close)
        return RolloutSettings(
            model=self._model,
            protocol=self._setup.protocol,
            sandboxes=Sandboxes(self._pool, Gate(config.sandbox.max_sandboxes), config.artifacts),
            limits=config.limits,
            system_prompt=self._setup.system_prompt,
            merge_user_messages=config.merges_user_messages,
            meter=RunMeter(),
            tracer=tracer,
            resume=config.resume,
            prices=config.model.prices,
            send_reasoning=config.model.send_reasoning,
        )

    async def _run(self) -> None:
        error: Exception | None = None
        try:
            async with self._telling_progress():
                await self._scheduler.run(self._attempts())
        except Exception as caught:
            error = portable(_cause(caught))
            logger.exception("the worker's scheduler broke off")
        drained = None if self._is_finishing else self._scheduler.statistics().draining
        self._outbox.close(Over(drained, error))

    async def _attempts(self) -> AsyncIterator[Attempt]:
        while (assignment := await self._given.get()) is not None:
            if self._waiting.pop(assignment.attempt, None) is None:
                continue  # it was given back
            self._outbox.put(Begun(assignment.attempt))
            await asyncio.to_thread(self._journal.take, assignment)
            yield Attempt(self._sample_of(assignment), assignment.epoch)

    def _sample_of(self, assignment: Assignment) -> Sample:
        if isinstance(assignment.sample, Sample):
            return assignment.sample
        return self._samples[self._index_of[assignment.sample]]

    @asynccontextmanager
    async def _telling_progress(self) -> AsyncIterator[None]:
        async def tell() -> None:
            while True:
                await asyncio.sleep(PROGRESS_INTERVAL_S)
                self._tell(Progress(self._scheduler.statistics()))

        teller = asyncio.create_task(tell())
        try:
            yield
        finally:
            teller.cancel()
            with suppress(asyncio.CancelledError):
                await teller
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


def _load_same(setup: Setup) -> Benchmark | None:
    """Return the benchmark, if this node has the same one as the driver. Blocks."""
    try:
        benchmark = load(setup.config.benchmark, setup.config.data)
    except (BenchDataError, ConfigError, OSError):
        return None
    return benchmark if benchmark.digest == setup.benchmark_digest else None
