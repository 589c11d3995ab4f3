"""The process between the runner and one engine: it starts the engine, and outlives nobody.

vLLM's API server has children that hold the GPU and do not end with it. The keeper adopts whatever the
engine leaves behind (it is a subreaper), so that descent alone says what is the engine's. When the engine
ends, or the owner does by whatever signal (the owner's end of stdin closes), or the owner says `stop`, all
of it is killed, by pid and start time.

Run by path under `python -I -S`, it imports nothing of ours and is up in some 20 ms. It ignores signals that
a terminal or `ray job stop` sends to everybody: the owner decides. Without --own-group the engine is in the
owner's process group, which Ray kills with an actor, and the keeper steps aside: it is in no group and no
child of anybody that Ray kills, so that what Ray does not find is still swept. What it says is one JSON
object a line on stdout: `{"pid": ...}` of the engine, then `{"status": ..., "n_killed": ...}` when nothing is
left of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OWNER_GRACE_S = 1.0
"""For the engine, after the death of its owner."""

SWEEP_S = 30.0
"""Longest wait for killed processes to be gone: those inside a driver end late."""

TRACKER = b"multiprocessing.resource_tracker"
TRACKER_S = 1.0
"""For Python's own removal of shared memory, once those are dead that had it."""

LOG_LOOK_S = 10.0
MAX_LOG_BYTES = 64 << 20
KEPT_LOG_BYTES = 4 << 20
"""An engine's log, which is stderr here, is cut to its end when it has grown so long."""


def main(arguments: list[str]) -> int:
    """Run `keeper.py [--own-group] OWNER_PID COMMAND...`; return 0 once nothing of the engine is left."""
    has_own_group = arguments[0] == "--own-group"
    owner, command = int(arguments[has_own_group]), arguments[has_own_group + 1 :]
    group = 0 if has_own_group else os.getpgid(0)
    if not has_own_group and os.fork():
        os._exit(0)  # a worker of Ray kills its children when it ends, but not those of others
    os.setpgid(0, 0)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    engine = start(command, group or os.getpgid(0))
    say(pid=engine)
    watch(owner, engine)
    status = reap(engine)
    n_killed = sweep()
    say(status=status, n_killed=n_killed)
    return 0


def start(command: list[str], group: int) -> int:
    """Fork and execute the engine in a process group; return its pid. It dies with the keeper."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, group)
        for number in IGNORED:
            signal.signal(number, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot execute {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def watch(owner: int, engine: int) -> None:
    """Return when the engine has ended: by itself, or made to by its owner's word or death."""
    poll = select.poll()
    ended = os.pidfd_open(engine)
    poll.register(ended, select.POLLIN)
    poll.register(0, select.POLLIN)
    # A child that the owner forked may hold the other end of stdin: the owner's own end counts as well.
    try:
        owner_ended = os.pidfd_open(owner)
    except ProcessLookupError:
        owner_ended = 0
    poll.register(owner_ended, select.POLLIN)
    while not (ready := {descriptor for descriptor, _ in poll.poll(LOG_LOOK_S * 1000)}):
        cut_log()
    if ended in ready:
        return
    words = os.read(0, 4096).split() if 0 in ready and owner_ended not in ready else []
    grace_s = float(words[1]) if len(words) > 1 else OWNER_GRACE_S
    signal.pidfd_send_signal(ended, signal.SIGTERM)
    if not select.select([ended], [], [], grace_s)[0]:
        signal.pidfd_send_signal(ended, signal.SIGKILL)
        select.select([ended], [], [], SWEEP_S)


def cut_log() -> None:
    """Cut stderr, a file that is only appended to, where it has grown too long. Its end stays."""
    with contextlib.suppress(OSError):
        n_bytes = os.fstat(2).st_size
        if n_bytes <= MAX_LOG_BYTES:
            return
        with open("/proc/self/fd/2", "rb") as log:  # noqa: PTH123 - opened anew, to be read
            log.seek(-KEPT_LOG_BYTES, os.SEEK_END)
            kept = log.read(KEPT_LOG_BYTES)
        os.ftruncate(2, 0)
        n_cut = n_bytes - len(kept)
        os.write(2, b"--- %d bytes were cut here; the end follows\n%b" % (n_cut, kept))


def reap(engine: int) -> int | None:
    """Return the engine's exit status, minus the signal's number for a killed one; None if it lives on."""
    pid, status = os.waitpid(engine, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def sweep() -> int:
    """Kill all that descends from this process, until there is nothing; return how many were killed."""
    killed: set[tuple[int, int]] = set()
    began_at = time.monotonic()
    while (left := descendants(os.getpid())) and time.monotonic() < began_at + SWEEP_S:
        is_early = time.monotonic() < began_at + TRACKER_S
        for pid, started in left:
            if not (is_early and is_tracker(pid)) and kill(pid, started):
                killed.add((pid, started))
        reap_adopted()
        time.sleep(0.01)
    return len(killed)


def is_tracker(pid: int) -> bool:
    """Return whether a process only waits for others to end, to remove what they leave in /dev/shm."""
    try:
        return TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def kill(pid: int, started: int) -> bool:
    """Send SIGKILL to a process if it is still the one that started then; return whether it was."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if stat(pid)[1] != started:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def reap_adopted() -> None:
    """Collect children that have ended: a zombie still has its pid."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants(ancestor: int) -> list[tuple[int, int]]:
    """Return (pid, start time in clock ticks) of all that descends from a process."""
    parents: dict[int, int] = {}
    starts: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            pid = int(entry.name)
            try:
                parents[pid], starts[pid] = stat(pid)
            except OSError:
                continue  # it has ended meanwhile
    found: set[int] = {ancestor}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return [(pid, starts[pid]) for pid in found - {ancestor}]


def stat(pid: int) -> tuple[int, int]:
    """Return a process's parent and start time. Raises OSError when there is no such process."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[1]), int(fields[19])


def prctl(option: int, value: int) -> None:
    """Set a property of this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def say(**what: object) -> None:
    """Tell the owner, if there still is one."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
