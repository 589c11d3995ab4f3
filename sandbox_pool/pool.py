"""Leases: sandboxes are started ahead or on demand, handed out in order, closed after use."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from sandbox_pool.cold_starter import open_cold
from sandbox_pool.config import PoolConfig
from sandbox_pool.decisions import Decision, HandOut, Kind, Refuse, Retire, Start
from sandbox_pool.errors import (
    PoolTimeout,
    SandboxClosed,
    SandboxError,
    SandboxStartError,
    UnsupportedHost,
)
from sandbox_pool.interface import DEFAULT_SPEC, SandboxSpec
from sandbox_pool.pool_state import PoolState
from sandbox_pool.pooled import Bound, OpenStarter, PooledSandbox, Starter
from sandbox_pool.probe import probe
from sandbox_pool.sandbox import Life

logger = logging.getLogger(__name__)

_TICK_S = 1.0
"""How often a pool looks whether it holds more than the demand calls for."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Numbers of a pool: what there is now, and what there was since it was opened."""

    tier: str
    """How the sandboxes are held; empty before the pool is open."""

    max_sandboxes: int
    """The bound in force: the config's, or what this machine has room for."""

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

    n_hits: int
    """Leases that were there at once."""

    n_misses: int
    """Callers that had to wait for a start."""

    n_denied: int
    """Callers that got an error instead of a sandbox: too late, not started, or closed."""

    start_p50_s: float | None
    start_p99_s: float | None
    """How long the last 256 starts took that succeeded; None before the first."""


