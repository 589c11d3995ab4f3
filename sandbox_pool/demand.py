"""How many sandboxes of a kind are worth keeping ready. Pure: times come in as arguments, in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW_S = 10.0
"""Time in which an arrival's weight falls to 1/e: long enough to see a rate, short enough to forget it."""

_SAFETY = 2.0
_LATENCY_SHARE = 0.2
"""What a start counts in the average of all before it: about the last ten decide."""


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


def mean_latency(before_s: float | None, latency_s: float) -> float:
    """Return the moving average of start latencies with one more; `before_s` is None for the first."""
    return latency_s if before_s is None else before_s + _LATENCY_SHARE * (latency_s - before_s)
