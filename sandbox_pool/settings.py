"""What a kernel is told and given: its limits, its variables, its folders. Pure but for `make_home`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox_pool.config import PoolConfig

_MAX_PIECE_CHARS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a sandbox runs as, when the pool has uids to give."""

    uid: int
    killer_uid: int
    """Nobody's: what kills the sandbox has it, so that the sandbox cannot kill it first."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one sandbox, below one that only it and the runner may enter."""

    top: Path
    log: Path
    """Beside `top`, out of the sandbox's reach."""

    @property
    def work(self) -> Path:
        """The working directory."""
        return self.top / "work"

    @property
    def home(self) -> Path:
        """HOME, with the caches of IPython and matplotlib."""
        return self.top / "home"

    @property
    def temporary(self) -> Path:
        """TMPDIR."""
        return self.top / "tmp"

    @property
    def socket_prefix(self) -> Path:
        """What the paths of the kernel's sockets begin with."""
        return self.top / "s" / "k"


def home_of(scratch: Path, number: int) -> Home:
    """Return the folders of the sandbox with this number."""
    return Home(scratch / str(number), scratch / f"{number}.log")


def make_home(home: Home, identity: Identity | None) -> None:
    """Make the folders, each 0700 and the sandbox's own. Blocks."""
    for folder in (home.top, home.work, home.home, home.temporary, home.socket_prefix.parent):
        folder.mkdir(mode=0o700)
        if identity is not None:
            os.chown(folder, identity.uid, identity.uid)


def kernel_environment(config: PoolConfig, home: Home) -> dict[str, str]:
    """Return all variables that a kernel has: none of the runner's."""
    folders = (str(config.python.parent), "/usr/local/bin", "/usr/bin", "/bin")
    return {
        "PATH": os.pathsep.join(dict.fromkeys(folders)),
        "LANG": "C.UTF-8",
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "HOME": str(home.home),
        "TMPDIR": str(home.temporary),
        "IPYTHONDIR": str(home.home / ".ipython"),
        "MPLCONFIGDIR": str(home.home / ".matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        # one thread each: many kernels share the cores, and every thread takes address space
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NUMEXPR_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        **config.environment,
    }


def resource_limits(config: PoolConfig, identity: Identity | None) -> dict[str, int]:
    """Return the rlimits of a kernel by their names in the resource module."""
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": config.max_file_bytes,
        "RLIMIT_NOFILE": config.max_open_files,
    }
    if config.memory_bytes is not None:
        limits["RLIMIT_AS"] = config.memory_bytes
    if config.cpu_s is not None:
        limits["RLIMIT_CPU"] = config.cpu_s
    if identity is not None:
        limits["RLIMIT_NPROC"] = config.max_processes  # counts all processes of the uid
    return limits


def max_message_bytes(config: PoolConfig) -> int:
    """Return the size of a message at which zmq gives the connection up.

    An honest kernel cuts what is over max_output_bytes; JSON can make up to six bytes of each.
    """
    return 6 * config.max_output_bytes + 1024 * 1024


def launch_settings(
    config: PoolConfig, home: Home, *, identity: Identity | None, key: str
) -> Mapping[str, Any]:
    """Return what launch.py reads from its standard input."""
    return {
        "runner": os.getpid(),
        "work": str(home.work),
        "log": str(home.log),
        "socket_prefix": str(home.socket_prefix),
        "key": key,
        "uid": identity.uid if identity else None,
        "gid": identity.uid if identity else None,
        "killer_uid": identity.killer_uid if identity else None,
        "rlimits": resource_limits(config, identity),
        "max_sizes": [_MAX_PIECE_CHARS, config.max_output_bytes + 1],
    }


def new_key() -> str:
    """Return a fresh key for signing messages."""
    return secrets.token_hex(32)
