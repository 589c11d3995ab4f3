"""Scores samples whose check is data of our own kinds: quickstart, and the benchmarks of `jsonl:` files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench_data.sample import Sample
from sandbox_pool.interface import Pool
from scoring.checks import judge
from scoring.errors import ArtifactChanged, ExtractionFault
from scoring.facts import gather_facts
from scoring.score import Score, Scorer
from scoring.trajectory import Trajectory, artifacts_of, final_answer

SCORER = Scorer(name="quickstart", version="1")


@dataclass(frozen=True, slots=True)
class Context:
    """What a scorer needs beside the sample and the trajectory."""

    run_dir: Path
    pool: Pool


async def score(sample: Sample, trajectory: Trajectory, context: Context) -> Score:
    """Return the score of an attempt. Safe to cancel.

    Trouble of ours, with an artifact or a sandbox, is no error: the attempt is not scored, and the
    reason says why.
    """
    if sample.check is None:
        return not_scored(trajectory, "no check", owner="sample")
    artifacts = artifacts_of(trajectory, context.run_dir)
    try:
        facts = await gather_facts(sample.check, artifacts, context.pool, sample.files, sample.workspace)
    except ArtifactChanged as error:
        return not_scored(trajectory, str(error), owner="runner")
    except ExtractionFault as error:
        return not_scored(trajectory, f"the sandbox that reads the output files failed: {error}", "sandbox")
    verdict = judge(sample.check, final_answer(trajectory), facts, trajectory["stop_reason"])
    return _score(trajectory, verdict.reason, trajectory["owner"], passed=verdict.passed)


def not_scored(trajectory: Trajectory, reason: str, owner: str) -> Score:
    """Return the score of an attempt that was not the model's to lose, or that nobody can judge."""
    return _score(trajectory, reason, owner, passed=None)


def _score(trajectory: Trajectory, reason: str, owner: str, *, passed: bool | None) -> Score:
    return Score(
        sample_id=trajectory["sample_id"],
        epoch=trajectory["epoch"],
        passed=passed,
        score=float(passed is True),
        reason=reason,
        owner=owner,
        scorer=SCORER.name,
        scorer_version=SCORER.version,
        profile=SCORER.profile,
    )
