"""`python -m scoring judge RUN --reference REFERENCE`: a language model compares two runs, task by task.

It sees the task, both trajectories as text and the names of the files they left, and says for each whether
it fulfilled the task and which did better. Every pair is asked twice, with the positions swapped: what does
not hold in both orders does not count for anybody.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from bench_data import BenchDataError, DataOptions, Sample, load
from runner.conversation import Conversation
from runner.encoding import encode, encode_line
from runner.errors import (
    ConfigError,
    ContextOverflow,
    JournalError,
    ModelRefused,
    RunnerError,
    first_error,
)
from runner.journal import read_recorded, read_trajectories
from runner.models import CachingClient, ModelClient, ModelConfig, ModelRequest, OpenAIClient
from runner.records import attempt_id
from scoring.errors import RunDirError, ScoringError
from scoring.judge_question import MESSAGE_CHARS, Pair, Recorded, judge_messages, opening, shorten, text_of
from scoring.judge_verdicts import (
    JudgedTask,
    JudgeSummary,
    Problem,
    Verdict,
    VerdictError,
    combine,
    parse_verdict,
    summarise,
    summary_lines,
)
from scoring.store import SCORES, write_atomically
from scoring.trajectory import artifacts_of

MAX_REPLIES = 3
"""Of the judge to one question: after that many without a verdict the task is unparsable."""

DEFAULT_REQUEST = {"temperature": 0, "max_tokens": 2000}
RETRY = "That reply cannot be used: {problem}. Reply with the JSON object alone, in the form asked for."


async def judge_runs(client: ModelClient, pairs: Iterable[Pair], *, concurrency: int) -> list[JudgedTask]:
    """Ask the judge about each pair, `concurrency` pairs at a time; return its verdicts in their order.

    The caller starts and closes the client. Safe to cancel.

    Raises:
        ExceptionGroup: of ModelUnavailable, when the server gives no usable answer after all retries.
    """
    judged: dict[int, JudgedTask] = {}
    waiting = enumerate(pairs)

    async def work() -> None:
        for number, pair in waiting:
            judged[number] = await _judge_pair(client, pair)
            client.forget(attempt_id(pair.sample.id, 1))

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return [judged[number] for number in sorted(judged)]


async def _judge_pair(client: ModelClient, pair: Pair) -> JudgedTask:
    runs = {"candidate": pair.candidate, "reference": pair.reference}
    verdicts: list[Verdict] = []
    n_tokens = 0
    task = JudgedTask(pair.sample.id)
    for first, second in ((pair.candidate, pair.reference), (pair.reference, pair.candidate)):
        answer, n_used = await _ask(client, pair.sample, first, second)
        n_tokens += n_used
        if not isinstance(answer, Verdict):
            task = replace(task, problem=answer[0], reasons=(answer[1],))
            break
        verdicts.append(answer)
    else:
        task = combine(pair, *verdicts)
    return replace(
        task,
        missing=[name for name, recorded in runs.items() if recorded is None],
        n_turns=pair.candidate.n_turns if pair.candidate else 0,
        model=client.name,
        n_tokens=n_tokens,
    )


async def _ask(
    client: ModelClient, sample: Sample, first: Recorded | None, second: Recorded | None
) -> tuple[Verdict | tuple[Problem, str], int]:
    """Return the verdict, or why there is none, and the tokens that it took."""
    conversation = Conversation(judge_messages(sample, first, second))
    n_tokens, problem = 0, ""
    for _ in range(MAX_REPLIES):
        try:
            completion = await client.complete(ModelRequest(sample, 1, 0, conversation))
        except (ContextOverflow, ModelRefused) as error:
            return ("refused", str(error)), n_tokens
        n_tokens += completion.usage.total_tokens
        try:
            return parse_verdict(completion.text), n_tokens
        except VerdictError as error:
            problem = str(error)
        said = shorten(completion.text, *MESSAGE_CHARS) or "(an empty reply)"
        conversation.append({"role": "assistant", "content": said})
        conversation.append({"role": "user", "content": RETRY.format(problem=problem)})
    return ("unparsable", problem), n_tokens


def read_run(path: Path) -> dict[str, Recorded]:
    """Return what a run has, by sample: a run directory of ours, or a trajectory.jsonl as PyBench writes it.

    Of several attempts at a sample, the first epoch. An attempt without a reply of the model is left out.
    Blocks.

    Raises:
        RunDirError: there is nothing to read.
        JournalError: a line is not what it should be; names file and line.
    """
    found: dict[str, Recorded] = {}
    for row in read_trajectories(path) if path.is_dir() else read_recorded(path):
        files = _files_of(row, run_folder(path))
        recorded = Recorded(row["messages"], files, row["epoch"], str(row["stop_reason"]))
        known = found.get(row["sample_id"])
        if recorded.n_turns and (known is None or recorded.epoch < known.epoch):
            found[row["sample_id"]] = recorded
    if not found:
        raise RunDirError(f"{path} has no trajectories: give a run directory, or PyBench's trajectory.jsonl")
    return found


def run_folder(path: Path) -> Path:
    """Return the folder of a run that is named by its folder or by its file."""
    return path if path.is_dir() else path.parent


def _files_of(row: Mapping[str, Any], folder: Path) -> list[str] | None:
    """Return the files that an attempt left; PyBench's recordings have them all in one folder, if at all."""
    if "row" not in row:
        artifacts = artifacts_of(row, folder).values()
        return [f"{item.path} ({item.problem or f'{item.n_bytes} bytes'})" for item in artifacts]
    if not (output := folder / "output").is_dir():
        return None
    text = "\n".join(map(text_of, row["messages"]))
    files = sorted(file for file in output.iterdir() if file.is_file() and not file.is_symlink())
    return [
        f"output/{file.name} ({file.stat().st_size} bytes)"
        for file in files
        if _belongs_to(file.name, row["sample_id"], text)
    ]


