"""When an engine that ended is started again. Pure: time is a parameter.

The time is that in which the engine worked: with starts that take half an hour and fail, a crash loop would
never be given up.
"""

from __future__ import annotations

from collections import deque

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0


class RestartPolicy:
    """At most `max_restarts` within any `window_s`, each after twice the wait of the one before."""

    def __init__(self, max_restarts: int, window_s: float) -> None:
        self._max_restarts = max_restarts
        self._window_s = window_s
        self._restarted_at: deque[float] = deque()

    def delay_s(self, worked_s: float) -> float | None:
        """Count a restart; return how long to wait before it, or None for no more.

        `worked_s` is how long the engine has worked so far, in all its starts.
        """
        while self._restarted_at and worked_s - self._restarted_at[0] > self._window_s:
            self._restarted_at.popleft()
        n_before = len(self._restarted_at)
        if n_before >= self._max_restarts:
            return None
        self._restarted_at.append(worked_s)
        return float(min(MAX_DELAY_S, FIRST_DELAY_S * 2**n_before))
