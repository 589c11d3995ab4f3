"""What a zygote prepares once for all sandboxes of its tier, so that a fork has little left to do."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from sandbox_pool.inside import hostview, interpreter, landlock, mounts, seccomp, syscalls

_STARTUP = "startup"
"""Folder in ours whose sitecustomize.py lets commands find what kernels find."""


class Tier:
    """What sandboxes share: filters, rules, the zygote's pid namespace, and word of the zygote's death."""

    def __init__(
        self,
        enforced: dict[str, Any],
        *,
        seccomp_filter: seccomp.Filter | None = None,
        rules: landlock.Rules | None = None,
        pid_namespace: int | None = None,
        lifeline: tuple[int, int] | None = None,
    ) -> None:
        self.enforced = enforced
        self.filter = seccomp_filter
        self.rules = rules
        self.lifeline = lifeline
        """Read and write end of a pipe; only the zygote keeps the write end open, so that guardians that no
        pid namespace takes along see its death."""

        self._pid_namespace = pid_namespace

    def fork(self) -> int:
        """Fork; the child is the first process of a pid namespace where the tier has them.

        Raises OSError when the system has no more to give; this process is as before then.
        """
        if self._pid_namespace is None:
            return syscalls.fork_quietly()
        syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = -1
        try:
            pid = syscalls.fork_quietly()
        finally:
            if pid != 0:
                syscalls.setns(self._pid_namespace, syscalls.CLONE_NEWPID)
        return pid


def prepare(settings: dict[str, Any]) -> Tier:
    """Prepare the tier of these settings, in the process that stays the zygote.

    Raises:
        Unsupported: this machine cannot enforce it.
        SetupFailed: the settings name what is not there.
    """
    if settings["tier"] == "namespace":
        os.environ.update(environment(settings, mounts.SANDBOX))
        os.chdir(f"{mounts.SANDBOX}/work")
        namespaces = ["user", "pid", "mount", "ipc", "uts", "cgroup"]
        if settings["network"] == "none":
            namespaces.append("network")
        return Tier(
            {"tier": "namespace", "namespaces": namespaces, "seccomp": True, "landlock_abi": None},
            seccomp_filter=make_filter(settings, families=seccomp.FAMILIES),
            pid_namespace=os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC),
        )
    return _prepare_on_host(settings)


def _prepare_on_host(settings: dict[str, Any]) -> Tier:
    is_landlock = settings["tier"] == "landlock"
    enforced: dict[str, Any] = {"tier": settings["tier"], "namespaces": [], "seccomp": is_landlock}
    if os.geteuid() == 0 and syscalls.IS_LINUX:
        hostview.open_the_way(settings)
    home = tempfile.mkdtemp(prefix="zygote-", dir=settings.get("scratch"))
    mounts.make_folders(home)
    os.environ.update(environment(settings, home))
    lifeline = os.pipe()
    if not is_landlock:
        return Tier({**enforced, "landlock_abi": None}, lifeline=lifeline)
    has_network = settings["network"] == "host"
    rules = landlock.Rules(settings, has_network=has_network)
    return Tier(
        {**enforced, "landlock_abi": rules.abi},
        seccomp_filter=make_filter(settings, families=seccomp.FAMILIES if has_network else seccomp.ONLY_UNIX),
        rules=rules,
        lifeline=lifeline,
    )


def make_filter(settings: dict[str, Any], families: tuple[int, ...]) -> seccomp.Filter:
    """Return the system call filter of these settings. Raises Unsupported where there is none."""
    return seccomp.Filter(
        families=families,
        deny_memfd=bool(settings.get("deny_memfd")),
        deny_outlasting=settings["tier"] != "namespace",
    )


def environment(settings: dict[str, Any], top: str) -> dict[str, str]:
    """Return the variables of kernels whose folders are below `top`: the manager's, and those that name them.

    The manager's come last, as what a profile says goes before what we choose.
    """
    home = f"{top}/home"
    given = settings.get("environment") or {}
    is_inside = settings["tier"] == "namespace"
    startup = f"{mounts.INSIDE if is_inside else interpreter.OWN_FOLDER}/{_STARTUP}"
    paths = [startup, *filter(None, [given.get("PYTHONPATH")])]
    return {
        "HOME": home,
        "TMPDIR": f"{top}/tmp",
        "IPYTHONDIR": f"{home}/.ipython",
        "MPLCONFIGDIR": f"{home}/.config/matplotlib",
        "PIP_PREFIX": f"{home}/.local",
        "PIP_NO_WARN_SCRIPT_LOCATION": "1",
        "SANDBOX_PACKAGES": os.pathsep.join(interpreter.package_folders(f"{home}/.local")),
        "SANDBOX_EXTRA_PATHS": os.pathsep.join(interpreter.extra_entries(settings)),
        **given,
        "PYTHONPATH": os.pathsep.join(paths),
    }
