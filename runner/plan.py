"""Which attempts a run is made of, and in which order. Pure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from bench_data import Sample, Samples, SkippedSample
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


def select_samples(samples: Samples, config: RunConfig, skipped: Sequence[SkippedSample] = ()) -> Samples:
    """Return the samples of a run in its order.

    Raises:
        ConfigError: there is none; says so where those that are meant are `skipped`, and why the first is.
    """
    ids = samples.ids
    chosen = [n for n, name in enumerate(ids) if config.samples is None or fnmatchcase(name, config.samples)]
    if not chosen:
        left_out = [s for s in skipped if config.samples is None or fnmatchcase(s.id, config.samples)]
        more = (
            f"; skipped: {len(left_out)}, {left_out[0].id} for one: {left_out[0].reason}" if left_out else ""
        )
        raise ConfigError(
            f"--samples {config.samples!r} matches none of the {len(ids)} samples of "
            f"{config.benchmark} ({', '.join(ids[:5]) or 'none'}, ...){more}"
        )
    if config.shuffle is not None:
        random.Random(config.shuffle).shuffle(chosen)
    return samples.chosen(chosen[: config.limit])


def attempts(samples: Samples, epochs: int, done: Container[str]) -> Iterator[Attempt]:
    """Yield the attempts that are not done: the first epoch of all samples, then the second, ..."""
    for epoch in range(1, epochs + 1):
        for index, name in enumerate(samples.ids):
            if attempt_id(name, epoch) not in done:
                yield Attempt(samples[index], epoch)


def attempt_names(samples: Samples, epochs: int) -> Iterator[str]:
    """Yield the names of all attempts, in the order of `attempts`."""
    for epoch in range(1, epochs + 1):
        for name in samples.ids:
            yield attempt_id(name, epoch)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do with an attempt."""

    name: str
    category: str
    action: Literal["reuse", "resume", "run"]
    why: str


def plan(
    samples: Samples,
    epochs: int,
    *,
    done: Mapping[str, str],
    unfinished: Mapping[str, int],
    failed: Mapping[str, str],
    resumes_turns: bool,
) -> Iterator[Planned]:
    """Yield what would become of each attempt, in the order in which they would be begun.

    Args:
        samples: of the run.
        epochs: attempts of each.
        done: how each attempt ended that has a line.
        unfinished: recorded turns of each attempt that was running when its process ended.
        failed: why each attempt failed by our fault, or that it was cancelled.
        resumes_turns: whether recorded turns are gone on from.
    """
    for attempt in attempts(samples, epochs, ()):
        name, category = attempt.name, attempt.sample.category
        if name in done:
            yield Planned(name, category, "reuse", f"finished: {done[name]}")
        elif resumes_turns and unfinished.get(name):
            why = f"; it was broken off: {failed[name]}" if name in failed else ""
            n = unfinished[name]
            yield Planned(name, category, "resume", f"{n} turn{'s' * (n > 1)} recorded{why}")
        elif name in failed:
            yield Planned(name, category, "run", f"no fault of the model's: {failed[name]}")
        else:
            yield Planned(name, category, "run", "not begun")


def attempt_seed(run_seed: int, attempt: str) -> int:
    """Return the seed of an attempt, 0 to 2**32 - 1: the same for the same run seed and attempt."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{attempt}".encode()).digest()[:4], "big")
