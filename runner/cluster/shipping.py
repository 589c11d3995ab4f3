"""Samples on their way to a node that does not see their files. Blocks where it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench_data import Sample, SampleFile


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an input file, in the form that a SampleFile has for files that are made."""

    data: bytes

    def __call__(self) -> bytes:
        """Return them."""
        return self.data


def packed(sample: Sample) -> Sample:
    """Return a sample that holds the bytes of its input files. Raises OSError when one cannot be read."""
    files = tuple(SampleFile(file.path, Content(file.read())) for file in sample.files)
    return replace(sample, files=files)
