"""What a zygote, an init and a kernel are told: pure functions from the config to plain data."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sandbox_pool.config import PoolConfig, Profile
from sandbox_pool.host.tiers import Tier

DEFAULT_PRELOAD = ("numpy", "pandas", "matplotlib.pyplot")
"""What is imported before forking when a profile does not say, as far as it is installed."""

Front = Literal["private", "jupyter"]
"""What a lean kernel speaks through: the manager's private channel, or zmq sockets for Jupyter's clients."""

_MAX_PIECE_CHARS = 1024 * 1024
_TOP = Path(__file__).resolve().parent.parent
_OWN_PACKAGES = [str(_TOP / name) for name in ("runner", "sandbox_pool", "bench_data", "scoring")]
"""Our own code, which no sandbox may read."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a sandbox runs as, when the pool has uids to give."""

    uid: int
    killer_uid: int
    """Nobody's: what kills the sandbox has it, so that the sandbox cannot kill it first."""


def kernel_environment(profile: Profile) -> dict[str, str]:
    """Return the variables that all kernels of a profile have: none of the runner's.

    What depends on the sandbox's folders is set inside (`inside/tiers.py`, environment).
    """
    folders = (str(profile.python.parent), "/usr/local/bin", "/usr/bin", "/bin")
    return {
        "PATH": os.pathsep.join(dict.fromkeys(folders)),
        "LANG": "C.UTF-8",
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        # one thread each: many kernels share the cores, and a zygote with threads cannot fork
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NUMEXPR_NUM_THREADS": "1",
        "VECLIB_MAXIMUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        **_pip_environment(profile),
        **profile.environment,
    }


def _pip_environment(profile: Profile) -> dict[str, str]:
    """Make pip fail at once where there is no network, instead of after a minute of retries."""
    links = {"PIP_FIND_LINKS": " ".join(path.as_uri() for path in profile.extra_paths)}
    offline = {"PIP_NO_INDEX": "1"} if profile.network == "none" else {}
    return {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **(links if profile.extra_paths else {}), **offline}


def resource_limits(profile: Profile, *, owns_uid: bool) -> dict[str, int]:
    """Return the rlimits of a kernel by their names in the resource module.

    Args:
        profile: what a kernel may use.
        owns_uid: whether its processes are counted apart from those of others.
    """
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": profile.max_file_bytes,
        "RLIMIT_NOFILE": profile.max_open_files,
    }
    if profile.memory_bytes is not None:
        limits["RLIMIT_AS"] = profile.memory_bytes
    if profile.cpu_s is not None:
        limits["RLIMIT_CPU"] = profile.cpu_s
    if owns_uid:
        limits["RLIMIT_NPROC"] = profile.max_processes
    return limits


def zygote_settings(
    profile: Profile,
    *,
    tier: Tier,
    uid: int | None,
    workspaces: Path | None,
    scratch: Path,
    cgroups: Sequence[Path],
    is_memory_counted: bool,
) -> dict[str, Any]:
    """Return what `inside/zygote.py` reads first.

    Args:
        profile: what its sandboxes consist of.
        tier: how they are held.
        uid: who they run as in the tier `namespace`; None unless started as root.
        workspaces: folder that the workspaces lie in, if samples have any.
        scratch: the pool's folder, removed by the keeper when we are killed.
        cgroups: the pool's cgroups, likewise; none where there are none.
        is_memory_counted: whether one of them bounds the memory of a whole sandbox.
    """
    return {
        "manager": os.getpid(),
        "tier": tier,
        "kernel": profile.kernel,
        "uid": uid,
        "network": profile.network,
        "preload": list(DEFAULT_PRELOAD if profile.preload is None else profile.preload),
        "preload_optional": profile.preload is None,
        "mounts": [[str(source), target] for target, source in profile.mounts.items()],
        "extra_paths": [str(path) for path in profile.extra_paths],
        "hidden": _OWN_PACKAGES,
        "workspaces": str(workspaces) if workspaces else None,
        "environment": kernel_environment(profile),
        "rlimits": resource_limits(profile, owns_uid=tier == "namespace" or uid is not None),
        "work_bytes": profile.disk_bytes,
        "work_inodes": profile.max_files,
        # Memory that belongs to no process's address space is bounded by a cgroup or not at all.
        "deny_memfd": profile.memory_bytes is not None and not is_memory_counted,
        "scratch": str(scratch),
        "cgroups": [str(path) for path in cgroups],
    }


def max_frame_bytes(config: PoolConfig) -> int:
    """Return the length of a message from which on it is not stored: longer than all output may be."""
    return config.max_output_bytes + 1024 * 1024


def max_message_bytes(config: PoolConfig) -> int:
    """Return the size of a message at which zmq gives the connection up.

    An honest kernel cuts what is over max_output_bytes; JSON can make up to six bytes of each.
    """
    return 6 * config.max_output_bytes + 1024 * 1024


def start_settings(
    config: PoolConfig,
    *,
    identity: Identity | None,
    work: Path | None,
    workspace: str | None,
    front: Front,
    key: str | None,
) -> Mapping[str, Any]:
    """Return what init reads first: what must not pass through the zygote, whose memory all inherit.

    Args:
        config: the pool's.
        identity: who the sandbox runs as, in tiers where each has its own uid.
        work: its folders on this machine, in tiers where it has no file system of its own.
        workspace: name of its workspace in the zygote's folder of workspaces.
        front: whom the lean kernel talks to; ipykernel talks to whoever has its sockets.
        key: signs messages, for kernels with sockets.
    """
    return {
        "front": front,
        "key": key,
        "seed": None,
        "uid": identity.uid if identity else None,
        "killer_uid": identity.killer_uid if identity else None,
        "work": str(work) if work else None,
        "workspace": workspace,
        "max_sizes": [_MAX_PIECE_CHARS, config.max_output_bytes + 1],
    }


def new_key() -> str:
    """Return a fresh key for signing messages."""
    return secrets.token_hex(32)
