"""Ray clusters on this machine, for tests: started and ended by them, never with `ray stop`."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
PACKAGES = ("runner", "sandbox_pool", "bench_data", "scoring")


def environment(**more: str) -> dict[str, str]:
    """Return what processes of a test's cluster need: a token of its own, on both ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, **token, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", **more}


def copy_of_ours(folder: Path) -> Path:
    """Return a folder with our packages, which nobody changes while a test runs."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@contextmanager
def script(
    code: str, folder: Path, env: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process of its own, whose standard output is piped; end it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-P", "-c", code],
        cwd=folder, env=dict(env), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


HEAD = """
import socket, sys
from ray.cluster_utils import Cluster

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]

# Other clusters of this machine may hold the ports that Ray takes when it is not told.
ports = {{"dashboard_port": free_port(), "dashboard_agent_listen_port": free_port()}}
cluster = Cluster(initialize_head=True, head_node_args={{**{head!r}, **ports}})
nodes = [cluster.add_node(num_cpus=2, resources={{"sandbox": 1}}, dashboard_agent_listen_port=free_port()) for _ in range({n_nodes})]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    if command == "remove":
        cluster.remove_node(nodes[int(argument)], allow_graceful=False)
    if command == "dashboard":
        print(cluster.webui_url, flush=True)
    if command == "end":
        break
cluster.shutdown()
print("ended", flush=True)
"""


class TestCluster:
    """A head and some nodes that declare the resource `sandbox`, in a process of their own."""

    __test__ = False

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address

    def remove(self, number: int) -> None:
        """Take a node away without notice."""
        self._say(f"remove {number}")

    def dashboard(self) -> str:
        """Return where jobs are submitted."""
        self._say("dashboard")
        return f"http://{self._hear()}"

    def end(self) -> None:
        """End all its processes."""
        self._say("end")
        while self._hear() not in ("ended", ""):
            pass

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def cluster(
    folder: Path, env: Mapping[str, str], n_nodes: int, *, has_dashboard: bool = False
) -> Iterator[TestCluster]:
    """Have a cluster; its processes are ended at the end. Without further nodes the head may have a worker.

    Nodes of one machine share the folder of a job, and unpack it over each other: jobs want the head alone.
    """
    head = {
        "num_cpus": 1 if n_nodes else 4,
        "include_dashboard": has_dashboard,
        "dashboard_host": "127.0.0.1",
    }
    with script(HEAD.format(head=head, n_nodes=n_nodes), folder, env) as process:
        assert process.stdout is not None
        while not (address := process.stdout.readline().strip()).rpartition(":")[2].isdigit():
            assert address or process.poll() is None, "no cluster came up"
        running = TestCluster(process, address)
        try:
            yield running
        finally:
            running.end()


def runner(
    folder: Path, code: Path, env: Mapping[str, str], *arguments: str, **options: Any
) -> subprocess.Popen[str]:
    """Start `python -m runner --cluster ray` with our packages from `code`, in a folder."""
    command = [sys.executable, "-P", "-m", "runner", "--cluster", "ray", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env={**env, "PYTHONPATH": str(code)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip
