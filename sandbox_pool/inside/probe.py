"""What this machine lets a sandbox be held by, found by trying it in processes that are thrown away.

Prints one JSON object. Each trial is `{"ok": true}` or `{"ok": false, "error": ..., "remedy": ...}`:

- `namespace_tier`: the whole of it, root and sandbox built as a zygote and its init do. What follows says
  which part is missing where this is false: `user_namespaces`, `mount`, `tmpfs_quota`, `pivot_root`, `proc`,
  `network`, `ipc`, `uts`, `cgroup`, `seccomp`.
- `drop_uid`: whether root may become another uid; `ok` when not root.
- `landlock_abi`: 0 where there is none. `sysctls`: those that forbid user namespaces, as far as they exist.
- `python`, `executable`, `modules` (which of IPython, ipykernel, zmq, numpy, pandas, matplotlib there are),
  `platform`, `kernel_release`, `machine`, `uid`.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox_pool.inside import isolation, landlock, mounts, seccomp, syscalls
from sandbox_pool.inside.syscalls import SetupFailed, Unsupported

NOBODY = 65_534
_PATIENCE_S = 5
_MODULES = ("IPython", "ipykernel", "zmq", "numpy", "pandas", "matplotlib")
_SYSCTLS = (
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "user/max_user_namespaces",
    "user/max_mnt_namespaces",
    "user/max_net_namespaces",
)
_CONTAINER = "in a container, start it with a seccomp and AppArmor profile that allow it"
_REMEDIES = {
    "mount": f"mounting is refused: {_CONTAINER}",
    "tmpfs_quota": f"tmpfs is refused: {_CONTAINER}",
    "pivot_root": f"pivot_root is refused: {_CONTAINER}",
    "proc": "mounting /proc is refused: in a container, start it with an unmasked /proc "
    "(docker --security-opt systempaths=unconfined, Kubernetes procMount: Unmasked)",
    "network": "network namespaces are refused: raise the sysctl user.max_net_namespaces",
    "ipc": "ipc namespaces are refused: raise the sysctl user.max_ipc_namespaces",
    "uts": "uts namespaces are refused: raise the sysctl user.max_uts_namespaces",
    "cgroup": "cgroup namespaces are refused: raise the sysctl user.max_cgroup_namespaces",
    "seccomp": "seccomp filters are refused: the kernel needs CONFIG_SECCOMP_FILTER",
    "drop_uid": "root may not change its uid: grant CAP_SETUID and CAP_SETGID, or run as an ordinary user",
}


def main() -> None:
    """Print what was found."""
    print(json.dumps(probe()), flush=True)  # noqa: T201 - it is what this is run for


def probe() -> dict[str, Any]:
    """Return what was found; see above. Leaves no process and no mount behind."""
    sysctls = read_sysctls()
    found: dict[str, Any] = {
        "platform": sys.platform,
        "kernel_release": platform.release(),
        "machine": platform.machine(),
        "uid": os.geteuid(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "modules": {name: importlib.util.find_spec(name) is not None for name in _MODULES},
        "landlock_abi": landlock.abi(),
        "sysctls": sysctls,
    }
    for name, trial in _TRIALS.items():
        found[name] = attempt(trial) if syscalls.IS_LINUX else {"ok": False, "error": "this is not Linux"}
        if not found[name]["ok"]:
            remedy = remedy_for_users(sysctls) if name == "user_namespaces" else _REMEDIES.get(name)
            found[name]["remedy"] = remedy or "see the parts below"
    return found


def read_sysctls() -> dict[str, int]:
    """Return the sysctls that can forbid namespaces, as far as this kernel has them."""
    found = {}
    for name in _SYSCTLS:
        with suppress(OSError, ValueError):
            found[name.replace("/", ".")] = int(Path("/proc/sys", name).read_text())
    return found


def remedy_for_users(sysctls: dict[str, int]) -> str:
    """Say what would make user namespaces possible."""
    if sysctls.get("kernel.unprivileged_userns_clone") == 0:
        return "user namespaces are switched off: `sysctl kernel.unprivileged_userns_clone=1`"
    if sysctls.get("kernel.apparmor_restrict_unprivileged_userns") == 1:
        return (
            "AppArmor restricts user namespaces: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or "
            "an AppArmor profile with `userns,` for this interpreter"
        )
    if sysctls.get("user.max_user_namespaces") == 0:
        return "user namespaces are switched off: raise the sysctl user.max_user_namespaces"
    return f"user namespaces are refused, most likely by a seccomp profile: {_CONTAINER}"


def attempt(trial: Callable[[], None]) -> dict[str, Any]:
    """Try something in a process of its own, which is killed when it hangs."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        signal.alarm(_PATIENCE_S)
        try:
            trial()
        except BaseException as error:
            os.write(write, (str(error) or type(error).__name__).encode()[:4000])
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        text = said.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if status == 0:
        return {"ok": True}
    return {"ok": False, "error": text or f"the trial ended with status {status}"}


