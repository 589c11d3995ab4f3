"""The run directory: what was finished, what failed by our fault, what is running, what happened."""

from runner.journal.inflight import INFLIGHT, TurnLog, Unfinished, read_inflight
from runner.journal.interface import AttemptJournal
from runner.journal.lines import count_lines
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
from runner.journal.recorded import read_recorded
from runner.journal.writer import Journal, empty_artifacts

__all__ = [
    "ARTIFACTS",
    "CONFIG",
    "EVENTS",
    "FAILURES",
    "INFLIGHT",
    "TRAJECTORIES",
    "AttemptJournal",
    "Journal",
    "TurnLog",
    "Unfinished",
    "count_lines",
    "empty_artifacts",
    "read_config",
    "read_events",
    "read_failures",
    "read_inflight",
    "read_recorded",
    "read_trajectories",
]
