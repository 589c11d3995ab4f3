"""From what a user writes (`quickstart`, `jsonl:FILE`, a plug-in's name) to a Benchmark.

Built-in benchmarks are imported when they are asked for. Others come from installed packages, through
the entry point group `kernelfleet.benchmarks`: a name and a callable that takes `DataOptions` and
returns a `Benchmark`. A plug-in cannot replace a built-in name.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bench_data.errors import BenchDataError, UnknownBenchmark
from bench_data.sample import Benchmark

ENTRY_POINT_GROUP = "kernelfleet.benchmarks"

BUILT_IN = {
    "quickstart": "our own, in six categories; needs no data",
    "pybench": "PyBench; needs --root, a checkout of it",
}
"""The names of the built-in benchmarks, each with a line for `python -m bench_data list`."""


class DataOptions(BaseModel):
    """Where a benchmark's data is and how to read it; the section `data` of a run's config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path | None = None
    """The folder that holds the benchmark's own data. Quickstart and `jsonl:` need none."""

    version: Literal["head", "pristine"] = "pristine"
    """Which form of the input files, where upstream's runs have overwritten some of them."""

    strict: bool = False
    """Whether a missing input file is an error; else its sample is skipped, with the reason."""


def load(spec: str, options: DataOptions | None = None) -> Benchmark:
    """Return the benchmark that a user names.

    Args:
        spec: `quickstart`, `pybench`, `jsonl:FILE` or the name of an entry point.
        options: where its data is; the defaults do for what needs none.

    Raises:
        UnknownBenchmark: no benchmark has that name; the message lists those that there are.
        SampleError: a row is not usable; the message names the file, the line and the key.
        MissingDataError: data that it needs is not on this machine.
        BenchDataError: a plug-in could not be loaded.
    """
    options = options or DataOptions()
    kind, _, argument = spec.partition(":")
    if kind == "jsonl" and argument:
        from bench_data import jsonl

        return jsonl.load(Path(argument), spec=spec)
    if spec == "quickstart":
        from bench_data import quickstart

        return quickstart.load()
    if spec in BUILT_IN:
        load_it: Callable[[DataOptions], Benchmark] = import_module(f"bench_data.{spec}").load
        return load_it(options)
    plug_in = plug_ins().get(spec)
    if plug_in is None:
        raise UnknownBenchmark(f"no benchmark is called {spec!r}; known are {', '.join(known_names())}")
    return _load_plug_in(plug_in, options)


def known_names() -> list[str]:
    """Return what `load` takes: built-in names, plug-ins' names, and the form of your own file."""
    return [*BUILT_IN, *sorted(plug_ins()), "jsonl:FILE"]


def plug_ins() -> dict[str, EntryPoint]:
    """Return the benchmarks that installed packages bring, by name; none of them is imported."""
    found = entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point for point in found if point.name not in BUILT_IN}


def _load_plug_in(point: EntryPoint, options: DataOptions) -> Benchmark:
    origin = f"benchmark {point.name!r} (entry point {point.value})"
    try:
        load_it = point.load()
    except (ImportError, AttributeError) as error:
        raise BenchDataError(f"{origin} cannot be imported: {error}; reinstall the package") from error
    benchmark = load_it(options)
    if not isinstance(benchmark, Benchmark):
        raise BenchDataError(f"{origin} returned {type(benchmark).__name__}, expected bench_data.Benchmark")
    return benchmark
