"""Where this process stands among the system's control groups, and below which of them it may make its own.

Version 2 as in the kernel's Documentation/admin-guide/cgroup-v2.rst, version 1 as in cgroup-v1/*.rst
beside it. Only reads; `cgroups` makes the groups.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CONTROLLERS = ("memory", "pids", "cpu")
LEAF = "kf-leaf"
"""The group that this process goes into, so that the one above can be divided; it stays as long as that."""

_UNLIMITED_BYTES = 2**60  # version 1 says "none" by a number as large as it can hold
_BOUNDS = {"memory", "pids"}
_LACKING = "this system's kernel does not offer it"
_REMEDY_V2 = "start under `systemd-run --user --scope -p Delegate=yes`, or as root"


@dataclass(frozen=True, slots=True)
class Mount:
    """A control group file system."""

    version: Literal[1, 2]
    controllers: frozenset[str]
    """Of version 1: those that the whole hierarchy has."""

    top: Path
    """Where it is mounted."""

    own: Path
    """The folder of the group that this process is in."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A place where groups for sandboxes can be made."""

    version: Literal[1, 2]
    parent: Path
    controllers: frozenset[str]
    must_move: bool = False
    """Whether this process must first go into a leaf of its own: a group of version 2 whose children are
    bounded holds no processes itself."""


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """All places for groups, and why a controller has none."""

    places: tuple[Hierarchy, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    """Controller -> what is in the way, and what would help."""

    @property
    def controllers(self) -> frozenset[str]:
        """What a sandbox can be bounded by."""
        return frozenset().union(*(place.controllers for place in self.places))


def find(process: Path = Path("/proc/self")) -> Hierarchies:
    """Return where groups can be made, from what the system says; nothing is tried.

    Args:
        process: the folder of a process below a mounted proc.
    """
    mounts = list(read_mounts(process))
    places: list[Hierarchy] = []
    missing: dict[str, str] = {}
    unified = next((mount for mount in mounts if mount.version == 2), None)
    for controller in CONTROLLERS:
        first = next((m for m in mounts if m.version == 1 and controller in m.controllers), None)
        if first is None:
            continue
        if os.access(first.own, os.W_OK | os.X_OK):
            places.append(Hierarchy(1, first.own, frozenset({controller})))
        else:
            missing[controller] = (
                f"{first.own} cannot be written: start as root, or have that folder given to you"
            )
    left = [name for name in CONTROLLERS if not any(m.version == 1 and name in m.controllers for m in mounts)]
    if left and unified is not None:
        place, reason = _place_v2(unified, frozenset(left))
        if place is not None:
            places.append(place)
        offered = place.controllers if place is not None else frozenset[str]()
        missing |= {name: reason for name in left if name not in offered}
    elif left:
        missing |= dict.fromkeys(left, "this system mounts no control groups with it")
    return Hierarchies(tuple(places), missing)


def _place_v2(mount: Mount, wanted: frozenset[str]) -> tuple[Hierarchy | None, str]:
    """Return where groups can be made in the unified hierarchy, and what is in the way of the rest."""
    offered = wanted & _words(mount.own / "cgroup.controllers")
    if offered & _BOUNDS:
        if _is_writable(mount.own) and not (mount.own / "cgroup.type").exists():
            return Hierarchy(
                2, mount.own, offered
            ), _LACKING  # the root alone may hold processes and bound others
        if _is_ours_alone(mount.own):
            return Hierarchy(2, mount.own, offered, must_move=True), f"not given to {mount.own}: {_REMEDY_V2}"
    for folder in _upwards(mount.own, mount.top):
        enabled = wanted & _words(folder / "cgroup.subtree_control")
        if enabled & _BOUNDS and _is_writable(folder):
            return Hierarchy(2, folder, enabled), f"not enabled in {folder}/cgroup.subtree_control"
    if not wanted & _words(mount.top / "cgroup.controllers"):
        return None, _LACKING
    return (
        None,
        f"{mount.own} cannot be divided: it is not yours to write, or not for you alone; {_REMEDY_V2}",
    )


def _is_ours_alone(folder: Path) -> bool:
    """Whether it was given to this process, and holds no other that would have to be moved."""
    return (
        folder.name != LEAF
        and _is_writable(folder)
        and os.access(folder / "cgroup.subtree_control", os.W_OK)
        and _words(folder / "cgroup.procs") == {str(os.getpid())}
    )


def _is_writable(folder: Path) -> bool:
    """Whether groups can be made in it, and processes of ours be moved there from beneath it."""
    return os.access(folder, os.W_OK | os.X_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _upwards(folder: Path, top: Path) -> Iterator[Path]:
    while True:
        yield folder
        if folder == top or folder == folder.parent:
            return
        folder = folder.parent


def _words(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text().split())
    except OSError:
        return frozenset()


def read_mounts(process: Path) -> Iterator[Mount]:
    """Yield the control group file systems that this process can see its own group in."""
    if sys.platform != "linux":
        return
    try:
        groups = (process / "cgroup").read_text().splitlines()
        lines = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return
    paths: dict[str, str] = {}
    for line in groups:
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    for line in lines:
        mount = _mount(line, paths)
        if mount is not None:
            yield mount


def _mount(line: str, paths: Mapping[str, str]) -> Mount | None:
    """Read a line of mountinfo; see proc_pid_mountinfo(5)."""
    before, _, after = line.partition(" - ")
    kind, _, options = after.split(" ", 2)
    if kind not in ("cgroup", "cgroup2"):
        return None
    root, top = (re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), part) for part in before.split(" ")[3:5])
    names = frozenset(options.split(",")) & paths.keys() if kind == "cgroup" else frozenset({""})
    path = next((paths[name] for name in names if name in paths), None)
    if path is None or ".." in path.split("/"):  # in a group outside of what this namespace shows
        return None
    if root != "/" and path != root and not path.startswith(f"{root}/"):
        return None
    own = Path(top) / path.removeprefix("" if root == "/" else root).lstrip("/")
    if not own.is_dir():
        return None
    return Mount(2 if kind == "cgroup2" else 1, names if kind == "cgroup" else frozenset(), Path(top), own)


def free_memory_bytes(process: Path = Path("/proc/self")) -> int | None:
    """Return how much more memory the groups that this process is in let it use; None: no limit.

    What the system would drop first, pages of files that nobody has used for a while, counts as free.
    """
    free = [
        room
        for mount in read_mounts(process)
        if mount.version == 2 or "memory" in mount.controllers
        for folder in _upwards(mount.own, mount.top)
        if (room := _room_bytes(folder, mount.version)) is not None
    ]
    return min(free, default=None)


def _room_bytes(folder: Path, version: int) -> int | None:
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if version == 1
        else ("memory.max", "memory.current")
    )
    try:
        limit, used = ((folder / name).read_text().strip() for name in names)
        if limit == "max" or int(limit) >= _UNLIMITED_BYTES:
            return None
        key = "total_inactive_file" if version == 1 else "inactive_file"
        found = re.search(rf"^{key} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        return max(0, int(limit) - int(used) + (int(found[1]) if found else 0))
    except (OSError, ValueError):
        return None
