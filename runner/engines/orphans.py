"""What is left of an engine whose keeper was killed: found by the mark in its environment.

The keeper finds an engine's processes by descent, which nothing can leave. Only when the keeper itself is
killed is the mark needed. Processes that rename themselves would overwrite it: SPT_NOENV stops that.
"""

from __future__ import annotations

import os
import time

from runner.engines.keeper import SWEEP_S, kill, stat

MARK = "KERNELFLEET_ENGINE"


def marked(mark: str) -> dict[str, str]:
    """Return the environment variables by which the processes of one engine are known."""
    return {MARK: mark, "SPT_NOENV": "1"}


def find_marked(mark: str) -> list[tuple[int, int]]:
    """Return (pid, start time in clock ticks) of all processes of this user with that mark, but this one."""
    sign = os.fsencode(f"{MARK}={mark}")
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            _, started = stat(int(entry.name))
            with open(f"/proc/{entry.name}/environ", "rb") as environ:  # noqa: PTH123 - thousands of them
                if sign in environ.read().split(b"\0"):
                    found.append((int(entry.name), started))
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found


def sweep_marked(mark: str) -> int:
    """Kill all processes with that mark, until there is none; return how many. Blocks for SWEEP_S at most."""
    killed: set[tuple[int, int]] = set()
    deadline = time.monotonic() + SWEEP_S
    while (left := find_marked(mark)) and time.monotonic() < deadline:
        killed |= {process for process in left if kill(*process)}
        time.sleep(0.02)
    return len(killed)
