"""What an endpoint without metrics achieves, by its answers alone. Pure."""

from __future__ import annotations


class Round:
    """Calls that began and ended between two looks at the throughput.

    By Little's law the throughput is what is in flight over how long it stays, which, unlike a count per
    second, does not depend on where in a burst of answers the round begins and ends.
    """

    __slots__ = ("_began_at", "_in_flight", "_latency_s", "_n_calls", "_n_tokens")

    def __init__(self, began_at: float) -> None:
        self._began_at = began_at
        self._n_calls = 0
        self._n_tokens = 0
        self._latency_s = 0.0
        self._in_flight = 0

    def add(self, now: float, latency_s: float, n_tokens: int, n_in_flight: int) -> int:
        """Count a call unless it began before the round; return how many were counted."""
        if now - latency_s >= self._began_at - 1e-9:
            self._n_calls += 1
            self._n_tokens += n_tokens
            self._latency_s += latency_s
            self._in_flight += n_in_flight
        return self._n_calls

    @property
    def mean_in_flight(self) -> float:
        """How many calls were in flight when one was answered."""
        return self._in_flight / self._n_calls

    @property
    def throughput(self) -> float:
        """Tokens per second; calls where no server counts tokens."""
        return self.mean_in_flight * (self._n_tokens or self._n_calls) / max(self._latency_s, 1e-9)