class SandboxPool:
    """A pool of sandboxes with real kernels; see `interface.Pool`.

    Use it as `async with SandboxPool() as pool`. Leaving the block closes all sandboxes, waits until
    their processes are gone, and removes their folders. Use it from one event loop.

    Args:
        config: limits and habits; None: the defaults.
        trusted_code: whether only code that ships with this project will run, so that a tier may be taken
            that promises nothing where there is no better.
        open_starter: makes what starts the sandboxes.
    """

    def __init__(
        self,
        config: PoolConfig | None = None,
        *,
        trusted_code: bool = False,
        open_starter: OpenStarter = open_cold,
    ) -> None:
        self.config = config or PoolConfig()
        self.trusted_code = trusted_code
        self._open_starter = open_starter
        self._starter: Starter | None = None
        self._bound: Bound | None = None
        self._state = PoolState(
            self.config.max_sandboxes,
            Kind(self.config.profile),
            min_idle=self.config.min_idle,
            max_idle=self.config.max_idle,
            max_idle_s=self.config.max_idle_s,
            max_starting=self.config.max_starting,
        )
        self._tick_s = min(_TICK_S, self.config.max_idle_s)
        self._timer: asyncio.TimerHandle | None = None
        self._refill: asyncio.Handle | None = None
        self._known_profiles: set[str] = set()
        self._sandboxes: dict[int, PooledSandbox] = {}
        self._callers: dict[int, asyncio.Future[PooledSandbox]] = {}
        self._tickets = itertools.count()
        self._starts: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self._last_error: SandboxError | None = None
        self._has_said_bound = False
        self._n_hits = 0
        self._n_misses = 0
        self._n_denied = 0

    async def __aenter__(self) -> SandboxPool:
        """Open the pool. Raises UnsupportedHost where no sandbox could be started."""
        starter = await self._open_starter(self.config, trusted_code=self.trusted_code)
        try:
            bound = starter.bound()
        except BaseException:
            await starter.close()
            raise
        if bound.n_sandboxes < self.config.max_sandboxes:
            self._bound = bound
            self._state.max_sandboxes = max(1, bound.n_sandboxes)
        self._starter = starter
        self._carry_out(self._state.refill(time.monotonic()))
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
    async def acquire(self, spec: SandboxSpec = DEFAULT_SPEC) -> AsyncIterator[PooledSandbox]:
        """See `interface.Pool`."""
        sandbox = await self._prepared(spec)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    def statistics(self) -> PoolStatistics:
        """Return the numbers of this moment."""
        state = self._state
        latencies_s = sorted(state.latencies_s)
        return PoolStatistics(
            tier=self._starter.tier if self._starter else "",
            max_sandboxes=state.max_sandboxes,
            n_idle=state.n_idle,
            n_starting=state.n_starting,
            n_leased=len(state.leased),
            n_closing=len(state.closing),
            n_waiting=state.n_waiting,
            n_started=state.n_started,
            n_failed_starts=state.n_failed_starts,
            n_closed=state.n_closed,
            n_hits=self._n_hits,
            n_misses=self._n_misses,
            n_denied=self._n_denied,
            start_p50_s=_percentile(latencies_s, 50),
            start_p99_s=_percentile(latencies_s, 99),
        )

    def capabilities(self) -> dict[str, Any]:
        """Return what this machine enforces, for a run's record."""
        return probe(self.config)

    # -- leases

    async def _prepared(self, spec: SandboxSpec) -> PooledSandbox:
        """Lease a sandbox and prepare it; if that one breaks by our fault, another, before all who wait."""
        if self._starter is None:
            raise SandboxClosed("the pool is not open: use `async with SandboxPool() as pool`")
        kind = self._kind(spec)
        self._state.ask(kind, time.monotonic())
        sandbox = await self._lease(kind)
        try:
            return await _prepare(sandbox, spec)
        except SandboxStartError as error:
            logger.warning("sandbox broke while it was prepared: error=%s", error)
        sandbox = await self._lease(kind, is_first=True)
        return await _prepare(sandbox, spec)

    def _kind(self, spec: SandboxSpec) -> Kind:
        name = self.config.profile if spec.profile is None else spec.profile
        if name not in self._known_profiles:
            self.config.profile_named(name)
            self._known_profiles.add(name)
        return Kind(name, spec.workspace.absolute() if spec.workspace else None)

    async def _lease(self, kind: Kind, *, is_first: bool = False) -> PooledSandbox:
        while (number := self._state.take(kind)) is not None:
            sandbox = self._sandboxes[number]
            if sandbox.is_fit():
                self._n_hits += 1
                self._refill_soon()
                return sandbox
            self._discard(number)
        self._n_misses += 1
        return await self._wait(kind, is_first=is_first)

    async def _wait(self, kind: Kind, *, is_first: bool) -> PooledSandbox:
        ticket = next(self._tickets)
        caller: asyncio.Future[PooledSandbox] = asyncio.get_running_loop().create_future()
        self._callers[ticket] = caller
        self._carry_out(self._state.want(ticket, kind, time.monotonic(), is_first=is_first))
        self._say_if_bound_bites()
        limit_s = self.config.acquire_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await caller
        except TimeoutError:
            if _has_result(caller):  # in the same turn of the loop
                return caller.result()
            self._n_denied += 1
            raise PoolTimeout(self._why_none(limit_s)) from None
        except SandboxError:
            self._n_denied += 1
            raise
        except asyncio.CancelledError:
            if _has_result(caller):  # in the same turn of the loop
                await caller.result().close()
            raise
        finally:
            del self._callers[ticket]
            self._carry_out(self._state.give_up(ticket, time.monotonic()))

    def _why_none(self, limit_s: float) -> str:
        now = self.statistics()
        bound = f"this machine has room for: {self._bound.reason}" if self._bound else "max_sandboxes"
        failed = f"; the last start that failed: {self._last_error}" if self._last_error else ""
        return (
            f"no sandbox became free in {limit_s:g} s (acquire_timeout_s): {now.n_leased} are in use, "
            f"{now.n_starting} are starting, {now.n_closing} are closing, at most {now.max_sandboxes} may "
            f"exist ({bound}), {now.n_waiting} callers wait{failed}"
        )

    def _say_if_bound_bites(self) -> None:
        """Log once that callers wait because of this machine and not because of the config."""
        state = self._state
        if self._bound is None or self._has_said_bound or state.n_live < state.max_sandboxes:
            return
        if state.n_waiting > state.n_starting:
            self._has_said_bound = True
            logger.warning(
                "callers wait, as this machine has room for fewer sandboxes than max_sandboxes: "
                "n_sandboxes=%d max_sandboxes=%d reason=%s",
                state.max_sandboxes,
                self.config.max_sandboxes,
                self._bound.reason,
            )

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
        if self._state.is_shut or self._last_error is None:
            caller.set_exception(SandboxClosed("the pool is closed"))
        else:  # a copy, since each that is raised gets a traceback of its own
            error = copy(self._last_error)
            error.__cause__ = self._last_error.__cause__
            caller.set_exception(error)

    # -- sandboxes

    async def _start(self, number: int, kind: Kind) -> None:
        assert self._starter is not None
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
        self._last_error = known
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
        logger.warning("idle sandbox died: number=%d", number)
        self._carry_out([*self._state.released(number, time.monotonic()), Retire(number)])

    async def _retire(self, number: int) -> None:
        sandbox = self._sandboxes.get(number)
        if sandbox is not None:
            await sandbox.close()

    async def _close(self) -> None:
        self._carry_out(self._state.shut())
        for handle in (self._timer, self._refill):
            if handle is not None:
                handle.cancel()
        for task in self._starts:
            task.cancel()
        while jobs := {*self._starts, *self._closings}:
            await asyncio.wait(jobs)
        if self._starter is not None:
            await self._starter.close()


async def _prepare(sandbox: PooledSandbox, spec: SandboxSpec) -> PooledSandbox:
    """Prepare a leased sandbox and return it; close it when that fails or is cancelled."""
    try:
        await sandbox.prepare(spec)
    except BaseException:
        await sandbox.close()
        raise
    return sandbox


def _has_result(caller: asyncio.Future[PooledSandbox]) -> bool:
    return caller.done() and not caller.cancelled() and caller.exception() is None


def _on_done(jobs: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    jobs.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("starting or closing a sandbox broke: error=%r", error, exc_info=error)


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the nearest rank of sorted values; None where there are none."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None
