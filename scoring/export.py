"""`python -m scoring export RUN --format pybench`: a run in the form of another project's files.

PyBench's `trajectory.jsonl` (github.com/Mercury7353/PyBench at fa90fae): a line per task with the
messages and the task's own fields, in the order in which the tasks ended. Upstream's scorer reads it, and
so does everything here that reads a recorded run. Its scorer also wants the output files of all tasks in one
folder, which `--outputs` makes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bench_data import Sample
from bench_data.errors import BenchDataError
from runner.errors import RunnerError
from runner.journal import CONFIG, EVENTS, FAILURES, TRAJECTORIES, read_failures, read_trajectories
from scoring.errors import ArtifactChanged, RunDirError
from scoring.facts import read_unchanged
from scoring.pybench.scorer import output_folders
from scoring.store import check_target, load_benchmark, open_run, write_atomically
from scoring.trajectory import Artifact

Row = Mapping[str, Any]
Message = dict[str, Any]

OWN_FILES = (TRAJECTORIES, FAILURES, EVENTS, CONFIG)

MERGED_WITH = "\n\n"
"""What the runner puts between user messages that it merges."""

PYBENCH_FIELDS = ("index", "user", "file_paths")
"""What PyBench says of each task; its other fields are passed on as they are."""


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code: 0, 2 for what the user can mend, 1 for what failed."""
    arguments = _parse(argv)
    try:
        _export(arguments.run_dir, arguments.epoch, arguments.output, arguments.outputs)
    except (RunDirError, ArtifactChanged, BenchDataError, RunnerError) as error:
        _say(str(error))
        return 2
    except BrokenPipeError:  # `| head`, for the caller
        raise
    except OSError as error:
        _say(str(error))
        return 1
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scoring export", description="Write a run in another form.", allow_abbrev=False
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="what `python -m runner` has written")
    parser.add_argument(
        "--format", required=True, choices=["pybench"], help="pybench: upstream's trajectory.jsonl"
    )
    parser.add_argument(
        "--epoch", type=int, default=1, metavar="N", help="the form has one attempt of each task (default: 1)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="replaced, whole or not at all (default: standard output)"
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="DIR",
        help="also copy the output files of all tasks into this new folder, as `scoring pybench` takes them",
    )
    return parser.parse_args(argv)


def _export(run_dir: Path, epoch: int, output: Path | None, outputs: Path | None) -> None:
    run = open_run(run_dir)
    if output is not None and output.resolve() in {(run_dir / name).resolve() for name in OWN_FILES}:
        raise RunDirError(f"{output} is a file of the run itself; choose another --output")
    check_target(str(output) if output else None)
    if outputs is not None and outputs.exists():
        raise RunDirError(f"{outputs} is there already; name a new folder for --outputs")
    samples = {sample.id: sample for sample in load_benchmark(run).samples}
    lines = list(pybench_lines(read_trajectories(run_dir), samples, epoch=epoch))
    if not lines:
        raise RunDirError(f"{run_dir} has no finished attempts of epoch {epoch}; choose another --epoch")
    content = "".join(lines).encode()
    if outputs is not None:
        _copy_outputs(output_folders(read_trajectories(run_dir), run_dir).get(epoch, {}), outputs)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        write_atomically(output, content)
    left_out = _without_line(run_dir, epoch)
    if left_out:
        some = ", ".join(sorted(left_out)[:10]) + (", ..." if left_out[10:] else "")
        _say(f"{len(left_out)} attempts have no line, for they failed by no fault of the model: {some}")


def _copy_outputs(artifacts: Mapping[str, Artifact], folder: Path) -> None:
    """Write what is in `output/` into a new folder; a file gives way to another task's folder of its name."""
    folder.mkdir(parents=True)
    inside = {name: a for name, a in artifacts.items() if name.startswith("output/") and not a.problem}
    folders = {str(parent) for name in inside for parent in PurePosixPath(name).parents}
    for name in inside.keys() - folders:
        target = folder / name.removeprefix("output/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_unchanged(inside[name]))


def _without_line(run_dir: Path, epoch: int) -> list[str]:
    finished = {row["attempt"] for row in read_trajectories(run_dir)}
    failed = {row["attempt"] for row in read_failures(run_dir) if row.get("epoch") == epoch}
    return sorted(failed - finished)


def _say(text: str) -> None:
    sys.stderr.write(f"scoring: {text}\n")


def pybench_lines(
    trajectories: Iterable[Row], samples: Mapping[str, Sample], *, epoch: int = 1
) -> Iterator[str]:
    """Yield upstream's line, with its newline, for each attempt of an epoch, in the order given.

    Messages are those that the model saw, less what the form has no place for (reasoning); a merged
    opening is taken apart into the sample's own messages.

    Raises:
        RunDirError: a trajectory whose sample is not there or is no task of PyBench's, or that holds
            messages which are not text, as native tool calls are; names the attempt.
    """
    seen = set()
    for row in trajectories:
        if row["epoch"] == epoch and row["attempt"] not in seen:
            seen.add(row["attempt"])
            yield pybench_line(row, samples.get(row["sample_id"]))


def pybench_line(row: Row, sample: Sample | None) -> str:
    """Return upstream's line of one attempt; see `pybench_lines`."""
    name = row["attempt"]
    if sample is None:
        raise RunDirError(
            f"{name}: the benchmark has no such sample now; give data.root the inputs that the run had"
        )
    missing = [field for field in PYBENCH_FIELDS if field not in sample.metadata]
    if missing:
        raise RunDirError(
            f"{name} is no task of PyBench's: its sample has no {', '.join(missing)}, which each line of the "
            "form pybench has"
        )
    messages = [_plain(message, name) for message in row.get("messages") or ()]
    if not messages:
        return _json({"index": sample.metadata["index"]})
    fields = {key: value for key, value in sample.metadata.items() if key != "messages"}
    return _json({"messages": taken_apart(messages, sample), **fields})


def taken_apart(messages: Sequence[Message], sample: Sample) -> list[Message]:
    """Return messages with the sample's own ones in place of the one that they were merged into."""
    asked = [{"role": message["role"], "content": message["content"]} for message in sample.messages]
    if any(message["role"] != "user" or not isinstance(message["content"], str) for message in asked):
        return list(messages)
    merged = {"role": "user", "content": MERGED_WITH.join(message["content"] for message in asked)}
    if merged not in messages:
        return list(messages)
    place = messages.index(merged)
    return [*messages[:place], *asked, *messages[place + 1 :]]


def _plain(message: Any, name: str) -> Message:
    role, content = message.get("role"), message.get("content")
    if role == "tool" or message.get("tool_calls") or not isinstance(content, str):
        raise RunDirError(
            f"{name} holds messages that are not text alone (native tool calls, for one), and the form "
            "pybench has no place for them; export a run with protocol.kind=fenced"
        )
    return {"role": role, "content": content}


def _json(line: Row) -> str:
    """Return a line as upstream writes it, to the byte."""
    return json.dumps(line, ensure_ascii=False) + "\n"
