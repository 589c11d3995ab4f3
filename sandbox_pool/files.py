"""Files into a working directory and out of it. Nothing is followed, nothing is trusted.

Paths are walked one component at a time from a directory descriptor, each opened with O_NOFOLLOW: a
link anywhere on the way is an error, and nothing that the sandbox renames meanwhile leads out. All
functions block; call them in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sandbox_pool.errors import SandboxPathError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BLOCK_BYTES = 1024 * 1024
"""Bytes that are copied at once."""


def split_path(path: str) -> tuple[str, ...]:
    """Return the components of a path beneath the working directory.

    Raises:
        SandboxPathError: it is empty, absolute, holds `..` or a NUL, or is no UTF-8.
    """
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SandboxPathError(f"path {path!r} is not UTF-8") from None
    if path.startswith("/") or ".." in parts or "\0" in path or not parts:
        raise SandboxPathError(
            f"path {path!r} is not beneath the working directory: give a relative one, no '..'"
        )
    return parts


@contextmanager
def folder_beneath(
    root: Path, parts: Sequence[str], *, owner: tuple[int, int] | None = None, make: bool = False
) -> Iterator[int]:
    """Open the folder `parts` beneath `root` and yield its descriptor.

    Args:
        root: a folder of ours; what is beneath it is the sandbox's.
        parts: components, as from split_path.
        owner: uid and gid of folders that are made.
        make: whether missing folders are made.

    Raises:
        SandboxPathError: a component is missing, a link, or no folder.
    """
    folder = os.open(root, _FOLDER)
    try:
        for n, part in enumerate(parts):
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=folder)
                    if owner is not None:
                        os.chown(part, *owner, dir_fd=folder, follow_symlinks=False)
            try:
                inner = os.open(part, _FOLDER, dir_fd=folder)
            except OSError as error:
                where = "/".join(parts[: n + 1])
                raise SandboxPathError(
                    f"{where!r} is no folder of the working directory: {error.strerror}"
                ) from None
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def write_file(root: Path, path: str, data: bytes | Path, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file beneath `root`, with its parents; replaces what is there, even a link.

    Raises:
        SandboxPathError: the path is not beneath the folder, or runs through a link or a file.
        OSError: `data` is a file that cannot be read, or the disk is full.
    """
    *parents, name = split_path(path)
    temporary = f".kf-{os.urandom(8).hex()}"
    with folder_beneath(root, parents, owner=owner, make=True) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o644, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as target:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        while block := source.read(BLOCK_BYTES):
                            target.write(block)
                else:
                    target.write(data)
                if owner is not None:
                    os.fchown(target.fileno(), *owner)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            if isinstance(error, IsADirectoryError):
                raise SandboxPathError(f"{path!r} is a folder") from None
            raise


def make_folder(root: Path, path: str, *, owner: tuple[int, int] | None = None) -> None:
    """Make a folder beneath `root`, with its parents. Raises SandboxPathError like write_file."""
    with folder_beneath(root, split_path(path), owner=owner, make=True):
        pass


def read_file(root: Path, path: str, max_bytes: int) -> bytes:
    """Return the content of a regular file beneath `root`.

    Raises:
        SandboxPathError: no such file, no regular file, a link, or larger than `max_bytes`.
    """
    *parents, name = split_path(path)
    with folder_beneath(root, parents) as folder:
        descriptor, problem = open_regular(folder, name)
        if descriptor is None:
            raise SandboxPathError(f"{path!r} cannot be read: {problem}")
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise SandboxPathError(f"{path!r} has more than {max_bytes} bytes (max_read_bytes)")
    return data


def open_regular(folder: int, name: str) -> tuple[int | None, str]:
    """Open a regular file for reading; otherwise None and why not."""
    try:
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISREG(kind):
            return None, _kind(kind)
        # O_NONBLOCK: it may have become a fifo since
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        return None, error.strerror or str(error)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        return None, _kind(kind)
    return descriptor, ""


def _kind(mode: int) -> str:
    names = (
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISDIR, "folder"),
    )
    return next((name for test, name in names if test(mode)), "device")
