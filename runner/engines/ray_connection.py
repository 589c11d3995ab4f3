"""This process's connection to a Ray cluster. One for all that use Ray: there is only one in a process."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.engines.ray_address import LOCAL, ask_head, check_address, describe_refusal
from runner.errors import ConfigError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NICENESS = "RAY_worker_niceness"

LABEL = "sandbox"
"""The resource by which nodes say that they are for workers."""

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

    Blocks for seconds. In another thread than the main one, call `renew_handlers` behind it.

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
            f"Ray is not installed here ({error}): make install-engines, or pip install 'ray[default]', "
            f"here and on all nodes; or go without (engines.kind: local, cluster.kind: none)"
        ) from error
    if ray.is_initialized():
        return _own
    if where != LOCAL:
        check_address(where)
        ask_head(where)
    own = {"include_dashboard": False} if where == LOCAL else {}
    handlers = present_handlers()
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray raises Exception itself where a node is not up in time
        raise ConfigError(describe_refusal(where, str(error))) from error
    finally:
        renew_handlers(handlers)
    _own = where == LOCAL
    return _own


def renew_handlers(handlers: Mapping[int, Any] | None = None) -> None:
    """Put handlers of signals back, by default the present ones: Ray has set its own behind Python's back.

    Does nothing in another thread than the main one.
    """
    if threading.current_thread() is threading.main_thread():
        for number, handler in (present_handlers() if handlers is None else handlers).items():
            signal.signal(number, handler)


def present_handlers() -> dict[int, Any]:
    """Return what Python has signals call, as far as it knows."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in handlers.items() if handler is not None}


def is_connected() -> bool:
    """Return whether this process is connected to a Ray. Does not import it: `guard_own` comes before."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


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


def nodes_for_workers(nodes: Sequence[RayNode], cpus_per_worker: float) -> list[RayNode]:
    """Return the nodes that may have a worker: those labelled so, or all with the CPUs. Pure."""
    labelled = [node for node in nodes if node.resources.get(LABEL, 0) > 0]
    needed = max(cpus_per_worker, 1e-9)
    return [node for node in labelled or nodes if node.resources.get("CPU", 0) >= needed]