def _belongs_to(name: str, sample_id: str, text: str) -> bool:
    """Whether a file of PyBench's one folder is a task's: it begins with the id, or the messages name it."""
    if re.match(rf"{re.escape(sample_id)}(?!\d)", name):
        return True
    return name in text and re.search(rf"(?<![\w.-]){re.escape(name)}(?!\w)", text) is not None


def pair_up(
    candidate: Mapping[str, Recorded], reference: Mapping[str, Recorded], samples: Mapping[str, Sample]
) -> list[Pair]:
    """Return the tasks that either run has; where `samples` lacks one, the run itself says what was asked.

    Raises:
        RunDirError: the runs have no task in common.
    """
    if not candidate.keys() & reference.keys():
        raise RunDirError("RUN and REFERENCE have no task in common: they must be runs of one benchmark")
    pairs = []
    for sample_id in sorted(candidate.keys() | reference.keys(), key=lambda name: (len(name), name)):
        recorded = (candidate.get(sample_id), reference.get(sample_id))
        sample = samples.get(sample_id) or next(
            Sample(sample_id, tuple(opening(run))) for run in recorded if run is not None
        )
        pairs.append(Pair(sample, *recorded))
    return pairs


def read_unit_tests(path: Path, epochs: Mapping[str, int]) -> dict[str, dict[str, bool]]:
    """Return which samples passed their unit tests, by profile; of an attempt, those of the epoch given.

    `path` is a scores.jsonl, or the JSON of `python -m scoring pybench`. Blocks. Raises RunDirError.
    """
    passed: dict[str, dict[str, bool]] = {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunDirError(f"{path}: {error.strerror}; score RUN first, or leave --scores out") from error
    try:
        whole = orjson.loads(content)
    except orjson.JSONDecodeError:
        whole = None
    try:
        if isinstance(whole, dict) and "results" in whole:
            results = {str(name): said == "Pass" for name, said in whole["results"].items()}
            return {str(whole.get("profile", "upstream")): results}
        for row in map(orjson.loads, content.splitlines()):
            if row["passed"] is not None and row["epoch"] == epochs.get(row["sample_id"]):
                passed.setdefault(row["profile"], {})[row["sample_id"]] = row["passed"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunDirError(
            f"{path}: neither a scores.jsonl nor the JSON of scoring pybench: {error!r}"
        ) from error
    return passed


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
    key = None
    if arguments.api_key_env and not (key := os.environ.get(arguments.api_key_env)):
        raise ConfigError(f"--api-key-env: the environment variable {arguments.api_key_env} is not set")
    try:
        config = ModelConfig(
            client=arguments.model,
            name=arguments.name,
            request=json.loads(arguments.request),
            api_key_env=arguments.api_key_env,
        )
    except ValueError as error:
        raise ConfigError(f"--request {arguments.request}: not a JSON object") from error
    client = OpenAIClient(urls.split(","), config, key, concurrency=arguments.concurrency)
    return CachingClient(client, arguments.cache) if arguments.cache else client
