"""The system calls that Python has no function for, each an OSError when it fails."""

from __future__ import annotations

import ctypes
import os
import sys

IS_LINUX = sys.platform == "linux"

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

SIG_DFL, SIG_IGN = 0, 1

LAST_CAPABILITY = 63
"""No kernel has more: two words of 32 bits."""

_CAPABILITY_VERSION_3 = 0x20080522
_SYS_CLOSE_RANGE = 436  # on every architecture
_MAX_DESCRIPTOR = 2**31 - 1

libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock during a call
_ulong = ctypes.c_ulong
if IS_LINUX:
    libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, _ulong, ctypes.c_char_p]
    libc.prctl.argtypes = [ctypes.c_int, _ulong, _ulong, _ulong, _ulong]
    libc.syscall.restype = ctypes.c_long
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal.restype = ctypes.c_void_p
_capset_header = ctypes.create_string_buffer(_CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4), 8)
_no_capabilities = ctypes.create_string_buffer(24)


class Unsupported(Exception):  # noqa: N818 - it is told over the socket, and raised as another error there
    """This machine cannot do what was asked; the text says what would help."""


class SetupFailed(Exception):  # noqa: N818 - as above
    """The settings ask for what is not there; the text names it."""


def check(result: int, what: str) -> int:
    """Return the result of a C call; raise OSError, which names what was tried, when it failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def prctl(option: int, value: int = 0) -> None:
    """Set a property of this process; does nothing where there is no prctl."""
    if IS_LINUX:
        check(libc.prctl(option, value, 0, 0, 0), f"prctl({option}, {value})")


def unshare(flags: int) -> None:
    """Move this process (for CLONE_NEWPID: its next child) into new namespaces."""
    check(libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int) -> None:
    """Move this process (for CLONE_NEWPID: its next child) into a namespace."""
    check(libc.setns(descriptor, kind), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Attach a file system, a folder or a file at `target`."""
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    check(libc.mount(names[0], names[1], names[2], flags, names[3]), f"mount {source} on {target}")


def unmount(target: str) -> None:
    """Take away what is mounted at `target` as soon as nobody uses it."""
    check(libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def change_root(folder: str) -> None:
    """Make `folder`, a mount, the root of this mount namespace, and let go of the old one."""
    os.chdir(folder)
    check(libc.pivot_root(b".", b"."), f"pivot_root to {folder}")
    unmount(".")  # the old root lies on top of the new one
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up all capabilities, and the right to ever get one by executing a file."""
    drop_bounding_set()
    check(libc.capset(_capset_header, _no_capabilities), "capset")


def drop_bounding_set() -> None:
    """Give up the right to ever get a capability by executing a file, if we may."""
    for number in range(LAST_CAPABILITY + 1):
        if libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break  # the kernel's last one, or we had no right to any


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor that is not in `kept`."""
    low = 0
    for descriptor in [*sorted(set(kept)), _MAX_DESCRIPTOR + 1]:
        if descriptor > low and (not IS_LINUX or libc.syscall(_SYS_CLOSE_RANGE, low, descriptor - 1, 0) < 0):
            os.closerange(low, min(descriptor, os.sysconf("SC_OPEN_MAX")))  # Linux before 5.9, and macOS
        low = descriptor + 1


def fork_quietly() -> int:
    """Fork without calling what modules asked to be called in a forked process.

    For a child that only makes system calls and forks properly itself: it touches, and so copies, far
    less of the memory that it shares with us. Only while there is one thread. Raises OSError.
    """
    return check(_python.fork(), "fork")


def handle_signal(number: int, action: int) -> None:
    """Ignore a signal or let it do what it does, unseen by Python, whose own call is slow."""
    libc.signal(number, action)


def n_tasks() -> int:
    """Return how many threads this process has, those of C libraries included."""
    if not IS_LINUX:
        import threading

        return threading.active_count()
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - asked before each fork
