"""Killing every process of a sandbox where no pid namespace does it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from sandbox_pool.inside.syscalls import IS_LINUX


def kill_by_uid(uid: int, killer_uid: int) -> None:
    """Kill every process of a sandbox's uid, in one call that nothing can fork away from. For root only.

    While it kills, this process has the effective uid of the sandbox, so that it reaches all of it and
    nothing else, and the real uid of no one, so that the sandbox cannot reach back.
    """
    os.setresuid(killer_uid, uid, 0)
    try:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    finally:
        os.setresuid(0, 0, 0)


def descendants() -> list[int]:
    """Return all processes below this one, as /proc shows them; none where there is no /proc."""
    if not IS_LINUX:
        return []
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - may run after a fork from a large process
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                parent = int(file.read().rsplit(b")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(name))
    found, wave = [], [os.getpid()]
    while wave:
        wave = [child for parent in wave for child in children.get(parent, [])]
        found += wave
    return found


def kill_descendants() -> None:
    """Kill what is below this process now; what forks meanwhile needs another call."""
    for pid in descendants():
        send_signal(pid, signal.SIGKILL)


def kill_all(kernel: int | None, uid: int | None, killer_uid: int | None, give_up_s: float) -> None:
    """Kill every process of the sandbox and return when they are gone, or after `give_up_s`.

    Args:
        kernel: the kernel's pid, which leads its process group; None when it has been collected.
        uid: of the sandbox alone; None when it shares ours.
        killer_uid: of no one; None when it shares ours.
        give_up_s: what even a fork bomb that is reparented over and over does not outlast.
    """
    give_up_at = time.monotonic() + give_up_s
    while time.monotonic() < give_up_at:
        if uid is not None and killer_uid is not None:
            kill_by_uid(uid, killer_uid)
        else:
            if kernel is not None:
                send_signal(-kernel, signal.SIGKILL)
            kill_descendants()
        kernel = None
        if reap_until_idle(0.05):
            return


def reap_until_idle(patience_s: float) -> bool:
    """Collect dead children, adopted orphans included; True when none is left."""
    give_up_at = time.monotonic() + patience_s
    while time.monotonic() < give_up_at:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.0005)
        except ChildProcessError:
            return True
    return False


def send_signal(pid: int, number: int) -> None:
    """Signal a process, or a group by its negative number, that may be gone."""
    with suppress(OSError):
        os.kill(pid, number)
