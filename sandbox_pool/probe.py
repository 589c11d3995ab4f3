"""What this machine enforces for a sandbox, as data for a run's record and as a table to read."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from sandbox_pool.config import PoolConfig


def probe(config: PoolConfig | None = None) -> dict[str, Any]:
    """Return what sandboxes of this config are held by here. Starts nothing."""
    config = config or PoolConfig()
    is_root = os.geteuid() == 0
    is_linux = sys.platform == "linux"
    enforced = {
        "memory": "address space of each process (RLIMIT_AS)" if config.memory_bytes else "not limited",
        "cpu": "time of each process (RLIMIT_CPU)" if config.cpu_s else "not limited",
        "file_size": "each file (RLIMIT_FSIZE)",
        "processes": "per sandbox (RLIMIT_NPROC)" if is_root else "not limited: needs a uid per sandbox",
        "kill_all": _kill_all(is_root=is_root, is_linux=is_linux),
        "files_of_others": "own uid, folders 0700"
        if is_root
        else "not protected: all sandboxes share our uid",
        "network": "not limited",
        "disk": "not limited beyond the size of each file",
    }
    return {
        "tier": "process",
        "kernel": "ipykernel",
        "platform": platform.platform(),
        "uid_policy": "own uid per sandbox" if is_root else f"shares uid {os.geteuid()} with the runner",
        "python": str(config.python),
        "limits": config.model_dump(
            mode="json", exclude={"tier", "python", "environment", "scratch", "min_idle", "max_starting"}
        ),
        "enforced": enforced,
        "warnings": _warnings(is_root=is_root, is_linux=is_linux),
    }


def _kill_all(*, is_root: bool, is_linux: bool) -> str:
    if is_root:
        return "all processes of the sandbox's uid"
    return "all descendants (subreaper)" if is_linux else "the kernel's process group"


def _warnings(*, is_root: bool, is_linux: bool) -> list[str]:
    found = [
        "tier process promises nothing against code that attacks: it can use the network, and read what "
        "every user of this machine may read"
    ]
    if not is_root:
        found.append(
            "not root, so sandboxes run as the runner's user and can read and signal what is that user's, "
            "the runner's environment included: keep secrets out of it, or start as root"
        )
    if not is_linux:
        found.append("no PR_SET_PDEATHSIG here: kernels can outlive a killed guardian")
    return found
