"""The run directory: what was finished, what failed by our fault, what is running, what happened."""

from runner.journal.reader import (
    ARTIFACTS,
    CONFIG,
    EVENTS,
    FAILURES,
    TRAJECTORIES,
    read_config,
    read_events,
    read_failures,
    read_trajectories,
)
from runner.journal.writer import Journal

__all__ = [
    "ARTIFACTS",
    "CONFIG",
    "EVENTS",
    "FAILURES",
    "TRAJECTORIES",
    "Journal",
    "read_config",
    "read_events",
    "read_failures",
    "read_trajectories",
]
