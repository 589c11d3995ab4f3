"""What a kernel's death and the system's counters say: whose doing it was, and which limits were enforced."""

from __future__ import annotations

import signal

import pytest

from sandbox_pool.cell_end import cause_of_death, limits_hit
from sandbox_pool.host.cgroups import Counters
from sandbox_pool.observation import Status


@pytest.mark.parametrize(
    ("exit_status", "has_begun", "was_killed", "status"),
    [
        (None, True, False, Status.SANDBOX_FAULT),
        (0, False, False, Status.SANDBOX_FAULT),
        (None, False, True, Status.DIED),
        (-signal.SIGKILL, True, False, Status.DIED),
        (-signal.SIGXCPU, True, False, Status.CPU_LIMIT),
        (-signal.SIGXCPU, False, False, Status.SANDBOX_FAULT),
        (3, True, False, Status.DIED),
    ],
)
def test_whose_doing_a_death_was(
    exit_status: int | None, has_begun: bool, was_killed: bool, status: Status
) -> None:
    """Ours where nothing of the caller had begun, or where init is gone without a word; else the cell's."""
    assert cause_of_death(exit_status, has_begun=has_begun, was_killed=was_killed) is status


@pytest.mark.parametrize(
    ("before", "after", "hit"),
    [
        (Counters(), Counters(), ()),
        (Counters(), Counters(n_oom_kills=0, n_denied_forks=0), ()),
        (Counters(), Counters(n_oom_kills=1), ("memory",)),
        (Counters(n_oom_kills=1), Counters(n_oom_kills=1, n_denied_forks=7), ("pids",)),
        (Counters(n_oom_kills=1, n_denied_forks=2), Counters(n_oom_kills=2, n_denied_forks=3), ("memory", "pids")),
        (Counters(n_oom_kills=2), Counters(), ()),
    ],
)  # fmt: skip
def test_limits_are_those_since_the_cell_before(
    before: Counters, after: Counters, hit: tuple[str, ...]
) -> None:
    """A kill that an earlier cell brought about is not counted again; what cannot be read is none."""
    assert limits_hit(before, after) == hit
