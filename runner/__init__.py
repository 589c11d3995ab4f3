"""Online: samples in, trajectories out. `python -m runner`, or from Python `runner.run(config)`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.api import run
    from runner.config import RunConfig, load_config
    from runner.records import Trajectory

__all__ = ["RunConfig", "Trajectory", "load_config", "run"]

_HOME = {
    "run": "runner.api",
    "RunConfig": "runner.config",
    "load_config": "runner.config",
    "Trajectory": "runner.records",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is used: reading a run directory needs no HTTP client and no sandbox pool."""
    if name not in _HOME:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
