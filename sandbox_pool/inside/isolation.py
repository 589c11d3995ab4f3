"""What holds a sandbox: namespaces, uids, capabilities, resource limits, per tier.

The namespace tier nests: the zygote is the first process of a pid namespace below the host's, in a user
namespace whose only uid is an ordinary one of the host; each sandbox is a pid namespace below that, in a
user namespace of its own that owns its network, ipc and uts namespaces. No uid in there is the host's 0.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
from typing import Any

from sandbox_pool.inside import interpreter, mounts, seccomp, syscalls
from sandbox_pool.inside.mounts import SANDBOX
from sandbox_pool.inside.syscalls import SetupFailed, Unsupported

UID_INSIDE = 1000
OOM_SCORE = b"800"
"""Added to a sandbox's badness, so that the system's OOM killer takes it and not the manager."""

_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_LOOPBACK_UP = struct.pack("16sH14x", b"lo", _IFF_UP | _IFF_RUNNING)
_ZYGOTE_NAMESPACES = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
_NO_USER_NAMESPACES = (
    "this machine refuses user namespaces ({error}): `sysctl kernel.unprivileged_userns_clone=1`, "
    "`sysctl kernel.apparmor_restrict_unprivileged_userns=0` or a larger user.max_user_namespaces allow "
    "them; in a container they need a seccomp profile that allows unshare and mount; or choose tier: landlock"
)
_NO_MOUNTS = (
    "this machine refuses to build a sandbox's root ({error}): in a container that needs a seccomp and "
    "AppArmor profile that allows mount and pivot_root, and an unmasked /proc; or choose tier: landlock"
)


def build_namespaces(settings: dict[str, Any]) -> None:
    """Enter the namespaces of the zygote; its next child is the first process of its pid namespace.

    Raises:
        Unsupported: this machine forbids it.
        SetupFailed: the settings name what is not there.
    """
    is_root = os.geteuid() == 0
    if is_root and not settings.get("uid"):
        raise SetupFailed("started as root without a uid to drop to (setting `uid`, not 0)")
    try:
        if is_root:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            mounts.build(settings)
            drop_to(settings["uid"])
        unshare_as_user()
        if not is_root:
            mounts.build(settings)
    except OSError as error:
        raise Unsupported(_NO_MOUNTS.format(error=error)) from error
    syscalls.check(syscalls.libc.sethostname(b"sandbox", 7), "sethostname")


def unshare_as_user() -> None:
    """Enter a zygote's namespaces as the root of a user namespace that has no other uid than this one's."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(_ZYGOTE_NAMESPACES)
        write(b"deny", "/proc/self/setgroups")
        map_ids(0, uid, gid)
    except OSError as error:
        raise Unsupported(_NO_USER_NAMESPACES.format(error=error)) from error


def drop_to(uid: int) -> None:
    """Become an ordinary user of the host for good."""
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise Unsupported(
            f"started as root, but cannot become uid {uid} ({error}): grant CAP_SETUID and CAP_SETGID; in a "
            "user namespace, map a range of uids (podman --userns=auto:size=65536); or be an ordinary user"
        ) from error
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root


def settle_zygote(*, check_interpreter: bool = True) -> None:
    """Finish what only the first process of the pid namespace can: its own /proc, and a place to write."""
    try:
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        mount_writable("size=64m")
    except OSError as error:
        raise Unsupported(_NO_MOUNTS.format(error=error)) from error
    path = interpreter.unreadable(interpreter.prefixes()) if check_interpreter else None
    if path is not None:
        raise SetupFailed(f"uid {_host_uid()} cannot read the interpreter's folder {path}: chmod -R o+rX it")


def _host_uid() -> str:
    with open("/proc/self/uid_map") as file:  # noqa: PTH123
        return file.read().split()[1]


def mount_writable(options: str) -> None:
    """Mount the one file system that a sandbox can write to, with its folders."""
    syscalls.mount("tmpfs", SANDBOX, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, f"mode=0755,{options}")
    mounts.make_folders(SANDBOX)


def map_ids(inside: int, uid: int, gid: int) -> None:
    """Give this process's fresh user namespace its only uid and gid."""
    write(b"%d %d 1" % (inside, uid), "/proc/self/uid_map")
    write(b"%d %d 1" % (inside, gid), "/proc/self/gid_map")


