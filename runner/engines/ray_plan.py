"""From a config to engines on a Ray cluster: what is checked where, and who takes how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.config import ClusterConfig, EnginesConfig, RunConfig, read_options
from runner.engines.actor import NodeFacts, check_node
from runner.engines.arguments import command_flags, server_environment
from runner.engines.host import EngineSpec
from runner.engines.node_placement import Room, place_on_nodes
from runner.engines.ray_connection import RayNode, alive_nodes, connect, nodes_for_workers
from runner.engines.ray_host import RayEngineHost, Site, describe_ray_error
from runner.errors import ConfigError

CHECK_TIMEOUT_S = 120.0
EXECUTOR = "distributed_executor_backend"
LOOPBACK = "127.0.0.1"
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class RayPlan:
    """What will be started on a cluster: so many engines of one kind."""

    spec: EngineSpec
    site: Site
    n_replicas: int

    def hosts(self, log_dir: Path) -> list[RayEngineHost]:
        """Return a host for each engine; nothing is started yet."""
        return [
            RayEngineHost(self.spec, self.site, log_dir / f"engine-{index}.log", index=index)
            for index in range(self.n_replicas)
        ]


def plan_on_ray(config: RunConfig) -> RayPlan:
    """Connect, have a node check the model and its vLLM, decide how many engines there are. Blocks.

    Raises:
        ConfigError: the cluster, the model or the config do not do, and what to do.
    """
    is_own = connect(config.cluster.address)
    engines = config.engines
    nodes = alive_nodes()
    facts = check_on(_likely(nodes), config)
    placement = place_on_nodes(engines, rooms(nodes, config.cluster), is_cpu_build=facts.is_cpu_build)
    if placement.gpus_per_replica:
        refuse_own_gpus(engines)
    argv = over_nodes(facts.argv) if placement.spans_nodes else facts.argv
    spec = EngineSpec(argv, server_environment(engines), engines.start_timeout_s)
    host = LOOPBACK if is_own else None
    site = Site(placement.gpus_per_replica, engines.cpus_per_replica, host, placement.spans_nodes)
    return RayPlan(spec, site, placement.n_replicas)


def over_nodes(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line of an engine that vLLM spreads over nodes, unless it says how itself. Pure."""
    return argv if EXECUTOR in read_options(argv) else (*argv, *command_flags({EXECUTOR: "ray"}))


def refuse_own_gpus(engines: EnginesConfig) -> None:
    """Raise ConfigError where the config names GPUs: all engines of a node would have those. Pure."""
    named = engines.env.get(DEVICES)
    if named is not None:
        raise ConfigError(
            f"engines.env.{DEVICES} is {named!r}: on Ray, each engine has the GPUs that Ray gave it; "
            f"leave it out, and set {DEVICES} where ray start runs, to have less than a node's GPUs used"
        )


def check_workers_reach_this_machine(cluster: ClusterConfig) -> None:
    """Connect; raise ConfigError where workers may be on other machines than engines of `local`. Blocks."""
    import ray

    connect(cluster.address)
    refuse_far_workers(alive_nodes(), cluster, here=ray.util.get_node_ip_address())


def refuse_far_workers(nodes: Sequence[RayNode], cluster: ClusterConfig, *, here: str) -> None:
    """Raise ConfigError where workers may be at other addresses than `here`. Pure."""
    far = {node.address for node in nodes_for_workers(nodes, cluster.cpus_per_worker)} - {here}
    if far:
        raise ConfigError(
            f"engines.kind is local: engines would listen on {LOOPBACK} of this machine, and workers of the "
            f"Ray cluster are elsewhere as well ({', '.join(sorted(far))}); leave engines.kind out, or "
            f"set it to ray"
        )


def rooms(nodes: Sequence[RayNode], cluster: ClusterConfig) -> list[Room]:
    """Return what nodes have for engines: all but the CPUs of the run's workers. Pure."""
    n_workers = len(nodes) if cluster.workers == "auto" else cluster.workers
    hosts = nodes_for_workers(nodes, cluster.cpus_per_worker)[:n_workers] if cluster.kind == "ray" else []
    taken = dict.fromkeys((node.node_id for node in hosts), cluster.cpus_per_worker)
    return [Room(node.n_gpus, node.resources.get("CPU", 0) - taken.get(node.node_id, 0)) for node in nodes]


def check_on(node: RayNode, config: RunConfig) -> NodeFacts:
    """Have a node check what only it sees: the model's files, vLLM, the GPUs. Blocks. Raises ConfigError."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    task = ray.remote(check_node).options(num_cpus=0, max_retries=0, scheduling_strategy=where)
    model = config.model.client.partition(":")[2]
    try:
        found: NodeFacts | ConfigError = ray.get(task.remote(model, config.engines), timeout=CHECK_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        raise ConfigError(f"node {node.address} of the Ray cluster: {describe_ray_error(error)}") from error
    if isinstance(found, ConfigError):
        raise found
    return found


def _likely(nodes: list[RayNode]) -> RayNode:
    """Return a node that an engine will be on, as far as can be known."""
    return max(nodes, key=lambda node: (node.n_gpus, node.n_cpus))
