"""What one process did of a run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.telemetry.statistics import RunStatistics


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one process did of a run."""

    run_dir: Path
    n_done_before: int
    statistics: RunStatistics
    signal_number: int | None
    """The signal that ended it early, or None."""

    has_checks: bool
    """Whether the samples say how they are scored."""

    is_quiet: bool = False
    """Whether the user wants to read nothing but errors."""

    @property
    def n_left(self) -> int:
        """Attempts that have no line yet."""
        return self.statistics.n_total - self.statistics.n_finished


def finished_details(statistics: RunStatistics, signal_number: int | None) -> dict[str, Any]:
    """Return what the event `run_finished` tells."""
    return {
        "wall_s": statistics.elapsed_s,
        "n_finished": statistics.n_finished,
        "n_failed": statistics.n_failed,
        "n_cancelled": statistics.n_cancelled,
        "n_resumed": statistics.n_resumed,
        "n_restarted": statistics.n_restarted,
        "draining": statistics.draining,
        "signal": None if signal_number is None else signal.Signals(signal_number).name,
    }