def in_user_namespace() -> None:
    """Become the root of a user namespace that maps an ordinary uid, as a zygote does."""
    if os.geteuid() == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        isolation.drop_to(NOBODY)
    isolation.unshare_as_user()
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def try_whole() -> None:
    """Build root and sandbox as they are built for use."""
    settings = {
        "tier": "namespace",
        "network": "none",
        "uid": NOBODY,
        "work_bytes": 1 << 20,
        "work_inodes": 100,
    }
    isolation.build_namespaces(settings)
    in_child(lambda: try_zygote(settings))


def try_zygote(settings: dict[str, Any]) -> None:
    """Do what a zygote and its init do, but for forking a kernel."""
    isolation.settle_zygote(check_interpreter=False)
    syscalls.unshare(syscalls.CLONE_NEWPID)
    in_child(lambda: try_sandbox(settings))


def try_sandbox(settings: dict[str, Any]) -> None:
    """Do what init does before it forks the kernel."""
    os.close(isolation.enter_sandbox(settings, None))
    syscalls.drop_capabilities()
    try_seccomp()


def in_child(function: Callable[[], None]) -> None:
    """Call a function in a child, and raise here what it raises there."""
    result = attempt(function)
    if not result["ok"]:
        raise Unsupported(result["error"])


def try_quota() -> None:
    """Mount a tmpfs and see it refuse what is too much: bytes, and files."""
    in_user_namespace()
    folder = mounts.staging_folder()
    syscalls.mount("tmpfs", folder, "tmpfs", 0, "size=64k,nr_inodes=16")
    _expect_full(lambda: Path(folder, "large").write_bytes(bytes(1 << 20)))
    Path(folder, "large").unlink()
    _expect_full(lambda: [Path(folder, str(n)).write_bytes(b"") for n in range(20)])


def _expect_full(action: Callable[[], object]) -> None:
    try:
        action()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return
        raise
    raise SetupFailed("a tmpfs took more than its quota")


def try_mount() -> None:
    """Mount a tmpfs, and a folder read-only in it."""
    in_user_namespace()
    folder = mounts.staging_folder()
    syscalls.mount("tmpfs", folder, "tmpfs", 0, "size=64k")
    Path(folder, "usr").mkdir()
    syscalls.mount("/usr", f"{folder}/usr", None, syscalls.MS_BIND | syscalls.MS_REC)


def try_pivot() -> None:
    """Make a tmpfs the root."""
    in_user_namespace()
    folder = mounts.staging_folder()
    syscalls.mount("tmpfs", folder, "tmpfs", 0, "size=64k")
    syscalls.change_root(folder)


def try_proc() -> None:
    """Mount the /proc of a fresh pid namespace."""
    in_user_namespace()
    in_child(lambda: syscalls.mount("proc", "/proc", "proc", 0))


def try_network() -> None:
    """Make a network namespace with a working loopback."""
    in_user_namespace()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    isolation.bring_loopback_up()


def try_namespace(flag: int) -> Callable[[], None]:
    """Return a trial of one kind of namespace."""

    def trial() -> None:
        in_user_namespace()
        syscalls.unshare(flag)

    return trial


def try_seccomp() -> None:
    """Install the filter and see it refuse."""
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.Filter(families=seccomp.FAMILIES, deny_memfd=True).install()
    try:
        syscalls.unshare(0)  # harmless where it is allowed
    except PermissionError:
        return
    raise Unsupported("a seccomp filter was installed and does not filter")


def try_drop() -> None:
    """Become an ordinary user, if root."""
    if os.geteuid() == 0:
        isolation.drop_to(NOBODY)


_TRIALS: dict[str, Callable[[], None]] = {
    "namespace_tier": try_whole,
    "user_namespaces": in_user_namespace,
    "mount": try_mount,
    "tmpfs_quota": try_quota,
    "pivot_root": try_pivot,
    "proc": try_proc,
    "network": try_network,
    "ipc": try_namespace(syscalls.CLONE_NEWIPC),
    "uts": try_namespace(syscalls.CLONE_NEWUTS),
    "cgroup": try_namespace(syscalls.CLONE_NEWCGROUP),
    "seccomp": try_seccomp,
    "drop_uid": try_drop,
}
