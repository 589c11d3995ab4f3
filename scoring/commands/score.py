"""`python -m scoring score RUN_DIR`: score a run of ours, write scores.jsonl and report.json."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench_data.errors import BenchDataError
from runner.errors import RunnerError
from runner.journal import read_failures, read_trajectories
from sandbox_pool import PoolConfig, SandboxError, SandboxPool, UnsupportedHost
from scoring import quickstart
from scoring.commands.pybench import check_readers, load_tasks
from scoring.errors import RunDirError, ScoringError
from scoring.judging import Context
from scoring.pipeline import Scored, default_n_workers, score_trajectories
from scoring.pybench.report import (
    Attempt,
    ProfileReport,
    as_json,
    differences,
    profile_report,
    tasks_apart,
)
from scoring.pybench.scorer import PyBenchScorer, all_inputs, output_folders
from scoring.pybench.tasks import Profile
from scoring.report import print_report
from scoring.score import Report, Score, Scorer, make_report
from scoring.store import (
    Run,
    check_target,
    load_benchmark,
    open_run,
    report_json,
    run_facts,
    write_atomically,
    write_report,
    write_scores,
)

PROFILES: tuple[Profile, ...] = ("upstream", "strict")


@dataclass(frozen=True, slots=True)
class Result:
    """What scoring a run came to."""

    scored: Scored
    scorer: Scorer
    scores: list[Score]
    """The lines of scores.jsonl: of every profile."""

    categories: list[str]
    details: Mapping[str, Any] | None = None
    """What the benchmark's own rules say beside."""


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code: 0, 2 for what the user can mend, 1 for what failed."""
    arguments = _parser().parse_args(argv)
    try:
        check_target(arguments.json)
        report = score_run(
            arguments.run_dir,
            allow_unsafe=arguments.allow_unsafe,
            max_failed_share=arguments.max_failed_share,
        )
        if arguments.json not in (None, "-"):
            write_atomically(Path(arguments.json), report_json(report))
    except (RunDirError, BenchDataError, RunnerError) as error:
        print(f"scoring: {error}", file=sys.stderr)
        return 2
    except UnsupportedHost as error:
        print(f"scoring: {error}; or --allow-unsafe, if you trust the code of this run", file=sys.stderr)
        return 1
    except (ScoringError, SandboxError, OSError) as error:
        print(f"scoring: {error}", file=sys.stderr)
        return 1
    is_json = arguments.json == "-"
    print_report(report, arguments.run_dir, sys.stderr if is_json else sys.stdout)
    if is_json:
        sys.stdout.write(report_json(report).decode())
    if report.headline_withheld:
        print(f"scoring: no headline number: {report.headline_withheld}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scoring score", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="what `python -m runner` has written")
    parser.add_argument(
        "--allow-unsafe",
        action="store_true",
        help="where this machine can isolate nothing, open the files in a process without protection",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write report.json's content to FILE; - for standard output"
    )
    parser.add_argument(
        "--max-failed-share",
        metavar="SHARE",
        type=_share,
        help="of all attempts, how many may have failed by no fault of the model before the headline number "
        "is withheld (default: the run's max_failed_share, 0.02)",
    )
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def score_run(run_dir: Path, *, allow_unsafe: bool = False, max_failed_share: float | None = None) -> Report:
    """Score a run, write its two files, return its report. Blocks.

    Raises:
        RunDirError, BenchDataError, RunnerError: the user can mend it.
        UnsupportedHost: this machine can isolate nothing.
        ScoringError, SandboxError, OSError: something else failed; nothing was written.
    """
    run = open_run(run_dir)
    if max_failed_share is not None:
        run = replace(run, max_failed_share=max_failed_share)
    # The pool takes what promises nothing only where there is no better, and warns then.
    pool = SandboxPool(
        PoolConfig(max_sandboxes=default_n_workers()), trusted_code=run.trusted_code or allow_unsafe
    )
    result = asyncio.run(_result(run, pool))
    scored = result.scored
    facts = run_facts(run, scored.names, scored.n_duplicates, scored.n_tokens, scored.cost)
    report = make_report(scored.attempts, result.scorer, facts, result.categories)
    report = replace(report, details=result.details)
    write_scores(run_dir, result.scores)
    write_report(run_dir, report)
    return report


async def _result(run: Run, pool: SandboxPool) -> Result:
    return await (_pybench(run, pool) if run.benchmark == "pybench" else _by_checks(run, pool))


async def _by_checks(run: Run, pool: SandboxPool) -> Result:
    benchmark = load_benchmark(run)
    samples = {sample.id: sample for sample in benchmark.samples}
    async with pool:
        scored = await score_trajectories(
            read_trajectories(run.run_dir),
            samples,
            quickstart.score,
            quickstart.SCORER,
            Context(run_dir=run.run_dir, pool=pool),
            pool.config.max_sandboxes,
        )
    scores = [attempt.score for attempt in scored.attempts]
    return Result(scored, quickstart.SCORER, scores, [sample.category for sample in benchmark.samples])


async def _pybench(run: Run, pool: SandboxPool) -> Result:
    """Score by both profiles; the report's own numbers are those of `strict`, over what that counts."""
    check_readers()
    load_benchmark(run)  # warns where it is not the one that was run
    tasks = load_tasks(run.data)
    inputs = all_inputs(tasks.samples.values())
    folders = output_folders(read_trajectories(run.run_dir), run.run_dir)
    by_profile: dict[Profile, Scored] = {}
    async with pool:
        for profile in PROFILES:
            scorer = PyBenchScorer(profile, tasks.checks, inputs, folders)
            by_profile[profile] = await score_trajectories(
                read_trajectories(run.run_dir),
                tasks.samples,
                scorer,
                scorer.scorer,
                Context(run_dir=run.run_dir, pool=pool),
                pool.config.max_sandboxes,
            )
    failures = _failures(run.run_dir)
    reports: dict[Profile, ProfileReport] = {
        profile: profile_report(profile, scored.attempts, tasks, run.epochs, failures)
        for profile, scored in by_profile.items()
    }
    details = {
        "prompt": run.prompt,
        "data_version": run.data.version,
        "profiles": {profile: as_json(report) for profile, report in reports.items()},
        "differences": differences(tasks, reports),
    }
    scores = [attempt.score for scored in by_profile.values() for attempt in scored.attempts]
    apart = tasks_apart(reports["strict"])
    attempts = [replace(a, is_set_apart=a.score.sample_id in apart) for a in by_profile["strict"].attempts]
    strict = replace(by_profile["strict"], attempts=attempts)
    categories = [sample.category for sample in tasks.samples.values()]
    return Result(strict, PyBenchScorer("strict", tasks.checks, inputs).scorer, scores, categories, details)


def _failures(run_dir: Path) -> dict[Attempt, str]:
    """Return why attempts failed by our fault, by task and epoch."""
    failures = {}
    for row in read_failures(run_dir):
        index, _, epoch = str(row["attempt"]).rpartition("@")
        if epoch.isdecimal():
            failures[index, int(epoch)] = (
                f"ended by {row['stop_reason']}: {row.get('error') or 'no error text'}"
            )
    return failures
