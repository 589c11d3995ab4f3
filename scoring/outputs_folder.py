"""A folder of output files that another program has left, as artifacts. No link in it is followed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from scoring.errors import RunDirError
from scoring.facts import MAX_PUT_BYTES
from scoring.trajectory import Artifact

MAX_FILES = 100_000


def artifacts_in(folder: Path, prefix: str) -> dict[str, Artifact]:
    """Return the files and empty folders below `folder`, by `prefix` and their path below it. Blocks.

    A link, or what is no regular file, has a problem and is never read. An empty folder's path ends
    with `/`.

    Raises:
        RunDirError: there is no such folder, or it holds more files than a run leaves.
    """
    if not folder.is_dir():
        raise RunDirError(f"{folder} is not a folder; give the one that holds the output files")
    found: dict[str, Artifact] = {}
    for name, path in _entries(folder):
        if len(found) >= MAX_FILES:
            raise RunDirError(f"{folder} holds more than {MAX_FILES:,} files: is it an output folder?")
        artifact = _artifact(f"{prefix}/{name}", path)
        found[artifact.path] = artifact
    return found


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield files, and folders without any entry, with their path below `folder`; links are not entered."""
    for parent, folders, files in os.walk(folder):
        below = Path(parent).relative_to(folder)
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in [*files, *links]:
            yield (below / name).as_posix(), Path(parent) / name
        if not folders and not files and parent != str(folder):
            yield f"{below.as_posix()}/", Path(parent)


def _artifact(name: str, path: Path) -> Artifact:
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return Artifact(path=name, file=path, n_bytes=0, sha256=None)
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        return Artifact(path=name, file=path, n_bytes=0, sha256=None, problem=kind)
    # What is too large to be read is not hashed either: a sparse file claims any size.
    sha256 = _sha256(path) if status.st_size <= MAX_PUT_BYTES else None
    return Artifact(path=name, file=path, n_bytes=status.st_size, sha256=sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
