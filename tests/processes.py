"""Which processes sandboxes have left, and running the commands as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def processes_below(scratch: Path) -> set[int]:
    """Return the processes whose environment names this folder: those of sandboxes made in it."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue  # it has ended meanwhile, or is somebody else's
            if os.fsencode(scratch) in environment:
                found.add(int(folder.name))
    return found


def wait_until_gone(scratch: Path, within_s: float = 5.0) -> set[int]:
    """Return the processes that still are in this folder's sandboxes after at most so long."""
    deadline = time.monotonic() + within_s
    while (left := processes_below(scratch)) and time.monotonic() < deadline:
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


def start_module(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start `python -m ...` and return at once."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd or ROOT,
        env={**clean_environment(), **environment},
    )  # fmt: skip


def clean_environment() -> dict[str, str]:
    """Return this process's environment, less what would change a run."""
    kept = {key: value for key, value in os.environ.items() if key != "KERNELFLEET_CONFIG"}
    return kept | {"PYTHONPATH": str(ROOT)}
