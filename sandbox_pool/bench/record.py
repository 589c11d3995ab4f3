"""What was measured: plain numbers by contender and measure, one list for each repetition."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` per cent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


@dataclass(slots=True)
class Record:
    """All numbers of one run. Seconds, bytes or counts, as the measure's name says."""

    values: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    """By contender, by measure, by repetition."""

    n_starts: dict[str, int] = field(default_factory=dict)
    """Starts that were tried, by contender."""

    failures: dict[str, list[str]] = field(default_factory=dict)
    """What starts failed with, by contender."""

    n_left: dict[str, int] = field(default_factory=dict)
    """Processes of kernels that still lived when their end had been reported, by contender."""

    def add(self, contender: str, measure: str, values: Sequence[float]) -> None:
        """Add the numbers of one repetition; none are no repetition."""
        if values:
            self.values.setdefault(contender, {}).setdefault(measure, []).append(list(values))

    def count_start(self, contender: str, problem: str | None = None) -> None:
        """Count one start, and what it failed with if it did."""
        self.n_starts[contender] = self.n_starts.get(contender, 0) + 1
        failures = self.failures.setdefault(contender, [])
        if problem is not None:
            failures.append(problem)

    def count_left(self, contender: str, n: int) -> None:
        """Count processes that were left behind."""
        self.n_left[contender] = self.n_left.get(contender, 0) + n

    def repetitions(self, contender: str, measure: str) -> list[list[float]]:
        """Return a measure's numbers, repetition by repetition."""
        return self.values.get(contender, {}).get(measure, [])

    def n(self, contender: str, measure: str) -> int:
        """Return how many numbers there are."""
        return sum(len(values) for values in self.repetitions(contender, measure))

    def value(self, contender: str, measure: str, percent: float) -> float | None:
        """Return one number for a measure, or None without any.

        The median over the repetitions' medians; any other percentile over all numbers together, since
        the worst of a repetition is no percentile of it.
        """
        repetitions = self.repetitions(contender, measure)
        if not repetitions:
            return None
        if percent == 50:
            return statistics.median(statistics.median(values) for values in repetitions)
        return percentile([value for values in repetitions for value in values], percent)

    def ratio(self, above: tuple[str, str], below: tuple[str, str], percent: float) -> float | None:
        """Return how many times more one (contender, measure) has than another; None if either has nothing.

        For medians the median of the repetitions' ratios where both have as many repetitions.
        """
        over, under = self.repetitions(*above), self.repetitions(*below)
        if percent == 50 and len(over) == len(under) > 0:
            pairs = [(statistics.median(a), statistics.median(b)) for a, b in zip(over, under, strict=True)]
            return statistics.median(a / b for a, b in pairs) if all(b > 0 for _, b in pairs) else None
        a, b = self.value(*above, percent), self.value(*below, percent)
        return a / b if a is not None and b is not None and b > 0 else None
