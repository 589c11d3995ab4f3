"""How many sandboxes of a kind are worth keeping ready. Pure: times come in as arguments, in seconds."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median_low

WINDOW_S = 10.0
"""Time in which an arrival's weight falls to 1/e: long enough to see a rate, short enough to forget it."""

_SAFETY = 2.0
_N_LATENCIES = 15


@dataclass(slots=True)
class Demand:
    """How often something was asked for lately."""

    _weight: float = 0.0
    _at: float = 0.0

    def add(self, now: float) -> None:
        """It is asked for."""
        self._weight = self.n_recent(now) + 1.0
        self._at = now

    def n_recent(self, now: float) -> float:
        """Return how often it was asked for in the window, older times counting less and less."""
        return self._weight * math.exp(min(0.0, self._at - now) / WINDOW_S)


def warm_target(n_recent: float, latency_s: float, *, n_enough: float) -> int:
    """Return how many should be ready, so that as many as arrive during a start find one, and that twice.

    Args:
        n_recent: arrivals in the window, as Demand counts them.
        latency_s: how long a start takes.
        n_enough: arrivals in the window below which nothing is kept ready.
    """
    if n_recent < n_enough:
        return 0
    return max(1, math.ceil(n_recent / WINDOW_S * latency_s * _SAFETY))


class Latencies:
    """How long the last starts took. A few odd ones say nothing: those that had to wait for a new zygote."""

    def __init__(self) -> None:
        self._last_s: deque[float] = deque(maxlen=_N_LATENCIES)
        self.typical_s = 0.0
        """The median, the lower of two; 0 before the first."""

    def add(self, latency_s: float) -> None:
        """A start has taken so long."""
        self._last_s.append(latency_s)
        self.typical_s = median_low(self._last_s)
