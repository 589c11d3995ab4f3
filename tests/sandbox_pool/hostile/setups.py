"""The kinds of sandboxes, and which of them this machine can have, asked of the system and not of our code."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from sandbox_pool import PoolConfig

MIB = 1024 * 1024
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1


@dataclass(frozen=True, slots=True)
class Setup:
    """A tier and a kernel."""

    tier: Literal["namespace", "landlock", "process"]
    kernel: Literal["lean", "ipykernel"]

    def __str__(self) -> str:
        return f"{self.tier}-{self.kernel}"

    def config(self, scratch: Path) -> PoolConfig:
        """Return a config with limits so small that reaching them takes no time."""
        return PoolConfig(
            tier=self.tier,
            kernel=self.kernel,
            allow_unsafe=self.tier == "process",
            scratch=scratch,
            preload=("numpy",),
            max_sandboxes=6,
            max_idle=0,
            start_timeout_s=30,
            interrupt_grace_s=0.4,
            memory_bytes=(400 if self.kernel == "lean" else 640) * MIB,
            disk_bytes=16 * MIB,
            max_files=1000,
            max_file_bytes=24 * MIB,
            max_processes=40,
            max_open_files=200,
            max_output_bytes=MIB,
            max_read_bytes=MIB,
            max_collect_bytes=6 * MIB,
            max_collect_files=100,
            max_collect_depth=3,
            max_collect_s=5,
        )


SETUPS = tuple(
    Setup(tier, kernel)
    for tier in ("namespace", "landlock", "process")
    for kernel in ("lean", "ipykernel")
)  # fmt: skip


@cache
def why_not(tier: str) -> str | None:
    """Return why this machine has no such sandboxes, or None when it must have them."""
    if tier == "process":
        return None
    if sys.platform != "linux":
        return f"tier {tier} needs Linux"
    return _why_no_landlock() if tier == "landlock" else _why_no_namespaces()


def _why_no_landlock() -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    return None if version > 0 else "this system has no Landlock"


def _why_no_namespaces() -> str | None:
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--fork",
        "--mount-proc",
    ]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no command `unshare` to tell whether there are user namespaces"
    return None if done.returncode == 0 else f"no user namespaces: {done.stderr.strip()}"
