"""A folder of output files that another program has left, as artifacts. No link in it is followed."""

from __future__ import annotations

import logging
import os
import stat
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from scoring.errors import RunDirError
from scoring.trajectory import Artifact

logger = logging.getLogger(__name__)

MAX_BELOW = 10_000
"""Entries listed of each folder in the output folder: what one task floods is lost to itself alone."""


def artifacts_in(folder: Path, prefix: str) -> dict[str, Artifact]:
    """Return the files and folders below `folder`, by `prefix` and their path below it. Blocks.

    Nothing is opened: a link, or what is no regular file, has a problem and is never read, and no file has
    a digest. A folder's path ends with `/`. Of a folder with very many entries the deepest are left out.

    Raises:
        RunDirError: there is no such folder, or it cannot be listed.
    """
    if not folder.is_dir():
        raise RunDirError(f"{folder} is not a folder; give the one that holds the output files")
    found: dict[str, Artifact] = {}
    try:
        entries = _entries(folder)
    except OSError as error:
        raise RunDirError(f"{folder} cannot be listed: {error.strerror}; give a readable folder") from error
    for entry in entries:
        below = _below(entry, f"{prefix}/{entry.name}")
        found |= {artifact.path: artifact for artifact in islice(below, MAX_BELOW)}
        if next(below, None) is not None:
            logger.warning(
                "%r holds more than %d files and folders: some are left out", entry.path, MAX_BELOW
            )
    return found


def _below(entry: os.DirEntry[str], name: str) -> Iterator[Artifact]:
    """Yield what an entry is and, if a folder, all that is below it, the nearest first."""
    waiting = deque([(entry, name)])
    while waiting:
        entry, name = waiting.popleft()
        if not entry.is_dir(follow_symlinks=False):
            yield _artifact(entry, name)
            continue
        yield Artifact(path=f"{name}/", file=Path(entry.path), n_bytes=0, sha256=None)
        try:
            waiting.extend((inner, f"{name}/{inner.name}") for inner in _entries(entry.path))
        except OSError as error:  # its path can be longer than the system takes
            logger.warning("%.200r cannot be listed: %s", entry.path, error.strerror)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _artifact(entry: os.DirEntry[str], name: str) -> Artifact:
    n_bytes, problem = 0, None
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    else:
        n_bytes = status.st_size
        if stat.S_ISLNK(status.st_mode):
            problem = "a symbolic link"
        elif not stat.S_ISREG(status.st_mode):
            problem = "no regular file"
        elif not os.access(entry.path, os.R_OK):
            problem = "not readable"
    return Artifact(path=name, file=Path(entry.path), n_bytes=n_bytes, sha256=None, problem=problem)
