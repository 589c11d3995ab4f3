"""Samples on their way to a node that does not see their files. Blocks where it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench_data import Sample, SampleFile


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an input file, in the form that a SampleFile has for files that are made."""

    data: bytes

    @property
    def n_bytes(self) -> int:
        """How many they are."""
        return len(self.data)

    def __call__(self) -> bytes:
        """Return them."""
        return self.data


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An input file that could not be read: who asks for it learns why."""

    error: str

    def __call__(self) -> bytes:
        """Raise OSError."""
        raise OSError(self.error)


def packed(sample: Sample) -> Sample:
    """Return a sample that holds the bytes of its input files, or why it has not."""
    return replace(sample, files=tuple(SampleFile(file.path, _content(file)) for file in sample.files))


def _content(file: SampleFile) -> Content | Unreadable:
    try:
        return Content(file.read())
    except OSError as error:
        return Unreadable(str(error))
