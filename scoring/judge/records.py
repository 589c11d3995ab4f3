"""What the judge is shown, read from two runs: trajectories, the files they left, their unit tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bench_data import Sample
from runner.journal import read_recorded, read_trajectories
from scoring.errors import RunDirError
from scoring.judge.question import Pair, Recorded, opening, text_of
from scoring.trajectory import artifacts_of


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
