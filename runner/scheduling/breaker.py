"""When a run pauses because its infrastructure fails, and when it goes on. Pure: time is a parameter.

Closed while all is well. When too many of the latest tries failed for one reason it opens: no attempt
is begun, and a probe is let through now and then. The first try that ends by the model's doing closes it.
"""

from __future__ import annotations

from collections import Counter, deque

from runner.config import BreakerConfig

FIRST_PROBE_S = 2.0
MAX_PROBE_S = 60.0


class Breaker:
    """Counts tries. `None` stands for one that ended by the model's doing."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._recent: deque[str | None] = deque(maxlen=config.window)
        self._opened_at = 0.0
        self._next_probe_at = 0.0
        self._probe_s = FIRST_PROBE_S
        self.reason: str | None = None
        """Why it is open; None while it is closed."""

    def on_try(self, now: float, failed_for: str | None) -> bool:
        """Count a try that ended. Return whether it opened or closed the breaker."""
        if self.reason is not None:
            if failed_for is None:
                self.reason = None
                self._recent.clear()
                return True
            return False
        self._recent.append(failed_for)
        reason = self._common_reason()
        if reason is None:
            return False
        self.reason = reason
        self._opened_at = now
        self._probe_s = FIRST_PROBE_S
        self._next_probe_at = now + self._probe_s
        return True

    def take_probe(self, now: float) -> bool:
        """Return whether one try may be made now although it is open; the next may be made later."""
        if now < self._next_probe_at:
            return False
        self._probe_s = min(2 * self._probe_s, MAX_PROBE_S)
        self._next_probe_at = now + self._probe_s
        return True

    def wait_anew(self, now: float) -> None:
        """Count how long it is open from now: until now nothing could close it."""
        self._opened_at = now

    def is_hopeless(self, now: float) -> bool:
        """Return whether it has been open for as long as the run waits."""
        return self.reason is not None and now - self._opened_at >= self._config.max_pause_s

    def _common_reason(self) -> str | None:
        if len(self._recent) < max(2, self._config.window // 2):
            return None
        common = Counter(reason for reason in self._recent if reason is not None).most_common(1)
        for reason, n in common:
            if n > self._config.max_share * len(self._recent):
                return reason
        return None
