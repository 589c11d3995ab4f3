"""Control groups as folders: written, locked, emptied and removed; see `cgroups`. All of it may block."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"kf-[0-9a-f]{8}")
_REMOVE_S = 2.0
_KILL_S = 5.0


def write(file: Path, value: object) -> None:
    """Give one command to a control file that is there. Raises OSError as the system answers."""
    # not Path.write_text: it would make the file, and one write() is one command
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def write_if_there(file: Path, value: object) -> None:
    """Write to a control file that not every kernel has."""
    with suppress(FileNotFoundError):  # swap is accounted for only if the system was started so
        write(file, value)


def locked_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder, and lock it: by that, other pools know that it is in use."""
    while True:
        folder = parent / f"kf-{secrets.token_hex(4)}"
        folder.mkdir()
        with suppress(FileNotFoundError):  # another pool took it for abandoned before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in `parent` whose pool was killed, and kill what lives in them."""
    for folder in parent.glob("kf-*"):
        if _NAME.fullmatch(folder.name):
            with suppress(OSError), _unused(folder):  # in use, or gone meanwhile
                remove_pool(folder)


@contextmanager
def _unused(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def remove_pool(top: Path) -> None:
    """Kill what lives in a pool's groups and remove them all. Raises OSError as `remove` and `kill`."""
    with suppress(FileNotFoundError):
        for folder in [entry for entry in top.iterdir() if entry.is_dir()]:
            kill(folder, frozenset({"pids"}))
            remove(folder)
        remove(top)


def remove(folder: Path) -> None:
    """Remove a group; what was killed in it may take a moment to be gone.

    Raises:
        OSError: EBUSY, something in it lives.
    """
    deadline = time.monotonic() + _REMOVE_S
    wait_s = 0.0005
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(wait_s)
            wait_s = min(0.05, wait_s * 2)
        else:
            return


def kill(folder: Path, controllers: frozenset[str]) -> None:
    """Kill all processes of a group, however fast they fork.

    Of version 2 they may take a moment to be gone, of version 1 they are.

    Raises:
        OSError: some live on after seconds of trying.
    """
    with suppress(FileNotFoundError):
        if not _members(folder):
            return
        with suppress(OSError):  # Linux 5.14 and version 2 have it
            write(folder / "cgroup.kill", 1)
            return
        if "pids" in controllers:
            write_if_there(folder / "pids.max", 0)  # so that nothing forks faster than it is killed
        _kill_members(folder)


def _kill_members(folder: Path) -> None:
    deadline = time.monotonic() + _KILL_S
    while members := _members(folder):
        if time.monotonic() > deadline:
            living = f"{len(members)} processes of {folder} live on after {_KILL_S:g} s of killing"
            raise OSError(errno.EBUSY, living)
        _kill_once(folder, members)
        time.sleep(0.001)


def _kill_once(folder: Path, members: list[int]) -> None:
    with ExitStack() as stack:
        pidfds: dict[int, int] = {}
        for pid in members:
            with suppress(OSError):
                pidfds[pid] = os.pidfd_open(pid)
                stack.callback(os.close, pidfds[pid])
        for pid in _members(folder):  # again: one that is no longer there had ended, its number is another's
            if pid in pidfds:
                with suppress(OSError):
                    signal.pidfd_send_signal(pidfds[pid], signal.SIGKILL)


def _members(folder: Path) -> list[int]:
    """Return the processes of a group; those that this pid namespace does not show read as 0."""
    return [pid for word in (folder / "cgroup.procs").read_text().split() if (pid := int(word)) > 0]
