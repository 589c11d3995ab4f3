"""Ray clusters on this machine, for tests: started and ended by them, never with `ray stop`."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fake_engine import COMMAND, ENVIRONMENT, write_model

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

def add_node():
    port = free_port()
    return cluster.add_node(
        num_cpus=2, num_gpus={n_gpus}, resources={{"sandbox": 1}}, dashboard_agent_listen_port=port
    )

nodes = [add_node() for _ in range({n_nodes})]

def tell_versions(ray, python):
    # For whoever connects from now on.
    import json
    from ray._raylet import GcsClient
    client = GcsClient(address=cluster.address)
    key, namespace = b"CLUSTER_METADATA", b"cluster"
    facts = json.loads(client.internal_kv_get(key, namespace))
    facts.update({{"ray_version": ray, "python_version": python}})
    client.internal_kv_put(key, json.dumps(facts).encode(), True, namespace)

cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    if command == "remove":
        cluster.remove_node(nodes[int(argument)], allow_graceful=False)
    if command == "add":
        nodes.append(add_node())
        print("added", flush=True)
    if command == "versions":
        tell_versions(*argument.split())
        print("told", flush=True)
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

    def add(self) -> None:
        """Add a node like the others."""
        self._say("add")
        assert self._hear() == "added"

    def tell_versions(self, ray: str, python: str) -> None:
        """Have the head say that it was started with other versions."""
        self._say(f"versions {ray} {python}")
        assert self._hear() == "told"

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
    folder: Path, env: Mapping[str, str], n_nodes: int, *, n_gpus: int = 0, has_dashboard: bool = False
) -> Iterator[TestCluster]:
    """Have a cluster; its processes are ended at the end. Without further nodes the head may have a worker.

    `n_gpus` are counted on each further node, whether there are any or not.

    Nodes of one machine share the folder of a job, and unpack it over each other: jobs want the head alone.
    """
    head = {
        "num_cpus": 1 if n_nodes else 4,
        "include_dashboard": has_dashboard,
        "dashboard_host": "127.0.0.1",
    }
    with script(HEAD.format(head=head, n_nodes=n_nodes, n_gpus=n_gpus), folder, env) as process:
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


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with a head and two nodes for sandboxes, and what starts runs on it."""

    folder: Path
    """Named by the environment or the command line of all processes of ours."""

    code: Path
    env: Mapping[str, str]
    nodes: TestCluster

    @contextmanager
    def started(self, folder: Path, **settings: Any) -> Iterator[subprocess.Popen[str]]:
        """Run the quickstart in a run directory below a folder; kill the run at the end if it still goes on."""
        cluster = {"kind": "ray", "address": self.nodes.address, **settings.pop("cluster", {})}
        config = hosting_config(folder, cluster=cluster, **settings)
        process = runner(folder, self.code, self.env, "--config", str(config))
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def hosting_config(folder: Path, **settings: Any) -> Path:
    """Write the config of a quickstart run on two fake engines that it hosts; return its path."""
    engines = {
        "replicas": 2, "gpus_per_replica": 0, "cpus_per_replica": 0, "served_name": "m", "command": COMMAND,
        "env": {**ENVIRONMENT, "FOLDER": str(folder)}, "args": {"token_s": 0.02},
    }  # fmt: skip
    config = {
        "model": f"vllm:{write_model(folder / 'model')}", "concurrency": 8, "limits": {"max_turns": 4},
        "run_dir": str(folder / "run"), "progress": "plain", **settings,
        "engines": engines | settings.get("engines", {}),
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder / "config.yaml"


def ours(folder: Path) -> dict[int, str]:
    """Return the processes of ours that name a folder: by its mark, or as the code that they run.

    By pid, what they are: driver, worker, engine, keeper, core, sandbox. Without Ray's own processes.
    """
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            named = os.fsencode(folder) in command or os.fsencode(folder) in (path / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if named and int(path.name) != os.getpid() and (kind := kind_of(command)):
            found[int(path.name)] = kind
    return found


KINDS = {
    b"ray::KernelfleetWorker": "worker", b"ray::EngineActor": "actor", b"sandbox_pool/inside/boot.py": "sandbox",
    b"engines/keeper.py": "keeper", b"tests.fake_engine": "engine", b"VLLM::EngineCore": "core",
    b"-m\0runner\0": "driver",
}  # fmt: skip


def kind_of(command: bytes) -> str | None:
    """Return which of our processes has such a command line."""
    return next((kind for part, kind in KINDS.items() if part in command), None)


def parent(pid: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
