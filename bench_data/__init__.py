"""What to run: the benchmarks' samples, their input files and how their results are checked.

`load("quickstart")`, `load("pybench", DataOptions(root=...))` and `load("jsonl:tasks.jsonl")` give a
`Benchmark`. Nothing here executes anything, and nothing here knows the runner.
"""

from bench_data.errors import BenchDataError, MissingDataError, SampleError, UnknownBenchmark
from bench_data.loading import DataOptions, load
from bench_data.sample import Benchmark, Message, Sample, SampleFile, Samples, SkippedSample, Solution

__all__ = [
    "BenchDataError",
    "Benchmark",
    "DataOptions",
    "Message",
    "MissingDataError",
    "Sample",
    "SampleError",
    "SampleFile",
    "Samples",
    "SkippedSample",
    "Solution",
    "UnknownBenchmark",
    "load",
]
