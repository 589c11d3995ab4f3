"""`python -m scoring score RUN_DIR`: reads the command line, wires the parts, prints the report."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench_data import Benchmark
from bench_data.errors import BenchDataError
from bench_data.loading import BUILT_IN
from runner.errors import RunnerError
from runner.journal import read_trajectories
from sandbox_pool import PoolConfig, SandboxError, SandboxPool, UnsupportedHost
from scoring import quickstart
from scoring.errors import RunDirError, ScoringError
from scoring.pipeline import ScoreFunction, default_n_workers, score_trajectories
from scoring.quickstart import Context
from scoring.report import print_report
from scoring.score import Report, Scorer, make_report
from scoring.store import (
    Run,
    load_benchmark,
    open_run,
    report_json,
    run_facts,
    write_atomically,
    write_report,
    write_scores,
)

COMMANDS = ("score",)

SCORERS: Mapping[str, tuple[Scorer, ScoreFunction]] = {
    "quickstart": (quickstart.SCORER, quickstart.score),
    "jsonl": (quickstart.SCORER, quickstart.score),
}
"""By the benchmark's name up to its colon; for a plug-in's see `_scorer`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 2 for what the user can mend, 1 for what failed."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    try:
        report = _score(
            arguments.run_dir,
            allow_unsafe=arguments.allow_unsafe,
            max_failed_share=arguments.max_failed_share,
        )
        _show(report, arguments.run_dir, arguments.json)
        if report.headline_withheld:
            print(f"scoring: no headline number: {report.headline_withheld}", file=sys.stderr)
    except (RunDirError, BenchDataError, RunnerError) as error:
        print(f"scoring: {error}", file=sys.stderr)
        return 2
    except UnsupportedHost as error:
        print(f"scoring: {error}; or --allow-unsafe, if you trust the code of this run", file=sys.stderr)
        return 1
    except (ScoringError, SandboxError, OSError) as error:
        print(f"scoring: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scoring: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scoring", description="Score runs, offline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser("score", help="score a run; the default: `python -m scoring RUN_DIR`")
    score.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="what `python -m runner` has written")
    score.add_argument(
        "--allow-unsafe",
        action="store_true",
        help="where this machine can isolate nothing, open the files in a process without protection",
    )
    score.add_argument(
        "--json", metavar="FILE", help="also write report.json's content to FILE; - for standard output"
    )
    score.add_argument(
        "--max-failed-share",
        metavar="SHARE",
        type=_share,
        help="of all attempts, how many may have failed by no fault of the model before the headline number "
        "is withheld (default: the run's max_failed_share, 0.02)",
    )
    if argv and argv[0] not in (*COMMANDS, "-h", "--help"):
        argv = ["score", *argv]
    return parser.parse_args(argv)


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def _score(run_dir: Path, *, allow_unsafe: bool, max_failed_share: float | None) -> Report:
    run = open_run(run_dir)
    if max_failed_share is not None:
        run = replace(run, max_failed_share=max_failed_share)
    scorer, score = _scorer(run.benchmark)
    # The pool takes what promises nothing only where there is no better, and warns then.
    pool = SandboxPool(
        PoolConfig(max_sandboxes=default_n_workers()), trusted_code=run.trusted_code or allow_unsafe
    )
    return asyncio.run(_score_with(run, load_benchmark(run), scorer, score, pool))


def _scorer(benchmark: str) -> tuple[Scorer, ScoreFunction]:
    """Return the scorer of a benchmark; a plug-in's samples are scored by their checks."""
    name = benchmark.partition(":")[0]
    if name in BUILT_IN and name not in SCORERS:
        raise RunDirError(f"no scorer for benchmark {benchmark} yet; there is one for {', '.join(SCORERS)}")
    return SCORERS.get(name, SCORERS["quickstart"])


async def _score_with(
    run: Run, benchmark: Benchmark, scorer: Scorer, score: ScoreFunction, pool: SandboxPool
) -> Report:
    samples = {sample.id: sample for sample in benchmark.samples}
    async with pool:
        context = Context(run_dir=run.run_dir, pool=pool)
        trajectories = read_trajectories(run.run_dir)
        scored = await score_trajectories(trajectories, samples, score, context, pool.config.max_sandboxes)
    facts = run_facts(run, scored.names, scored.n_duplicates, scored.n_tokens, scored.cost)
    report = make_report(scored.attempts, scorer, facts, [sample.category for sample in benchmark.samples])
    write_scores(run.run_dir, [attempt.score for attempt in scored.attempts])
    write_report(run.run_dir, report)
    return report


def _show(report: Report, run_dir: Path, json_target: str | None) -> None:
    if json_target == "-":
        print_report(report, run_dir, sys.stderr)
        sys.stdout.write(report_json(report).decode())
        return
    if json_target is not None:
        write_atomically(Path(json_target), report_json(report))
    print_report(report, run_dir, sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
