"""The sections `limits:` and `run_limits:`: when a trajectory ends, and when a run."""

from __future__ import annotations

from pydantic import Field

from runner.config.base import ConfigModel


class Limits(ConfigModel):
    """When a trajectory ends that does not end by itself."""

    max_turns: int = Field(default=10, ge=1)
    working_s: float = Field(default=1800.0, gt=0)
    """Wall time of a trajectory, less what it waited in our queues (for a sandbox, for its turn to call the
    model) or lost to a failing server."""

    wall_s: float | None = Field(default=None, gt=0)
    """Wall time of a trajectory, waits included; one that mostly waited is not the model's failure."""

    max_total_tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens, summed over all calls of a trajectory."""

    max_cost: float | None = Field(default=None, gt=0)
    """By `model.prices`, in their currency."""

    max_repeated_actions: int | None = Field(default=None, ge=2)
    """How often in a row the same code may be asked for: the last of so many is not executed any more."""

    cell_s: float = Field(default=60.0, gt=0)
    """Wall time of one cell: then it is interrupted, and killed if that does not help."""

    max_tries: int = Field(default=3, ge=1)
    """How often an attempt is begun, the first time included, when a sandbox or the engine failed."""


class RunLimits(ConfigModel):
    """When a run ends that is not done: running trajectories get `grace_s`, a resume goes on.

    A resume counts from zero again.
    """

    wall_s: float | None = Field(default=None, gt=0)
    max_total_tokens: int | None = Field(default=None, ge=1)
    max_cost: float | None = Field(default=None, gt=0)
