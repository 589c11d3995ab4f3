"""This machine as seen from outside the sandboxes: what is there, and what a closed sandbox has left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

Process = tuple[int, int]
"""A pid and when it started, in ticks: together they name one process for good."""

_IPC = ("shm", "msg", "sem")


@dataclass(frozen=True, slots=True)
class Seen:
    """One process, as /proc shows it."""

    pid: int
    started: int
    parent: int
    state: str
    name: str
    uid: int
    pid_namespace: str

    @property
    def key(self) -> Process:
        """What tells it from a later one with the same pid."""
        return self.pid, self.started


def _read(pid: int) -> Seen | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    name, rest = stat.split("(", 1)[1].rsplit(")", 1)
    parts = rest.split()
    namespace = ""
    with suppress(OSError):
        namespace = str(Path(f"/proc/{pid}/ns/pid").readlink())
    return Seen(pid, int(parts[19]), int(parts[1]), parts[0], name, uid, namespace)


def processes() -> list[Seen]:
    """Return all processes of this machine that are not dead."""
    found = (_read(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [seen for seen in found if seen is not None and seen.state not in "ZX"]


def below(root: int, among: list[Seen] | None = None) -> dict[Process, Seen]:
    """Return the processes below one, without it."""
    children: dict[int, list[Seen]] = {}
    for seen in processes() if among is None else among:
        children.setdefault(seen.parent, []).append(seen)
    found: dict[Process, Seen] = {}
    wave = [root]
    while wave:
        new = [child for parent in wave for child in children.get(parent, [])]
        found |= {child.key: child for child in new}
        wave = [child.pid for child in new]
    return found


@dataclass(frozen=True, slots=True)
class Habitat:
    """What tells the processes of one sandbox, however they run from their parents."""

    uids: frozenset[int]
    pid_namespaces: frozenset[str]

    @classmethod
    def of(cls, own: list[Seen], others: list[Seen]) -> Habitat:
        """Return what the sandbox's processes have and no other process has."""
        return cls(
            frozenset(seen.uid for seen in own) - {seen.uid for seen in others},
            frozenset(seen.pid_namespace for seen in own) - {seen.pid_namespace for seen in others} - {""},
        )

    def inhabitants(self) -> list[Seen]:
        """Return who lives there now."""
        return [s for s in processes() if s.uid in self.uids or s.pid_namespace in self.pid_namespaces]


@dataclass(frozen=True, slots=True)
class World:
    """What a sandbox could leave behind, at one moment."""

    processes: frozenset[str]
    descriptors: frozenset[str]
    cgroups: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]
    ipc: frozenset[str]

    @classmethod
    def now(cls, folder: Path, groups: frozenset[str] = frozenset()) -> World:
        """Look at this process and all below it, at a folder, and at control groups below these."""
        return cls(
            frozenset(f"{seen.name} {seen.key}" for seen in below(os.getpid()).values()),
            frozenset(_descriptors()),
            frozenset(_cgroups(groups)),
            frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
            frozenset(_files(folder)),
            frozenset(_ipc()),
        )

    def left_since(self, before: World) -> dict[str, list[str]]:
        """Return what there is now and was not before, by kind."""
        found = {f.name: sorted(getattr(self, f.name) - getattr(before, f.name)) for f in fields(self)}
        return {kind: names for kind, names in found.items() if names}


def _descriptors() -> Iterator[str]:
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            yield f"{link.name} {link.readlink()}"


def _cgroups(wanted: frozenset[str]) -> Iterator[str]:
    for top, folders, _ in os.walk("/sys/fs/cgroup") if wanted else ():
        for name in folders:
            if not wanted.isdisjoint(f"{top}/{name}".split("/")):
                yield f"{top}/{name}"


def groups_of(among: Iterable[Seen]) -> frozenset[str]:
    """Return the names of the control groups that a pool has made for itself, by the sandboxes in them."""
    found: set[str] = set()
    for seen in among:
        with suppress(OSError):
            found.update(re.findall(r"/(kf-[0-9a-f]{8})/", Path(f"/proc/{seen.pid}/cgroup").read_text()))
    return frozenset(found)


def _files(folder: Path) -> Iterator[str]:
    for top, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield f"{top}/{name}"


def _ipc() -> Iterator[str]:
    for kind in _IPC:
        with suppress(OSError):
            for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]:
                yield f"{kind} {' '.join(line.split()[:2])}"
    with suppress(OSError):
        yield from map(str, Path("/dev/shm").iterdir())


def peak_rss_bytes() -> int:
    """Return the most memory that this process has had since `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def reset_peak() -> int:
    """Start to measure the peak anew, and return what is held now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_rss_bytes()
