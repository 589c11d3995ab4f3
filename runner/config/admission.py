"""The `admission:` section: how much may be in flight."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from runner.config.base import ConfigModel


class AdmissionConfig(ConfigModel):
    """How many model calls may be in flight for each endpoint, and how many sandboxes may be leased."""

    mode: Literal["adaptive", "fixed"] = "adaptive"
    """`adaptive`: as the endpoints' answers, their metrics and this machine's pressure allow; `fixed`: up to
    `concurrency`, whatever comes."""

    max_calls: int | None = Field(default=None, ge=1)
    """Most calls in flight for each endpoint, of all workers of a cluster together (at least one of each);
    None: as many as trajectories."""

    first_calls: int = Field(default=16, ge=1)
    """Most calls in flight at an endpoint of which nothing is known yet."""

    tokens_per_trajectory: int = Field(default=8192, ge=1)
    """What a trajectory may hold of a KV cache, before any has run: an engine begins with what fits."""

    growth: float = Field(default=1.25, gt=1)
    """By what a cap grows where there is room for more."""

    cut: float = Field(default=0.8, gt=0, lt=1)
    """To what share of what is in flight a cap falls, when an engine drops requests, refuses or stalls."""

    poll_s: float = Field(default=2.0, gt=0)
    """How often an endpoint's metrics page and this machine's pressure are read."""

    kv_grow: float = Field(default=0.6, ge=0, le=1)
    """An engine is given more only while less than this share of its KV cache is in use."""

    kv_target: float = Field(default=0.7, gt=0, le=1)
    """What a trim of trajectories aims at."""

    kv_soft: float = Field(default=0.8, gt=0, le=1)
    """Above this share an engine's trajectories are trimmed: new ones wait, those that run go on."""

    kv_hard: float = Field(default=0.9, gt=0, le=1)
    """Above this share they are trimmed again sooner."""

    soft_trim_s: float = Field(default=12.0, gt=0)
    hard_trim_s: float = Field(default=4.0, gt=0)
    """How long a trim is given to take effect, above `kv_soft` and `kv_hard`; before that nothing grows."""

    max_queued: float = Field(default=0.5, gt=0)
    """An engine in which more calls wait for room than this share of those that run is sent fewer, once that
    was so at `n_polls_queued` looks in a row."""

    n_polls_queued: int = Field(default=3, ge=1)

    stall_s: float = Field(default=30.0, gt=0)
    """An engine that has calls and makes no token for so long is sent fewer, and again after as long."""

    @model_validator(mode="after")
    def _in_order(self) -> AdmissionConfig:
        shares = (self.kv_grow, self.kv_target, self.kv_soft, self.kv_hard)
        if list(shares) != sorted(shares):
            raise ValueError(
                "kv_grow, kv_target, kv_soft and kv_hard must not fall in this order, "
                f"and are {', '.join(f'{share:g}' for share in shares)}"
            )
        return self
