"""The stub model server in a process of its own, and measurements in fresh processes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def stub_server(latency_s: float) -> Iterator[str]:
    """Serve until the block ends; yields the address."""
    command = [sys.executable, "-m", "tests.stub_server", "--latency-s", str(latency_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


def measured(command: Sequence[str]) -> dict[str, Any]:
    """Run a command that prints a JSON object last, and return it."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {ran.returncode}")
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def cpu_s() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def max_rss_mib() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
