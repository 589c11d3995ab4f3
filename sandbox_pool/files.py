"""Files into a working directory and out of it. Nothing is followed, nothing is trusted.

A working directory is known by a descriptor, since nothing but the sandbox's own mounts may have a path to
it. Paths beneath it are opened by `beneath.open_beneath`: a link anywhere on the way is an error, and
nothing that the sandbox renames meanwhile leads out. All functions block; call them in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sandbox_pool.beneath import acting_as, give, open_beneath
from sandbox_pool.errors import SandboxPathError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
BLOCK_BYTES = 1024 * 1024
"""Bytes that are copied at once."""

SYMBOLIC_LINK = "symbolic link"
"""Why such a file is not taken."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
PATH_ERRORS = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EXDEV, errno.EACCES,
    errno.EPERM, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENXIO, errno.EAGAIN, errno.EROFS,
}  # fmt: skip
"""What names, kinds and rights that the sandbox chose can lead to, on a machine that is sound."""


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
    root: int, parts: Sequence[str], *, owner: int | None = None, make: bool = False
) -> Iterator[int]:
    """Open the folder `parts` beneath `root` and yield its descriptor.

    Args:
        root: descriptor of a folder, which stays the caller's; what is beneath it is the sandbox's.
        parts: components, as from split_path.
        owner: uid of folders that are made; see `beneath.acting_as`.
        make: whether missing folders are made.

    Raises:
        SandboxPathError: a component is missing, a link, or no folder.
        OSError: the disk is full.
    """
    if make:
        _make_folders(root, parts, owner)
    try:
        folder = open_beneath(root, "/".join(parts) or ".", _FOLDER)
    except OSError as error:
        if error.errno not in PATH_ERRORS:
            raise
        where = "/".join(parts)
        raise SandboxPathError(f"{where!r} is no folder of the working directory: {error.strerror}") from None
    try:
        yield folder
    finally:
        os.close(folder)


def _make_folders(root: int, parts: Sequence[str], owner: int | None) -> None:
    folder = os.dup(root)
    try:
        for n, part in enumerate(parts):
            where = "/".join(parts[: n + 1])
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=folder)
                    give(part, owner, dir_fd=folder)
                inner = open_beneath(folder, part, _FOLDER)
            except OSError as error:
                raise _said(error, where) from None
            os.close(folder)
            folder = inner
    finally:
        os.close(folder)


def _said(error: OSError, path: str) -> Exception:
    """Return what an error beneath the working directory means to whoever writes there."""
    if error.errno in _FULL:
        return OSError(
            error.errno,
            f"the sandbox's disk is full, so that {path!r} cannot be written: raise sandbox.disk_bytes or "
            "sandbox.max_files, or set sandbox.scratch to a disk with room",
        )
    if error.errno in PATH_ERRORS:
        return SandboxPathError(f"{path!r} cannot be written in the working directory: {error.strerror}")
    return error


def write_file(root: int, path: str, data: bytes | Path, *, owner: int | None = None) -> None:
    """Write a file beneath `root`, with its parents; replaces what is there, even a link.

    Args:
        root: descriptor of the working directory; stays the caller's.
        path: relative to it.
        data: bytes, or a file of this machine that is read with this process's own rights.
        owner: uid that the file and its folders belong to; see `beneath.acting_as`.

    Raises:
        SandboxPathError: the path is not beneath the folder, runs through a link or a file, or the sandbox
            has taken the right to write there from itself.
        OSError: `data` is a file that cannot be read, or the disk is full.
    """
    *parents, name = split_path(path)
    with ExitStack() as stack:
        source = os.open(data, os.O_RDONLY | os.O_CLOEXEC) if isinstance(data, Path) else None
        if source is not None:
            stack.callback(os.close, source)
            os.read(source, 0)  # a folder can be opened, and is an error of who named it
        stack.enter_context(acting_as(owner))
        folder = stack.enter_context(folder_beneath(root, parents, owner=owner, make=True))
        temporary = f".kf-{os.urandom(8).hex()}"
        try:
            _write_beside(folder, temporary, data if isinstance(data, bytes) else source, owner)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            if isinstance(error, IsADirectoryError):
                raise SandboxPathError(f"{path!r} is a folder") from None
            if isinstance(error, OSError) and not isinstance(error, _SourceError):
                raise _said(error, path) from None
            raise


class _SourceError(OSError):
    """The file that is copied could not be read."""


def _write_beside(folder: int, name: str, data: bytes | int | None, owner: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(name, flags, 0o644, dir_fd=folder)
    try:
        for block in [data] if isinstance(data, bytes) else _blocks(data):
            write_all(target, block)
        give(name, owner, dir_fd=folder)
    finally:
        os.close(target)


def _blocks(source: int | None) -> Iterator[bytes]:
    assert source is not None
    while True:
        try:
            block = os.read(source, BLOCK_BYTES)
        except OSError as error:
            raise _SourceError(error.errno, error.strerror) from error
        if not block:
            return
        yield block


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, however little the system takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(root: int, path: str, *, owner: int | None = None) -> None:
    """Make a folder beneath `root`, with its parents. Arguments and errors as for write_file."""
    with acting_as(owner), folder_beneath(root, split_path(path), owner=owner, make=True):
        pass


def read_file(root: int, path: str, max_bytes: int) -> bytes:
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
        descriptor = open_beneath(folder, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        return None, error.strerror or str(error)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        return None, _kind(kind)
    return descriptor, ""


def _kind(mode: int) -> str:
    names = (
        (stat.S_ISLNK, SYMBOLIC_LINK),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISDIR, "folder"),
    )
    return next((name for test, name in names if test(mode)), "device")
