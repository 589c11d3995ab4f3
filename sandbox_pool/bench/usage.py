"""What processes use: CPU time and memory of this process and of all below it, from /proc.

Where there is no /proc (macOS) nothing is known: `tree` is empty.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from a later one with the same pid by when it began."""

    pid: int
    started_ticks: int


@dataclass(frozen=True, slots=True)
class Stat:
    """What a line of /proc/PID/stat says, as far as it is needed here."""

    process: Process
    parent: int
    is_zombie: bool
    waited_s: float
    """CPU time of its children that ended and that it waited for."""


def parse_stat(line: str, ticks_per_s: int) -> Stat:
    """Read a line of /proc/PID/stat (proc_pid_stat(5)); a name may hold spaces and parentheses."""
    head, _, tail = line.rpartition(")")
    fields = tail.split()  # from the third on: state, ppid, ...
    waited_s = (int(fields[13]) + int(fields[14])) / ticks_per_s
    pid = int(head.partition(" ")[0])
    return Stat(Process(pid, int(fields[19])), int(fields[1]), fields[0] in "ZX", waited_s)


def descendants(stats: Iterable[Stat], pid: int) -> list[Stat]:
    """Return the process `pid` and all below it. Pure."""
    children: dict[int, list[Stat]] = {}
    found = []
    for stat in stats:
        children.setdefault(stat.parent, []).append(stat)
        if stat.process.pid == pid:
            found.append(stat)
    for stat in found:  # grows meanwhile
        found += children.get(stat.process.pid, [])
    return found


def tree() -> list[Stat]:
    """Return this process and all below it, in whatever namespaces they are."""
    return descendants(_all_stats(), os.getpid())


def living(processes: Iterable[Process]) -> set[Process]:
    """Return those that have not ended, zombies not counted, wherever they now hang in the tree."""
    return set(processes) & {stat.process for stat in _all_stats() if not stat.is_zombie}


def tree_cpu_s(*, with_own: bool = True) -> float:
    """Return the CPU seconds of this process (unless told not to) and of all below it, so far.

    Of each living process the kernel's own clock (exact, with all threads that ended), plus what it
    waited for (whole ticks of a sum). What an ended process used is lost if nobody waited for it: take
    the difference of two calls between which everything of interest stays alive.
    """
    return sum(
        _clock_s(stat.process.pid) + stat.waited_s
        for stat in tree()
        if with_own or stat.process.pid != os.getpid()
    )


def pss_bytes(process: Process) -> int:
    """Return the proportional memory of a process: its own, and its share of what it shares; 0 once ended.

    Raises:
        PermissionError: it changed its user or its namespaces, and we are not root.
    """
    try:
        text = (_PROC / str(process.pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return _kilobytes(text, "Pss:")


def available_bytes() -> int | None:
    """Return the memory that this machine can still give, or None where it does not say."""
    try:
        return _kilobytes((_PROC / "meminfo").read_text(), "MemAvailable:")
    except FileNotFoundError:
        return None


def _kilobytes(text: str, key: str) -> int:
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith(key)), 0)


def _all_stats() -> list[Stat]:
    found = []
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        if folder.name.isdigit():
            try:
                found.append(parse_stat((folder / "stat").read_text(errors="replace"), _ticks_per_s()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
    return found


@cache
def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def _clock_s(pid: int) -> float:
    """Read a process's CPU clock; its id is made as clock_getcpuclockid(3) makes it. 0 once ended."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0
