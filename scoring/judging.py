"""From one attempt to its score: facts about its files, a verdict on them, and who is to answer for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_data.checks import CheckModel
from bench_data.sample import Sample, SampleFile
from sandbox_pool.interface import Pool
from scoring.checks import judge
from scoring.errors import ArtifactChanged, ExtractionFault
from scoring.facts import gather_facts
from scoring.score import Score, Scorer
from scoring.trajectory import Artifact, Trajectory


@dataclass(frozen=True, slots=True)
class Context:
    """What a scorer needs beside the sample and the trajectory."""

    run_dir: Path
    pool: Pool


async def judged(
    check: CheckModel,
    answer: str | None,
    artifacts: Mapping[str, Artifact],
    sample: Sample,
    trajectory: Trajectory,
    pool: Pool,
    scorer: Scorer,
    inputs: Sequence[SampleFile] | None = None,
) -> Score:
    """Return the score of an attempt by a check. Safe to cancel.

    Trouble of ours, with an artifact or a sandbox, is no error: the attempt is not scored, and the
    reason says why.

    Args:
        check: what is expected.
        answer: the text that checks of answers look at; None when there is none.
        artifacts: the output files that it may look at, by their path in the sandbox.
        sample: whose input files and workspace belong to the task.
        trajectory: the attempt.
        pool: where the sandbox that reads the files comes from.
        scorer: by whose rules.
        inputs: the input files that the check may compare with, if others than the sample's.
    """
    try:
        inputs = sample.files if inputs is None else inputs
        facts = await gather_facts(check, artifacts, pool, inputs, sample.workspace)
    except ArtifactChanged as error:
        return not_scored(trajectory, str(error), "runner", scorer)
    except ExtractionFault as error:
        reason = f"the sandbox that reads the output files failed: {error}"
        return not_scored(trajectory, reason, "sandbox", scorer)
    verdict = judge(check, answer, facts, trajectory["stop_reason"])
    return _score(trajectory, verdict.reason, trajectory["owner"], scorer, passed=verdict.passed)


def not_scored(trajectory: Trajectory, reason: str, owner: str, scorer: Scorer) -> Score:
    """Return the score of an attempt that was not the model's to lose, or that nobody can judge."""
    return _score(trajectory, reason, owner, scorer, passed=None)


def _score(trajectory: Trajectory, reason: str, owner: str, scorer: Scorer, *, passed: bool | None) -> Score:
    return Score(
        sample_id=trajectory["sample_id"],
        epoch=trajectory["epoch"],
        passed=passed,
        score=float(passed is True),
        reason=reason,
        owner=owner,
        scorer=scorer.name,
        scorer_version=scorer.version,
        profile=scorer.profile,
    )
