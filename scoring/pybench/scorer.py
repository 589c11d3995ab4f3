"""Scores PyBench runs, ours and upstream's own, by one of two profiles.

`upstream` judges as upstream's unit tests at github.com/Mercury7353/PyBench fa90fae do, defects included:
text checks look at the last message whatever its role, and the output files of all tasks lie in one
folder, because two tests read another task's file. `strict` judges what was asked for, by each attempt's
own files and its final reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_data.sample import Sample, SampleFile
from scoring.judging import Context, judged, not_scored
from scoring.pybench.tasks import Profile, TaskChecks
from scoring.score import Score, Scorer
from scoring.trajectory import Artifact, Trajectory, artifacts_of, final_answer, require_fields

VERSION = "1"
NAME = "pybench"

NO_MESSAGE = "error"
"""What upstream's tests take for the last message of a task without any."""

OutputFolders = Mapping[int, Mapping[str, Artifact]]
"""The output files of all tasks of an epoch, in one folder."""


@dataclass(frozen=True, slots=True)
class PyBenchScorer:
    """Scores attempts by one profile. Call it with a sample and its attempt."""

    profile: Profile
    checks: Mapping[str, TaskChecks]
    inputs: tuple[SampleFile, ...]
    """Of all tasks: two are compared with the input of another one."""

    folders: OutputFolders = field(default_factory=dict)
    own_files: bool = True
    """Whether attempts have output files of their own; a run of upstream's has one folder for all."""

    @property
    def scorer(self) -> Scorer:
        """By whose rules."""
        return Scorer(NAME, VERSION, self.profile)

    async def __call__(self, sample: Sample, trajectory: Trajectory, context: Context) -> Score:
        """Return the score of an attempt. Safe to cancel."""
        task = self.checks.get(sample.id)
        check = task.check(self.profile) if task else None
        if task is None or check is None:
            reason = f"left out: {task.excluded}" if task else "PyBench has no such task"
            return not_scored(trajectory, reason, "sample", self.scorer)
        is_upstream = self.profile == "upstream"
        answer = last_message(sample, trajectory) if is_upstream else final_answer(trajectory)
        artifacts = self._artifacts(trajectory, context.run_dir)
        return await judged(
            check, answer, artifacts, sample, trajectory, context.pool, self.scorer, self.inputs
        )

    def _artifacts(self, trajectory: Trajectory, run_dir: Path) -> Mapping[str, Artifact]:
        if self.profile == "strict" and self.own_files:
            return artifacts_of(trajectory, run_dir)
        return self.folders.get(trajectory["epoch"], {})


def all_inputs(samples: Iterable[Sample]) -> tuple[SampleFile, ...]:
    """Return the input files of all tasks, each once."""
    return tuple({file.path: file for sample in samples for file in sample.files}.values())


def last_message(sample: Sample, trajectory: Trajectory) -> str:
    """Return the text of the last message, whoever wrote it."""
    messages = trajectory.get("messages") or [{"content": NO_MESSAGE}]
    # Where no model has replied it is the task's own, without the file names that ours may be merged with.
    last = sample.messages[-1] if len(messages) > 1 and not trajectory["turns"] else messages[-1]
    return str(last.get("content") or "") if isinstance(last, Mapping) else ""


def output_folders(trajectories: Iterable[Any], run_dir: Path) -> dict[int, dict[str, Artifact]]:
    """Return the output files of each epoch in one folder: the later line's where two have one name.

    Raises:
        RunDirError: a trajectory lacks what scoring needs; names the line.
    """
    folders: dict[int, dict[str, Artifact]] = {}
    seen = set()
    for number, line in enumerate(trajectories, start=1):
        row = require_fields(line, number)
        attempt = (row["sample_id"], row["epoch"])
        if attempt not in seen:
            seen.add(attempt)
            folders.setdefault(row["epoch"], {}).update(artifacts_of(row, run_dir))
    return folders
