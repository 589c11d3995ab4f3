"""The file that a model replays, on nodes that may not see it. Blocks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from runner.cluster.messages import Setup
from runner.config import RunConfig

REPLAY = "replay:"


def recording_of(config: RunConfig) -> Path | None:
    """Return the file that the model replays."""
    if not config.model.client.startswith(REPLAY):
        return None
    path = Path(config.model.client.removeprefix(REPLAY))
    return path / "trajectories.jsonl" if path.is_dir() else path


def with_digest(setup: Setup) -> Setup:
    """Return the setup with the digest of that file. Raises OSError."""
    path = recording_of(setup.config)
    return setup if path is None else replace(setup, recording_digest=_digest(path))


def has_same_recording(setup: Setup) -> bool:
    """Whether the file is here too, with the same content; and if there is none to have."""
    path = recording_of(setup.config)
    try:
        return path is None or _digest(path) == setup.recording_digest
    except OSError:
        return False


def put_down(setup: Setup, data: bytes, folder: Path) -> Setup:
    """Write the file here, and return the setup with its path. Raises OSError."""
    name = Path(setup.config.model.client.removeprefix(REPLAY)).name
    path = folder / f"replayed-{name}"
    path.write_bytes(data)
    model = setup.config.model.model_copy(update={"client": f"{REPLAY}{path}"})
    return replace(setup, config=setup.config.model_copy(update={"model": model}))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
