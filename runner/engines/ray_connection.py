"""This process's connection to a Ray cluster. One for all that use Ray: there is only one in a process."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from runner.errors import ConfigError

LOCAL = "local"
"""In place of an address: a Ray of our own on this machine, which ends with this process."""

CONNECT_TIMEOUT_S = 10.0
MAX_REASON_CHARS = 500
NICENESS = "RAY_worker_niceness"
AUTH_VARIABLES = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"

_own = False  # Ray's connection is the process's as well


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node that is alive."""

    node_id: str
    address: str
    resources: Mapping[str, float]

    @property
    def n_gpus(self) -> int:
        """All GPUs, whether free or not."""
        return int(self.resources.get("GPU", 0))

    @property
    def n_cpus(self) -> int:
        """All CPUs, whether free or not."""
        return int(self.resources.get("CPU", 0))


def connect(address: str | None = None) -> bool:
    """Connect to a cluster, unless this process is connected; return whether it is a Ray of our own.

    Blocks for seconds. Install signal handlers after it: Ray's would replace them.

    Args:
        address: HOST:PORT of a head, `auto` or `local`; None: that of RAY_ADDRESS, else `local`.

    Raises:
        ConfigError: Ray is not installed, nothing answers there, versions or tokens differ; and what to do.
    """
    global _own
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if where == LOCAL:
        guard_own()
        os.environ.setdefault(NICENESS, "0")  # Ray's is 15: behind everything else on this machine
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"Ray is not installed here ({error}): make install-engines, or set engines.kind to local"
        ) from error
    if ray.is_initialized():
        return _own
    if where != LOCAL:
        check_address(where)
    own = {"include_dashboard": False} if where == LOCAL else {}
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(describe_refusal(where, error)) from error
    _own = where == LOCAL
    return _own


def guard_own() -> None:
    """Give a Ray of our own, whose ports are open on all addresses, a token that is this process's alone.

    Unless the environment says how it is guarded. No use once Ray is imported: it has read them then.
    """
    if "ray" not in sys.modules and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def disconnect() -> None:
    """End the connection, and with it a Ray of our own. Idempotent. Blocks."""
    global _own
    import ray

    _own = False
    ray.shutdown()


def alive_nodes() -> list[RayNode]:
    """Return the nodes of the cluster that this process is connected to, by address. Blocks for a moment."""
    import ray

    nodes = [
        RayNode(row["NodeID"], row["NodeManagerAddress"], row["Resources"])
        for row in ray.nodes()
        if row["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.address, node.node_id))


def check_address(address: str) -> None:
    """Raise ConfigError where an address is not a head's, or nothing listens there. Blocks."""
    if address == "auto":
        return
    if "://" in address:
        raise ConfigError(
            f"Ray address {address}: this is not a head's HOST:PORT. From outside of a cluster: ray job "
            f"submit --address http://HOST:8265 --working-dir . -- python -m runner ..."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"Ray address {address}: write HOST:PORT of the head, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"Ray address {address}: nothing answers there ({error}); correct the address (on the head, ray "
            f"status shows whether it runs; its port is 6379 unless ray start named another)"
        ) from error


def describe_refusal(address: str, error: Exception) -> str:
    """Return what to say of an error of `ray.init`, and what to do. Pure."""
    text = " ".join(str(error).split())[:MAX_REASON_CHARS]
    if "ersion mismatch" in text:
        return (
            f"Ray address {address}: {text}; install the cluster's versions of Ray and Python here, or run "
            f"there: ray job submit"
        )
    if "uthentication" in text or "token" in text:
        return (
            f"Ray address {address}: it refused this process's token; set {AUTH_VARIABLES} here as "
            f"where ray start ran"
        )
    if address == LOCAL:
        return f"no Ray could be started on this machine: {text}; or set engines.kind to local"
    return (
        f"Ray address {address}: no connection ({text}); set {AUTH_VARIABLES} here as where ray start "
        f"ran, and see on the head whether it runs (ray status)"
    )
