"""The sections `resume:` and `breaker:`: what a run does about what failed or was broken off."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runner.config.base import ConfigModel


class ResumeConfig(ConfigModel):
    """How trajectories go on that a killed or drained run left unfinished, or a failure of ours broke off."""

    unit: Literal["turns", "attempts"] = "turns"
    """`turns`: from the last finished turn, by executing the recorded actions again in a fresh sandbox;
    `attempts`: from the beginning."""

    on_divergence: Literal["restart", "continue"] = "restart"
    """What to do where an action gives another observation than it had given: begin the attempt again, or go
    on with what was recorded."""

    max_reexecute_s: float = Field(default=600.0, ge=0)
    """Attempts whose recorded actions took longer begin again."""


class BreakerConfig(ConfigModel):
    """When a run pauses because of failures of the infrastructure."""

    max_share: float = Field(default=0.5, gt=0, le=1)
    """Of the last `window` tries, how many may have failed for the same reason."""

    window: int = Field(default=20, ge=2)
    max_pause_s: float = Field(default=900.0, ge=0)
    """How long the run probes before it stops."""
