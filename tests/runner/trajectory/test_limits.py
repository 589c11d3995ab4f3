"""What is left to a trajectory."""

from __future__ import annotations

import pytest

from runner.config import Limits
from runner.records import StopReason, Usage
from runner.trajectory.limits import Budget


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waiting_does_not_count() -> None:
    """Time in our own queues, or lost to a failing server, is not the trajectory's."""
    clock = Clock()
    budget = Budget(Limits(working_s=60, cell_s=20), clock=clock)
    clock.now += 30
    assert budget.remaining_s == 30
    with budget.waiting():
        clock.now += 1000
    assert budget.remaining_s == 30
    budget.excuse(5)
    assert budget.remaining_s == 35


@pytest.mark.parametrize(
    ("wall_s", "own_s", "waited_s", "is_waiting"),
    [
        (None, 60, 600, False),
        (100, 20, 80, True),
        (100, 60, 40, False),
        (1000, 60, 100, False),
    ],
)
def test_wall_time_that_went_on_waits(
    wall_s: float | None, own_s: float, waited_s: float, is_waiting: bool
) -> None:
    """More than half of it, where it is what has ended; turns of an earlier process count as its own."""
    clock = Clock()
    budget = Budget(Limits(working_s=90, wall_s=wall_s), used_s=30, clock=clock)
    clock.now += own_s + waited_s
    budget.excuse(waited_s)
    assert budget.is_wall_lost_to_waits is is_waiting


def test_cell_gets_its_limit_or_the_rest() -> None:
    """A cell never gets more than what is left, and nothing is never less than none."""
    clock = Clock()
    budget = Budget(Limits(working_s=60, cell_s=20), clock=clock)
    assert budget.cell_s == 20
    clock.now += 55
    assert budget.cell_s == 5
    clock.now += 55
    assert (budget.cell_s, budget.remaining_s) == (0, 0)


@pytest.mark.parametrize(
    ("n_turns", "tokens", "passed_s", "reason"),
    [
        (0, 0, 0, None),
        (2, 0, 0, None),
        (3, 0, 0, StopReason.MAX_TURNS),
        (0, 99, 0, None),
        (0, 100, 0, StopReason.TOKEN_LIMIT),
        (0, 0, 60, StopReason.TIME_LIMIT),
    ],
)
def test_what_forbids_another_turn(
    n_turns: int, tokens: int, passed_s: float, reason: StopReason | None
) -> None:
    """Each limit is reached at its value, not before."""
    clock = Clock()
    budget = Budget(Limits(max_turns=3, max_total_tokens=100, working_s=60), clock=clock)
    clock.now += passed_s
    assert budget.exceeded(n_turns, Usage(total_tokens=tokens)) is reason
