"""Lets tries begin, or holds them: while somebody has paused the run, while its infrastructure fails."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from runner.scheduling.breaker import Breaker

PROBE_INTERVAL_S = 0.5


class Turnstile:
    """What every try passes before it begins. `on_hopeless` is told why the run should end."""

    def __init__(
        self,
        breaker: Breaker,
        on_event: Callable[..., Any],
        on_hopeless: Callable[[str], None],
    ) -> None:
        self._breaker = breaker
        self._on_event = on_event
        self._on_hopeless = on_hopeless
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._asked_to_pause: str | None = None

    @property
    def paused(self) -> str | None:
        """Why tries are held; None when they are not."""
        return self._asked_to_pause or self.failing

    @property
    def failing(self) -> str | None:
        """Which failure of the infrastructure holds the run; None when none does."""
        reason = self._breaker.reason
        return None if reason is None else f"too many tries failed for the same reason: {reason}"

    async def wait(self) -> None:
        """Return when a try may begin. Safe to cancel."""
        if self.paused is None:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._arm()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and self.paused is not None:
                self._release_one()  # it was let through as the probe
            raise

    def pause(self, reason: str) -> None:
        """Hold all tries that have not begun."""
        self._asked_to_pause = reason
        self._on_event("paused", reason=reason)

    def resume(self) -> None:
        """End a pause that somebody asked for."""
        if self._asked_to_pause is not None:
            self._asked_to_pause = None
            self._breaker.wait_anew(time.monotonic())
            self._on_event("resumed")
        self._release_if_open()

    def on_try(self, failed_for: str | None) -> None:
        """Count a try that ended: by our fault, for this reason, or None by the model's doing."""
        if not self._breaker.on_try(time.monotonic(), failed_for):
            return
        if self.failing is not None:
            self._on_event("breaker_opened", reason=self._breaker.reason)
            self._arm()
        else:
            self._on_event("breaker_closed")
            self._release_if_open()

    def close(self) -> None:
        """Stop probing. Idempotent; waiters are the callers' to cancel."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PROBE_INTERVAL_S, self._probe)

    def _probe(self) -> None:
        self._timer = None
        now = time.monotonic()
        if self.failing is None:
            return
        if self._asked_to_pause is None and self._breaker.is_hopeless(now):
            self._on_hopeless(self.failing)
            return
        if self._asked_to_pause is None and self._waiters and self._breaker.take_probe(now):
            self._on_event("breaker_probe")
            self._release_one()
        self._arm()

    def _release_if_open(self) -> None:
        if self.paused is None:
            while self._waiters:
                self._release_one()

    def _release_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
