"""What the journal keeps of an observation: text inline, pictures as files beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.errors import write_error
from runner.records import ArtifactRecord
from sandbox_pool import Observation
from sandbox_pool.observation import Display, Result

PICTURES_FOLDER = "displayed"
"""Where pictures that cells displayed lie, in the folder of an attempt's artifacts."""

SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/svg+xml": "svg"}


def has_pictures(observation: Observation) -> bool:
    """Whether a file is to be written for an observation."""
    shown = (output.data for output in observation.outputs if isinstance(output, Result | Display))
    return any(isinstance(value, bytes) for data in shown for value in data.values())


def observation_record(
    observation: Observation, artifacts_dir: Path | None, prefix: str, name: str
) -> tuple[dict[str, Any], list[ArtifactRecord]]:
    """Write the pictures of an observation to `artifacts_dir`, synced; return its record and theirs.

    `name` begins the names of the pictures' files. Without a folder no picture is written, and
    the record gives their sizes alone. Blocks where there are pictures.
    """
    pictures: list[ArtifactRecord] = []
    outputs: list[dict[str, Any]] = []
    for output in observation.outputs:
        if isinstance(output, Result | Display):
            data = _without_bytes(output.data, artifacts_dir, prefix, name, pictures)
            outputs.append({"type": output.type, "data": data})
        else:
            outputs.append({name: getattr(output, name) for name in output.__dataclass_fields__})
    record: dict[str, Any] = {
        "status": observation.status,
        "outputs": outputs,
        "limits_hit": observation.limits_hit,
        "truncated": observation.truncated,
        "duration_s": observation.duration_s,
        "n_output_bytes": observation.n_output_bytes,
        "kernel_alive": observation.kernel_alive,
    }
    if observation.peak_memory_bytes is not None:
        record["peak_memory_bytes"] = observation.peak_memory_bytes
    return record, pictures


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into the JournalError that ends the run: its disk cannot be written."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on disk. Makes the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _without_bytes(
    data: Mapping[str, str | bytes],
    artifacts_dir: Path | None,
    prefix: str,
    name: str,
    pictures: list[ArtifactRecord],
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for mime, value in data.items():
        if isinstance(value, str):
            record[mime] = value
            continue
        if artifacts_dir is None:
            record[mime] = {"bytes": len(value)}
            continue
        path = f"{PICTURES_FOLDER}/{name}-{len(pictures) + 1}.{SUFFIXES.get(mime, 'bin')}"
        write_synced(artifacts_dir / path, value)
        artifact = ArtifactRecord(f"{prefix}/{path}", len(value), hashlib.sha256(value).hexdigest())
        pictures.append(artifact)
        record[mime] = {"path": artifact.path, "bytes": artifact.bytes, "sha256": artifact.sha256}
    return record
