"""How many sandboxes this machine can hold, and what ends first."""

from __future__ import annotations

import os
import re
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox_pool.config import MIB
from sandbox_pool.host.hierarchies import free_memory_bytes

_ENDLESS_DESCRIPTORS = 2**20


@dataclass(frozen=True, slots=True)
class Needs:
    """What one more sandbox takes from this machine, before its code does anything."""

    memory_bytes: int
    descriptors: int
    """Of this process."""

    tasks: int
    """Processes and threads."""


NEEDS = {"lean": Needs(12 * MIB, 12, 3), "ipykernel": Needs(32 * MIB, 18, 18)}
"""By kernel: what was measured with numpy, pandas and matplotlib loaded (6 and 21 MiB, 9 and 13 descriptors
and more during the start, 2 and 15 tasks), and some room."""

RESERVED = Needs(96 * MIB, 128, 64)
"""For this process, a zygote and its keeper."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What this machine has left; see `read_resources`."""

    free_memory_bytes: int
    max_descriptors: int
    max_tasks: int


@dataclass(frozen=True, slots=True)
class Bound:
    """How many sandboxes fit, and why not more."""

    n_sandboxes: int
    reason: str
    """What there is of the resource that ends first, and what would help."""


def bound_of_sandboxes(resources: Resources, needs: Needs) -> Bound:
    """Return how many sandboxes this machine can hold at once, 0 if not even one."""
    free_mib = resources.free_memory_bytes // MIB
    bounds = [
        Bound(
            (resources.free_memory_bytes - RESERVED.memory_bytes) // needs.memory_bytes,
            f"{free_mib} MiB of memory are free, {RESERVED.memory_bytes // MIB} are kept for the pool "
            f"itself and a sandbox takes {needs.memory_bytes // MIB}: free some, or raise the limit",
        ),
        Bound(
            (resources.max_descriptors - RESERVED.descriptors) // needs.descriptors,
            f"{resources.max_descriptors} descriptors may be open, {RESERVED.descriptors} are kept for the "
            f"runner and a sandbox takes {needs.descriptors}: raise the hard limit (ulimit -Hn)",
        ),
        Bound(
            (resources.max_tasks * 9 // 10 - RESERVED.tasks) // needs.tasks,
            f"{resources.max_tasks} processes may run and a sandbox takes {needs.tasks}: raise the limit "
            "(ulimit -u, kernel.pid_max)",
        ),
    ]
    tightest = min(bounds, key=lambda bound: bound.n_sandboxes)
    return Bound(max(0, tightest.n_sandboxes), tightest.reason)


def read_resources() -> Resources:
    """Return what this process can still use: of the machine, of its control groups and its limits."""
    free = [_available_bytes(), free_memory_bytes()]
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    tasks = [_pid_max()]
    if os.geteuid() != 0:  # root is not bound by it
        own_limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        tasks += [own_limit] if own_limit != resource.RLIM_INFINITY else []
    return Resources(
        min(size for size in free if size is not None),
        soft if soft != resource.RLIM_INFINITY else _ENDLESS_DESCRIPTORS,
        min(tasks),
    )


def _available_bytes() -> int:
    with suppress(OSError):
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _pid_max() -> int:
    with suppress(OSError):
        return int(Path("/proc/sys/kernel/pid_max").read_text())
    return 32_768


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open descriptors as far as it goes, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 65_536
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS reports more than it grants
            return soft
    return max(soft, hard)
