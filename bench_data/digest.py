"""What the samples of a benchmark say, as one number, so that a resume can tell two versions apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench_data.sample import Sample, SampleFile


def samples_digest(samples: Iterable[Sample]) -> str:
    """Return the SHA-256 over each sample's id, messages, file bytes and check, in order.

    References and decoys do not count: they change no trajectory of a real model. Every input file is
    read once.

    Raises:
        OSError: an input file is not readable.
    """
    digest = hashlib.sha256()
    for sample in samples:
        # One line of JSON each: a length-free concatenation could read two ways.
        digest.update(json.dumps(_said(sample), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _said(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "messages": [dict(message) for message in sample.messages],
        "files": [[file.path, _file_digest(file)] for file in sample.files],
        "check": None if sample.check is None else sample.check.model_dump(mode="json"),
    }


def _file_digest(file: SampleFile) -> str:
    if isinstance(file.content, Path):
        with file.content.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(file.content()).hexdigest()
