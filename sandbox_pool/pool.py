"""Leases: sandboxes are started ahead or on demand, handed out in order, closed after use."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import PoolTimeout, SandboxClosed, SandboxError, SandboxStartError
from sandbox_pool.host import UidRange, make_scratch, raise_descriptor_limit, remove_tree, sandbox_uids
from sandbox_pool.interface import DEFAULT_SPEC, SandboxSpec
from sandbox_pool.pool_state import Decision, HandOut, PoolState, Refuse, Retire, Start
from sandbox_pool.probe import probe
from sandbox_pool.sandbox import KernelSandbox, Life
from sandbox_pool.settings import Identity, home_of
from sandbox_pool.threads import in_thread

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Numbers of a pool: what there is now, and what there was since it was opened."""

    n_idle: int
    n_starting: int
    n_leased: int
    n_closing: int
    n_waiting: int
    """Callers of acquire() that have no sandbox yet."""

    n_started: int
    n_failed_starts: int
    n_closed: int
    """Sandboxes that were ready once and are gone."""


class SandboxPool:
    """A pool of sandboxes with real kernels; see `interface.Pool`.

    Use it as `async with SandboxPool() as pool`. Leaving the block closes all sandboxes, waits until
    their processes are gone, and removes their folders. Use it from one event loop.
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        self._state = PoolState(
            self.config.max_sandboxes, min_idle=self.config.min_idle, max_starting=self.config.max_starting
        )
        self._sandboxes: dict[int, KernelSandbox] = {}
        self._callers: dict[int, asyncio.Future[KernelSandbox]] = {}
        self._tickets = itertools.count()
        self._starts: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self._last_error: SandboxError | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._scratch: Path | None = None
        self._scratch_lock = -1
        self._uids: UidRange | None = None

    async def __aenter__(self) -> SandboxPool:
        """Open the pool. Raises UnsupportedHost where no sandbox could be started."""
        raise_descriptor_limit()
        self._uids = sandbox_uids()
        self._scratch, self._scratch_lock = await in_thread(
            partial(make_scratch, self.config.scratch, for_other_uids=self._uids is not None)
        )
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4 * self.config.max_sandboxes + 64)
        self._carry_out(self._state.refill())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all that is left. Completes even when cancelled meanwhile."""
        closing = asyncio.create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as again:
                cancelled = again
        if cancelled is not None:
            raise cancelled

    @asynccontextmanager
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[KernelSandbox]:
        """See `interface.Pool`."""
        sandbox = await self._lease()
        try:
            yield sandbox
        finally:
            await sandbox.close()

    def statistics(self) -> PoolStatistics:
        """Return the numbers of this moment."""
        state = self._state
        return PoolStatistics(
            n_idle=len(state.idle),
            n_starting=len(state.starting),
            n_leased=len(state.leased),
            n_closing=len(state.closing),
            n_waiting=len(state.waiting),
            n_started=state.n_started,
            n_failed_starts=state.n_failed_starts,
            n_closed=state.n_closed,
        )

    def capabilities(self) -> dict[str, Any]:
        """Return what this machine enforces, for a run's record."""
        return probe(self.config)

    async def _lease(self) -> KernelSandbox:
        if self._context is None:
            raise SandboxClosed("the pool is not open: use `async with SandboxPool() as pool`")
        ticket = next(self._tickets)
        caller: asyncio.Future[KernelSandbox] = asyncio.get_running_loop().create_future()
        self._callers[ticket] = caller
        for number in [n for n in self._state.idle if not self._sandboxes[n].is_fit()]:
            self._discard_idle(number)
        self._carry_out(self._state.want(ticket))
        limit_s = self.config.acquire_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await caller
        except BaseException as error:
            # A sandbox may have been handed out in the same turn of the loop as the cancellation.
            self._carry_out(self._state.give_up(ticket))
            if caller.done() and not caller.cancelled() and caller.exception() is None:
                await caller.result().close()
            if isinstance(error, TimeoutError) and not isinstance(error, SandboxError):
                raise PoolTimeout(self._why_none(limit_s)) from None
            raise
        finally:
            del self._callers[ticket]

    def _why_none(self, limit_s: float) -> str:
        now = self.statistics()
        return (
            f"no sandbox became free in {limit_s:g} s (acquire_timeout_s): {now.n_leased} are in use, "
            f"{now.n_starting} are starting, {now.n_closing} are closing, at most "
            f"{self.config.max_sandboxes} may exist (max_sandboxes), {now.n_waiting} callers wait"
        )

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(number):
                    self._run(self._start(number), self._starts)
                case HandOut(number, ticket):
                    self._hand_out(number, ticket)
                case Refuse(ticket):
                    self._refuse(ticket)
                case Retire(number):
                    self._run(self._retire(number), self._closings)

    def _run(self, job: Coroutine[Any, Any, None], jobs: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(job)
        jobs.add(task)
        task.add_done_callback(jobs.discard)

    def _hand_out(self, number: int, ticket: int) -> None:
        caller = self._callers[ticket]
        if not caller.done():
            caller.set_result(self._sandboxes[number])
        else:  # cancelled in this very turn
            self._run(self._retire(number), self._closings)

    def _refuse(self, ticket: int) -> None:
        caller = self._callers.get(ticket)
        if caller is None or caller.done():
            return
        if self._state.is_shut:
            caller.set_exception(SandboxClosed("the pool is closed"))
        else:
            caller.set_exception(self._last_error or SandboxStartError("a kernel did not start"))

    async def _start(self, number: int) -> None:
        assert self._context is not None
        assert self._scratch is not None
        identity = Identity(*self._uids.pair(number)) if self._uids else None
        sandbox = KernelSandbox(self.config, home_of(self._scratch, number), identity)
        try:
            await sandbox.start(self._context)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for this sandbox
            await sandbox.close()
            self._on_failed_start(number, error)
        except asyncio.CancelledError:
            await sandbox.close()
            self._carry_out(self._state.start_abandoned(number))
            raise
        else:
            self._sandboxes[number] = sandbox
            sandbox.listener = partial(self._on_life, number)
            self._carry_out(self._state.started(number))

    def _on_failed_start(self, number: int, error: Exception) -> None:
        logger.warning("sandbox did not start: number=%d error=%s", number, error)
        if not isinstance(error, SandboxError):
            known: SandboxError = SandboxStartError(f"{type(error).__name__}: {error}")
            known.__cause__ = error
        else:
            known = error
        self._last_error = known
        self._carry_out(self._state.start_failed(number))

    def _on_life(self, number: int, event: Life) -> None:
        match event:
            case Life.ENDED if number in self._state.idle:
                self._discard_idle(number)  # nobody holds it, so that nobody else would notice
            case Life.CLOSING:
                self._carry_out(self._state.released(number))
            case Life.CLOSED:
                del self._sandboxes[number]
                self._carry_out(self._state.closed(number))
            case _:
                pass

    def _discard_idle(self, number: int) -> None:
        logger.warning("idle sandbox died: number=%d", number)
        self._carry_out(self._state.released(number))
        self._run(self._retire(number), self._closings)

    async def _retire(self, number: int) -> None:
        sandbox = self._sandboxes.get(number)
        if sandbox is not None:
            await sandbox.close()

    async def _close(self) -> None:
        self._carry_out(self._state.shut())
        for task in self._starts:
            task.cancel()
        while jobs := {*self._starts, *self._closings}:
            await asyncio.wait(jobs)
        if self._context is not None:
            self._context.destroy(linger=0)
        if self._scratch is not None:
            try:
                await in_thread(partial(remove_tree, self._scratch))
            except OSError as error:  # no reason to fail a run that is over
                logger.warning("scratch folder is left behind: path=%s error=%s", self._scratch, error)
            os.close(self._scratch_lock)
            self._scratch = None
