"""The `cluster:` section: where the sandboxes of a run are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runner.config.base import ConfigModel


class ClusterConfig(ConfigModel):
    """Where the sandboxes of a run are. In YAML a bare string stands for `kind`."""

    kind: Literal["none", "ray"] = "none"
    """`none`: on this machine, in this process; `ray`: on the nodes of a Ray cluster, a worker on each."""

    address: str | None = None
    """Of the cluster: `HOST:PORT`, or `auto` for the one of this machine. None: what RAY_ADDRESS says, as in
    a Ray job, and else a cluster of this machine alone, for this run."""

    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """At most so many; `auto`: on each node that has a CPU, or, where some declare the resource `sandbox`, on
    those alone; on nodes that join later, too."""

    cpus_per_worker: float = Field(default=1.0, ge=0)
    """What Ray sets aside for each. Sandboxes are not bound by it."""

    window_factor: float = Field(default=2.0, ge=1)
    """How many attempts a worker is given ahead, times the trajectories that it may have in flight."""

    drain_s: float | None = Field(default=None, ge=0)
    """In place of `grace_s`. None: in a Ray job what RAY_JOB_STOP_WAIT_TIME_S leaves of it."""
