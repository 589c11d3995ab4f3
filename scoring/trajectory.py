"""Reads what scoring needs from a line of the journal: a plain mapping, perhaps of an older version. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from scoring.errors import RunDirError

Trajectory = Mapping[str, Any]

_REQUIRED: Mapping[str, type] = {
    "sample_id": str,
    "epoch": int,
    "turns": list,
    "stop_reason": str,
    "owner": str,
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that the model's code made, as its trajectory's line describes it."""

    path: str
    """Where the sandbox had it, relative to the working directory."""

    file: Path
    """Where the run directory has it."""

    n_bytes: int
    sha256: str | None
    problem: str | None = None
    """Why the file was not collected; None when it was."""


def require_fields(line: Any, number: int) -> Trajectory:
    """Return a line that has what scoring needs. Raises RunDirError that names the line and the key."""
    where = f"trajectories.jsonl, trajectory {number}"
    if not isinstance(line, Mapping):
        raise RunDirError(f"{where}: not a JSON object; was the file written by another program?")
    for key, kind in _REQUIRED.items():
        if not isinstance(line.get(key), kind) or isinstance(line[key], bool):
            found = f"is {line[key]!r:.80}" if key in line else "is missing"
            raise RunDirError(
                f"{where}: {key!r} {found}, expected {kind.__name__}; "
                "was the file written by another program or an older version?"
            )
    return line


def final_answer(trajectory: Trajectory) -> str | None:
    """Return the reply that ended the attempt as an answer; None when it ended in another way."""
    turns = trajectory["turns"]
    if trajectory["stop_reason"] != "answer" or not turns or not isinstance(turns[-1], Mapping):
        return None
    completion = turns[-1].get("completion")
    return completion if turns[-1].get("action") is None and isinstance(completion, str) else None


def artifacts_of(trajectory: Trajectory, run_dir: Path) -> dict[str, Artifact]:
    """Return the attempt's artifacts by their path in the sandbox; foreign entries are left out."""
    prefix = PurePosixPath("artifacts", trajectory["sample_id"], str(trajectory["epoch"]))
    found = {}
    for entry in trajectory.get("artifacts") or ():
        path = PurePosixPath(str(entry.get("path"))) if isinstance(entry, Mapping) else PurePosixPath()
        if ".." in path.parts or not path.is_relative_to(prefix):
            continue
        name = str(path.relative_to(prefix))
        n_bytes, problem = entry.get("bytes"), entry.get("problem")
        found[name] = Artifact(
            path=name,
            file=run_dir / path,
            n_bytes=n_bytes if isinstance(n_bytes, int) else 0,
            sha256=entry.get("sha256"),
            problem=str(problem) if problem else None,
        )
    return found
