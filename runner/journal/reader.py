"""Reading a run directory: needs no lock and no writer, and is all that scoring uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from runner.errors import JournalError
from runner.journal.lines import read_lines
from runner.journal.migrations import migrated

CONFIG = "config.json"
TRAJECTORIES = "trajectories.jsonl"
FAILURES = "failures.jsonl"
EVENTS = "events.log"
ARTIFACTS = "artifacts"


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return `config.json`. Raises JournalError when it is missing or not readable."""
    path = run_dir / CONFIG
    try:
        config = orjson.loads(path.read_bytes())
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}; is {run_dir} a run directory?") from error
    except orjson.JSONDecodeError as error:
        raise JournalError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict) or "run_id" not in config:
        raise JournalError(f"{path}: not the config of a run (no run_id)")
    return config


def read_trajectories(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the finished attempts, one at a time, in order of completion. A torn last line is left out.

    Lines of an older version are brought to the present one.

    Raises:
        JournalError: a line that is not the last is not JSON, is no trajectory, or is of a newer version;
            names the line.
    """
    path = run_dir / TRAJECTORIES
    required = ("attempt", "sample_id", "epoch", "stop_reason")
    for number, row in enumerate(read_lines(path, required), start=1):
        yield migrated(row, f"{path}:{number}")


def read_failures(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the attempts that failed by our fault or were cancelled, as `read_trajectories` does."""
    path = run_dir / FAILURES
    for number, row in enumerate(read_lines(path, required=("attempt", "stop_reason")), start=1):
        yield migrated(row, f"{path}:{number}")


def read_events(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a run, as `read_trajectories` does."""
    yield from read_lines(run_dir / EVENTS, required=("at", "event"))
