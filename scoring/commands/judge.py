"""`python -m scoring judge RUN --reference REFERENCE`: a language model compares two runs, task by task.

It sees the task, both trajectories as text and the names of the files they left, and says for each whether
it fulfilled the task and which did better. Every pair is asked twice, with the positions swapped: what does
not hold in both orders does not count for anybody.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from bench_data import BenchDataError, DataOptions, Sample, load
from runner.encoding import encode, encode_line
from runner.errors import ConfigError, JournalError, RunnerError, first_error
from scoring.errors import RunDirError, ScoringError
from scoring.judge.asking import judge_client, judge_runs
from scoring.judge.question import Pair
from scoring.judge.records import pair_up, read_run, read_unit_tests, run_folder
from scoring.judge.verdicts import JudgedTask, JudgeSummary, summarise, summary_lines
from scoring.store import SCORES, write_atomically

if TYPE_CHECKING:
    from runner.models import ModelClient

DEFAULT_REQUEST = {"temperature": 0, "max_tokens": 2000}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 2 for what the user can mend, 1 for what failed."""
    try:
        summary = _judge(_parse(argv))
    except (RunDirError, BenchDataError, ConfigError, JournalError) as error:
        return _fail(error, 2)
    except (ScoringError, RunnerError, OSError) as error:
        return _fail(error, 1)
    except ExceptionGroup as group:
        if not isinstance(first := first_error(group), RunnerError):
            raise
        return _fail(f"{first}; with --cache, the replies so far are not asked for again", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written, but for replies in --cache", 130)
    sys.stdout.writelines(f"{line}\n" for line in summary_lines(summary))
    if summary.pass_rate is None:
        return _fail("no task has a verdict; judge.jsonl has the reasons", 1)
    return 0


def _fail(error: Exception | str, code: int) -> int:
    sys.stderr.write(f"scoring judge: {error}\n")
    return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scoring judge", description="Let a language model compare two runs, task by task."
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run directory, or a trajectory.jsonl of PyBench")
    add("--reference", type=Path, required=True, metavar="RUN", help="what it is compared with, likewise")
    add("--model", required=True, metavar="openai:URL[,URL...]", help="the judge's servers")
    add("--name", help="the judge's name; default: the only model that the server lists")
    add("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the API key")
    add("--request", default=json.dumps(DEFAULT_REQUEST), metavar="JSON", help="default: %(default)s")
    add("--cache", type=Path, metavar="FOLDER", help="of replies: the same question is not asked again")
    add("--data", type=Path, metavar="FOLDER", help="a PyBench checkout: its tasks' text and number")
    add("--scores", type=Path, metavar="FILE", help=f"unit tests of RUN; default: its {SCORES}, if there")
    add("--out", type=Path, metavar="FOLDER", help="for judge.jsonl and judge.json; default: that of RUN")
    add("--concurrency", type=int, default=8, metavar="N", help="pairs at a time (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.concurrency < 1:
        parser.error(f"--concurrency {arguments.concurrency}: at least 1")
    return arguments


def _judge(arguments: argparse.Namespace) -> JudgeSummary:
    candidate, reference = read_run(arguments.run), read_run(arguments.reference)
    samples: dict[str, Sample] = {}
    n_in_neither = 0
    if arguments.data:
        benchmark = load("pybench", DataOptions(root=arguments.data, version="head"))
        samples = {sample.id: sample for sample in benchmark.samples}
        known = samples.keys() | {skipped.id for skipped in benchmark.skipped}
        n_in_neither = len(known - candidate.keys() - reference.keys())
    pairs = pair_up(candidate, reference, samples)
    folder = run_folder(arguments.run)
    scores = arguments.scores or folder / SCORES
    epochs = {name: recorded.epoch for name, recorded in candidate.items()}
    unit_tests = read_unit_tests(scores, epochs) if arguments.scores or scores.is_file() else {}
    out = arguments.out or folder
    out.mkdir(parents=True, exist_ok=True)
    judged = asyncio.run(_judge_with(_client(arguments), pairs, arguments.concurrency))
    summary = summarise(judged, unit_tests, n_in_neither=n_in_neither)
    write_atomically(out / "judge.jsonl", b"".join(map(encode_line, judged)))
    indented = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    write_atomically(out / "judge.json", encode(asdict(summary), indented))
    return summary


async def _judge_with(client: ModelClient, pairs: Sequence[Pair], concurrency: int) -> list[JudgedTask]:
    try:
        await client.start()
        return await judge_runs(client, pairs, concurrency=concurrency)
    finally:
        await client.close()


def _client(arguments: argparse.Namespace) -> ModelClient:
    kind, _, urls = arguments.model.partition(":")
    if kind != "openai" or not urls:
        raise ConfigError(f"--model {arguments.model}: give the judge as openai:URL[,URL...]")
    return judge_client(
        urls.split(","),
        name=arguments.name,
        request=_request(arguments.request),
        api_key_env=arguments.api_key_env,
        cache=arguments.cache,
        concurrency=arguments.concurrency,
    )


def _request(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise ConfigError(f"--request {text}: not a JSON object")
    return request
