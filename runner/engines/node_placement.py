"""How many engines the nodes of a cluster have room for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.config import EnginesConfig
from runner.engines.placement import NO_GPU, Placement, place
from runner.errors import ConfigError

LEAST_CPU = 0.01
"""Of an engine that needs neither GPU nor CPU: Ray is to have something to set aside."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a node has for engines."""

    n_gpus: int
    n_cpus: float


@dataclass(frozen=True, slots=True)
class NodePlacement:
    """So many engines with so many GPUs each."""

    n_replicas: int
    gpus_per_replica: int
    spans_nodes: bool
    """No node has all GPUs that a replica needs: vLLM spreads it, by its own Ray executor."""


def place_on_nodes(config: EnginesConfig, nodes: Sequence[Room], *, is_cpu_build: bool) -> NodePlacement:
    """Decide from what the nodes have, whether it is free or not.

    Raises:
        ConfigError: there are too few GPUs, or too few CPUs beside them.
    """
    n_gpus = sum(node.n_gpus for node in nodes)
    if n_gpus == 0 and config.gpus_per_replica != 0 and not is_cpu_build:
        raise ConfigError(f"no node of the Ray cluster has a GPU: {NO_GPU}")
    one = place(config.model_copy(update={"replicas": 1}), n_gpus, is_cpu_build=is_cpu_build)
    per_replica = one.gpus_per_replica
    if per_replica > max((node.n_gpus for node in nodes), default=0):
        whole = place(config, n_gpus, is_cpu_build=is_cpu_build)
        return NodePlacement(whole.n_replicas, per_replica, spans_nodes=True)
    n_fit = sum(_n_fit(node, per_replica, config.cpus_per_replica) for node in nodes)
    wanted = _wanted(config, per_replica, n_fit)
    if wanted.n_replicas > n_fit:
        raise ConfigError(_too_few(wanted, nodes, config.cpus_per_replica, n_fit))
    return NodePlacement(wanted.n_replicas, per_replica, spans_nodes=False)


def _wanted(config: EnginesConfig, per_replica: int, n_fit: int) -> Placement:
    if config.replicas != "auto":
        return Placement(config.replicas, per_replica)
    return Placement(max(1, n_fit) if per_replica else 1, per_replica)


def _n_fit(node: Room, n_gpus: int, n_cpus: int) -> int:
    """Return how many engines a node has room for."""
    least = n_cpus or (0 if n_gpus else LEAST_CPU)
    by_gpu = [node.n_gpus // n_gpus] if n_gpus else []
    by_cpu = [int(node.n_cpus // least)] if least else []
    return min(by_gpu + by_cpu)


def _too_few(wanted: Placement, nodes: Sequence[Room], n_cpus: int, n_fit: int) -> str:
    have = ", ".join(f"{node.n_gpus} + {node.n_cpus:g}" for node in nodes) or "none"
    return (
        f"{wanted.n_replicas} engines of {wanted.gpus_per_replica} GPUs and {n_cpus} CPUs each do not fit on "
        f"the nodes of the Ray cluster, which have (GPUs + CPUs, less those of workers): {have}; there is "
        f"room for {n_fit}. Lower engines.replicas, engines.tensor_parallel, engines.cpus_per_replica or "
        f"cluster.cpus_per_worker, or add nodes"
    )
