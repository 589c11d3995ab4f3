"""A worker's folder: in the run directory where its node sees that, else on the node itself. Blocks."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PREFIX = "kernelfleet-worker-"
LOCK = ".lock"


class Scratch(NamedTuple):
    """A folder that is its worker's alone."""

    path: Path
    is_in_run_dir: bool
    lock_fd: int | None

    def remove(self) -> None:
        """Remove it with all that it holds."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock_fd is not None:
            os.close(self.lock_fd)


def make_scratch(staging: Path, nonce: str) -> Scratch:
    """Return the folder that the driver made, if it is there with the file that the driver put in.

    Else a folder below the node's temporary one; those that killed workers left there are removed.

    Raises OSError.
    """
    if (staging / nonce).is_file() and os.access(staging, os.W_OK):
        return Scratch(staging, is_in_run_dir=True, lock_fd=None)
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{PREFIX}*"):
        _remove_if_left(old)
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if (path / LOCK).exists():  # else another worker took it for one that is left
            return Scratch(path, is_in_run_dir=False, lock_fd=fd)
        os.close(fd)


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError):  # it is used, another user's, or just being made
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(fd)
