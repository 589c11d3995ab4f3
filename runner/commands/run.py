"""python -m runner: run a benchmark. README.md shows it at work."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import uvloop

from bench_data import BenchDataError
from runner.batch import Batch, RunSummary, Watching, prepare, run_batch
from runner.config import RunConfig, load_config, parse_setting
from runner.errors import ConfigError, Interrupted, RunnerError, first_error
from runner.models import ReplayClient
from runner.progress import RunConsole, duration
from runner.resume import check_same_run, prompt_source
from runner.upstream_prompts import why_unused
from sandbox_pool import SandboxError

DEFAULT_CONFIG = Path("kernelfleet.yaml")
CONFIG_VARIABLE = "KERNELFLEET_CONFIG"

NO_CHOICES = frozenset({"run_dir", "progress", "metrics_port"})
"""Options that leave the built-in demo what it is."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128

EPILOG = """\
Without --config: the file that $KERNELFLEET_CONFIG names, else kernelfleet.yaml in this folder, else the
built-in demo. The same command with the same --run-dir resumes.
Another benchmark: --set benchmark=pybench, --set benchmark=jsonl:FILE (python -m bench_data list).
Other commands: python -m runner show | merge | ctl | sweep (each has its own --help).
Exit code: 0 all attempts finished, 1 the run failed, ended early, or attempts failed by our fault or were
cancelled, 2 wrong usage, 130 or 143 stopped by SIGINT or SIGTERM (resume goes on from there).
"""


def main(argv: Sequence[str]) -> int:
    """Run the command line. Returns the exit code."""
    arguments = parse_arguments(argv)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        path = config_path(arguments)
        config = load_config(path, overrides(arguments))
        batch = prepare(config)
        if config.progress != "plain" and (config.progress != "auto" or sys.stderr.isatty()):
            logging.getLogger().setLevel(logging.ERROR)  # what failed is in the view, and in failures.jsonl
        if config.progress != "quiet":
            print_head(batch, path, arguments)
        if arguments.dry_run:
            return dry_run(batch)
        summary = uvloop.run(run_batch(batch, Watching(RunConsole())))
        return report(summary, beside_progress(config))
    except KeyboardInterrupt:  # before or after the part that drains
        print("stopped by SIGINT", file=sys.stderr)
        return EXIT_SIGNAL + signal.SIGINT
    except Exception as error:
        code = exit_code(cause := first_error(error))
        if code is None:
            raise
        print(cause if isinstance(cause, Interrupted) else f"error: {cause}", file=sys.stderr)
        return code


def print_head(batch: Batch, path: Path | None, arguments: argparse.Namespace) -> None:
    """Print what is about to run, and what of it cannot."""
    is_demo = path is None and not overrides(arguments).keys() - NO_CHOICES
    print(first_line(batch, path, is_demo=is_demo))
    report_skipped(batch)
    for line in warnings_of(batch):
        print(line, file=beside_progress(batch.config))
    if not arguments.dry_run:
        print(f"writing to {batch.run_dir}", flush=True)


def beside_progress(config: RunConfig) -> TextIO:
    """Return where messages go: standard error is to hold nothing but JSON where progress is that."""
    return sys.stdout if config.progress == "json" else sys.stderr


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m runner",
        description="Run a benchmark: a model writes Python, sandboxed kernels execute it, turn after turn.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help="a YAML file; see configs/ and runner/config/")
    add("--model", metavar="KIND[:ARG]",
        help="openai:URL[,URL...], vllm:PATH_OR_ID (starts engines here, or on the cluster), replay:FILE, "
        "oracle, decoy or nop")  # fmt: skip
    add("--concurrency", metavar="N", type=int, help="trajectories in flight (default 16)")
    add("--limit", metavar="N", type=int, help="run only the first N samples")
    add("--shuffle", metavar="SEED", type=int, help="run the samples in this random order")
    add("--samples", metavar="GLOB", help="run only the samples whose id matches")
    add("--epochs", metavar="K", type=int, help="attempts per sample (default 1)")
    add(
        "--run-dir",
        metavar="DIR",
        type=Path,
        help="where to write, and what to resume (default: new in runs/)",
    )
    add("--set", metavar="KEY.PATH=VALUE", action="append", default=[], dest="settings",
        help="set any key of the config; the value is YAML (repeatable)")  # fmt: skip
    add(
        "--cluster", metavar="KIND", help="ray: sandboxes on the nodes of a Ray cluster; none: here (default)"
    )
    add("--strict-data", action="store_true", help="a sample whose input files are missing is an error")
    add("--dry-run", action="store_true", help="show what would run, what is reused, and why")
    add("--quiet", action="store_const", const="quiet", dest="progress", help="print nothing but errors")
    add("--json-progress", action="store_const", const="json", dest="progress",
        help="print progress as JSON lines on standard error")  # fmt: skip
    add("--metrics-port", metavar="PORT", type=int, help="serve Prometheus metrics on 127.0.0.1:PORT")
    return parser.parse_args(argv)


