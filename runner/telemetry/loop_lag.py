"""How late the event loop is: a task that asks to be woken and looks at the clock."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import Self

INTERVAL_S = 0.05
WINDOW = 1200
"""Measurements kept: the last minute."""


class LoopLag:
    """An async context manager that measures while it is open."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=WINDOW)
        self._task: asyncio.Task[None] | None = None
        self.max_s = 0.0
        """Over the whole time."""

    async def __aenter__(self) -> Self:
        """Begin to measure."""
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop measuring; the figures stay."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def p50_s(self) -> float:
        """Median of the last minute; 0 before the first measurement."""
        return self._quantile(0.50)

    @property
    def p99_s(self) -> float:
        """99th percentile of the last minute; 0 before the first measurement."""
        return self._quantile(0.99)

    def _quantile(self, share: float) -> float:
        if not self._late_s:
            return 0.0
        ordered = sorted(self._late_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    async def _measure(self) -> None:
        while True:
            due_at = time.perf_counter() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            late_s = max(0.0, time.perf_counter() - due_at)
            self._late_s.append(late_s)
            self.max_s = max(self.max_s, late_s)
