"""Which engines there are: what hosts of engines tell the model client, and each worker of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EngineState = Literal["starting", "ready", "draining", "lost", "failed"]
"""`lost`: it ended and will be started again; `failed`: it will not."""


@dataclass(frozen=True, slots=True)
class EngineEndpoint:
    """One engine. A replica keeps its name; where it listens changes with each start."""

    replica: str
    url: str
    """What requests go to, ending in /v1; empty before the first start has succeeded."""

    epoch: int
    """Which start of the replica this is, from 1: what was in flight in an earlier one is lost."""

    model: str
    """Its name in requests; empty as `url`."""

    max_model_len: int
    """In tokens, prompt and completion together; 0 as long as `url` is empty."""

    state: EngineState
