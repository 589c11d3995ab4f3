"""What a benchmark is made of: samples, their files, their reference and decoy solutions.

A sample is one row of a benchmark: what the model is asked, the files it finds in its working
directory, and how its result is checked. Nothing here executes anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from bench_data.checks import Check
from bench_data.errors import SampleError

SAMPLE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Sample ids become folder names, so they hold nothing that a file system could read otherwise."""

Message = Mapping[str, Any]
"""A chat message: `role` and `content`, as the OpenAI API has them."""


@dataclass(frozen=True, slots=True)
class SampleFile:
    """An input file. Each attempt gets a private copy of it."""

    path: str
    """Where the model finds it, relative to the working directory, with `/` between folders."""

    content: Path | Callable[[], bytes]
    """A file of this machine, or a function that makes the bytes (the same ones at every call)."""

    def read(self) -> bytes:
        """Return the whole content. Raises OSError when a file of this machine is gone."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content()


@dataclass(frozen=True, slots=True)
class Solution:
    """A scripted way through a sample, from which the `oracle` and `decoy` models reply."""

    cells: tuple[str, ...]
    """The code of each turn, in order."""

    answer: str
    """The final reply. `{last_line}` in it stands for the last line of the last observation."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a benchmark.

    The constructor raises SampleError unless `id` matches `SAMPLE_ID` and `workspace` is absolute.
    """

    id: str
    messages: tuple[Message, ...]
    """What the model is asked; the system prompt is the protocol's, not the sample's."""

    category: str = ""
    files: tuple[SampleFile, ...] = ()
    check: Check | None = None
    """How the result is scored, when the benchmark's checks are data of our own kinds."""

    reference: Solution | None = None
    decoy: Solution | None = None
    """A plausible wrong solution that the check must reject."""

    profile: str | None = None
    """The profile of the run's config that its sandbox is made from; None: the one that the config names."""

    setup: str | None = None
    """A cell that each of its kernels runs first, before the input files are there, and that the model
    never sees."""

    workspace: Path | None = None
    """A folder of this machine, absolute, that its code sees read-only as `workspace` in the working
    directory. Not copied: it may hold gigabytes."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What else upstream says about the row, unchanged."""

    def __post_init__(self) -> None:
        """Refuse an id that could not be a folder name, and a workspace that is not the same everywhere."""
        if not SAMPLE_ID.fullmatch(self.id) or self.id.endswith("."):
            raise SampleError(
                f"sample id {self.id!r} cannot be a folder name: use 1 to 128 of A-Z a-z 0-9 . _ -, "
                "starting with a letter or digit and not ending with a dot"
            )
        if self.workspace is not None and not self.workspace.is_absolute():
            raise SampleError(
                f"workspace {str(self.workspace)!r} of sample {self.id} must be absolute: "
                "a run may be resumed from another folder"
            )


class Samples(Sequence[Sample]):
    """The samples of a benchmark, each made when it is asked for; what is asked of all is known without."""

    def __init__(
        self,
        ids: Sequence[str],
        load: Callable[[int], Sample],
        *,
        profile_of: Mapping[str, str],
        checked: Container[str],
    ) -> None:
        """`profile_of` has the samples that name a profile, `checked` those whose results can be scored."""
        self.ids = ids
        self._load = load
        self._profile_of = profile_of
        self._checked = checked

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Samples:
        """Return samples that are all there already."""
        if isinstance(samples, Samples):
            return samples
        profile_of = {sample.id: sample.profile for sample in samples if sample.profile is not None}
        checked = {sample.id for sample in samples if sample.check is not None}
        ids = [sample.id for sample in samples]
        return cls(ids, samples.__getitem__, profile_of=profile_of, checked=checked)

    @property
    def profiles(self) -> dict[str, str]:
        """The sandbox profiles that samples name, each with the first sample that does."""
        profiles: dict[str, str] = {}
        if self._profile_of:
            for name in self.ids:
                if name in self._profile_of:
                    profiles.setdefault(self._profile_of[name], name)
        return profiles

    @property
    def has_checks(self) -> bool:
        """Whether any of them says how it is scored."""
        return any(name in self._checked for name in self.ids)

    def chosen(self, indices: Sequence[int]) -> Samples:
        """Return some of them, in this order."""
        return Samples(
            [self.ids[index] for index in indices],
            lambda number: self._load(indices[number]),
            profile_of=self._profile_of,
            checked=self._checked,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.chosen(range(len(self))[index])
        return self._load(range(len(self))[index])


@dataclass(frozen=True, slots=True)
class SkippedSample:
    """A row that cannot be run here, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A named set of samples, ready to run."""

    name: str
    """As the user wrote it: `quickstart`, `pybench`, `jsonl:FILE`."""

    samples: Samples
    protocol: str
    """The protocol that its system prompt and tasks are written for, unless the config says another."""

    digest: str
    """SHA-256 of what the samples say; a resume refuses to mix two digests in one run."""

    skipped: tuple[SkippedSample, ...] = ()

    def __post_init__(self) -> None:
        """Let a plain sequence of samples stand for Samples."""
        object.__setattr__(self, "samples", Samples.of(self.samples))
