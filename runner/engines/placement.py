"""How many engines there are, and which GPUs each has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.config import EnginesConfig, read_options
from runner.errors import ConfigError

NO_GPU = (
    "there is no GPU for engines of ours: run where there is one, install vLLM's build for the CPU (and set "
    "engines.gpus_per_replica to 0 where engines.command starts it), or name a server with --model openai:URL"
)


@dataclass(frozen=True, slots=True)
class Placement:
    """So many engines with so many GPUs each."""

    n_replicas: int
    gpus_per_replica: int


def place(config: EnginesConfig, n_gpus: int, *, is_cpu_build: bool) -> Placement:
    """Decide from the GPUs that there are.

    Raises:
        ConfigError: there are none, or too few, or fewer per replica than it computes with.
    """
    n_ranks = data_parallel(config)
    n_parallel = config.tensor_parallel * config.pipeline_parallel * n_ranks
    per_replica = config.gpus_per_replica
    if per_replica is None:
        per_replica = 0 if is_cpu_build else n_parallel
    if 0 < per_replica < n_parallel:
        raise ConfigError(
            f"engines.gpus_per_replica is {per_replica}, but tensor_parallel {config.tensor_parallel} times "
            f"pipeline_parallel {config.pipeline_parallel}{_times(n_ranks)} needs {n_parallel}; raise it or "
            f"leave it out"
        )
    if per_replica == 0:
        return Placement(1 if config.replicas == "auto" else config.replicas, 0)
    if n_gpus == 0:
        raise ConfigError(NO_GPU)
    n_replicas = n_gpus // per_replica if config.replicas == "auto" else config.replicas
    if n_replicas == 0 or n_replicas * per_replica > n_gpus:
        raise ConfigError(
            f"engines need {max(1, n_replicas)} x {per_replica} GPUs (engines.replicas x "
            f"engines.gpus_per_replica), and there are {n_gpus}; lower engines.replicas, "
            f"engines.tensor_parallel or engines.pipeline_parallel"
        )
    return Placement(n_replicas, per_replica)


def data_parallel(config: EnginesConfig) -> int:
    """Return over how many ranks `engines.args` has vLLM spread the requests of one engine."""
    value = read_options(config.args).get("data_parallel_size", 1)
    return int(value) if str(value).isdigit() and int(value) else 1


def _times(n_ranks: int) -> str:
    return f" times data_parallel_size {n_ranks}" if n_ranks > 1 else ""


def share_gpus(placement: Placement, gpus: Sequence[str]) -> list[tuple[str, ...]]:
    """Return each replica's GPUs: neighbours, which are the best connected."""
    size = placement.gpus_per_replica
    return [tuple(gpus[index * size : (index + 1) * size]) for index in range(placement.n_replicas)]
