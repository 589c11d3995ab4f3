"""Limits on a whole sandbox: a control group for each, wherever the system lets us make some.

A pool has a folder in each hierarchy, and in it one for each sandbox. A process of the sandbox joins by
writing "0" to the descriptors in `Group.joins`. All functions but `Group.counters` may block for
milliseconds, and some for a second: call them in a thread.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox_pool.host.group_folders import (
    kill,
    locked_folder,
    remove,
    remove_abandoned,
    remove_pool,
    write,
    write_if_there,
)
from sandbox_pool.host.hierarchies import LEAF, Hierarchies, Hierarchy

logger = logging.getLogger(__name__)

_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What a sandbox may use in all; None: as much as there is, and one hierarchy less to join."""

    memory_bytes: int | None = None
    """Swap and the pages of its tmpfs included."""

    max_processes: int | None = None
    """Processes and threads."""

    max_cores: float | None = None

    def controllers(self) -> frozenset[str]:
        """Return the controllers that enforce these."""
        values = {"memory": self.memory_bytes, "pids": self.max_processes, "cpu": self.max_cores}
        return frozenset(name for name, value in values.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened in a group since it was made; None: not counted here."""

    n_oom_kills: int | None = None
    """Processes that were killed for memory."""

    n_denied_forks: int | None = None
    peak_memory_bytes: int | None = None


class Group:
    """The control group of one sandbox, in one or more hierarchies. The pool's Groups makes it."""

    def __init__(self, parts: dict[Path, Hierarchy], limits: GroupLimits) -> None:
        self._folders = dict(parts)
        self._files: dict[str, int] = {}
        self.joins: list[int] = []
        """Descriptors of the cgroup.procs files, open for writing."""

        try:
            for folder, place in parts.items():
                folder.mkdir()
                _set_limits(folder, place, limits)
                self.joins.append(os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
                self._open_counters(folder, place)
        except BaseException:
            self.remove()
            raise

    def _open_counters(self, folder: Path, place: Hierarchy) -> None:
        for controller, names in _COUNTERS[place.version].items():
            for name in names if controller in place.controllers else ():
                with suppress(FileNotFoundError):  # memory.peak came with Linux 5.19
                    self._files[name] = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)

    def close_joins(self) -> None:
        """Close the descriptors to join by: the sandbox has its copies. Idempotent."""
        while self.joins:
            os.close(self.joins.pop())

    def counters(self) -> Counters:
        """Return what was counted so far; costs microseconds, and works until `remove`."""
        read = {name: _read(descriptor) for name, descriptor in self._files.items()}
        return Counters(
            n_oom_kills=_number(read, ("memory.events", "memory.oom_control"), r"^oom_kill (\d+)$"),
            n_denied_forks=_number(read, ("pids.events",), r"^max (\d+)$"),
            peak_memory_bytes=_number(read, ("memory.peak", "memory.max_usage_in_bytes"), r"^(\d+)$"),
        )

    def kill(self) -> None:
        """Kill what is in the group, however fast it forks. Raises OSError (EBUSY) if something stays."""
        for folder, place in self._folders.items():
            kill(folder, place.controllers)

    def remove(self) -> None:
        """Kill what is left in the group, remove it and close all its descriptors. Idempotent.

        Raises:
            OSError: EBUSY, something in it cannot be killed; `remove` may be called again.
        """
        self.close_joins()
        while self._files:
            os.close(self._files.popitem()[1])
        for folder, place in list(self._folders.items()):
            kill(folder, place.controllers)
            remove(folder)
            del self._folders[folder]


_COUNTERS = {
    1: {"memory": ("memory.oom_control", "memory.max_usage_in_bytes"), "pids": ("pids.events",)},
    2: {"memory": ("memory.events", "memory.peak"), "pids": ("pids.events",)},
}


def _read(descriptor: int) -> str:
    try:
        return os.pread(descriptor, 4096, 0).decode()
    except OSError:  # ENODEV: another has removed the group
        return ""


def _number(read: dict[str, str], names: Iterable[str], pattern: str) -> int | None:
    for name in names:
        found = re.search(pattern, read.get(name, ""), re.MULTILINE)
        if found:
            return int(found[1])
    return None


def _set_limits(folder: Path, place: Hierarchy, limits: GroupLimits) -> None:
    if limits.memory_bytes is not None and "memory" in place.controllers:
        if place.version == 1:
            write(folder / "memory.limit_in_bytes", limits.memory_bytes)
            write_if_there(folder / "memory.memsw.limit_in_bytes", limits.memory_bytes)
        else:
            write(folder / "memory.max", limits.memory_bytes)
            write_if_there(folder / "memory.swap.max", 0)
    if limits.max_processes is not None and "pids" in place.controllers:
        write(folder / "pids.max", limits.max_processes)
    if limits.max_cores is not None and "cpu" in place.controllers:
        quota_us = max(1000, round(limits.max_cores * _PERIOD_US))
        if place.version == 1:
            write(folder / "cpu.cfs_period_us", _PERIOD_US)
            write(folder / "cpu.cfs_quota_us", quota_us)
        else:
            write(folder / "cpu.max", f"{quota_us} {_PERIOD_US}")


# -- the folder of a pool


class Groups:
    """The control groups of one pool. `open_groups` makes it; `close` removes them all."""

    def __init__(self, places: dict[Path, Hierarchy], locks: ExitStack) -> None:
        self._places = places
        self._locks = locks

    @property
    def folders(self) -> list[Path]:
        """The pool's folder in each hierarchy: what is to be removed if this process is killed."""
        return list(self._places)

    @property
    def controllers(self) -> frozenset[str]:
        """What a sandbox is bounded by."""
        return frozenset().union(*(place.controllers for place in self._places.values()))

    def make(self, name: str, limits: GroupLimits) -> Group:
        """Make the group of a sandbox; `name` is its own among those of the pool.

        Raises:
            OSError: the system refuses another one. Nothing is left of it.
        """
        wanted = limits.controllers()
        parts = {top / name: place for top, place in self._places.items() if place.controllers & wanted}
        return Group(parts, limits)

    def close(self) -> None:
        """Kill what is left in them and remove the folders. Idempotent.

        Raises:
            OSError: something cannot be removed; the next pool tries again.
        """
        with self._locks:
            for folder in list(self._places):
                remove_pool(folder)
                del self._places[folder]


def open_groups(found: Hierarchies, wanted: frozenset[str]) -> Groups:
    """Make the folders of a pool, after removing those of pools that were killed.

    May move this process into a leaf of the group that it is in; see `Hierarchy.must_move`.

    Args:
        found: where they can be made.
        wanted: controllers; the hierarchies of others are left alone.

    Raises:
        OSError: the system refuses what it seemed to offer.
    """
    places: dict[Path, Hierarchy] = {}
    with ExitStack() as stack:
        for place in found.places:
            if not place.controllers & wanted:
                continue
            used = place if place.version == 1 else replace(place, controllers=place.controllers & wanted)
            if used.version == 2:
                _prepare_v2(used)
            remove_abandoned(used.parent)
            folder, lock = locked_folder(used.parent)
            stack.callback(os.close, lock)
            stack.callback(_remove_quietly, folder)
            places[folder] = used
            if used.version == 2:
                _enable(folder, used.controllers)
        locks = stack.pop_all()
    return Groups(places, locks)


def _remove_quietly(folder: Path) -> None:
    with suppress(OSError):
        remove_pool(folder)


def _prepare_v2(place: Hierarchy) -> None:
    """Let children of the parent be bounded."""
    if place.must_move:
        with suppress(FileExistsError):
            (place.parent / LEAF).mkdir()
        write(place.parent / LEAF / "cgroup.procs", 0)
    try:
        _enable(place.parent, place.controllers)
    except OSError:
        if place.must_move:
            write(place.parent / "cgroup.procs", 0)
        raise


def _enable(folder: Path, controllers: frozenset[str]) -> None:
    file = folder / "cgroup.subtree_control"
    lacking = controllers - set(file.read_text().split())
    if lacking:
        write(file, " ".join(f"+{name}" for name in sorted(lacking)))


# -- trying


def try_out(found: Hierarchies) -> Hierarchies:
    """Return those of the places in which a group can really be made, bounded and joined.

    A place that this process would have to move for is taken at its word.
    """
    places: list[Hierarchy] = []
    missing = dict(found.missing)
    for place in found.places:
        problem = None if place.must_move else _problem(place)
        if problem is None:
            places.append(place)
        else:
            missing |= dict.fromkeys(
                place.controllers, f"{place.parent} does not take groups of ours: {problem}"
            )
    return Hierarchies(tuple(places), missing)


def _problem(place: Hierarchy) -> str | None:
    limits = GroupLimits(
        memory_bytes=2**28 if "memory" in place.controllers else None,
        max_processes=64 if "pids" in place.controllers else None,
        max_cores=1 if "cpu" in place.controllers else None,
    )
    try:
        groups = open_groups(Hierarchies((place,)), place.controllers)
        try:
            group = groups.make("try", limits)
            done = subprocess.run(
                ["/bin/sh", "-c", "echo 0"],
                stdout=group.joins[0],
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=10,
            )
            group.remove()
        finally:
            groups.close()
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else f"a process may not join: {done.stderr.strip()}"
