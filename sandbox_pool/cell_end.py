"""What ends a cell, and what that says: of the cell, of its kernel, of whose doing it was."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from enum import Enum, auto

from sandbox_pool.heard import Heard
from sandbox_pool.host.cgroups import Counters
from sandbox_pool.messages import Cell
from sandbox_pool.observation import Status

_HALF_DONE_GRACE_S = 1.0


class End(Enum):
    """What ended the wait for a cell."""

    DONE = auto()
    HALF_DONE = auto()
    DEAD = auto()
    DEADLINE = auto()
    OUTPUT = auto()


async def wait_for_end(
    cell: Cell, heard: Heard, is_alive: Callable[[], bool], limit_s: float, *, until_budget: bool = True
) -> End:
    """Wait until the cell is done, or something else ends the wait. Safe to cancel.

    Args:
        cell: what its messages have come to so far.
        heard: of its kernel; wakes this up.
        is_alive: whether the kernel is.
        limit_s: for the wait.
        until_budget: whether output beyond the budget ends it.
    """
    try:
        async with asyncio.timeout(limit_s):
            while True:
                if cell.has_reply and cell.is_idle:
                    return End.DONE
                if not is_alive():
                    return End.DEAD
                if until_budget and cell.is_over_budget:
                    return End.OUTPUT
                if heard.n_garbage:
                    return End.HALF_DONE
                if not (cell.has_reply or cell.is_idle or heard.is_cut_off):
                    await heard.something()
                elif not await heard.something_within(_HALF_DONE_GRACE_S):
                    return End.HALF_DONE
    except TimeoutError:
        return End.DEADLINE


def cause_of_death(exit_status: int | None, *, has_begun: bool, was_killed: bool) -> Status:
    """Return whose doing it was that a kernel is dead. Pure.

    Args:
        exit_status: as init tells it; None where nobody could.
        has_begun: whether code of the caller's had begun to run.
        was_killed: whether we have killed it.
    """
    if not was_killed and (exit_status is None or not has_begun):
        return Status.SANDBOX_FAULT  # init or the zygote was killed: no cell can do that
    return Status.CPU_LIMIT if exit_status == -signal.SIGXCPU else Status.DIED


def limits_hit(before: Counters, after: Counters) -> tuple[str, ...]:
    """Return which limits the system has enforced between two counts. Pure."""
    memory = ("memory",) if (after.n_oom_kills or 0) > (before.n_oom_kills or 0) else ()
    pids = ("pids",) if (after.n_denied_forks or 0) > (before.n_denied_forks or 0) else ()
    return memory + pids
