"""What a command costs with all processes that it starts: wall time, CPU, memory at its peak.

CPU is counted by a control group, because a process that dies with its pid namespace is waited for by
nobody, and no parent's rusage holds what it used. Memory is proportional set size, plus the files that lie in a
tmpfs of a mount namespace of the command's own: a sandbox's working folder is memory too.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox_pool.bench.usage import Process, pss_bytes
from sandbox_pool.host.group_folders import kill, remove
from sandbox_pool.host.hierarchies import Mount, read_mounts

_JOIN_AND_RUN = 'echo 0 > "$0" && exec "$@"'
_LEFT_BEHIND_S = 10.0
_TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Memory:
    """What processes hold at a time, or at most."""

    all_bytes: int = 0
    largest_bytes: int = 0
    """Of one process, at any time so far: its high-water mark, which no look can miss, shared pages included."""

    rest_bytes: int = 0
    """Without the process that is the largest then."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one command, from its start until its last process was gone (wall time: until itself was)."""

    wall_s: float
    cpu_s: float
    memory: Memory | None
    """None: was not looked at."""


def run_costed(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    sample_s: float | None = None,
    timeout_s: float = 3600.0,
) -> Cost:
    """Run a command to its end, and count.

    Its output is shown only if it fails. `sample_s` is how often memory is looked at, which takes CPU from
    the command, None for not at all; after `timeout_s` the command and all its processes are killed.

    Raises:
        SystemExit: it failed or took too long, left processes behind, or no control group can be made here.
    """
    with _group() as (folder, mount), tempfile.TemporaryFile() as written:
        began_at = time.perf_counter()
        ran = subprocess.Popen(
            ["sh", "-c", _JOIN_AND_RUN, str(folder / "cgroup.procs"), *command],
            stdout=written, stderr=written, cwd=cwd, env=dict(environment),
        )  # fmt: skip
        with _watched(folder, sample_s) as seen:
            try:
                ran.wait(timeout_s)
            except BaseException as error:
                _kill_all(folder)
                ran.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise SystemExit(f"{' '.join(command)} did not end within {timeout_s:g} s") from None
                raise
            wall_s = time.perf_counter() - began_at
        if ran.returncode != 0:
            written.seek(0)
            said = written.read()[-_TAIL_BYTES:].decode(errors="replace")
            raise SystemExit(f"{' '.join(command)} failed with {ran.returncode}; it wrote: {said}")
        _wait_until_empty(folder)
        return Cost(wall_s, _cpu_s(folder, mount.version), _most(seen) if sample_s else None)


def counting_mount() -> Mount | None:
    """Return the hierarchy in which a control group that counts CPU can be made, if there is any."""
    mounts = list(read_mounts(Path("/proc/self")))
    found = [m for m in mounts if "cpuacct" in m.controllers] or [m for m in mounts if m.version == 2]
    return found[0] if found and os.access(found[0].own, os.W_OK) else None


@contextmanager
def _group() -> Iterator[tuple[Path, Mount]]:
    """Make a control group that counts CPU; at the end it is removed, and what lives in it is killed."""
    mount = counting_mount()
    if mount is None:
        raise SystemExit("CPU is counted by a control group, and none can be made here: start as root")
    folder = mount.own / f"bench-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder, mount
    finally:
        _kill_all(folder)
        for group in sorted(_groups(folder), reverse=True):  # the deepest first
            remove(group)


def _kill_all(folder: Path) -> None:
    for group in _groups(folder):
        kill(group, frozenset())


def _groups(folder: Path) -> list[Path]:
    return [folder, *(path for path in folder.rglob("*") if path.is_dir())]


def _cpu_s(folder: Path, version: int) -> float:
    if version == 1:
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    found = re.search(r"^usage_usec (\d+)$", (folder / "cpu.stat").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1e6


def _wait_until_empty(folder: Path) -> None:
    deadline = time.monotonic() + _LEFT_BEHIND_S
    while left := _pids(folder):
        if time.monotonic() > deadline:
            raise SystemExit(f"processes {left} live on {_LEFT_BEHIND_S:g} s after the command has ended")
        time.sleep(0.05)


def _pids(folder: Path) -> list[int]:
    found = []
    for group in _groups(folder):
        with suppress(FileNotFoundError):  # a group that was removed meanwhile
            found += [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    return found


@contextmanager
def _watched(folder: Path, every_s: float | None) -> Iterator[list[Memory]]:
    """Look at memory every so many seconds, in a thread; yields the list that is filled meanwhile."""
    seen: list[Memory] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(every_s):
            seen.append(memory_of(_pids(folder)))

    thread = threading.Thread(target=watch) if every_s is not None else None
    if thread:
        thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        if thread:
            thread.join()


def memory_of(pids: Sequence[int]) -> Memory:
    """Return the proportional memory of processes, with the files in any tmpfs that only they see."""
    by_process = [pss_bytes(Process(pid, 0)) for pid in pids]
    all_bytes = sum(by_process) + _tmpfs_bytes(pids)
    largest_bytes = max(map(_high_water_bytes, pids), default=0)
    return Memory(all_bytes, largest_bytes, all_bytes - max(by_process, default=0))


def _high_water_bytes(pid: int) -> int:
    with suppress(OSError):  # it has ended meanwhile
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return 1024 * int(found[1]) if found else 0  # a zombie has none
    return 0


def _most(seen: Sequence[Memory]) -> Memory:
    return Memory(
        max((memory.all_bytes for memory in seen), default=0),
        max((memory.largest_bytes for memory in seen), default=0),
        max((memory.rest_bytes for memory in seen), default=0),
    )


def _tmpfs_bytes(pids: Sequence[int]) -> int:
    used: dict[int, int] = dict.fromkeys(_tmpfs_by_device(os.getpid()), 0)  # the machine's are no one's
    seen = {_mount_namespace(os.getpid())}
    for pid in pids:
        with suppress(OSError):  # it has ended meanwhile
            namespace = _mount_namespace(pid)
            if namespace not in seen:
                seen.add(namespace)
                used = _tmpfs_by_device(pid) | used
    return sum(used.values())


def _mount_namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/mnt").readlink())


def _tmpfs_by_device(pid: int) -> dict[int, int]:
    """Return the device and the bytes in use of each tmpfs that a process sees."""
    found = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("tmpfs "):
            place = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), before.split(" ")[4])
            path = f"/proc/{pid}/root{place}"
            with suppress(OSError):
                size = os.statvfs(path)
                found[Path(path).stat().st_dev] = (size.f_blocks - size.f_bfree) * size.f_frsize
    return found
