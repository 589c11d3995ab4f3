"""One runner at a time on a run directory, which says who it is."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

import orjson

from runner.errors import RunDirInUse, write_error

LOCK = ".lock"


def take_lock(run_dir: Path) -> int:
    """Return the descriptor that holds the lock until it is closed. Blocks for a moment.

    Raises:
        RunDirInUse: another runner holds it; names its process and machine.
        JournalError: the folder is not writable.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise write_error(run_dir, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(fd)
        os.close(fd)
        raise RunDirInUse(
            f"{run_dir} is in use by another runner{holder}; wait for it, or choose another --run-dir"
        ) from error
    _sign(fd)
    return fd


def _sign(fd: int) -> None:
    mark = orjson.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, mark, 0)
    except OSError:
        pass  # a full disk: the lock itself holds all the same


def _holder(fd: int) -> str:
    try:
        mark = orjson.loads(os.pread(fd, 4096, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(mark["since"]))
        return f" (process {mark['pid']} on {mark['host']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
