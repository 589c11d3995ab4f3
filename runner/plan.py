"""Which attempts a run is made of, and in which order. Pure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench_data import Sample
from runner.config import RunConfig
from runner.errors import ConfigError
from runner.records import attempt_id


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sample and its epoch number, from 1."""

    sample: Sample
    epoch: int

    @property
    def name(self) -> str:
        """`sample_id@epoch`."""
        return attempt_id(self.sample.id, self.epoch)


def select_samples(samples: Sequence[Sample], config: RunConfig) -> list[Sample]:
    """Return the samples of a run in its order. Raises ConfigError when there is none."""
    chosen = [s for s in samples if config.samples is None or fnmatchcase(s.id, config.samples)]
    if not chosen:
        ids = ", ".join(sample.id for sample in samples[:5]) or "none"
        raise ConfigError(
            f"--samples {config.samples!r} matches none of the {len(samples)} samples of "
            f"{config.benchmark} ({ids}, ...)"
        )
    if config.shuffle is not None:
        random.Random(config.shuffle).shuffle(chosen)
    return chosen[: config.limit]


def attempts(samples: Sequence[Sample], epochs: int, done: Container[str]) -> Iterator[Attempt]:
    """Yield the attempts that are not done: the first epoch of all samples, then the second, ..."""
    for epoch in range(1, epochs + 1):
        for sample in samples:
            if attempt_id(sample.id, epoch) not in done:
                yield Attempt(sample, epoch)


def attempt_seed(run_seed: int, attempt: str) -> int:
    """Return the seed of an attempt, 0 to 2**32 - 1: the same for the same run seed and attempt."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{attempt}".encode()).digest()[:4], "big")
