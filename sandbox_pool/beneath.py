"""What the standard library lacks: opening beneath a folder, acting as another uid on files, syncfs."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
_OPENAT2 = 437  # the same on all architectures that Linux has; <asm-generic/unistd.h>
_RESOLVE_NO_XDEV = 0x01  # these: <linux/openat2.h>
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_NOBODY_SET = 2**32 - 1  # no uid: setfsuid() with it changes nothing, and returns the one in force


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def open_beneath(folder: int, path: str, flags: int) -> int:
    """Open `path` beneath the descriptor `folder`, through no link and into no other file system.

    By openat2 where the system has it, one component after the other elsewhere. Never creates anything.

    Args:
        folder: stays the caller's.
        path: relative, without `..`.
        flags: of os.open; O_NOFOLLOW and O_CLOEXEC are added.

    Raises:
        OSError: as os.open; ELOOP for a link, EXDEV for a mount, ENOTDIR for either in older systems.
    """
    if has_openat2():
        try:
            return _openat2(folder, path, flags)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
    return _walk(folder, path, flags)


def _walk(folder: int, path: str, flags: int) -> int:
    *parents, name = path.split("/")
    inner = os.dup(folder)
    try:
        for part in parents:
            step = _open_one(inner, part, os.O_RDONLY | os.O_DIRECTORY)
            os.close(inner)
            inner = step
        return _open_one(inner, name, flags)
    finally:
        os.close(inner)


def _open_one(folder: int, name: str, flags: int) -> int:
    return _openat2(folder, name, flags) if has_openat2() else os.open(name, flags | _SAFE, dir_fd=folder)


@cache
def has_openat2() -> bool:
    """Whether the system has openat2, and lets this process use it."""
    if sys.platform != "linux":
        return False
    try:
        os.close(_openat2(-100, ".", os.O_RDONLY | os.O_DIRECTORY))  # AT_FDCWD
    except OSError:  # ENOSYS before Linux 5.6; EPERM under an old container engine's filter
        return False
    return True


def _openat2(folder: int, path: str, flags: int) -> int:
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV
    how = _OpenHow(flags | _SAFE, 0, resolve)
    name = os.fsencode(path)
    while True:
        descriptor = int(
            _libc().syscall(
                ctypes.c_long(_OPENAT2), ctypes.c_int(folder), ctypes.c_char_p(name),
                ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)),
            )
        )  # fmt: skip
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number != errno.EINTR:  # EAGAIN is not tried again: a lease that the sandbox took can cause it
            raise OSError(number, os.strerror(number), path)


def sync_all(folder: Path) -> bool:
    """Bring all of the file system that `folder` is on to disk; False where the system cannot.

    Raises:
        OSError: something could not be written.
    """
    if sys.platform != "linux":
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc().syncfs(ctypes.c_int(descriptor)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True


@contextmanager
def acting_as(owner: int | None) -> Iterator[None]:
    """Let this thread reach files as the uid and gid `owner` would. None, or not Linux: as it is.

    Root needs it to write into a file system that another user namespace has mounted: there, its own uid
    does not exist (EOVERFLOW). What is made belongs to `owner`, and its rights are what counts. Only this
    thread is affected, its right to send signals is not. Once used, the process leaves no core dumps.

    Raises:
        PermissionError: this process may not become `owner`.
    """
    if owner is None or sys.platform != "linux":
        yield
        return
    uid = int(_libc().setfsuid(ctypes.c_uint32(_NOBODY_SET)))
    gid = int(_libc().setfsgid(ctypes.c_uint32(_NOBODY_SET)))
    try:
        _become(owner, owner)  # the gid first: a later loss of rights does not matter then
        yield
    finally:
        _become(uid & _NOBODY_SET, gid & _NOBODY_SET)


def _become(uid: int, gid: int) -> None:
    libc = _libc()
    libc.setfsgid(ctypes.c_uint32(gid))
    libc.setfsuid(ctypes.c_uint32(uid))
    # neither call says whether it worked
    now = int(libc.setfsuid(ctypes.c_uint32(_NOBODY_SET))), int(libc.setfsgid(ctypes.c_uint32(_NOBODY_SET)))
    if (now[0] & _NOBODY_SET, now[1] & _NOBODY_SET) != (uid, gid):
        raise PermissionError(
            errno.EPERM, f"this process may not reach files as uid {uid}: it lacks CAP_SETUID"
        )


def give(name: str, owner: int | None, *, dir_fd: int) -> None:
    """Give a file that was just made to `owner`, where `acting_as` could not make it so."""
    if owner is not None and sys.platform != "linux":
        os.chown(name, owner, owner, dir_fd=dir_fd, follow_symlinks=False)
