"""What the samples of a benchmark say, as one number, so that a resume can tell two versions apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench_data.sample import Sample, SampleFile


def samples_digest(samples: Iterable[Sample], root: Path | None = None) -> str:
    """Return the SHA-256 over each sample's id, messages, file bytes, check and sandbox, in order.

    References and decoys do not count: they change no trajectory of a real model. Every input file is
    read once; a workspace is not read.

    Args:
        samples: the whole benchmark.
        root: the folder that the benchmark lies in; a workspace below it counts by its path from there.

    Raises:
        OSError: an input file is not readable.
    """
    digest = hashlib.sha256()
    for sample in samples:
        # One line of JSON each: a length-free concatenation could read two ways.
        digest.update(json.dumps(_said(sample, root), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _said(sample: Sample, root: Path | None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "id": sample.id,
        "messages": [dict(message) for message in sample.messages],
        "files": [[file.path, _file_digest(file)] for file in sample.files],
        "check": None if sample.check is None else sample.check.model_dump(mode="json"),
    }
    # Only what is set: a benchmark that asks for no sandbox of its own keeps its digest.
    sandbox = {"profile": sample.profile, "setup": sample.setup, "workspace": _workspace_name(sample, root)}
    return said | {key: value for key, value in sandbox.items() if value is not None}


def _workspace_name(sample: Sample, root: Path | None) -> str | None:
    # By its name and not by what is in it: a workspace is mounted because it is too large to copy, so it is
    # too large to be read at every load. And not by where it lies on this machine: a benchmark that was
    # moved as a whole, or checked out on another machine, is the same one, and a resume must go on there.
    workspace = sample.workspace
    if workspace is None or root is None or not workspace.is_relative_to(root):
        return None if workspace is None else workspace.as_posix()
    return workspace.relative_to(root).as_posix()


def _file_digest(file: SampleFile) -> str:
    if isinstance(file.content, Path):
        with file.content.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(file.content()).hexdigest()