def write(content: bytes, path: str) -> None:
    """Write to a file of /proc, in one call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def enter_sandbox(settings: dict[str, Any], workspace: str | None) -> int:
    """Make and enter the namespaces of one sandbox, as the first process of its pid namespace.

    Returns:
        A descriptor of the working directory, which is also the current directory now.

    Raises:
        Unsupported: this machine refuses, usually for want of namespaces or memory for the moment.
        SetupFailed: there is no such workspace.
    """
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWCGROUP)
        mount_writable(f"size={settings['work_bytes']},nr_inodes={settings['work_inodes']}")
        os.chdir(f"{SANDBOX}/work")
        if settings.get("workspaces") or workspace is not None:
            show_workspace(workspace)
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        write(OOM_SCORE, "/proc/self/oom_score_adj")
        has_network = settings.get("network") == "host"
        # in one call, so that the user namespace owns the others: what no uid in it maps to stays root's
        syscalls.unshare(
            syscalls.CLONE_NEWUSER
            | syscalls.CLONE_NEWIPC
            | syscalls.CLONE_NEWUTS
            | (0 if has_network else syscalls.CLONE_NEWNET)
        )
        map_ids(UID_INSIDE, 0, 0)
    except OSError as error:
        raise Unsupported(explain_refusal(error)) from error
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def explain_refusal(error: OSError) -> str:
    """Say what to do about a sandbox's namespaces being refused where the zygote's were not."""
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return (
            f"no more namespaces ({error}): too many sandboxes for the sysctls user.max_*_namespaces; "
            "raise them, or lower sandbox.max_sandboxes"
        )
    return f"a sandbox's namespaces cannot be made: {error}"


def show_workspace(name: str | None) -> None:
    """Show one workspace read-only, linked from the working directory, and hide all others."""
    if name is not None:
        source = f"{mounts.WORKSPACES}/{name}"
        if name in ("", ".", "..") or "/" in name or not os.path.isdir(source):  # noqa: PTH112
            raise SetupFailed(f"there is no workspace {name!r}")
        syscalls.mount(source, mounts.WORKSPACE, None, syscalls.MS_BIND | syscalls.MS_REC)
        os.symlink(mounts.WORKSPACE, "workspace")  # noqa: PTH211
    syscalls.mount(mounts.EMPTY, mounts.WORKSPACES, None, syscalls.MS_BIND)


def bring_loopback_up() -> None:
    """Make 127.0.0.1 usable in a fresh network namespace."""
    libc = syscalls.libc  # Python's sockets are more memory to touch
    control = syscalls.check(
        libc.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0), "socket"
    )
    result = libc.ioctl(control, _SIOCSIFFLAGS, _LOOPBACK_UP)
    os.close(control)
    syscalls.check(result, "setting the loopback interface up")


def give_up_rights(seccomp_filter: seccomp.Filter | None) -> None:
    """Give up all capabilities and the system calls of the filter, for this process and its children."""
    syscalls.drop_capabilities()
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    assert seccomp_filter is not None
    seccomp_filter.install()


def limit(limits: dict[str, int]) -> None:
    """Set resource limits; one that the hard limit forbids is set as high as it goes."""
    for name, value in limits.items():
        number = getattr(resource, name, None)
        if number is None:
            continue
        _, hard = resource.getrlimit(number)
        top = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # one second between SIGXCPU, which tells the reason, and SIGKILL
        soft = top - 1 if name == "RLIMIT_CPU" and top > 1 else top
        resource.setrlimit(number, (soft, top))


_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP)
_NEVER_IGNORED = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, *_FAULTS)
_IGNORED = [int(number) for number in signal.valid_signals() if number not in _NEVER_IGNORED]


def ignore_signals() -> None:
    """Let nothing but SIGKILL and this process's own faults end it; its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _IGNORED:
        syscalls.handle_signal(number, syscalls.SIG_IGN)


def reset_signals() -> None:
    """Handle signals as a fresh process does."""
    for number in _IGNORED:
        syscalls.handle_signal(number, syscalls.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
