"""`python -m bench_data`: which benchmarks there are, and what is in them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten

from bench_data.errors import BenchDataError, UnknownBenchmark
from bench_data.loading import BUILT_IN, DataOptions, load, plug_ins
from bench_data.sample import Benchmark, Sample, Solution

MAX_WORDS = 70
"""How much of a task `list` shows, in characters."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, or 2 for what is not there or not readable."""
    args = _parser().parse_args(arguments)
    options = DataOptions(root=args.root, version=args.data_version, strict=args.strict_data)
    try:
        for line in _list(args.name, options) if args.command == "list" else _show(args.sample, options):
            print(line)
        sys.stdout.flush()
    except (BenchDataError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # `| head` has read enough; what is left in the buffer must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"bench_data: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--root", type=Path, help="the folder that holds the benchmark's own data")
    data.add_argument("--data-version", choices=["head", "pristine"], default="pristine")
    data.add_argument("--strict-data", action="store_true", help="a missing input file is an error")
    parser = argparse.ArgumentParser(prog="python -m bench_data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", parents=[data], help="the benchmarks, or the samples of one")
    listing.add_argument("name", nargs="?", help="quickstart, pybench, jsonl:FILE, ...")
    showing = commands.add_parser("show", parents=[data], help="all that is known about one sample")
    showing.add_argument("sample", help="BENCHMARK/ID, for example quickstart/chart-monthly-revenue")
    return parser


def _list(name: str | None, options: DataOptions) -> Iterator[str]:
    return _benchmarks() if name is None else _samples(load(name, options))


def _benchmarks() -> Iterator[str]:
    rows = {**BUILT_IN, **{name: f"from {point.value}" for name, point in sorted(plug_ins().items())}}
    rows["jsonl:FILE"] = "your own: a sample on each line"
    width = max(map(len, rows))
    for name, words in rows.items():
        yield f"{name:<{width}}  {words}"


def _samples(benchmark: Benchmark) -> Iterator[str]:
    samples = benchmark.samples
    id_width = max((len(sample.id) for sample in samples), default=0)
    category_width = max((len(sample.category) for sample in samples), default=0)
    for sample in samples:
        yield f"{sample.id:<{id_width}}  {sample.category:<{category_width}}  {_first_words(sample)}".rstrip()
    for skipped in benchmark.skipped:
        yield f"{skipped.id:<{id_width}}  skipped: {skipped.reason}"
    yield f"{len(samples)} samples, {len(benchmark.skipped)} skipped; protocol {benchmark.protocol}"


def _first_words(sample: Sample) -> str:
    # The last user message is the task: PyBench's first one lists files, examples come before it too.
    asked = [message for message in sample.messages if message["role"] == "user"] or sample.messages
    return shorten(str(asked[-1]["content"]), MAX_WORDS, placeholder=" ...")


def _show(spec: str, options: DataOptions) -> Iterator[str]:
    name, slash, sample_id = spec.rpartition("/")
    if not slash or not name or not sample_id:
        raise UnknownBenchmark(f"{spec!r} names no sample; write BENCHMARK/ID, with the ID from `list`")
    benchmark = load(name, options)
    for sample in benchmark.samples:
        if sample.id == sample_id:
            return _sample(sample)
    reason = next((skipped.reason for skipped in benchmark.skipped if skipped.id == sample_id), None)
    known = f"`python -m bench_data list {name}` shows the {len(benchmark.samples)} that there are"
    raise UnknownBenchmark(
        f"{name} has no sample {sample_id!r}; {known}" if reason is None else f"{spec} is skipped: {reason}"
    )


def _sample(sample: Sample) -> Iterator[str]:
    yield f"{sample.id} ({sample.category or 'no category'})"
    for message in sample.messages:
        yield from ("", f"-- {message['role']}", str(message["content"]).rstrip())
    yield from ("", "-- files")
    yield from [f"{file.path}  {len(file.read())} bytes" for file in sample.files] or ["none"]
    yield from _sandbox(sample)
    if sample.check is not None:
        yield from ("", "-- check")
        yield json.dumps(sample.check.model_dump(mode="json"), ensure_ascii=False, indent=2)
    for title, solution in (("reference", sample.reference), ("decoy (must fail)", sample.decoy)):
        if solution is not None:
            yield from _solution(title, solution)
    if sample.metadata:
        yield from ("", "-- metadata", json.dumps(dict(sample.metadata), ensure_ascii=False, indent=2))


def _sandbox(sample: Sample) -> Iterator[str]:
    if sample.profile is not None or sample.workspace is not None:
        yield from ("", "-- sandbox")
        if sample.profile is not None:
            yield f"profile {sample.profile}"
        if sample.workspace is not None:
            yield f"workspace {sample.workspace}"
    if sample.setup is not None:
        yield from ("", "-- setup (never shown to the model)", sample.setup.rstrip())


def _solution(title: str, solution: Solution) -> Iterator[str]:
    for number, cell in enumerate(solution.cells, start=1):
        yield from ("", f"-- {title}, cell {number} of {len(solution.cells)}", cell.rstrip())
    yield from ("", f"-- {title}, final reply", solution.answer)


if __name__ == "__main__":
    sys.exit(main())
