"""Which kernels are alive on this machine, and running the commands as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def kernels() -> set[int]:
    """Return the process ids of all kernels of all pools on this machine."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if b"sandbox_pool/inside/" in command:
                found.add(int(folder.name))
    return found


def wait_until_gone(before: set[int], within_s: float = 5.0) -> set[int]:
    """Return the kernels that are still there, beside those before, after at most so long."""
    deadline = time.monotonic() + within_s
    while (left := kernels() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def run_module(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` to its end, with this checkout on the path."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True, text=True, timeout=300, check=False, cwd=cwd or ROOT,
        env={**clean_environment(), **environment},
    )  # fmt: skip


def start_module(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start `python -m ...` and return at once."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd or ROOT, env=clean_environment(),
    )  # fmt: skip


def clean_environment() -> dict[str, str]:
    """Return this process's environment, less what would change a run."""
    kept = {key: value for key, value in os.environ.items() if key != "KERNELFLEET_CONFIG"}
    return kept | {"PYTHONPATH": str(ROOT)}