def config_path(arguments: argparse.Namespace) -> Path | None:
    """Return the config file to use, or None for the built-in demo."""
    if arguments.config is not None:
        return Path(arguments.config)
    if variable := os.environ.get(CONFIG_VARIABLE):
        return Path(variable)
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line sets: `--set` first, explicit options over it."""
    settings = dict(parse_setting(text) for text in arguments.settings)
    options = {
        "model.client": arguments.model,
        "concurrency": arguments.concurrency,
        "limit": arguments.limit,
        "shuffle": arguments.shuffle,
        "samples": arguments.samples,
        "epochs": arguments.epochs,
        "run_dir": arguments.run_dir,
        "data.strict": arguments.strict_data or None,
        "progress": arguments.progress,
        "metrics_port": arguments.metrics_port,
        "cluster.kind": arguments.cluster,
    }
    return settings | {key: value for key, value in options.items() if value is not None}


def first_line(batch: Batch, path: Path | None, *, is_demo: bool) -> str:
    """Return the line that says what is about to run."""
    config: RunConfig = batch.config
    what = (
        f"benchmark {config.benchmark}, {len(batch.samples)} samples"
        + (f" x {config.epochs} epochs" if config.epochs > 1 else "")
        + f", model {config.model.client}, protocol {batch.protocol.name}, concurrency {config.concurrency}"
        + (f", prompt {prompt_source(config)}" if config.prompts else "")
        + (f", profile {config.profile}" if config.profile != "default" else "")
    )
    if is_demo:
        return f"No config given: this is the built-in demo ({what})."
    return f"{path}: {what}" if path else what


def report_skipped(batch: Batch) -> None:
    """Print which samples of the benchmark cannot run here."""
    skipped = batch.benchmark.skipped
    if skipped:
        print(f"skipping {len(skipped)} samples:")
        for sample in skipped:
            print(f"  {sample.id}: {sample.reason}")


def warnings_of(batch: Batch) -> list[str]:
    """Return what is not as the user may think: settings unused, replies not recorded, needs not met."""
    lines = []
    if prompts := batch.config.prompts:
        lines += [f"warning: {prompts.path}: {key} is not used: {why_unused(key)}" for key in prompts.unused]
        lines += [
            f"warning: {prompts.path}: {key} is not used: your config or command line sets another value"
            for key in prompts.outvoted
        ]
    if isinstance(batch.model, ReplayClient) and (missing := batch.model.missing(batch.samples.ids)):
        lines.append(
            f"warning: {len(missing)} samples are not in {batch.model.path} and will end at once with "
            f"model_error: {', '.join(missing[:10])}{', ...' if missing[10:] else ''}"
        )
    return lines + (batch.lacking.lines() if batch.lacking else [])


def dry_run(batch: Batch) -> int:
    """Print the plan: attempts to run, to go on with and to reuse, and why. Raises RunMismatch as the run."""
    check_same_run(batch.run_dir, batch.record({}))
    counts: Counter[str] = Counter()
    for planned in batch.plan():
        counts[planned.action] += 1
        category = f"  {planned.category}" if planned.category else ""
        print(f"  {planned.action:6}  {planned.name}{category}  ({planned.why})")
    print(
        f"{counts['run']} to run, {counts['resume']} to go on with, {counts['reuse']} done, "
        f"in {batch.run_dir} (dry run: nothing done)"
    )
    return 0


def report(summary: RunSummary, messages: TextIO) -> int:
    """Print what came of the run, and to `messages` what went wrong: all that a quiet user wants to read."""
    if not summary.is_quiet:
        print("\n".join(result_lines(summary)))
    statistics = summary.statistics
    if statistics.n_failed:
        print(
            f"{statistics.n_failed} attempts failed by no fault of the model; see "
            f"{summary.run_dir}/failures.jsonl. The last: {statistics.last_failure}",
            file=messages,
        )
    if statistics.draining:
        print(f"ended early: {statistics.draining}", file=messages)
    return report_code(summary)


def result_lines(summary: RunSummary) -> list[str]:
    """Return what came of the run, and what to do next."""
    statistics = summary.statistics
    done_before = f" ({summary.n_done_before} were done before)" if summary.n_done_before else ""
    took = duration(statistics.elapsed_s)
    n = statistics.n_finished
    lines = [f"{n} {'trajectory' if n == 1 else 'trajectories'} finished in {took}{done_before}"]
    if statistics.n_resumed or statistics.n_restarted:
        resumed = f"{statistics.n_resumed} went on from their last turn"
        lines.append(f"of those begun earlier, {resumed}, {statistics.n_restarted} began again")
    if summary.n_left:
        again = f"run the same command with --run-dir {summary.run_dir} to go on"
        lines.append(f"{summary.n_left} attempts left: {again}")
    if summary.has_checks and statistics.n_finished + summary.n_done_before:
        lines.append(f"score it: python -m scoring {summary.run_dir}")
    return lines


def report_code(summary: RunSummary) -> int:
    """Return the exit code of a run."""
    if summary.signal_number is not None and summary.n_left:
        return EXIT_SIGNAL + summary.signal_number
    return EXIT_FAILED if summary.n_left else 0


def exit_code(error: BaseException) -> int | None:
    """Return the exit code for an error that a user can do something about, or None for a bug."""
    if isinstance(error, ConfigError | BenchDataError):
        return EXIT_USAGE
    if isinstance(error, Interrupted):
        return EXIT_SIGNAL + error.number
    return EXIT_FAILED if isinstance(error, RunnerError | SandboxError) else None
