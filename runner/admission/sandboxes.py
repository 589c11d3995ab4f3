"""How many sandboxes may be leased, from how pressed this machine is. Pure."""

from __future__ import annotations

from runner.admission.observed import Adaptation, HostPressure, changed, grown

CUT = 0.8
GROWTH = 1.25
CUT_INTERVAL_S = 1.0


class SandboxAdmission:
    """How many sandboxes may be leased. Not adaptive, it is the bound."""

    MIN_PER_CORE = 4
    MAX_RUNNABLE_PER_CORE = 8.0
    """Cells then run at an eighth of their speed, and the slow ones meet their time limit by our doing."""

    SMOOTHING = 0.3

    def __init__(self, *, max_leased: int, n_cores: int, adaptive: bool) -> None:
        self._bound = max_leased
        self._floor = min(max_leased, self.MIN_PER_CORE * n_cores)
        self._adaptive = adaptive
        self._runnable = 0.0
        self._cut_at = -CUT_INTERVAL_S
        self.max_leased = max_leased

    def on_pressure(
        self, now: float, pressure: HostPressure, *, n_leased: int, n_waiting: int
    ) -> list[Adaptation]:
        """Act on how pressed this machine is."""
        if not self._adaptive:
            return []
        self._runnable += self.SMOOTHING * ((pressure.runnable_per_core or 0.0) - self._runnable)
        reason, floor = self._pressed(pressure)
        if reason is not None:
            self._cut_at = now
            lower = max(floor, int(CUT * min(self.max_leased, max(1, n_leased))))
            return self._set(min(lower, self.max_leased), reason)
        if self.max_leased < self._bound and n_waiting and now - self._cut_at >= CUT_INTERVAL_S:
            return self._set(grown(self.max_leased, GROWTH), "the pressure is gone")
        return []

    def _pressed(self, pressure: HostPressure) -> tuple[str | None, int]:
        """Return why fewer should be leased, and the fewest that makes sense then."""
        available, stalled = pressure.available_memory_share, pressure.memory_stalled_share
        if available is not None and available < 0.1:
            return f"{available:.0%} of the memory is left", 1
        if stalled is not None and stalled > 0.1:
            return f"all tasks wait for memory {stalled:.0%} of the time", 1
        if self._runnable > self.MAX_RUNNABLE_PER_CORE:
            return f"{self._runnable:.0f} tasks per core want to run", self._floor
        return None, 1

    def _set(self, leased: int, reason: str) -> list[Adaptation]:
        before, self.max_leased = self.max_leased, max(1, min(leased, self._bound))
        return changed("sandboxes", before, self.max_leased, reason)
