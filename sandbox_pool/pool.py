"""Leases: sandboxes are started ahead or on demand, handed out in order, closed after use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from sandbox_pool.config import DEFAULT_PROFILE, PoolConfig
from sandbox_pool.errors import (
    PoolTimeout,
    SandboxClosed,
    SandboxError,
    SandboxStartError,
)
from sandbox_pool.host.capacity import Bound
from sandbox_pool.interface import DEFAULT_SPEC, SandboxSpec
from sandbox_pool.pool_state import Kind, PoolState
from sandbox_pool.pooled import OpenStarter, PooledSandbox
from sandbox_pool.starter import open_starter
from sandbox_pool.stock import Stock

logger = logging.getLogger(__name__)

_NOT_OPEN = "the pool is not open: use `async with SandboxPool() as pool`"
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
        open_starter: OpenStarter = open_starter,
    ) -> None:
        self.config = config or PoolConfig()
        self.trusted_code = trusted_code
        self._open_starter = open_starter
        self._state = PoolState(
            self.config.max_sandboxes,
            Kind(self.config.profile),
            min_idle=self.config.min_idle,
            max_idle=self.config.max_idle,
            max_idle_s=self.config.max_idle_s,
            max_starting=self.config.max_starting,
        )
        self._stock: Stock | None = None
        self._bound: Bound | None = None
        """Of this machine, where it is less than the config's."""

        self._has_said_bound = False
        self._known_profiles = {DEFAULT_PROFILE, *self.config.profiles}
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
            self._state.max_sandboxes = bound.n_sandboxes
        self._stock = Stock(self._state, starter, tick_s=min(_TICK_S, self.config.max_idle_s))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all that is left. Completes even when cancelled meanwhile."""
        assert self._stock is not None
        closing = asyncio.create_task(self._stock.close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as again:
                cancelled = again
        closing.result()
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
            tier=self._stock.tier if self._stock else "",
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
            start_p50_s=percentile(latencies_s, 50),
            start_p99_s=percentile(latencies_s, 99),
        )

    def capabilities(self) -> dict[str, Any]:
        """Return what sandboxes are held by, for a run's record.

        Raises:
            SandboxClosed: the pool is not open.
        """
        if self._stock is None:
            raise SandboxClosed(_NOT_OPEN)
        return self._stock.capabilities()

    # -- leases

    async def _prepared(self, spec: SandboxSpec) -> PooledSandbox:
        """Lease a sandbox and prepare it; if that one breaks by our fault, another, before all who wait."""
        if self._stock is None:
            raise SandboxClosed(_NOT_OPEN)
        kind = self._kind(spec)
        self._stock.ask(kind)
        sandbox = await self._lease(self._stock, kind)
        try:
            return await _prepare(sandbox, spec)
        except SandboxStartError as error:
            logger.warning("sandbox broke while it was prepared: error=%s", error)
        sandbox = await self._lease(self._stock, kind, is_first=True)
        return await _prepare(sandbox, spec)

    def _kind(self, spec: SandboxSpec) -> Kind:
        name = self.config.profile if spec.profile is None else spec.profile
        if name not in self._known_profiles:
            self.config.profile_named(name)  # raises
        return Kind(name, spec.workspace.absolute() if spec.workspace else None)

    async def _lease(self, stock: Stock, kind: Kind, *, is_first: bool = False) -> PooledSandbox:
        sandbox = stock.take(kind)
        if sandbox is not None:
            self._n_hits += 1
            return sandbox
        self._n_misses += 1
        self._say_if_bound_bites()
        limit_s = self.config.acquire_timeout_s
        try:
            return await stock.wait(kind, limit_s, is_first=is_first)
        except TimeoutError:
            self._n_denied += 1
            raise PoolTimeout(self._why_none(limit_s, stock.last_error)) from None
        except SandboxError:
            self._n_denied += 1
            raise

    def _why_none(self, limit_s: float, last_error: SandboxError | None) -> str:
        now = self.statistics()
        bound = f"this machine has room for: {self._bound.reason}" if self._bound else "max_sandboxes"
        failed = f"; the last start failed: {last_error}" if last_error else ""
        return (
            f"no sandbox became free in {limit_s:g} s (acquire_timeout_s): {now.n_leased} are in use, "
            f"{now.n_starting} are starting, {now.n_closing} are closing, at most {now.max_sandboxes} may "
            f"exist ({bound}), {now.n_waiting} callers wait{failed}"
        )

    def _say_if_bound_bites(self) -> None:
        """Log once that a caller will wait because of this machine and not because of the config."""
        state = self._state
        if self._bound is None or self._has_said_bound:
            return
        if state.n_live >= state.max_sandboxes and state.n_waiting >= state.n_starting:
            self._has_said_bound = True
            logger.warning(
                "callers wait, as this machine has room for fewer sandboxes than max_sandboxes: "
                "n_sandboxes=%d max_sandboxes=%d reason=%s",
                state.max_sandboxes,
                self.config.max_sandboxes,
                self._bound.reason,
            )


async def _prepare(sandbox: PooledSandbox, spec: SandboxSpec) -> PooledSandbox:
    """Prepare a leased sandbox and return it; close it when that fails or is cancelled."""
    try:
        await sandbox.prepare(spec)
    except BaseException:
        await sandbox.close()
        raise
    return sandbox


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the nearest rank in sorted values; None where there are none."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None
