"""What the settings of a run come to where they leave something open, and whether its samples fit them."""

from __future__ import annotations

import time
from itertools import chain, count
from pathlib import Path

from bench_data import MissingDataError, Samples
from bench_data.requirements import Lacking, Place, look_for
from runner.config import RunConfig
from runner.control import MAX_CONCURRENCY
from runner.errors import ConfigError
from sandbox_pool import PoolConfig, UnknownProfile
from sandbox_pool.settings import kernel_environment


def sandbox_settings(config: RunConfig) -> PoolConfig:
    """Return the pool's settings with what the run's other settings make of those that are not set."""
    pool = enough_sandboxes(config)
    if config.profile != "upstream":
        return pool
    # All of a cell's text, up to where the cell is stopped for it: upstream shortens nothing.
    upstream = {"kernel": "ipykernel", "max_text_bytes": pool.max_output_bytes}
    unset = {key: value for key, value in upstream.items() if key not in pool.model_fields_set}
    return pool.model_copy(update=unset)


def enough_sandboxes(config: RunConfig) -> PoolConfig:
    """Return the pool's settings, with a sandbox for each trajectory in flight unless they say otherwise.

    A trajectory holds its sandbox from its first action to its end, so that fewer would only make it wait,
    and how many are in flight may change while the run goes on. How many this machine has the memory and the
    descriptors for is the pool's to find out.
    """
    if "max_sandboxes" in config.sandbox.model_fields_set:
        return config.sandbox
    return config.sandbox.model_copy(update={"max_sandboxes": MAX_CONCURRENCY})


def default_run_dir(config: RunConfig) -> Path:
    """Return a new folder below `runs/`, named for the time and what is run."""
    kind, _, file = config.benchmark.partition(":")
    model_kind = config.model.client.partition(":")[0]
    benchmark = Path(file).stem if kind == "jsonl" else config.benchmark
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in f"{benchmark}-{model_kind}")
    path = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name[:60]}"
    numbered = (path.with_name(f"{path.name}-{n}") for n in count(2))
    return next(folder for folder in chain([path], numbered) if not folder.exists())


def check_profiles(samples: Samples, config: PoolConfig) -> None:
    """Raise ConfigError when a sample names a sandbox profile that there is not."""
    for name, sample_id in samples.profiles.items():
        try:
            config.profile_named(name)
        except UnknownProfile as error:
            raise ConfigError(f"sample {sample_id}: {error}") from error


def look_for_requirements(config: RunConfig, samples: Samples) -> Lacking | None:
    """Return what the samples of a benchmark need and their sandboxes have not, where that is known. Blocks.

    Raises:
        MissingDataError: something is lacking, and `data.strict` is set.
        BenchDataError: the sandboxes' interpreter cannot be asked.
    """
    profile = config.sandbox.profile_named(None)
    place = Place(profile.python, profile.extra_paths, kernel_environment(profile))
    lacking = look_for(config.benchmark, samples.ids, place)
    if lacking and config.data.strict:
        raise MissingDataError("\n".join(["data.strict is set:", *lacking.lines()]))
    return lacking
