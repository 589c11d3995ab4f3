"""What being a Ray job changes: its folder is temporary, and it is given little time to stop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runner.config import RunConfig
from runner.errors import ConfigError

IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for the command of a job."""

STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
DEFAULT_STOP_WAIT_S = 3.0
WRITING_S = 1.5
"""Of the time to stop, what is left for the ends of cancelled attempts to be written."""


def check_run_dir(run_dir: Path | None, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a run directory that goes with the folder of a Ray job; None: a new one. Raises ConfigError."""
    if IN_JOB not in environment or (run_dir is not None and run_dir.is_absolute()):
        return
    name = run_dir.name if run_dir is not None else "NAME"
    given = f"the run directory {run_dir} is relative" if run_dir else "no --run-dir is given"
    raise ConfigError(
        f"{given}, and the folder of a Ray job is temporary and changes with the code: a run there could not "
        f"be resumed. Give an absolute path that outlives the job, best on a file system that all nodes see, "
        f"such as --run-dir {Path.home() / 'kernelfleet-runs' / name}"
    )


def environment_of(config: RunConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that workers need: the API key's, and where traces go."""
    names = {config.model.api_key_env, *(name for name in environment if name.startswith("OTEL_"))}
    return {name: environment[name] for name in names if name is not None and name in environment}


def grace_s(config: RunConfig, environment: Mapping[str, str]) -> float:
    """Return how long running trajectories may go on after a signal."""
    if config.cluster.drain_s is not None:
        return config.cluster.drain_s
    if IN_JOB not in environment:
        return config.grace_s
    try:
        wait_s = float(environment.get(STOP_WAIT, DEFAULT_STOP_WAIT_S))
    except ValueError:
        wait_s = DEFAULT_STOP_WAIT_S
    return min(config.grace_s, max(0.0, wait_s - WRITING_S))
