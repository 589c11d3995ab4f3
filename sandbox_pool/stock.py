"""The sandboxes of a pool: carries out what `pool_state` decides, and tells it what has come of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Coroutine, Sequence
from copy import copy
from functools import partial
from typing import Any

from sandbox_pool.errors import SandboxClosed, SandboxError, SandboxStartError, UnsupportedHost
from sandbox_pool.pool_state import Decision, HandOut, Kind, PoolState, Refuse, Retire, Start
from sandbox_pool.pooled import PooledSandbox, Starter
from sandbox_pool.sandbox import Life

logger = logging.getLogger(__name__)


class Stock:
    """Starts, keeps, hands out and closes sandboxes. Use it from one event loop; `close` ends it.

    Args:
        state: what decides; nobody else changes it.
        starter: whom to ask for sandboxes; closed with the stock.
        tick_s: how often to look whether there is more than the demand calls for.
    """

    def __init__(self, state: PoolState, starter: Starter, *, tick_s: float) -> None:
        self._state = state
        self._starter = starter
        self._tick_s = tick_s
        self._timer: asyncio.TimerHandle | None = None
        self._refill: asyncio.Handle | None = None
        self._sandboxes: dict[int, PooledSandbox] = {}
        self._callers: dict[int, asyncio.Future[PooledSandbox]] = {}
        self._tickets = itertools.count()
        self._starts: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self.last_error: SandboxError | None = None
        """Why the last start failed, if it did."""

        self._carry_out(state.refill(time.monotonic()))

    @property
    def tier(self) -> str:
        """How the sandboxes are held."""
        return self._starter.tier

    def capabilities(self) -> dict[str, Any]:
        """Return what the sandboxes are held by."""
        return self._starter.capabilities()

    def ask(self, kind: Kind) -> None:
        """Somebody will take or wait for a sandbox: what the number of those kept ready follows."""
        self._state.ask(kind, time.monotonic())

    def take(self, kind: Kind) -> PooledSandbox | None:
        """Return one that is ready; its new owner closes it."""
        while (number := self._state.take(kind)) is not None:
            sandbox = self._sandboxes[number]
            if sandbox.is_fit():
                self._refill_soon()
                return sandbox
            self._discard(number)
        return None

    async def wait(self, kind: Kind, limit_s: float, *, is_first: bool = False) -> PooledSandbox:
        """Wait for one where there was none to take; its new owner closes it. Safe to cancel.

        Args:
            kind: which.
            limit_s: for how long.
            is_first: wait before all others.

        Raises:
            TimeoutError: none came in time.
            SandboxStartError: the starts meant for this caller failed.
            UnsupportedHost: no start of this kind can succeed.
            SandboxClosed: the stock is closed, or was meanwhile.
        """
        ticket = next(self._tickets)
        caller: asyncio.Future[PooledSandbox] = asyncio.get_running_loop().create_future()
        self._callers[ticket] = caller
        self._carry_out(self._state.want(ticket, kind, time.monotonic(), is_first=is_first))
        try:
            async with asyncio.timeout(limit_s):
                return await caller
        except TimeoutError:
            if not _has_result(caller):
                raise
            return caller.result()  # it came in the same turn of the loop
        except asyncio.CancelledError:
            if _has_result(caller):
                await caller.result().close()
            raise
        finally:
            del self._callers[ticket]
            self._carry_out(self._state.give_up(ticket, time.monotonic()))

    async def close(self) -> None:
        """Refuse who waits, close all sandboxes and the starter. To be awaited once, and not cancelled."""
        self._carry_out(self._state.shut())
        for handle in (self._timer, self._refill):
            if handle is not None:
                handle.cancel()
        for task in self._starts:
            task.cancel()
        while jobs := {*self._starts, *self._closings}:
            await asyncio.wait(jobs)
        await self._starter.close()

    # -- decisions

    def _carry_out(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(number, kind):
                    self._run(self._start(number, kind), self._starts)
                case HandOut(number, ticket):
                    self._hand_out(number, ticket)
                case Refuse(ticket):
                    self._refuse(ticket)
                case Retire(number):
                    self._run(self._retire(number), self._closings)
        if self._timer is None and self._state.has_plans:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _run(self, job: Coroutine[Any, Any, None], jobs: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(job)
        jobs.add(task)
        task.add_done_callback(partial(_on_done, jobs))

    def _refill_soon(self) -> None:
        """Start what a lease leaves missing, but let its caller go first."""
        if self._refill is None:
            self._refill = asyncio.get_running_loop().call_soon(self._on_refill)

    def _on_refill(self) -> None:
        self._refill = None
        self._carry_out(self._state.refill(time.monotonic()))

    def _tick(self) -> None:
        self._timer = None
        self._carry_out(self._state.tick(time.monotonic()))

    def _hand_out(self, number: int, ticket: int) -> None:
        caller = self._callers[ticket]
        if not caller.done():
            caller.set_result(self._sandboxes[number])
        else:  # cancelled in this very turn
            self._run(self._retire(number), self._closings)

    def _refuse(self, ticket: int) -> None:
        caller = self._callers[ticket]
        if caller.done():
            return
        if self._state.is_shut or self.last_error is None:
            caller.set_exception(SandboxClosed("the pool is closed"))
        else:  # a copy, since each that is raised gets a traceback of its own
            error = copy(self.last_error)
            error.__cause__ = self.last_error.__cause__
            caller.set_exception(error)

    # -- sandboxes

    async def _start(self, number: int, kind: Kind) -> None:
        try:
            sandbox = await self._starter.start(number, kind)
            if not sandbox.is_fit():
                await sandbox.close()
                raise SandboxStartError("a kernel ended as soon as it was ready")
        except asyncio.CancelledError:
            self._carry_out(self._state.start_abandoned(number, time.monotonic()))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for this sandbox
            self._on_failed_start(number, error)
        else:
            self.last_error = None
            self._sandboxes[number] = sandbox
            sandbox.listener = partial(self._on_life, number)
            self._carry_out(self._state.started(number, time.monotonic()))

    def _on_failed_start(self, number: int, error: Exception) -> None:
        logger.warning("sandbox did not start: number=%d error=%s", number, error)
        if not isinstance(error, SandboxError):
            known: SandboxError = SandboxStartError(f"{type(error).__name__}: {error}")
            known.__cause__ = error
        else:
            known = error
        self.last_error = known
        is_hopeless = isinstance(error, UnsupportedHost)
        self._carry_out(self._state.start_failed(number, time.monotonic(), is_hopeless=is_hopeless))

    def _on_life(self, number: int, event: Life) -> None:
        now = time.monotonic()
        match event:
            case Life.ENDED if self._state.is_idle(number):
                self._discard(number)  # nobody holds it, so that nobody else would notice
            case Life.CLOSING:
                self._carry_out(self._state.released(number, now))
            case Life.CLOSED:
                del self._sandboxes[number]
                self._carry_out(self._state.closed(number, now))
            case _:
                pass

    def _discard(self, number: int) -> None:
        logger.warning("idle sandbox is of no use any more: number=%d", number)
        self._carry_out([*self._state.released(number, time.monotonic()), Retire(number)])

    async def _retire(self, number: int) -> None:
        sandbox = self._sandboxes.get(number)
        if sandbox is not None:
            await sandbox.close()


def _has_result(caller: asyncio.Future[PooledSandbox]) -> bool:
    return caller.done() and not caller.cancelled() and caller.exception() is None


def _on_done(jobs: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    jobs.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("starting or closing a sandbox broke: error=%r", error, exc_info=error)
