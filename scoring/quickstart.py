"""Scores samples whose check is data of our own kinds: quickstart, and the benchmarks of `jsonl:` files."""

from __future__ import annotations

from bench_data.sample import Sample
from scoring.judging import Context, judged, not_scored
from scoring.score import Score, Scorer
from scoring.trajectory import Trajectory, artifacts_of, final_answer

SCORER = Scorer(name="quickstart", version="1")


async def score(sample: Sample, trajectory: Trajectory, context: Context) -> Score:
    """Return the score of an attempt by its sample's own check. Safe to cancel."""
    if sample.check is None:
        return not_scored(trajectory, "no check", "sample", SCORER)
    artifacts = artifacts_of(trajectory, context.run_dir)
    answer = final_answer(trajectory)
    return await judged(sample.check, answer, artifacts, sample, trajectory, context.pool, SCORER)
