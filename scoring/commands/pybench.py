"""`python -m scoring pybench`: scores a run of upstream's own form, a file and a folder."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from bench_data import DataOptions
from bench_data.errors import BenchDataError
from bench_data.pybench import all_tasks
from runner.errors import RunnerError
from runner.journal import CONFIG, TRAJECTORIES, read_recorded
from sandbox_pool import PoolConfig, SandboxError, SandboxPool, UnsupportedHost
from scoring.errors import RunDirError, ScoringError
from scoring.judging import Context
from scoring.outputs_folder import artifacts_in
from scoring.pipeline import Scored, default_n_workers, score_trajectories
from scoring.pybench.report import ProfileReport, Tasks, as_json, differences, lines, profile_report
from scoring.pybench.scorer import NAME, VERSION, PyBenchScorer, all_inputs
from scoring.pybench.tasks import Profile, load_checks
from scoring.store import check_target, write_atomically

Rows = Sequence[Mapping[str, Any]]

READERS_NEED = {
    "cv2": "opencv-python-headless",
    "fitz": "pymupdf",
    "mutagen": "mutagen",
    "soundfile": "soundfile",
}
"""By module: the packages of the extra `pybench` that output files are read with."""


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code: 0, 2 for what the user can mend, 1 for what failed."""
    arguments = _parser().parse_args(argv)
    try:
        check_readers()
        check_target(arguments.json)
        check_outputs(arguments.outputs)
        rows = list(read_recorded(arguments.trajectories))
        if not rows:
            raise RunDirError(f"{arguments.trajectories} has no trajectories: there is nothing to score")
        prompt = recorded_prompt(rows)
        report, tasks = _score(arguments, rows)
        found = differences(tasks, {report.profile: report})
        content = _json(report, prompt, arguments.data_version, found)
        if arguments.json not in (None, "-"):
            write_atomically(Path(arguments.json), content)
    except (RunDirError, BenchDataError, RunnerError) as error:
        print(f"scoring: {error}", file=sys.stderr)
        return 2
    except (ScoringError, SandboxError, OSError) as error:
        advice = "; or --allow-unsafe, if you trust the files" if isinstance(error, UnsupportedHost) else ""
        print(f"scoring: {error}{advice}", file=sys.stderr)
        return 1
    if arguments.json == "-":
        sys.stdout.write(content.decode())
        return 0
    print(f"system prompt: {prompt}", *lines(as_json(report)), sep="\n")
    print(f"the other profile judges {len(found)} tasks by other rules: --json has each, with the reason")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scoring pybench", description=__doc__)
    parser.add_argument(
        "--trajectories", type=Path, required=True, metavar="FILE", help="upstream's trajectory.jsonl"
    )
    parser.add_argument(
        "--outputs", type=Path, required=True, metavar="DIR", help="upstream's output folder of that run"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="a checkout of PyBench: what holds data/"
    )
    parser.add_argument("--profile", choices=["upstream", "strict"], default="upstream")
    parser.add_argument(
        "--data-version",
        choices=["head", "pristine"],
        default="head",
        help="the inputs that the run had, which its outputs are compared with (default: head, as upstream "
        "runs have; strict then sets the tasks apart that are solved in them)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers to FILE; - for standard output")
    parser.add_argument(
        "--allow-unsafe",
        action="store_true",
        help="where this machine can isolate nothing, open the files in a process without protection",
    )
    return parser


def check_readers() -> None:
    """Raise RunDirError when the packages are missing that the output files are read with."""
    missing = [package for module, package in READERS_NEED.items() if find_spec(module) is None]
    if missing:
        raise RunDirError(f"scoring PyBench needs {', '.join(missing)}: make install-pybench installs it")


def check_outputs(folder: Path) -> None:
    """Raise RunDirError for a run directory of ours, or its artifacts, where each task has a folder."""
    run_dir = folder.parent if folder.name == "artifacts" else folder
    if (run_dir / CONFIG).is_file() and (run_dir / TRAJECTORIES).is_file():
        raise RunDirError(
            f"{run_dir} is a run of ours, which `python -m scoring {run_dir}` scores; its output files "
            f"in one folder are given by `python -m scoring export {run_dir} --format pybench --outputs DIR`"
        )


def load_tasks(options: DataOptions) -> Tasks:
    """Return the tasks of a checkout. Blocks. Raises BenchDataError, ScoringError."""
    found = list(all_tasks(options))
    return Tasks(
        samples={sample.id: sample for sample, _ in found},
        checks=load_checks(),
        missing_inputs={sample.id: problem for sample, problem in found if problem},
        data_version=options.version,
    )


def _score(arguments: argparse.Namespace, rows: Rows) -> tuple[ProfileReport, Tasks]:
    profile: Profile = arguments.profile
    tasks = load_tasks(DataOptions(root=arguments.data, version=arguments.data_version))
    folder = artifacts_in(arguments.outputs, "output")
    inputs = all_inputs(tasks.samples.values())
    scorer = PyBenchScorer(profile, tasks.checks, inputs, {1: folder}, own_files=False)
    scored = asyncio.run(_scored(arguments, rows, scorer, tasks))
    return profile_report(profile, scored.attempts, tasks, n_epochs=1), tasks


async def _scored(arguments: argparse.Namespace, rows: Rows, scorer: PyBenchScorer, tasks: Tasks) -> Scored:
    n_workers = default_n_workers()
    pool = SandboxPool(PoolConfig(max_sandboxes=n_workers), trusted_code=arguments.allow_unsafe)
    async with pool:
        context = Context(run_dir=arguments.outputs, pool=pool)
        return await score_trajectories(rows, tasks.samples, scorer, scorer.scorer, context, n_workers)


def recorded_prompt(rows: Rows) -> str:
    """Return which system prompt a recording was made with, in the words of a run's own report."""
    openings = [row["messages"][0] for row in rows if row.get("messages")]
    texts = dict.fromkeys(str(m.get("content") or "") for m in openings if m["role"] == "system")
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] for text in texts]
    return f"the recording's (sha256 {', '.join(digests)})" if digests else "none in the recording"


def _json(report: ProfileReport, prompt: str, data_version: str, found: list[dict[str, Any]]) -> bytes:
    content: dict[str, Any] = {"scorer": NAME, "scorer_version": VERSION, "prompt": prompt}
    content |= {"data_version": data_version, **as_json(report), "differences": found}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
