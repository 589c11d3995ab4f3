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
    """Most calls in flight for each endpoint; None: as many as trajectories."""

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
