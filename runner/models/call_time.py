"""What a call at a server has cost, less what the server lost of it."""

from __future__ import annotations

from runner.models.base import CallClock


class CallTime:
    """Excuses each second of a call once. Times are `time.perf_counter`'s: uvloop's are milliseconds."""

    __slots__ = ("_began_at", "_clock", "_excused_s", "_excused_to")

    def __init__(self, clock: CallClock, began_at: float) -> None:
        self._clock = clock
        self._began_at = self._excused_to = began_at
        self._excused_s = 0.0

    def excuse_from(self, since: float, now: float) -> None:
        """Excuse what has passed since then, as far as it is of this call and was not excused."""
        seconds = now - max(since, self._excused_to)
        if seconds > 0:
            self._excused_to = now
            self._excused_s += seconds
            self._clock.excuse(seconds)

    def excuse_all(self, now: float) -> None:
        """Excuse what is left of it: it came to nothing."""
        self._clock.excuse(now - self._began_at - self._excused_s)
        self._excused_to, self._excused_s = now, now - self._began_at
